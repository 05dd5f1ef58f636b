"""DiffDis (ICCV 2023) in MindSpore: one diffusion model that draws images from texts and recognises which text fits an
image."""

import os

os.environ.setdefault('GLOG_v', '3')  # MindSpore's own warnings stay out of a user's terminal
os.environ.setdefault(
    'TRANSFORMERS_NO_ADVISORY_WARNINGS', '1'
)  # its tokenizers need none of the frameworks it asks for

__version__ = '0.1.0'


def __getattr__(name):
    """`DiffDisPipeline` on first use, so that `diffdis_ms.config` alone does not import MindSpore."""
    if name == 'DiffDisPipeline':
        from diffdis_ms.pipeline import DiffDisPipeline

        return DiffDisPipeline
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

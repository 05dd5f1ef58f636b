"""The typed config tree: `fields` defines it, `loading` reads YAML files and `key=value`, `validation` checks them.

Everything that other packages use is exported here.
"""

from diffdis_ms.config.fields import (
    CLIP_MEAN,
    CLIP_STD,
    AlignmentConfig,
    AutoencoderConfig,
    Config,
    DataConfig,
    DualStreamConfig,
    ImageDiffusionConfig,
    ImageEncoderConfig,
    InitConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    TextDiffusionConfig,
    TextEncoderConfig,
    TrainConfig,
    UNetConfig,
)
from diffdis_ms.config.loading import load, to_yaml
from diffdis_ms.config.validation import validate

__all__ = [
    'CLIP_MEAN',
    'CLIP_STD',
    'AlignmentConfig',
    'AutoencoderConfig',
    'Config',
    'DataConfig',
    'DualStreamConfig',
    'ImageDiffusionConfig',
    'ImageEncoderConfig',
    'InitConfig',
    'ModelConfig',
    'OptimizerConfig',
    'RuntimeConfig',
    'TextDiffusionConfig',
    'TextEncoderConfig',
    'TrainConfig',
    'UNetConfig',
    'load',
    'to_yaml',
    'validate',
]

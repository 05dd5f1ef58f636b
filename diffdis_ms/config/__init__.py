"""The typed config tree: `fields` says what there is, `loading` reads it from YAML files and `key=value`, `validation`
checks it. Everything that others use is given out here."""

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

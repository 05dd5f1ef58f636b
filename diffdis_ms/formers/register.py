"""The classes for MindFormers' `auto_register: register.<Class>`.

MindFormers copies this file to another directory and imports the copy. So this file only imports classes, which then
exist only once. Importing it also registers them with `AutoConfig` and `AutoModel`.
"""

from mindformers import AutoConfig, AutoModel

from diffdis_ms.formers.config import DiffDisConfig
from diffdis_ms.formers.dataset import DiffDisDataset
from diffdis_ms.formers.model import DiffDisForTraining
from diffdis_ms.formers.step import PortableTrainOneStepCell
from diffdis_ms.formers.trainer import DiffDisTrainer

__all__ = ['DiffDisConfig', 'DiffDisDataset', 'DiffDisForTraining', 'DiffDisTrainer', 'PortableTrainOneStepCell']

AutoConfig.register(DiffDisConfig.model_type, DiffDisConfig, exist_ok=True)  # the original and the copy both register
AutoModel.register(DiffDisConfig, DiffDisForTraining, exist_ok=True)

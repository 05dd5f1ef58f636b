"""What MindFormers' `auto_register: register.<Class>` finds here.

MindFormers copies this one file into a directory of its own and imports the copy; so it only names classes, which exist
once. Importing it registers them, with `AutoConfig` and `AutoModel`, too.
"""

from mindformers import AutoConfig, AutoModel

from diffdis_ms.formers.config import DiffDisConfig
from diffdis_ms.formers.dataset import DiffDisDataset
from diffdis_ms.formers.model import DiffDisForTraining
from diffdis_ms.formers.step import PortableTrainOneStepCell
from diffdis_ms.formers.trainer import DiffDisTrainer

__all__ = ['DiffDisConfig', 'DiffDisDataset', 'DiffDisForTraining', 'DiffDisTrainer', 'PortableTrainOneStepCell']

AutoConfig.register(DiffDisConfig.model_type, DiffDisConfig, exist_ok=True)  # the original and the copy both do
AutoModel.register(DiffDisConfig, DiffDisForTraining, exist_ok=True)

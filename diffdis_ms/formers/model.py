"""DiffDisForTraining: DiffDis and its loss as a MindFormers model."""

from mindformers.models import PreTrainedModel
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindspore import Parameter

from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.config import DiffDisConfig
from diffdis_ms.formers.dataset import open_cache, this_world
from diffdis_ms.train.build import build, resolve_model
from diffdis_ms.train.step import initial_averages


@MindFormerRegister.register(MindFormerModuleType.MODELS)
class DiffDisForTraining(PreTrainedModel):
    """`DiffDisObjective` with the call that MindFormers expects: a batch in, one loss out.

    Parameters have the same names as in our checkpoints. The EMA weights (`ema.<name>`) are also parameters, so that
    MindFormers' checkpoints contain them; `step.AfterStep` updates them.

    Args:
        config: DiffDisConfig. Weights come from its `init`, from `checkpoint_name_or_path` if it is set, or are random.

    Raises:
        ConfigError: the objective is not diffdis, there is no cache, or weights do not fit.
    """

    config_class = DiffDisConfig
    base_model_prefix = 'diffdis'

    def __init__(self, config):
        super().__init__(config, auto_prefix=False)
        experiment = config.resolved()
        if experiment.objective != 'diffdis':
            raise ConfigError(f'objective: {experiment.objective} is not trained by MindFormers; use tools/train.py')
        resolve_model(experiment)
        self.learner = build(experiment, None, None, this_world(), open_cache(experiment))
        self.objective = self.learner.objective
        scale = self.objective.logit_scale  # MindFormers' AdamW cannot update a parameter without dimensions
        scale.weight = Parameter(
            scale.weight.asnumpy().reshape(1), name=scale.weight.name, requires_grad=scale.weight.requires_grad
        )
        self.averages = initial_averages(self.trainable_params())
        if config.checkpoint_name_or_path:
            self.load_checkpoint(config)

    def construct(self, z, c, e, t_z, noise_z, drop_caption, t_e, noise_e, drop_image):
        """The columns of `DiffDisDataset` -> the loss, () float32."""
        return self.objective(z, c, e, None, t_z, noise_z, drop_caption, t_e, noise_e, drop_image)[0]

    def save_pretrained(self, save_directory, save_name='mindspore_model', **kwargs):
        """Write config.json and mindspore_model.ckpt, for `from_pretrained`.

        MindFormers' default form (a YAML file) is refused, because MindFormers reads it back with random weights
        without a warning.

        Raises:
            ConfigError: save_json=False.
        """
        if kwargs.pop('save_json', True) is False:
            raise ConfigError(
                'save_pretrained: MindFormers reads its YAML form back with random weights; leave save_json=False out'
            )
        super().save_pretrained(save_directory, save_name, save_json=True, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_dir, *args, **kwargs):
        """Read a directory of `save_pretrained`.

        Raises:
            ConfigError: the directory has no config.json; MindFormers would read it with random weights.
        """
        directory = kwargs.pop('pretrained_model_name_or_path', None) or pretrained_model_name_or_dir
        if not cls.is_experimental_mode(str(directory)):
            raise ConfigError(
                f'{directory} was not written by DiffDisForTraining.save_pretrained: it needs config.json, and no YAML'
                ' file'
            )
        return super().from_pretrained(str(directory), *args, **kwargs)

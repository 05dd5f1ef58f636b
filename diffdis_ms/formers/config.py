"""DiffDisConfig: an experiment's `Config` as a MindFormers config."""

import tempfile
from pathlib import Path

from mindformers.models import PretrainedConfig
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister

from diffdis_ms.config import load, to_yaml
from diffdis_ms.errors import ConfigError

_KEPT = ('name_or_path', 'checkpoint_name_or_path', 'mindformers_version', 'architectures', '_commit_hash')


@MindFormerRegister.register(MindFormerModuleType.CONFIG)
class DiffDisConfig(PretrainedConfig):
    """One of our configs inside MindFormers. All its settings are defined in our config.

    Args:
        config_file: one of our YAML files, or None for the defaults.
        overrides: list of `key.sub=value`, as on our command lines.
        experiment: the whole config as YAML text, instead of both. `save_pretrained` writes it, so that a saved model
            does not depend on a file.
        stated: with `experiment`, the keys that have stated values (see `config.load`); all others are defaults.
        kwargs: other arguments of MindFormers, which are kept for it.

    Raises:
        ConfigError: as for `config.load`.
    """

    model_type = 'diffdis'

    def __init__(self, config_file=None, overrides=(), experiment=None, stated=(), **kwargs):
        super().__init__(**{name: kwargs[name] for name in _KEPT if name in kwargs})
        if not experiment:
            found = load(config_file, list(overrides or ()))
            experiment, stated = to_yaml(found), found.stated
        self.experiment, self.stated = experiment, sorted(stated or ())
        self.resolved()

    def resolved(self):
        """Make a new `Config` of this experiment."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / 'experiment.yaml'
            file.write_text(self.experiment, encoding='utf-8')
            config = load(file)
        config.stated = set(self.stated)
        return config

    def to_dict(self):
        """The content of config.json, without attributes that MindFormers' trainer added."""
        kept = {
            name: self.__dict__.get(name) for name in ('architectures', 'experiment', 'mindformers_version', 'stated')
        }
        return {'model_type': self.model_type, **kept}

    def save_pretrained(self, save_directory=None, save_name='mindspore_model', **kwargs):
        """Write config.json. MindFormers' YAML form is refused, because it cannot be read back (see
        `DiffDisForTraining.save_pretrained`)."""
        if kwargs.pop('save_json', True) is False:
            raise ConfigError('save_pretrained: only save_json=True (the default here) can be read back')
        super().save_pretrained(save_directory, save_name, save_json=True, **kwargs)

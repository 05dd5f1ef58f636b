"""The dataset for MindFormers' trainer: one row per step with all inputs of the objective."""

from mindformers.dataset import BaseDataset
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.tools.utils import get_real_group_size, get_real_rank
from mindspore.dataset import GeneratorDataset

from diffdis_ms.data.stream.latent_cache import CachedLoader, LatentCache
from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.config import DiffDisConfig
from diffdis_ms.train.build import resolve_model
from diffdis_ms.train.cache import check_key
from diffdis_ms.train.features import CachedFeatures
from diffdis_ms.world import World

COLUMNS = ['z', 'c', 'e', 't_z', 'noise_z', 'drop_caption', 't_e', 'noise_e', 'drop_image']

_opened = {}


def this_world():
    """The `World` that MindFormers' build_context has set up."""
    return World(get_real_rank(), get_real_group_size())


def open_cache(config):
    """Open the `LatentCache` of a config after `resolve_model`. It is opened and checked once per process, because both
    the dataset and the model need it.

    Raises:
        ConfigError: there is no cache, or it is stale.
    """
    if config.data.cache is None:
        raise ConfigError(
            'data.cache: MindFormers needs a latent cache, because networks cannot run in its data pipeline; make one '
            'with tools/cache_latents.py, or train with tools/train.py'
        )
    key = config.data.cache, config.init.vae, config.init.text_encoder, config.model.image_size
    if key not in _opened:
        cache = LatentCache(config.data.cache)
        check_key(cache, config)
        _opened[key] = cache
    return _opened[key]


class Steps:
    """Inputs of `DiffDisObjective` by step: row k is this process' share of batch k, with the random draws of step k.

    When rows are read in order, it reads ahead. For another number it moves there, so that a resumed run does not read
    the batches that it skips.

    Args:
        loader: Loader or CachedLoader. features: (batch, step) -> arrays; None entries are left out. length: number of
            steps.
    """

    def __init__(self, loader, features, length):
        self.loader, self.features, self.length = loader, features, length
        self.batches, self.next = None, None

    def __len__(self):
        return self.length

    def __getitem__(self, step):
        step = int(step)
        if step != self.next:
            if self.batches is not None:
                self.batches.close()
            self.loader.seek(step)
            self.batches = iter(self.loader)
        self.next = step + 1
        return tuple(x for x in self.features(next(self.batches), step) if x is not None)


@MindFormerRegister.register(MindFormerModuleType.DATASET)
class DiffDisDataset(BaseDataset):
    """A GeneratorDataset of `train.max_steps` rows with the columns `COLUMNS`; a row is this process' whole batch."""

    def __new__(cls, dataset_config=None):
        """Args: dataset_config: contains `model_config`, the arguments of a `DiffDisConfig`, set by `DiffDisTrainer`.

        Raises:
            ConfigError: there is no cache, it is stale, or it has too few samples.
        """
        given = dataset_config['model_config']
        config = DiffDisConfig(
            *(given.get(key) for key in ('config_file', 'overrides', 'experiment', 'stated'))
        ).resolved()
        world = this_world()
        resolve_model(config)
        cache = open_cache(config)
        loader = CachedLoader(cache, config.train.batch_size * world.size, config.seed, config.data.num_workers, world)
        steps = Steps(loader, CachedFeatures(cache, config, world), config.train.max_steps)
        return GeneratorDataset(steps, COLUMNS, shuffle=False, num_parallel_workers=1, python_multiprocessing=False)

"""The dataset that MindFormers' trainer reads: one row a step, which holds all that the objective takes."""

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
    """The `LatentCache` of a config after `resolve_model`; opened and checked once a process: the dataset and the model
    both need it.

    Raises:
        ConfigError: there is none, or it is stale.
    """
    if config.data.cache is None:
        raise ConfigError(
            'data.cache: MindFormers trains on latents, as networks cannot run in its data pipeline; make them with '
            'tools/cache_latents.py, or train with tools/train.py'
        )
    key = config.data.cache, config.init.vae, config.init.text_encoder, config.model.image_size
    if key not in _opened:
        cache = LatentCache(config.data.cache)
        check_key(cache, config)
        _opened[key] = cache
    return _opened[key]


class Steps:
    """Inputs of `DiffDisObjective` by the number of the step: row k is this process's share of batch k of our stream,
    with the draws of step k.

    Read in order it reads ahead; at another number it goes there, so that a resumed run does not read what it skips.

    Args:
        loader: Loader or CachedLoader. features: (batch, step) -> arrays; None among them is left out. length: steps.
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
    """A GeneratorDataset of `train.max_steps` rows with the columns `COLUMNS`; a row is a whole batch of this
    process."""

    def __new__(cls, dataset_config=None):
        """Args: dataset_config: holds `model_config`, the arguments of a `DiffDisConfig` (`DiffDisTrainer` puts it
        there).

        Raises:
            ConfigError: there is no cache, it is stale, or it holds too few samples.
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

"""Assemble a training run from its config: data, networks, optimizer and step."""

from dataclasses import dataclass
from typing import Any

from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.stream.latent_cache import CachedLoader, LatentCache
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.errors import ConfigError
from diffdis_ms.train.accumulation import AccumulatedStep
from diffdis_ms.train.build import Learner, build, load_tokenizer, resolve_model
from diffdis_ms.train.cache import check_data, check_key
from diffdis_ms.train.distributed import join_world
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep, Update
from diffdis_ms.world import World


@dataclass
class Job:
    """An assembled training run, ready for its first step; made by `assemble`."""

    config: Any
    world: World
    captions: Any  # the training set; None if only a cache is used
    loader: Any  # Loader or CachedLoader
    learner: Learner
    update: Update
    step: Any  # TrainStep or AccumulatedStep
    schedules: dict

    @property
    def first(self):
        """Whether this is the process that writes files."""
        return self.world.first

    @property
    def global_batch(self):
        """Samples per step, over all processes and accumulation steps."""
        return self.loader.batch_size


def assemble(config):
    """Make the `Job` of a config, with initial state.

    Raises:
        ConfigError: data, model directories or cache cannot be used.
    """
    world = join_world()
    data, train = config.data, config.train
    resolve_model(config)
    tokenizer, captions, cache = load_tokenizer(config), None, None
    global_batch = train.batch_size * train.accumulation_steps * world.size
    if not data.path and data.cache is None:
        raise ConfigError(
            'data.path: name the training set, for example data.path=data/cc3m (tools/prepare_data.py makes one)'
        )
    if data.path:
        captions = open_captions(data.path)
    if data.cache is not None:
        cache = LatentCache(data.cache)
        check_key(cache, config)
        if captions is not None:
            check_data(cache, captions, config)
        loader = CachedLoader(cache, global_batch, config.seed, data.num_workers, world)
    else:
        loader = Loader(
            captions,
            global_batch,
            config.model.image_size,
            seed=config.seed,
            num_workers=data.num_workers,
            cache=data.cache_in_memory,
            random_flip=data.random_flip,
            random_shift=data.random_shift,
            world=world,
            min_side=data.min_side,
            check_directory=config.output_dir,
            workers=data.workers,
            tokenizer=tokenizer,
            token_length=config.model.text_encoder.max_position_embeddings,
        )
    learner = build(config, captions, tokenizer, world, cache)
    units, optimizer, schedules = build_optimizer(config, list(learner.objective.trainable_params()), world)
    update = Update(learner.objective, units, optimizer, config, world)
    step = (
        TrainStep(learner.objective, update)
        if train.accumulation_steps == 1
        else AccumulatedStep(learner.objective, update, train.accumulation_steps)
    )
    step.set_train()
    return Job(config, world, captions, loader, learner, update, step, schedules)

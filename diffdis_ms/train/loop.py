"""The training loop: assemble, resume, step, log, save. One loop for all objectives, one process or many."""

import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from diffdis_ms.config import OptimizerConfig, to_yaml
from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.stream.check import write_skipped
from diffdis_ms.data.stream.latent_cache import CachedLoader, LatentCache
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.encoders import Encoders
from diffdis_ms.runtime.compile_cache import compile_cached, give_back_memory
from diffdis_ms.storage.model_dir import parameters_to_numpy, save_model
from diffdis_ms.train.accumulation import AccumulatedStep
from diffdis_ms.train.build import build, load_tokenizer, resolve_model
from diffdis_ms.train.cache import check_data, check_key
from diffdis_ms.train.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint, state_arrays
from diffdis_ms.train.distributed import Average, World, join_world
from diffdis_ms.train.log import MetricsLog
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep, Update


class TrainingError(ConfigError):
    """Training cannot go on; the message says at which step and why."""


class Terminated(Exception):
    """The run was told to stop (SIGTERM) and has saved its state; the message says where."""


@dataclass
class Job:
    """All that steps: made by `assemble`."""

    config: Any
    world: World
    captions: Any  # the training set; None where a cache is used alone
    loader: Any  # Loader or CachedLoader
    setup: Any
    update: Update
    step: Any  # TrainStep or AccumulatedStep
    schedules: dict

    @property
    def first(self):
        """Whether this process is the one that writes."""
        return self.world.rank == 0

    @property
    def global_batch(self):
        """Samples a step, over all processes and accumulation steps."""
        return self.loader.batch_size


def train(config, report=print, draw=None):
    """Run one experiment to its end, resuming where `config.resume` finds a checkpoint.

    Writes output_dir/{config.yaml, metrics.jsonl, skipped.txt, tensorboard/, checkpoints/step_N/, model/}; the model
    holds the EMA weights. Under msrun every process calls this; the first one writes.

    Args:
        config: Config.
        report: called with each line meant for the user.
        draw: makes sample images for the log, every `train.sample_every` steps: (Setup, captions) -> list of PIL
            images.

    Returns:
        Path of the model directory.

    Raises:
        ConfigError: data, model directories or checkpoint cannot be used. TrainingError: loss, gradients or weights are
            not finite.
        Terminated: SIGTERM came; a checkpoint was written.
    """
    output = Path(config.output_dir)
    job = assemble(config)
    if not job.first:
        report = _silent
    many = f' on {job.world.size} processes' if job.world.size > 1 else ''
    trained = sum(p.size for p in job.update.units.parameters)
    report(
        f'{config.objective}{many}: {len(job.loader.good)} samples in batches of {job.global_batch},'
        f' {trained / 1e6:.2f} M parameters to train'
    )
    options = config.optimizer
    if 'base' not in job.update.units.groups and options.learning_rate not in (
        OptimizerConfig.learning_rate,
        options.new_learning_rate,
    ):
        report(
            f'note: all that trains is new and has optimizer.new_learning_rate = {options.new_learning_rate};'
            f' optimizer.learning_rate = {options.learning_rate} has no effect'
        )

    state = {'step': 0, 'seconds': 0.0}
    checkpoint = find_checkpoint(config.resume, output / 'checkpoints', report)
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, job.step)
        job.loader.restore(state['loader'])
        report(f'resumed from {checkpoint}')
    if job.first:
        output.mkdir(parents=True, exist_ok=True)
        (output / 'config.yaml').write_text(to_yaml(config), encoding='utf-8')
        if job.loader.skipped:
            write_skipped(output / 'skipped.txt', job.loader.skipped)
            report(
                f'skipped {len(job.loader.skipped)} samples that cannot be used (listed in {output / "skipped.txt"})'
            )
    with MetricsLog(output, config, job.schedules, state['step'], job.global_batch, job.first) as log:
        state = _steps(job, state, log, output / 'checkpoints', draw)
    averages = job.update.averaged()  # by all processes, where they have parts of it
    if job.first:
        save_trained(output / 'model', job, state, averages)
    return output / 'model'


def assemble(config):
    """The `Job` of a config, with fresh state.

    Raises:
        ConfigError: as for `train`.
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
        loader = CachedLoader(cache, global_batch, config.seed, data.num_workers, world.rank, world.size)
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
            rank=world.rank,
            size=world.size,
            min_side=data.min_side,
            check_directory=config.output_dir,
            workers=data.workers,
            tokenizer=tokenizer,
            token_length=config.model.text_encoder.max_position_embeddings,
        )
    setup = build(config, captions, tokenizer, world, cache)
    units, optimizer, schedules = build_optimizer(config, list(setup.objective.trainable_params()), world)
    update = Update(setup.objective, units, optimizer, config, world)
    step = (
        TrainStep(setup.objective, update)
        if train.accumulation_steps == 1
        else AccumulatedStep(setup.objective, update, train.accumulation_steps)
    )
    step.set_train()
    return Job(config, world, captions, loader, setup, update, step, schedules)


def _steps(job, state, log, directory, draw):
    """Steps until `max_steps`, `max_minutes` or SIGTERM; returns the last state, which is saved."""
    train, first, last = job.config.train, state['step'], job.config.train.max_steps
    limit, seconds, started = (train.max_minutes or math.inf) * 60, state['seconds'], time.monotonic()
    captions = []
    with (
        _Stop(job.world) as stop,
        tqdm(
            total=last, initial=first, desc=job.config.objective, disable=None if job.first else True, unit='step'
        ) as bar,
    ):
        step, batches = first, iter(job.loader)
        while step < last and not stop.agreed(state['seconds'] >= limit):
            batch = next(batches)
            captions = captions or batch.captions[:8]
            inputs = job.setup.features(batch, step)
            if step == first and job.config.runtime.compile_cache:
                compile_cached(*job.step.main_graph(inputs), job.config, job.world.rank, job.world.size)
            outputs = [float(x.asnumpy() if isinstance(x, Tensor) else x) for x in job.step.run(inputs)]
            if step == first:
                give_back_memory()  # of compiling
            step += 1
            _check(job, step, outputs, batch)
            state = {'step': step, 'seconds': seconds + time.monotonic() - started, 'loader': job.loader.state()}
            bar.update()
            if step % train.log_every == 0 or step == last:
                shown = log.write(step, outputs, _value(job.setup.objective), *_scaling(job.update))
                bar.set_postfix(shown)
                if (
                    job.world.size > 1 and job.first and bar.disable
                ):  # logs of many processes are files: a line instead of a bar
                    print(f'step {step}/{last}: ' + ', '.join(f'{k} {v}' for k, v in shown.items()), flush=True)
            if draw is not None and job.first and train.sample_every and step % train.sample_every == 0:
                log.pictures(step, draw(job.setup, captions), captions)
            if step % train.checkpoint_every == 0 and step < last:
                _save(job, state, directory)
        batches.close()
        if step > first:
            _save(job, state, directory)
        if stop.terminated:
            stop.agreed(True)  # nobody leaves before the first process has saved: msrun would kill it
            raise Terminated(f'stopped at step {step} as asked; the same command continues from there')
    return state


def _save(job, state, directory):
    """A checkpoint, written by the first process; what shards hold all processes gather."""
    if job.first or job.update.shards is not None:
        arrays = state_arrays(job.step)
        wrong = next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)
        if wrong:
            raise TrainingError(
                f'step {state["step"]}: {wrong} is not finite, so this step is not saved; lower the learning rate or '
                'resume from an earlier checkpoint'
            )
        if job.first:
            save_checkpoint(directory, arrays, state, job.config.train.keep_checkpoints)


def _check(job, step, outputs, batch):
    """Raises TrainingError where the loss or the gradients' norm is not finite, unless the loss scale can still
    fall."""
    loss, *_, norm = outputs
    if math.isfinite(loss) and math.isfinite(norm):
        return
    if job.update.loss_scale is not None and _scaling(job.update)[0] > 1.0:
        return
    what = f"the gradients' norm is {norm}" if math.isfinite(loss) else f'the loss is {loss}'
    rank = f' of process {job.world.rank}' if job.world.size > 1 else ''
    raise TrainingError(
        f'step {step}: {what} (samples{rank}: {batch.indices[:8].tolist()}...); '
        'lower the learning rate or resume from an earlier checkpoint'
    )


class _Stop:
    """Listens for SIGTERM while it is entered, and lets all processes stop at the same step."""

    def __init__(self, world):
        self.asked = self.terminated = False
        self.mean = Average(world) if world.size > 1 else None

    def __enter__(self):
        self.before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *error):
        signal.signal(signal.SIGTERM, self.before)

    def _ask(self, *_):
        self.asked = True

    def agreed(self, finished):
        """Whether any process was asked to stop or has finished; a collective."""
        if self.mean is None:
            self.terminated = self.asked
            return self.asked or finished
        asked, finished = self.mean(Tensor([self.asked, finished], mstype.float32)).asnumpy() > 0
        self.terminated = bool(asked)
        return bool(asked or finished)


def save_trained(directory, job, state, averages):
    """The model directory of a run: EMA weights (`averages`) where there are any, the trained logit scale in its
    config."""
    networks, config = {}, job.config
    for stem in job.setup.networks:
        networks[stem] = {
            name: averages.get(name, array) for name, array in parameters_to_numpy(job.setup.network(stem)).items()
        }
    model = config.model
    if hasattr(job.setup.objective, 'logit_scale'):
        model.logit_scale = _value(job.setup.objective)
    if config.objective == 'autoencoder':
        model.vae.scaling_factor = latent_scale(job, networks)
    save_model(directory, model, networks, job.setup.tokenizer, {'step': state['step'], 'objective': config.objective})


def latent_scale(job, networks):
    """1 / standard deviation of the latents of the training images: what Stable Diffusion's 0.18215 was measured as."""
    vae, batch_size = job.setup.networks['vae'], job.config.train.batch_size
    for p in vae.get_parameters():
        p.set_data(Tensor(networks['vae'][p.name]))
    loader = Loader(
        job.captions,
        batch_size,
        job.config.model.image_size,
        seed=job.config.seed,
        num_workers=job.config.data.num_workers,
        min_side=job.config.data.min_side,
        check_directory=job.config.output_dir,
    )
    encoders = Encoders(vae, None, None, job.config.model, batch_size)
    batches = iter(loader)
    latents = [encoders.encode_images(next(batches).pixels) for _ in range(min(8, len(loader.good) // batch_size))]
    batches.close()
    return float(vae.scaling_factor / np.std(latents))


def _value(objective):
    """The logit scale, None where there is none."""
    return float(np.exp(objective.logit_scale.weight.asnumpy())) if hasattr(objective, 'logit_scale') else None


def _scaling(update):
    """(loss scale, steps skipped for an overflow)."""
    if update.loss_scale is None:
        return 1.0, 0
    return float(update.loss_scale.asnumpy()), int(update.skipped_steps.asnumpy())


def _silent(line):
    """What all processes but the first report."""

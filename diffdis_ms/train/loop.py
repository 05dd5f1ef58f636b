"""The training loop: resume, step, log, save. One loop for all objectives, one process or many."""

import contextlib
import math
import signal
import time
from itertools import islice
from pathlib import Path

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from diffdis_ms.config import OptimizerConfig, to_yaml
from diffdis_ms.data.stream.check import write_skipped
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.encoders import Encoders
from diffdis_ms.runtime.compile_cache import compile_cached, give_back_memory
from diffdis_ms.storage.model_dir import save_model
from diffdis_ms.train.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint, state_arrays
from diffdis_ms.train.distributed import Average
from diffdis_ms.train.job import assemble
from diffdis_ms.train.log import MetricsLog

MOST_SKIPPED = 100  # steps in a row; halving reaches the lowest loss scale long before


class TrainingError(ConfigError):
    """Training cannot continue. The message says at which step and why."""


class Terminated(Exception):
    """The run was stopped by SIGTERM and has saved its state. The message says at which step."""


def train(config, report=print, draw=None):
    """Run an experiment to its end, from the checkpoint that `config.resume` finds.

    Writes output_dir/{config.yaml, metrics.jsonl, skipped.txt, tensorboard/, checkpoints/step_N/, model/}; the model
    has the EMA weights. Under msrun every process calls this, and the first one writes.

    Args:
        config: Config.
        report: called with each line for the user.
        draw: makes sample images for the log every `train.sample_every` steps: (Learner, captions) -> list of PIL
            images.

    Returns:
        Path of the model directory.

    Raises:
        ConfigError: data, model directories or checkpoint cannot be used. TrainingError: loss, gradients or weights are
            not finite.
        Terminated: the process got SIGTERM and wrote a checkpoint.
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
            f'note: all trained parameters are new and use optimizer.new_learning_rate = {options.new_learning_rate};'
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
    averages = job.update.averaged()  # in all processes, because they may have shards
    if job.first:
        save_trained(output / 'model', job, state, averages)
    return output / 'model'


def _steps(job, state, log, directory, draw):
    """Run steps until `max_steps`, `max_minutes` or SIGTERM; returns the last state, which is saved."""
    train, first, last = job.config.train, state['step'], job.config.train.max_steps
    limit, seconds, started = (train.max_minutes or math.inf) * 60, state['seconds'], time.monotonic()
    captions, scale, skipped = [], job.learner.objective.logit_scale, Skipped(first, _scaling(job.update)[1])
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
            inputs = job.learner.features(batch, step)
            if step == first and job.config.runtime.compile_cache:
                compile_cached(*job.step.main_graph(inputs), job.config, job.world)
            outputs = [float(x.asnumpy() if isinstance(x, Tensor) else x) for x in job.step.run(inputs)]
            if step == first:
                give_back_memory()  # that compiling needed
            step += 1
            _check(job, step, outputs, batch)
            state = {'step': step, 'seconds': seconds + time.monotonic() - started, 'loader': job.loader.state()}
            bar.update()
            if step % train.log_every == 0 or step == last:
                scaling = _scaling(job.update)
                shown = log.write(step, outputs, None if scale is None else scale.value(), *scaling)
                skipped.check(step, *scaling)
                bar.set_postfix(shown)
                if (
                    job.world.size > 1 and job.first and bar.disable
                ):  # logs of several processes are files, which need lines instead of a bar
                    print(f'step {step}/{last}: ' + ', '.join(f'{k} {v}' for k, v in shown.items()), flush=True)
            if draw is not None and job.first and train.sample_every and step % train.sample_every == 0:
                log.pictures(step, draw(job.learner, captions), captions)
            if step % train.checkpoint_every == 0 and step < last:
                _save(job, state, directory)
        batches.close()
        if step > first:
            _save(job, state, directory)
        if stop.terminated:
            stop.agreed(True)  # all wait until the first process has saved, or msrun would kill it
            raise Terminated(f'stopped at step {step} by SIGTERM; the same command continues from there')
    return state


def _save(job, state, directory):
    """Save a checkpoint in the first process; all processes take part in gathering shards."""
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
    """Raise TrainingError if the loss or the gradients' norm is not finite, unless the loss scale can still be
    lowered."""
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


class Skipped:
    """Ends a run that only skips steps. A chip that saturates has a finite loss and norm however often it overflows.

    Args:
        step: the step at which the run starts. count: how many were skipped until then.
    """

    def __init__(self, step, count):
        self.step, self.count, self.begun = step, count, step

    def check(self, step, loss_scale, count):
        """Look at the count again, at a later step; TrainingError after MOST_SKIPPED steps in a row."""
        if count - self.count < step - self.step:
            self.begun = step
        self.step, self.count = step, count
        if step - self.begun >= MOST_SKIPPED:
            raise TrainingError(
                f'step {step}: the last {step - self.begun} steps were all skipped because of overflows (loss scale'
                f' {loss_scale:g}); lower the learning rate, resume from an earlier checkpoint, or use precision=bf16'
            )


class _Stop:
    """Context that listens for SIGTERM and lets all processes stop at the same step."""

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
    """Write the model directory of a run, with EMA weights (`averages`) and the trained logit scale in its config."""
    weights, config = job.learner.weights(averages), job.config
    model = config.model
    if job.learner.objective.logit_scale is not None:
        model.logit_scale = job.learner.objective.logit_scale.value()
    if config.objective == 'autoencoder':
        model.vae.scaling_factor = _latent_scale(job, weights['vae'])
    save_model(directory, model, weights, job.learner.tokenizer, {'step': state['step'], 'objective': config.objective})


def _latent_scale(job, weights):
    """`Encoders.latent_scale` of the training images, for the saved weights {parameter: array} of V."""
    vae, config = job.learner.networks['vae'], job.config
    for p in vae.get_parameters():
        p.set_data(Tensor(weights[p.name]))
    loader = Loader(
        job.captions,
        config.train.batch_size,
        config.model.image_size,
        seed=config.seed,
        num_workers=config.data.num_workers,
        min_side=config.data.min_side,
        check_directory=config.output_dir,
    )
    count = min(8, len(loader.good) // config.train.batch_size)
    with contextlib.closing(iter(loader)) as batches:
        encoders = Encoders(vae, None, None, config.model, config.train.batch_size)
        return encoders.latent_scale(batch.pixels for batch in islice(batches, count))


def _scaling(update):
    """(loss scale, number of steps skipped because of an overflow)."""
    if update.loss_scale is None:
        return 1.0, 0
    return float(update.loss_scale.asnumpy()), int(update.skipped_steps.asnumpy())


def _silent(line):
    """`report` for all processes but the first: print nothing."""

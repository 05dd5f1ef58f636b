"""Accumulation changes nothing but memory; fp16's loss scale skips what overflows, and only that."""

import functools

import numpy as np
import pytest
from mindspore import Tensor

from diffdis_ms.models.precision import apply_precision
from diffdis_ms.train.accumulation import AccumulatedStep
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep, Update
from tests.helpers import make_objective, make_smaller, tiny_run


def make(objective, batch_size, steps, **train):
    """(step, update) with the same weights for the same arguments, compiled once for all tests."""
    step, update, start = compiled(objective, batch_size, steps, **train)
    for p, value in start:
        p.set_data(Tensor(value))
    return step, update


@functools.cache
def compiled(objective, batch_size, steps, **train):
    config = tiny_run(objective, batch_size=batch_size, accumulation_steps=steps, ema_decay=0.9, **train)
    config.optimizer.learning_rate = config.optimizer.new_learning_rate = 1e-3
    make_smaller(config.model)
    cell, _ = make_objective(config)
    apply_precision(cell, config.train.precision)
    units, optimizer, _ = build_optimizer(config, list(cell.trainable_params()))
    update = Update(cell, units, optimizer, config)
    step = TrainStep(cell, update) if steps == 1 else AccumulatedStep(cell, update, steps)
    return step.set_train(), update, [(p, p.asnumpy().copy()) for p in step.get_parameters()]


def inputs(objective, step):
    """Arrays over a batch of 8, others at every step."""
    config = tiny_run(objective, batch_size=8)
    return [None if x is None else x.asnumpy() for x in make_objective(config, seed=step)[1]]


def weights(update):
    return {p.name: p.asnumpy().copy() for p in update.units.parameters}


@pytest.mark.parametrize(
    'objective, generation', [('diffdis', None), ('diffdis', 4), ('clip', None), ('autoencoder', None)]
)
def test_four_micro_batches_equal_the_whole_batch(objective, generation):
    whole, of_whole = make(objective, 8, 1, generation_batch_size=generation)
    accumulated, of_accumulated = make(objective, 2, 4, generation_batch_size=generation and generation // 4)
    before = weights(of_whole)
    for step in range(3):
        arrays = inputs(objective, step)
        if generation:
            arrays[4:7] = [x[:generation] for x in arrays[4:7]]
        ours, theirs = ([float(x) for x in s.run(arrays)] for s in (accumulated, whole))
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6), (step, ours, theirs)
    ours, theirs = weights(of_accumulated), weights(of_whole)
    for name in theirs:  # Adam divides by tiny gradients' size; that of a key's bias is nothing but rounding
        assert name.endswith('k_proj.bias') or np.abs(ours[name] - theirs[name]).max() < 2e-4, name
    drift = np.concatenate([(ours[name] - theirs[name]).reshape(-1) for name in theirs])
    moved = np.concatenate([(theirs[name] - before[name]).reshape(-1) for name in theirs])
    assert np.linalg.norm(drift) < 1e-2 * np.linalg.norm(moved)


@pytest.mark.parametrize('steps', [1, 4])
def test_an_overflow_is_skipped_and_halves_the_scale(steps):
    step, update = make('diffdis', 8 // steps, steps, precision='fp16', loss_scale=1024.0, loss_scale_window=2)
    good, bad = inputs('diffdis', 0), inputs('diffdis', 1)
    bad[0] = bad[0] * np.float32(1e30)  # more than fp16 can hold

    step.run(good)
    before, averages, count = (
        weights(update),
        {k: v.copy() for k, v in update.averaged().items()},
        int(update.optimizer.global_step.asnumpy().item()),
    )
    step.run(bad)
    assert all(np.array_equal(before[name], value) for name, value in weights(update).items())
    assert all(np.array_equal(averages[name], value) for name, value in update.averaged().items())
    assert int(update.optimizer.global_step.asnumpy().item()) == count == 1
    assert float(update.loss_scale.asnumpy()) == 512.0 and float(update.skipped_steps.asnumpy()) == 1.0

    losses = [float(step.run(good)[0]) for _ in range(4)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert float(update.loss_scale.asnumpy()) == 2048.0 and float(update.skipped_steps.asnumpy()) == 1.0
    assert any(not np.array_equal(before[name], value) for name, value in weights(update).items())


def test_half_precision_reaches_the_products_and_spares_the_weights():
    full, _ = make('diffdis', 8, 1, generation_batch_size=None)
    half, update = make('diffdis', 8, 1, precision='fp16', loss_scale=1024.0, loss_scale_window=2)
    arrays = inputs('diffdis', 0)
    exact, rounded = (float(s.run(arrays)[0]) for s in (full, half))
    assert exact != rounded and abs(exact - rounded) < 5e-3 * abs(exact)
    assert all(
        p.dtype.__str__() == 'Float32'
        for p in update.get_parameters()
        if p.name != 'global_step' and 'Float' in str(p.dtype)
    )

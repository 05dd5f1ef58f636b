"""16-bit training follows float32: fp16 as it runs, bf16 as it would be rounded (the CPU has no bf16 kernels)."""

import numpy as np
import pytest
from mindspore import Tensor

from diffdis_ms.config import load
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.init import initialize
from diffdis_ms.models.precision import apply_precision
from diffdis_ms.train.objective import DiffDisObjective, draw_diffdis
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep, Update
from tests.helpers import make_smaller, tiny_run
from tools.benchmarks.bfloat16 import RoundedAttention, round_products, rounded

STEPS, SHAPE, POOL = 300, (4, 8, 8), 32


def make(precision, change=None):
    """(step, update, batch(n) -> arrays) of a tiny DiffDis that learns 32 random pairs."""
    config = tiny_run('diffdis', batch_size=8, precision=precision, ema_decay=0.9, loss_scale=256.0)
    config.optimizer.learning_rate = config.optimizer.new_learning_rate = (
        1e-4  # at 1e-3 single windows drift by 14 %: so small a model, so few pairs
    )
    model = config.model
    make_smaller(model)
    text = model.text_encoder
    rng = np.random.default_rng(0)
    z = rng.standard_normal((POOL, *SHAPE), dtype=np.float32)
    c = rng.standard_normal((POOL, text.max_position_embeddings, text.hidden_size), dtype=np.float32)
    e = rng.standard_normal((POOL, 1, text.projection_dim), dtype=np.float32)
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    unet = DiffDisUNet(model)
    initialize(unet, 0)
    apply_precision(unet, precision)
    if change:
        change(unet)
    objective = DiffDisObjective(
        unet, config, np.zeros((1, *c.shape[1:]), np.float32), np.zeros((1, *SHAPE), np.float32)
    )
    units, optimizer, _ = build_optimizer(config, list(objective.trainable_params()))
    update = Update(objective, units, optimizer, config)

    def batch(n):
        rows = np.random.default_rng([1, n]).permutation(POOL)[:8]
        return z[rows], c[rows], e[rows], None, *draw_diffdis(0, n, config, SHAPE)

    return TrainStep(objective, update).set_train(), update, batch


def losses(step, batch, steps=STEPS):
    return np.array([[float(x) for x in step.run(batch(n))[:3]] for n in range(steps)])


@pytest.fixture(scope='module')
def full():
    step, _, batch = make('fp32')
    return losses(step, batch)


def assert_tracks(found, full):
    """Means of the joint loss over 50 steps: every one within 2 %, and training did learn."""
    ours, theirs = (x[:, 0].reshape(-1, 50).mean(1) for x in (found, full))
    assert theirs[-1] < 0.7 * theirs[0]
    assert np.abs(ours / theirs - 1).max() < 0.02, (ours, theirs)


def test_fp16_tracks_fp32_with_an_overflow_in_between(full):
    step, update, batch = make('fp16')
    first = losses(step, batch, 150)
    z, *others = batch(150)
    step.run((z * np.float32(1e30), *others))  # more than fp16 can hold: skipped, so fp32 does not see it at all
    assert float(update.skipped_steps.asnumpy()) == 1.0
    rest = np.array([[float(x) for x in step.run(batch(n))[:3]] for n in range(150, STEPS)])
    assert float(update.skipped_steps.asnumpy()) == 1.0 and float(update.loss_scale.asnumpy()) == 128.0
    assert_tracks(np.concatenate([first, rest]), full)


def test_rounding_is_that_of_bf16():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    bits = x.view(np.uint32)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).view(np.float32)
    assert np.array_equal(rounded(Tensor(x)).asnumpy(), nearest)


def test_bf16_rounding_tracks_fp32(full):
    with RoundedAttention():
        step, _, batch = make('fp32', round_products)
        found = losses(step, batch)
    assert not np.array_equal(found, full)
    assert_tracks(found, full)


def test_bf16_on_the_cpu_is_refused():
    with pytest.raises(ConfigError, match='train.precision.*bf16'):
        load(overrides=['precision=bf16'])

"""The training step: what it computes in one graph equals the same step taken apart."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindformers.core.lr import ConstantWarmUpLR, CosineWithWarmUpLR
from mindspore import nn

from diffdis_ms.train.optim import ConstantWarmUp, CosineWithWarmUp, build_optimizer
from diffdis_ms.train.step import TrainStep, Update
from tests.helpers import make_objective, make_smaller, tiny_run


def make_step(config):
    make_smaller(config.model)
    cell, inputs = make_objective(config)
    units, optimizer, schedules = build_optimizer(config, list(cell.trainable_params()))
    return TrainStep(cell, Update(cell, units, optimizer, config)).set_train(), units, inputs, schedules


def adamw(p, g, m, v, n, lr, decay, beta1=0.9, beta2=0.999, eps=1e-8):
    """One AdamW step in float64; returns (p, m, v)."""
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p * (1 - lr * decay) - lr * (m / (1 - beta1**n)) / (np.sqrt(v / (1 - beta2**n)) + eps), m, v


def test_step_equals_clipped_adamw_and_ema_computed_in_numpy():
    config = tiny_run('diffdis', ema_decay=0.9)
    config.optimizer.learning_rate, config.optimizer.new_learning_rate = 1e-3, 5e-3
    config.optimizer.weight_decay = 20.0  # moves a weight by more than the tolerance below
    config.optimizer.max_grad_norm, config.init.unet = 0.5, 'pre-trained'
    step, units, inputs, _ = make_step(config)
    gradients = ms.value_and_grad(step.objective, None, units.parameters, has_aux=True)
    state = {p.name: (p.asnumpy().astype(np.float64), 0.0, 0.0) for p in units.parameters}
    averages = {name: value[0] for name, value in state.items()}
    new = {
        p.name
        for group in ('new',)
        for p in units.parameters
        if 'dual_stream' in p.name or p.name.startswith(('text_query', 'alignment'))
    }
    for n in range(1, 4):
        (loss, *_), grads = gradients(*inputs)
        norm = math.sqrt(sum(float((g.asnumpy().astype(np.float64) ** 2).sum()) for g in grads))
        found = [float(x) for x in step.run(inputs)]
        assert np.isclose(found[0], float(loss), rtol=1e-5) and np.isclose(found[3], norm, rtol=1e-4)
        rate = min(n - 1, 2) / 2
        for p, g in zip(units.parameters, grads, strict=True):
            lr = rate * (5e-3 if p.name in new or p.name == 'logit_scale' else 1e-3)
            value, m, v = state[p.name]
            clipped = g.asnumpy().astype(np.float64) * min(1, 0.5 / norm)
            state[p.name] = adamw(value, clipped, m, v, n, lr, 0.0 if p.name == 'logit_scale' else 20.0)
            decay = min(0.9, n / (9 + n))
            averages[p.name] = decay * averages[p.name] + (1 - decay) * state[p.name][0]
    for p in units.parameters:
        assert np.allclose(p.asnumpy(), state[p.name][0], atol=2e-4), p.name  # Adam divides by tiny gradients' size
    found = step.update.averaged()
    assert all(np.allclose(found[name], averages[name], atol=2e-4) for name in averages)
    moved = [
        float(np.abs(p.asnumpy() - make.asnumpy()).max())
        for p, make in zip(units.parameters, make_step(config)[1].parameters, strict=True)
    ]
    assert max(moved) > 1e-3


class Line(nn.Cell):
    """A loss with a gradient that is its input, of length 13."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.logit_scale = None
        self.weight = ms.Parameter(np.ones(3, np.float32), name='conv_in.weight')

    def construct(self, x):
        loss = (self.weight * x).sum()
        return loss, loss, loss


@pytest.mark.parametrize('ramp', [False, True])
@pytest.mark.parametrize('norm', [0.0, 1e-9])
def test_average_and_clipping_are_the_papers_unless_asked(ramp, norm):
    config = tiny_run(ema_decay=0.9, ema_ramp=ramp)
    config.optimizer.max_grad_norm, config.optimizer.warmup_steps, config.optimizer.new_learning_rate = norm, 0, 0.25
    cell = Line()
    units, optimizer, _ = build_optimizer(config, list(cell.trainable_params()))
    step = TrainStep(cell, Update(cell, units, optimizer, config)).set_train()
    average = cell.weight.asnumpy().astype(np.float64)
    for n in range(3):
        found = step.run([np.array([3, 4, 12], np.float32)])
        assert np.isclose(float(found[3]), 13.0)  # logged with and without clipping
        decay = min(0.9, (1 + n) / (10 + n)) if ramp else 0.9
        average = decay * average + (1 - decay) * cell.weight.asnumpy()
        assert np.allclose(step.update.averaged()['conv_in.weight'], average, rtol=1e-5)
    # eps = 1e-8 against 3e-9: Adam divides what is clipped away by its own size, but for eps
    moved = 1 - cell.weight.asnumpy()
    assert np.allclose(moved, 0.75, rtol=1e-3) if norm == 0 else (moved < 0.5).all()


def test_units_always_hold_what_the_network_computes_with():
    config = tiny_run('clip')
    config.optimizer.learning_rate = config.optimizer.new_learning_rate = 1e-2
    step, units, inputs, _ = make_step(config)
    for _ in range(3):
        step.run(inputs)
        held = units.named([p.asnumpy() for p in units.units])
        assert all(np.array_equal(held[p.name], p.asnumpy()) for p in units.parameters)


def test_logit_scale_stays_below_its_limit_and_can_come_back():
    config = tiny_run('clip')
    config.model.logit_scale, config.model.max_logit_scale = 10.0, 10.0
    config.optimizer.new_learning_rate = 0.5
    step, units, inputs, _ = make_step(config)
    for _ in range(4):
        step.run(inputs)
        assert step.objective.logit_scale.weight.asnumpy() <= math.log(10.0) + 1e-6


@pytest.mark.parametrize('objective', ['diffdis', 'clip', 'autoencoder'])
def test_training_on_one_batch_lowers_its_loss(objective):
    config = tiny_run(objective, max_steps=100)
    config.optimizer.learning_rate = config.optimizer.new_learning_rate = 2e-3
    step, _, inputs, _ = make_step(config)
    losses = [float(step.run(inputs)[0]) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


def test_warm_up_and_two_rates():
    config = tiny_run()
    config.optimizer.warmup_steps = 10
    _, _, schedules = build_optimizer(config, [ms.Parameter(np.zeros(3, np.float32), name='a')])
    rates = {
        key: [float(schedule(ms.Tensor(n, ms.float32))) for n in (0, 5, 10, 50)] for key, schedule in schedules.items()
    }
    assert np.allclose(rates['lr'], [0, 0.5e-5, 1e-5, 1e-5]) and np.allclose(rates['lr_new'], [0, 0.5e-4, 1e-4, 1e-4])


@pytest.mark.parametrize('ours, theirs', [(ConstantWarmUp, ConstantWarmUpLR), (CosineWithWarmUp, CosineWithWarmUpLR)])
@pytest.mark.parametrize('warmup', [0, 7])
def test_schedules_without_branches_equal_mindformers(ours, theirs, warmup):
    a, b = (cls(learning_rate=3e-4, warmup_steps=warmup, total_steps=40) for cls in (ours, theirs))
    for n in (0, 1, 6, 7, 20, 39, 40):
        step = ms.Tensor(n, ms.float32)
        assert np.isclose(float(a(step)), float(b(step)), rtol=1e-5, atol=1e-11), n

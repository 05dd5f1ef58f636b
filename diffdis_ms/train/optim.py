"""Learning-rate schedules and AdamW, with a separate group for the new parameters (Table 5).

AdamW and the EMA need about ten operators per parameter. For small parameters, launching them costs more time than
their arithmetic. So the small parameters of a group are updated as one vector: `Units` joins their gradients and writes
the updated pieces back. Large parameters (nearly all of Stable Diffusion's memory) are updated in place, without a
copy.
"""

import math

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from diffdis_ms.models.names import is_new_parameter, is_text_parameter
from diffdis_ms.train.sharding import Shards
from diffdis_ms.world import World

SMALL = 2**18  # elements

_update = ops.AdamWeightDecay()
_slice = ops.Slice()


def _warm_up(step, warmup_steps):
    return ops.minimum(
        step.astype(mstype.float32) / ops.maximum(warmup_steps, 1.0) + (warmup_steps == 0).astype(mstype.float32), 1.0
    )


class ConstantWarmUp(LearningRateSchedule):
    """Linear warm-up, then constant. It has the values of MindFormers' ConstantWarmUpLR without that one's `if` on a
    tensor, which would add control flow to every training graph.

    Args:
        learning_rate: float, after the warm-up. warmup_steps, total_steps: int.
    """

    def __init__(self, learning_rate, warmup_steps, total_steps):
        super().__init__()
        self.learning_rate, self.warmup_steps = learning_rate, Tensor(warmup_steps, mstype.float32)

    def construct(self, global_step):
        """The learning rate, () float32, of a step counted from 0."""
        return self.learning_rate * _warm_up(global_step, self.warmup_steps)


class CosineWithWarmUp(LearningRateSchedule):
    """Linear warm-up, then half a cosine that reaches zero at `total_steps` (MindFormers' CosineWithWarmUpLR).

    Args: as for `ConstantWarmUp`.
    """

    def __init__(self, learning_rate, warmup_steps, total_steps):
        super().__init__()
        self.learning_rate, self.warmup_steps = learning_rate, Tensor(warmup_steps, mstype.float32)
        self.cosine_steps = Tensor(max(1, total_steps - warmup_steps), mstype.float32)

    def construct(self, global_step):
        """The learning rate, () float32, of a step counted from 0."""
        progress = ops.clamp((global_step.astype(mstype.float32) - self.warmup_steps) / self.cosine_steps, 0.0, 1.0)
        return self.learning_rate * _warm_up(global_step, self.warmup_steps) * 0.5 * (1.0 + ops.cos(math.pi * progress))


def build_schedule(config, learning_rate):
    """Linear warm-up, then constant (as in the paper) or a cosine that reaches zero at `train.max_steps`."""
    warmup, total = config.optimizer.warmup_steps, config.train.max_steps
    if config.optimizer.schedule == 'constant':
        return ConstantWarmUp(learning_rate=learning_rate, warmup_steps=warmup, total_steps=total)
    return CosineWithWarmUp(learning_rate=learning_rate, warmup_steps=warmup, total_steps=max(total, warmup + 1))


def _adamw(beta1, beta2, eps, step_size, lr, decay, p, g, m, v):
    """p <- (1 - lr decay) p - lr step_size m / (sqrt(v) + eps), with Adam's two bias corrections in step_size and
    eps."""
    return ops.depend(
        lr, _update(p, m, v, lr * step_size, beta1, beta2, eps, decay / step_size, g.astype(mstype.float32))
    )


class AdamW(nn.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, Alg. 2) on float32 parameters, each updated in place by one operator.

    MindFormers' AdamW has the same formula and the same state. But it reads the moments after writing them, so
    MindSpore copies all of them (see `step.AfterUpdate`), and divides with `Div`, which keeps tables (see
    `models/attention.py`). Together this takes 45 GB for Stable Diffusion. Importing MindFormers takes 4 s.

    Args:
        params: groups as of nn.Optimizer: dicts of 'params', 'lr' (a schedule) and 'weight_decay'. learning_rate: a
            schedule. betas: (beta1, beta2). eps, weight_decay: float.
    """

    def __init__(self, params, learning_rate, betas, eps, weight_decay):
        super().__init__(learning_rate, params, weight_decay=weight_decay)
        self.beta1, self.beta2, self.eps = (Tensor([x], mstype.float32) for x in (*betas, eps))
        self.exp_avg = self._parameters.clone(prefix='adam_m', init='zeros')
        self.exp_avg_sq = self._parameters.clone(prefix='adam_v', init='zeros')

    def construct(self, gradients):
        """Update the parameters; returns a value that depends on it. Nothing may read them later in the same graph."""
        decay, lr = self.get_weight_decay(), self.get_lr()
        step = ops.depend(self.global_step, self.assignadd(self.global_step, self.global_step_increase_tensor))
        t, beta1, beta2 = step.astype(mstype.float32).reshape(()), self.beta1[0], self.beta2[0]
        root = ops.sqrt(1.0 - ops.pow(beta2, t))  # m_hat / (sqrt(v_hat) + eps) = root m_hat / (sqrt(v) + root eps)
        update = ops.partial(_adamw, beta1, beta2, root * self.eps[0], root / (1.0 - ops.pow(beta1, t)))
        return self.hyper_map(update, lr, decay, self._parameters, gradients, self.exp_avg, self.exp_avg_sq)


def group_parameters(parameters, config):
    """Group parameters by learning rate: {'scale': logit scale, 'new': new parameters of DiffDis, 'base': all others}.

    Empty groups are left out. A UNet without `init.unet`, or a trained T without `init.text_encoder`, is completely new
    (Table 4).
    """
    groups = {'scale': [], 'new': [], 'base': []}
    for p in parameters:
        source = config.init.text_encoder if is_text_parameter(p.name) else config.init.unet
        new = is_new_parameter(p.name) or config.objective == 'diffdis' and source is None
        groups['scale' if p.name == 'logit_scale' else 'new' if new else 'base'].append(p)
    return {name: members for name, members in groups.items() if members}


def group_settings(lr, lr_new, weight_decay):
    """{group of `group_parameters`: its learning rate and weight decay}, from lr and lr_new (schedules or numbers).

    The logit scale has the learning rate of the new parameters and no weight decay.
    """
    return {
        'base': {'lr': lr, 'weight_decay': weight_decay},
        'new': {'lr': lr_new, 'weight_decay': weight_decay},
        'scale': {'lr': lr_new, 'weight_decay': 0.0},
    }


def build_optimizer(config, parameters, world=World()):
    """Build AdamW for the trained parameters, in the groups of `group_parameters`.

    Returns:
        (Units, optimizer over `Units.units`, or over this process' shards of them if `Units.shards` is set, {'lr':
        schedule, 'lr_new': schedule}).
    """
    options = config.optimizer
    schedules = {
        'lr': build_schedule(config, options.learning_rate),
        'lr_new': build_schedule(config, options.new_learning_rate),
    }
    units = Units(group_parameters(parameters, config))
    if config.train.shard_optimizer and world.size > 1:
        units.shards = Shards(units, world)
    updated = units.groups if units.shards is None else units.shards.groups
    settings = group_settings(schedules['lr'], schedules['lr_new'], options.weight_decay)
    optimizer = AdamW(
        [{'params': updated[name], **settings[name]} for name in updated],
        learning_rate=schedules['lr'],
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        weight_decay=options.weight_decay,
    )
    return units, optimizer, schedules


def _flat(g):
    return g.reshape(-1).astype(mstype.float32)


def _take(unit, p, start, size):
    """Write a piece of a unit to its parameter. `unit[start : start + size]` takes twice as long to compile: MindSpore
    traces it through a dozen functions for each of some hundred parameters."""
    return ops.assign(p, ops.reshape(_slice(unit, (start,), (size,)), p.shape).astype(p.dtype))


class Units(nn.Cell):
    """The units that the optimizer updates: each large parameter, and a vector `small.<group>` of a group's small ones.

    Args:
        groups: {name: parameters}.

    Attributes:
        parameters: all parameters, in the order of their gradients for `join`.
        units: the units in the order of the optimizer's groups. groups: {name: units}.
        shards: sharding.Shards if each process updates only a shard, else None.
    """

    def __init__(self, groups):
        super().__init__(auto_prefix=False)
        self.parameters, self.groups, self.layout, units = [], {}, [], []
        for name, members in groups.items():
            small = [p for p in members if p.size < SMALL]
            self.groups[name] = [p for p in members if p.size >= SMALL]
            for p in self.groups[name]:
                self.layout.append((len(self.parameters), len(self.parameters) + 1, None))
                self.parameters.append(p)
            if small:
                sizes = tuple(p.size for p in small)
                starts = tuple((np.cumsum(sizes) - sizes).tolist())
                self.layout.append((len(self.parameters), len(self.parameters) + len(small), (starts, sizes)))
                self.parameters += small
                value = np.concatenate([p.asnumpy().reshape(-1) for p in small]).astype(np.float32)
                self.groups[name].append(Parameter(value, name=f'small.{name}'))
            units += self.groups[name]
        self.units, self.shards = units, None
        self.map = ops.HyperMap()  # a loop over hundreds of parameters would exceed MindSpore's call depth

    def join(self, grads):
        """Gradients of `parameters` -> gradients of `units`."""
        joined = ()
        for first, end, pieces in self.layout:
            if pieces is None:
                joined += (grads[first],)
            else:
                joined += (ops.concat(self.map(_flat, grads[first:end])),)
        return joined

    def hand_back(self, units, parameters):
        """Write the updated vectors to the small parameters; returns a value that depends on it."""
        done = ()
        for unit, (first, end, pieces) in zip(units, self.layout):  # noqa: B905 (a graph knows no keyword)
            if pieces is not None:
                done += self.map(ops.partial(_take, unit), parameters[first:end], *pieces)
        return done

    def named(self, values):
        """{parameter name: array} of arrays shaped like `units`."""
        found = {}
        for value, (first, end, pieces) in zip(values, self.layout, strict=True):
            for i, p in enumerate(self.parameters[first:end]):
                found[p.name] = value
                if pieces is not None:
                    start, size = (numbers[i] for numbers in pieces)
                    found[p.name] = value[start : start + size].reshape(p.shape)
        return found

"""A training step as two graphs: gradients, their mean over the processes, clipping and AdamW; then the EMA."""

import mindspore as ms
import mindspore.common.dtype as mstype
from mindspore import Parameter, ParameterTuple, Tensor, amp, nn, ops

from diffdis_ms.train.distributed import Average
from diffdis_ms.world import World

EMA = 'ema.'
ROW = 512  # elements


def _sum_of_squares(g):
    """Sum of squares, first by rows and then over the rows, for the same bits in every run (see
    `losses.mean_over_samples`)."""
    g = g.astype(mstype.float32).reshape(-1)
    missing = -g.size % ROW
    if missing:
        g = ops.concat((g, ops.zeros((missing,), mstype.float32)))
    rows = ops.sum(ops.square(g).reshape(-1, ROW), -1)  # (size / ROW,)
    return ops.sum(rows.reshape(1, -1), -1).reshape(())


def _scaled(factor, g):
    return g * factor.astype(g.dtype)


def _assign(p, value):
    return ops.assign(p, value)


def initial_averages(parameters):
    """The EMA of each parameter, named ema.<parameter>, which starts with the parameter's value."""
    return ParameterTuple([Parameter(p.asnumpy().copy(), name=EMA + p.name, requires_grad=False) for p in parameters])


def move_towards(rate, average, p):
    """average <- average + rate * (p - average), float32; returns the new average."""
    return ops.assign_add(average, (p.astype(mstype.float32) - average) * rate)


def ema_rate(step, decay, ramp):
    """1 - d, where d is the EMA's decay: `decay`, or with a ramp min(decay, (1 + step) / (10 + step)).

    The ramp keeps the first weights from dominating a short run. step: number of earlier updates, () float32.
    """
    if ramp:
        return 1.0 - ops.minimum((1.0 + step) / (10.0 + step), decay)
    return ops.zeros_like(step) + (1.0 - decay)


class AfterUpdate(nn.Cell):
    """The work after the optimizer, in a separate graph: limit the logit scale, ema <- d * ema + (1 - d) * parameter,
    and write units that were updated as a vector, or by other processes, back to the parameters.

    In the same graph as the step, MindSpore would copy every parameter, as it does for all parameters that a graph
    reads both before and after writing them.

    Args:
        update: Update.
    """

    def __init__(self, update):
        super().__init__(auto_prefix=False)
        self.units, self.shards, self.scale_limit = update.units, update.shards, update.scale_limit
        self.trained, self.updated, self.averages = update.trained, update.updated, update.averages
        self.moved = self.updated if self.shards is None else ParameterTuple(self.shards.own)
        self.map = ops.HyperMap()

    def construct(self, rate):
        """rate: 1 - d, or 0 if the step was skipped, () float32. Returns a scalar that depends on all this work."""
        values, done = tuple(self.moved), rate
        if self.scale_limit is not None:  # the first unit
            values = (ops.minimum(values[0], self.scale_limit),) + values[1:]
            done = ops.depend(done, ops.assign(self.moved[0], values[0]))
        done = ops.depend(done, self.map(ops.partial(move_towards, rate), self.averages, values))
        if self.shards is not None:
            values = self.shards.gather(self.updated, values)
            done = ops.depend(done, self.map(_assign, self.updated, values))
        return ops.depend(done, self.units.hand_back(values, self.trained))


class Update(nn.Cell):
    """Apply the gradients: mean over the processes, global-norm clipping, optimizer. `after` must run next.

    The EMA starts with the parameters' values; `ema_rate` gives its decay. In fp16 the gradients are multiplied by the
    loss scale. If one of them is not finite, only the loss scale (halved) and the count of skipped steps change.

    Args:
        objective: loss cell. units: `optim.Units` of its trainable parameters. optimizer: over `units.units`. config:
            Config. world: World.

    Attributes:
        loss_scale, skipped_steps: Parameters, () float32; None unless the precision is fp16.
        after: AfterUpdate.
    """

    def __init__(self, objective, units, optimizer, config, world=World()):
        super().__init__(auto_prefix=False)
        self.units, self.optimizer, self.shards = units, optimizer, units.shards
        self.trained, self.updated = ParameterTuple(units.parameters), ParameterTuple(units.units)
        self.averages = initial_averages(units.units if self.shards is None else self.shards.own)
        self.decay, self.ramp = config.train.ema_decay, config.train.ema_ramp
        self.max_norm = config.optimizer.max_grad_norm
        self.scale_limit = None
        if objective.logit_scale is not None and config.model.learnable_logit_scale:
            self.scale_limit = objective.logit_scale.limit
        self.map, self.mean = ops.HyperMap(), Average(world)
        self.many = world.size > 1
        self.scaler = self.loss_scale = self.skipped_steps = None
        if config.train.precision == 'fp16':
            self.scaler = amp.DynamicLossScaler(config.train.loss_scale, 2, config.train.loss_scale_window)
            self.loss_scale, self.scale_counter = self.scaler.scale_value, self.scaler.counter
            self.loss_scale.name, self.scale_counter.name = 'loss_scale', 'loss_scale_counter'
            self.skipped_steps = Parameter(Tensor(0.0, mstype.float32), name='skipped_steps', requires_grad=False)
        self.after = AfterUpdate(self)

    def construct(self, grads):
        """Gradients of `units` -> (their norm before clipping, the rate for `after`, which depends on the update)."""
        if self.many:
            grads = self.map(self.mean, grads)
        if self.scaler is not None:
            grads = self.map(ops.partial(_scaled, 1.0 / self.loss_scale), grads)
        norm = ops.sqrt(ops.addn(self.map(_sum_of_squares, grads)))
        step = self.optimizer.global_step.astype(mstype.float32).reshape(())
        rate = ema_rate(step, self.decay, self.ramp)
        if self.scaler is None:
            return norm, ops.depend(rate, self.apply(grads, norm))
        # The norm is not finite if a gradient is not. all_finite also works on the first Ascend 910, which saturates
        # instead.
        finite = amp.all_finite((norm,))
        if self.many:
            finite = self.mean(finite.astype(mstype.float32)) == 1.0
        done = norm
        if finite:
            done = self.apply(grads, norm)
        applied = finite.astype(mstype.float32)
        done = ops.depend(done, ops.assign_add(self.skipped_steps, 1.0 - applied))
        return norm, ops.depend(rate * applied, ops.depend(done, self.scaler.adjust(finite)))

    def apply(self, grads, norm):
        """Clip and optimize; returns a scalar that depends on it."""
        if self.max_norm > 0:
            grads = self.map(ops.partial(_scaled, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)), grads)
        if self.shards is not None:
            grads = self.shards.cut(grads)
        return ops.depend(norm, self.optimizer(grads))

    def averaged(self):
        """{parameter name: array} of the EMA weights; a collective if they are sharded."""
        if self.shards is None:
            return self.units.named([p.asnumpy() for p in self.averages])
        return self.units.named(
            [self.shards.whole(p, unit.shape) for p, unit in zip(self.averages, self.units.units, strict=True)]
        )


class Scaled(nn.Cell):
    """Return a loss times a scale, followed by the unscaled outputs."""

    def __init__(self, objective):
        super().__init__(auto_prefix=False)
        self.objective = objective

    def construct(self, scale, *inputs):
        loss, loss_ig, loss_ita = self.objective(*inputs)
        return loss * scale, loss, loss_ig, loss_ita


class TrainStep(nn.Cell):
    """Losses, gradients and update as one graph; `run` is the whole step.

    Args:
        objective: loss cell returning (loss, loss_ig, loss_ita). update: Update.

    Returns:
        (loss, loss_ig, loss_ita, gradient norm before clipping, rate for `update.after`), scalars, the same in all
        processes.
    """

    def __init__(self, objective, update):
        super().__init__(auto_prefix=False)
        self.objective, self.update = objective, update
        self.scaled = update.scaler is not None
        self.gradients = ms.value_and_grad(
            Scaled(objective) if self.scaled else objective, None, update.trained, has_aux=True
        )

    def construct(self, *inputs):
        if self.scaled:
            (_, loss, loss_ig, loss_ita), grads = self.gradients(self.update.loss_scale, *inputs)
        else:
            (loss, loss_ig, loss_ita), grads = self.gradients(*inputs)
        norm, rate = self.update(self.update.units.join(grads))
        mean = self.update.mean
        return mean(loss), mean(loss_ig), mean(loss_ita), norm, rate

    def main_graph(self, arrays):
        """(cell, its inputs) of the graph that takes longest to compile."""
        return self, to_tensors(arrays)

    def run(self, arrays):
        """Run a step on NumPy arrays (or None) of this process' batch; returns (loss, loss_ig, loss_ita, norm)."""
        *values, rate = self(*to_tensors(arrays))
        self.update.after(rate)
        return tuple(values)


def to_tensors(arrays):
    """Convert arrays to Tensors; None stays None."""
    return tuple(None if x is None else Tensor(x) for x in arrays)

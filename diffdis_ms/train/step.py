"""One training step as one graph: gradients, clipping, AdamW, EMA."""
import mindspore as ms
from mindspore import Parameter, ParameterTuple, nn, ops
import mindspore.common.dtype as mstype

EMA = 'ema.'


def _sum_of_squares(g):
    return ops.sum(ops.square(g.astype(mstype.float32)))


def _scaled(factor, g):
    return g * factor.astype(g.dtype)


def _move_towards(rate, average, p):
    return ops.assign_add(average, (p.astype(mstype.float32) - average) * rate)


class TrainStep(nn.Cell):
    """Loss, gradients, global-norm clipping, optimizer, then ema <- d * ema + (1 - d) * parameter.

    The average starts as the parameters do; its decay at step n is min(ema_decay, (1 + n) / (10 + n)), so that a short
    run is not dominated by its first weights.

    Args:
        objective: loss cell returning (loss, loss_ig, loss_ita).
        units: `optim.Units` of the objective's trainable parameters. optimizer: over `units.units`.
        config: Config.

    Returns:
        (loss, loss_ig, loss_ita, gradient norm before clipping), scalars.
    """

    def __init__(self, objective, units, optimizer, config):
        super().__init__(auto_prefix=False)
        self.objective, self.units, self.optimizer = objective, units, optimizer
        self.trained, self.updated = ParameterTuple(units.parameters), ParameterTuple(units.units)
        self.averages = ParameterTuple([Parameter(p.asnumpy().copy(), name=EMA + p.name, requires_grad=False) for p in units.units])
        self.gradients = ms.value_and_grad(objective, None, self.trained, has_aux=True)
        self.decay, self.max_norm = config.train.ema_decay, config.optimizer.max_grad_norm
        self.has_scale = hasattr(objective, 'logit_scale') and config.model.learnable_logit_scale
        self.map = ops.HyperMap()

    def construct(self, *inputs):
        (loss, loss_ig, loss_ita), grads = self.gradients(*inputs)
        grads = self.units.join(grads)
        norm = ops.sqrt(ops.addn(self.map(_sum_of_squares, grads)))
        if self.max_norm > 0:
            grads = self.map(ops.partial(_scaled, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)), grads)
        step = self.optimizer.global_step.astype(mstype.float32).reshape(())
        # The optimizer's results are used, not its parameters: a graph may read those before they are written.
        values = self.optimizer(grads)
        if self.has_scale:                                                       # the first unit: keep it below its limit
            values = (ops.minimum(values[0], self.objective.logit_scale.limit),) + values[1:]
            loss = ops.depend(loss, ops.assign(self.updated[0], values[0]))
        loss = ops.depend(loss, self.units.hand_back(values, self.trained))
        rate = 1.0 - ops.minimum((1.0 + step) / (10.0 + step), self.decay)
        loss = ops.depend(loss, self.map(ops.partial(_move_towards, rate), self.averages, values))
        return loss, loss_ig, loss_ita, norm

    def averaged(self):
        """{parameter name: array} of the EMA weights."""
        return self.units.named([p.asnumpy() for p in self.averages])

"""MindFormers' one-step cell, which here also runs on a CPU, and DiffDis' work after a step."""

import mindspore as ms
import mindspore.common.dtype as mstype
import numpy as np
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.wrapper import MFTrainOneStepCell
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.train import Callback

from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.model_dir import save_model
from diffdis_ms.train.build import load_tokenizer
from diffdis_ms.train.log import write_row
from diffdis_ms.train.step import EMA, ema_rate, move_towards

_not_finite = ops.MultitypeFuncGraph('not_finite')


@_not_finite.register('Tensor')
def _tensor_not_finite(grad):
    """1.0 if a gradient has an inf or nan, else 0.0."""
    return 1.0 - ops.isfinite(ops.reduce_sum(ops.abs(grad.astype(mstype.float32)))).astype(mstype.float32)


@MindFormerRegister.register(MindFormerModuleType.WRAPPER)
class PortableTrainOneStepCell(MFTrainOneStepCell):
    """MFTrainOneStepCell: gradients, their mean over the processes, clipping, AdamW. A step with an overflow is skipped
    and halves the loss scale.

    MindFormers asks the NPU for overflows, with operators that the CPU does not have. On a CPU the gradients are
    checked instead.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.on_cpu = ms.get_context('device_target') == 'CPU'

    def get_overflow_status(self, status, compute_output):
        """Whether a gradient of any process is not finite, () bool."""
        if self.on_cpu:
            return self._get_distributed_overflow_status_on_infnan_mode(_not_finite, compute_output)
        return super().get_overflow_status(status, compute_output)


class AfterStep(nn.Cell):
    """Limit the logit scale and update the EMA weights, like `train.step.AfterUpdate`.

    Args:
        model: DiffDisForTraining. config: its Config.
    """

    def __init__(self, model, config):
        super().__init__(auto_prefix=False)
        averages = {p.name: p for p in model.averages}
        trained = [p for p in model.trainable_params() if p.name != 'logit_scale']
        self.trained, self.averages = ParameterTuple(trained), ParameterTuple([averages[EMA + p.name] for p in trained])
        self.scale = model.objective.logit_scale.weight if config.model.learnable_logit_scale else None
        self.scale_average = averages.get(EMA + 'logit_scale')
        self.limit = model.objective.logit_scale.limit
        self.decay, self.ramp = config.train.ema_decay, config.train.ema_ramp
        self.map = ops.HyperMap()

    def construct(self, step):
        """step: number of earlier updates, () float32. Returns a scalar that depends on all this work."""
        rate = ema_rate(step, self.decay, self.ramp)
        done = ops.depend(rate, self.map(ops.partial(move_towards, rate), self.averages, self.trained))
        if self.scale is not None:
            limited = ops.minimum(self.scale, self.limit)
            done = ops.depend(done, move_towards(rate, self.scale_average, limited))
            done = ops.depend(done, ops.assign(self.scale, limited))
        return done


class DiffDisCallback(Callback):
    """Run `AfterStep` after each step that was not skipped, log it, and at the end write our model directory with the
    EMA weights.

    Args:
        config: Config after `resolve_model`. directory: for metrics.jsonl and model/; None if another process writes
            them.
    """

    def __init__(self, config, directory=None):
        super().__init__()
        self.config, self.directory, self.after = config, directory, None

    def on_train_begin(self, run_context):
        step = run_context.original_args().train_network
        model = step.network
        if _updates(step) == 0:  # weights may have been loaded since the model was built
            weights = {p.name: p for p in model.trainable_params()}
            for average in model.averages:
                average.set_data(Tensor(weights[average.name[len(EMA) :]].asnumpy().astype(np.float32)))
        self.after = AfterStep(model, self.config)

    def on_train_step_end(self, run_context):
        parameters = run_context.original_args()
        step = parameters.train_network
        loss, overflow, loss_scale, rate, norm = parameters.net_outputs[:5]
        _check(_updates(step), loss, norm, self.config.train.precision)
        if not bool(np.any(overflow.asnumpy())):
            self.after(Tensor(_updates(step) - 1.0, mstype.float32))
        if self.directory is not None:
            row = {
                'step': _updates(step),
                'loss': _number(loss),
                'lr': _number(rate),
                'grad_norm': _number(norm),
                'loss_scale': _number(loss_scale),
            }
            with open(self.directory / 'metrics.jsonl', 'a', encoding='utf-8') as log:
                write_row(log, row)

    def on_train_end(self, run_context):
        if self.directory is None:
            return
        step = run_context.original_args().train_network
        learner, config = step.network.learner, self.config.model
        averages = {p.name[len(EMA) :]: p.asnumpy() for p in step.network.averages}
        config.logit_scale = float(np.exp(learner.objective.logit_scale.weight.asnumpy().item()))
        save_model(
            self.directory / 'model',
            config,
            learner.weights(averages),
            load_tokenizer(self.config),
            {'step': _updates(step), 'objective': 'diffdis'},
        )


def _check(step, loss, norm, precision):
    """Raise ConfigError if the loss or the gradients are not finite, before anything is saved. In fp16 such steps are
    skipped instead."""
    for what, value in (('the loss', loss), ("the gradients' norm", norm)):
        if precision != 'fp16' and value is not None and not np.isfinite(value.asnumpy()).all():
            raise ConfigError(
                f'step {step}: {what} is {_number(value)}; lower the learning rate or resume from an earlier checkpoint'
            )


def _updates(step):
    """Number of updates by a one-step cell, without skipped steps."""
    return int(step.optimizer.global_step.asnumpy().item())


def _number(value):
    """Convert a one-element tensor to a number; None if nothing was computed."""
    return None if value is None else float(value.asnumpy().item())

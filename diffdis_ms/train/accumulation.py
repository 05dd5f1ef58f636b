"""Gradient accumulation that keeps the contrastive batch whole: only memory changes.

The alignment loss compares every row with every other, so its gradient is not a mean over micro-batches. It is computed
in three passes: first all queries, one micro-batch after the other, without gradients; then the loss over all queries
of all processes and its gradient with respect to each query; then each micro-batch again, with these gradients applied
to its queries. This is known as gradient caching (Gao et al. 2021).
"""

import mindspore as ms
import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from diffdis_ms.diffusion.losses import total_loss
from diffdis_ms.train.step import to_tensors


class Queries(nn.Cell):
    """The queries of a micro-batch: predicted and true, (B, D) float32."""

    def __init__(self, objective):
        super().__init__(auto_prefix=False)
        self.objective = objective

    def construct(self, *inputs):
        _, p, e = self.objective.terms(*inputs)
        return p.astype(mstype.float32), e.astype(mstype.float32)


class Alignment(nn.Cell):
    """L_ITA of all queries, as a separate cell to be differentiated."""

    def __init__(self, objective):
        super().__init__(auto_prefix=False)
        self.objective = objective

    def construct(self, p, e):
        return self.objective.align(p, e)


class AlignmentGradients(nn.Cell):
    """(L_ITA, its gradients for the predicted and the true queries, its gradient for the logit scale)."""

    def __init__(self, objective):
        super().__init__(auto_prefix=False)
        weight = objective.logit_scale.weight
        self.learns_scale = weight.requires_grad
        self.gradients = ms.value_and_grad(
            Alignment(objective), (0, 1), ParameterTuple([weight]) if self.learns_scale else None
        )

    def construct(self, p, e):
        if self.learns_scale:
            loss, ((dp, de), (d_scale,)) = self.gradients(p, e)
            return loss, dp, de, d_scale
        loss, (dp, de) = self.gradients(p, e)
        return loss, dp, de, ops.zeros_like(loss)


class Surrogate(nn.Cell):
    """A loss of a micro-batch with the same gradient as the whole batch's loss has through these rows.

    It is Eq. 9 with L_IG / steps and p . dL/dp + e . dL/de.
    """

    def __init__(self, objective, steps):
        super().__init__(auto_prefix=False)
        self.objective, self.steps = objective, steps

    def construct(self, scale, dp, de, *inputs):
        loss_ig, p, e = self.objective.terms(*inputs)
        loss = loss_ig / self.steps
        if p is not None:
            loss_ita = ops.sum(p.astype(mstype.float32) * dp) + ops.sum(e.astype(mstype.float32) * de)
            loss = total_loss(loss, loss_ita, self.objective.lambda_ita)
        return loss * scale, loss_ig


class Accumulate(nn.Cell):
    """Add the gradients of a micro-batch to `sums`, which are shaped like `units`; returns its L_IG."""

    def __init__(self, objective, update, steps):
        super().__init__(auto_prefix=False)
        self.units = update.units
        self.gradients = ms.value_and_grad(Surrogate(objective, steps), None, update.trained, has_aux=True)
        self.sums = ParameterTuple(
            [
                Parameter(np.zeros(p.shape, np.float32), name='sum.' + p.name, requires_grad=False)
                for p in update.units.units
            ]
        )
        self.map = ops.HyperMap()

    def construct(self, scale, dp, de, *inputs):
        (_, loss_ig), grads = self.gradients(scale, dp, de, *inputs)
        return ops.depend(loss_ig, self.map(_add, self.sums, self.units.join(grads)))


def _add(total, g):
    return ops.assign_add(total, g.astype(total.dtype))


def _clear(total):
    return ops.assign(total, ops.zeros_like(total))


class Finish(nn.Cell):
    """The update from the sums, which `Clear` sets to zero before the next step."""

    def __init__(self, update, sums, lambda_ita):
        super().__init__(auto_prefix=False)
        self.update, self.sums, self.lambda_ita = update, sums, lambda_ita

    def construct(self, scale, losses, d_scale):
        grads = self.sums  # only read in this graph
        if self.update.scale_limit is not None:  # the logit scale is the first unit
            grads = (grads[0] + self.lambda_ita * scale * d_scale.reshape(grads[0].shape),) + grads[1:]
        norm, rate = self.update(grads)
        return self.update.mean(losses), norm, rate


class Clear(nn.Cell):
    """Set the sums to zero."""

    def __init__(self, sums):
        super().__init__(auto_prefix=False)
        self.sums, self.map = sums, ops.HyperMap()

    def construct(self):
        return self.map(_clear, self.sums)


class AccumulatedStep:
    """A training step over the `steps` micro-batches of a batch. It equals `TrainStep` over the whole batch.

    Args:
        objective: Objective of one micro-batch. update: Update. steps: micro-batches per batch.
    """

    def __init__(self, objective, update, steps):
        self.objective, self.update, self.steps = objective, update, steps
        self.queries = Queries(objective)
        self.alignment = AlignmentGradients(objective) if objective.aligned else None
        self.accumulate = Accumulate(objective, update, steps)
        self.finish = Finish(update, self.accumulate.sums, objective.lambda_ita)
        self.clear = Clear(self.accumulate.sums)

    def set_train(self):
        for cell in (self.objective, self.update, self.accumulate, self.finish):
            cell.set_train()
        return self

    def get_parameters(self):
        """Parameters for a checkpoint: the objective's and the update's. The sums are zero between steps."""
        known = {id(p): p for cell in (self.objective, self.update) for p in cell.get_parameters()}
        return list(known.values())

    def main_graph(self, arrays):
        """(cell, its inputs) of the graph that takes longest to compile."""
        inputs = self._micro_batch(arrays, 0)
        query = (Tensor(0.0, mstype.float32),) * 2
        if self.objective.aligned:
            query = self.queries(*inputs)
        return self.accumulate, (Tensor(1.0, mstype.float32), *query, *inputs)

    def _micro_batch(self, arrays, a):
        return to_tensors(None if x is None else np.ascontiguousarray(x[a :: self.steps]) for x in arrays)

    def run(self, arrays):
        """Run a step on NumPy arrays (or None) of this process' batch. Micro-batch a has the rows a, a + steps,
        a + 2 steps ...

        Returns:
            (loss, loss_ig, loss_ita, gradient norm before clipping), scalars, the same in all processes.
        """
        micro_batches = [self._micro_batch(arrays, a) for a in range(self.steps)]
        scale = Tensor(
            1.0 if self.update.loss_scale is None else float(self.update.loss_scale.asnumpy()), mstype.float32
        )
        loss_ita, d_scale = Tensor(0.0, mstype.float32), Tensor(0.0, mstype.float32)
        gradients = [(Tensor(0.0, mstype.float32),) * 2] * self.steps
        if self.objective.aligned:
            p, e = (
                np.concatenate(rows)
                for rows in zip(
                    *([x.asnumpy() for x in self.queries(*inputs)] for inputs in micro_batches), strict=True
                )
            )
            loss_ita, dp, de, d_scale = self.alignment(Tensor(p), Tensor(e))
            gradients = list(zip(*(map(Tensor, np.split(g.asnumpy(), self.steps)) for g in (dp, de)), strict=True))
        self.clear()
        loss_ig = Tensor(
            np.mean(
                [float(self.accumulate(scale, *gradients[a], *micro_batches[a]).asnumpy()) for a in range(self.steps)]
            ),
            mstype.float32,
        )
        losses = ops.stack((total_loss(loss_ig, loss_ita, self.objective.lambda_ita), loss_ig, loss_ita))
        losses, norm, rate = self.finish(scale, losses, d_scale)
        self.update.after(rate)
        return (*losses.asnumpy(), norm)

"""Recompute changes memory, not numbers."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from diffdis_ms.models.recompute import apply_recompute
from tests.helpers import make_objective, tiny_run


def loss_and_gradients(config, recompute):
    cell, inputs = make_objective(config)
    if recompute:
        assert apply_recompute(cell.unet) > 10
    (loss, *_), gradients = ms.value_and_grad(
        cell.set_train(), None, ms.ParameterTuple(cell.trainable_params()), has_aux=True
    )(*inputs)
    return [p.name for p in cell.trainable_params()], [loss, *gradients]


def test_loss_gradients_and_names_are_the_same():
    config = tiny_run('diffdis', task='dis')
    config.model.alignment.num_layers = 1
    (names, plain), (other_names, recomputed) = loss_and_gradients(config, False), loss_and_gradients(config, True)
    assert names == other_names
    for a, b in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-4, atol=1e-6)


def test_a_network_without_such_parts_is_refused():
    with pytest.raises(ValueError, match='Dense'):
        apply_recompute(nn.Dense(2, 2))

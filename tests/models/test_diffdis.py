"""The two models in one UNet: what predict_query depends on, what it trains, and how fresh weights are drawn."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.init import PROJ_OUT_STD, copy_image_weights, initialize
from diffdis_ms.models.layers import linear
from diffdis_ms.models.unet import UNet2DConditionModel
from tests.helpers import make_larger, make_tiny_config, normal, randomize

Z, E_T, T_E = normal(1, 3, 4, 8, 8), normal(2, 3, 1, 48), Tensor([7, 500, 900], ms.int32)


@pytest.fixture(scope='module')
def unet():
    return randomize(DiffDisUNet(make_tiny_config()), 0)


def values(cell):
    return {name: p.asnumpy() for name, p in cell.parameters_and_names()}


def changed_rows(a, b):
    return (np.abs((a - b).asnumpy()).max((1, 2)) > 1e-4).tolist()


def test_query_depends_on_image_query_and_timestep_of_its_own_row(unet):
    before = unet.predict_query(Z, E_T, T_E)
    assert before.shape == (3, 1, 48) and np.isfinite(before.asnumpy()).all()
    row = Tensor([1, 0, 0], ms.int32)
    assert changed_rows(before, unet.predict_query(Z + 0.5 * row.reshape(3, 1, 1, 1), E_T, T_E)) == [True, False, False]
    assert changed_rows(before, unet.predict_query(Z, E_T + 0.5 * row.reshape(3, 1, 1), T_E)) == [True, False, False]
    assert changed_rows(before, unet.predict_query(Z, E_T, T_E + 300 * row)) == [True, False, False]


def test_permuting_the_batch_permutes_the_output(unet):
    order = [2, 0, 1]
    permuted = unet.predict_query(*[Tensor(x.asnumpy()[order]) for x in (Z, E_T, T_E)])
    np.testing.assert_allclose(
        permuted.asnumpy(), unet.predict_query(Z, E_T, T_E).asnumpy()[order], rtol=1e-4, atol=1e-5
    )


def test_numpy_arrays_and_tensors_are_the_same(unet):
    as_numpy = unet.predict_query(Z.asnumpy().astype(np.float64), E_T.asnumpy(), [7, 500, 900])
    np.testing.assert_array_equal(as_numpy.asnumpy(), unet.predict_query(Z, E_T, T_E).asnumpy())
    context, t_z = normal(3, 3, 16, 32), np.array([0, 1, 999])
    noise = unet.predict_noise(Z.asnumpy(), t_z, context.asnumpy())
    assert noise.shape == (3, 4, 8, 8) and np.isfinite(noise.asnumpy()).all()
    np.testing.assert_array_equal(noise.asnumpy(), unet.predict_noise(Z, Tensor(t_z, ms.int32), context).asnumpy())


class QuerySum(nn.Cell):
    """A scalar of predict_query whose gradient reaches whatever it depends on."""

    def __init__(self, unet):
        super().__init__(auto_prefix=False)
        self.unet, self.weights = unet, normal(4, 3, 1, 48)

    def construct(self, z, e_t, t_e):
        return (self.unet(z, t_e, None, e_t) * self.weights).sum()


def test_query_trains_the_encoder_half_the_middle_and_the_new_parts_only(unet):
    """Zero gradients: the decoder half, and of cross-attention all that a zero context silences (the last bias is
    left)."""
    params = unet.trainable_params()
    gradients = ms.jit(ms.grad(QuerySum(unet), grad_position=None, weights=params))(Z, E_T, T_E)
    trained = {p.name for p, gradient in zip(params, gradients, strict=True) if np.abs(gradient.asnumpy()).max() > 0}
    silenced = re.compile(
        r'(up_blocks|conv_norm_out|conv_out)\..*|.*\.transformer_blocks\.\d+\.(norm2\..*|attn2\..*weight)'
    )
    assert trained == {p.name for p in params if not silenced.fullmatch(p.name)}


def test_initialize_depends_on_name_and_seed_alone():
    a, b, other = (DiffDisUNet(make_tiny_config()) for _ in range(3))
    initialize(a, 1)
    initialize(b, 1)
    initialize(other, 2)
    a, b, other = values(a), values(b), values(other)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert [
        name for name in a if a[name].std() > 0 and not name.endswith('gamma') and np.array_equal(a[name], other[name])
    ] == []
    plain = UNet2DConditionModel(make_tiny_config())
    initialize(plain, 1)
    assert all(np.array_equal(value, a[name]) for name, value in values(plain).items())


def test_initialize_does_not_depend_on_the_order_of_construction():
    class Forward(nn.Cell):
        def __init__(self):
            super().__init__()
            self.one, self.two = linear(4, 4), linear(4, 4)

    class Backward(nn.Cell):
        def __init__(self):
            super().__init__()
            self.two = linear(4, 4)
            self.one = linear(4, 4)

    forward, backward = Forward(), Backward()
    initialize(forward, 0)
    initialize(backward, 0)
    forward, backward = values(forward), values(backward)
    assert not np.array_equal(forward['one.weight'], forward['two.weight'])
    assert all(np.array_equal(value, backward[name]) for name, value in forward.items())


@pytest.mark.parametrize('num_blocks', [1, 2])
def test_fresh_query_parts(tiny_config, num_blocks):
    make_larger(tiny_config)
    tiny_config.unet.transformer_layers_per_block = num_blocks
    cell = DiffDisUNet(tiny_config)
    initialize(cell, 0)
    fresh = values(cell)
    feed_forward = [name for name in fresh if '.dual_stream.blocks.' in name]
    assert len(feed_forward) == (2 * 2 + 1) * num_blocks * 6
    for name in feed_forward:
        np.testing.assert_array_equal(fresh[name], fresh[name.replace('.dual_stream.blocks.', '.transformer_blocks.')])
    back = [fresh[name] for name in fresh if name.endswith('.dual_stream.proj_out.weight')]
    assert len(back) == 5 and all(0.9 < value.std() / PROJ_OUT_STD < 1.1 for value in back)


def test_the_query_copies_the_images_weights_as_they_are_but_keeps_what_a_file_had(tiny_config):
    """As after loading Stable Diffusion."""
    cell = randomize(DiffDisUNet(tiny_config), 0)
    before = values(cell)
    kept = {name for name in before if '.dual_stream.' in name and '.norm3.' in name}
    copy_image_weights(cell, keep=kept)
    for name, value in values(cell).items():
        copied = '.dual_stream.blocks.' in name and name not in kept
        np.testing.assert_array_equal(
            value, before[name.replace('.dual_stream.blocks.', '.transformer_blocks.') if copied else name]
        )
    assert kept and any('.dual_stream.blocks.' in name and name not in kept for name in before)


def test_fresh_unet_predicts_zero_noise(tiny_config):
    cell = DiffDisUNet(tiny_config)
    initialize(cell, 0)
    assert np.abs(cell.predict_noise(Z, T_E, normal(3, 3, 16, 32)).asnumpy()).max() == 0

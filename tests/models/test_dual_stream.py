"""The dual-stream blocks: invisible where they are not used, Fig. 3 where they are, and the switches of the
ablations."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from diffdis_ms.models.attention import attention
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.layers import merge_heads, split_heads
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.models.unet import UNet2DConditionModel
from tests.helpers import normal, randomize

Z, E_T, T_E = normal(1, 2, 4, 8, 8), normal(2, 2, 1, 48), Tensor([7, 900], ms.int32)


@pytest.fixture
def config(tiny_config):
    """All kinds of blocks the query meets, two transformer blocks in each."""
    tiny_config.unet.transformer_layers_per_block = 2
    return tiny_config


def make_unet(config, **switches):
    """A DiffDisUNet with random weights; two variants agree in the parameters they share."""
    for key, value in switches.items():
        setattr(config.dual_stream, key, value)
    return randomize(DiffDisUNet(config), 0)


def names(cell):
    return {name for name, _ in cell.parameters_and_names()}


def copy_parameters(cell, source, target):
    """Give the parameters whose names hold `target` the values of those that hold `source` in its place; returns their
    number."""
    params = dict(cell.parameters_and_names())
    found = [name for name in params if target in name and name.replace(target, source) in params]
    for name in found:
        params[name].set_data(Tensor(params[name.replace(target, source)].asnumpy()))
    return len(found)


def assert_close(a, b):
    np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-4, atol=1e-5)


def assert_differ(a, b):
    assert np.linalg.norm((a - b).asnumpy()) > 1e-3 * np.linalg.norm(a.asnumpy())


class ReferenceQuery(nn.Cell):
    """Fig. 3 written out: cross-attention to an explicit zero context, one projection at a time, no shared code
    paths."""

    def __init__(self, unet, config):
        super().__init__(auto_prefix=False)
        self.unet, self.heads = unet, config.unet.num_attention_heads
        self.share_attention, self.modality_ffn = config.dual_stream.share_attention, config.dual_stream.modality_ffn
        text = config.text_encoder
        self.zero_context = Tensor(np.zeros((2, text.max_position_embeddings, text.hidden_size), np.float32))
        self.t_z = Tensor([config.dual_stream.image_condition_timestep] * 2, ms.int32)

    def construct(self, z, e_t, t_e):
        unet = self.unet
        temb = unet.embed_timestep(self.t_z)
        conditioned, h = unet.text_query(e_t, t_e), 0 * e_t
        x = unet.conv_in(z)
        for block in unet.down_blocks:
            for i, resnet in enumerate(block.resnets):
                x = resnet(x, temb)
                if block.has_attention:
                    x, h = self.fusion_block(block.attentions[i], x, h + conditioned)
            for downsampler in block.downsamplers:
                x = downsampler(x)
        x = unet.mid_block.resnets[0](x, temb)
        x, h = self.fusion_block(unet.mid_block.attentions[0], x, h + conditioned)
        return unet.alignment(unet.mid_block.resnets[1](x, temb), h)

    def fusion_block(self, cell, x, query):
        b, c, height, width = x.shape
        tokens = cell.proj_in(cell.norm(x)).reshape(b, c, height * width).transpose(0, 2, 1)
        q = cell.dual_stream.proj_in(query)
        for block, own in zip(cell.transformer_blocks, cell.dual_stream.blocks):  # noqa: B905 (a graph knows no keyword)
            q, tokens = self.transformer_block(block, own, q, tokens)
        x = x + cell.proj_out(tokens.transpose(0, 2, 1).reshape(b, c, height, width))
        return x, cell.dual_stream.proj_out(q)

    def transformer_block(self, block, own, q, tokens):
        query_attn = block.attn1 if self.share_attention else own.attn1
        q_in, tokens_in = block.norm1(q), block.norm1(tokens)
        keys = ops.concat((query_attn.to_k(q_in), block.attn1.to_k(tokens_in)), 1)
        values = ops.concat((query_attn.to_v(q_in), block.attn1.to_v(tokens_in)), 1)
        q = q + query_attn.to_out[0](self.attend(query_attn.to_q(q_in), keys, values))
        tokens = tokens + block.attn1.to_out[0](self.attend(block.attn1.to_q(tokens_in), keys, values))
        tokens = tokens + block.attn2(block.norm2(tokens), self.zero_context)
        tokens = tokens + block.ff(block.norm3(tokens))
        return q + (own.ff(own.norm3(q)) if self.modality_ffn else block.ff(block.norm3(q))), tokens

    def attend(self, queries, keys, values):
        return merge_heads(attention(*[split_heads(x, self.heads) for x in (queries, keys, values)]))


@pytest.mark.parametrize('fusion', [True, False])
def test_unused_new_parts_leave_stable_diffusion_to_the_last_bit(tiny_config, fusion):
    inputs = Z, Tensor([3, 999], ms.int32), normal(3, 2, 16, 32)
    plain = randomize(UNet2DConditionModel(tiny_config), 0)
    ours = make_unet(tiny_config, fusion=fusion)
    assert names(plain) == {name for name in names(ours) if not is_new_parameter(name)}
    expected = plain(*inputs).asnumpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(ours.predict_noise(*inputs).asnumpy(), expected)


@pytest.mark.parametrize('share_attention', [True, False])
@pytest.mark.parametrize('modality_ffn', [True, False])
def test_query_follows_figure_3(config, share_attention, modality_ffn):
    unet = make_unet(config, share_attention=share_attention, modality_ffn=modality_ffn)
    own = {name.split('.blocks.')[1][2:].split('.')[0] for name in names(unet) if '.dual_stream.blocks.' in name}
    assert own == ({'attn1'} if not share_attention else set()) | ({'norm3', 'ff'} if modality_ffn else set())
    predicted = unet.predict_query(Z, E_T, T_E)
    assert predicted.shape == (2, 1, 48) and np.isfinite(predicted.asnumpy()).all()
    assert_close(predicted, ReferenceQuery(unet, config)(Z, E_T, T_E))


@pytest.mark.parametrize(
    'switch, parts', [({'share_attention': False}, ['attn1']), ({'modality_ffn': True}, ['ff', 'norm3'])]
)
def test_own_weights_of_the_query_are_used(config, switch, parts):
    """With own weights that are copies, a switch changes nothing; with other ones it does."""
    base = {'share_attention': True, 'modality_ffn': False}
    expected = make_unet(config, **base).predict_query(Z, E_T, T_E)
    unet = make_unet(config, **{**base, **switch})
    assert_differ(unet.predict_query(Z, E_T, T_E), expected)
    for block in range(2):
        for part in parts:
            assert copy_parameters(unet, f'.transformer_blocks.{block}.{part}.', f'.dual_stream.blocks.{block}.{part}.')
    assert_close(unet.predict_query(Z, E_T, T_E), expected)


def test_without_fusion_the_query_meets_the_image_in_the_alignment_alone(config):
    fused = make_unet(config).predict_query(Z, E_T, T_E)
    unet = make_unet(config, fusion=False)
    assert not any('dual_stream' in name for name in names(unet))
    assert {name.split('.')[0] for name in names(unet) if is_new_parameter(name)} == {'text_query', 'alignment'}
    plain = unet.predict_query(Z, E_T, T_E)
    assert plain.shape == (2, 1, 48) and np.isfinite(plain.asnumpy()).all()
    assert_differ(plain, fused)
    assert_differ(plain, unet.predict_query(Z * 0.5, E_T, T_E))


def test_image_condition_timestep(config):
    outputs = [make_unet(config, image_condition_timestep=t).predict_query(Z, E_T, T_E) for t in (0, 999, 1000)]
    for a, b in ((0, 1), (0, 2)):
        assert_differ(outputs[a], outputs[b])
    assert np.abs((outputs[1] - outputs[2]).asnumpy()).max() > 1e-5

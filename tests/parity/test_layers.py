"""Each layer against diffusers and transformers, outputs to 1e-5; gradients of the hand-composed ones to 1e-4."""

import mindspore as ms
import pytest
import torch
from diffusers.models import attention as torch_attention
from diffusers.models import embeddings as torch_embeddings
from diffusers.models import resnet as torch_resnet
from diffusers.models.attention_processor import Attention as TorchAttention
from diffusers.models.transformers.transformer_2d import Transformer2DModel as TorchTransformer2DModel
from mindspore import Tensor, nn
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from diffdis_ms.models import layers
from diffdis_ms.models.autoencoder import MidAttention
from diffdis_ms.models.clip import TransformerLayer
from diffdis_ms.models.unet import BasicTransformerBlock, Transformer2DModel
from tests.helpers import normal, randomize
from tests.parity.weights import copy_to_torch, relative_error, to_torch, torch_name


def error(cell, module, *inputs):
    """Relative error of a cell, with random weights, against a torch module with the same ones."""
    copy_to_torch(module, randomize(cell, 0))
    with torch.no_grad():
        expected = module(*[to_torch(x) for x in inputs])
    return relative_error(cell(*inputs), expected)


@pytest.mark.parametrize('in_channels, out_channels', [(32, 32), (32, 48)])
def test_resnet_block_with_timestep(in_channels, out_channels):
    cell = layers.ResnetBlock2D(in_channels, out_channels, 8, 1e-5, 64)
    module = torch_resnet.ResnetBlock2D(
        in_channels=in_channels, out_channels=out_channels, temb_channels=64, groups=8, eps=1e-5
    )
    assert error(cell, module, normal(1, 2, in_channels, 6, 5), normal(2, 2, 64)) <= 1e-5


def test_resnet_block_without_timestep():
    cell = layers.ResnetBlock2D(32, 48, 8, 1e-6)
    module = torch_resnet.ResnetBlock2D(in_channels=32, out_channels=48, temb_channels=None, groups=8, eps=1e-6)
    module.forward = lambda x, forward=module.forward: forward(x, None)
    assert error(cell, module, normal(1, 2, 32, 6, 5)) <= 1e-5


def test_self_attention():
    module = TorchAttention(32, heads=4, dim_head=8)
    assert error(layers.Attention(32, 4), module, normal(1, 2, 7, 32)) <= 1e-5


def test_cross_attention():
    module = TorchAttention(32, cross_attention_dim=24, heads=4, dim_head=8)
    assert error(layers.Attention(32, 4, 24), module, normal(1, 2, 7, 32), normal(2, 2, 5, 24)) <= 1e-5


def test_attention_of_the_autoencoder():
    module = TorchAttention(
        32,
        heads=1,
        dim_head=32,
        bias=True,
        norm_num_groups=8,
        eps=1e-6,
        residual_connection=True,
        upcast_softmax=True,
        _from_deprecated_attn_block=True,
    )
    assert error(MidAttention(32, 8), module, normal(1, 2, 32, 6, 5)) <= 1e-5


def test_feed_forward():
    assert (
        error(layers.FeedForward(32), torch_attention.FeedForward(32, activation_fn='geglu'), normal(1, 2, 7, 32))
        <= 1e-5
    )


def make_transformer_blocks():
    return (
        BasicTransformerBlock(32, 4, 24),
        torch_attention.BasicTransformerBlock(32, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=24),
    )


def test_basic_transformer_block():
    cell, module = make_transformer_blocks()
    module.forward = lambda x, c, forward=module.forward: forward(x, encoder_hidden_states=c)
    assert error(cell, module, normal(1, 2, 7, 32), normal(2, 2, 5, 24)) <= 1e-5


@pytest.mark.parametrize('num_blocks', [1, 2])
def test_transformer_2d(tiny_config, num_blocks):
    tiny_config.unet.transformer_layers_per_block = num_blocks
    module = TorchTransformer2DModel(
        4, 8, in_channels=32, num_layers=num_blocks, cross_attention_dim=32, norm_num_groups=8
    )
    module.forward = lambda x, c, forward=module.forward: forward(x, encoder_hidden_states=c, return_dict=False)[0]
    assert error(Transformer2DModel(32, tiny_config), module, normal(1, 2, 32, 6, 5), normal(2, 2, 5, 32)) <= 1e-5


@pytest.mark.parametrize('dim', [32, 320])
@pytest.mark.parametrize('dtype', [ms.int32, ms.float32])
def test_timestep_sinusoids(dim, dtype):
    t = Tensor([0, 1, 500, 999, 1000], dtype)
    expected = torch_embeddings.Timesteps(dim, flip_sin_to_cos=True, downscale_freq_shift=0)(to_torch(t))
    assert relative_error(ms.jit(layers.timestep_embedding)(t, dim), expected) <= 1e-5


def test_timestep_embedding():
    assert error(layers.TimestepEmbedding(32, 64), torch_embeddings.TimestepEmbedding(32, 64), normal(1, 3, 32)) <= 1e-5


@pytest.mark.parametrize('asymmetric', [False, True])
@pytest.mark.parametrize('size', [(8, 6), (7, 9)])
def test_downsample(asymmetric, size):
    module = torch_resnet.Downsample2D(32, use_conv=True, padding=0 if asymmetric else 1, name='op')
    assert error(layers.Downsample2D(32, asymmetric), module, normal(1, 2, 32, *size)) <= 1e-5


def test_upsample():
    assert error(layers.Upsample2D(32), torch_resnet.Upsample2D(32, use_conv=True), normal(1, 2, 32, 5, 3)) <= 1e-5


@pytest.mark.parametrize('act', ['quick_gelu', 'gelu'])
def test_clip_layer(act):
    config = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4, hidden_act=act)
    config._attn_implementation = 'eager'
    module = CLIPEncoderLayer(config)
    module.forward = lambda x, forward=module.forward: forward(x, None, None)[0]
    cell = TransformerLayer(32, 4, 64, act)
    copy_to_torch(module, randomize(cell, 0))
    x = normal(1, 2, 7, 32)
    with torch.no_grad():
        assert relative_error(cell(x, None), module(to_torch(x))) <= 1e-5


class WeightedSum(nn.Cell):
    """A scalar of the cell's output whose gradient reaches every weight."""

    def __init__(self, cell, weights):
        super().__init__(auto_prefix=False)
        self.cell, self.weights = cell, weights

    def construct(self, *inputs):
        return (self.cell(*inputs) * self.weights).sum()


def assert_gradients(cell, module, inputs, tolerance):
    """Gradients of all inputs and all weights against torch's autograd."""
    randomize(cell, 0)
    output = cell(*inputs)
    weights = normal(9, *output.shape)
    params = list(cell.trainable_params())
    gradient = ms.grad(WeightedSum(cell, weights), grad_position=tuple(range(len(inputs))), weights=params)
    input_gradients, weight_gradients = ms.jit(gradient)(*inputs)

    copy_to_torch(module, cell)
    torch_inputs = [to_torch(x).requires_grad_() for x in inputs]
    (module(*torch_inputs) * to_torch(weights)).sum().backward()
    for ours, theirs in zip(input_gradients, torch_inputs, strict=True):
        assert relative_error(ours, theirs.grad) <= tolerance
    expected = dict(module.named_parameters())
    assert len(weight_gradients) == len(expected)
    for param, ours in zip(params, weight_gradients, strict=True):
        assert relative_error(ours, expected[torch_name(param.name)].grad) <= tolerance, param.name


def test_gradients_of_a_resnet_block():
    module = torch_resnet.ResnetBlock2D(in_channels=32, out_channels=48, temb_channels=64, groups=8, eps=1e-5)
    assert_gradients(
        layers.ResnetBlock2D(32, 48, 8, 1e-5, 64), module, (normal(1, 2, 32, 6, 5), normal(2, 2, 64)), 1e-4
    )


def test_gradients_of_a_transformer_block():
    cell, module = make_transformer_blocks()
    module.forward = lambda x, c, forward=module.forward: forward(x, encoder_hidden_states=c)
    assert_gradients(cell, module, (normal(1, 2, 7, 32), normal(2, 2, 5, 24)), 1e-4)

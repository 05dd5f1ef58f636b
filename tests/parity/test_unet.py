"""The UNet against diffusers' UNet2DConditionModel, with Stable Diffusion's block types."""

import mindspore as ms
import pytest
import torch
from mindspore import Tensor

from ckpt_convert.forward import make_unet
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.unet import UNet2DConditionModel
from tests.helpers import normal, randomize
from tests.parity.weights import check, copy_to_torch, to_torch

CONFIGS = {
    'stable diffusion in small': {
        'block_out_channels': [32, 64, 64],
        'attention_levels': [True, True, False],
        'layers_per_block': 2,
    },
    'one residual block, two transformer blocks': {
        'block_out_channels': [32, 64],
        'attention_levels': [False, True],
        'layers_per_block': 1,
        'transformer_layers_per_block': 2,
    },
    'three residual blocks, attention on every level': {
        'block_out_channels': [16, 32, 48],
        'attention_levels': [True, True, True],
        'layers_per_block': 3,
        'num_attention_heads': 2,
    },
    'no attention but in the middle': {
        'block_out_channels': [32, 32, 64, 64],
        'attention_levels': [False] * 4,
        'layers_per_block': 1,
        'norm_num_groups': 16,
    },
}


def compare(cell, predict_noise, config, tolerance, size=(8, 8), batch=2):
    """Random weights, one batch, both sides."""
    z_t, t_z = normal(1, batch, 4, *size), Tensor([999, 3][:batch], ms.int32)
    context = normal(2, batch, config.text_encoder.max_position_embeddings, config.text_encoder.hidden_size)
    module = copy_to_torch(make_unet(config), randomize(cell, 0))
    with torch.no_grad():
        expected = module(to_torch(z_t), to_torch(t_z), to_torch(context)).sample
    check('noise', predict_noise(z_t, t_z, context), expected, tolerance)


@pytest.mark.parametrize('name', CONFIGS)
def test_unet(tiny_config, name):
    for key, value in CONFIGS[name].items():
        setattr(tiny_config.unet, key, value)
    cell = UNet2DConditionModel(tiny_config)
    compare(cell, cell, tiny_config, 1e-4)


def test_unet_on_a_map_that_is_not_square(tiny_config):
    cell = UNet2DConditionModel(tiny_config)
    compare(cell, cell, tiny_config, 1e-4, size=(4, 12))


def test_generation_step_of_diffdis(tiny_config):
    cell = DiffDisUNet(tiny_config)
    compare(cell, cell.predict_noise, tiny_config, 1e-4)

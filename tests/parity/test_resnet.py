"""CLIP's ModifiedResNet against open_clip's."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from diffdis_ms.config import ImageEncoderConfig
from diffdis_ms.models.clip import CLIPImageEncoder
from diffdis_ms.models.init import initialize
from tests.helpers import make_tiny_resnet, normal, randomize
from tests.parity.weights import check, copy_to_torch, relative_error, settle_batch_norms, to_torch, torch_name
from tests.parity.without_torchvision import import_part

modified_resnet = import_part('open_clip.modified_resnet')


def make_resnet(config):
    """open_clip's tower, under the name it has in its CLIP."""
    return torch.nn.Sequential(
        OrderedDict(
            visual=modified_resnet.ModifiedResNet(
                layers=config.resnet_layers,
                output_dim=config.projection_dim,
                heads=config.num_attention_heads,
                image_size=config.image_size,
                width=config.hidden_size // 32,
            )
        )
    )


def compare(config, tolerance, batch=3):
    """The image embedding of one batch."""
    cell = randomize(CLIPImageEncoder(config), 0)
    module = copy_to_torch(make_resnet(config), cell)
    pixels = normal(1, batch, 3, config.image_size, config.image_size)
    settle_batch_norms(cell, module, to_torch(pixels))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(module(to_torch(pixels)), dim=-1)
    assert relative_error(expected[:1], expected[1:2]) > 0.02  # the network tells pictures apart
    check('image embedding', cell(pixels), expected, tolerance)


def test_resnet():
    compare(make_tiny_resnet(), 1e-4)


def test_other_depths_and_sizes():
    config = make_tiny_resnet()
    config.resnet_layers, config.image_size, config.num_attention_heads = [1, 2, 2, 1], 96, 8
    compare(config, 1e-4)


def test_fresh_norms_and_positions():
    cell = CLIPImageEncoder(make_tiny_resnet())
    initialize(cell, 0)
    expected = make_resnet(make_tiny_resnet()).state_dict()
    for name, p in cell.parameters_and_names():
        if name.rsplit('.', 1)[-1] in ('moving_mean', 'moving_variance', 'beta'):
            np.testing.assert_array_equal(p.asnumpy(), expected[torch_name(name)].numpy())
    assert 0.009 < cell.visual.attnpool.positional_embedding.asnumpy().std() < 0.011


@pytest.mark.slow
def test_rn50():
    """Sizes from open_clip's own file of the model; its heads are 64 wide."""
    clip = json.loads((Path(modified_resnet.__file__).parent / 'model_configs' / 'RN50.json').read_text())
    vision = clip['vision_cfg']
    config = ImageEncoderConfig(architecture='resnet', hidden_size=2048, num_attention_heads=32, projection_dim=1024)
    assert vision == {
        'image_size': config.image_size,
        'layers': config.resnet_layers,
        'width': config.hidden_size // 32,
        'patch_size': None,
    }
    assert clip['embed_dim'] == config.projection_dim and config.hidden_size // config.num_attention_heads == 64
    compare(config, 1e-4, batch=2)

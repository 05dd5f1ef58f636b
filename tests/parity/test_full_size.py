"""Stable Diffusion v1 and CLIP ViT-L/14 at their real sizes, random weights. One network a test: memory is freed in
between."""

import gc

import pytest

from diffdis_ms.config import ModelConfig
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.models.unet import UNet2DConditionModel
from tests.parity import test_autoencoder, test_clip, test_unet

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def freed_memory():
    yield
    gc.collect()


def count(cell, wanted):
    return sum(p.size for name, p in cell.parameters_and_names() if wanted(name))


def test_unet_of_stable_diffusion_v1():
    config = ModelConfig()
    cell = UNet2DConditionModel(config)
    assert count(cell, lambda name: True) == 859_520_964
    test_unet.compare(cell, cell, config, 1e-4, size=(32, 32), batch=1)


def test_diffdis_adds_to_stable_diffusion_and_takes_nothing_away():
    assert count(DiffDisUNet(ModelConfig()), lambda name: not is_new_parameter(name)) == 859_520_964


def test_autoencoder_of_stable_diffusion_v1():
    test_autoencoder.compare(ModelConfig().vae, (256, 256), 1e-4)


def test_clip_vit_l_14():
    test_clip.compare(ModelConfig(), 1e-4, batch=2)

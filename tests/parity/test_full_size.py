"""The number of Stable Diffusion v1's parameters. Its outputs are compared in test_convert_full_size.py."""

import pytest

from diffdis_ms.config import ModelConfig
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.models.unet import UNet2DConditionModel

pytestmark = pytest.mark.slow
STABLE_DIFFUSION = 859_520_964


def count(cell, wanted):
    return sum(p.size for name, p in cell.parameters_and_names() if wanted(name))


def test_unet_of_stable_diffusion_v1():
    assert count(UNet2DConditionModel(ModelConfig()), lambda name: True) == STABLE_DIFFUSION


def test_diffdis_adds_to_stable_diffusion_and_takes_nothing_away():
    assert count(DiffDisUNet(ModelConfig()), lambda name: not is_new_parameter(name)) == STABLE_DIFFUSION

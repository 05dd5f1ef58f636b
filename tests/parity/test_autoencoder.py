"""The autoencoder against diffusers' AutoencoderKL."""

import mindspore as ms
import pytest
import torch
from mindspore import Tensor

from ckpt_convert.forward import make_autoencoder
from diffdis_ms.models.autoencoder import AutoencoderKL, LatentDecoder, LatentEncoder
from tests.helpers import normal, randomize
from tests.parity.weights import check, copy_to_torch, to_torch


def compare(vae_config, size, tolerance):
    """Mean, log-variance, scaled latents and pixels of one batch."""
    cell = randomize(AutoencoderKL(vae_config), 0)
    module = copy_to_torch(make_autoencoder(vae_config), cell)
    factor = 2 ** (len(vae_config.block_out_channels) - 1)
    pixels = normal(1, 1, vae_config.in_channels, *size)
    latents = normal(2, 1, vae_config.latent_channels, size[0] // factor, size[1] // factor)
    with torch.no_grad():
        posterior = module.encode(to_torch(pixels)).latent_dist
        decoded = module.decode(to_torch(latents) / module.config.scaling_factor).sample
    mean, logvar = ms.jit(cell.moments)(pixels)
    check('mean', mean, posterior.mean, tolerance)
    check('log-variance', logvar, posterior.logvar, tolerance)
    check('latents', LatentEncoder(cell)(pixels), posterior.mean * module.config.scaling_factor, tolerance)
    check('decoded', LatentDecoder(cell)(latents), decoded, tolerance)


@pytest.mark.parametrize('size', [(32, 32), (16, 48)])
def test_autoencoder(tiny_config, size):
    compare(tiny_config.vae, size, 1e-4)


def test_other_depths(tiny_config):
    tiny_config.vae.block_out_channels = [16, 32]
    tiny_config.vae.layers_per_block = 1
    compare(tiny_config.vae, (16, 16), 1e-4)


def test_log_variance_is_clamped(tiny_config):
    cell = randomize(AutoencoderKL(tiny_config.vae), 0)
    cell.quant_conv.bias.set_data(Tensor([0, 0, 0, 0, -60, -5, 5, 40], ms.float32))
    module = copy_to_torch(make_autoencoder(tiny_config.vae), cell)
    pixels = normal(1, 2, 3, 16, 16)
    with torch.no_grad():
        expected = module.encode(to_torch(pixels)).latent_dist.logvar
    assert {-30.0, 20.0} <= set(expected.unique().tolist())
    check('log-variance', ms.jit(cell.moments)(pixels)[1], expected, 1e-4)

"""Algorithms 2 and 3: guidance, image samplers, and the text query's sampler with gamma."""
import numpy as np
import pytest

from diffdis_ms.config import ImageDiffusionConfig, TextDiffusionConfig
from diffdis_ms.diffusion.process import data_from_noise, noise_from_data
from diffdis_ms.diffusion.samplers import SAMPLERS, guided, sample_text_query
from diffdis_ms.diffusion.schedule import alphas_cumprod, sampling_timesteps


def test_guidance_weight_is_the_papers_w():
    assert guided(2.0, 1.0, 3.0) == 4 * 2.0 - 3 * 1.0
    assert guided(2.0, 1.0, 0.0) == 2.0


@pytest.mark.parametrize('target', ['data', 'noise'])
@pytest.mark.parametrize('gamma', [1.0, 0.1, 0.01])
@pytest.mark.parametrize('steps', [1, 8, 50])
def test_text_sampler_recovers_e0_from_a_perfect_predictor(target, gamma, steps):
    rng = np.random.default_rng(1)
    e0 = rng.standard_normal((3, 1, 32))
    e0 /= np.linalg.norm(e0, axis=-1, keepdims=True)
    abar = alphas_cumprod(TextDiffusionConfig())

    def predict_data(e_t, t):
        if target == 'data':
            return e0
        noise = noise_from_data(e_t, e0, abar[t], gamma)                         # a perfect noise predictor
        e0_hat = data_from_noise(e_t, noise, abar[t], gamma)
        return e0_hat / np.linalg.norm(e0_hat, axis=-1, keepdims=True)

    found = sample_text_query(predict_data, rng.standard_normal((3, 1, 32)), sampling_timesteps(steps, 1000, last=999), abar, gamma)
    assert np.abs(found - e0).max() < 1e-6


@pytest.mark.parametrize('gamma', [1.0, 0.01])
def test_text_sampler_keeps_the_states_on_the_forward_process(gamma):
    """With a perfect predictor, every state is gamma sqrt(abar) e0 + sqrt(1 - abar) eps for one and the same eps."""
    rng = np.random.default_rng(2)
    e0, abar, noises = np.full((1, 1, 4), 0.5), alphas_cumprod(TextDiffusionConfig()), []

    def predict_data(e_t, t):
        noises.append(noise_from_data(e_t, e0, abar[t], gamma))
        return e0

    sample_text_query(predict_data, rng.standard_normal((1, 1, 4)), sampling_timesteps(8, 1000, last=999), abar, gamma)
    assert all(np.allclose(n, noises[0], atol=1e-6) for n in noises)


@pytest.mark.parametrize('name', SAMPLERS)
def test_image_samplers_recover_z0_from_a_perfect_predictor(name):
    rng = np.random.default_rng(3)
    z0, abar = rng.standard_normal((2, 4, 4, 4)), alphas_cumprod(ImageDiffusionConfig())

    def predict(z, t):
        return noise_from_data(z, z0, abar[t])

    found = SAMPLERS[name](predict, rng.standard_normal(z0.shape), sampling_timesteps(50, 1000), abar)
    left_over = 2 * np.sqrt(1 - abar[0])                                         # ddim and pndm stop at abar_0, as Stable Diffusion does
    assert np.abs(found - z0).max() < 4 * left_over

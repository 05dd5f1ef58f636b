"""Algorithms 2 and 3: guidance, image samplers, and the text query's sampler with gamma."""

import numpy as np
import pytest

from diffdis_ms.config import ImageDiffusionConfig, TextDiffusionConfig
from diffdis_ms.diffusion.process import data_from_noise, noise_from_data
from diffdis_ms.diffusion.samplers import SAMPLERS, guided, sample_text_query
from diffdis_ms.diffusion.schedule import alphas_cumprod, sampling_timesteps


def test_guidance_weight_is_the_papers_w():
    assert guided(2.0, 5.0, 3.0) == 4 * 2.0 - 3 * 5.0
    assert guided(2.0, 5.0, 0.0) == 2.0


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize('target', ['data', 'noise'])
@pytest.mark.parametrize('gamma', [1.0, 0.1, 0.01])
@pytest.mark.parametrize('steps', [1, 8, 50])
def test_text_sampler_recovers_e0_from_a_perfect_predictor(target, gamma, steps):
    """And shows it the states of the forward process; e0 alone says nothing: a predictor of data gives it anyway."""
    rng = np.random.default_rng(1)
    e0, eps, abar = unit(rng, 3, 1, 32), rng.standard_normal((3, 1, 32)), alphas_cumprod(TextDiffusionConfig())
    seen = []
    timesteps = sampling_timesteps(steps, 1000, last=999)

    def state(t):
        return gamma * np.sqrt(abar[t]) * e0 + np.sqrt(1 - abar[t]) * eps

    def predict_data(e_t, t):
        seen.append((t, e_t))
        if target == 'data':
            return e0
        e0_hat = data_from_noise(e_t, eps, abar[t], gamma)  # right on the forward process alone
        return e0_hat / np.linalg.norm(e0_hat, axis=-1, keepdims=True)

    found = sample_text_query(predict_data, state(999), timesteps, abar, gamma)
    assert np.abs(found - e0).max() < 1e-6
    assert [t for t, _ in seen] == timesteps.tolist()
    assert all(np.abs(e_t - state(t)).max() < 1e-6 for t, e_t in seen)


@pytest.mark.parametrize('gamma', [1.0, 0.1])
def test_text_sampler_with_a_predictor_that_errs(gamma):
    """Algorithm 3 written out: what the network says depends on the state, so every coefficient shows."""
    rng = np.random.default_rng(5)
    start, abar = rng.standard_normal((2, 1, 8)), alphas_cumprod(TextDiffusionConfig())
    timesteps = sampling_timesteps(4, 1000, last=999)

    def predict_data(e_t, t):
        e0_hat = np.sin(3 * e_t + t / 300) + 0.2
        return e0_hat / np.linalg.norm(e0_hat, axis=-1, keepdims=True)

    e = start
    for t, following in zip(timesteps, timesteps[1:], strict=False):
        e0_hat = predict_data(e, t)
        eps = (e - gamma * np.sqrt(abar[t]) * e0_hat) / np.sqrt(1 - abar[t])
        e = gamma * np.sqrt(abar[following]) * e0_hat + np.sqrt(1 - abar[following]) * eps
    expected = predict_data(e, timesteps[-1])
    assert np.abs(sample_text_query(predict_data, start, timesteps, abar, gamma) - expected).max() < 1e-9


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
    left_over = 2 * np.sqrt(1 - abar[0])  # ddim and pndm stop at abar_0, as Stable Diffusion does
    assert np.abs(found - z0).max() < 4 * left_over


@pytest.mark.parametrize('steps', [1, 2, 3, 50])
@pytest.mark.parametrize('name', SAMPLERS)
def test_image_samplers_walk_along_the_forward_process(name, steps):
    """From z_T with noise eps and a predictor that says eps: every state is the forward process's with this eps."""
    rng = np.random.default_rng(4)
    z0, eps, abar = *rng.standard_normal((2, 2, 4, 4, 4)), alphas_cumprod(ImageDiffusionConfig())
    seen = []

    def state(t):
        return np.sqrt(abar[t]) * z0 + np.sqrt(1 - abar[t]) * eps

    def predict(z, t):
        seen.append((t, z))
        return eps

    timesteps = sampling_timesteps(steps, 1000)
    found = SAMPLERS[name](predict, state(timesteps[0]), timesteps, abar)
    assert np.abs(found - (z0 if name == 'dpm++' else state(0))).max() < 1e-9
    assert all(np.abs(z - state(t)).max() < 1e-9 for t, z in seen)
    expected = timesteps.tolist()
    if name == 'pndm' and steps > 1:
        expected.insert(1, expected[1])  # its first step is taken twice
    assert [t for t, _ in seen] == expected

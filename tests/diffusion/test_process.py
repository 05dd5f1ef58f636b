"""Eqs. 5, 6: schedules and forward processes."""

import numpy as np
import pytest

from diffdis_ms.config import ImageDiffusionConfig, TextDiffusionConfig
from diffdis_ms.diffusion.process import (
    data_from_noise,
    noise_from_data,
    noise_from_target,
    q_sample,
    starting_noise,
    velocity,
)
from diffdis_ms.diffusion.schedule import alphas_cumprod, betas, sampling_timesteps
from diffdis_ms.errors import ConfigError


def test_linear_schedule_is_stable_diffusions():
    beta = betas(ImageDiffusionConfig())
    assert len(beta) == 1000 and np.isclose(beta[0], 0.00085) and np.isclose(beta[-1], 0.012)
    assert np.allclose(np.diff(np.sqrt(beta), 2), 0)


def test_cosine_schedule_follows_its_formula_and_is_clipped():
    config = TextDiffusionConfig()
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    assert np.allclose(alphas_cumprod(config)[:990], (f[1:] / f[0])[:990], rtol=1e-9)
    assert betas(config).max() == 0.999


@pytest.mark.parametrize('gamma', [1.0, 0.1, 0.01])
def test_eq5_and_its_inverses(gamma):
    rng = np.random.default_rng(0)
    x0, noise, abar = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), np.array([[0.9], [0.2]])
    x_t = q_sample(x0, noise, abar, gamma)
    assert np.allclose(x_t, gamma * np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise)
    assert np.allclose(data_from_noise(x_t, noise, abar, gamma), x0)
    assert np.allclose(noise_from_data(x_t, x0, abar, gamma), noise)


def test_every_target_gives_back_the_noise():
    rng = np.random.default_rng(0)
    x0, noise, abar = rng.standard_normal((3, 5)), rng.standard_normal((3, 5)), np.array([[0.999], [0.5], [0.005]])
    x_t = q_sample(x0, noise, abar)
    v = velocity(x0, noise, abar)
    assert np.allclose(v**2 + x_t**2, x0**2 + noise**2)  # (x_t, v) is (x0, noise), turned
    for target, prediction in (('noise', noise), ('data', x0), ('velocity', v)):
        assert np.allclose(noise_from_target(x_t, prediction, abar, target), noise)


def test_linear_beta_schedule_is_another_one():
    beta = betas(ImageDiffusionConfig(schedule='linear_beta'))
    assert np.isclose(beta[0], 0.00085) and np.isclose(beta[-1], 0.012) and np.allclose(np.diff(beta, 2), 0)
    assert (
        alphas_cumprod(ImageDiffusionConfig(schedule='linear_beta'))[-1]
        < 0.5 * alphas_cumprod(ImageDiffusionConfig())[-1]
    )


@pytest.mark.parametrize('total', [1000, 500, 7, 1])
def test_every_number_of_steps_begins_near_the_end(total):
    for steps in range(1, total + 1):
        timesteps = sampling_timesteps(steps, total)
        assert len(timesteps) == steps and np.issubdtype(timesteps.dtype, np.integer)
        assert timesteps[-1] >= 0 and timesteps[0] < total and (np.diff(timesteps) < 0).all(), steps
        assert total - 1 - timesteps[0] <= total / steps, steps  # 400 steps began at 799, 600 at 600
        if total % steps == 0 and steps < total:  # diffusers' leading spacing, to the step
            assert (timesteps == np.arange(steps)[::-1] * (total // steps) + 1).all(), steps
    assert sampling_timesteps(total, total).tolist() == list(range(total))[::-1]


def test_images_have_gamma_1():
    x0, noise = np.array([0.5]), np.array([-2.0])
    for function, inputs in ((q_sample, (x0, noise)), (data_from_noise, (x0, noise)), (noise_from_data, (x0, noise))):
        assert function(*inputs, 0.25) == function(*inputs, 0.25, gamma=1.0) != function(*inputs, 0.25, gamma=0.5)


def test_starting_noise_depends_on_seed_and_place_alone():
    noise = starting_noise([3, 0, 1000], 7, (4, 8, 8))
    assert isinstance(noise, np.ndarray) and noise.shape == (3, 4, 8, 8) and noise.dtype == np.float32
    assert np.array_equal(noise[[1]], starting_noise([0], 7, (4, 8, 8)))
    others = noise[1], noise[2], starting_noise([3], 8, (4, 8, 8))
    assert all(abs(np.corrcoef(noise[0].ravel(), other.ravel())[0, 1]) < 0.3 for other in others)
    assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.1


def test_sampling_timesteps():
    assert sampling_timesteps(50, 1000)[[0, 1, -1]].tolist() == [981, 961, 1]
    assert sampling_timesteps(8, 1000, last=999)[[0, -1]].tolist() == [999, 0]
    assert sampling_timesteps(1, 1000, last=999).tolist() == [999]
    assert sampling_timesteps(1000, 1000, last=999).tolist() == list(range(999, -1, -1))
    for steps in (0, 1001):
        with pytest.raises(ConfigError, match='steps'):
            sampling_timesteps(steps, 1000)


def test_unknown_schedule_is_named():
    config = ImageDiffusionConfig()
    config.schedule = 'square'
    with pytest.raises(ConfigError, match="'square'"):
        betas(config)

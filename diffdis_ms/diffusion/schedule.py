"""Noise schedules (NumPy only): betas and the cumulative products of 1 - beta (Eq. 6)."""

import math

import numpy as np

from diffdis_ms.errors import ConfigError


def betas(config):
    """Compute beta_t for t = 0..T-1.

    Args:
        config: ImageDiffusionConfig or TextDiffusionConfig. `linear` is Stable Diffusion's, linear in sqrt(beta)
            (diffusers' scaled_linear); `linear_beta` is Ho et al.'s, linear in beta (diffusers' linear); `cosine` is
            Nichol & Dhariwal's, clipped at 0.999 (diffusers' squaredcos_cap_v2).

    Returns:
        (T,) float64.
    """
    steps = config.num_train_timesteps
    if config.schedule == 'linear':
        return np.linspace(config.beta_start**0.5, config.beta_end**0.5, steps, dtype=np.float64) ** 2
    if config.schedule == 'linear_beta':
        return np.linspace(config.beta_start, config.beta_end, steps, dtype=np.float64)
    if config.schedule == 'cosine':
        f = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
        return np.array([min(1 - f[i + 1] / f[i], 0.999) for i in range(steps)], np.float64)
    raise ConfigError(f'schedule: {config.schedule!r} is none of linear, linear_beta and cosine')


def alphas_cumprod(config):
    """abar_t = prod_{j<=t} (1 - beta_j), (T,) float64."""
    return np.cumprod(1 - betas(config))


def sampling_timesteps(steps, num_train_timesteps, last=None):
    """`steps` timesteps from high to low, evenly spaced.

    Args:
        steps: 1..num_train_timesteps.
        last: None gives diffusers' "leading" spacing with an offset of 1, as in Stable Diffusion (50 steps: 981, 961,
            ..., 1). If `steps` does not divide num_train_timesteps, the distances differ by one, so that the first
            timestep is within one distance of the end (400 steps: 998, 996, 993, ...). num_train_timesteps steps give
            all timesteps (999, 998, ..., 0). An int gives even spacing from `last` to 0, both included; it is used for
            the text query, whose first step must start from pure noise.

    Raises:
        ConfigError: steps is out of range.
    """
    if not 1 <= steps <= num_train_timesteps:
        raise ConfigError(f'steps: {steps} is not in 1..{num_train_timesteps}')
    if last is None:
        return np.arange(steps)[::-1] * num_train_timesteps // steps + (steps < num_train_timesteps)
    if steps == 1:
        return np.array([last])
    return np.round(np.linspace(last, 0, steps)).astype(np.int64)

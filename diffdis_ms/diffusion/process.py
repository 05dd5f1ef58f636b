"""Forward processes, and conversions between the targets noise, data and velocity, for NumPy or MindSpore arrays.

`abar` is alphas_cumprod at the sample's timestep, shaped to broadcast.
"""

import numpy as np


def starting_noise(indices, seed, shape):
    """Draw the initial noise of samples from their positions in a set, independently of batches and processes.

    Args:
        indices: N ints. seed: int. shape: shape of one sample.

    Returns:
        (N, *shape) float32; row k depends only on (seed, indices[k]).
    """
    return np.stack(
        [
            np.random.Generator(np.random.Philox(key=[seed, int(i)])).standard_normal(shape, dtype=np.float32)
            for i in indices
        ]
    )


def q_sample(x0, noise, abar, gamma=1.0):
    """Eq. 5: x_t = gamma * sqrt(abar) * x0 + sqrt(1 - abar) * noise. gamma = 1 for images."""
    return gamma * abar**0.5 * x0 + (1 - abar) ** 0.5 * noise


def data_from_noise(x_t, noise, abar, gamma=1.0):
    """x0 from x_t and its noise: Eq. 5 solved for x0."""
    return (x_t - (1 - abar) ** 0.5 * noise) / (gamma * abar**0.5)


def noise_from_data(x_t, x0, abar, gamma=1.0):
    """The noise from x_t and its x0: Eq. 5 solved for the noise."""
    return (x_t - gamma * abar**0.5 * x0) / (1 - abar) ** 0.5


def velocity(x0, noise, abar):
    """v of Salimans & Ho 2022 (diffusers' v_prediction): sqrt(abar) * noise - sqrt(1 - abar) * x0."""
    return abar**0.5 * noise - (1 - abar) ** 0.5 * x0


def noise_from_velocity(x_t, v, abar):
    """The noise from x_t (gamma = 1) and its v: both definitions solved for the noise, which needs no division."""
    return abar**0.5 * v + (1 - abar) ** 0.5 * x_t


def noise_from_target(x_t, prediction, abar, target):
    """The noise that corresponds to a prediction of `target` ('noise', 'data' or 'velocity').

    It is affine in the prediction, so a guided prediction gives the guided noise.
    """
    if target == 'data':
        return noise_from_data(x_t, prediction, abar)
    return noise_from_velocity(x_t, prediction, abar) if target == 'velocity' else prediction

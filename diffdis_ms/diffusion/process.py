"""Forward processes and conversions between the two targets, noise and data. Arrays are NumPy's or MindSpore's.

`abar` is alphas_cumprod at the sample's timestep, shaped to broadcast.
"""


def q_sample(x0, noise, abar, gamma=1.0):
    """Eq. 5: x_t = gamma * sqrt(abar) * x0 + sqrt(1 - abar) * noise. gamma = 1 for images."""
    return gamma * abar ** 0.5 * x0 + (1 - abar) ** 0.5 * noise


def data_from_noise(x_t, noise, abar, gamma=1.0):
    """x0 from x_t and its noise: Eq. 5 solved for x0."""
    return (x_t - (1 - abar) ** 0.5 * noise) / (gamma * abar ** 0.5)


def noise_from_data(x_t, x0, abar, gamma=1.0):
    """The noise from x_t and its x0: Eq. 5 solved for the noise."""
    return (x_t - gamma * abar ** 0.5 * x0) / (1 - abar) ** 0.5

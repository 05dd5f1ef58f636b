"""Reverse processes. All image samplers have the same signature:

    sampler(predict_noise, z, timesteps, alphas_cumprod) -> z_0

`predict_noise(z_t, t)` takes the state and an int timestep and returns the (guided) noise; `timesteps` go from high to
low; `alphas_cumprod` is the whole training schedule (NumPy). States may be NumPy arrays or MindSpore tensors, because
the coefficients are Python floats, computed in float64. The text query has a separate sampler, `sample_text_query`.
"""

import math

from diffdis_ms.diffusion.process import data_from_noise, noise_from_data, q_sample


def guided(conditional, unconditional, guidance_weight):
    """Classifier-free guidance (Algorithms 2 and 3): (1 + w) * conditional - w * unconditional.

    `guidance_weight` is the paper's w; diffusers' `guidance_scale` is 1 + w.
    """
    return (1.0 + guidance_weight) * conditional - guidance_weight * unconditional


def _previous(timesteps, i, alphas_cumprod):
    """abar after step i; after the last one, Stable Diffusion keeps abar_0 (`set_alpha_to_one=False`)."""
    return float(alphas_cumprod[timesteps[i + 1]] if i + 1 < len(timesteps) else alphas_cumprod[0])


def _ddim_step(z, noise, abar, abar_previous):
    """Line 6 of Algorithm 2: remove the predicted noise, then add the noise of the earlier timestep."""
    return q_sample(data_from_noise(z, noise, abar), noise, abar_previous)


def ddim(predict_noise, z, timesteps, alphas_cumprod):
    """DDIM without added noise (Algorithm 2; Song et al. 2020)."""
    for i, t in enumerate(timesteps):
        z = _ddim_step(z, predict_noise(z, int(t)), float(alphas_cumprod[t]), _previous(timesteps, i, alphas_cumprod))
    return z


def pndm(predict_noise, z, timesteps, alphas_cumprod):
    """Pseudo linear multistep (Liu et al. 2022) as in Stable Diffusion: instead of a Runge-Kutta start, the first step
    is done twice, the second time with the mean of the noises at its two ends. It needs one evaluation more than
    `timesteps`."""
    history = []
    for i, t in enumerate(timesteps):
        abar, previous = float(alphas_cumprod[t]), _previous(timesteps, i, alphas_cumprod)
        history = history[-3:] + [predict_noise(z, int(t))]
        if len(history) == 1:
            noise = history[0]
            if i + 1 < len(timesteps):
                ahead = predict_noise(_ddim_step(z, noise, abar, previous), int(timesteps[1]))
                noise = (ahead + noise) / 2
        elif len(history) == 2:
            noise = (3 * history[-1] - history[-2]) / 2
        elif len(history) == 3:
            noise = (23 * history[-1] - 16 * history[-2] + 5 * history[-3]) / 12
        else:
            noise = (55 * history[-1] - 59 * history[-2] + 37 * history[-3] - 9 * history[-4]) / 24
        z = _ddim_step(z, noise, abar, previous)
    return z


def dpm_solver_plus_plus(predict_noise, z, timesteps, alphas_cumprod):
    """DPM-Solver++(2M) (Lu et al. 2022), first order in the first and last step, without noise at the end."""
    older, older_step = None, 0.0
    for i, t in enumerate(timesteps):
        abar = float(alphas_cumprod[t])
        z0 = data_from_noise(z, predict_noise(z, int(t)), abar)
        if i + 1 == len(timesteps):
            return z0
        next_abar = float(alphas_cumprod[timesteps[i + 1]])
        step = _log_snr(next_abar) - _log_snr(abar)
        direction = z0
        if older is not None:
            direction = z0 + (z0 - older) * (step / (2 * older_step))
        z = math.sqrt((1 - next_abar) / (1 - abar)) * z - math.sqrt(next_abar) * math.expm1(-step) * direction
        older, older_step = z0, step
    return z


def _log_snr(abar):
    return 0.5 * math.log(abar / (1 - abar))


SAMPLERS = {'ddim': ddim, 'pndm': pndm, 'dpm++': dpm_solver_plus_plus}


def sample_text_query(predict_data, e, timesteps, alphas_cumprod, gamma):
    """DDIM for the text query (Algorithm 3), consistent with gamma: sqrt(abar) * e0_hat in the algorithm becomes
    gamma * sqrt(abar) * e0_hat.

    Args:
        predict_data: (e_t, t) -> guided e0_hat, L2-normalised (like the data it predicts).
        e: e_T, pure noise (B, 1, D).
        timesteps: from high to low.
        alphas_cumprod: (T,) of the text schedule.
        gamma: Eq. 5.

    Returns:
        e0_hat of the last step (B, 1, D), of length 1.
    """
    e0_hat = None
    for i, t in enumerate(timesteps):
        abar = float(alphas_cumprod[t])
        e0_hat = predict_data(e, int(t))
        if i + 1 < len(timesteps):
            noise = noise_from_data(e, e0_hat, abar, gamma)
            e = q_sample(e0_hat, noise, float(alphas_cumprod[timesteps[i + 1]]), gamma)
    return e0_hat

"""Image samplers against diffusers' schedulers over 50 steps, and the text process's gradients against torch
float64."""

import mindspore as ms
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from mindspore import Tensor, nn

from diffdis_ms.config import ImageDiffusionConfig, TextDiffusionConfig
from diffdis_ms.diffusion.losses import alignment_loss
from diffdis_ms.diffusion.process import noise_from_target, q_sample, velocity
from diffdis_ms.diffusion.samplers import SAMPLERS
from diffdis_ms.diffusion.schedule import alphas_cumprod, sampling_timesteps

BETAS = {'num_train_timesteps': 1000, 'beta_start': 0.00085, 'beta_end': 0.012, 'beta_schedule': 'scaled_linear'}
SCHEDULERS = {
    'ddim': lambda: DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    'pndm': lambda: PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
    'dpm++': lambda: DPMSolverMultistepScheduler(**BETAS, timestep_spacing='leading', steps_offset=1),
}


def predict(z, t):
    """A smooth, non-linear stand-in for the network, the same in NumPy and torch."""
    lib = torch if isinstance(z, torch.Tensor) else np
    return 0.8 * lib.sin(z + t / 300) + 0.1 * z


@pytest.mark.parametrize('name', SCHEDULERS)
@pytest.mark.parametrize('steps', [50, 20])
def test_sampler_equals_diffusers(name, steps):
    start = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(steps)
    z = torch.tensor(start)
    for t in scheduler.timesteps:
        z = scheduler.step(predict(z, float(t)), t, z).prev_sample
    # diffusers spaces its DPM-Solver's timesteps in a way of its own; the solver is what is compared
    timesteps = scheduler.timesteps.numpy() if name == 'dpm++' else sampling_timesteps(steps, 1000)
    ours = SAMPLERS[name](predict, start, timesteps, alphas_cumprod(ImageDiffusionConfig()))
    error = np.linalg.norm(ours - z.numpy()) / np.linalg.norm(z.numpy())
    print(f'{name}, {steps} steps: relative error {error:.1e}')
    assert error <= 1e-5


@pytest.mark.parametrize(
    'name, betas, prediction_type, ours',
    [
        ('ddim', {}, 'v_prediction', {'target': 'velocity'}),
        ('ddim', {}, 'sample', {'target': 'data'}),
        ('dpm++', {}, 'v_prediction', {'target': 'velocity'}),
        (
            'ddim',
            {'beta_schedule': 'linear', 'beta_start': 0.0001, 'beta_end': 0.02},
            'epsilon',
            {'schedule': 'linear_beta', 'beta_start': 0.0001, 'beta_end': 0.02},
        ),
        ('pndm', {'beta_schedule': 'squaredcos_cap_v2'}, 'epsilon', {'schedule': 'cosine'}),
    ],
)
def test_targets_and_schedules_equal_diffusers(name, betas, prediction_type, ours):
    """And the velocity that training asks for is diffusers' get_velocity. (Its PNDM extrapolates v from step to step,
    ours the noise that v stands for, as PNDM is defined: no case of that.)"""
    start = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    # _use_default_values undoes the rest
    settings = {key: value for key, value in SCHEDULERS[name]().config.items() if not key.startswith('_')}
    scheduler = type(SCHEDULERS[name]())(**{**settings, **betas, 'prediction_type': prediction_type})
    scheduler.set_timesteps(20)
    z = torch.tensor(start)
    for t in scheduler.timesteps:
        z = scheduler.step(predict(z, float(t)), t, z).prev_sample
    config = ImageDiffusionConfig(**ours)
    abar = alphas_cumprod(config)
    timesteps = scheduler.timesteps.numpy() if name == 'dpm++' else sampling_timesteps(20, 1000)
    found = SAMPLERS[name](
        lambda z, t: noise_from_target(z, predict(z, t), float(abar[t]), config.target), start, timesteps, abar
    )
    error = np.linalg.norm(found - z.numpy()) / np.linalg.norm(z.numpy())
    print(f'{name}, {prediction_type}: relative error {error:.1e}')
    assert error <= 1e-4
    ddim = DDIMScheduler(**{**BETAS, **betas})
    x0, noise, t = torch.tensor(start), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    expected = velocity(x0.numpy(), noise.numpy(), abar[t.numpy()].reshape(-1, 1, 1, 1))
    np.testing.assert_allclose(ddim.get_velocity(x0, noise, t).numpy(), expected, atol=1e-5)


class GammaProcess(nn.Cell):
    """Eqs. 5 to 8 with a linear layer in the place of Phi_theta."""

    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def construct(self, e, noise, abar, weight):
        e_t = q_sample(e, noise, abar, self.gamma)
        return alignment_loss(ms.ops.matmul(e_t, weight), e, 1 / 0.07)


@pytest.mark.parametrize('gamma', [1.0, 0.1, 0.01])
def test_gamma_process_gradients_equal_torch_in_float64(gamma):
    rng = np.random.default_rng(1)
    e, noise, weight = rng.standard_normal((5, 16)), rng.standard_normal((5, 16)), rng.standard_normal((16, 16))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    abar = alphas_cumprod(TextDiffusionConfig())[[3, 200, 500, 800, 990]].reshape(-1, 1)
    loss, grads = ms.value_and_grad(GammaProcess(gamma), (0, 3))(
        *(Tensor(x, ms.float32) for x in (e, noise, abar, weight))
    )

    te, tw = torch.tensor(e, requires_grad=True), torch.tensor(weight, requires_grad=True)
    e_t = gamma * torch.tensor(abar).sqrt() * te + (1 - torch.tensor(abar)).sqrt() * torch.tensor(noise)
    logits = torch.nn.functional.normalize(e_t @ tw, dim=1) @ torch.nn.functional.normalize(te, dim=1).T / 0.07
    target = torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    expected.backward()
    assert np.isclose(float(loss), expected.item(), rtol=1e-5)
    for ours, theirs in zip(grads, (te.grad, tw.grad), strict=True):
        assert np.linalg.norm(ours.asnumpy() - theirs.numpy()) <= 1e-4 * np.linalg.norm(theirs.numpy())

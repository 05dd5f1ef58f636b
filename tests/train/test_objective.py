"""Algorithm 1: what is masked, dropped and drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor

from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.train.objective import DiffDisObjective, draw_diffdis
from tests.helpers import make_objective, tiny_run


def run(cell, inputs, **changed):
    names = ('z', 'c', 'e', 'ids', 't_z', 'noise_z', 'drop_caption', 't_e', 'noise_e', 'drop_image')
    return [float(x) for x in cell(*(changed.get(name, value) for name, value in zip(names, inputs, strict=True)))]


@pytest.mark.parametrize('target', ['noise', 'data', 'velocity'])
def test_image_target(target):
    """A network that predicts zero: the loss is the target's mean square."""
    rng, abar = np.random.default_rng(0), np.array([0.9, 0.3], np.float32)
    z, noise = rng.standard_normal((2, 2, 4, 4, 4), dtype=np.float32)
    a = abar.reshape(-1, 1, 1, 1)
    expected = {'noise': noise, 'data': z, 'velocity': np.sqrt(a) * noise - np.sqrt(1 - a) * z}[target]
    cell = SimpleNamespace(abar_z=Tensor(abar), image_target=target, unet=lambda z_t, t, c: z_t * 0)
    c, empty = Tensor(np.zeros((2, 3, 2), np.float32)), Tensor(np.zeros((1, 3, 2), np.float32))
    t_z, drop_caption = Tensor(np.array([0, 1], np.int32)), Tensor(np.zeros(2, bool))
    loss = DiffDisObjective.generation(cell, Tensor(z), c, empty, t_z, Tensor(noise), drop_caption)
    assert np.isclose(float(loss), (expected**2).mean(), rtol=1e-5)


@pytest.mark.parametrize('target', ['noise', 'data'])
def test_text_target(target):
    """A network that is right: the query points where e does, whatever it predicts, and it was shown Eq. 5."""
    rng, abar, seen = np.random.default_rng(0), np.array([0.9, 0.3], np.float32), []
    e, noise = rng.standard_normal((2, 2, 1, 6), dtype=np.float32)
    z, drop_image = Tensor(np.zeros((2, 4, 2, 2), np.float32)), Tensor(np.zeros(2, bool))

    def unet(z, t, c, e_t):
        seen.append(e_t.asnumpy())
        return Tensor(noise if target == 'noise' else e)

    cell = SimpleNamespace(zero_latent=z[:1], abar_e=Tensor(abar), gamma=0.01, text_target=target, unet=unet)
    found = DiffDisObjective.query(
        cell, z, Tensor(e), Tensor(np.array([0, 1], np.int32)), Tensor(noise), drop_image
    ).asnumpy()
    cosine = (found * e[:, 0]).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(e[:, 0], axis=1)
    assert np.allclose(cosine, 1, atol=1e-5)
    a = abar.reshape(-1, 1, 1)
    assert np.allclose(seen[0], 0.01 * np.sqrt(a) * e + np.sqrt(1 - a) * noise, atol=1e-6)


def test_joint_loss_is_built_from_the_two_networks():
    config = tiny_run(lambda_ita=0.5)
    cell, inputs = make_objective(config)
    z, c, e, _, t_z, noise_z, _, t_e, noise_e, _ = (x if x is None else x.asnumpy() for x in inputs)
    none = Tensor(np.zeros(len(z), bool))
    total, loss_ig, loss_ita = run(cell, inputs, drop_caption=none, drop_image=none)

    abar = alphas_cumprod(config.model.image_diffusion)[t_z].reshape(-1, 1, 1, 1)
    z_t = (np.sqrt(abar) * z + np.sqrt(1 - abar) * noise_z).astype(np.float32)
    noise = cell.unet.predict_noise(z_t, t_z, c).asnumpy()
    assert np.isclose(loss_ig, ((noise - noise_z) ** 2).mean(), rtol=1e-4)

    abar = alphas_cumprod(config.model.text_diffusion)[t_e].reshape(-1, 1, 1)
    e_t = (0.01 * np.sqrt(abar) * e + np.sqrt(1 - abar) * noise_e).astype(np.float32)
    e0 = cell.unet.predict_query(z, e_t, t_e).asnumpy()[:, 0].astype(np.float64)
    s = e0 / np.linalg.norm(e0, axis=1, keepdims=True) @ e[:, 0].T / 0.07
    expected = (
        -(
            np.diag(s - np.log(np.exp(s).sum(1, keepdims=True))) + np.diag(s - np.log(np.exp(s).sum(0, keepdims=True)))
        ).mean()
        / 2
    )
    assert np.isclose(loss_ita, expected, rtol=1e-4)
    assert np.isclose(total, loss_ig + 0.5 * loss_ita, rtol=1e-6)


def test_dropped_captions_and_images_are_replaced_by_their_empty_forms():
    cell, inputs = make_objective(tiny_run())
    all_, none = Tensor(np.ones(4, bool)), Tensor(np.zeros(4, bool))
    dropped = run(cell, inputs, drop_caption=all_, drop_image=all_)
    by_hand = run(
        cell, inputs, drop_caption=none, drop_image=none, c=Tensor(np.repeat(cell.empty_context.asnumpy(), 4, 0))
    )
    assert np.isclose(dropped[1], by_hand[1], rtol=1e-6)
    by_hand = run(
        cell, inputs, drop_caption=none, drop_image=none, z=Tensor(np.repeat(cell.zero_latent.asnumpy(), 4, 0))
    )
    assert np.isclose(dropped[2], by_hand[2], rtol=1e-6)


@pytest.mark.parametrize('task, zero', [('gen', 2), ('dis', 1)])
def test_single_tasks(task, zero):
    losses = run(*make_objective(tiny_run(task=task)))
    assert losses[zero] == 0 and losses[3 - zero] == losses[0] > 0


def test_generation_batch_uses_the_first_pairs_only():
    config = tiny_run(generation_batch_size=2)
    cell, inputs = make_objective(config)
    before = run(cell, inputs)
    c = inputs[1].asnumpy().copy()
    c[2:] = 7
    assert run(cell, inputs, c=Tensor(c))[1] == before[1]


def test_alignment_never_sees_the_caption():
    cell, inputs = make_objective(tiny_run())
    assert run(cell, inputs)[2] == run(cell, inputs, c=Tensor(inputs[1].asnumpy() + 5))[2]


def test_draws_depend_on_seed_and_step_alone_and_have_the_right_shares():
    config = tiny_run(batch_size=2000)
    one, again, next_step, other = (draw_diffdis(*a, config, (1, 1, 1)) for a in ((0, 3), (0, 3), (0, 4), (1, 3)))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a, b) for x in (next_step, other) for a, b in zip(one, x, strict=True))
    t_z, noise, drop_caption, t_e, noise_e, drop_image = one
    assert 0.07 < drop_caption.mean() < 0.13 and 0.07 < drop_image.mean() < 0.13
    for t in (t_z, t_e):
        assert t.min() < 5 and 994 < t.max() <= 999
    for a, b in ((t_z, t_e), (drop_caption, drop_image), (noise[:, 0, 0, 0], noise_e[:, 0, 0])):  # drawn independently
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.05

"""What the pipeline asks its network, with and without a condition, and what it makes of the answers.

V and T are real, with random weights; in the place of the UNet stands a small function of all its inputs, so that
every mistake shows.
"""

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from diffdis_ms import DiffDisPipeline
from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.diffusion.samplers import SAMPLERS
from diffdis_ms.diffusion.schedule import alphas_cumprod, sampling_timesteps
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPTextEncoder
from diffdis_ms.pipeline import GuidedNoise, GuidedQuery
from tests.helpers import make_tiny_config, normal, randomize

PROMPTS, W, VOCAB = ['a red square', 'blue', 'green frame'], 2.5, 516


def phi(lib, z, t, c=None, e=None):
    """Phi_u (e is None) or Phi_theta in NumPy or MindSpore: a sample depends on each of its inputs in another way."""

    def mean(x):
        return x.reshape(x.shape[0], -1).mean(-1)

    if e is None:
        parts = c.reshape(c.shape[0], 4, -1)[:, :, -1]  # (B, 4): of tokens 3, 7, 11 and 15
        return lib.sin(0.7 * z + (t / 700.0).reshape(-1, 1, 1, 1)) + 2 * parts.reshape(-1, 4, 1, 1)
    shift = (60 * mean(z * z) + t / 700.0).reshape(-1, 1, 1)
    return lib.sin(3 * e + shift) + 0.2


class Network(nn.Cell):
    def construct(self, z, t, context=None, e_t=None):
        return phi(ops, z, t.astype(z.dtype), context, e_t)


@pytest.fixture(scope='module')
def pipe(tmp_path_factory):
    config = make_tiny_config()
    config.text_encoder.vocab_size, config.vae.layers_per_block, config.text_encoder.num_hidden_layers = VOCAB, 1, 1
    tokenizer = train_tokenizer(PROMPTS, VOCAB, tmp_path_factory.mktemp('tokenizer'))
    vae, text_encoder = randomize(AutoencoderKL(config.vae), 1), randomize(CLIPTextEncoder(config.text_encoder), 2)
    return DiffDisPipeline(config, Network(), vae, text_encoder, tokenizer, batch_size=2)


@pytest.fixture
def drawn(pipe, monkeypatch):
    """The z_0 that the pipeline decodes, batch by batch; D itself is left out."""
    found = []

    def decode(z):
        found.append(z.asnumpy() if isinstance(z, Tensor) else z)
        return np.zeros((len(z), 3, 32, 32), np.float32)

    monkeypatch.setattr(pipe, 'decode_latents', decode)
    return found


@pytest.mark.parametrize('target', ['noise', 'data'])
@pytest.mark.parametrize('sampler, w', [('ddim', W), ('pndm', W), ('dpm++', W), ('ddim', 0.0)])
def test_generate_is_algorithm_2(pipe, drawn, monkeypatch, sampler, w, target):
    """(1 + w) Phi_u(z, t, c) - w Phi_u(z, t, T('')), written out in float64."""
    monkeypatch.setattr(pipe.config.image_diffusion, 'target', target)
    latents = np.random.default_rng(0).standard_normal((3, 4, 8, 8))
    abar = alphas_cumprod(pipe.config.image_diffusion)
    c, empty = (pipe.encode_context(texts).astype(np.float64) for texts in (PROMPTS, [''] * 3))

    def predict_noise(z, t):
        at = np.full(3, float(t))
        guided = (1 + w) * phi(np, z, at, c) - w * phi(np, z, at, empty)
        return guided if target == 'noise' else (z - abar[t] ** 0.5 * guided) / (1 - abar[t]) ** 0.5

    expected = SAMPLERS[sampler](predict_noise, latents, sampling_timesteps(4, 1000), abar)
    images = pipe.generate(PROMPTS, steps=4, guidance_weight=w, sampler=sampler, latents=latents.astype(np.float32))
    z0 = np.concatenate(drawn)[:3]
    assert len(images) == 3 and np.abs(z0 - expected).max() < 2e-3 * np.abs(expected).max()


def test_guidance_shows(pipe, drawn):
    """The same picture from other prompts, weights or empty captions would mean that the test above sees nothing."""
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8))
    for prompt, w in ((PROMPTS[0], 0.0), (PROMPTS[0], W), (PROMPTS[1], 0.0), ('', 0.0)):
        pipe.generate([prompt], steps=4, guidance_weight=w, sampler='ddim', latents=latents)
    for i, a in enumerate(drawn):
        assert all(np.abs(a - b).max() > 0.02 * np.abs(a).max() for b in drawn[:i])
    assert np.abs(pipe.encode_context([''])).mean() > 0.1  # T('') is far from a zero context


@pytest.mark.parametrize('target', ['data', 'noise'])
@pytest.mark.parametrize('w', [W, 0.0])
def test_embed_images_is_algorithm_3(pipe, monkeypatch, w, target):
    """(1 + w) Phi_theta(e, t, V(x)) - w Phi_theta(e, t, V(0)), normalised, then put back on the process."""
    monkeypatch.setattr(pipe.config.text_diffusion, 'target', target)
    config, rng = pipe.config.text_diffusion, np.random.default_rng(1)
    pixels, noise = rng.uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32), rng.standard_normal((3, 1, 48))
    abar, gamma, timesteps, e = alphas_cumprod(config), config.gamma, sampling_timesteps(3, 1000, last=999), noise
    z, zero = (pipe.encode_images(x).astype(np.float64) for x in (pixels, 0 * pixels))
    assert np.abs((z**2).mean((1, 2, 3)) - (zero**2).mean((1, 2, 3))).min() > 5e-4
    for i, t in enumerate(timesteps):
        at = np.full(3, float(t))
        e0 = (1 + w) * phi(np, z, at, e=e) - w * phi(np, zero, at, e=e)
        if target == 'noise':
            e0 = (e - (1 - abar[t]) ** 0.5 * e0) / (gamma * abar[t] ** 0.5)
        e0 = e0 / np.linalg.norm(e0, axis=-1, keepdims=True)
        if i + 1 < len(timesteps):
            eps, following = (e - gamma * abar[t] ** 0.5 * e0) / (1 - abar[t]) ** 0.5, abar[timesteps[i + 1]]
            e = gamma * following**0.5 * e0 + (1 - following) ** 0.5 * eps
    found = pipe.embed_images(pixels, steps=3, guidance_weight=w, noise=noise)
    assert found.shape == (3, 48) and np.abs(found - e0[:, 0]).max() < 2e-4


def test_noise_of_a_sample_depends_on_seed_and_place_alone(pipe, drawn):
    pipe.generate(PROMPTS, steps=1, sampler='ddim', seed=7)
    pipe.generate([PROMPTS[0], *PROMPTS], steps=1, sampler='ddim', seed=7)
    pipe.generate(PROMPTS[:1], steps=1, sampler='ddim', seed=8)
    assert np.allclose(drawn[0][0], drawn[2][0], atol=1e-4) and np.abs(drawn[0][0] - drawn[4][0]).max() > 0.1


def test_defaults_are_those_of_the_paper(pipe, drawn):
    """50 steps and w = 3 for pictures, 8 steps and w = 3 for text queries, from seed 0."""
    pixels = np.random.default_rng(2).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    given = {'steps': 8, 'guidance_weight': 3.0, 'seed': 0}
    assert np.array_equal(pipe.embed_images(pixels), pipe.embed_images(pixels, **given))
    assert np.array_equal(pipe.embed_latents(pipe.encode_images(pixels)), pipe.embed_images(pixels, **given))
    assert np.array_equal(pipe.classify(pixels, PROMPTS), pipe.classify(pixels, PROMPTS, templates=['{}'], **given))
    pipe.generate(PROMPTS[:2])
    pipe.generate(PROMPTS[:2], steps=50, guidance_weight=3.0, sampler='pndm', seed=0)
    assert np.array_equal(*drawn)


@pytest.mark.parametrize('prompts', ['blue', ('blue',)])
def test_one_text_is_one_text(pipe, drawn, prompts):
    """A string is one prompt, not one a letter."""
    pipe.generate(prompts, steps=1, sampler='ddim')
    assert sum(map(len, drawn)) == 1 and np.array_equal(pipe.encode_context(prompts), pipe.encode_context(['blue']))


def test_embed_texts_gives_the_query_of_each_text(pipe):
    e = pipe.embed_texts(PROMPTS)
    assert e.shape == (3, 48) and np.allclose(np.linalg.norm(e, axis=1), 1, atol=1e-5)
    assert all(np.allclose(pipe.embed_texts([p])[0], row, atol=1e-5) for p, row in zip(PROMPTS, e, strict=True))
    assert np.abs(e[0] - e[1]).max() > 0.1


def test_guided_graphs_at_any_batch_size():
    """Five samples: halves of a batch of 2 would also be what three parts of it are."""
    z, c, e = normal(1, 5, 4, 8, 8), normal(2, 5, 16, 32), normal(3, 5, 1, 48)
    at = Tensor(np.arange(5, dtype=np.int32) * 200)
    zero, empty, weight = normal(4, 1, 4, 8, 8), normal(5, 1, 16, 32), Tensor(W, z.dtype)
    noise, query = GuidedNoise(Network())(z, at, c, empty, weight), GuidedQuery(Network())(z, e, at, zero, weight)
    z, c, e, at, zero, empty = (x.asnumpy().astype(np.float64) for x in (z, c, e, at, zero, empty))
    zero, empty = np.repeat(zero, 5, 0), np.repeat(empty, 5, 0)
    for found, given, without in (
        (noise, phi(np, z, at, c), phi(np, z, at, empty)),
        (query, phi(np, z, at, e=e), phi(np, zero, at, e=e)),
    ):
        assert np.abs(found.asnumpy() - ((1 + W) * given - W * without)).max() < 1e-3

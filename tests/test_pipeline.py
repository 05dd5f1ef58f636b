"""DiffDisPipeline on a model that tools/train.py wrote."""

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from diffdis_ms import DiffDisPipeline
from diffdis_ms.diffusion.process import noise_from_data, q_sample, velocity
from diffdis_ms.diffusion.schedule import alphas_cumprod, sampling_timesteps
from diffdis_ms.errors import ConfigError
from tests.helpers import make_tiny_config
from tests.workspace import draw


@pytest.fixture(scope='module')
def pipe(trained):
    return DiffDisPipeline.from_pretrained(trained[0] / 'run/model', batch_size=4)


IMAGES = [draw('red', 'square'), draw('blue', 'bar'), draw('green', 'frame')]


def test_generate_gives_pictures_that_do_not_depend_on_the_batch(pipe, trained):
    prompts = ['red square', 'blue bar', 'green frame', 'black bar', 'yellow square']
    images = pipe.generate(prompts, steps=3, sampler='ddim')
    assert len(images) == 5 and all(isinstance(x, Image.Image) and x.size == (32, 32) for x in images)
    alone = pipe.generate(prompts[:1], steps=3, sampler='ddim')[0]
    assert np.abs(np.asarray(alone, int) - np.asarray(images[0], int)).max() <= 1
    other = pipe.generate(prompts[:1], steps=3, sampler='ddim', seed=1)[0]
    assert np.abs(np.asarray(other, int) - np.asarray(images[0], int)).max() > 1


@pytest.mark.parametrize('sampler', ['pndm', 'ddim', 'dpm++'])
def test_generate_takes_latents_as_array_or_tensor(pipe, sampler):
    latents = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    from_array, from_tensor = (
        pipe.generate(['red bar', 'red bar'], steps=2, sampler=sampler, latents=x) for x in (latents, Tensor(latents))
    )
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(from_array, from_tensor, strict=True))


@pytest.mark.parametrize('target', ['noise', 'data', 'velocity'])
@pytest.mark.parametrize('sampler', ['pndm', 'ddim', 'dpm++'])
def test_generate_with_a_perfect_network_of_every_target(pipe, monkeypatch, sampler, target):
    """The network knows the picture's latent: whatever it predicts, that latent is decoded."""
    rng = np.random.default_rng(0)
    z0, start, drawn, abar = (
        rng.standard_normal((1, 4, 8, 8)).astype(np.float32),
        rng.standard_normal((1, 4, 8, 8)),
        [],
        pipe._abar_z,
    )

    def perfect(z_t, t, *_):
        noise = noise_from_data(z_t.asnumpy(), z0, abar[t.asnumpy()[0]])
        return Tensor(
            {'noise': noise, 'data': z0, 'velocity': velocity(z0, noise, abar[t.asnumpy()[0]])}[target].astype(
                np.float32
            )
        )

    monkeypatch.setattr(pipe.config.image_diffusion, 'target', target)
    monkeypatch.setattr(pipe, '_guided_noise', perfect)
    monkeypatch.setattr(
        pipe, 'decode_latents', lambda z: drawn.append(z.asnumpy()) or np.zeros((1, 3, 32, 32), np.float32)
    )
    pipe.generate(['red bar'], steps=20, sampler=sampler, latents=start)
    assert np.std(drawn[0] - z0) < 0.05  # the noise that Stable Diffusion leaves at t = 0 is 0.03


def test_embed_images_is_algorithm_3(pipe):
    """Written out step by step, with predict_query called twice and NumPy in between."""
    config, steps, w = pipe.config.text_diffusion, 4, 3.0
    noise = np.random.default_rng(1).standard_normal((3, 1, 48)).astype(np.float32)
    z = pipe.encode_images(IMAGES)
    zero = np.repeat(pipe.encode_images(np.zeros((1, 3, 32, 32), np.float32)), 3, 0)
    abar, timesteps, e = alphas_cumprod(config), sampling_timesteps(steps, 1000, last=999), noise.astype(np.float64)
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        at = np.full(3, t)
        e0 = (1 + w) * pipe.unet.predict_query(z, e, at).asnumpy() - w * pipe.unet.predict_query(zero, e, at).asnumpy()
        e0 = e0 / np.linalg.norm(e0, axis=-1, keepdims=True)
        if following is not None:
            e = q_sample(e0, noise_from_data(e, e0, abar[t], config.gamma), abar[following], config.gamma)
    found = pipe.embed_images(IMAGES, steps=steps, guidance_weight=w, noise=noise)
    assert found.dtype == np.float32 and np.allclose(found, e0[:, 0], atol=1e-4)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_classify_gives_probabilities_of_the_scaled_cosines(pipe):
    labels = ['square', 'bar', 'frame', 'red square']
    found = pipe.classify(IMAGES, labels, templates=['a {}', 'the {}'])
    texts = (
        pipe.embed_texts([f'{article} {label}' for label in labels for article in ('a', 'the')])
        .reshape(4, 2, -1)
        .mean(1)
    )
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    logits = pipe.config.logit_scale * pipe.embed_images(IMAGES) @ texts.T
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.shape == (3, 4) and found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-5) and np.allclose(found.sum(1), 1, atol=1e-5)


def counted(pipe, monkeypatch):
    """A list that gets the number of rows of every call of V."""
    rows, encode = [], pipe._encoders._encode
    monkeypatch.setattr(pipe._encoders, '_encode', lambda x: rows.append(len(x)) or encode(x))
    return rows


def test_the_zero_images_latent_is_computed_once(trained, monkeypatch):
    pipe = DiffDisPipeline.from_pretrained(trained[0] / 'run/model', batch_size=4)
    rows = counted(pipe, monkeypatch)
    z = pipe.encode_images(IMAGES)
    first = [pipe.embed_latents(z[:2], steps=steps, guidance_weight=w) for steps, w in ((2, 0.0), (2, 3.0), (1, 3.0))][
        1
    ]
    assert rows == [4, 4]  # the images, padded, and V(0) in the same graph
    assert np.abs(pipe.embed_images(IMAGES[:2], steps=2)[0] - first[0]).max() < 1e-5 and rows == [4] * 3
    bias = next(p for p in pipe.vae.get_parameters() if p.name.endswith('quant_conv.bias') and 'post' not in p.name)
    bias.set_data(Tensor(bias.asnumpy() + 0.5))
    changed = pipe.embed_latents(z[:2], steps=2)
    assert rows == [4] * 4 and np.abs(changed - first).max() > 1e-5  # other weights of V: another V(0)


def test_texts_are_embedded_without_keeping_c(pipe, monkeypatch):
    """The bits are those of all texts at once, and the largest array between is one e, never one c."""
    from diffdis_ms.models import encoders

    texts, kept = [f'red {i}' for i in range(10)], []
    all_at_once, concatenate = pipe._encoders.encode_texts(texts)[1][:, 0], np.concatenate
    monkeypatch.setattr(
        encoders.np,
        'concatenate',
        lambda parts, *args: kept.append(sum(x.nbytes for x in parts)) or concatenate(parts, *args),
    )
    assert np.array_equal(pipe.embed_texts(texts), all_at_once) and kept == [all_at_once.nbytes]


@pytest.mark.parametrize('templates', [['a {}', 'the {}', '{}'], ['a {}', 'the {}'], ['{}'] * 8])
def test_labels_are_embedded_in_parts_with_the_bits_of_the_whole(pipe, templates):
    labels, calls, embed = [f'red {i}' for i in range(9)], [], pipe._encoders.embed_texts
    e = (
        pipe.embed_texts([t.format(label) for label in labels for t in templates])
        .reshape(9, len(templates), -1)
        .mean(1)
    )
    try:
        pipe._encoders.embed_texts = lambda texts: calls.append(len(texts)) or embed(texts)
        assert np.array_equal(pipe.embed_labels(labels, templates), e / np.linalg.norm(e, axis=1, keepdims=True))
    finally:
        del pipe._encoders.embed_texts
    assert sum(calls) == 9 * len(templates) and max(calls) <= 12


def test_classify_refuses_embeddings_that_are_not_finite(pipe, monkeypatch):
    e0 = np.ones((3, 48), np.float32)
    e0[1, 5] = np.nan
    monkeypatch.setattr(pipe, 'embed_images', lambda *args: e0)
    with pytest.raises(ConfigError, match="1 of the 3 images .*not finite.*'b.png'"):
        pipe.classify(IMAGES, ['square', 'bar'], names=['a.png', 'b.png', 'c.png'])
    monkeypatch.setattr(pipe, 'embed_images', lambda *args: np.ones((3, 48), np.float32))
    monkeypatch.setattr(pipe._encoders, 'embed_texts', lambda texts: np.full((len(texts), 1, 48), np.inf, np.float32))
    with pytest.raises(ConfigError, match="texts .*not finite.*'a square'"):
        pipe.classify(IMAGES, ['square', 'bar'], ['a {}'])


def test_latents_that_are_not_finite_do_not_become_pictures(pipe):
    z = np.zeros((2, 4, 8, 8), np.float32)
    z[1, 0, 0, 0] = np.nan
    with pytest.raises(ConfigError, match='1 of the 2 latents .*not finite.*number 2'):
        pipe.decode_latents(z)


def test_shapes_of_the_parts(pipe):
    assert pipe.encode_context(['red', 'blue']).shape == (2, 16, 32)
    assert pipe.embed_texts(['red', 'blue']).shape == (2, 48)
    z = pipe.encode_images(IMAGES)
    assert z.shape == (3, 4, 8, 8) and pipe.decode_latents(Tensor(z)).shape == (3, 3, 32, 32)
    assert pipe.unet.predict_noise(z, np.array([1, 2, 3]), pipe.encode_context(['a', 'b', 'c'])).shape == (3, 4, 8, 8)


def test_save_and_load_again(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / 'copy')
    again = DiffDisPipeline.from_pretrained(tmp_path / 'copy', batch_size=4)
    assert again.config == pipe.config
    assert np.array_equal(again.embed_images(IMAGES), pipe.embed_images(IMAGES))


def test_from_config_is_seeded():
    a, b, c = (DiffDisPipeline.from_config(make_tiny_config(), seed=s) for s in (0, 0, 1))
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(a.encode_images(x), b.encode_images(x)) and not np.array_equal(
        a.encode_images(x), c.encode_images(x)
    )


def test_trained_scales_come_with_the_model(pipe):
    assert pipe.config.logit_scale != 1 / 0.07 and pipe.vae.scaling_factor == pipe.config.vae.scaling_factor


@pytest.mark.parametrize(
    'call, words',
    [
        (lambda p: p.generate(['a'], sampler='euler'), 'sampler'),
        (lambda p: p.generate(['a'], steps=0), 'steps'),
        (lambda p: p.generate([]), 'empty'),
        (lambda p: p.generate(['a'], latents=np.zeros((1, 4, 4, 4))), 'latents'),
        (lambda p: p.embed_images([]), 'empty'),
        (lambda p: p.embed_images(np.zeros((3, 32, 32))), 'shape'),
        (lambda p: p.embed_images(IMAGES, noise=np.zeros((2, 48))), 'noise'),
    ],
)
def test_mistakes_are_named(pipe, call, words):
    with pytest.raises(ConfigError, match=words):
        call(pipe)

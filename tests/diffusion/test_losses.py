"""Eqs. 4, 7, 8, 9 and their gradients against NumPy in float64."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from diffdis_ms.diffusion.losses import alignment_loss, autoencoder_loss, image_generation_loss, similarity, total_loss


class Alignment(nn.Cell):
    def construct(self, e0_hat, e, scale):
        return alignment_loss(e0_hat, e, scale)


def numpy_alignment(a, b, scale):
    """Eq. 8 in float64, and its gradients by central differences."""

    def loss(a, b, scale):
        a, b = a / np.linalg.norm(a, axis=1, keepdims=True), b / np.linalg.norm(b, axis=1, keepdims=True)
        s = scale * a @ b.T
        to_text = np.log(np.exp(s).sum(1)) - np.diag(s)
        to_image = np.log(np.exp(s).sum(0)) - np.diag(s)
        return (to_text.mean() + to_image.mean()) / 2

    def gradient(f, x, h=1e-6):
        g = np.zeros_like(x)
        for i in np.ndindex(x.shape):
            d = np.zeros_like(x)
            d[i] = h
            g[i] = (f(x + d) - f(x - d)) / (2 * h)
        return g

    return (
        loss(a, b, scale),
        gradient(lambda x: loss(x, b, scale), a),
        gradient(lambda x: loss(a, x, scale), b),
        gradient(lambda x: loss(a, b, x), np.array(scale, np.float64)),
    )


@pytest.mark.parametrize('scale', [1.0, 1 / 0.07])
def test_eq8_alignment_loss_and_its_gradients(scale):
    rng = np.random.default_rng(0)
    a, b = 3 * rng.standard_normal((6, 5)), rng.standard_normal((6, 5))
    f = ms.value_and_grad(Alignment(), (0, 1, 2))
    loss, grads = f(*(Tensor(x, ms.float32) for x in (a, b, scale)))
    expected, *expected_grads = numpy_alignment(a, b, scale)
    assert np.isclose(float(loss), expected, rtol=1e-5)
    for g, e in zip(grads, expected_grads, strict=True):
        assert np.allclose(g.asnumpy(), e, rtol=1e-4, atol=1e-6)


def test_eq7_similarity_is_a_cosine_whatever_the_length():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal((4, 8)).astype(np.float32)
    s, scaled = similarity(Tensor(a), Tensor(b)).asnumpy(), similarity(Tensor(a * 1e-3), Tensor(b * 50)).asnumpy()
    expected = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None]
    assert np.allclose(s, expected, atol=1e-6) and np.allclose(scaled, expected, atol=1e-6)


def test_eq4_and_eq9():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 4, 3, 3)).astype(np.float32), rng.standard_normal((2, 4, 3, 3)).astype(np.float32)
    assert np.isclose(float(image_generation_loss(Tensor(x), Tensor(y))), ((x - y) ** 2).mean(), rtol=1e-6)
    assert total_loss(2.0, 3.0, 0.5) == 3.5


def test_autoencoder_loss():
    rng = np.random.default_rng(3)
    r, x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32), rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    mean, logvar = (
        rng.standard_normal((2, 4, 2, 2)).astype(np.float32),
        rng.standard_normal((2, 4, 2, 2)).astype(np.float32),
    )
    d = r - x
    chroma = np.abs(d - d.mean(1, keepdims=True)).mean()
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).mean()
    found = float(autoencoder_loss(*(Tensor(a) for a in (r, x, mean, logvar)), 0.1, 2.0))
    assert np.isclose(found, np.abs(d).mean() + (d**2).mean() + 2 * chroma + 0.1 * kl, rtol=1e-5)

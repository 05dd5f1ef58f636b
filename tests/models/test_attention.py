"""The padding around Ascend's attention kernel, against the plain formula, gradients included.

The kernel itself is replaced by `strict_kernel`: plain operators that refuse whatever FlashAttentionScore refuses.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from diffdis_ms.models import attention as module
from diffdis_ms.models.attention import attention, padded_attention, plain_attention, use_flash
from diffdis_ms.models.clip import CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from tests.helpers import normal, randomize

calls = []  # shapes of q and k and of the mask, of every kernel a graph was compiled with


@ms.ops.constexpr(reuse_result=False)
def check(q, k, v, hidden, hidden_type):
    """FlashAttentionScore's documented limits (MindSpore 2.7.2), layout BNSD, sparse_mode 0."""
    calls.append((q, k, hidden))
    assert len(q) == len(k) == 4 and k == v and q[:2] == k[:2] and q[3] == k[3]
    assert q[3] % 16 == 0 and 16 <= q[3] <= 512
    assert q[2] % 16 == 0 and k[2] % 16 == 0
    assert hidden is None or (hidden == (q[2], k[2]) and hidden_type == ms.uint8)
    return True


def strict_kernel(q, k, v, hidden, scale):
    """The kernel's arithmetic: the scale after the product, masked scores never seen by the softmax."""
    if hidden is None:
        check(q.shape, k.shape, v.shape, None, None)
    else:
        check(q.shape, k.shape, v.shape, hidden.shape, hidden.dtype)
    scores = ops.matmul(q, ops.swapaxes(k, -1, -2)).astype(ms.float32) * scale
    if hidden is not None:
        scores = ops.masked_fill(scores, hidden.astype(ms.bool_), -1e30)
    return ops.matmul(ops.softmax(scores, -1).astype(v.dtype), v)


class Net(nn.Cell):
    """A scalar of the attention, so that gradients can be taken; `kernel` None is the plain formula."""

    def __init__(self, kernel, mask):
        super().__init__()
        self.kernel, self.mask = kernel, mask

    def construct(self, q, k, v, weight):
        out = (
            plain_attention(q, k, v, self.mask)
            if self.kernel is None
            else padded_attention(self.kernel, q, k, v, self.mask)
        )
        return ops.sum(out * weight), out


def run(kernel, mask, *inputs):
    (_, out), grads = ms.value_and_grad(Net(kernel, mask), (0, 1, 2), None, has_aux=False)(*inputs)
    return [x.asnumpy() for x in (out, *grads)]


@pytest.mark.parametrize(
    'n, m, d',
    [
        (64, 64, 40),
        (65, 65, 40),
        (65, 65, 80),
        (17, 17, 160),
        (64, 77, 40),
        (64, 77, 64),
        (1, 50, 64),
        (16, 16, 512),
        (50, 50, 64),
        (5, 3, 8),
    ],
)
def test_padding_changes_nothing(n, m, d):
    inputs = normal(1, 2, 3, n, d), normal(2, 2, 3, m, d), normal(3, 2, 3, m, d), normal(4, 2, 3, n, d)
    for ours, plain in zip(run(strict_kernel, None, *inputs), run(None, None, *inputs), strict=True):
        assert np.linalg.norm(ours - plain) <= 1e-6 * np.linalg.norm(plain)


@pytest.mark.parametrize('n', [16, 77])
def test_a_causal_mask_is_kept_beside_the_padding(n):
    mask = Tensor(np.triu(np.full((n, n), -1e4, np.float32), 1))
    inputs = [normal(i, 1, 2, n, 64) for i in range(4)]
    for ours, plain in zip(run(strict_kernel, mask, *inputs), run(None, mask, *inputs), strict=True):
        assert np.linalg.norm(ours - plain) <= 1e-6 * np.linalg.norm(plain)


def test_aligned_sizes_reach_the_kernel_as_they_are():
    calls.clear()
    inputs = [normal(i, 1, 2, 64, 48) for i in range(4)]
    run(strict_kernel, None, *inputs)
    assert calls and all(call == ((1, 2, 64, 48), (1, 2, 64, 48), None) for call in calls)


@pytest.fixture
def strict_everywhere(monkeypatch):
    """All of the package's attention through the strict kernel, in float32, too (the CPU's half precision would hide
    errors)."""
    monkeypatch.setattr(module, 'ascend_kernel', strict_kernel)
    monkeypatch.setattr(module, '_FLASH_DTYPES', (ms.float32, ms.float16))
    calls.clear()
    yield
    use_flash(False)


@pytest.mark.parametrize('share_attention', [True, False])
def test_the_whole_network_with_the_query_among_the_tokens(strict_everywhere, tiny_config, share_attention):
    tiny_config.dual_stream.share_attention = share_attention
    inputs = normal(1, 2, 4, 8, 8), Tensor([7, 900], ms.int32), None, normal(2, 2, 1, 48)

    def outputs():
        unet = randomize(DiffDisUNet(tiny_config), 0)
        return unet(*inputs).asnumpy(), unet(inputs[0], inputs[1], normal(3, 2, 16, 32)).asnumpy()

    plain = outputs()
    assert not calls
    use_flash(True)
    flash = outputs()
    assert {(q[2], k[2]) for q, k, _ in calls} >= {
        (80, 80),
        (64, 64),
        (64, 16),
    }  # 1 + 64 tokens, 64, and those of a caption
    for a, b in zip(flash, plain, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


def test_captions_stay_causal(strict_everywhere, tiny_config):
    ids = Tensor(np.arange(30).reshape(2, 15) % 20, ms.int32)
    plain = [x.asnumpy() for x in randomize(CLIPTextEncoder(tiny_config.text_encoder), 0)(ids)]
    use_flash(True)
    flash = [x.asnumpy() for x in randomize(CLIPTextEncoder(tiny_config.text_encoder), 0)(ids)]
    assert calls and all(hidden == (16, 16) for _, _, hidden in calls)
    for a, b in zip(flash, plain, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


class Plain(nn.Cell):
    def construct(self, q):
        return attention(q, q, q)


def test_single_precision_and_large_heads_keep_the_plain_formula(monkeypatch):
    monkeypatch.setattr(module, 'ascend_kernel', strict_kernel)
    calls.clear()
    use_flash(True)
    try:
        Plain()(normal(1, 1, 1, 16, 16))
        Plain()(normal(1, 1, 1, 16, 528).astype(ms.float16))
        assert not calls
        Plain()(normal(1, 1, 1, 16, 16).astype(ms.float16))
        assert calls
    finally:
        use_flash(False)

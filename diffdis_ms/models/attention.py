"""Scaled dot-product attention, the only one in this package: the plain formula, and Ascend's kernel for it.

`use_flash(True)` (runtime.setup calls it on chips that have the kernel) sends 16-bit attention of graphs compiled from
then on to `FlashAttentionScore`. What that kernel asks for is met here, for any kernel of its form, so that tests on
the CPU run the same code around a stand-in of their own:

    head size        a multiple of 16, at most 512: Stable Diffusion's 40 is padded with zeros to 48; they add
                     nothing to q k^T, and their columns of the result are cut off. The scale stays that of the true
                     size.
    token counts     padded to multiples of 16: 1 + 1024 tokens where the text query joins the image's, 77 of a caption.
                     Padded keys are masked, padded queries cut off.
    mask             1 where a key may not be seen, (N, M) uint8.
    dtype            float16 or bfloat16; float32 keeps the plain formula.

On a CPU some of MindSpore's operators keep a table for each of their calls until the process ends: `Div`, and every
addition, subtraction or product that broadcasts, 16 bytes an element; a transpose 13. Products with a scalar, between
equal shapes, and `broadcast_to` keep none. The networks and AdamW are written around them.
"""

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr
from mindspore.ops.operations.nn_ops import FlashAttentionScore

ALIGNMENT = 16  # of head sizes and token counts
MAX_HEAD_SIZE = 512

_scores = ops.BatchMatMul(transpose_b=True)  # q k^T without a transpose, which keeps a table (see above)
_weighted = ops.BatchMatMul()
_FLASH_DTYPES = (mstype.float16, mstype.bfloat16)
_state = {'flash': False}


def use_flash(on):
    """Let 16-bit attention use Ascend's kernel in graphs compiled from now on; returns what was set before."""
    before, _state['flash'] = _state['flash'], bool(on)
    return before


def uses_flash():
    """Whether 16-bit attention of a graph compiled now uses Ascend's kernel."""
    return _state['flash']


@constexpr(reuse_result=False)
def _takes_flash(dtype, head_size):
    """Decided while a graph is compiled, not while it runs."""
    return _state['flash'] and dtype in _FLASH_DTYPES and head_size <= MAX_HEAD_SIZE


def attention(q, k, v, mask=None):
    """Scaled dot-product attention.

    Args:
        q: (B, heads, N, D). k, v: (B, heads, M, D), the dtype of q.
        mask: (N, M), 0 where a key is seen and -1e4 where it is not (nothing in between), or None.

    Returns:
        (B, heads, N, D). The softmax runs in float32.
    """
    if _takes_flash(q.dtype, q.shape[-1]):
        return padded_attention(ascend_kernel, q, k, v, mask)
    return plain_attention(q, k, v, mask)


class _Softmax(nn.Cell):
    """Over the last axis. MindSpore's gradient of it subtracts a column from a matrix, which broadcasts and so keeps a
    table (see above): 134 MB for one layer of 8 heads over 1024 tokens."""

    def construct(self, x):
        return ops.softmax(x, -1)

    def bprop(self, x, out, dout):
        """dx = y * (dy - sum(y * dy))."""
        total = ops.sum(out * dout, -1, keepdim=True)
        return (out * (dout - total.broadcast_to(dout.shape)),)


_softmax = _Softmax()


def plain_attention(q, k, v, mask=None):
    """softmax(q k^T / sqrt(D) + mask) v, written out."""
    scores = _scores(q * (q.shape[-1] ** -0.5), k)  # (B, heads, N, M)
    if mask is not None:
        scores = scores + mask
    weights = _softmax(scores.astype(mstype.float32)).astype(v.dtype)
    return _weighted(weights, v)  # (B, heads, N, D)


def ascend_kernel(q, k, v, hidden, scale):
    """FlashAttentionScore on aligned tensors: hidden (N, M) uint8 or None. Atlas A2 and later; its gradient is a kernel
    as well."""
    kernel = FlashAttentionScore(q.shape[1], 1.0, scale, 2147483647, 2147483647, 0, 'BNSD', 0)
    return kernel(q, k, v, None, None, None, hidden)[3]


def padded_attention(kernel, q, k, v, mask=None):
    """`attention` by a kernel that takes aligned sizes only.

    Args:
        kernel: kernel(q, k, v, hidden, scale) -> (B, heads, N', D'), as `ascend_kernel`.
        q, k, v, mask: as for `attention`.

    Returns:
        (B, heads, N, D).
    """
    n, m, d = q.shape[2], k.shape[2], q.shape[3]
    out = kernel(_pad(q), _pad(k), _pad(v), _hidden(mask, n, m), d**-0.5)
    return out[:, :, :n, :d]


def _aligned(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def _pad(x):
    """Zeros behind the tokens and the channels of (B, heads, N, D), up to the next multiples of 16."""
    b, heads, n, d = x.shape
    more_n, more_d = _aligned(n) - n, _aligned(d) - d
    if more_d:
        x = ops.concat((x, ops.zeros((b, heads, n, more_d), x.dtype)), 3)
    if more_n:
        x = ops.concat((x, ops.zeros((b, heads, more_n, d + more_d), x.dtype)), 2)
    return x


@constexpr
def _padded_keys(n, m):
    """(N', M') uint8, 1 in the columns behind the M true keys; one constant for all layers of a size."""
    hidden = np.zeros((_aligned(n), _aligned(m)), np.uint8)
    hidden[:, m:] = 1
    return Tensor(hidden)


def _hidden(mask, n, m):
    """The kernel's mask, (N', M') uint8, or None where every key is seen. Rows of padded queries see the true keys."""
    if mask is None:
        return _padded_keys(n, m) if m % ALIGNMENT else None
    hidden, padded = (mask < 0).astype(mstype.uint8), _padded_keys(n, m)
    if m % ALIGNMENT:
        hidden = ops.concat((hidden, padded[:n, m:]), 1)
    if n % ALIGNMENT:
        hidden = ops.concat((hidden, padded[n:]), 0)
    return hidden

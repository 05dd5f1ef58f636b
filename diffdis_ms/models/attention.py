"""Scaled dot-product attention for all networks: the plain formula, and Ascend's kernel.

After `use_flash(True)`, which runtime.setup calls on chips that have the kernel, newly compiled graphs use
`FlashAttentionScore` for 16-bit attention. The kernel's requirements are met here for any kernel of this form, so that
tests on a CPU run the same code with a replacement kernel:

    head size        a multiple of 16, at most 512. Stable Diffusion's 40 is padded with zeros to 48. The zeros add
                     nothing to q k^T, and their columns of the result are removed. The scale is that of the true size.
    token counts     padded to multiples of 16 (for example 1 + 1024 image tokens with the text query, 77 of a caption).
                     Padded keys are masked, padded queries removed.
    mask             1 where a key must not be seen, (N, M) uint8.
    dtype            float16 or bfloat16; float32 uses the plain formula.

On a CPU, some of MindSpore's operators keep a table for each call until the process ends: `Div`, and every broadcasting
addition, subtraction or product (16 bytes per element), and transposes (13 bytes). Products with a scalar or between
equal shapes, and `broadcast_to`, keep none. The networks and AdamW therefore avoid the former.
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
    """Use Ascend's kernel for 16-bit attention in graphs compiled from now on; returns the previous setting."""
    before, _state['flash'] = _state['flash'], bool(on)
    return before


def uses_flash():
    """Whether 16-bit attention of a graph compiled now uses Ascend's kernel."""
    return _state['flash']


@constexpr(reuse_result=False)
def _takes_flash(dtype, head_size):
    """Whether the kernel is used. This is decided while a graph is compiled, not while it runs."""
    return _state['flash'] and dtype in _FLASH_DTYPES and head_size <= MAX_HEAD_SIZE


def attention(q, k, v, mask=None):
    """Scaled dot-product attention.

    Args:
        q: (B, heads, N, D). k, v: (B, heads, M, D), the dtype of q.
        mask: (N, M), 0 where a key is seen and -1e4 where it is not (no other values), or None.

    Returns:
        (B, heads, N, D). The softmax runs in float32.
    """
    if _takes_flash(q.dtype, q.shape[-1]):
        return padded_attention(ascend_kernel, q, k, v, mask)
    return plain_attention(q, k, v, mask)


class _Softmax(nn.Cell):
    """Softmax over the last axis. MindSpore's own gradient subtracts a column from a matrix, which broadcasts and so
    keeps a table (see above): 134 MB for one layer of 8 heads over 1024 tokens."""

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
    """FlashAttentionScore on aligned tensors, with hidden (N, M) uint8 or None. It needs an Atlas A2 or later; its
    gradient is also a kernel."""
    kernel = FlashAttentionScore(q.shape[1], 1.0, scale, 2147483647, 2147483647, 0, 'BNSD', 0)
    return kernel(q, k, v, None, None, None, hidden)[3]


def padded_attention(kernel, q, k, v, mask=None):
    """`attention` with a kernel that only accepts aligned sizes.

    Args:
        kernel: kernel(q, k, v, hidden, scale) -> (B, heads, N', D'), like `ascend_kernel`.
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
    """Pad tokens and channels of (B, heads, N, D) with zeros to the next multiples of 16."""
    b, heads, n, d = x.shape
    more_n, more_d = _aligned(n) - n, _aligned(d) - d
    if more_d:
        x = ops.concat((x, ops.zeros((b, heads, n, more_d), x.dtype)), 3)
    if more_n:
        x = ops.concat((x, ops.zeros((b, heads, more_n, d + more_d), x.dtype)), 2)
    return x


@constexpr
def _padded_keys(n, m):
    """(N', M') uint8, 1 in the columns after the M true keys; the same constant for all layers of a size."""
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

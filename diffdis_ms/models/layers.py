"""Layers shared by all networks. Weights are zero here; `init.initialize` fills them from their names and a seed."""

import math

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from diffdis_ms.models.attention import attention


def linear(in_features, out_features, bias=True):
    """Fully-connected layer, (..., in) -> (..., out)."""
    return nn.Dense(in_features, out_features, weight_init='zeros', bias_init='zeros', has_bias=bias)


def conv2d(in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
    """2-D convolution with explicit symmetric padding, (N, C, H, W)."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        pad_mode='pad',
        padding=padding,
        has_bias=bias,
        weight_init='zeros',
        bias_init='zeros',
    )


def silu(x):
    """x * sigmoid(x)."""
    return x * ops.sigmoid(x)


def gelu(x):
    """x Phi(x), exact. `ops.gelu` divides by `Div`, which keeps a table (`attention.py`)."""
    return x * (ops.erf(x * 2**-0.5) + 1.0) * 0.5


def gelu_tanh(x):
    """x Phi(x) with Phi by tanh: torch's gelu(approximate='tanh')."""
    return x * (ops.tanh((x + 0.044715 * x * x * x) * (2 / math.pi) ** 0.5) + 1.0) * 0.5


def split_heads(x, heads):
    """(B, N, heads * D) -> (B, heads, N, D)."""
    b, n, c = x.shape
    return x.reshape(b, n, heads, c // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(B, heads, N, D) -> (B, N, heads * D)."""
    b, heads, n, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, n, heads * d)


class Attention(nn.Cell):
    """diffusers' `Attention`: self-attention, or cross-attention if a context is given. `to_out` always has a bias; the
    other projections have one only in the autoencoder."""

    def __init__(self, dim, heads, context_dim=None, bias=False):
        super().__init__()
        self.heads = heads
        self.to_q = linear(dim, dim, bias)
        self.to_k = linear(context_dim or dim, dim, bias)
        self.to_v = linear(context_dim or dim, dim, bias)
        self.to_out = nn.CellList([linear(dim, dim)])

    def project(self, x, context):
        """Queries of x (B, N, C), keys and values of context (B, M, C'), split into heads."""
        return (
            split_heads(self.to_q(x), self.heads),
            split_heads(self.to_k(context), self.heads),
            split_heads(self.to_v(context), self.heads),
        )

    def construct(self, x, context=None):
        q, k, v = self.project(x, x if context is None else context)
        return self.to_out[0](merge_heads(attention(q, k, v)))  # (B, N, C)


class GEGLU(nn.Cell):
    """x_1 * gelu(x_2) with [x_1, x_2] = proj(x)."""

    def __init__(self, dim, inner_dim):
        super().__init__()
        self.proj = linear(dim, inner_dim * 2)

    def construct(self, x):
        hidden, gate = ops.chunk(self.proj(x), 2, -1)
        return hidden * gelu(gate)


class FeedForward(nn.Cell):
    """diffusers' GEGLU feed-forward. `net.1` is its dropout, which is never used here."""

    def __init__(self, dim, mult=4):
        super().__init__()
        self.net = nn.CellList([GEGLU(dim, dim * mult), nn.Identity(), linear(dim * mult, dim)])

    def construct(self, x):
        return self.net[2](self.net[0](x))  # (B, N, C)


@constexpr
def _frequencies(half):
    """10000^(-i / half) as a constant (1, half). MindSpore's exp on a CPU has errors of 4e-6, which t would multiply by
    up to 1000."""
    exponent = np.float32(-math.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half)
    return Tensor(np.exp(exponent).reshape(1, half))


def timestep_embedding(t, dim):
    """Sinusoids of a timestep, cosine half first (diffusers: flip_sin_to_cos=True, downscale_freq_shift=0).

    Args:
        t: (B,) int or float. dim: even width.

    Returns:
        (B, dim) float32.
    """
    args = t.astype(mstype.float32).reshape(-1, 1) * _frequencies(dim // 2)  # (B, dim / 2)
    return ops.concat((ops.cos(args), ops.sin(args)), -1)


class TimestepEmbedding(nn.Cell):
    """MLP of the sinusoids: (B, dim) -> (B, out_dim)."""

    def __init__(self, dim, out_dim):
        super().__init__()
        self.linear_1 = linear(dim, out_dim)
        self.linear_2 = linear(out_dim, out_dim)

    def construct(self, x):
        return self.linear_2(silu(self.linear_1(x)))


class ResnetBlock2D(nn.Cell):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, with a residual; the UNet adds the timestep in between."""

    def __init__(self, in_channels, out_channels, groups, eps, temb_channels=None):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = linear(temb_channels, out_channels) if temb_channels else None
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def construct(self, x, temb=None):
        h = self.conv1(silu(self.norm1(x)))  # (N, C_out, H, W)
        if self.time_emb_proj is not None:
            proj = self.time_emb_proj(silu(temb))  # (N, C_out)
            h = h + proj.reshape(proj.shape[0], proj.shape[1], 1, 1)
        h = self.conv2(silu(self.norm2(h)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return x + h


class Upsample2D(nn.Cell):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    def __init__(self, channels):
        super().__init__()
        self.conv = conv2d(channels, channels, 3, padding=1)

    def construct(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h, 1, w, 1).broadcast_to((n, c, h, 2, w, 2)).reshape(n, c, 2 * h, 2 * w)
        return self.conv(x)  # (N, C, 2H, 2W)


class Downsample2D(nn.Cell):
    """3x3 convolution with stride 2; `asymmetric` pads only right and bottom, as in the autoencoder."""

    def __init__(self, channels, asymmetric=False):
        super().__init__()
        self.conv = conv2d(channels, channels, 3, stride=2, padding=(0, 1, 0, 1) if asymmetric else 1)

    def construct(self, x):
        return self.conv(x)  # (N, C, H/2, W/2)

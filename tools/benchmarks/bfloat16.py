"""bfloat16's rounding on the CPU, which has no kernels for it: products round their inputs and results."""

from mindspore import nn, ops

from diffdis_ms.models import attention


class Rounded(nn.Cell):
    """float32 -> the nearest bf16 (8 bits of mantissa), as float32, and its gradient likewise.

    Veltkamp's splitting: with c = (2^16 + 1) x, c - (c - x) is x rounded to 24 - 16 bits.
    """

    def construct(self, x):
        c = x * 65537.0
        return c - (c - x)

    def bprop(self, x, out, dout):
        c = dout * 65537.0
        return (c - (c - dout),)


class RoundedDense(nn.Dense):
    def construct(self, x):
        y = ops.matmul(self.rounded(x), ops.swapaxes(self.rounded(self.weight), 0, 1))
        if self.has_bias:
            y = y + self.bias
        return self.rounded(y)


class RoundedConv2d(nn.Conv2d):
    def construct(self, x):
        y = self.conv2d(self.rounded(x), self.rounded(self.weight))
        if self.has_bias:
            y = y + self.bias.reshape(1, -1, 1, 1)
        return self.rounded(y)


rounded = Rounded()


def rounded_attention(q, k, v, mask=None):
    """`attention.plain_attention` with rounded products."""
    scores = rounded(ops.matmul(rounded(q * (q.shape[-1] ** -0.5)), ops.swapaxes(rounded(k), -1, -2)))
    if mask is not None:
        scores = scores + mask
    return rounded(ops.matmul(rounded(ops.softmax(scores, -1)), rounded(v)))


def round_products(network):
    """Let a network's dense layers and convolutions round as in bf16, where `models.precision` has 16 bits."""
    for _, cell in network.cells_and_names():
        for plain, changed in ((nn.Dense, RoundedDense), (nn.Conv2d, RoundedConv2d)):
            if type(cell) is plain:
                cell.__class__, cell.rounded = changed, rounded


class RoundedAttention:
    """Context in which newly compiled graphs use `rounded_attention`."""

    def __enter__(self):
        self.before, attention.plain_attention = attention.plain_attention, rounded_attention

    def __exit__(self, *error):
        attention.plain_attention = self.before

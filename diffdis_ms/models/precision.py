"""Mixed precision: matrix products and convolutions in 16 bits, sums and normalisations in float32."""

import mindspore as ms
from mindspore import nn

DTYPES = {'fp16': ms.float16, 'bf16': ms.bfloat16}
_HALF = (nn.Dense, nn.Conv2d)
_FULL = (nn.LayerNorm, nn.GroupNorm)


def apply_precision(network, precision):
    """Let a network's matrix products and convolutions run in 16 bits.

    Dense layers and convolutions cast their inputs and weights; the parameters themselves stay float32. Attention
    multiplies their outputs, so its products are also in 16 bits. Norms cast back to float32. Softmax (in the
    attention), the losses (`diffusion/losses.py`), the optimizer and the EMA compute in float32.

    Args:
        network: Cell, changed in place. precision: 'fp32' (nothing is done), 'fp16' or 'bf16'.

    Returns:
        the network.
    """
    if precision != 'fp32':
        for _, cell in network.cells_and_names():
            if isinstance(cell, _HALF):
                cell.to_float(DTYPES[precision])
            elif isinstance(cell, _FULL):
                cell.to_float(ms.float32)
    return network


def store_precision(network, precision):
    """`apply_precision` for inference: weights of matrix products and convolutions are also kept in 16 bits, half of
    the memory. They cannot be trained or saved afterwards."""
    apply_precision(network, precision)
    if precision != 'fp32':
        for _, cell in network.cells_and_names():
            if isinstance(cell, _HALF):
                for p in cell.get_parameters():
                    p.set_dtype(DTYPES[precision])
    return network

"""Recompute: what a block keeps for its gradient is thrown away and computed again in the backward pass."""

from diffdis_ms.models.clip import TransformerLayer
from diffdis_ms.models.layers import Attention, FeedForward, ResnetBlock2D

RECOMPUTED = (Attention, FeedForward, ResnetBlock2D, TransformerLayer)


def apply_recompute(network):
    """Let the attention, feed-forward and residual blocks of a network (DiffDisUNet, CLIP, autoencoder) recompute.

    These cells and not the whole transformer blocks: the dual-stream block enters those by other ways than their call.
    Only the input of each is kept, not attention's (B, heads, N, N) weights nor the feed-forward's 8 C wide hidden
    layer. The numbers do not change.

    Args:
        network: a cell, before its first call.

    Returns:
        The number of cells that recompute.

    Raises:
        ValueError: the network has none of them.
    """
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, RECOMPUTED)]
    if not cells:
        raise ValueError(f'{type(network).__name__} has no cell that could recompute')
    for cell in cells:
        cell.recompute()
    return len(cells)

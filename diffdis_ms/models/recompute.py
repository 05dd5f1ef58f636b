"""Recomputation: a block's activations are not kept for its gradient, but computed again in the backward pass."""

from diffdis_ms.models.clip import TransformerLayer
from diffdis_ms.models.layers import Attention, FeedForward, ResnetBlock2D

RECOMPUTED = (Attention, FeedForward, ResnetBlock2D, TransformerLayer)


def apply_recompute(network):
    """Let the attention, feed-forward and residual blocks of a network (DiffDisUNet, CLIP, autoencoder) recompute.

    Whole transformer blocks cannot recompute, because the dual-stream block does not call them as a whole. Only the
    input of each cell is kept, but not the attention's (B, heads, N, N) weights or the feed-forward's hidden layer of
    width 8 C. The results do not change.

    Args:
        network: a cell, before its first call.

    Returns:
        The number of cells that recompute.

    Raises:
        ValueError: the network has no such cell.
    """
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, RECOMPUTED)]
    if not cells:
        raise ValueError(f'{type(network).__name__} has no cell that could recompute')
    for cell in cells:
        cell.recompute()
    return len(cells)

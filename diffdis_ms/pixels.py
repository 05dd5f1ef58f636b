"""The two ranges of pixels: 0..255 of pictures, -1..1 of the networks."""

import numpy as np


def to_unit_range(pixels):
    """uint8 0..255 -> float32 in [-1, 1]; floats are in that range already. Any shape."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 127.5 - 1
    return pixels.astype(np.float32)


def to_uint8(array):
    """float in [-1, 1], values beyond clipped -> uint8 0..255. Any shape."""
    return np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8)

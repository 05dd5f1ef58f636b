"""Initialise weights. A parameter's value depends only on its name and the seed, not on the order of construction."""

import math
import re
import zlib

import numpy as np

from diffdis_ms.models.names import copied_from

PROJ_OUT_STD = 1e-3  # "the layer back to 768 starts small" (dual stream)
START_LOGVAR = -6.0  # initial log-variance of the autoencoder's posterior
ZERO = re.compile(
    r'((down|up)_blocks\.\d+|mid_block)\.(resnets\.\d+\.conv2|attentions\.\d+\.proj_out)\.weight|conv_out\.weight'
)


def initialize(cell, seed):
    """Fill the parameters of `cell` in place.

    Linear layers and convolutions are uniform in +-1/sqrt(fan_in) with zero biases. Layers that are zero modules in
    latent diffusion (the last layer of the UNet and of each of its residual branches) are zero. Embeddings are normal
    with standard deviation 0.02 (positions 0.01). Norms and their running statistics are one and zero. The query's
    feed-forwards start as copies of the image's.

    Args:
        cell: a network of this package.
        seed: int.
    """
    from mindspore import Tensor  # imported here, because the converter only uses `fresh`, which needs only NumPy

    for p in cell.get_parameters():
        p.set_data(Tensor(fresh(p.name, p.shape, seed), p.dtype))
    copy_image_weights(cell)


def copy_image_weights(cell, keep=()):
    """Set the query's parameters that start as copies (`names.copied_from`) to the image's current weights.

    Args:
        cell: a network of this package. keep: names of parameters that are not changed, because a file had them.
    """
    from mindspore import Tensor

    params = {p.name: p for p in cell.get_parameters()}
    for name, p in params.items():
        source = copied_from(name)
        if source in params and name not in keep:
            p.set_data(Tensor(params[source].asnumpy(), p.dtype))


def fresh(name, shape, seed):
    """The initial value of a parameter, float32."""
    leaf = name.rsplit('.', 1)[-1]
    if name == 'quant_conv.bias':  # a narrow posterior, because noise of size one would hide the first latents
        return np.repeat([0, START_LOGVAR], shape[0] // 2).astype(np.float32)
    if leaf in ('gamma', 'moving_variance'):
        return np.ones(shape, np.float32)
    if leaf in ('beta', 'bias', 'moving_mean') or ZERO.fullmatch(name):
        return np.zeros(shape, np.float32)
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    if leaf in ('embedding_table', 'class_embedding', 'positional_embedding'):
        std = 0.01 if 'position' in name else 0.02
        return std * rng.standard_normal(shape, dtype=np.float32)
    if '.dual_stream.proj_out.' in name:
        return PROJ_OUT_STD * rng.standard_normal(shape, dtype=np.float32)
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return (bound * (2 * rng.random(shape, dtype=np.float32) - 1)).astype(np.float32)

"""What many tests share: a tiny config, non-trivial random weights, noise."""

import zlib

import numpy as np
from mindspore import Tensor

from diffdis_ms.ascend.tiny import (  # noqa: F401  (tests take them from here)
    make_smaller,
    make_tiny_config,
    make_tiny_resnet,
    tiny_run,
)
from diffdis_ms.train.objective import draw_diffdis
from diffdis_ms.world import World


def randomize(cell, seed):
    """Give every parameter non-trivial values, zero-initialised layers and norms included, and return the cell.

    Matrices keep the size of their input (variance 1 / fan_in); norm gammas and running variances lie around one,
    biases and running means around zero. A value depends on the seed and the name alone: parameters that two networks
    share are equal.
    """
    for name, param in cell.parameters_and_names():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        value = rng.standard_normal(param.shape, dtype=np.float32)
        leaf = name.rsplit('.', 1)[-1]
        if leaf == 'gamma':
            value = 1 + 0.1 * value
        elif leaf == 'moving_variance':
            value = np.exp(0.1 * value)
        elif leaf in ('beta', 'bias', 'moving_mean'):
            value *= 0.1
        elif leaf not in ('embedding_table', 'class_embedding', 'positional_embedding'):
            value *= np.prod(param.shape[1:]) ** -0.5
        param.set_data(Tensor(value.astype(np.float32)))
    return cell


def make_larger(model):
    """Turn a tiny ModelConfig into one with three levels and two layers in each. For tests of many parameters that
    compile nothing."""
    unet = model.unet
    unet.block_out_channels, unet.attention_levels, unet.layers_per_block = [32, 64, 64], [True, True, False], 2


def normal(seed, *shape):
    """A float32 tensor of standard normal noise."""
    return Tensor(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def make_objective(config, seed=0, world=World()):
    """The loss cell of a config with random weights, and inputs for it: (cell, tuple of Tensors)."""
    from diffdis_ms.ascend.graphs import loss_cell

    model, b = config.model, config.train.batch_size
    text = model.text_encoder
    ids = (
        np.random.default_rng(seed).integers(0, text.vocab_size - 1, (b, text.max_position_embeddings)).astype(np.int32)
    )
    ids[:, -2:] = text.vocab_size - 1
    cell = loss_cell(config, world)
    if config.objective == 'autoencoder':
        randomize(cell.vae, 1)
        return cell, (normal(2, b, 3, 32, 32), normal(3, b, 4, 8, 8))
    if config.objective == 'clip':
        randomize(cell.image_encoder, 1)
        randomize(cell.text_encoder, 2)
        return cell, (normal(2, b, 3, 32, 32), Tensor(ids))
    randomize(cell.unet, 1)
    cell.empty_context, cell.zero_latent = (
        normal(2, 1, text.max_position_embeddings, text.hidden_size),
        normal(3, 1, 4, 8, 8),
    )
    draws = tuple(Tensor(x) for x in draw_diffdis(seed, 0, config, (4, 8, 8)))
    e = normal(6, b, 1, text.projection_dim).asnumpy()
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    c = normal(5, b, text.max_position_embeddings, text.hidden_size)
    return cell, (normal(4, b, 4, 8, 8), c, Tensor(e), None, *draws)

"""What many tests share: a tiny config, non-trivial random weights, noise."""
import zlib

import numpy as np
from mindspore import Tensor

from diffdis_ms.config import AlignmentConfig, AutoencoderConfig, ImageEncoderConfig, ModelConfig, TextEncoderConfig, UNetConfig


def make_tiny_config():
    """A DiffDis that compiles in seconds; c and e differ in width on purpose, so that no layer can mistake one for the other."""
    return ModelConfig(
        image_size=32,
        unet=UNetConfig(block_out_channels=[32, 64, 64], attention_levels=[True, True, False], norm_num_groups=8, num_attention_heads=4),
        vae=AutoencoderConfig(block_out_channels=[16, 32, 32], norm_num_groups=8),
        text_encoder=TextEncoderConfig(vocab_size=200, max_position_embeddings=16, hidden_size=32, intermediate_size=64,
                                       num_hidden_layers=2, num_attention_heads=4, projection_dim=48),
        image_encoder=ImageEncoderConfig(image_size=32, patch_size=8, hidden_size=40, intermediate_size=80, num_hidden_layers=2,
                                         num_attention_heads=4, projection_dim=48),
        alignment=AlignmentConfig(num_layers=2, width=64, head_dim=16))


def randomize(cell, seed):
    """Give every parameter non-trivial values, zero-initialised layers and norms included, and return the cell.

    Matrices keep the size of their input (variance 1 / fan_in); norm gammas lie around one, biases around zero. A value
    depends on the seed and the name alone: parameters that two networks share are equal.
    """
    for name, param in cell.parameters_and_names():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        value = rng.standard_normal(param.shape, dtype=np.float32)
        leaf = name.rsplit('.', 1)[-1]
        if leaf == 'gamma':
            value = 1 + 0.1 * value
        elif leaf in ('beta', 'bias'):
            value *= 0.1
        elif leaf not in ('embedding_table', 'class_embedding'):
            value *= np.prod(param.shape[1:]) ** -0.5
        param.set_data(Tensor(value.astype(np.float32)))
    return cell


def normal(seed, *shape):
    """A float32 tensor of standard normal noise."""
    return Tensor(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))

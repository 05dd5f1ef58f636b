"""What many tests share: a tiny config, non-trivial random weights, noise."""

import zlib

import numpy as np
from mindspore import Tensor

from diffdis_ms.config import (
    AlignmentConfig,
    AutoencoderConfig,
    Config,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
    UNetConfig,
)
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.train.distributed import World
from diffdis_ms.train.objective import AutoencoderObjective, CLIPObjective, DiffDisObjective, draw_diffdis


def make_tiny_config():
    """A DiffDis that compiles in seconds; c and e differ in width on purpose, so that no layer can mistake one for the
    other."""
    return ModelConfig(
        image_size=32,
        unet=UNetConfig(
            block_out_channels=[32, 64, 64],
            attention_levels=[True, True, False],
            norm_num_groups=8,
            num_attention_heads=4,
        ),
        vae=AutoencoderConfig(block_out_channels=[16, 32, 32], norm_num_groups=8),
        text_encoder=TextEncoderConfig(
            vocab_size=200,
            max_position_embeddings=16,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=48,
        ),
        image_encoder=ImageEncoderConfig(
            image_size=32,
            patch_size=8,
            hidden_size=40,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=48,
        ),
        alignment=AlignmentConfig(num_layers=2, width=64, head_dim=16),
    )


def make_tiny_resnet():
    """An ImageEncoderConfig of CLIP's ResNet with all its kinds of bottlenecks and a feature map of 2 x 2."""
    return ImageEncoderConfig(
        architecture='resnet',
        resnet_layers=[2, 1, 1, 2],
        image_size=64,
        hidden_size=256,
        num_attention_heads=4,
        projection_dim=48,
    )


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


def normal(seed, *shape):
    """A float32 tensor of standard normal noise."""
    return Tensor(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def tiny_run(objective='diffdis', **train):
    """A Config around the tiny model; keyword arguments set fields of `train`."""
    config = Config(objective=objective, model=make_tiny_config())
    config.train.batch_size, config.train.max_steps = 4, 6
    config.optimizer.warmup_steps, config.optimizer.max_grad_norm = 2, 1.0
    config.train.ema_ramp = True
    for key, value in train.items():
        setattr(config.train, key, value)
    return config


def make_objective(config, seed=0, world=World()):
    """The loss cell of a config with random weights, and inputs for it: (cell, tuple of Tensors)."""
    model, b = config.model, config.train.batch_size
    text = model.text_encoder
    ids = (
        np.random.default_rng(seed).integers(0, text.vocab_size - 1, (b, text.max_position_embeddings)).astype(np.int32)
    )
    ids[:, -2:] = text.vocab_size - 1
    if config.objective == 'autoencoder':
        return AutoencoderObjective(randomize(AutoencoderKL(model.vae), 1), config, world), (
            normal(2, b, 3, 32, 32),
            normal(3, b, 4, 8, 8),
        )
    if config.objective == 'clip':
        cell = CLIPObjective(
            randomize(CLIPImageEncoder(model.image_encoder), 1), randomize(CLIPTextEncoder(text), 2), config, world
        )
        return cell, (normal(2, b, 3, 32, 32), Tensor(ids))
    unet = randomize(DiffDisUNet(model), 1)
    cell = DiffDisObjective(
        unet,
        config,
        normal(2, 1, text.max_position_embeddings, text.hidden_size).asnumpy(),
        normal(3, 1, 4, 8, 8).asnumpy(),
        None,
        world,
    )
    draws = tuple(Tensor(x) for x in draw_diffdis(seed, 0, config, (4, 8, 8)))
    e = normal(6, b, 1, text.projection_dim).asnumpy()
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    return cell, (
        normal(4, b, 4, 8, 8),
        normal(5, b, text.max_position_embeddings, text.hidden_size),
        Tensor(e),
        None,
        *draws,
    )

"""Configs of networks with few layers and every kind of block, for the operator check and the tests."""

from diffdis_ms.config import (
    AlignmentConfig,
    AutoencoderConfig,
    Config,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
    UNetConfig,
)


# fmt: off
def make_tiny_config():
    """A DiffDis that compiles in seconds. c and e have different widths, so that no layer can confuse them."""
    return ModelConfig(
        image_size=32,
        unet=UNetConfig(block_out_channels=[32, 64], attention_levels=[True, False], layers_per_block=1,
                        norm_num_groups=8, num_attention_heads=4),
        vae=AutoencoderConfig(block_out_channels=[16, 32, 32], norm_num_groups=8),
        text_encoder=TextEncoderConfig(vocab_size=200, max_position_embeddings=16, hidden_size=32, intermediate_size=64,
                                       num_hidden_layers=2, num_attention_heads=4, projection_dim=48),
        image_encoder=ImageEncoderConfig(image_size=32, patch_size=8, hidden_size=40, intermediate_size=80,
                                         num_hidden_layers=2, num_attention_heads=4, projection_dim=48),
        alignment=AlignmentConfig(num_layers=2, width=64, head_dim=16),
    )


def make_smaller(model):
    """Turn a tiny ModelConfig into one that compiles in half the time: one level, attention in the middle block alone.
    For training steps, where the number of layers does not matter."""
    model.unet.block_out_channels, model.unet.attention_levels = [32], [False]
    model.alignment.num_layers = model.vae.layers_per_block = 1


def make_tiny_resnet():
    """An ImageEncoderConfig of CLIP's ResNet with all its kinds of bottlenecks and a feature map of 2 x 2."""
    return ImageEncoderConfig(architecture='resnet', resnet_layers=[2, 1, 1, 2], image_size=64, hidden_size=256,
                              num_attention_heads=4, projection_dim=48)
# fmt: on


def tiny_run(objective='diffdis', **train):
    """A Config around the tiny model; keyword arguments set fields of `train`."""
    config = Config(objective=objective, model=make_tiny_config())
    config.train.batch_size, config.train.max_steps = 4, 6
    config.optimizer.warmup_steps, config.optimizer.max_grad_norm = 2, 1.0
    config.train.ema_ramp = True
    for key, value in train.items():
        setattr(config.train, key, value)
    return config

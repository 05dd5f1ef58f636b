"""Check a config's values and how they fit together (`loading` checks their types). Each error names its key."""

import math
from dataclasses import fields, is_dataclass
from operator import attrgetter

from diffdis_ms.errors import ConfigError

PARTS = {  # networks that an objective can start from, for `init.*`
    'diffdis': ('unet', 'vae', 'text_encoder'),
    'clip': ('text_encoder',),
    'autoencoder': ('vae',),
}
LOWEST = {
    'train.batch_size': 1,
    'train.max_steps': 1,
    'train.accumulation_steps': 1,
    'train.loss_scale': 1,
    'train.loss_scale_window': 1,
    'train.sample_every': 0,
    'train.log_every': 1,
    'train.checkpoint_every': 1,
    'train.keep_checkpoints': 1,
    'data.num_workers': 1,
    'data.min_side': 8,
    'optimizer.warmup_steps': 0,
    'optimizer.learning_rate': 0,
    'optimizer.new_learning_rate': 0,
    'optimizer.max_grad_norm': 0,
}
ABOVE_ZERO = ('runtime.memory_limit_gb', 'runtime.hccl_connect_timeout', 'runtime.hccl_exec_timeout')  # or None
SHARES = ('train.caption_dropout', 'train.image_dropout', 'train.ema_decay')  # in [0, 1)


def validate(model, objective='diffdis'):
    """Check a `ModelConfig`; raises `ConfigError` with the offending key and the reason.

    Args:
        model: ModelConfig. objective: decides which networks `image_size` must suit.
    """
    unet, text, image = model.unet, model.text_encoder, model.image_encoder
    _positive(model)
    for name, part in (('unet', unet), ('vae', model.vae)):
        for width in part.block_out_channels:
            if width % part.norm_num_groups:
                raise ConfigError(
                    f'{name}.block_out_channels: {width} is not a multiple of {name}.norm_num_groups '
                    f'= {part.norm_num_groups}'
                )
    if len(unet.attention_levels) != len(unet.block_out_channels):
        raise ConfigError(
            f'unet.attention_levels has {len(unet.attention_levels)} entries, unet.block_out_channels has '
            f'{len(unet.block_out_channels)}: one per level'
        )
    for width in unet.block_out_channels:
        _divides('unet.num_attention_heads', unet.num_attention_heads, width)
    _divides('text_encoder.num_attention_heads', text.num_attention_heads, text.hidden_size)
    _divides('image_encoder.num_attention_heads', image.num_attention_heads, image.hidden_size)
    _validate_encoders(text, image)
    if image.architecture == 'resnet':
        _validate_resnet(image)
    else:
        _divides('image_encoder.patch_size', image.patch_size, image.image_size)
    _divides('alignment.head_dim', model.alignment.head_dim, model.alignment.width)
    _validate_image_size(model, objective)
    if unet.in_channels != model.vae.latent_channels or unet.out_channels != model.vae.latent_channels:
        raise ConfigError(
            f'unet.in_channels = {unet.in_channels} and unet.out_channels = {unet.out_channels} must equal '
            f'vae.latent_channels = {model.vae.latent_channels}'
        )
    if text.projection_dim != image.projection_dim:
        raise ConfigError(
            f'image_encoder.projection_dim = {image.projection_dim} must equal '
            f'text_encoder.projection_dim = {text.projection_dim}'
        )
    if model.logit_scale <= 0:
        raise ConfigError(f'logit_scale: {model.logit_scale} is not above 0 (its logarithm is learned)')
    if not 0 < model.text_diffusion.gamma <= 1:
        raise ConfigError(f'text_diffusion.gamma: {model.text_diffusion.gamma} is not in (0, 1] (Eq. 5)')
    steps = model.image_diffusion.num_train_timesteps
    if not 0 <= model.dual_stream.image_condition_timestep <= steps:
        raise ConfigError(
            f'dual_stream.image_condition_timestep: {model.dual_stream.image_condition_timestep} is not in 0..{steps}'
        )


def _validate_encoders(text, image):
    for name, eps in (('text_encoder', text.layer_norm_eps), ('image_encoder', image.layer_norm_eps)):
        if not 0 < eps < 1:
            raise ConfigError(f'{name}.layer_norm_eps: {eps} is not in (0, 1)')
    for name, colours in (('image_mean', image.image_mean), ('image_std', image.image_std)):
        if len(colours) != 3 or not all(map(math.isfinite, colours)):
            raise ConfigError(f'image_encoder.{name}: {colours} is not one finite number for each of the three colours')
    if min(image.image_std) <= 0:
        raise ConfigError(f'image_encoder.image_std: {image.image_std} is not above 0')


def _validate_image_size(model, objective):
    if objective == 'clip':  # a CLIP uses image_encoder.image_size; `validate_run` requires both to be the same
        return
    halvings, who = len(model.vae.block_out_channels) - 1, 'the autoencoder halves it'
    if objective == 'diffdis':
        halvings, who = halvings + len(model.unet.block_out_channels) - 1, 'the autoencoder and the UNet halve it'
    if model.image_size % 2**halvings:
        raise ConfigError(f'image_size: {model.image_size} is not a multiple of {2**halvings} ({who} {halvings} times)')


def _validate_resnet(image):
    if len(image.resnet_layers) != 4:
        raise ConfigError(f'image_encoder.resnet_layers has {len(image.resnet_layers)} entries: a ResNet has 4 stages')
    if image.hidden_size % 64:
        raise ConfigError(
            f'image_encoder.hidden_size: {image.hidden_size} is not a multiple of 64 (32 times the even width of the '
            'stem of a ResNet)'
        )
    if image.image_size % 32:
        raise ConfigError(
            f'image_encoder.image_size: {image.image_size} is not a multiple of 32 (a ResNet halves it 5 times)'
        )


def validate_run(config):
    """Check a `Config` except for its model; raises `ConfigError` with the offending key and the reason."""
    train, model = config.train, config.model
    _validate_ranges(config)
    for part in ('unet', 'vae', 'text_encoder'):
        directory = getattr(config.init, part)
        if directory is not None and part not in PARTS[config.objective]:
            raise ConfigError(
                f'init.{part} = {directory} has no effect on objective={config.objective}; set init.{part}=null'
            )
    image = model.image_encoder
    if config.objective == 'clip' and model.image_size != image.image_size:
        raise ConfigError(
            f'model.image_size: pictures are resized to {model.image_size} pixels, but model.image_encoder.image_size '
            f'is {image.image_size}; set both to the same number'
        )
    if train.generation_batch_size is not None and not 1 <= train.generation_batch_size <= train.batch_size:
        raise ConfigError(
            f'train.generation_batch_size: {train.generation_batch_size} is not in 1..train.batch_size = '
            f'{train.batch_size}'
        )
    if train.precision == 'bf16' and config.device == 'CPU':
        raise ConfigError('train.precision: MindSpore has no bf16 kernels for the CPU; use fp32 or fp16 there')
    if config.objective == 'clip' and (image.resize_mode, image.interpolation) != ('shortest', 'bicubic'):
        raise ConfigError(
            f'model.image_encoder: resize_mode = {image.resize_mode} and interpolation = {image.interpolation}:'
            ' training only supports a bicubic resize of the shorter side with a centre crop'
        )
    if config.data.cache is not None:
        _validate_cache(config)
    if config.data.cache_in_memory:
        _validate_cache_in_memory(config)


def _validate_ranges(config):
    for key, low in LOWEST.items():
        value = attrgetter(key)(config)
        if value < low:
            raise ConfigError(f'{key}: {value} is below {low}')
    for key in ABOVE_ZERO:
        value = attrgetter(key)(config)
        if value is not None and not value > 0:
            raise ConfigError(f'{key}: {value} is not above 0')
    for key in SHARES:
        value = attrgetter(key)(config)
        if not 0 <= value < 1:
            raise ConfigError(f'{key}: {value} is not in [0, 1)')


def _validate_cache(config):
    """Refuse settings that do not work with latents and text features computed beforehand."""
    data, init = config.data, config.init
    only_diffdis = f'{config.objective} trains on images; only diffdis trains on latents'
    frozen = 'cached text features do not change with a text encoder that is trained'
    unchanged = 'the cached latents come from unchanged images'
    same_model = 'set it to the model directory that the cache was made with'
    for wrong, key, why in (
        (config.objective != 'diffdis', 'objective', only_diffdis),
        (not config.train.freeze_text_encoder, 'train.freeze_text_encoder', frozen),
        (data.random_flip, 'data.random_flip', unchanged),
        (data.random_shift > 0, 'data.random_shift', unchanged),
        (data.cache_in_memory, 'data.cache_in_memory', 'the cache on the disk replaces it'),
        (init.vae is None, 'init.vae', same_model),
        (init.text_encoder is None, 'init.text_encoder', same_model),
    ):
        if wrong:
            raise ConfigError(f'data.cache cannot be combined with {key} = {attrgetter(key)(config)}: {why}')


def _validate_cache_in_memory(config):
    data = config.data
    if data.workers == 'processes':
        raise ConfigError('data.cache_in_memory needs data.workers=threads, because processes share no memory')
    if not config.train.freeze_text_encoder:
        raise ConfigError(
            'data.cache_in_memory needs train.freeze_text_encoder=true: cached text features do not change with a text'
            ' encoder that is trained'
        )
    for key in ('random_flip', 'random_shift'):
        if config.objective == 'diffdis' and getattr(data, key):
            raise ConfigError(
                f'data.cache_in_memory cannot be combined with data.{key} = {getattr(data, key)}: the latents are '
                'computed once, from unchanged images'
            )


def _positive(node, prefix=''):
    """Check that every integer of a model is at least 1. They are sizes and counts; only the condition timestep may be
    zero."""
    for f in fields(node):
        key, value = prefix + f.name, getattr(node, f.name)
        if is_dataclass(value):
            _positive(value, key + '.')
        elif value == []:
            raise ConfigError(f'{key} is empty')
        elif f.name != 'image_condition_timestep':
            for number in value if isinstance(value, list) else [value]:
                if type(number) is int and number < 1:
                    raise ConfigError(f'{key}: {number} is below 1')


def _divides(key, small, large):
    if large % small:
        raise ConfigError(f'{key}: {small} does not divide {large}')

"""Make the ModelConfig of a source from the shapes of its tensors and its own configs."""

from dataclasses import fields, is_dataclass

import numpy as np

from ckpt_convert import infer, other_models
from ckpt_convert.configs import clip as clip_configs
from ckpt_convert.configs import stable_diffusion as sd_configs
from ckpt_convert.source import constant
from diffdis_ms.config import ModelConfig, load
from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.errors import CheckpointError


def model_config(source, text_source=None, overrides=()):
    """ModelConfig of a source: the stored one for our own exports, else inferred from shapes; overrides come last."""
    base = load(source.config, schema=ModelConfig) if source.config else ModelConfig()
    if source.kind == 'sd':
        _complete(source, text_source)
        _read_pipeline(source, base)
    if not source.config:
        shapes = {stem: network.shapes for stem, network in source.networks.items()}
        json = {stem: network.json for stem, network in source.networks.items()}
        for stem, infer_config in (
            ('unet', infer.unet_config),
            ('vae', infer.vae_config),
            ('text_encoder', infer.text_config),
            ('image_encoder', infer.image_config),
        ):
            if stem in shapes:
                setattr(base, stem, infer_config(shapes[stem], json[stem]))
                clip_configs.check_sizes(getattr(base, stem), json[stem], source.path)
        if source.kind == 'sd' and text_source is not None and 'text_encoder' in text_source.networks:
            _read_text_source(source, text_source, base)
        if 'image_encoder' not in shapes:
            base.image_encoder.projection_dim = base.text_encoder.projection_dim
        if source.json.get('yaml'):
            said = source.json['yaml']
            base.image_diffusion, base.vae.scaling_factor = said['image_diffusion'], said['scaling_factor']
            base.unet.num_attention_heads = said['heads']
            base.dual_stream.image_condition_timestep = base.image_diffusion.num_train_timesteps
        base.vae.scaling_factor = constant(source, 'scale_factor') or base.vae.scaling_factor
        if source.kind == 'clip':
            clip_configs.require_known(base, json, overrides, source.path)
        if source.kind == 'clip' and constant(source, 'logit_scale') is not None:
            base.logit_scale = float(min(np.exp(constant(source, 'logit_scale')), base.max_logit_scale))
    return load(None, [*flat(base), *overrides], ModelConfig, 'clip' if source.kind == 'clip' else 'diffdis')


def _read_text_source(source, text_source, base):
    """What the CLIP of --text-encoder says of its tower, into a ModelConfig; a text encoder of the source must say the
    same."""
    network, own = text_source.networks['text_encoder'], source.networks.get('text_encoder')
    theirs = infer.text_config(network.shapes, network.json)
    base.text_encoder.projection_dim = theirs.projection_dim
    for key in ('num_attention_heads', 'hidden_act', 'layer_norm_eps'):
        # a CompVis file has no config.json, but --text-encoder has one for the same tower
        if own is None or not own.json:
            setattr(base.text_encoder, key, getattr(theirs, key))
        elif key in network.json and getattr(theirs, key) != getattr(base.text_encoder, key):
            raise CheckpointError(
                f'{source.path} says {key} = {getattr(base.text_encoder, key)} of its text encoder, but'
                f' {text_source.path} says {getattr(theirs, key)}: it is a different tower'
            )


def _complete(source, text_source):
    """Refuse models other than Stable Diffusion v1. Without a text encoder, use that of --text-encoder if its width
    fits the UNet."""
    other_models.refuse_other_models(source)
    if 'text_encoder' not in source.networks and text_source is not None and 'text_encoder' in text_source.networks:
        source.networks['text_encoder'] = text_source.networks['text_encoder']
    reads, writes = (
        width(source.networks[stem]) if stem in source.networks else None
        for stem, width in (('unet', other_models.context_width), ('text_encoder', other_models.text_width))
    )
    if reads is not None and writes is not None and reads != writes:
        raise CheckpointError(
            f'{source.path}: the UNet reads texts of width {reads}, the text encoder\'s are {writes} wide: '
            'they do not belong together'
        )


def _read_pipeline(source, base):
    """Put settings of model_index.json and scheduler_config.json into a ModelConfig.

    For our own exports both must agree.
    """
    index, scheduler = source.json.get('model_index'), source.json.get('scheduler')
    if index:
        sd_configs.check_index(index)
    for stem, infer_config in (('unet', infer.unet_config), ('vae', infer.vae_config)):
        network = source.networks.get(stem)
        if source.config is None or network is None or not network.json:
            continue
        if infer_config(network.shapes, network.json) != getattr(base, stem):
            raise CheckpointError(f'{source.path}/{stem}/config.json contradicts {stem} in {source.config}')
    if not scheduler:
        return
    diffusion = sd_configs.image_diffusion(scheduler, sd_configs.scheduler_class(index))
    if source.config is None:
        base.image_diffusion = diffusion
        if diffusion.num_train_timesteps != ModelConfig().image_diffusion.num_train_timesteps:
            # after the last timestep, as before
            base.dual_stream.image_condition_timestep = diffusion.num_train_timesteps
    elif diffusion.target != base.image_diffusion.target or not np.array_equal(
        alphas_cumprod(diffusion), alphas_cumprod(base.image_diffusion)
    ):
        raise CheckpointError(
            f'{source.path}/scheduler/scheduler_config.json contradicts image_diffusion in {source.config}'
        )


def flat(node, prefix=''):
    """Write a dataclass tree as 'key=value' strings, so that it is checked like any other config."""
    items = []
    for f in fields(node):
        key, value = prefix + f.name, getattr(node, f.name)
        items += flat(value, key + '.') if is_dataclass(value) else [f'{key}={value}']
    return items

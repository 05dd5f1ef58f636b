"""Export a model directory to files for diffusers or in CompVis' Stable Diffusion layout.

Parts that these have no place for (dual-stream blocks, alignment transformer, text projection, config) go into a folder
`diffdis/` beside them. So importing the export gives the same model, byte for byte.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ckpt_convert import name_map
from ckpt_convert.configs.stable_diffusion import SCHEDULES, TARGETS
from ckpt_convert.convert import check_destination
from ckpt_convert.layouts import NETWORKS
from ckpt_convert.plan import PROJECTION
from ckpt_convert.source import SIDECAR
from diffdis_ms.config import ImageDiffusionConfig, to_yaml
from diffdis_ms.errors import CheckpointError
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.storage.files import whole_directory, write_flushed, write_weights
from diffdis_ms.storage.model_dir import read_config
from diffdis_ms.storage.reader import open_checkpoint

DIFFUSERS = '0.35.2'  # version whose file layout is written


class Renamed:
    """A tensor with another name and shape, which is read when it is written."""

    def __init__(self, tensor, shape, bar):
        self.tensor, self.shape, self.bar, self.dtype = tensor, shape, bar, tensor.dtype

    def pieces(self, buffers):
        for piece in self.tensor.pieces(buffers):  # a model directory has only plain tensors
            self.bar.update(piece.nbytes)
            yield piece


def export(src, dst, layout, overwrite=False):
    """Write a model directory as files of another tool.

    Args:
        src: model directory. dst: directory to write. layout: 'diffusers' (a pipeline directory) or 'ldm'
            (model.safetensors with CompVis' names). overwrite: replace an earlier export.

    Returns:
        dict: tensors and bytes written.

    Raises:
        CheckpointError, ConfigError: the model cannot be exported. Nothing is written.
    """
    src, dst = Path(src), Path(dst)
    check_destination(dst, overwrite)
    config, tensors = read_config(src), {}
    for stem in NETWORKS['sd']:
        if not (src / f'{stem}.safetensors').is_file():
            raise CheckpointError(
                f'{src} holds no {stem}.safetensors: only models with unet, vae and text encoder can be exported'
            )
        tensors[stem] = open_checkpoint(src / f'{stem}.safetensors').tensors
    if layout == 'ldm' and config.image_diffusion != ImageDiffusionConfig():
        raise CheckpointError(
            f'{src}: image_diffusion is not Stable Diffusion v1\'s (noise target and schedule), which CompVis\''
            ' files cannot express: export with --format diffusers'
        )
    total = sum(t.nbytes for network in tensors.values() for t in network.values())
    with tqdm(total=total, unit='B', unit_scale=True, desc='exporting', disable=None) as bar:
        ours, theirs = _split(tensors, config, layout, bar)
        with whole_directory(dst) as temporary:
            (_fill_diffusers if layout == 'diffusers' else _fill_ldm)(temporary, theirs, config)
            (temporary / SIDECAR).mkdir()
            write_weights(temporary / SIDECAR / f'{SIDECAR}.safetensors', ours)
            write_flushed(temporary / SIDECAR / 'config.yaml', to_yaml(config).encode())
            shutil.copytree(src / 'tokenizer', temporary / 'tokenizer')
    return {'tensors': sum(map(len, tensors.values())), 'bytes': total}


def _split(tensors, config, layout, bar):
    """Split tensors into ({name: tensor} that only DiffDis has, {network: {name in the other layout: tensor}})."""
    ours, theirs = {}, {}
    for stem, network in tensors.items():
        table = (
            {'unet': name_map.unet_ldm, 'vae': name_map.vae_ldm}[stem](getattr(config, stem))
            if layout == 'ldm' and stem != 'text_encoder'
            else None
        )
        theirs[stem] = {}
        for name, tensor in network.items():
            if is_new_parameter(name) or (stem, name) == ('text_encoder', PROJECTION):
                ours[f'{stem}.{name}'] = Renamed(tensor, tensor.shape, bar)
            else:
                there = name_map.place(name, tensor.shape, table)
                theirs[stem][there.name] = Renamed(tensor, there.shape, bar)
    return ours, theirs


def _fill_ldm(folder, theirs, config):
    prefixes = {
        'unet': 'model.diffusion_model.',
        'vae': 'first_stage_model.',
        'text_encoder': 'cond_stage_model.transformer.',
    }
    merged = {prefixes[stem] + name: t for stem, network in theirs.items() for name, t in network.items()}
    if config.vae.scaling_factor != 0.18215:
        merged['scale_factor'] = np.float32(config.vae.scaling_factor)
    write_weights(folder / 'model.safetensors', merged)


def _fill_diffusers(folder, theirs, config):
    files = {'unet': 'diffusion_pytorch_model', 'vae': 'diffusion_pytorch_model', 'text_encoder': 'model'}
    for stem, network in theirs.items():
        (folder / stem).mkdir()
        write_weights(folder / stem / f'{files[stem]}.safetensors', network)
        _json(folder / stem / 'config.json', CONFIGS[stem](config))
    (folder / 'scheduler').mkdir()
    _json(folder / 'scheduler' / 'scheduler_config.json', _scheduler(config))
    _json(
        folder / 'model_index.json',
        {
            '_class_name': 'StableDiffusionPipeline',
            '_diffusers_version': DIFFUSERS,
            'requires_safety_checker': False,
            'scheduler': ['diffusers', _scheduler(config)['_class_name']],
            'unet': ['diffusers', 'UNet2DConditionModel'],
            'vae': ['diffusers', 'AutoencoderKL'],
            'text_encoder': ['transformers', 'CLIPTextModel'],
            'tokenizer': ['transformers', 'CLIPTokenizer'],
            'safety_checker': [None, None],
            'feature_extractor': [None, None],
        },
    )


def _json(path, content):
    write_flushed(path, (json.dumps(content, indent=2) + '\n').encode())


def _unet(config):
    unet = config.unet
    return {
        '_class_name': 'UNet2DConditionModel',
        '_diffusers_version': DIFFUSERS,
        'sample_size': config.latent_shape[-1],
        'in_channels': unet.in_channels,
        'out_channels': unet.out_channels,
        'block_out_channels': list(unet.block_out_channels),
        'layers_per_block': unet.layers_per_block,
        'down_block_types': ['CrossAttnDownBlock2D' if a else 'DownBlock2D' for a in unet.attention_levels],
        'up_block_types': ['CrossAttnUpBlock2D' if a else 'UpBlock2D' for a in reversed(unet.attention_levels)],
        'transformer_layers_per_block': unet.transformer_layers_per_block,
        'attention_head_dim': unet.num_attention_heads,  # diffusers' name for the number of heads
        'cross_attention_dim': config.text_encoder.hidden_size,
        'norm_num_groups': unet.norm_num_groups,
        'norm_eps': 1e-5,
        'act_fn': 'silu',
        'flip_sin_to_cos': True,
        'freq_shift': 0,
        'center_input_sample': False,
        'downsample_padding': 1,
        'mid_block_scale_factor': 1,
        'use_linear_projection': False,
    }


def _vae(config):
    vae, levels = config.vae, len(config.vae.block_out_channels)
    return {
        '_class_name': 'AutoencoderKL',
        '_diffusers_version': DIFFUSERS,
        'sample_size': config.image_size,
        'in_channels': vae.in_channels,
        'out_channels': vae.in_channels,
        'latent_channels': vae.latent_channels,
        'block_out_channels': list(vae.block_out_channels),
        'layers_per_block': vae.layers_per_block,
        'down_block_types': ['DownEncoderBlock2D'] * levels,
        'up_block_types': ['UpDecoderBlock2D'] * levels,
        'norm_num_groups': vae.norm_num_groups,
        'act_fn': 'silu',
        'scaling_factor': vae.scaling_factor,
    }


def _text_encoder(config):
    text = config.text_encoder
    return {
        'architectures': ['CLIPTextModel'],
        'model_type': 'clip_text_model',
        'vocab_size': text.vocab_size,
        'max_position_embeddings': text.max_position_embeddings,
        'hidden_size': text.hidden_size,
        'intermediate_size': text.intermediate_size,
        'num_hidden_layers': text.num_hidden_layers,
        'num_attention_heads': text.num_attention_heads,
        'projection_dim': text.projection_dim,
        'hidden_act': text.hidden_act,
        'layer_norm_eps': text.layer_norm_eps,
        'bos_token_id': text.vocab_size - 2,
        'eos_token_id': 2,  # with OpenAI's value 2, transformers pools at the highest id, as CLIP does
        'pad_token_id': 1,
    }


def _scheduler(config):
    diffusion = config.image_diffusion
    schedule, target = (
        next(theirs for theirs, ours in table.items() if ours == value)
        for table, value in ((SCHEDULES, diffusion.schedule), (TARGETS, diffusion.target))
    )
    # diffusers' PNDM does not support data as target
    sampler = {'_class_name': 'PNDMScheduler', 'skip_prk_steps': True}
    if target == 'sample':
        sampler = {'_class_name': 'DDIMScheduler', 'clip_sample': False}
    return {
        **sampler,
        '_diffusers_version': DIFFUSERS,
        'num_train_timesteps': diffusion.num_train_timesteps,
        'beta_start': diffusion.beta_start,
        'beta_end': diffusion.beta_end,
        'beta_schedule': schedule,
        'prediction_type': target,
        'set_alpha_to_one': False,
        'steps_offset': 1,
        'timestep_spacing': 'leading',
    }


CONFIGS = {'unet': _unet, 'vae': _vae, 'text_encoder': _text_encoder}

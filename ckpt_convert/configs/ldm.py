"""Read the YAML beside a CompVis file (`model.yaml` for `model.ckpt`): settings that the weights do not tell."""

import yaml

from ckpt_convert.configs.keys import check_keys
from ckpt_convert.configs.values import MAX_JSON, one_of
from diffdis_ms.config import ImageDiffusionConfig
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import short
from diffdis_ms.text_files import read_text

TARGETS = {'eps': 'noise', 'x0': 'data', 'v': 'velocity'}
SCHEDULES = {'linear': 'linear', 'sqrt_linear': 'linear_beta', 'cosine': 'cosine'}  # CompVis' own names
# fmt: off
USED = (
    'parameterization', 'beta_schedule', 'linear_start', 'linear_end', 'timesteps', 'scale_factor', 'unet_config',
    'first_stage_config', 'cond_stage_config',
)
# fmt: on
# sizes are taken from the tensors; the others are settings of training, logging and the sampler
# fmt: off
NO_EFFECT = (
    'num_timesteps_cond', 'log_every_t', 'first_stage_key', 'cond_stage_key', 'image_size', 'channels',
    'cond_stage_trainable', 'monitor', 'use_ema', 'scheduler_config', 'v_posterior', 'original_elbo_weight',
    'l_simple_weight', 'loss_type', 'learn_logvar', 'logvar_init', 'ckpt_path', 'ignore_keys', 'load_only_unet',
    'clip_denoised', 'use_positional_encodings', 'base_learning_rate', 'weight_decay',
)
# fmt: on
ONLY = {
    'conditioning_key': ('crossattn',),
    'given_betas': (None,),
    'cosine_s': (0.008,),
    'scale_by_std': (False,),
    'rescale_betas_zero_snr': (False,),
    'zero_terminal_snr': (False,),
    'cond_stage_forward': (None,),
    'concat_mode': (True,),
}
# fmt: off
UNET_NO_EFFECT = (
    'image_size', 'in_channels', 'out_channels', 'model_channels', 'attention_resolutions', 'num_res_blocks',
    'channel_mult', 'context_dim', 'transformer_depth', 'use_checkpoint', 'use_fp16', 'dropout', 'legacy',
)
# fmt: on
UNET_ONLY = {
    'num_head_channels': (-1,),
    'use_spatial_transformer': (True,),
    'use_scale_shift_norm': (False,),
    'resblock_updown': (False,),
    'num_classes': (None,),
    'dims': (2,),
    'conv_resample': (True,),
    'use_linear_in_transformer': (False,),
    'use_new_attention_order': (False,),
}
TEXT_ONLY = {'layer': ('last',), 'layer_idx': (None,)}  # another layer is 'clip skip'
TEXT_NO_EFFECT = ('version', 'device', 'max_length', 'freeze')


def read_ldm_yaml(path):
    """Read a CompVis config.

    Args:
        path: YAML file; no class named in it is built or called.

    Returns:
        {'image_diffusion': ImageDiffusionConfig, 'heads': int, 'scaling_factor': float}; {} if the file describes no
        model.

    Raises:
        CheckpointError: the file is unreadable, or has a setting that cannot be converted (the message names it).
    """
    try:
        text = read_text(path, CheckpointError, MAX_JSON)
        # with references a small file can expand to a huge one
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise CheckpointError(f'{path} has references (*name), which no config of CompVis has')
        content = yaml.safe_load(text)
    except CheckpointError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise CheckpointError(f'{path} cannot be read: {" ".join(str(e).split())[:200]}') from None
    params = _params(content.get('model') if isinstance(content, dict) else None)
    if params is None:
        return {}
    check_keys(params, f'{path}: model.params', USED, NO_EFFECT, ONLY)
    unet, text = (_params(params.get(key)) or {} for key in ('unet_config', 'cond_stage_config'))
    check_keys(unet, f'{path}: unet_config.params', ('num_heads',), UNET_NO_EFFECT, UNET_ONLY)
    check_keys(text, f'{path}: cond_stage_config.params', (), TEXT_NO_EFFECT, TEXT_ONLY)
    target = one_of(params, 'parameterization', TARGETS, 'eps', path)
    schedule = one_of(params, 'beta_schedule', SCHEDULES, 'linear', path)
    start, end = _number(path, params, 'linear_start', 1e-4, 1), _number(path, params, 'linear_end', 2e-2, 1)
    steps, heads = _number(path, params, 'timesteps', 1000, 100_001), _number(path, unet, 'num_heads', 8, 1025)
    scale = _number(path, params, 'scale_factor', 1.0, float('inf'))  # CompVis' default is 1
    if int(steps) != steps or int(heads) != heads:
        raise CheckpointError(f'{path}: timesteps = {steps} or num_heads = {heads} is no whole number')
    diffusion = ImageDiffusionConfig(int(steps), schedule, start, end, target)
    return {'image_diffusion': diffusion, 'heads': int(heads), 'scaling_factor': scale}


def _params(node):
    params = node.get('params') if isinstance(node, dict) else None
    return params if isinstance(params, dict) else None


def _number(path, params, key, default, below):
    value = params.get(key, default)
    try:
        number = float(value) if not isinstance(value, bool) else 0.0  # YAML reads 1e-4 as text
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not 0 < number < below:
        raise CheckpointError(f'{path}: {key} = {short(repr(value))} is no number above 0 and below {below}')
    return number

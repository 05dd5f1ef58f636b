"""Check the JSON files of a diffusers pipeline, key by key."""

from ckpt_convert.configs.keys import check_keys
from ckpt_convert.configs.values import one_of
from diffdis_ms.config import ImageDiffusionConfig
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import short

# of the writer
NOTES = ('_class_name', '_diffusers_version', '_name_or_path', '_commit_hash', '_use_default_values')
# fmt: off
EMA_STATE = (
    'decay', 'inv_gamma', 'min_decay', 'min_value', 'optimization_step', 'power', 'update_after_step', 'use_ema_warmup',
)
# fmt: on

# model_index.json: components -> Stable Diffusion v1's classes. All PIPELINES use the same networks.
PIPELINES = (
    'StableDiffusionPipeline',
    'StableDiffusionImg2ImgPipeline',
    'StableDiffusionInpaintPipeline',
    'StableDiffusionInpaintPipelineLegacy',
)
COMPONENTS = {
    'unet': (['diffusers', 'UNet2DConditionModel'],),
    'vae': (['diffusers', 'AutoencoderKL'],),
    'text_encoder': (['transformers', 'CLIPTextModel'], ['transformers', 'CLIPTextModelWithProjection']),
    'tokenizer': (['transformers', 'CLIPTokenizer'], ['transformers', 'CLIPTokenizerFast']),
}
# the safety checker only sees finished images; an image encoder is for adapters, which are never in the directory
INDEX_NO_EFFECT = ('safety_checker', 'feature_extractor', 'requires_safety_checker', 'image_encoder')

# scheduler_config.json
# fmt: off
SCHEDULERS = (
    'PNDMScheduler', 'DDIMScheduler', 'DDPMScheduler', 'LMSDiscreteScheduler', 'EulerDiscreteScheduler',
    'EulerAncestralDiscreteScheduler', 'HeunDiscreteScheduler', 'KDPM2DiscreteScheduler',
    'KDPM2AncestralDiscreteScheduler', 'DPMSolverMultistepScheduler', 'DPMSolverSinglestepScheduler',
    'DPMSolverSDEScheduler', 'UniPCMultistepScheduler', 'DEISMultistepScheduler',
)
# fmt: on
SD_BETAS = (
    'HeunDiscreteScheduler',
    'KDPM2DiscreteScheduler',
    'KDPM2AncestralDiscreteScheduler',
    'DPMSolverSDEScheduler',
)
SCHEDULES = {'scaled_linear': 'linear', 'linear': 'linear_beta', 'squaredcos_cap_v2': 'cosine'}
TARGETS = {'epsilon': 'noise', 'sample': 'data', 'v_prediction': 'velocity'}
SCHEDULER_ONLY = {
    'trained_betas': (None,),
    'rescale_betas_zero_snr': (False,),
    'thresholding': (False,),
    'timestep_spacing': ('leading', 'linspace'),
    'timestep_type': ('discrete',),
    'interpolation_type': ('linear', 'log_linear'),
    'use_flow_sigmas': (False,),
    'use_dynamic_shifting': (False,),
    'predict_epsilon': (True,),
    'timestep_values': (None,),
}
# Settings of diffusers' samplers. Our samplers (diffusion/samplers.py) do not use them, and no network depends on them.
# diffusers itself sets clip_sample to False and steps_offset to 1 for Stable Diffusion.
# fmt: off
SCHEDULER_NO_EFFECT = (
    *NOTES, 'clip_sample', 'clip_sample_range', 'steps_offset', 'set_alpha_to_one', 'skip_prk_steps',
    'dynamic_thresholding_ratio', 'sample_max_value', 'variance_type', 'solver_order', 'algorithm_type', 'solver_type',
    'lower_order_final', 'euler_at_final', 'use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas',
    'use_lu_lambdas', 'final_sigmas_type', 'lambda_min_clipped', 'sigma_min', 'sigma_max', 'flow_shift',
    'time_shift_type', 'disable_corrector', 'solver_p', 'predict_x0', 'noise_sampler_seed', 'tensor_format',
)
# fmt: on

# fmt: off
UNET_USED = (
    'attention_head_dim', 'num_attention_heads', 'norm_num_groups', 'in_channels', 'out_channels', 'block_out_channels',
    'layers_per_block', 'down_block_types', 'up_block_types', 'cross_attention_dim', 'transformer_layers_per_block',
)
# fmt: on
UNET_ONLY = {
    '_class_name': ('UNet2DConditionModel',),
    'use_linear_projection': (False,),
    'class_embed_type': (None,),
    'addition_embed_type': (None,),
    'addition_time_embed_dim': (None,),
    'only_cross_attention': (False,),
    'mid_block_only_cross_attention': (None, False),
    'dual_cross_attention': (False,),
    'num_class_embeds': (None,),
    'encoder_hid_dim': (None,),
    'encoder_hid_dim_type': (None,),
    'act_fn': ('silu', 'swish'),
    'flip_sin_to_cos': (True,),
    'freq_shift': (0,),
    'center_input_sample': (False,),
    'resnet_time_scale_shift': ('default',),
    'resnet_skip_time_act': (False,),
    'resnet_out_scale_factor': (1.0,),
    'conv_in_kernel': (3,),
    'conv_out_kernel': (3,),
    'time_embedding_type': ('positional',),
    'time_embedding_dim': (None,),
    'time_embedding_act_fn': (None,),
    'timestep_post_act': (None,),
    'time_cond_proj_dim': (None,),
    'projection_class_embeddings_input_dim': (None,),
    'class_embeddings_concat': (False,),
    'attention_type': ('default',),
    'cross_attention_norm': (None,),
    'mid_block_type': ('UNetMidBlock2DCrossAttn',),
    'mid_block_scale_factor': (1,),
    'downsample_padding': (1,),
    'norm_eps': (1e-5,),
    'reverse_transformer_layers_per_block': (None,),
}
# sample_size is diffusers' default image size; ours is image_size, 256 as in the paper. upcast_attention changes the
# precision, not the formula (ours is float32 there). dropout is only for training, and DiffDis has none.
UNET_NO_EFFECT = (*NOTES, *EMA_STATE, 'sample_size', 'upcast_attention', 'dropout', 'addition_embed_type_num_heads')

# fmt: off
VAE_USED = (
    'norm_num_groups', 'scaling_factor', 'in_channels', 'out_channels', 'latent_channels', 'block_out_channels',
    'layers_per_block', 'down_block_types', 'up_block_types',
)
# fmt: on
VAE_ONLY = {
    '_class_name': ('AutoencoderKL',),
    'act_fn': ('silu', 'swish'),
    'shift_factor': (None, 0),
    'latents_mean': (None,),
    'latents_std': (None,),
    'use_quant_conv': (True,),
    'use_post_quant_conv': (True,),
    'mid_block_add_attention': (True,),
}
VAE_NO_EFFECT = (*NOTES, *EMA_STATE, 'sample_size', 'force_upcast')  # force_upcast: precision again


def check_unet(json):
    """Refuse settings in a unet/config.json that no UNet of Stable Diffusion v1 has."""
    check_keys(json, 'unet/config.json', UNET_USED, UNET_NO_EFFECT, UNET_ONLY)


def check_vae(json):
    """Refuse settings in a vae/config.json that no autoencoder of Stable Diffusion v1 has."""
    check_keys(json, 'vae/config.json', VAE_USED, VAE_NO_EFFECT, VAE_ONLY)


def check_sizes(json, where, sizes):
    """Raise CheckpointError if a config.json contradicts its tensors, whose sizes are `sizes` {key: value}."""
    for key, value in sizes.items():
        said = json.get(key, value)
        if same_for_all(said, value) != value:
            raise CheckpointError(
                f'{where}: {key} = {short(repr(said))}, but the tensors are of {value!r}: '
                'config and weights are of two models'
            )


def same_for_all(value, like=0):
    """diffusers writes one value for all levels also as a list of it; that value, where `like` is no list."""
    if not isinstance(value, list) or isinstance(like, list) or not value:
        return value
    return value[0] if all(type(v) is type(value[0]) and v == value[0] for v in value) else value


def image_diffusion(json, class_name=None):
    """ImageDiffusionConfig of a scheduler_config.json.

    Args:
        json: its content. class_name: the class in model_index.json, whose defaults are used for missing keys.

    Raises:
        CheckpointError: our schedules and samplers do not support a setting (the message names it).
    """
    where = 'scheduler/scheduler_config.json'
    for name in (class_name, json.get('_class_name')):
        if name is not None and name not in SCHEDULERS:
            raise CheckpointError(
                f'{where}: a model for {short(str(name))} cannot be sampled by DDIM, PNDM or DPM-Solver++, '
                'the samplers of this package'
            )
    class_name = class_name or json.get('_class_name')
    used = ('prediction_type', 'beta_schedule', 'beta_start', 'beta_end', 'num_train_timesteps')
    check_keys(json, where, used, SCHEDULER_NO_EFFECT, SCHEDULER_ONLY)
    start, end = (0.00085, 0.012) if class_name in SD_BETAS else (0.0001, 0.02)
    values = {
        'beta_schedule': one_of(json, 'beta_schedule', SCHEDULES, 'linear', where),
        'prediction_type': one_of(json, 'prediction_type', TARGETS, 'epsilon', where),
    }
    for key, default in (('beta_start', start), ('beta_end', end)):
        values[key] = json.get(key, default)
        if type(values[key]) not in (int, float) or not 0 < values[key] < 1:
            raise CheckpointError(f'{where}: {key} = {short(repr(values[key]))} is no number between 0 and 1')
    steps = json.get('num_train_timesteps', 1000)
    if type(steps) is not int or not 1 <= steps <= 100_000:
        raise CheckpointError(f'{where}: num_train_timesteps = {short(repr(steps))} is no whole number in 1..100000')
    return ImageDiffusionConfig(
        steps,
        values['beta_schedule'],
        float(values['beta_start']),
        float(values['beta_end']),
        values['prediction_type'],
    )


def check_index(json):
    """Refuse a model_index.json of any model other than Stable Diffusion v1."""
    name = json.get('_class_name', PIPELINES[0])
    if name not in PIPELINES:
        raise CheckpointError(
            f'model_index.json: this is a {short(str(name))}, not Stable Diffusion v1 ({PIPELINES[0]}): '
            'it cannot be converted'
        )
    check_keys(json, 'model_index.json', ('scheduler',), (*NOTES, *INDEX_NO_EFFECT), COMPONENTS)


def scheduler_class(index):
    """Name of the scheduler class in a model_index.json, or None."""
    value = index.get('scheduler')
    return value[1] if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) else None

"""The typed config tree: every field of every experiment, its default (the paper's) and its validation.

`load(path, overrides)` reads a YAML file, applies `key.sub=value` overrides and returns a `Config`. A key that
does not exist, or a value of the wrong type, raises `ConfigError`, which names the key and the nearest valid one.
"""

import difflib
import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import read_text

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, of each colour in 0..1
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class UNetConfig:
    """Stable Diffusion's UNet (defaults: v1)."""

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])
    attention_levels: list[bool] = field(default_factory=lambda: [True, True, True, False])
    layers_per_block: int = 2
    transformer_layers_per_block: int = 1  # K in the paper
    num_attention_heads: int = 8
    norm_num_groups: int = 32


@dataclass
class DualStreamConfig:
    """Dual-stream deep fusion block (Fig. 3) and its ablations (App. Tables 4, 5, 7)."""

    fusion: bool = True  # off: plain blocks, the query joins only the alignment transformer
    share_attention: bool = True  # "Share Attn": one set of projections for both streams
    modality_ffn: bool = True  # "MS-FFN": a feed-forward of its own for the query
    image_condition_timestep: int = 1000  # t_z that marks "the image is a condition"


@dataclass
class AlignmentConfig:
    """Alignment transformer after the middle block."""

    num_layers: int = 6  # M in the paper
    width: int = 768
    head_dim: int = 64


@dataclass
class AutoencoderConfig:
    """KL autoencoder V, D (defaults: Stable Diffusion's, f = 8)."""

    in_channels: int = 3
    latent_channels: int = 4
    block_out_channels: list[int] = field(default_factory=lambda: [128, 256, 512, 512])
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215


@dataclass
class TextEncoderConfig:
    """CLIP text tower T (defaults: ViT-L/14's). `hidden_size` is the width of c, `projection_dim` that of e."""

    vocab_size: int = 49408
    max_position_embeddings: int = 77
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    projection_dim: int = 768
    hidden_act: Literal['quick_gelu', 'gelu', 'gelu_pytorch_tanh'] = 'quick_gelu'
    layer_norm_eps: float = 1e-5


@dataclass
class ImageEncoderConfig:
    """CLIP's image encoder (defaults: ViT-L/14). DiffDis does not need it; the CLIP baseline does.

    resnet is CLIP's ModifiedResNet: `hidden_size` is the width of its last feature map, 32 times the stem's (2048 for
    RN50); it has no use for patch_size, intermediate_size, num_hidden_layers, hidden_act and layer_norm_eps.
    """

    architecture: Literal['vit', 'resnet'] = 'vit'
    resnet_layers: list[int] = field(default_factory=lambda: [3, 4, 6, 3])  # bottlenecks a stage; resnet only
    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    projection_dim: int = 768
    hidden_act: Literal['quick_gelu', 'gelu', 'gelu_pytorch_tanh'] = 'quick_gelu'
    layer_norm_eps: float = 1e-5
    image_mean: list[float] = field(
        default_factory=lambda: list(CLIP_MEAN)
    )  # what is taken out of a picture's colours in 0..1
    image_std: list[float] = field(default_factory=lambda: list(CLIP_STD))
    resize_mode: Literal['shortest', 'squash'] = (
        'shortest'  # shorter side to image_size and the centre cut out, or both sides to it
    )
    interpolation: Literal['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos'] = 'bicubic'


@dataclass
class ImageDiffusionConfig:
    """Diffusion of z: Stable Diffusion's schedule (diffusion/schedule.py says what each is), noise target (Eq. 4)."""

    num_train_timesteps: int = 1000
    schedule: Literal['linear', 'linear_beta', 'cosine'] = 'linear'
    beta_start: float = 0.00085
    beta_end: float = 0.0120
    target: Literal['noise', 'data', 'velocity'] = 'noise'  # diffusers' epsilon, sample, v_prediction


@dataclass
class TextDiffusionConfig:
    """Diffusion of e (Eq. 5): gamma scales the clean query (Table 6), target data or noise (App. Table 2)."""

    num_train_timesteps: int = 1000
    schedule: Literal['linear', 'cosine'] = 'cosine'
    beta_start: float = 0.00085
    beta_end: float = 0.0120
    target: Literal['noise', 'data'] = 'data'
    gamma: float = 0.01


@dataclass
class ModelConfig:
    """Everything that decides the shapes and the arithmetic of a model directory."""

    image_size: int = 256  # pixels, before the autoencoder
    unet: UNetConfig = field(default_factory=UNetConfig)
    dual_stream: DualStreamConfig = field(default_factory=DualStreamConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    image_diffusion: ImageDiffusionConfig = field(default_factory=ImageDiffusionConfig)
    text_diffusion: TextDiffusionConfig = field(default_factory=TextDiffusionConfig)
    logit_scale: float = 1 / 0.07  # of Eq. 8; 1.0 with learnable_logit_scale=false is the paper to the letter
    learnable_logit_scale: bool = True
    max_logit_scale: float = 100.0

    @property
    def latent_shape(self):
        """Of the z of one image: (4, H/8, W/8)."""
        side = self.image_size // 2 ** (len(self.vae.block_out_channels) - 1)
        return self.vae.latent_channels, side, side


@dataclass
class InitConfig:
    """Model directories to start from, whose configs hold for their parts (see `load`); each may be absent (fresh
    weights)."""

    vae: str | None = None
    text_encoder: str | None = None  # its tokenizer comes along
    unet: str | None = None  # missing new parts are initialised, anything else missing is an error
    tokenizer: str | None = None  # Hugging Face tokenizer directory, where no text encoder is given


@dataclass
class DataConfig:
    """Training pairs: a directory written by tools/prepare_data.py, or anything else, which is checked once before the
    first step."""

    path: str | None = None  # what open_captions reads: tars, MindRecord, csv, tsv, class folders
    num_workers: int = 2  # threads or processes that read, decode and tokenise
    workers: Literal['threads', 'processes'] = (
        'threads'  # processes (MindSpore's dataset pipeline) from some 8 workers on
    )
    cache_in_memory: bool = False  # decode once; latents and text features are computed once, too
    cache: str | None = None  # directory of tools/cache_latents.py: V and T are not run, pictures are not read
    min_side: int = 16  # pictures with a shorter side are skipped; at least 8
    random_flip: bool = False  # mirrored images: wrong where the caption says left or right
    random_shift: int = 0  # training images moved by up to this many pixels, padded white


@dataclass
class OptimizerConfig:
    """MindFormers' AdamW and learning-rate schedules; the new parameters have a rate of their own (Table 5)."""

    learning_rate: float = 1e-5  # of pre-trained weights; of everything where the objective is clip or autoencoder
    new_learning_rate: float = (
        1e-4  # of the new parts; of all networks of DiffDis that start from fresh weights (Table 4)
    )
    schedule: Literal['constant', 'cosine'] = 'constant'
    warmup_steps: int = 1000
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 0.0  # gradients are clipped to this global norm; 0: no clipping, as in the paper


@dataclass
class TrainConfig:
    """The joint objective (Eq. 9) and the run around it."""

    task: Literal['hybrid', 'gen', 'dis'] = 'hybrid'  # Table 4
    batch_size: int = 256  # pairs a device takes at once; the global batch is batch_size * accumulation_steps * devices
    accumulation_steps: int = (
        1  # the contrastive batch stays whole: only memory changes (and the time of one more forward)
    )
    precision: Literal['fp32', 'fp16', 'bf16'] = (
        'fp32'  # of matmuls and convolutions; norms, softmax, losses, weights and EMA stay fp32
    )
    max_steps: int = 77760  # 6 epochs of CC3M's 3.318 M pairs in batches of 256
    max_minutes: float | None = None  # stop (and save) after this long, counted over resumes
    generation_batch_size: int | None = None  # L_IG on the first so many pairs of a batch only (None: on all)
    lambda_ita: float = 1.0  # lambda in Eq. 9
    caption_dropout: float = 0.1  # share of empty captions in L_IG
    image_dropout: float = 0.1  # share of zero images in L_ITA
    freeze_text_encoder: bool = True  # Table 5
    kl_weight: float = 1e-6  # autoencoder only
    chroma_weight: float = 1.0  # autoencoder only: extra weight of colour errors
    ema_decay: float = 0.9999
    ema_ramp: bool = False  # decay min(ema_decay, (1 + n) / (10 + n)) at step n: for short runs; not in the paper
    loss_scale: float = 65536.0  # fp16 only: where the dynamic loss scale starts
    loss_scale_window: int = 1000  # fp16 only: it doubles after so many steps without an overflow, and halves at one
    log_every: int = 10
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    tensorboard: bool = True  # output_dir/tensorboard: scalars, the config, sample images
    sample_every: int = 0  # draw the first captions' pictures into TensorBoard every so many steps (0: never)
    shard_optimizer: bool = (
        False  # each device keeps its part of AdamW's moments and the EMA only; the weights do not change
    )
    recompute: bool = False  # blocks are computed again in the backward pass: less memory, more time


@dataclass
class RuntimeConfig:
    """MindSpore's context (runtime.py, which says what each chip can do). The CPU does not read what is marked Ascend,
    so that a config for Ascend runs with device=CPU as well; None leaves MindSpore's or CANN's own setting."""

    jit_level: Literal['O0', 'O1', 'O2'] | None = None  # Ascend; MindSpore's: O2 on 910, O0 on 910B
    overflow_mode: Literal['infnan', 'saturation'] | None = (
        None  # Ascend, float16; MindSpore's: infnan on 910B; a 910 can but saturate
    )
    flash_attention: bool = True  # Ascend 910B and later, 16 bit; false: the plain formula
    memory_limit_gb: float | None = None  # Ascend
    hccl_connect_timeout: int | None = None  # Ascend, seconds; None: HCCL_CONNECT_TIMEOUT of the environment, or 600
    hccl_exec_timeout: int | None = None  # Ascend, seconds
    deterministic: bool = False  # kernels that add in a fixed order; slower on Ascend
    compile_cache: bool = False  # keep the compiled training step on the disk (compile_cache.py)
    compile_cache_dir: str | None = None  # None: ~/.cache/diffdis_ms/graphs


@dataclass
class Config:
    """One experiment."""

    objective: Literal['diffdis', 'clip', 'autoencoder'] = 'diffdis'
    device: Literal['CPU', 'Ascend'] = 'CPU'
    seed: int = 0
    output_dir: str = 'outputs/run'
    resume: str = 'auto'  # auto: newest complete checkpoint of output_dir; none; or a path
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def load(path=None, overrides=(), schema=Config, objective='diffdis'):
    """Read a config.

    Of two values the later one holds: the dataclasses' defaults < files named by `base:` < the file < overrides
    (`--set`, `key=value`), in their order. The parts of a model that come with weights (`init.*`) are described by the
    model directory they come from; a file or an override that says something else of them is an error
    (`train.build.resolve_model`).

    Args:
        path: YAML file, or None for the defaults. A top-level `base: other.yaml` (relative to the file), or a list of
            files, is read first.
        overrides: strings `key.sub=value`. A bare key that exists once below `train` needs no prefix (`max_steps=10`).
        schema: the dataclass to fill (`Config`, or `ModelConfig` for the config.yaml of a model directory).
        objective: of a ModelConfig: what its networks are for (see `validate`).

    Returns:
        An instance of `schema`; its attribute `stated` is the set of dotted keys that the files and overrides give a
        value.

    Raises:
        ConfigError: file missing or not YAML; unknown key (the nearest valid one is named); wrong type; bad value.
    """
    tree, stated = OmegaConf.structured(schema), set()
    for layer in _layers(path):
        stated |= _leaves(layer)
        tree = _merge(tree, layer, schema, str(path))
    for item in overrides:
        key, eq, _ = item.partition('=')
        if not eq:
            raise ConfigError(f'override {item!r} is not of the form key=value')
        if schema is Config and key not in _keys(schema) and f'train.{key}' in _keys(schema):
            item = f'train.{item}'
        try:
            layer = OmegaConf.from_dotlist([item])
        except (OmegaConfBaseException, yaml.YAMLError) as e:
            raise ConfigError(f'override {item!r} cannot be read: {_first_line(e)}') from None
        stated |= _leaves(OmegaConf.to_container(layer))
        tree = _merge(tree, layer, schema, 'command line')
    try:
        config = OmegaConf.to_object(tree)
    except OmegaConfBaseException as e:  # an interpolation that leads nowhere
        raise ConfigError(_first_line(e)) from None
    config.stated = stated
    if schema is Config:
        if not (
            config.init.unet or config.init.vae or config.init.text_encoder
        ):  # else `resolve_model` completes and checks it
            validate(config.model, config.objective)
        _validate_run(config)
    else:
        validate(config, objective)
    return config


def to_yaml(config):
    """The resolved config as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def validate(model, objective='diffdis'):
    """Check a `ModelConfig`; raises `ConfigError` with the offending key and the reason.

    Args:
        model: ModelConfig. objective: what its networks are for; `image_size` must suit these alone.
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
        raise ConfigError(f'logit_scale: {model.logit_scale} is not above 0 (its logarithm is what is learned)')
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
    if objective == 'clip':  # a CLIP resizes to image_encoder.image_size; training asks for both to be the same
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


def _validate_run(config):
    train, optimizer = config.train, config.optimizer
    for key, value, low in (
        ('train.batch_size', train.batch_size, 1),
        ('train.max_steps', train.max_steps, 1),
        ('train.accumulation_steps', train.accumulation_steps, 1),
        ('train.loss_scale', train.loss_scale, 1),
        ('train.loss_scale_window', train.loss_scale_window, 1),
        ('train.sample_every', train.sample_every, 0),
        ('train.log_every', train.log_every, 1),
        ('train.checkpoint_every', train.checkpoint_every, 1),
        ('train.keep_checkpoints', train.keep_checkpoints, 1),
        ('data.num_workers', config.data.num_workers, 1),
        ('data.min_side', config.data.min_side, 8),
        ('optimizer.warmup_steps', optimizer.warmup_steps, 0),
        ('optimizer.learning_rate', optimizer.learning_rate, 0),
        ('optimizer.new_learning_rate', optimizer.new_learning_rate, 0),
        ('optimizer.max_grad_norm', optimizer.max_grad_norm, 0),
    ):
        if value < low:
            raise ConfigError(f'{key}: {value} is below {low}')
    runtime = config.runtime
    for key in ('memory_limit_gb', 'hccl_connect_timeout', 'hccl_exec_timeout'):
        value = getattr(runtime, key)
        if value is not None and not value > 0:
            raise ConfigError(f'runtime.{key}: {value} is not above 0')
    for key, value in (
        ('train.caption_dropout', train.caption_dropout),
        ('train.image_dropout', train.image_dropout),
        ('train.ema_decay', train.ema_decay),
    ):
        if not 0 <= value < 1:
            raise ConfigError(f'{key}: {value} is not in [0, 1)')
    used = {'diffdis': ('unet', 'vae', 'text_encoder'), 'clip': ('text_encoder',), 'autoencoder': ('vae',)}[
        config.objective
    ]
    for part in ('unet', 'vae', 'text_encoder'):
        if getattr(config.init, part) is not None and part not in used:
            raise ConfigError(
                f'init.{part} = {getattr(config.init, part)} has no effect on objective={config.objective}; set'
                f' init.{part}=null'
            )
    size, encoder = config.model.image_size, config.model.image_encoder.image_size
    if config.objective == 'clip' and size != encoder:
        raise ConfigError(
            f'model.image_size: pictures are resized to {size} pixels, but model.image_encoder.image_size is {encoder};'
            ' set both to the same number'
        )
    if train.generation_batch_size is not None and not 1 <= train.generation_batch_size <= train.batch_size:
        raise ConfigError(
            f'train.generation_batch_size: {train.generation_batch_size} is not in 1..train.batch_size ='
            f' {train.batch_size}'
        )
    if train.precision == 'bf16' and config.device == 'CPU':
        raise ConfigError('train.precision: MindSpore has no bf16 kernels for the CPU; use fp32 or fp16 there')
    image = config.model.image_encoder
    if config.objective == 'clip' and (image.resize_mode, image.interpolation) != ('shortest', 'bicubic'):
        raise ConfigError(
            f'model.image_encoder: resize_mode = {image.resize_mode} and interpolation = {image.interpolation}:'
            ' training resizes the shorter side, bicubic, and cuts out the centre'
        )
    if config.data.cache is not None:
        _validate_cache(config)
    if config.data.cache_in_memory and config.data.workers == 'processes':
        raise ConfigError('data.cache_in_memory needs data.workers=threads: processes share no memory')
    if not train.freeze_text_encoder and config.data.cache_in_memory:
        raise ConfigError(
            'data.cache_in_memory needs train.freeze_text_encoder: cached text features do not follow a text encoder'
            ' that trains'
        )
    for key in ('random_flip', 'random_shift'):
        if config.objective == 'diffdis' and config.data.cache_in_memory and getattr(config.data, key):
            raise ConfigError(
                f'data.cache_in_memory does not go with data.{key} = {getattr(config.data, key)}: the latents are '
                'computed once, of the pictures as they are'
            )


def _validate_cache(config):
    """What cannot be had from latents and text features that were computed once."""
    data, init = config.data, config.init
    for wrong, key, why in (
        (
            config.objective != 'diffdis',
            'objective',
            f'{config.objective} trains on pictures; only diffdis trains on latents',
        ),
        (
            not config.train.freeze_text_encoder,
            'train.freeze_text_encoder',
            'cached text features do not follow one that trains',
        ),
        (data.random_flip, 'data.random_flip', 'the cached latents are of the pictures as they are'),
        (data.random_shift > 0, 'data.random_shift', 'the cached latents are of the pictures as they are'),
        (data.cache_in_memory, 'data.cache_in_memory', 'the cache on the disk replaces it'),
        (init.vae is None, 'init.vae', 'the model directory that the cache was made with is needed'),
        (init.text_encoder is None, 'init.text_encoder', 'the model directory that the cache was made with is needed'),
    ):
        if wrong:
            raise ConfigError(
                f'data.cache does not go with {key} = {OmegaConf.select(OmegaConf.structured(config), key)}: {why}'
            )


def _positive(node, prefix=''):
    """Every whole number of a model is a size or a count; only the condition timestep may be zero."""
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


def _layers(path, above=()):
    """The file and, before it, the file or files its `base:` names, in their order; `above` are the files that led
    here."""
    if path is None:
        return []
    path = Path(path)
    if path.resolve() in above:
        raise ConfigError(f'config file {path} is its own base')
    try:
        content = yaml.safe_load(read_text(path))
    except ConfigError as e:
        raise ConfigError(f'config file {e}') from None
    except (yaml.YAMLError, RecursionError) as e:
        raise ConfigError(f'config file {path} cannot be read: {_first_line(e)}') from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f'config file {path} is not a mapping of keys to values')
    bases = content.pop('base', None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f'config file {path}: base: {bases!r} is not a file name or a list of them')
    return [layer for base in bases for layer in _layers(path.parent / base, (*above, path.resolve()))] + [content]


def _leaves(layer, prefix=''):
    """Dotted keys of all values in a nested mapping."""
    found = set()
    for key, value in layer.items():
        found |= _leaves(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}'}
    return found


def _merge(tree, layer, schema, source):
    try:
        return OmegaConf.merge(tree, layer)
    except OmegaConfBaseException as e:
        key = (getattr(e, 'full_key', None) or '').partition('[')[0]  # of a list, not of its element
        if key and key not in _keys(schema):
            raise ConfigError(f'{source}: unknown key {key!r}{_nearest(key, _keys(schema))}') from None
        raise ConfigError(f'{source}: {key + ": " if key else ""}{_first_line(e)}') from None


def _keys(schema, prefix=''):
    """All dotted keys of a dataclass, inner nodes included."""
    found = []
    for f in fields(schema):
        found.append(prefix + f.name)
        if is_dataclass(f.type):
            found += _keys(f.type, prefix + f.name + '.')
    return found


def _nearest(key, keys):
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not close:  # the right name under a wrong parent
        last = {k.rsplit('.', 1)[-1]: k for k in keys}
        close = [last[m] for m in difflib.get_close_matches(key.rsplit('.', 1)[-1], last, n=1, cutoff=0.6)]
    return f'; did you mean {close[0]!r}?' if close else ''


def _first_line(error: Any):
    return str(error).strip().split('\n')[0]

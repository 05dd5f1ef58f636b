"""The dataclasses of the config tree: every field, its default (the paper's value) and its meaning."""

from dataclasses import dataclass, field
from typing import Literal

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's values for red, green and blue in 0..1
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

    fusion: bool = True  # off: plain blocks, and the query enters only the alignment transformer
    share_attention: bool = True  # "Share Attn": one set of projections for both streams
    modality_ffn: bool = True  # "MS-FFN": a separate feed-forward for the query
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

    resnet is CLIP's ModifiedResNet. Its `hidden_size` is the width of the last feature map, 32 times the stem's width
    (2048 for RN50). It does not use patch_size, intermediate_size, num_hidden_layers, hidden_act and layer_norm_eps.
    """

    architecture: Literal['vit', 'resnet'] = 'vit'
    resnet_layers: list[int] = field(default_factory=lambda: [3, 4, 6, 3])  # bottlenecks per stage; resnet only
    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    projection_dim: int = 768
    hidden_act: Literal['quick_gelu', 'gelu', 'gelu_pytorch_tanh'] = 'quick_gelu'
    layer_norm_eps: float = 1e-5
    # colours in 0..1 are normalised to (colour - image_mean) / image_std
    image_mean: list[float] = field(default_factory=lambda: list(CLIP_MEAN))
    image_std: list[float] = field(default_factory=lambda: list(CLIP_STD))
    # shortest: resize the shorter side to image_size and crop the centre; squash: resize both sides to image_size
    resize_mode: Literal['shortest', 'squash'] = 'shortest'
    interpolation: Literal['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos'] = 'bicubic'


@dataclass
class ImageDiffusionConfig:
    """Diffusion of z. Defaults: Stable Diffusion's schedule (see diffusion/schedule.py), noise target (Eq. 4)."""

    num_train_timesteps: int = 1000
    schedule: Literal['linear', 'linear_beta', 'cosine'] = 'linear'
    beta_start: float = 0.00085
    beta_end: float = 0.0120
    target: Literal['noise', 'data', 'velocity'] = 'noise'  # diffusers' epsilon, sample, v_prediction


@dataclass
class TextDiffusionConfig:
    """Diffusion of e (Eq. 5). gamma scales the clean query (Table 6); the target is data or noise (App. Table 2)."""

    num_train_timesteps: int = 1000
    schedule: Literal['linear', 'cosine'] = 'cosine'
    beta_start: float = 0.00085
    beta_end: float = 0.0120
    target: Literal['noise', 'data'] = 'data'
    gamma: float = 0.01


@dataclass
class ModelConfig:
    """Everything that determines a model's shapes and computations; config.yaml of a model directory."""

    image_size: int = 256  # pixels, before the autoencoder
    unet: UNetConfig = field(default_factory=UNetConfig)
    dual_stream: DualStreamConfig = field(default_factory=DualStreamConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    image_diffusion: ImageDiffusionConfig = field(default_factory=ImageDiffusionConfig)
    text_diffusion: TextDiffusionConfig = field(default_factory=TextDiffusionConfig)
    logit_scale: float = 1 / 0.07  # for Eq. 8; the paper has none: 1.0 with learnable_logit_scale=false
    learnable_logit_scale: bool = True
    max_logit_scale: float = 100.0

    @property
    def latent_shape(self):
        """Shape of one image's z: (4, H/8, W/8)."""
        side = self.image_size // 2 ** (len(self.vae.block_out_channels) - 1)
        return self.vae.latent_channels, side, side


@dataclass
class InitConfig:
    """Model directories to start from; without one, the weights are random.

    The config of such a directory describes the networks that come from it (see `load`).
    """

    vae: str | None = None
    text_encoder: str | None = None  # also gives the tokenizer
    unet: str | None = None  # DiffDis' additions may be missing and are initialised; anything else missing is an error
    tokenizer: str | None = None  # Hugging Face tokenizer directory, if no text encoder is given


@dataclass
class DataConfig:
    """Training pairs. Data that tools/prepare_data.py did not write is checked once before the first step."""

    path: str | None = None  # tars, MindRecord, csv, tsv or class folders (see open_captions)
    num_workers: int = 2  # threads or processes that read, decode and tokenise
    workers: Literal['threads', 'processes'] = 'threads'  # processes: MindSpore's pipeline, faster from about 8 workers
    cache_in_memory: bool = False  # decode once; also compute latents and text features once
    cache: str | None = None  # directory of tools/cache_latents.py: V and T do not run, images are not read
    min_side: int = 16  # pictures with a shorter side are skipped; at least 8
    random_flip: bool = False  # mirror images at random: wrong for captions that say left or right
    random_shift: int = 0  # shift training images by up to this many pixels, padded with white


@dataclass
class OptimizerConfig:
    """MindFormers' AdamW and learning-rate schedules; new parameters have a separate learning rate (Table 5)."""

    learning_rate: float = 1e-5  # of pre-trained weights; of all weights if the objective is clip or autoencoder
    # of DiffDis' additions, and of all its networks that start from random weights (Table 4)
    new_learning_rate: float = 1e-4
    schedule: Literal['constant', 'cosine'] = 'constant'
    warmup_steps: int = 1000
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 0.0  # clip gradients to this global norm; 0: no clipping, as in the paper


@dataclass
class TrainConfig:
    """The joint objective (Eq. 9) and the settings of the run."""

    task: Literal['hybrid', 'gen', 'dis'] = 'hybrid'  # Table 4
    batch_size: int = 256  # pairs per device; the global batch is batch_size * accumulation_steps * devices
    # the contrastive loss still sees the whole batch; this saves memory and costs one more forward pass
    accumulation_steps: int = 1
    # of matrix products and convolutions; norms, softmax, losses, weights and EMA stay fp32
    precision: Literal['fp32', 'fp16', 'bf16'] = 'fp32'
    max_steps: int = 77760  # 6 epochs of CC3M's 3.318 M pairs in batches of 256
    max_minutes: float | None = None  # stop (and save) after this long, counted over resumes
    generation_batch_size: int | None = None  # compute L_IG on only the first N pairs of a batch (None: all)
    lambda_ita: float = 1.0  # lambda in Eq. 9
    caption_dropout: float = 0.1  # share of empty captions in L_IG
    image_dropout: float = 0.1  # share of zero images in L_ITA
    freeze_text_encoder: bool = True  # Table 5
    kl_weight: float = 1e-6  # autoencoder only
    chroma_weight: float = 1.0  # autoencoder only: extra weight of colour errors
    ema_decay: float = 0.9999
    ema_ramp: bool = False  # decay min(ema_decay, (1 + n) / (10 + n)) at step n: for short runs; not in the paper
    loss_scale: float = 65536.0  # fp16 only: first value of the dynamic loss scale
    # fp16 only: the scale doubles after this many steps without overflow; an overflow halves it
    loss_scale_window: int = 1000
    log_every: int = 10
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    tensorboard: bool = True  # output_dir/tensorboard: scalars, the config, sample images
    sample_every: int = 0  # generate images of the first captions for TensorBoard every N steps (0: never)
    # each device keeps only its shard of AdamW's moments and of the EMA; the trained weights stay the same
    shard_optimizer: bool = False
    recompute: bool = False  # compute blocks again in the backward pass: less memory, more time


@dataclass
class RuntimeConfig:
    """MindSpore's context. runtime/context.py lists what each chip supports.

    Fields marked Ascend have no effect on a CPU, so that a config for Ascend also runs with device=CPU. None keeps the
    default of MindSpore or CANN.
    """

    jit_level: Literal['O0', 'O1', 'O2'] | None = None  # Ascend; MindSpore's default: O2 on 910, O0 on 910B
    # Ascend, float16; MindSpore's default: infnan on 910B; a 910 can only saturate
    overflow_mode: Literal['infnan', 'saturation'] | None = None
    flash_attention: bool = True  # Ascend 910B and later, 16-bit types; false: plain attention formula
    memory_limit_gb: float | None = None  # Ascend
    hccl_connect_timeout: int | None = None  # Ascend, seconds; None: $HCCL_CONNECT_TIMEOUT, or 600
    hccl_exec_timeout: int | None = None  # Ascend, seconds
    deterministic: bool = False  # use kernels that add in a fixed order; slower on Ascend
    compile_cache: bool = False  # store the compiled training step on disk (runtime/compile_cache.py)
    compile_cache_dir: str | None = None  # None: ~/.cache/diffdis_ms/graphs


@dataclass
class Config:
    """One experiment."""

    objective: Literal['diffdis', 'clip', 'autoencoder'] = 'diffdis'
    device: Literal['CPU', 'Ascend'] = 'CPU'
    seed: int = 0
    output_dir: str = 'outputs/run'
    resume: str = 'auto'  # auto: newest complete checkpoint in output_dir; none: start from scratch; or a path
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

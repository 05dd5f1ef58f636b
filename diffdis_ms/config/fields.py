"""The dataclasses of the config tree: every field, its default (the paper's) and what it means."""

from dataclasses import dataclass, field
from typing import Literal

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
    # a picture's colours, which lie in 0..1, become (colour - image_mean) / image_std
    image_mean: list[float] = field(default_factory=lambda: list(CLIP_MEAN))
    image_std: list[float] = field(default_factory=lambda: list(CLIP_STD))
    # shortest: the shorter side becomes image_size and the centre is cut out; squash: both sides become image_size
    resize_mode: Literal['shortest', 'squash'] = 'shortest'
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
    """Model directories to start from; each may be absent (fresh weights). Their configs hold for their parts: see
    `load`."""

    vae: str | None = None
    text_encoder: str | None = None  # its tokenizer comes along
    unet: str | None = None  # missing new parts are initialised, anything else missing is an error
    tokenizer: str | None = None  # Hugging Face tokenizer directory, where no text encoder is given


@dataclass
class DataConfig:
    """Training pairs, from what tools/prepare_data.py wrote or from anything else, which is checked once before the
    first step."""

    path: str | None = None  # what open_captions reads: tars, MindRecord, csv, tsv, class folders
    num_workers: int = 2  # threads or processes that read, decode and tokenise
    workers: Literal['threads', 'processes'] = 'threads'  # processes (MindSpore's pipeline) pay from some 8 workers on
    cache_in_memory: bool = False  # decode once; latents and text features are computed once, too
    cache: str | None = None  # directory of tools/cache_latents.py: V and T are not run, pictures are not read
    min_side: int = 16  # pictures with a shorter side are skipped; at least 8
    random_flip: bool = False  # mirrored images: wrong where the caption says left or right
    random_shift: int = 0  # training images moved by up to this many pixels, padded white


@dataclass
class OptimizerConfig:
    """MindFormers' AdamW and learning-rate schedules; the new parameters have a rate of their own (Table 5)."""

    learning_rate: float = 1e-5  # of pre-trained weights; of everything where the objective is clip or autoencoder
    # of the new parts; of all networks of DiffDis that start from fresh weights (Table 4)
    new_learning_rate: float = 1e-4
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
    # the contrastive loss still sees the whole batch: only memory changes (and the time of one more forward pass)
    accumulation_steps: int = 1
    # of matmuls and convolutions; norms, softmax, losses, weights and EMA stay fp32
    precision: Literal['fp32', 'fp16', 'bf16'] = 'fp32'
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
    # each device keeps only its shard of AdamW's moments and of the EMA; the trained weights stay the same
    shard_optimizer: bool = False
    recompute: bool = False  # blocks are computed again in the backward pass: less memory, more time


@dataclass
class RuntimeConfig:
    """MindSpore's context (runtime/context.py, which says what each chip can do).

    The CPU does not read what is marked Ascend, so that a config for Ascend runs with device=CPU as well; None leaves
    MindSpore's or CANN's own setting.
    """

    jit_level: Literal['O0', 'O1', 'O2'] | None = None  # Ascend; MindSpore's: O2 on 910, O0 on 910B
    # Ascend, float16; MindSpore's: infnan on 910B; a 910 can only saturate
    overflow_mode: Literal['infnan', 'saturation'] | None = None
    flash_attention: bool = True  # Ascend 910B and later, 16 bit; false: the plain formula
    memory_limit_gb: float | None = None  # Ascend
    hccl_connect_timeout: int | None = None  # Ascend, seconds; None: HCCL_CONNECT_TIMEOUT of the environment, or 600
    hccl_exec_timeout: int | None = None  # Ascend, seconds
    deterministic: bool = False  # kernels that add in a fixed order; slower on Ascend
    compile_cache: bool = False  # keep the compiled training step on the disk (runtime/compile_cache.py)
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

"""Graphs for the operator check: each function yields (title, cell, example inputs). None of them is executed."""

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from diffdis_ms.ascend.tiny import make_smaller, make_tiny_config, make_tiny_resnet, tiny_run
from diffdis_ms.models.attention import use_flash
from diffdis_ms.models.autoencoder import AutoencoderKL, LatentDecoder, LatentEncoder
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.inception import InceptionV3
from diffdis_ms.models.precision import apply_precision
from diffdis_ms.train.accumulation import AccumulatedStep
from diffdis_ms.train.objective import AutoencoderObjective, CLIPObjective, DiffDisObjective, draw_diffdis
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep, Update
from diffdis_ms.world import World


def zeros(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


def query_inputs():
    """The UNet's arguments to predict the query: z, t_e, no context, e_t."""
    return zeros(2, 4, 8, 8), zeros(2, dtype=np.int32), None, zeros(2, 1, 48)


def loss_cell(config, world=World()):
    """The loss cell of a config's objective, T frozen; the context of the empty caption and V(0) are zeros."""
    model = config.model
    if config.objective == 'autoencoder':
        return AutoencoderObjective(AutoencoderKL(model.vae), config, world)
    text = model.text_encoder
    if config.objective == 'clip':
        return CLIPObjective(CLIPImageEncoder(model.image_encoder), CLIPTextEncoder(text), config, world)
    empty_context = zeros(1, text.max_position_embeddings, text.hidden_size)
    return DiffDisObjective(DiffDisUNet(model), config, empty_context, zeros(1, 4, 8, 8), world=world)


def loss_inputs(config):
    """Inputs of the loss cell of this config."""
    b, text = config.train.batch_size, config.model.text_encoder
    if config.objective == 'autoencoder':
        return zeros(b, 3, 32, 32), zeros(b, 4, 8, 8)
    if config.objective == 'clip':
        return zeros(b, 3, 32, 32), zeros(b, text.max_position_embeddings, dtype=np.int32)
    draws = (Tensor(x) for x in draw_diffdis(0, 0, config, (4, 8, 8)))
    c = zeros(b, text.max_position_embeddings, text.hidden_size)
    return zeros(b, 4, 8, 8), c, zeros(b, 1, text.projection_dim), None, *draws


def generation():
    """Phi_u."""
    inputs = zeros(2, 4, 8, 8), zeros(2, dtype=np.int32), zeros(2, 16, 32)
    yield 'predict_noise', DiffDisUNet(make_tiny_config()), inputs


def alignment():
    """Phi_theta, in every variant of the dual-stream block."""
    variants = [(True, True, True), (True, False, True), (True, True, False), (True, False, False), (False, True, True)]
    for fusion, share_attention, modality_ffn in variants:
        config = make_tiny_config()
        switches = config.dual_stream
        switches.fusion, switches.share_attention, switches.modality_ffn = fusion, share_attention, modality_ffn
        title = f'predict_query, fusion {fusion}, share_attention {share_attention}, modality_ffn {modality_ffn}'
        yield title, DiffDisUNet(config), query_inputs()


def autoencoder():
    """V and D."""
    vae = AutoencoderKL(make_tiny_config().vae)
    yield 'encode', LatentEncoder(vae), (zeros(2, 3, 32, 32),)
    yield 'decode', LatentDecoder(vae), (zeros(2, 4, 8, 8),)


def clip():
    """T and CLIP's vision transformer, with each activation."""
    for hidden_act in ('quick_gelu', 'gelu', 'gelu_pytorch_tanh'):
        config = make_tiny_config()
        config.text_encoder.hidden_act = config.image_encoder.hidden_act = hidden_act
        yield f'text encoder, {hidden_act}', CLIPTextEncoder(config.text_encoder), (zeros(2, 16, dtype=np.int32),)
        yield f'image encoder, {hidden_act}', CLIPImageEncoder(config.image_encoder), (zeros(2, 3, 32, 32),)


def convolutional():
    """CLIP's ModifiedResNet and FID's Inception."""
    yield 'image encoder, resnet', CLIPImageEncoder(make_tiny_resnet()), (zeros(2, 3, 64, 64),)
    yield 'inception', InceptionV3(), (zeros(2, 3, 299, 299),)


def training():
    """The joint training step of Eq. 9 (both losses, gradients, clipping, AdamW, EMA), and those of the other
    objectives."""
    for objective in ('diffdis', 'clip', 'autoencoder'):
        config = tiny_run(objective)
        cell, inputs = loss_cell(config), loss_inputs(config)
        units, optimizer, _ = build_optimizer(config, list(cell.trainable_params()))
        update = Update(cell, units, optimizer, config)
        yield f'training step, {objective}', TrainStep(cell, update).set_train(), inputs
        yield f'after the update, {objective}', update.after, (Tensor(0.1, ms.float32),)


def mixed_precision():
    """The joint step as it runs on Ascend (fp16 with its loss scale, bf16 without), and the graphs of an accumulated
    step."""
    for precision in ('fp16', 'bf16'):
        config = tiny_run('diffdis', precision=precision)
        make_smaller(config.model)
        cell, inputs = loss_cell(config), loss_inputs(config)
        apply_precision(cell, precision)
        units, optimizer, _ = build_optimizer(config, list(cell.trainable_params()))
        update = Update(cell, units, optimizer, config)
        yield f'training step, {precision}', TrainStep(cell, update).set_train(), inputs
        step = AccumulatedStep(cell, update, 2).set_train()
        queries, scale = zeros(4, 48), Tensor(1.0, ms.float32)
        yield f'queries, {precision}', step.queries, inputs
        yield f'gradients of the alignment, {precision}', step.alignment, (queries, queries)
        yield f'accumulation, {precision}', step.accumulate, (scale, queries, queries, *inputs)
        yield f'update from accumulated gradients, {precision}', step.finish, (scale, zeros(3), scale)


def half_precision():
    """DiffDis and CLIP's transformers in the two 16-bit types, as users run them on Ascend.

    bfloat16 does not run on the CPU, but it compiles. The convolutional networks are not here: MindSpore's BatchNorm
    takes no bfloat16, and FID is float32.
    """
    for dtype in (ms.float16, ms.bfloat16):
        for graphs in (generation, alignment, autoencoder, clip):
            title, cell, inputs = next(graphs())
            yield f'{title}, {dtype}', cell.to_float(dtype), inputs


class Gradient(nn.Cell):
    """The gradient of a network's summed outputs with respect to its parameters."""

    def __init__(self, cell):
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.gradient = ms.grad(self.total, None, ParameterTuple(cell.trainable_params()))

    def total(self, *inputs):
        out = self.cell(*inputs)
        return ops.sum(out[1] if isinstance(out, tuple) else out)

    def construct(self, *inputs):
        return self.gradient(*inputs)


def flash_attention(networks=(generation, alignment, autoencoder, clip)):
    """The same networks with Ascend's attention kernel, and its gradient.

    Its sequences are the 64 tokens of a latent, these and the query, and a caption's; its heads have 8 to 16 channels.
    """
    before = use_flash(True)
    try:
        for dtype in (ms.float16, ms.bfloat16):
            for graphs in networks:
                title, cell, inputs = next(graphs())
                yield f'{title}, gradient with FlashAttentionScore, {dtype}', Gradient(cell.to_float(dtype)), inputs
    finally:
        use_flash(before)


def flash_attention_text():
    """The fastest graphs of `flash_attention`."""
    yield from flash_attention((clip,))


class CpuOnly(nn.Cell):
    def construct(self, x):
        return ops.fmax(x, x * 2)


class WrongType(nn.Cell):
    def __init__(self):
        super().__init__()
        self.norm = ops.LayerNorm()

    def construct(self, x, gamma, beta):
        return self.norm(x, gamma, beta)[0]


def negative():
    """Graphs that a check must report: an operator that Ascend does not have, and one that lacks a type."""
    yield 'Fmax', CpuOnly(), (zeros(4),)
    yield 'LayerNorm float64', WrongType(), (zeros(2, 4, dtype=np.float64), *[zeros(4, dtype=np.float64)] * 2)


def doctor():
    """The graphs for tools/doctor.py: the training step, and the attention kernel with its gradient in 16 bits."""
    yield next(training())
    yield from flash_attention((alignment,))


def models():
    """All of the above."""
    networks, steps = (generation, alignment, autoencoder, clip, convolutional), (training, mixed_precision)
    for graphs in (*networks, *steps, half_precision, flash_attention):
        yield from graphs()

"""Stable Diffusion's UNet: encoder half, middle block, decoder half, with diffusers' module names.

With `attention_cls`, `dual_stream.py` replaces `Transformer2DModel` by its own block in the encoder half and the middle
block. This file only handles the image stream.
"""

from mindspore import nn, ops

from diffdis_ms.models.layers import (
    Attention,
    Downsample2D,
    FeedForward,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    conv2d,
    silu,
    timestep_embedding,
)


class BasicTransformerBlock(nn.Cell):
    """Self-attention, cross-attention to the context, GEGLU feed-forward; pre-norm, residual.

    A context of None means a masked context of zeros. Keys and values have no bias, so the result of cross-attention is
    then the bias of its output layer.
    """

    def __init__(self, dim, heads, context_dim):
        super().__init__()
        self.norm1 = nn.LayerNorm((dim,), epsilon=1e-5)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm((dim,), epsilon=1e-5)
        self.attn2 = Attention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm((dim,), epsilon=1e-5)
        self.ff = FeedForward(dim)

    def construct(self, x, context):
        x = x + self.attn1(self.norm1(x))  # (B, HW, C)
        return self.after_self_attention(x, context)

    def after_self_attention(self, x, context):
        x = x + (self.attn2.to_out[0].bias if context is None else self.attn2(self.norm2(x), context))
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Cell):
    """Spatial transformer: GroupNorm and 1x1 convolution, K transformer blocks over the pixels, 1x1 convolution."""

    def __init__(self, dim, config):
        super().__init__()
        unet = config.unet
        self.norm = nn.GroupNorm(unet.norm_num_groups, dim, 1e-6)
        self.proj_in = conv2d(dim, dim, 1)
        self.transformer_blocks = nn.CellList(
            [
                BasicTransformerBlock(dim, unet.num_attention_heads, config.text_encoder.hidden_size)
                for _ in range(unet.transformer_layers_per_block)
            ]
        )
        self.proj_out = conv2d(dim, dim, 1)

    def to_tokens(self, x):
        """(B, C, H, W) -> (B, HW, C)."""
        x = self.proj_in(self.norm(x))
        b, c, h, w = x.shape
        return x.reshape(b, c, h * w).transpose(0, 2, 1)

    def to_map(self, tokens, residual):
        """(B, HW, C) -> (B, C, H, W), added to the block's input."""
        b, c, h, w = residual.shape
        return self.proj_out(tokens.transpose(0, 2, 1).reshape(b, c, h, w)) + residual

    def construct(self, x, context):
        tokens = self.to_tokens(x)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return self.to_map(tokens, x)


class DownBlock(nn.Cell):
    """Residual blocks, each followed by attention if the level has it, then halving except in the last level."""

    def __init__(self, in_channels, out_channels, config, has_attention, downsample, attention_cls):
        super().__init__()
        unet, temb = config.unet, 4 * config.unet.block_out_channels[0]
        self.resnets = nn.CellList(
            [
                ResnetBlock2D(in_channels if i == 0 else out_channels, out_channels, unet.norm_num_groups, 1e-5, temb)
                for i in range(unet.layers_per_block)
            ]
        )
        self.attentions = nn.CellList(
            [attention_cls(out_channels, config) for _ in range(unet.layers_per_block)] if has_attention else []
        )
        self.downsamplers = nn.CellList([Downsample2D(out_channels)] if downsample else [])
        self.has_attention = has_attention

    def construct(self, x, temb, context):
        skips = ()
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, temb)
            if self.has_attention:
                x = self.attentions[i](x, context)
            skips += (x,)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips += (x,)
        return x, skips


class UpBlock(nn.Cell):
    """Residual blocks with the encoder's skip connections, attention if the level has it, then doubling."""

    def __init__(self, in_channels, out_channels, skip_channels, config, has_attention, upsample):
        super().__init__()
        unet, temb = config.unet, 4 * config.unet.block_out_channels[0]
        self.resnets = nn.CellList(
            [
                ResnetBlock2D(
                    (in_channels if i == 0 else out_channels) + skip, out_channels, unet.norm_num_groups, 1e-5, temb
                )
                for i, skip in enumerate(skip_channels)
            ]
        )
        self.attentions = nn.CellList(
            [Transformer2DModel(out_channels, config) for _ in skip_channels] if has_attention else []
        )
        self.upsamplers = nn.CellList([Upsample2D(out_channels)] if upsample else [])
        self.has_attention = has_attention

    def construct(self, x, skips, temb, context):
        for i, resnet in enumerate(self.resnets):
            x = resnet(ops.concat((x, skips[-1 - i]), 1), temb)
            if self.has_attention:
                x = self.attentions[i](x, context)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x


class MidBlock(nn.Cell):
    """Residual block, attention, residual block."""

    def __init__(self, channels, config, attention_cls):
        super().__init__()
        groups, temb = config.unet.norm_num_groups, 4 * config.unet.block_out_channels[0]
        self.resnets = nn.CellList([ResnetBlock2D(channels, channels, groups, 1e-5, temb) for _ in range(2)])
        self.attentions = nn.CellList([attention_cls(channels, config)])

    def construct(self, x, temb, context):
        x = self.attentions[0](self.resnets[0](x, temb), context)
        return self.resnets[1](x, temb)


class UNet2DConditionModel(nn.Cell):
    """Phi_u: predicts the noise in z_t from (z_t, t_z, c).

    Args:
        config: ModelConfig.
        attention_cls: the attention block of the encoder half and the middle block.
    """

    def __init__(self, config, attention_cls=Transformer2DModel):
        super().__init__()
        unet = config.unet
        widths, levels = unet.block_out_channels, len(unet.block_out_channels)
        self.time_dim = widths[0]
        self.time_embedding = TimestepEmbedding(widths[0], 4 * widths[0])
        self.conv_in = conv2d(unet.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.CellList(
            [
                DownBlock(
                    widths[max(i - 1, 0)], widths[i], config, unet.attention_levels[i], i < levels - 1, attention_cls
                )
                for i in range(levels)
            ]
        )
        self.mid_block = MidBlock(widths[-1], config, attention_cls)
        self.up_blocks = nn.CellList(
            [
                UpBlock(
                    widths[min(i + 1, levels - 1)],
                    widths[i],
                    _skip_channels(widths, i, unet.layers_per_block),
                    config,
                    unet.attention_levels[i],
                    i > 0,
                )
                for i in reversed(range(levels))
            ]
        )
        self.conv_norm_out = nn.GroupNorm(unet.norm_num_groups, widths[0], 1e-5)
        self.conv_out = conv2d(widths[0], unet.out_channels, 3, padding=1)
        self.skips_per_block = unet.layers_per_block + 1

    def embed_timestep(self, t):
        """(B,) int or float -> (B, 4 * base width)."""
        return self.time_embedding(timestep_embedding(t, self.time_dim).astype(self.conv_in.weight.dtype))

    def construct(self, z_t, t_z, context):
        """z_t (B, 4, H, W) and t_z (B,), c = context (B, L, hidden) -> noise (B, 4, H, W)."""
        temb = self.embed_timestep(t_z)
        x = self.conv_in(z_t)
        skips = (x,)
        for block in self.down_blocks:
            x, new_skips = block(x, temb, context)
            skips += new_skips
        x = self.mid_block(x, temb, context)
        for block in self.up_blocks:
            x = block(x, skips[-self.skips_per_block :], temb, context)
            skips = skips[: -self.skips_per_block]
        return self.conv_out(silu(self.conv_norm_out(x)))


def _skip_channels(widths, level, layers_per_block):
    """Channels of the encoder's skip connections for the decoder's `level`, in the order of their use."""
    return [widths[level]] * layers_per_block + [widths[max(level - 1, 0)]]


def activation_elements(config, decoder, fused=False, recompute=False):
    """Estimate the number of elements that a sample's forward pass through the UNet keeps for its gradients.

    A residual block keeps the inputs and outputs of its norms, silu, sigmoid and convolutions: 4 (C_in + C_out) per
    pixel. A transformer layer keeps about 31 maps of its width per pixel, and the attention scores and weights for
    pixels and context. With recomputation a residual block keeps its input, a transformer layer about 11 maps, and the
    largest block is whole while its gradient is computed.

    Args:
        config: ModelConfig. decoder: whether the decoder half also runs (generation); alignment ends after the middle
            block. fused: whether attention uses Ascend's fused kernel, which computes the weights again.
        recompute: `apply_recompute` is used.
    """
    unet, context = config.unet, config.text_encoder.max_position_embeddings
    _, side, _ = config.latent_shape
    pixels = [(side // 2**level) ** 2 for level in range(len(unet.block_out_channels))]

    largest = 0

    def kept(whole, few):
        nonlocal largest
        if not recompute:
            return whole
        largest = max(largest, whole)
        return few

    def resnet(level, c_in, c_out):
        return kept(4 * (c_in + c_out) * pixels[level], c_in * pixels[level])

    def transformer(level, width):
        weights = 0 if fused else 2 * unet.num_attention_heads * (pixels[level] + context)
        layer = kept(pixels[level] * (31 * width + weights), pixels[level] * 11 * width)
        return unet.transformer_layers_per_block * layer

    widths, total, skips = unet.block_out_channels, 0, []
    before = widths[0]
    for level, width in enumerate(widths):
        for i in range(unet.layers_per_block):
            total += resnet(level, before if i == 0 else width, width) + (
                transformer(level, width) if unet.attention_levels[level] else 0
            )
        before = width
        skips += [width] * unet.layers_per_block
    last = len(widths) - 1
    total += 2 * resnet(last, before, before) + transformer(last, before)
    if decoder:
        for level in reversed(range(len(widths))):
            for _ in range(unet.layers_per_block + 1):
                skip = skips.pop() if skips else widths[0]
                total += resnet(level, before + skip, widths[level]) + (
                    transformer(level, widths[level]) if unet.attention_levels[level] else 0
                )
                before = widths[level]
    return total + largest

"""KL autoencoder: encoder V, decoder D, with diffusers' current module names (mid_block.attentions.0.to_q)."""

from mindspore import nn, ops

from diffdis_ms.models.layers import Attention, Downsample2D, ResnetBlock2D, Upsample2D, conv2d, silu

EPS = 1e-6


class MidAttention(Attention):
    """Single-head self-attention over the pixels, with GroupNorm before and biases in all projections."""

    def __init__(self, channels, groups):
        super().__init__(channels, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, EPS)

    def construct(self, x):
        b, c, h, w = x.shape
        tokens = self.group_norm(x).reshape(b, c, h * w).transpose(0, 2, 1)  # (B, HW, C)
        out = super().construct(tokens)
        return x + out.transpose(0, 2, 1).reshape(b, c, h, w)


class MidBlock(nn.Cell):
    def __init__(self, channels, groups):
        super().__init__()
        self.resnets = nn.CellList([ResnetBlock2D(channels, channels, groups, EPS) for _ in range(2)])
        self.attentions = nn.CellList([MidAttention(channels, groups)])

    def construct(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class CoderBlock(nn.Cell):
    """Residual blocks of a level, then halving (encoder) or doubling (decoder), except in the last level."""

    def __init__(self, in_channels, out_channels, num_layers, groups, resample, last):
        super().__init__()
        self.resnets = nn.CellList(
            [
                ResnetBlock2D(in_channels if i == 0 else out_channels, out_channels, groups, EPS)
                for i in range(num_layers)
            ]
        )
        self.downsamplers = nn.CellList(
            [Downsample2D(out_channels, asymmetric=True)] if resample == 'down' and not last else []
        )
        self.upsamplers = nn.CellList([Upsample2D(out_channels)] if resample == 'up' and not last else [])

    def construct(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x


class Encoder(nn.Cell):
    """x (B, 3, H, W) -> moments (B, 2 * latent_channels, H/f, W/f)."""

    def __init__(self, config):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.CellList(
            [
                CoderBlock(widths[max(i - 1, 0)], width, config.layers_per_block, groups, 'down', i == len(widths) - 1)
                for i, width in enumerate(widths)
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def construct(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Cell):
    """z / scaling_factor (B, latent_channels, H/f, W/f) -> x (B, 3, H, W)."""

    def __init__(self, config):
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.CellList(
            [
                CoderBlock(
                    widths[max(i - 1, 0)], width, config.layers_per_block + 1, groups, 'up', i == len(widths) - 1
                )
                for i, width in enumerate(widths)
            ]
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = conv2d(widths[-1], config.in_channels, 3, padding=1)

    def construct(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Cell):
    """Stable Diffusion's KL autoencoder. Pixels are in [-1, 1]; latents are multiplied by the scaling factor."""

    def __init__(self, config):
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = conv2d(config.latent_channels, config.latent_channels, 1)
        self.scaling_factor = config.scaling_factor

    def moments(self, x):
        """Mean and log-variance of the posterior, unscaled, each (B, latent_channels, H/f, W/f)."""
        mean, logvar = ops.chunk(self.quant_conv(self.encoder(x)), 2, 1)
        return mean, ops.clamp(logvar, -30.0, 20.0)

    def encode(self, x):
        """z = V(x): scaled mean of the posterior (B, latent_channels, H/f, W/f)."""
        return self.moments(x)[0] * self.scaling_factor

    def decode(self, z):
        """x = D(z) (B, 3, H, W), not clipped."""
        return self.decoder(self.post_quant_conv(z / self.scaling_factor))

    def construct(self, x):
        return self.decode(self.encode(x))


class LatentEncoder(nn.Cell):
    """V as a separate graph: pixels (B, 3, H, W) in [-1, 1] -> z (B, latent_channels, H/f, W/f)."""

    def __init__(self, vae):
        super().__init__(auto_prefix=False)
        self.vae = vae

    def construct(self, x):
        return self.vae.encode(x)


class LatentDecoder(nn.Cell):
    """D as a separate graph: z -> pixels, not clipped."""

    def __init__(self, vae):
        super().__init__(auto_prefix=False)
        self.vae = vae

    def construct(self, z):
        return self.vae.decode(z)

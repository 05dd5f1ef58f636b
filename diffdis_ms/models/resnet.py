"""CLIP's ModifiedResNet (RN50 and its relatives), with OpenAI's module names."""

import numpy as np
from mindspore import Parameter, nn, ops

from diffdis_ms.models.attention import attention
from diffdis_ms.models.layers import conv2d, linear, merge_heads, split_heads


class Bottleneck(nn.Cell):
    """1x1, 3x3 and 1x1 convolutions with a residual. All have stride 1. A 2x2 mean before the last convolution, and in
    the shortcut, halves the image without aliasing."""

    def __init__(self, in_dim, dim, stride):
        super().__init__()
        out_dim = 4 * dim
        self.conv1, self.bn1 = conv2d(in_dim, dim, 1, bias=False), nn.BatchNorm2d(dim)
        self.conv2, self.bn2 = conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim)
        self.conv3, self.bn3 = conv2d(dim, out_dim, 1, bias=False), nn.BatchNorm2d(out_dim)
        self.pool = nn.AvgPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or in_dim != out_dim:
            self.downsample = nn.CellList([conv2d(in_dim, out_dim, 1, bias=False), nn.BatchNorm2d(out_dim)])

    def construct(self, x):
        h = ops.relu(self.bn1(self.conv1(x)))  # (B, C, H, W)
        h = self.pool(ops.relu(self.bn2(self.conv2(h))))  # (B, C, H / stride, W / stride)
        h = self.bn3(self.conv3(h))  # (B, 4C, H / stride, W / stride)
        if self.downsample is not None:
            x = self.downsample[1](self.downsample[0](self.pool(x)))
        return ops.relu(x + h)


class AttentionPool(nn.Cell):
    """Attention of the mean token over itself and all positions: (B, C, h, w) -> (B, projection_dim)."""

    def __init__(self, config):
        super().__init__()
        dim, self.heads = config.hidden_size, config.num_attention_heads
        tokens = (config.image_size // 32) ** 2 + 1
        self.positional_embedding = Parameter(np.zeros((tokens, dim), np.float32), name='positional_embedding')
        self.q_proj, self.k_proj, self.v_proj = linear(dim, dim), linear(dim, dim), linear(dim, dim)
        self.c_proj = linear(dim, config.projection_dim)

    def construct(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h * w).transpose(0, 2, 1)  # (B, hw, C)
        x = ops.concat((x.mean(1, keep_dims=True), x), 1) + self.positional_embedding  # (B, 1 + hw, C)
        q, k, v = (
            split_heads(self.q_proj(x[:, :1]), self.heads),
            split_heads(self.k_proj(x), self.heads),
            split_heads(self.v_proj(x), self.heads),
        )  # (B, heads, 1 or 1 + hw, D)
        return self.c_proj(merge_heads(attention(q, k, v))[:, 0])


class ModifiedResNet(nn.Cell):
    """Stem of three convolutions, four stages, attention pooling: pixels (B, 3, S, S) -> (B, projection_dim)."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size // 32
        self.conv1, self.bn1 = conv2d(3, width // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(2, 2)
        blocks = config.resnet_layers
        self.layer1 = stage(width, width, blocks[0], 1)
        self.layer2 = stage(4 * width, 2 * width, blocks[1], 2)
        self.layer3 = stage(8 * width, 4 * width, blocks[2], 2)
        self.layer4 = stage(16 * width, 8 * width, blocks[3], 2)
        self.attnpool = AttentionPool(config)

    def construct(self, pixels):
        x = ops.relu(self.bn1(self.conv1(pixels)))  # (B, C / 2, S / 2, S / 2)
        x = ops.relu(self.bn2(self.conv2(x)))
        x = self.pool(ops.relu(self.bn3(self.conv3(x))))  # (B, C, S / 4, S / 4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 32C, S / 32, S / 32)
        return self.attnpool(x)


def stage(in_dim, dim, blocks, stride):
    """Make the bottlenecks of a width; the first may halve the image."""
    return nn.SequentialCell([Bottleneck(4 * dim if i else in_dim, dim, 1 if i else stride) for i in range(blocks)])

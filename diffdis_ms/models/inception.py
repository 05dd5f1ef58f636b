"""The Inception v3 of FID: the network of TensorFlow's 2015-12-05 graph, with the names of
`pt_inception-2015-12-05-6726825d.pth`."""

from mindspore import nn, ops

from diffdis_ms.models.layers import conv2d, linear


class BasicConv(nn.Cell):
    """Convolution, norm, ReLU. `kernel` is a size or (height, width); `same` pads so that stride 1 keeps the size."""

    def __init__(self, in_dim, out_dim, kernel, stride=1, same=True):
        super().__init__()
        h, w = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (h // 2, h // 2, w // 2, w // 2) if same else 0  # top, bottom, left, right
        self.conv = conv2d(in_dim, out_dim, (h, w), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out_dim, eps=1e-3)

    def construct(self, x):
        return ops.relu(self.bn(self.conv(x)))


class AveragePool(nn.Cell):
    """3x3 mean, stride 1, over the pixels inside the image.

    MindSpore does not document whether the mean counts the padding (on a CPU it does not). Dividing by the same mean of
    ones gives the right result in both cases; if padding is not counted, this mean is exactly one.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, pad_mode='same')

    def construct(self, x):
        return self.pool(x) / self.pool(ops.ones((1, 1, x.shape[2], x.shape[3]), x.dtype))


class MixedA(nn.Cell):
    """35x35: (B, C, H, W) -> (B, 224 + pool_dim, H, W)."""

    def __init__(self, dim, pool_dim):
        super().__init__()
        self.branch1x1 = BasicConv(dim, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = BasicConv(dim, 48, 1), BasicConv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3 = (
            BasicConv(dim, 64, 1),
            BasicConv(64, 96, 3),
            BasicConv(96, 96, 3),
        )
        self.pool, self.branch_pool = AveragePool(), BasicConv(dim, pool_dim, 1)

    def construct(self, x):
        return ops.concat(
            (
                self.branch1x1(x),
                self.branch5x5_2(self.branch5x5_1(x)),
                self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                self.branch_pool(self.pool(x)),
            ),
            1,
        )


class ReductionA(nn.Cell):
    """35x35 to 17x17: (B, C, H, W) -> (B, 480 + C, H', W')."""

    def __init__(self, dim):
        super().__init__()
        self.branch3x3 = BasicConv(dim, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = BasicConv(dim, 64, 1), BasicConv(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv(96, 96, 3, stride=2, same=False)
        self.pool = nn.MaxPool2d(3, 2)

    def construct(self, x):
        return ops.concat(
            (self.branch3x3(x), self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))), self.pool(x)), 1
        )


class MixedB(nn.Cell):
    """17x17, with 7x7 convolutions as pairs of 1x7 and 7x1: (B, C, H, W) -> (B, 768, H, W)."""

    def __init__(self, dim, inner):
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = BasicConv(dim, 192, 1)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = (
            BasicConv(dim, inner, 1),
            BasicConv(inner, inner, row),
            BasicConv(inner, 192, column),
        )
        self.branch7x7dbl_1 = BasicConv(dim, inner, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = BasicConv(inner, inner, column), BasicConv(inner, inner, row)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = BasicConv(inner, inner, column), BasicConv(inner, 192, row)
        self.pool, self.branch_pool = AveragePool(), BasicConv(dim, 192, 1)

    def construct(self, x):
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return ops.concat(
            (
                self.branch1x1(x),
                self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
                self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
                self.branch_pool(self.pool(x)),
            ),
            1,
        )


class ReductionB(nn.Cell):
    """17x17 to 8x8: (B, C, H, W) -> (B, 512 + C, H', W')."""

    def __init__(self, dim):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = BasicConv(dim, 192, 1), BasicConv(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = BasicConv(dim, 192, 1), BasicConv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = (
            BasicConv(192, 192, (7, 1)),
            BasicConv(192, 192, 3, stride=2, same=False),
        )
        self.pool = nn.MaxPool2d(3, 2)

    def construct(self, x):
        return ops.concat(
            (
                self.branch3x3_2(self.branch3x3_1(x)),
                self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))),
                self.pool(x),
            ),
            1,
        )


class MixedC(nn.Cell):
    """8x8, with 3x3 convolutions replaced by 1x3 and 3x1 in parallel: (B, C, H, W) -> (B, 2048, H, W)."""

    def __init__(self, dim, pool):
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.branch1x1, self.branch3x3_1 = BasicConv(dim, 320, 1), BasicConv(dim, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = BasicConv(384, 384, row), BasicConv(384, 384, column)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = BasicConv(dim, 448, 1), BasicConv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = BasicConv(384, 384, row), BasicConv(384, 384, column)
        self.pool, self.branch_pool = pool, BasicConv(dim, 192, 1)

    def construct(self, x):
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return ops.concat(
            (
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ),
            1,
        )


class InceptionV3(nn.Cell):
    """FID's features.

    Inputs:
        x: (B, 3, 299, 299) float32, (pixels - 128) / 128 for resized RGB pixels 0..255.

    Returns:
        features (B, 2048): means of the last feature map.
        logits (B, 1008): `fc` without its bias, as used by the Inception score.
    """

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = BasicConv(32, 32, 3, same=False), BasicConv(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = BasicConv(64, 80, 1), BasicConv(80, 192, 3, same=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = ReductionA(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (
            MixedB(768, 128),
            MixedB(768, 160),
            MixedB(768, 160),
            MixedB(768, 192),
        )
        self.Mixed_7a = ReductionB(768)
        # FID's original graph has a max pool in its last block, unlike Inception v3 with its average pool
        self.Mixed_7b, self.Mixed_7c = MixedC(1280, AveragePool()), MixedC(2048, nn.MaxPool2d(3, 1, pad_mode='same'))
        self.fc = linear(2048, 1008)
        self.pool, self.without_bias = nn.MaxPool2d(3, 2), ops.MatMul(transpose_b=True)

    def construct(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.pool(x)))  # (B, 192, 71, 71)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.pool(x))))  # (B, 288, 35, 35)
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        features = x.mean((2, 3))  # (B, 2048)
        return features, self.without_bias(features, self.fc.weight)

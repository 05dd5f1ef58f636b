"""Alignment transformer and linear predictor (Sec. 3.3): they compute e0_hat from the middle block's map and query."""

from mindspore import nn, ops

from diffdis_ms.models.clip import TransformerLayer
from diffdis_ms.models.layers import linear


class AlignmentTransformer(nn.Cell):
    """M pre-norm transformer blocks over [query ; projected image tokens], then a linear layer on the query token.

    There is no positional embedding: the features of the convolutions already contain the position.
    """

    def __init__(self, config):
        super().__init__()
        align, query_dim = config.alignment, config.text_encoder.projection_dim
        self.proj_in = linear(config.unet.block_out_channels[-1], align.width)
        self.query_in = linear(query_dim, align.width) if query_dim != align.width else nn.Identity()
        self.layers = nn.CellList(
            [
                TransformerLayer(align.width, align.width // align.head_dim, 4 * align.width, 'gelu')
                for _ in range(align.num_layers)
            ]
        )
        self.final_layer_norm = nn.LayerNorm((align.width,), epsilon=1e-5)
        self.predictor = linear(align.width, query_dim)

    def construct(self, x, query):
        """x (B, C, H, W) and query (B, 1, D) -> prediction (B, 1, D): e0_hat, or the noise if that is the target."""
        b, c, h, w = x.shape
        image_tokens = self.proj_in(x.reshape(b, c, h * w).transpose(0, 2, 1))  # (B, HW, W)
        tokens = ops.concat((self.query_in(query), image_tokens), 1)  # (B, 1 + HW, W)
        for layer in self.layers:
            tokens = layer(tokens, None)
        return self.predictor(self.final_layer_norm(tokens[:, :1]))

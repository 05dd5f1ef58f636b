"""Dual-stream deep fusion (Sec. 3.3, Fig. 3): the text query's path through the UNet's encoder half and middle block.

Only this file handles both streams. Every new weight belongs to a module named `dual_stream` or `text_query`, so that
the rest of the UNet keeps Stable Diffusion's names and values.
"""

from mindspore import nn, ops

from diffdis_ms.models.attention import attention
from diffdis_ms.models.layers import Attention, FeedForward, TimestepEmbedding, linear, merge_heads, timestep_embedding
from diffdis_ms.models.unet import Transformer2DModel


class TextQueryEmbedding(nn.Cell):
    """The query conditioned on its timestep: e_t + MLP(sinusoid(t_e)), one MLP for all blocks."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.time_embedding = TimestepEmbedding(dim, dim)

    def construct(self, e_t, t_e):
        """e_t (B, 1, D), t_e (B,) -> (B, 1, D)."""
        temb = self.time_embedding(timestep_embedding(t_e, self.dim).astype(e_t.dtype))
        return e_t + ops.expand_dims(temb, 1)


class QueryBlock(nn.Cell):
    """The query's own weights in a transformer block: feed-forward with LayerNorm (MS-FFN), and the projections of
    self-attention if attention is not shared."""

    def __init__(self, dim, heads, share_attention, modality_ffn):
        super().__init__()
        self.attn1 = None if share_attention else Attention(dim, heads)
        self.norm3 = nn.LayerNorm((dim,), epsilon=1e-5) if modality_ffn else None
        self.ff = FeedForward(dim) if modality_ffn else None


class DualStream(nn.Cell):
    """The new weights of an attention block: K QueryBlocks, and layers between the query's width and the block's."""

    def __init__(self, dim, query_dim, config):
        super().__init__()
        switches, unet = config.dual_stream, config.unet
        self.proj_in = linear(query_dim, dim)
        self.blocks = nn.CellList(
            [
                QueryBlock(dim, unet.num_attention_heads, switches.share_attention, switches.modality_ffn)
                for _ in range(unet.transformer_layers_per_block)
            ]
        )
        self.proj_out = linear(dim, query_dim)


class DualStreamTransformer2D(Transformer2DModel):
    """Stable Diffusion's attention block that can also carry the text query.

    Called with (x, context) it equals `Transformer2DModel` to the last bit. `fuse` is the block of Fig. 3.
    """

    def __init__(self, dim, config):
        super().__init__(dim, config)
        self.dual_stream = DualStream(dim, config.text_encoder.projection_dim, config)
        self.share_attention = config.dual_stream.share_attention
        self.modality_ffn = config.dual_stream.modality_ffn

    def fuse(self, x, hidden_query, query):
        """Run both streams through the block, with c masked.

        Args:
            x: image map (B, C, H, W).
            hidden_query: h_{e,l-1} (B, 1, D).
            query: e_t conditioned on t_e (B, 1, D).

        Returns:
            (x, h_{e,l}), with the shapes of x and hidden_query.
        """
        q = self.dual_stream.proj_in(hidden_query + query)  # (B, 1, C)
        tokens = self.to_tokens(x)  # (B, HW, C)
        for block, own in zip(self.transformer_blocks, self.dual_stream.blocks):  # noqa: B905 (a graph knows no keyword)
            q, tokens = self._fused_attention(block, own, q, tokens)
            tokens = block.after_self_attention(tokens, None)
            q = q + (own.ff(own.norm3(q)) if self.modality_ffn else block.ff(block.norm3(q)))
        return self.to_map(tokens, x), self.dual_stream.proj_out(q)

    def _fused_attention(self, block, own, q, tokens):
        """Self-attention over [query ; image tokens]; norm1 is shared."""
        if self.share_attention:
            joined = ops.concat((q, tokens), 1)  # (B, 1 + HW, C)
            joined = joined + block.attn1(block.norm1(joined))
            return joined[:, :1], joined[:, 1:]
        normed_q, normed_tokens = block.norm1(q), block.norm1(tokens)
        q_q, q_k, q_v = own.attn1.project(normed_q, normed_q)
        t_q, t_k, t_v = block.attn1.project(normed_tokens, normed_tokens)
        mixed = merge_heads(attention(ops.concat((q_q, t_q), 2), ops.concat((q_k, t_k), 2), ops.concat((q_v, t_v), 2)))
        return q + own.attn1.to_out[0](mixed[:, :1]), tokens + block.attn1.to_out[0](mixed[:, 1:])

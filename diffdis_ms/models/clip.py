"""CLIP's text tower T and its image encoder (vision transformer or ResNet), with transformers' module names."""

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from diffdis_ms.models.attention import attention
from diffdis_ms.models.layers import conv2d, gelu, gelu_tanh, linear, merge_heads, split_heads
from diffdis_ms.models.resnet import ModifiedResNet


class SelfAttention(nn.Cell):
    """transformers' `CLIPAttention`: biased projections, one output layer."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = linear(dim, dim), linear(dim, dim), linear(dim, dim)
        self.out_proj = linear(dim, dim)

    def construct(self, x, mask):
        q, k, v = (
            split_heads(self.q_proj(x), self.heads),
            split_heads(self.k_proj(x), self.heads),
            split_heads(self.v_proj(x), self.heads),
        )  # (B, heads, N, D)
        return self.out_proj(merge_heads(attention(q, k, v, mask)))  # (B, N, C)


class MLP(nn.Cell):
    """fc2(act(fc1(x))). `quick_gelu` is x * sigmoid(1.702 x); `gelu_pytorch_tanh` approximates the Gaussian's integral
    with tanh."""

    def __init__(self, dim, inner_dim, act):
        super().__init__()
        self.fc1, self.fc2 = linear(dim, inner_dim), linear(inner_dim, dim)
        self.act = act

    def construct(self, x):
        x = self.fc1(x)
        if self.act == 'quick_gelu':
            return self.fc2(x * ops.sigmoid(1.702 * x))
        return self.fc2(gelu(x) if self.act == 'gelu' else gelu_tanh(x))


class TransformerLayer(nn.Cell):
    """Pre-norm transformer block: transformers' `CLIPEncoderLayer`."""

    def __init__(self, dim, heads, inner_dim, act, eps=1e-5):
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.layer_norm1 = nn.LayerNorm((dim,), epsilon=eps)
        self.mlp = MLP(dim, inner_dim, act)
        self.layer_norm2 = nn.LayerNorm((dim,), epsilon=eps)

    def construct(self, x, mask):
        x = x + self.self_attn(self.layer_norm1(x), mask)  # (B, N, C)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Cell):
    """A stack of transformer blocks."""

    def __init__(self, config):
        super().__init__()
        self.layers = nn.CellList(
            [
                TransformerLayer(
                    config.hidden_size,
                    config.num_attention_heads,
                    config.intermediate_size,
                    config.hidden_act,
                    config.layer_norm_eps,
                )
                for _ in range(config.num_hidden_layers)
            ]
        )

    def construct(self, x, mask):
        for layer in self.layers:
            x = layer(x, mask)
        return x


class TextEmbeddings(nn.Cell):
    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size, embedding_table='zeros')
        self.position_embedding = nn.Embedding(
            config.max_position_embeddings, config.hidden_size, embedding_table='zeros'
        )

    def construct(self, ids):
        return self.token_embedding(ids) + self.position_embedding.embedding_table[: ids.shape[1]]  # (B, L, C)


class TextTransformer(nn.Cell):
    """Causal transformer over the tokens, with the final LayerNorm."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm((config.hidden_size,), epsilon=config.layer_norm_eps)
        length = config.max_position_embeddings
        self.causal_mask = Tensor(np.triu(np.full((length, length), -1e4, np.float32), 1))

    def construct(self, ids):
        n = ids.shape[1]
        x = self.embeddings(ids)
        x = self.encoder(x, self.causal_mask[:n, :n].astype(x.dtype))
        return self.final_layer_norm(x)  # (B, L, C)


class CLIPTextEncoder(nn.Cell):
    """T(y) = (c, e).

    Inputs:
        ids: (B, L) int32, padded with the end-of-text token, whose id is the largest of the vocabulary.

    Returns:
        context c (B, L, hidden): last hidden state after the final LayerNorm.
        query e (B, 1, projection_dim): text projection of the end-of-text token, L2-normalised.
    """

    def __init__(self, config):
        super().__init__()
        self.text_model = TextTransformer(config)
        self.text_projection = linear(config.hidden_size, config.projection_dim, bias=False)

    def construct(self, ids):
        context = self.text_model(ids)  # (B, L, C)
        end = ops.argmax(ids, 1)  # (B,): the first end-of-text token
        # float32 first, because OneHot has no bfloat16
        at_end = ops.one_hot(end, ids.shape[1], Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)).astype(
            context.dtype
        )
        pooled = ops.sum(context * ops.expand_dims(at_end, -1), 1)  # (B, C)
        return context, ops.expand_dims(l2_normalize(self.text_projection(pooled)), 1)


class VisionEmbeddings(nn.Cell):
    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        self.class_embedding = Parameter(np.zeros((size,), np.float32), name='class_embedding')
        self.patch_embedding = conv2d(3, size, config.patch_size, stride=config.patch_size, bias=False)
        self.position_embedding = nn.Embedding(
            (config.image_size // config.patch_size) ** 2 + 1, size, embedding_table='zeros'
        )

    def construct(self, pixels):
        patches = self.patch_embedding(pixels)  # (B, C, h, w)
        b, c, h, w = patches.shape
        patches = patches.reshape(b, c, h * w).transpose(0, 2, 1)  # (B, hw, C)
        first = self.class_embedding.reshape(1, 1, c).broadcast_to((b, 1, c))
        return ops.concat((first, patches), 1) + self.position_embedding.embedding_table


class VisionTransformer(nn.Cell):
    """ViT with a class token; `pre_layrnorm` is transformers' spelling."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm((config.hidden_size,), epsilon=config.layer_norm_eps)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm((config.hidden_size,), epsilon=config.layer_norm_eps)

    def construct(self, pixels):
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)), None)  # (B, 1 + hw, C)
        return self.post_layernorm(x[:, 0])  # (B, C)


class CLIPImageEncoder(nn.Cell):
    """CLIP's image embedding: pixels (B, 3, S, S) -> (B, projection_dim), L2-normalised.

    The pixels must be normalised with the config's mean and standard deviation.
    """

    def __init__(self, config):
        super().__init__()
        self.visual = None
        if config.architecture == 'resnet':
            self.visual = ModifiedResNet(config)
        else:
            self.vision_model = VisionTransformer(config)
            self.visual_projection = linear(config.hidden_size, config.projection_dim, bias=False)

    def construct(self, pixels):
        if self.visual is not None:
            return l2_normalize(self.visual(pixels))
        return l2_normalize(self.visual_projection(self.vision_model(pixels)))


def l2_normalize(x):
    """x / |x| over the last axis, in float32."""
    x32 = x.astype(mstype.float32)
    return (x32 / ops.sqrt(ops.sum(x32 * x32, -1, keepdim=True) + 1e-24)).astype(x.dtype)

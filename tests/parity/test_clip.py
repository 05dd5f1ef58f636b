"""CLIP's towers against transformers' CLIPModel."""

import numpy as np
import pytest
import torch
from mindspore import Tensor

from ckpt_convert.forward import make_clip
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from tests.helpers import normal, randomize
from tests.parity.weights import check, copy_to_torch, to_torch


def make_captions(text, batch):
    """Captions of several lengths, the empty one included, as CLIP's tokenizer pads them: start, words, end, end ..."""
    rng, length = np.random.default_rng(1), text.max_position_embeddings
    ids = np.full((batch, length), text.vocab_size - 1, np.int32)
    ids[:, 0] = text.vocab_size - 2
    for row, words in zip(ids, (5, 0, length - 2), strict=False):  # at most three
        row[1 : 1 + words] = rng.integers(0, text.vocab_size - 2, words)
    return ids


def compare(config, tolerance, batch=3):
    """Last hidden state, text query and image embedding of one batch."""
    text = randomize(CLIPTextEncoder(config.text_encoder), 0)
    image = randomize(CLIPImageEncoder(config.image_encoder), 1)
    module = copy_to_torch(
        make_clip(config.text_encoder, config.image_encoder), text, image, torch_only=('logit_scale',)
    )
    ids, size = Tensor(make_captions(config.text_encoder, batch)), config.image_encoder.image_size
    pixels = normal(2, batch, 3, size, size)
    with torch.no_grad():
        out = module(input_ids=to_torch(ids).long(), pixel_values=to_torch(pixels))
    context, query = text(ids)
    check('context', context, out.text_model_output.last_hidden_state, tolerance)
    check('query', query, out.text_embeds[:, None], tolerance)
    check('image embedding', image(pixels), out.image_embeds, tolerance)


@pytest.mark.parametrize('hidden_act', ['quick_gelu', 'gelu', 'gelu_pytorch_tanh'])
def test_clip(tiny_config, hidden_act):
    tiny_config.text_encoder.hidden_act = tiny_config.image_encoder.hidden_act = hidden_act
    if hidden_act == 'gelu_pytorch_tanh':
        tiny_config.text_encoder.layer_norm_eps, tiny_config.image_encoder.layer_norm_eps = 1e-2, 3e-3
    compare(tiny_config, 1e-4)


def test_text_shorter_than_the_longest(tiny_config):
    text = randomize(CLIPTextEncoder(tiny_config.text_encoder), 0)
    image = randomize(CLIPImageEncoder(tiny_config.image_encoder), 1)
    module = copy_to_torch(
        make_clip(tiny_config.text_encoder, tiny_config.image_encoder), text, image, torch_only=('logit_scale',)
    )
    ids = Tensor(make_captions(tiny_config.text_encoder, 2)[:, :9])
    with torch.no_grad():
        expected = module.text_model(input_ids=to_torch(ids).long()).last_hidden_state
    check('context', text(ids)[0], expected, 1e-4)

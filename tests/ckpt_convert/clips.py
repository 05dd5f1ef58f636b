"""CLIPs of a few thousand numbers as open_clip and transformers lay them out, written without torch."""

import json

import numpy as np

from ckpt_convert import name_map
from ckpt_convert.shapes import shapes_of_network
from diffdis_ms.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from diffdis_ms.data.tokenizer import write_vocabulary
from diffdis_ms.storage.files import write_weights

WORDS = 520
TEXT_CFG = {'context_length': 16, 'vocab_size': WORDS, 'width': 64, 'heads': 4, 'layers': 1}
VISION_CFG = {'image_size': 16, 'layers': 1, 'width': 64, 'patch_size': 8}
# fmt: off
TEXT_CONFIG = {
    'vocab_size': WORDS, 'max_position_embeddings': 16, 'hidden_size': 64, 'intermediate_size': 256,
    'num_hidden_layers': 1, 'num_attention_heads': 4, 'projection_dim': 32, 'hidden_act': 'gelu',
    'bos_token_id': WORDS - 2, 'eos_token_id': WORDS - 1,
}
# fmt: on
# fmt: off
VISION_CONFIG = {
    'image_size': 16, 'patch_size': 8, 'hidden_size': 64, 'intermediate_size': 256, 'num_hidden_layers': 1,
    'num_attention_heads': 1, 'projection_dim': 32, 'hidden_act': 'gelu',
}
# fmt: on


def state_dict(layout='openai'):
    """{name: float32 array} of both towers, in OpenAI's (and open_clip's) or transformers' names."""
    config = ModelConfig(
        text_encoder=TextEncoderConfig(WORDS, 16, 64, 256, 1, 4, 32),
        image_encoder=ImageEncoderConfig(
            image_size=16,
            patch_size=8,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=1,
            num_attention_heads=1,
            projection_dim=32,
        ),
    )
    state = {'logit_scale': np.array(2.0, np.float32)}
    for stem, table in (('text_encoder', name_map.clip_text_openai), ('image_encoder', name_map.clip_image_openai)):
        for name, shape in shapes_of_network(stem, config).items():
            place = name_map.place(name, shape, table(getattr(config, stem)) if layout == 'openai' else None)
            state[place.name] = np.random.default_rng(len(state)).standard_normal(place.shape, dtype=np.float32)
    return state


def write_open_clip(folder, vision=(), text=(), preprocess=None, **model):
    """A directory of open_clip: weights, tokenizer, open_clip_config.json with these additions."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary([(chr(97 + i), 'z') for i in range(WORDS - 514)], folder)
    write_weights(folder / 'open_clip_model.safetensors', state_dict())
    config = {
        'model_cfg': {
            'embed_dim': 32,
            'vision_cfg': {**VISION_CFG, **dict(vision)},
            'text_cfg': {**TEXT_CFG, **dict(text)},
            **model,
        }
    }
    write(folder / 'open_clip_config.json', config if preprocess is None else {**config, 'preprocess_cfg': preprocess})
    return folder


def write_transformers(folder, vision=(), text=(), preprocess=None, **top):
    """A directory of transformers: model.safetensors, tokenizer, config.json with these additions,
    preprocessor_config.json where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary([(chr(97 + i), 'z') for i in range(WORDS - 514)], folder)
    write_weights(folder / 'model.safetensors', state_dict('transformers'))
    write(
        folder / 'config.json',
        {
            'model_type': 'clip',
            'text_config': {**TEXT_CONFIG, **dict(text)},
            'vision_config': {**VISION_CONFIG, **dict(vision)},
            'projection_dim': 32,
            **top,
        },
    )
    if preprocess is not None:
        write(folder / 'preprocessor_config.json', preprocess)
    return folder


def write(path, content):
    path.write_text(json.dumps(content), encoding='utf-8')

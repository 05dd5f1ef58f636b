"""A latent cache of the tiny workspace without running V and T, and ascend_configs/mindformers_tiny.yaml turned to
it."""

import numpy as np
import yaml

from diffdis_ms.config import load
from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPTextEncoder
from diffdis_ms.models.init import initialize
from diffdis_ms.storage.model_dir import parameters_to_numpy, save_model
from diffdis_ms.train.cache import CacheWriter, cache_key
from tests.workspace import ROOT, make_workspace

STEPS = 6
COMMON = {'max_steps': STEPS, 'log_every': 1, 'checkpoint_every': 3, 'ema_decay': 0.5}


class Encoders:
    """Latents and features of their own for every picture and caption."""

    def __init__(self, config):
        self.config, text = config, config.text_encoder
        self.shapes = (
            config.latent_shape,
            (text.max_position_embeddings, text.hidden_size),
            (1, text.projection_dim),
        )

    def encode_images(self, pixels):
        return np.stack(
            [
                np.random.default_rng([int(x.astype(np.int64).sum())]).standard_normal(self.shapes[0], np.float32)
                for x in pixels
            ]
        )

    def zero_latent(self):
        return self.encode_images(np.zeros((1, 3, self.config.image_size, self.config.image_size), np.float32))

    def encode_texts(self, texts):
        rngs = [np.random.default_rng(list(text.encode()) + [1]) for text in texts]
        c, e = (np.stack([rng.standard_normal(shape, np.float32) for rng in rngs]) for shape in self.shapes[1:])
        return c, e / np.linalg.norm(e, axis=-1, keepdims=True)


def make_cached_workspace(directory):
    """`make_workspace`, with towers/ (V, T, tokenizer), cache/, and cached.yaml: our config that trains from them."""
    make_workspace(directory)
    config = load(directory / 'diffdis.yaml')
    model, towers = config.model, directory / 'towers'
    networks = {'vae': AutoencoderKL(model.vae), 'text_encoder': CLIPTextEncoder(model.text_encoder)}
    save_model(
        towers,
        model,
        {stem: parameters_to_numpy(initialize(cell, 3) or cell) for stem, cell in networks.items()},
        Tokenizer.load(directory / 'tokenizer'),
    )
    CacheWriter(
        directory / 'cache',
        cache_key(towers, towers, model.image_size),
        dtype='float32',
        caption_set=open_captions(directory / 'data'),
        min_side=config.data.min_side,
    ).run(Encoders(model))
    ours = {
        'base': 'diffdis.yaml',
        'init': {'vae': str(towers), 'text_encoder': str(towers)},
        'data': {'cache': str(directory / 'cache')},
        'optimizer': {'learning_rate': 1e-3, 'new_learning_rate': 3e-3, 'warmup_steps': 4, 'weight_decay': 0.1},
        'train': COMMON,
    }
    (directory / 'cached.yaml').write_text(yaml.safe_dump(ours))
    return directory


def mindformers_yaml(directory, name='mindformers.yaml', **sections):
    """The tiny MindFormers YAML over directory/cached.yaml; keyword arguments replace sections. Returns its path."""
    config = yaml.safe_load((ROOT / 'ascend_configs/mindformers_tiny.yaml').read_text())
    config['model']['model_config'].update(
        config_file=str(directory / 'cached.yaml'), overrides=['runtime.compile_cache=false']
    )
    config.update(
        {
            'lr_schedule': {'type': 'ConstantWarmUpLR'},
            'runner_config': {'sink_mode': False},
            'output_dir': str(directory / 'formers'),
            **sections,
        }
    )
    (directory / name).write_text(yaml.safe_dump(config))
    return directory / name

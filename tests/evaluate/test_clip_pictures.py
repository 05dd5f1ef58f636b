"""A CLIP's pictures are resized and normalised as its own config says, in evaluation and in training."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.config import ImageEncoderConfig, ModelConfig, load
from diffdis_ms.data.samples import Sample
from diffdis_ms.data.transforms import to_pixels
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.clip_model import standardized
from diffdis_ms.evaluate.embedding import ClipEmbeddings, embed_set
from diffdis_ms.train.features import CLIPFeatures

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8))
SQUASH = ImageEncoderConfig(
    image_size=16,
    patch_size=8,
    resize_mode='squash',
    interpolation='bilinear',
    image_mean=[0.5] * 3,
    image_std=[0.25] * 3,
)


def test_evaluation_resizes_as_the_config_says():
    seen = []
    clip = SimpleNamespace(
        config=ModelConfig(image_encoder=SQUASH),
        batch_size=1,
        embed_images=lambda pixels: seen.append(pixels) or np.ones((1, 4)),
    )
    reader = SimpleNamespace(read=lambda i: Sample('key', PICTURE, 'a caption', 0))
    embed_set(
        ClipEmbeddings(clip),
        type('Set', (), {'__len__': lambda self: 1, 'read': lambda self, i: reader.read(i)})(),
        ['once'],
        progress=False,
    )
    np.testing.assert_array_equal(seen[0][0], to_pixels(PICTURE.resize((16, 16), Image.Resampling.BILINEAR)))


def test_training_normalises_as_the_config_says():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    ours, ids = CLIPFeatures(SQUASH)(SimpleNamespace(pixels=pixels, token_ids='ids'), 0)
    assert ids == 'ids'
    np.testing.assert_allclose(ours, (pixels / 255 - 0.5) / 0.25, atol=1e-5)
    np.testing.assert_array_equal(ours, standardized(pixels, SQUASH))


@pytest.mark.parametrize(
    'overrides, words',
    [
        (['model.image_encoder.image_mean=[0.5,0.5]'], 'image_mean.*three colours'),
        (['model.image_encoder.image_std=[0.5,0.5,0]'], 'image_std.*above 0'),
        (['model.image_encoder.image_mean=[0.5,0.5,.nan]'], 'image_mean.*finite'),
        (['model.text_encoder.layer_norm_eps=0'], 'text_encoder.layer_norm_eps'),
        (
            ['objective=clip', 'model.image_size=224', 'model.image_encoder.resize_mode=squash'],
            'resize_mode = squash.*training',
        ),
        (['model.image_encoder.resize_mode=longest'], 'resize_mode'),
        (['model.image_encoder.interpolation=cubic'], 'interpolation'),
    ],
)
def test_settings_out_of_range(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load(None, overrides)


def test_configs_written_before_these_settings_mean_openais(tmp_path):
    (tmp_path / 'config.yaml').write_text('image_encoder:\n  image_size: 224\n')
    assert load(tmp_path / 'config.yaml', schema=ModelConfig).image_encoder == ImageEncoderConfig()

"""CLIP-score: how well pictures fit their captions, after a CLIP of any architecture (the paper's: ResNet-50)."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor

from diffdis_ms.config import ConfigError, ModelConfig
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.data.transforms import clip_normalize, normalize, resize_center_crop, to_pixels
from diffdis_ms.encoders import in_batches
from diffdis_ms.evaluate.pictures import over_images, read_rgb
from diffdis_ms.files import sha256
from diffdis_ms.model_dir import load_weights, read_config
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder

TOWERS = ('image_encoder', 'text_encoder')


@dataclass
class ClipDirectory:
    """A CLIP whose networks are not built yet."""
    path: Path
    config: ModelConfig
    tokenizer: Tokenizer

    def sha256(self):
        """{tower: sha256 of its file}."""
        return {stem: sha256(self.path / f'{stem}.safetensors') for stem in TOWERS}


def open_clip_directory(path):
    """Read config and tokenizer of a model directory with a CLIP; ConfigError where something is missing."""
    path = Path(path)
    config = read_config(path)
    for stem in TOWERS:
        if not (path / f'{stem}.safetensors').is_file():
            raise ConfigError(f'{path} is not a CLIP: it lacks {stem}.safetensors; make it with `python -m ckpt_convert import --kind clip`')
    tokenizer = Tokenizer.load(path / 'tokenizer')
    if tokenizer.vocab_size != config.text_encoder.vocab_size:
        raise ConfigError(f'{path}: the tokenizer has {tokenizer.vocab_size} ids, the text encoder {config.text_encoder.vocab_size}')
    return ClipDirectory(path, config, tokenizer)


def clip_embeddings(clip, paths, captions, batch_size=32, progress=False):
    """Embeddings of pictures and of their captions.

    Args:
        clip: ClipDirectory. paths: of N pictures. captions: list of M strings; the end of a long one is cut off.

    Returns:
        float32 (N, D) and (M, D), L2-normalised.

    Raises:
        ConfigError: weights that do not fit, or a picture that cannot be decoded.
    """
    text, image = CLIPTextEncoder(clip.config.text_encoder), CLIPImageEncoder(clip.config.image_encoder)
    load_weights(text, clip.path / 'text_encoder.safetensors')
    load_weights(image, clip.path / 'image_encoder.safetensors')
    text.set_train(False), image.set_train(False)
    ids = clip.tokenizer.encode(list(captions), clip.config.text_encoder.max_position_embeddings)
    texts = in_batches(lambda x: text(Tensor(x))[1:], (ids,), batch_size, progress and 'CLIP: captions')[0][:, 0]
    size = clip.config.image_encoder.image_size
    images = over_images(image, lambda path: preprocess(read_rgb(path), size), paths, batch_size, progress and 'CLIP: pictures')
    return images, texts


def preprocess(image, size):
    """CLIP's: PIL RGB image -> float32 (3, size, size), shorter side resized (bicubic), centre cut out, mean and deviation taken out."""
    return clip_normalize(normalize(to_pixels(resize_center_crop(image, size))))


def clip_score(images, texts, clip=False, weight=100.0):
    """Mean over pairs of weight * cosine.

    Args:
        images, texts: (N, D), a pair a row, L2-normalised.
        clip: negative cosines count as 0. weight: 100 as in the paper; Hessel et al. (CLIPScore) take 2.5 and clip.
    """
    cosines = np.einsum('nd,nd->n', images.astype(np.float64), texts.astype(np.float64))
    return float(weight * (np.maximum(cosines, 0) if clip else cosines).mean())


def definition(clip, weight):
    """The score in words."""
    return f'mean over pairs of {weight:g} * {"max(cosine, 0)" if clip else "cosine"} of the image and text embedding'

"""A CLIP as a baseline: its model directory is evaluated by the same commands as DiffDis."""

from dataclasses import dataclass
from pathlib import Path

from mindspore import Tensor

from diffdis_ms.config import ModelConfig
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.data.transforms import clip_normalize, resize_center_crop
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.encoders import in_batches
from diffdis_ms.models.precision import store_precision
from diffdis_ms.models.prompt_ensemble import ensemble_labels
from diffdis_ms.storage.files import sha256
from diffdis_ms.storage.model_dir import load_weights, read_config

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
    """Read config and tokenizer of a CLIP model directory; ConfigError if something is missing."""
    path = Path(path)
    config = read_config(path)
    for stem in TOWERS:
        if not (path / f'{stem}.safetensors').is_file():
            raise ConfigError(
                f'{path} is not a CLIP: it lacks {stem}.safetensors; make it with `python -m ckpt_convert import --kind'
                ' clip`'
            )
    tokenizer = Tokenizer.load(path / 'tokenizer')
    if tokenizer.vocab_size != config.text_encoder.vocab_size:
        raise ConfigError(
            f'{path}: the tokenizer has {tokenizer.vocab_size} ids, the text encoder {config.text_encoder.vocab_size}'
        )
    return ClipDirectory(path, config, tokenizer)


def resized(image, encoder):
    """PIL image -> PIL image, resized as the ImageEncoderConfig requires."""
    return resize_center_crop(image, encoder.image_size, encoder.interpolation, encoder.resize_mode)


def standardized(pixels, encoder):
    """uint8 (..., 3, S, S) -> float32, normalised with mean and standard deviation of an ImageEncoderConfig."""
    return clip_normalize(pixels, encoder.image_mean, encoder.image_std)


class ClipModel:
    """Both towers of a CLIP and its tokenizer.

    Args:
        found: ClipDirectory. batch_size: images or texts per graph call. precision: see `DiffDisPipeline`.

    Raises:
        ConfigError: the weights do not fit.
    """

    def __init__(self, found, batch_size=32, precision='fp32'):
        self.config, self.tokenizer, self.batch_size = found.config, found.tokenizer, batch_size
        self.text, self.image = CLIPTextEncoder(found.config.text_encoder), CLIPImageEncoder(found.config.image_encoder)
        for stem, cell in (('text_encoder', self.text), ('image_encoder', self.image)):
            load_weights(cell, found.path / f'{stem}.safetensors')
            store_precision(cell, precision).set_train(False)

    def embed_images(self, pixels):
        """Images (N, 3, S, S) uint8 after `resized` -> (N, D) float32, L2-normalised."""
        encoder = self.config.image_encoder
        return in_batches(lambda x: (self.image(Tensor(standardized(x, encoder))),), (pixels,), self.batch_size)[0]

    def embed_texts(self, texts, progress=''):
        """list of N strings -> (N, D) float32, L2-normalised; long texts are truncated."""
        ids = self.tokenizer.encode(list(texts), self.config.text_encoder.max_position_embeddings)
        return in_batches(lambda x: self.text(Tensor(x))[1:], (ids,), self.batch_size, progress)[0][:, 0]

    def embed_labels(self, labels, templates):
        """Prompt ensembling as in `DiffDisPipeline.embed_labels`: (len(labels), D)."""
        return ensemble_labels(self.embed_texts, labels, templates, self.batch_size)

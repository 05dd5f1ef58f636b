"""A CLIP model directory, evaluated by the same commands as DiffDis: the baseline beside it."""
from mindspore import Tensor

from diffdis_ms.data.transforms import clip_normalize, normalize
from diffdis_ms.encoders import ensemble_labels, in_batches
from diffdis_ms.evaluate.clip_score import open_clip_directory
from diffdis_ms.model_dir import load_weights
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder


class ClipModel:
    """Both towers of a CLIP and its tokenizer.

    Args:
        directory: made by `ckpt_convert import` or by training with objective=clip. batch_size: of every graph call.

    Raises:
        ConfigError: no CLIP there, or weights that do not fit.
    """

    def __init__(self, directory, batch_size=32):
        found = open_clip_directory(directory)
        self.config, self.tokenizer, self.batch_size = found.config, found.tokenizer, batch_size
        self.text, self.image = CLIPTextEncoder(found.config.text_encoder), CLIPImageEncoder(found.config.image_encoder)
        for stem, cell in (('text_encoder', self.text), ('image_encoder', self.image)):
            load_weights(cell, found.path / f'{stem}.safetensors')
            cell.set_train(False)

    def embed_images(self, pixels):
        """(N, 3, S, S) uint8, resized already -> (N, D) float32, L2-normalised."""
        return in_batches(lambda x: (self.image(Tensor(clip_normalize(normalize(x)))),), (pixels,), self.batch_size)[0]

    def embed_texts(self, texts):
        """list of N strings -> (N, D) float32, L2-normalised."""
        ids = self.tokenizer.encode(list(texts), self.config.text_encoder.max_position_embeddings)
        return in_batches(lambda x: self.text(Tensor(x))[1:], (ids,), self.batch_size)[0][:, 0]

    def embed_labels(self, labels, templates):
        """As `DiffDisPipeline.embed_labels`: (len(labels), D)."""
        return ensemble_labels(self.embed_texts, labels, templates)

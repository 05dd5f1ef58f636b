"""Run the frozen networks around the UNet (V, D and T) on any number of images or texts, in batches of one size."""

import zlib

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from diffdis_ms.finite import check_finite
from diffdis_ms.models.autoencoder import LatentDecoder, LatentEncoder
from diffdis_ms.pixels import to_unit_range


class Encoders:
    """V, D and T with their tokenizer.

    Args:
        vae: AutoencoderKL. text_encoder: CLIPTextEncoder. tokenizer: Tokenizer. config: ModelConfig.
        batch_size: every graph is compiled for this many samples; a last, smaller batch is padded.
    """

    def __init__(self, vae, text_encoder, tokenizer, config, batch_size=32):
        self.vae, self.text_encoder, self.tokenizer, self.config, self.batch_size = (
            vae,
            text_encoder,
            tokenizer,
            config,
            batch_size,
        )
        self._encode, self._decode = LatentEncoder(vae), LatentDecoder(vae)
        self._zero = None  # (what V was, V(0))

    def encode_images(self, pixels, progress=False):
        """z = V(x): pixels (N, 3, H, W), uint8 or float32 in [-1, 1] -> (N, 4, H/8, W/8) float32, scaled posterior
        means."""
        return in_batches(
            lambda x: (self._encode(Tensor(to_unit_range(x))),),
            (pixels,),
            self.batch_size,
            progress and 'encoding images',
        )[0]

    def zero_latent(self):
        """V(0), the latent of the zero image: (1, 4, H/8, W/8) float32.

        It is computed once, in the graph that encodes images, and again only if V has changed. This is detected by V's
        biases and norms, which differ for other weights and after a training step.
        """
        vectors = [p.asnumpy() for p in self.vae.get_parameters() if len(p.shape) == 1]
        size, known = self.config.image_size, zlib.crc32(np.concatenate(vectors).tobytes())
        if self._zero is None or self._zero[0] != (size, known):
            self._zero = (size, known), self.encode_images(np.zeros((1, 3, size, size), np.float32))
        return self._zero[1]

    def decode_latents(self, z):
        """x = D(z): (N, 4, h, w) -> (N, 3, H, W) float32 in [-1, 1]; ConfigError if pixels are not finite."""
        x = in_batches(lambda x: (self._decode(Tensor(x.astype(np.float32))),), (z,), self.batch_size)[0]
        return np.clip(check_finite(x, 'latents'), -1, 1)

    def latent_scale(self, batches):
        """1 / standard deviation of the latents of batches of pixels (B, 3, H, W). It is V's `scaling_factor`, measured
        like Stable Diffusion's 0.18215."""
        return float(self.vae.scaling_factor / np.std([self.encode_images(pixels) for pixels in batches]))

    def encode_texts(self, texts, progress=False):
        """(c, e) = T(y): list of N strings -> (N, L, hidden) and (N, 1, projection_dim) float32."""
        return self.encode_ids(
            self.tokenizer.encode(list(texts), self.config.text_encoder.max_position_embeddings), progress
        )

    def embed_texts(self, texts):
        """Only e of `encode_texts`. c, which is 77 times as large, is dropped after each batch."""
        ids = self.tokenizer.encode(list(texts), self.config.text_encoder.max_position_embeddings)
        return in_batches(lambda x: self.text_encoder(Tensor(x))[1:], (ids,), self.batch_size)[0]

    def encode_ids(self, ids, progress=False):
        """(c, e) of token ids (N, L) int32, like `encode_texts`."""
        return in_batches(
            lambda x: self.text_encoder(Tensor(x)), (ids,), self.batch_size, progress and 'encoding texts'
        )


def in_batches(function, arrays, batch_size, progress=''):
    """Run `function(*batches) -> tuple of Tensors` over arrays of one length, always with `batch_size` rows.

    The last batch is padded with its own last row, and the result cut, so that one graph runs all batches.

    Args:
        progress: description of a progress bar, or '' for none.

    Returns:
        tuple of float32 arrays, one per output.
    """
    outputs = []
    for rows, kept in tqdm(
        padded_batches(len(arrays[0]), batch_size),
        desc=progress or None,
        disable=None if progress else True,
        leave=False,
    ):
        outputs.append(
            [
                np.asarray(o.asnumpy() if isinstance(o, Tensor) else o)[:kept].astype(np.float32, copy=False)
                for o in function(*(a[rows] for a in arrays))
            ]
        )
    return tuple(np.concatenate(rows) for rows in zip(*outputs, strict=True))


def padded_batches(n, batch_size):
    """List of (row indices, number of valid rows); the last batch is padded with its own last row."""
    return [
        (np.minimum(np.arange(start, start + batch_size), n - 1), min(batch_size, n - start))
        for start in range(0, n, batch_size)
    ]

"""Embed an image set in one pass. Each image is read and encoded once for any number of samplings."""

import json
from dataclasses import dataclass

import numpy as np

from diffdis_ms.data.stream.loader import read_pixels
from diffdis_ms.data.transforms import resize_center_crop
from diffdis_ms.diffusion.process import starting_noise
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.evaluate.clip_model import resized
from diffdis_ms.evaluate.shared import Share, shared_pass
from diffdis_ms.finite import check_finite


@dataclass(frozen=True)
class Sampling:
    """How the text query is generated from an image: steps, guidance weight w and seed of the initial noise."""

    steps: int = 8
    guidance_weight: float = 3.0
    seed: int = 0


@dataclass
class Embedded:
    """An embedded set. All lists and rows are in the set's order, without samples that could not be used.

    Attributes:
        e0: {Sampling: (N, D) float32}. labels: N ints or None. captions, keys: N strings. indices: (N,) positions in
            the set.
        skipped: {key: reason}.
    """

    e0: dict[Sampling, np.ndarray]
    labels: list
    captions: list[str]
    keys: list[str]
    indices: np.ndarray
    skipped: dict[str, str]


class GeneratedQueries:
    """DiffDis as an image encoder: e0 generated from the image (Algorithm 3), L2-normalised."""

    def __init__(self, pipe):
        self.pipe, self.image_size, self.batch_size = pipe, pipe.config.image_size, pipe.batch_size
        self.resize = resize_center_crop  # (image, size) -> image

    def __call__(self, pixels, indices, samplings):
        """Pixels (B, 3, H, W) uint8 and the images' positions in the set -> [(B, D) float32 for each Sampling]."""
        z, size = self.pipe.encode_images(pixels), self.pipe.config.text_encoder.projection_dim
        return [
            self.pipe.embed_latents(z, s.steps, s.guidance_weight, noise=starting_noise(indices, s.seed, (1, size)))
            for s in samplings
        ]


class ClipEmbeddings:
    """A CLIP's image encoder. It involves no sampling, so each Sampling gets the same embeddings."""

    def __init__(self, clip):
        self.clip, self.image_size, self.batch_size = clip, clip.config.image_encoder.image_size, clip.batch_size

    def resize(self, image, size):
        """PIL image -> PIL image, size x size."""
        return resized(image, self.clip.config.image_encoder)

    def __call__(self, pixels, indices, samplings):
        return [self.clip.embed_images(pixels)] * len(samplings)


def embed_set(encoder, reader, samplings, limit=None, share=Share(), progress=True, allow_missing=False):
    """Embed an image set.

    Args:
        encoder: GeneratedQueries or ClipEmbeddings. reader: `len()` and `.read(i) -> Sample`; `read` is called from
            several threads.
        samplings: list of Sampling. limit: use only the first `limit` samples. share: Share of this process in the
            work.
        allow_missing: leave out samples that cannot be used; `Embedded.skipped` names them.

    Returns:
        Embedded.

    Raises:
        ConfigError: a sample cannot be used (unless allow_missing) or none can, an embedding is not finite, or limit is
            below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f'limit: {limit} is below 1')
    lost = dict(getattr(reader, 'skipped', {}))
    if not (limit or allow_missing):
        lost.update(dict.fromkeys(getattr(reader, 'missing', ()), 'no such image file'))
    if not allow_missing:
        refuse_skipped(lost)
    parts = shared_pass(
        min(len(reader), limit or len(reader)),
        encoder.batch_size,
        lambda i: read_pixels(reader, i, encoder.image_size, encoder.resize),
        lambda places, rows: _embed(encoder, places, rows, samplings, allow_missing),
        share,
        progress=progress and 'embedding images',
    )
    return _join(parts, samplings, lost)


def refuse_skipped(skipped):
    """Raise ConfigError if `skipped`, {key: reason} of samples that cannot be used, is not empty.

    A metric over part of a set is not comparable to the metric over the whole set.
    """
    if skipped:
        key, reason = next(iter(skipped.items()))
        more = f' and {len(skipped) - 1} more, for example {list(skipped)[-1]}' if len(skipped) > 1 else ''
        raise ConfigError(
            f'{key}: {reason}{more}; a metric over part of a set cannot be compared: repair the set, or '
            'leave these images out with --allow-missing, which names them in the result'
        )


def _embed(encoder, places, rows, samplings, allow_missing=False):
    """Embed one batch; returns arrays for an .npz file.

    An unusable image raises before a file is written, so that it is read again once it is repaired.
    """
    pixels, indices, labels, about = [], [], [], {'captions': [], 'keys': [], 'skipped': {}}
    for i, row in zip(places, rows, strict=True):
        if isinstance(row, BadSample):
            about['skipped'][row.key] = row.reason
            continue
        pixels.append(row[0])
        indices.append(i)
        labels.append(-1 if row[2] is None else row[2])
        about['captions'].append(row[1])
        about['keys'].append(row[3])
    if not allow_missing:
        refuse_skipped(about['skipped'])
    arrays = {
        'indices': np.array(indices, np.int64),
        'labels': np.array(labels, np.int64),
        'about': np.frombuffer(json.dumps(about).encode(), np.uint8),
    }
    if pixels:
        filled = np.minimum(np.arange(encoder.batch_size), len(pixels) - 1)  # one shape, one graph
        results = encoder(np.stack(pixels)[filled], np.array(indices)[filled], samplings)
        arrays.update(
            {
                f'e0_{k}': check_finite(np.asarray(e0)[: len(pixels)], 'images', about['keys'])
                for k, e0 in enumerate(results)
            }
        )
    return arrays


def _join(parts, samplings, skipped):
    about = [json.loads(part['about'].tobytes()) for part in parts]
    skipped = {**skipped, **{key: reason for a in about for key, reason in a['skipped'].items()}}
    full = [part for part in parts if len(part['indices'])]
    if not full:
        raise ConfigError(f'no sample can be used; the first: {next(iter(skipped.items()), "the set is empty")}')
    return Embedded(
        {s: np.concatenate([part[f'e0_{k}'] for part in full]) for k, s in enumerate(samplings)},
        [None if label < 0 else int(label) for part in full for label in part['labels']],
        [c for a in about for c in a['captions']],
        [k for a in about for k in a['keys']],
        np.concatenate([part['indices'] for part in full]),
        skipped,
    )

"""From an image set to embeddings in one pass: each image is read and encoded once, however many samplings are asked for.

The pass is cut into batches of fixed content. Any number of processes share them, and each finished batch is a file, so that
a killed run goes on where it was and the result is the same to the last bit for one process and for many.
"""
import hashlib
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

import numpy as np
from tqdm import tqdm

from diffdis_ms.config import ConfigError
from diffdis_ms.data.loader import ordered_map, read_pixels
from diffdis_ms.data.webdataset import BadSample
from diffdis_ms.diffusion.process import starting_noise
from diffdis_ms.files import whole_file

READERS = 2                                      # threads that decode images


@dataclass(frozen=True)
class Sampling:
    """How the text query is generated from an image: steps and weight w of the guidance, seed of the noise it starts from."""
    steps: int = 8
    guidance_weight: float = 3.0
    seed: int = 0


@dataclass
class Embedded:
    """An embedded set; all lists and rows in the set's order, without the samples that could not be used.

    Attributes:
        e0: {Sampling: (N, D) float32}. labels: N ints or None. captions, keys: N strings. indices: (N,) places in the set.
        skipped: {key: reason}.
    """
    e0: Dict[Sampling, np.ndarray]
    labels: list
    captions: List[str]
    keys: List[str]
    indices: np.ndarray
    skipped: Dict[str, str]


class GeneratedQueries:
    """DiffDis as an image encoder: e0 generated from the image (Algorithm 3), L2-normalised."""

    def __init__(self, pipe):
        self.pipe, self.image_size, self.batch_size = pipe, pipe.config.image_size, pipe.batch_size

    def __call__(self, pixels, indices, samplings):
        """pixels (B, 3, H, W) uint8 and the images' places in the set -> [(B, D) float32, one a Sampling]."""
        z, size = self.pipe.encode_images(pixels), self.pipe.config.text_encoder.projection_dim
        return [self.pipe.embed_latents(z, s.steps, s.guidance_weight, noise=starting_noise(indices, s.seed, (1, size))) for s in samplings]


class ClipEmbeddings:
    """A CLIP's image encoder; it has no sampling, so that each Sampling gets the same."""

    def __init__(self, clip):
        self.clip, self.image_size, self.batch_size = clip, clip.config.image_encoder.image_size, clip.batch_size

    def __call__(self, pixels, indices, samplings):
        return [self.clip.embed_images(pixels)] * len(samplings)


def embed_set(encoder, reader, samplings, limit=None, parts=None, rank=0, size=1, progress=True):
    """Embed an image set.

    Args:
        encoder: GeneratedQueries or ClipEmbeddings. reader: `len()` and `.read(i) -> Sample`.
        samplings: list of Sampling. limit: only the first so many samples.
        parts: directory for finished batches, shared by all processes; None: keep them in memory (one process only).
        rank, size: of this process. Each takes every size-th batch, then helps with what the others have not finished.

    Returns:
        Embedded.

    Raises:
        ConfigError: no sample can be used, or limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f'limit: {limit} is below 1')
    count, b = min(len(reader), limit or len(reader)), encoder.batch_size
    batches = [range(start, min(start + b, count)) for start in range(0, count, b)]
    own = list(range(rank, len(batches), size))
    others = [i for i in reversed(range(len(batches))) if i % size != rank]      # from the end: their owners come from the front
    if parts is not None:
        parts.mkdir(parents=True, exist_ok=True)
    done = {}
    with ThreadPoolExecutor(READERS) as pool:
        for i in tqdm(own + others, desc='embedding images', disable=None if progress else True, leave=False):
            part = _load(parts, i)
            if part is None:
                part = _embed(encoder, reader, batches[i], samplings, pool)
                _save(parts, i, part)
            done[i] = part
    return _join([done[i] for i in range(len(batches))], samplings, getattr(reader, 'skipped', {}))


def parts_directory(out, **identity):
    """Where the finished batches of a result file lie: beside it, and named after all that decides their content."""
    out = Path(out)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return out.with_name(f'.{out.name}.{key}.parts')


def _embed(encoder, reader, rows, samplings, pool):
    """One batch: arrays for an .npz file."""
    pixels, indices, labels, about = [], [], [], {'captions': [], 'keys': [], 'skipped': {}}
    for i, row in ordered_map(pool, lambda i: read_pixels(reader, i, encoder.image_size), rows, 4 * READERS):
        if isinstance(row, BadSample):
            about['skipped'][row.key] = row.reason
            continue
        pixels.append(row[0])
        indices.append(i)
        labels.append(-1 if row[2] is None else row[2])
        about['captions'].append(row[1])
        about['keys'].append(row[3])
    arrays = {'indices': np.array(indices, np.int64), 'labels': np.array(labels, np.int64),
              'about': np.frombuffer(json.dumps(about).encode(), np.uint8)}
    if pixels:
        filled = np.minimum(np.arange(encoder.batch_size), len(pixels) - 1)      # one graph serves every batch
        results = encoder(np.stack(pixels)[filled], np.array(indices)[filled], samplings)
        arrays.update({f'e0_{k}': np.asarray(e0)[:len(pixels)] for k, e0 in enumerate(results)})
    return arrays


def _save(parts, i, arrays):
    if parts is None or not parts.is_dir():      # gone: another process had all of it, and the result is written
        return
    with whole_file(parts / f'{i:06d}.npz') as f:
        np.savez(f, **arrays)


def _load(parts, i):
    """A finished batch, or None; a damaged file counts as unfinished."""
    if parts is None or not (parts / f'{i:06d}.npz').is_file():
        return None
    try:
        with np.load(io.BytesIO((parts / f'{i:06d}.npz').read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _join(parts, samplings, skipped):
    about = [json.loads(part['about'].tobytes()) for part in parts]
    skipped = {**skipped, **{key: reason for a in about for key, reason in a['skipped'].items()}}
    full = [part for part in parts if len(part['indices'])]
    if not full:
        raise ConfigError(f'none of the samples can be used; the first: {next(iter(skipped.items()), "the set is empty")}')
    return Embedded({s: np.concatenate([part[f'e0_{k}'] for part in full]) for k, s in enumerate(samplings)},
                    [None if label < 0 else int(label) for part in full for label in part['labels']],
                    [c for a in about for c in a['captions']], [k for a in about for k in a['keys']],
                    np.concatenate([part['indices'] for part in full]), skipped)

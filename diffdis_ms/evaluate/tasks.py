"""From a model and a data set to a result: what `tools/evaluate.py` and the demo call."""
import json
import os
import time
from pathlib import Path

import numpy as np

from diffdis_ms.config import ConfigError
from diffdis_ms.data.class_names import read_labels
from diffdis_ms.data.folders import ImageFolder, open_captions
from diffdis_ms.data.loader import read_all
from diffdis_ms.data.webdataset import CaptionSet
from diffdis_ms.evaluate.retrieval import retrieval_metrics
from diffdis_ms.evaluate.zeroshot import zeroshot_metrics
from diffdis_ms.files import sha256
from diffdis_ms.model_dir import MANIFEST

ZEROSHOT_SETS = ('emoji', 'folder', 'webdataset')
RETRIEVAL_SETS = ('emoji', 'captions')


class ImageEmbeddings:
    """A read set with the e0 generated for each image; classification and retrieval share it."""

    def __init__(self, pipe, caption_set, steps, guidance_weight, seed, limit=None):
        self.samples = read_all(_first(caption_set, limit), pipe.config.image_size)
        self.z = pipe.encode_images(self.samples.pixels)
        self.e0 = pipe.embed_latents(self.z, steps, guidance_weight, seed, progress=True)


def zeroshot(pipe, embeddings, class_names, templates):
    """Metrics of `zeroshot_metrics`; labels come with the samples."""
    labels = embeddings.samples.labels
    if any(label is None or not 0 <= label < len(class_names) for label in labels):
        raise ConfigError(f'a label of the data set is missing or not in 0..{len(class_names) - 1}, the {len(class_names)} class names: '
                          'is this the right list?')
    return zeroshot_metrics(embeddings.e0, pipe.embed_labels(class_names, templates), labels)


def retrieval(pipe, embeddings):
    """Metrics of `retrieval_metrics`; each image has one caption."""
    e = pipe.embed_texts(embeddings.samples.captions)
    return retrieval_metrics(embeddings.e0, e, np.arange(len(e)))


def open_zeroshot(dataset, data_root, classnames=None):
    """(images, class names) of a classification set.

    Args:
        dataset: 'emoji' (tools/prepare_data.py emoji), 'folder' (root/<class>/<images>) or 'webdataset' (tars with .cls).
        data_root: where it lies. classnames: names instead of the set's own (see `class_names.read_labels`).

    Raises:
        ConfigError: unknown data set; nothing there; no class names.
    """
    if dataset not in ZEROSHOT_SETS:
        raise ConfigError(f'dataset: {dataset!r} is none of {", ".join(ZEROSHOT_SETS)}')
    images = ImageFolder(data_root) if dataset == 'folder' else CaptionSet(_emoji_root(data_root, dataset), require_caption=False)
    names = read_labels(classnames, dataset=dataset) if classnames else images.class_names
    if not names:
        raise ConfigError(f'{data_root} has no classnames.txt; give the names with --classnames FILE')
    return images, names


def open_retrieval(dataset, data_root):
    """Image-caption pairs: 'emoji' (its held-out part) or 'captions' (tars, a csv `dir,text`)."""
    if dataset not in RETRIEVAL_SETS:
        raise ConfigError(f'dataset: {dataset!r} is none of {", ".join(RETRIEVAL_SETS)}')
    return open_captions(_emoji_root(data_root, dataset))


def protocol(pipe, model_directory, **settings):
    """What has to be known to repeat an evaluation."""
    manifest = json.loads((Path(model_directory) / MANIFEST).read_text())
    return {**settings, 'gamma': pipe.config.text_diffusion.gamma, 'resize': f'bicubic, centre crop, {pipe.config.image_size}',
            'weights_sha256': manifest['files'].get('unet.safetensors') or sha256(Path(model_directory) / 'unet.safetensors')}


def write_result(path, result, started):
    """One result file, whole or not at all; `seconds` is the time since `started` (time.monotonic)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.write_text(json.dumps({**result, 'seconds': time.monotonic() - started}, indent=1) + '\n')
    os.replace(temporary, path)


def _emoji_root(data_root, dataset):
    root = Path(data_root)
    return root / 'held_out' if dataset == 'emoji' and (root / 'held_out').is_dir() else root


def _first(caption_set, limit):
    if limit is None or limit >= len(caption_set):
        return caption_set
    if limit < 1:
        raise ConfigError(f'limit: {limit} is below 1')
    return _Head(caption_set, limit)


class _Head:
    """The first samples of a set."""

    def __init__(self, caption_set, size):
        self.read, self.size = caption_set.read, size
        self.skipped = {}

    def __len__(self):
        return self.size

"""Inception features for FID: torch-fidelity's preprocessing, the network, and a cache of features."""

import hashlib
import os
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn
from safetensors.numpy import save

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.pictures import over_images, read_rgb
from diffdis_ms.evaluate.shared import Share
from diffdis_ms.models.inception import InceptionV3
from diffdis_ms.models.init import fresh
from diffdis_ms.models.names import field_name
from diffdis_ms.storage.files import whole_file
from diffdis_ms.storage.model_dir import MANIFEST
from diffdis_ms.storage.reader import open_checkpoint
from diffdis_ms.text_files import read_json

SIZE, WIDTH = 299, 2048
PREPROCESSING = 'RGB as stored, TF1 bilinear resize to 299 x 299 without antialiasing, (x - 128) / 128'
PUBLISHED = '6726825d'  # start of the sha256 of pt_inception-2015-12-05-6726825d.pth
VERSION = 1  # of the preprocessing and the features; caches of other versions are not used


class Features(nn.Cell):
    """The first output of Inception: pixels (B, 3, 299, 299) -> (B, 2048)."""

    def __init__(self, inception):
        super().__init__(auto_prefix=False)
        self.inception = inception

    def construct(self, x):
        return self.inception(x)[0]


def open_inception(path):
    """Open the weights without building the network.

    Args:
        path: the published .pth, any file that ckpt_convert reads, or a directory made by `ckpt_convert import`.

    Returns:
        (the file's path, {name: LazyTensor}).

    Raises:
        ConfigError: the file is missing, or not a checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        path = path / 'inception.safetensors'
    if not path.is_file():
        raise ConfigError(
            f'Inception weights: {path} does not exist; give --inception pt_inception-2015-12-05-6726825d.pth '
            'or a directory that `python -m ckpt_convert import` made from it'
        )
    return path, open_checkpoint(path).tensors


def is_published(path, digest):
    """Whether weights are FID's published ones, or were imported from them.

    FID and KID with other weights can only be compared with results of the same weights.

    Args:
        path: path of the weights. digest: sha256 of that file.
    """
    digests = [digest]
    try:
        manifest = read_json(path.parent / MANIFEST)
        if manifest['files'].get(path.name) == digest:
            digests += [source['sha256'] for source in manifest['converted_from']['sources']]
    except (ConfigError, KeyError, TypeError, AttributeError):
        pass  # not made by ckpt_convert
    return any(str(d).startswith(PUBLISHED) for d in digests)


def write_random_inception(path, seed=0):
    """Write random weights with the published names as float16 safetensors, to try FID and KID without a download.

    Each layer keeps the scale of its input (variance 2 / fan_in before a ReLU), so that different images have
    different features.
    """
    arrays = {}
    for p in InceptionV3().get_parameters():
        value = fresh(p.name, p.shape, seed)
        # +-1/sqrt(fan_in): variance 1/3
        arrays[field_name(p.name)] = (value * np.float32(6**0.5) if value.ndim == 4 else value).astype(np.float16)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(save(arrays))


def build_inception(path, tensors):
    """Build the network with the weights of `open_inception`.

    Raises:
        ConfigError: parameters are missing, unexpected, of another shape or not floating point; the message names up
            to three.
    """
    cell, wrong, used = InceptionV3(), [], set()
    for p in cell.get_parameters():
        name = field_name(p.name) if field_name(p.name) in tensors else p.name  # `ckpt_convert import` keeps our names
        tensor = tensors.get(name)
        used.add(name)
        if tensor is None:
            wrong.append(f'{field_name(p.name)} is missing')
        elif tensor.shape != tuple(p.shape) or tensor.kind not in ('F64', 'F32', 'F16', 'BF16'):
            wrong.append(f'{name} is {tensor.kind} {tensor.shape}, expected floating point {tuple(p.shape)}')
        elif not wrong:
            p.set_data(Tensor(tensor.numpy().astype(np.float32)))
    wrong += [
        f'{name} is unexpected' for name in tensors if name not in used and not name.endswith('.num_batches_tracked')
    ]
    if wrong:
        more = f' (and {len(wrong) - 3} more)' if len(wrong) > 3 else ''
        raise ConfigError(f'{path} is not the Inception of FID: {"; ".join(wrong[:3])}{more}')
    return Features(cell).set_train(False)


def resize(pixels, size):
    """TensorFlow 1's bilinear resize, without antialiasing or half-pixel centres.

    (H, W, C) of any type -> float32 (size, size, C).
    """
    x = pixels.astype(np.float32)
    # rows first: the order changes the last digit
    x = _resize_rows(x.transpose(1, 0, 2), size).transpose(1, 0, 2)
    return _resize_rows(x, size)


def preprocess(image):
    """PIL RGB image -> float32 (3, 299, 299), the network's input."""
    return np.ascontiguousarray(((resize(np.asarray(image), SIZE) - 128) / 128).transpose(2, 0, 1))


def inception_features(network, paths, batch_size=32, progress='', share=Share(), name='pictures'):
    """float32 (N, 2048) features of images; see `pictures.over_images`. ConfigError if one cannot be decoded."""
    return over_images(network, lambda path: preprocess(read_rgb(path)), paths, batch_size, progress, share, name)


def cache_file(cache_dir, images_sha256, weights_sha256, device='CPU'):
    """Path of a set's cached features: a separate file for each content of images and weights, each device ('CPU', or
    the chip's name, which rounds in its own way) and each VERSION.

    cache_dir None means $XDG_CACHE_HOME/diffdis_ms/features, by default ~/.cache/diffdis_ms/features.
    """
    if cache_dir is None:
        cache_dir = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'diffdis_ms' / 'features'
    where = '' if device == 'CPU' else f' {device}'
    key = hashlib.sha256(f'{VERSION} {images_sha256} {weights_sha256}{where}'.encode()).hexdigest()
    return Path(cache_dir) / f'{key}.npz'


def read_cached(path, count):
    """Read float32 (count, 2048) from a cache file; None if there is no file, or with a warning if it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            features = file['features']
        if features.dtype == np.float32 and features.shape == (count, WIDTH) and np.isfinite(features).all():
            return features
        reason = f'{features.dtype} {features.shape} in it'
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as e:
        reason = ' '.join(str(e).split())
    warnings.warn(f'cached features {path} are damaged ({reason}); computing them again', stacklevel=2)
    return None


def write_cached(path, features):
    """Write a cache file completely; if that is not possible, warn and go on without a cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.savez(file, features=features)
    except OSError as e:
        warnings.warn(f'features cannot be cached in {path.parent}: {e.strerror or e}', stacklevel=2)


def _resize_rows(x, size):
    """Resize linearly along the first axis; output i is at position i * rows / size."""
    position = np.arange(size, dtype=np.float32) * np.float32(len(x) / size)
    low = position.astype(np.int64)
    fraction = (position - low.astype(np.float32))[:, None, None]
    return x[low] + (x[np.minimum(low + 1, len(x) - 1)] - x[low]) * fraction

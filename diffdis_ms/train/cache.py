"""Make the latent cache (`data.cache`), with which training does not run V and T, and check that it is not stale."""

import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tqdm import tqdm

from diffdis_ms.config import to_yaml
from diffdis_ms.data.stream.check import fingerprint, good_samples
from diffdis_ms.data.stream.latent_cache import CONSTANTS, SUMMARY, part_path, write_part
from diffdis_ms.data.stream.loader import read_good
from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.files import sha256, whole_file
from diffdis_ms.storage.model_dir import read_config
from diffdis_ms.text_files import read_json
from diffdis_ms.world import World

VERSION = 1  # of resizing, cropping and the stored data; caches of other versions are stale
PART = 1024  # samples per file
WAIT = 600  # seconds


def cache_key(vae, text_encoder, image_size, precision='fp32', device='CPU'):
    """sha256 of everything that determines z, c and e of an image and a caption.

    Args:
        vae, text_encoder: model directories; vae.safetensors of the first, and text_encoder.safetensors and tokenizer/
            of the second are hashed.
        image_size: pixels to which images are resized and cropped.
        precision, device: in which precision, and on which chip, V and T run ('CPU', or its name).

    Raises:
        ConfigError: a directory is not a model directory, or a file is missing.
    """
    vae, text_encoder = Path(vae), Path(text_encoder)
    files = [
        vae / 'vae.safetensors',
        text_encoder / 'text_encoder.safetensors',
        *sorted((text_encoder / 'tokenizer').glob('*')),
    ]
    contents = {
        'version': VERSION,
        'image_size': image_size,
        'vae': to_yaml(read_config(vae).vae),
        'text_encoder': to_yaml(read_config(text_encoder).text_encoder),
    }
    if (precision, device) != ('fp32', 'CPU'):  # for which caches of earlier versions stay valid
        contents.update(precision=precision, device=device)
    for file in files:
        if not file.is_file():
            raise ConfigError(f'{file} does not exist: is this a complete model directory?')
        contents[file.name] = sha256(file)
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def check_key(cache, config):
    """Raise ConfigError if a `LatentCache` was made with other weights or another image size than in a config."""
    made_by = cache.precision, cache.device
    if cache.key != cache_key(config.init.vae, config.init.text_encoder, config.model.image_size, *made_by):
        raise ConfigError(
            f'data.cache: {config.data.cache} is stale: it was made with other weights than init.vae and'
            ' init.text_encoder, another tokenizer or another image_size; make it again with tools/cache_latents.py'
        )


def check_data(cache, caption_set, config):
    """Raise ConfigError if a `LatentCache` was not made from the caption set."""
    if cache.data != fingerprint(caption_set, config.data.min_side):
        raise ConfigError(
            f'data.cache: {config.data.cache} is not of the data set {config.data.path} as it is now; make it again'
            ' with tools/cache_latents.py (or set data.path= to use it anyway)'
        )


class CacheWriter:
    """Write a cache directory part by part. Existing parts are not made again.

    Args:
        out: directory. key: `cache_key`. dtype: 'float32' or 'float16', as stored. caption_set: the set to cache.
        min_side: see `good_samples`. precision, device: those of `key`.
        num_workers: threads that read. world: World; each process makes its share of the parts.
        overwrite: replace a cache with another key.

    Raises:
        ConfigError: `out` is not a cache, or a cache with another key.
    """

    def __init__(
        self,
        out,
        key,
        *,
        dtype,
        caption_set,
        min_side,
        precision='fp32',
        device='CPU',
        num_workers=2,
        world=World(),
        overwrite=False,
    ):
        self.out, self.caption_set, self.num_workers, self.world = Path(out), caption_set, num_workers, world
        begun = {'key': key, 'data': fingerprint(caption_set, min_side), 'dtype': dtype}
        begun.update(precision=precision, device=device)
        mark = self.out / 'begun.json'
        if (
            self.out.exists()
            and not self.out.is_dir()
            or self.out.is_dir()
            and any(self.out.iterdir())
            and not mark.is_file()
        ):
            raise ConfigError(f'{out} exists and is not a cache; name another directory')
        if mark.is_file() and _differs(mark, begun):
            if not overwrite:
                raise ConfigError(
                    f'{out} is a cache of other weights, data, precision or device; name another directory or add'
                    ' --overwrite'
                )
            self._replace(mark, begun)
        self.out.mkdir(parents=True, exist_ok=True)
        if not mark.is_file():
            with whole_file(mark) as f:
                f.write(json.dumps(begun).encode())
        self.good, self.skipped = good_samples(caption_set, min_side, self.out, num_workers, world)
        if not len(self.good):
            raise ConfigError(f'none of the {len(caption_set)} samples can be used')
        self.begun, self.starts = begun, list(range(0, len(self.good), PART))

    def run(self, encoders):
        """Make this process' parts. The process that finds all parts complete finishes the cache.

        Returns:
            Whether this process finished the cache.

        Args:
            encoders: Encoders.
        """
        size = encoders.config.image_size
        own = self.world.share(range(len(self.starts)))
        with (
            ThreadPoolExecutor(self.num_workers) as pool,
            tqdm(total=sum(len(self._rows(k)) for k in own), desc='caching', disable=None, unit='') as bar,
        ):
            for k in own:
                rows = self._rows(k)
                if not self._is_there(k):
                    pixels, captions = zip(
                        *pool.map(lambda i: read_good(self.caption_set, int(i), size), rows), strict=True
                    )
                    z = encoders.encode_images(np.stack(pixels))
                    c, e = encoders.encode_texts(captions)
                    write_part(self.out, k, list(zip(z, c, e, captions, rows, strict=True)), self.begun['dtype'])
                bar.update(len(rows))
        if not all(self._is_there(k) for k in range(len(self.starts))):
            return False
        self._finish(encoders)
        return True

    def _replace(self, mark, begun):
        """Delete the old cache in the first process, and wait for that in the others."""
        if self.world.first:
            shutil.rmtree(self.out)
            return
        deadline = time.monotonic() + WAIT
        while not mark.is_file() or _differs(mark, begun):
            if time.monotonic() > deadline:
                raise ConfigError(f'{self.out}: the first process has not deleted the old cache within {WAIT} s')
            time.sleep(0.1)

    def _rows(self, number):
        return self.good[self.starts[number] : self.starts[number] + PART]

    def _is_there(self, number):
        path = part_path(self.out, number)
        return path.is_file() and path.with_name(path.name + '.db').is_file()

    def _finish(self, encoders):
        zero = encoders.zero_latent()
        empty, query = encoders.encode_texts([''])
        with whole_file(self.out / CONSTANTS) as f:
            f.write(save({'zero_latent': zero, 'empty_context': empty, 'good': self.good.astype(np.int64)}))
        summary = {
            **self.begun,
            'num_samples': len(self.caption_set),
            'num_parts': len(self.starts),
            'num_skipped': len(self.skipped),
            'shapes': {'z': zero.shape[1:], 'c': empty.shape[1:], 'e': query.shape[1:]},
        }
        with whole_file(self.out / SUMMARY) as f:
            f.write(json.dumps(summary, indent=1).encode())


def _differs(mark, begun):
    """Whether begun.json differs from `begun` or is damaged, in which case the cache counts as one of other data."""
    try:
        return read_json(mark) != begun
    except ConfigError:
        return True

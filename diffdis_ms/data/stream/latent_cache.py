"""The latent cache: latents and text features computed once. tools/cache_latents.py writes it, training reads it.

It is a directory with these files:

cache.json            key, data (fingerprint of the data set), dtype, shapes, number of samples and of parts;
                      written last
constants.safetensors zero_latent (1, 4, h, w), empty_context (1, L, hidden), good (N,): which
                      samples of the set are in the cache
part_00000.mindrecord rows in the order of `good`: z, c, e (bytes), caption, index
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from diffdis_ms.data.sources.mindrecord_file import SUFFIX, Records, close_writer, open_writer
from diffdis_ms.data.stream.order import Stream
from diffdis_ms.data.stream.workers import BATCHES_AHEAD, ordered_map
from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.files import flush
from diffdis_ms.text_files import read_json
from diffdis_ms.world import World

SUMMARY, CONSTANTS = 'cache.json', 'constants.safetensors'
SCHEMA = {
    'index': {'type': 'int64'},
    'caption': {'type': 'string'},
    'z': {'type': 'bytes'},
    'c': {'type': 'bytes'},
    'e': {'type': 'bytes'},
}
ARRAYS = ('z', 'c', 'e')
DTYPES = {'float32': np.float32, 'float16': np.float16}


@dataclass
class LatentBatch:
    """A batch for a training step, from a cache."""

    z: np.ndarray  # float32 (B, 4, h, w)
    c: np.ndarray  # float32 (B, L, hidden)
    e: np.ndarray  # float32 (B, 1, D)
    captions: list[str]
    indices: np.ndarray  # int64 (B,): positions in the caption set


class LatentCache:
    """A finished cache.

    Attributes:
        key, data: what it was made with, and from which data. precision, device: in and on which V and T ran.
        good: int64 (N,). num_samples: number of samples in the data set. zero_latent, empty_context: float32.
    """

    def __init__(self, directory):
        """Raises ConfigError if the directory is not a cache, not finished, or damaged."""
        directory = Path(directory)
        if not directory.is_dir():
            raise ConfigError(f'data.cache: {directory} does not exist; make it with tools/cache_latents.py')
        for name in (SUMMARY, CONSTANTS):
            if not (directory / name).exists():
                raise ConfigError(
                    f'data.cache: {directory / name} is missing: {directory} is not a finished cache; run'
                    ' tools/cache_latents.py again'
                )
        try:
            summary = read_json(directory / SUMMARY)
            self.key, self.data, self.num_samples = str(summary['key']), summary['data'], int(summary['num_samples'])
            self.dtype, parts = np.dtype(DTYPES[summary['dtype']]), int(summary['num_parts'])
            self.precision, self.device = str(summary.get('precision', 'fp32')), str(summary.get('device', 'CPU'))
            self.shapes = {name: tuple(int(n) for n in summary['shapes'][name]) for name in ARRAYS}
            constants = load_file(directory / CONSTANTS)
            self.good, self.zero_latent, self.empty_context = (
                constants[name] for name in ('good', 'zero_latent', 'empty_context')
            )
        except (ConfigError, OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
            raise ConfigError(
                f'data.cache: {directory} is damaged ({" ".join(str(e).split())}); make it again'
            ) from None
        self._records = Records(directory)
        if len(self._records.paths) != parts or len(self._records) != len(self.good) or self._records.skipped:
            raise ConfigError(
                f'data.cache: {directory} has {len(self._records)} rows in {len(self._records.paths)} readable'
                f' parts, but {len(self.good)} in {parts} are expected; make it again'
            )

    def read(self, row):
        """Read (z, c, e, caption, index) of a row; ConfigError if it is damaged."""
        try:
            fields, blobs = self._records.row(row)
            arrays = [
                np.frombuffer(blobs[name], self.dtype).reshape(self.shapes[name]).astype(np.float32) for name in ARRAYS
            ]
            return (*arrays, str(fields['caption']), int(fields['index']))
        except (ValueError, KeyError, TypeError) as e:
            raise ConfigError(
                f'data.cache: row {row} of {self._records.folder} is damaged ({e}); make the cache again'
            ) from None


class CachedLoader(Stream):
    """Endless batches from a cache, in the same order as the `Loader`'s over the data set that it was made from."""

    def __init__(self, cache, batch_size, seed, num_workers=2, world=World()):
        """Args: cache: LatentCache. num_workers: threads that read. The others are those of `Loader`."""
        super().__init__(cache.good, cache.num_samples, batch_size, seed, world)
        self.cache, self.num_workers = cache, num_workers

    def __iter__(self):
        """Yield this process' share of each `LatentBatch`, endlessly, from the position of `state()` on."""
        ahead, rows = deque(), self.batch_size // self.world.size
        with ThreadPoolExecutor(self.num_workers) as pool:
            stream = ordered_map(
                pool,
                lambda item: self.cache.read(int(np.searchsorted(self.good, item[1]))),
                self._items(self._next, ahead),
                rows * BATCHES_AHEAD,
            )
            while True:
                z, c, e, captions, found = zip(*(row for _, row in islice(stream, rows)), strict=True)
                indices = ahead.popleft()
                if not np.array_equal(found, indices):
                    raise ConfigError('data.cache: its rows do not match its index; make it again')
                self._next += 1
                yield LatentBatch(np.stack(z), np.stack(c), np.stack(e), list(captions), indices)


def part_path(directory, number):
    """Path of a part's file."""
    return Path(directory) / f'part_{number:05d}{SUFFIX}'


def write_part(directory, number, rows, dtype):
    """Write a part: its file, then its index file, whose existence means that the part is complete.

    Args:
        directory, number: see `part_path`. rows: list of (z, c, e, caption, index). dtype: dtype of the stored arrays.
    """
    path = part_path(directory, number)
    temporary = path.parent / f'.{path.stem}.tmp'  # a directory, because a MindRecord file stores its own name
    temporary.mkdir(exist_ok=True)
    for left in temporary.iterdir():
        left.unlink()
    size = sum(x.astype(dtype).nbytes for x in rows[0][:3]) + 4096
    writer = open_writer(temporary / path.name, SCHEMA, 'index', 2 * size)
    for start in range(0, len(rows), 64):
        writer.write_raw_data(
            [
                {
                    'index': int(index),
                    'caption': caption,
                    **{name: np.ascontiguousarray(x, dtype).tobytes() for name, x in zip(ARRAYS, arrays, strict=True)},
                }
                for *arrays, caption, index in rows[start : start + 64]
            ]
        )
    close_writer(writer, temporary / path.name)
    for name in (path.name, path.name + '.db'):
        flush(temporary / name)
        (temporary / name).replace(path.parent / name)
    temporary.rmdir()

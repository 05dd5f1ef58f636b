"""Endless, exactly resumable batches of a caption set, and a single pass over a set for evaluation."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from diffdis_ms.data.stream.check import good_samples
from diffdis_ms.data.stream.order import Stream, generator, too_few
from diffdis_ms.data.stream.workers import BATCHES_AHEAD, in_processes, in_threads, ordered_map
from diffdis_ms.data.transforms import MIN_SIDE, resize_center_crop, to_pixels
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.world import World

_WORKERS = {'threads': in_threads, 'processes': in_processes}


@dataclass
class Batch:
    """A batch for a training step."""

    pixels: np.ndarray  # uint8 (B, 3, S, S), B = batch_size / size
    captions: list[str]
    indices: np.ndarray  # int64 (B,): positions in the caption set
    token_ids: np.ndarray | None = None  # int32 (B, L), if the loader has a tokenizer


@dataclass
class Samples:
    """The N good samples of a whole set, in its order."""

    pixels: np.ndarray  # uint8 (N, 3, S, S)
    captions: list[str]
    labels: list[int | None]
    keys: list[str]
    indices: np.ndarray  # int64 (N,): positions in the caption set
    skipped: dict[str, str]  # key -> reason


class Loader(Stream):
    """Endless batches; the stream is the same for any number of processes.

    Epoch e is a permutation of the good samples that depends only on (seed, e). Batch k has the samples
    [k * batch_size, (k + 1) * batch_size) of all epochs in a row (`GlobalOrder`). Each process gets its share of every
    batch (`World.share`). So all processes make the same number of steps, each good sample is seen exactly once per
    epoch, and a saved position is valid for any number of processes.

    Attributes:
        good: int64, indices of the samples that can be used. skipped: dict key -> reason for all others.
    """

    def __init__(
        self,
        caption_set,
        batch_size,
        image_size,
        *,
        seed,
        num_workers=2,
        cache=False,
        random_flip=False,
        random_shift=0,
        shuffle=True,
        world=World(),
        min_side=MIN_SIDE,
        check_directory=None,
        workers='threads',
        tokenizer=None,
        token_length=77,
    ):
        """Args:
            caption_set: has `len()` and `read(i) -> Sample`; `read` is called from several threads. See
                `check.good_samples`.
            batch_size: samples per batch of all processes (and accumulation steps) together; a multiple of their
                number.
            image_size: pixels; images are resized and cropped to it.
            seed: integer >= 0; decides order and augmentation.
            num_workers: threads or processes that read, decode and tokenise.
            cache: keep decoded pixels in memory (3 * image_size^2 bytes per sample).
            random_flip: mirror half of the images.
            random_shift: shift images by up to this many pixels in each direction, padded with white.
            shuffle: False: every epoch in the set's own order.
            world: World.
            min_side: images with a shorter side are skipped (unless the set needs no check).
            check_directory: directory for the result of the check if the data's own directory is not writable.
            workers: 'threads', or 'processes' of MindSpore's dataset pipeline, for many workers (see `workers.py`).
            tokenizer: Tokenizer for `Batch.token_ids`, or None. token_length: tokens per caption.

        Raises:
            ConfigError: the set has fewer good samples than a batch, or a number is out of range.
        """
        for name, value, low in (
            ('image_size', image_size, 1),
            ('num_workers', num_workers, 1),
            ('random_shift', random_shift, 0),
        ):
            if value < low:
                raise ConfigError(f'{name}: {value} is below {low}')
        if workers not in _WORKERS:
            raise ConfigError(f'data.workers: {workers!r} is none of {", ".join(_WORKERS)}')
        if cache and workers == 'processes':
            raise ConfigError('data.cache_in_memory needs data.workers=threads, because processes share no memory')
        if len(caption_set) < batch_size:  # before all of them are read
            raise ConfigError(too_few(f'at most {len(caption_set)}', batch_size, getattr(caption_set, 'skipped', {})))
        self.caption_set, self.image_size = caption_set, image_size
        self.num_workers, self.random_flip, self.random_shift = num_workers, random_flip, random_shift
        self.workers, self.tokenizer, self.token_length = workers, tokenizer, token_length
        good, self.skipped = good_samples(caption_set, min_side, check_directory, num_workers, world)
        super().__init__(good, len(caption_set), batch_size, seed, world, shuffle, self.skipped)
        self._cache = {} if cache else None

    def __iter__(self):
        """Yield this process' share of each `Batch`, endlessly, from the position of `state()` on.

        Raises:
            ConfigError: a sample that was good when it was checked cannot be read any more; the message names its key.
        """
        ahead = deque()  # indices of the batches that are being read
        batches = _WORKERS[self.workers](
            self._result,
            self._items(self._next, ahead),
            self.num_workers,
            self.batch_size // self.world.size,
            BATCHES_AHEAD,
        )
        try:
            for number, (pixels, ids, captions, failed) in enumerate(batches, self._next + 1):
                if failed.any():
                    raise ConfigError(captions[failed.argmax()])
                self._next = number
                yield Batch(pixels, captions, ahead.popleft(), ids if self.tokenizer else None)
        finally:
            batches.close()

    def _result(self, item):
        """Load (pixels, token ids, caption, False), or on failure (blank pixels, blank ids, reason, True).

        It does not raise, because worker processes cannot.
        """
        try:
            return (*self._load(item), False)
        except (ConfigError, OSError) as e:
            return np.zeros((3, self.image_size, self.image_size), np.uint8), self._ids(''), str(e), True

    def _ids(self, caption):
        return self.tokenizer.encode([caption], self.token_length)[0] if self.tokenizer else np.zeros(1, np.int32)

    def _load(self, item):
        """(epoch, index) -> (pixels, token ids, caption)."""
        epoch, index = item
        row = self._cache.get(index) if self._cache is not None else None
        if row is None:
            pixels, caption = read_good(self.caption_set, index, self.image_size)
            row = pixels, self._ids(caption), caption
            if self._cache is not None:
                self._cache[index] = row
        pixels, ids, caption = row
        return self._augment(pixels, epoch, index), ids, caption

    def _augment(self, pixels, epoch, index):
        if not (self.random_flip or self.random_shift):
            return pixels
        # + 1, because (seed, epoch, 0) gives the same generator as (seed, epoch), which the permutation uses
        rng = generator(self.seed, epoch, index + 1)
        flip = rng.integers(2)
        down, right = rng.integers(-self.random_shift, self.random_shift + 1, 2)
        if self.random_flip and flip:
            pixels = pixels[:, :, ::-1]
        return shift(pixels, int(down), int(right))


def shift(pixels, down, right):
    """Shift uint8 (3, H, W) by whole pixels and fill with white."""
    if not (down or right):
        return pixels
    moved = np.full_like(pixels, 255)
    _, height, width = pixels.shape
    to_rows, from_rows = _spans(down, height)
    to_columns, from_columns = _spans(right, width)
    moved[:, to_rows, to_columns] = pixels[:, from_rows, from_columns]
    return moved


def _spans(by, size):
    by = max(-size, min(size, by))
    return slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0))


def read_all(caption_set, image_size, num_workers=2, progress=True):
    """Read a whole set in order, for evaluation.

    Args:
        caption_set: as for `Loader`.
        image_size: pixels.
        num_workers: threads.
        progress: show a bar (only if stderr is a terminal).

    Returns:
        Samples.

    Raises:
        ConfigError: no sample is good.
    """
    rows, skipped = [], dict(getattr(caption_set, 'skipped', {}))
    with ThreadPoolExecutor(num_workers) as pool:
        stream = ordered_map(
            pool, lambda i: read_pixels(caption_set, i, image_size), range(len(caption_set)), 64 * num_workers
        )
        for i, row in tqdm(
            stream, total=len(caption_set), desc='reading', disable=None if progress else True, leave=False
        ):
            if isinstance(row, BadSample):
                skipped[row.key] = row.reason
            else:
                rows.append((*row, i))
    if not rows:
        raise ConfigError(
            f'none of the {len(caption_set)} samples can be used; the first: {next(iter(skipped.items()))}'
        )
    pixels, captions, labels, keys, indices = zip(*rows, strict=True)
    return Samples(np.stack(pixels), list(captions), list(labels), list(keys), np.array(indices), skipped)


def read_good(caption_set, i, image_size):
    """Read (pixels (3, S, S) uint8, caption) of a sample that was good when the set was checked.

    Raises:
        ConfigError: the sample cannot be used any more.
    """
    row = read_pixels(caption_set, i, image_size)
    if isinstance(row, BadSample):
        raise ConfigError(
            f'sample {row.key} was good when the data was checked, but now cannot be used ({row.reason}): the data has '
            'changed; restore it, or write it again with tools/prepare_data.py'
        )
    return row[:2]


def read_pixels(caption_set, i, image_size, resize=resize_center_crop):
    """Read (pixels (3, S, S) uint8, caption, label, key) of sample `i`; returns its BadSample instead of raising it."""
    try:
        sample = caption_set.read(i)
    except BadSample as e:
        return e
    return to_pixels(resize(sample.image, image_size)), sample.caption, sample.label, sample.key

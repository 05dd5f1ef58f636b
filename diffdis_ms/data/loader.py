"""Endless, exactly resumable batches of a caption set; and one pass over it for evaluation."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Dict, List, Optional

import numpy as np
from tqdm import tqdm

from diffdis_ms.config import ConfigError
from diffdis_ms.data.transforms import resize_center_crop, to_pixels
from diffdis_ms.data.webdataset import BadSample

_BATCHES_AHEAD = 3


@dataclass
class Batch:
    """What a training step gets."""
    pixels: np.ndarray                           # uint8 (B, 3, S, S)
    captions: List[str]
    indices: np.ndarray                          # int64 (B,): positions in the caption set


@dataclass
class Samples:
    """The good samples of a whole set, in its order; N counts them."""
    pixels: np.ndarray                           # uint8 (N, 3, S, S)
    captions: List[str]
    labels: List[Optional[int]]
    keys: List[str]
    indices: np.ndarray                          # int64 (N,): positions in the caption set
    skipped: Dict[str, str]                      # key -> reason


class Loader:
    """Batches without end. Each epoch is a permutation drawn from (seed, epoch) alone; its last incomplete batch is dropped.

    A sample that cannot be used is left out and recorded, and the next one of the permutation takes its place.

    Attributes:
        skipped: dict key -> reason of all samples found bad so far.
    """

    def __init__(self, caption_set, batch_size, image_size, seed, num_workers=2, cache=False, random_flip=False,
                 random_shift=0, shuffle=True):
        """Args:
            caption_set: has `len()` and `read(i) -> Sample`; `read` is called from several threads.
            batch_size: samples a batch.
            image_size: pixels; images are resized and cropped to it.
            seed: integer >= 0; decides order and augmentation.
            num_workers: threads that read and decode.
            cache: keep decoded pixels in memory (3 * image_size^2 bytes a sample).
            random_flip: mirror half of the images.
            random_shift: move images by up to so many pixels each way, padded white.
            shuffle: off: every epoch in the set's own order.

        Raises:
            ConfigError: the set has fewer samples than a batch, or a number is out of range.
        """
        for name, value, low in (('batch_size', batch_size, 1), ('image_size', image_size, 1), ('seed', seed, 0),
                                 ('num_workers', num_workers, 1), ('random_shift', random_shift, 0)):
            if value < low:
                raise ConfigError(f'{name}: {value} is below {low}')
        self.caption_set, self.batch_size, self.image_size, self.seed = caption_set, batch_size, image_size, seed
        self.num_workers, self.random_flip, self.random_shift, self.shuffle = num_workers, random_flip, random_shift, shuffle
        self.skipped = dict(getattr(caption_set, 'skipped', {}))
        self._bad = set()                        # indices
        self._cache = {} if cache else None
        self._epoch = self._position = 0         # where the next batch starts
        if len(caption_set) < batch_size:
            raise ConfigError(self._too_few(len(caption_set)))

    def __iter__(self):
        """Yields `Batch` for ever, from where `state()` stands.

        Raises:
            ConfigError: a whole epoch has fewer good samples than one batch.
        """
        pool = ThreadPoolExecutor(self.num_workers)
        try:
            epoch, start = self._epoch, self._position
            rows, full = [], start > 0           # full: the epoch has given a batch
            stream = ordered_map(pool, self._load, self._order(epoch, start), self.batch_size * _BATCHES_AHEAD)
            for (its_epoch, position, index), row in stream:
                if its_epoch != epoch:
                    if not full:
                        raise ConfigError(self._too_few(len(rows)))
                    epoch, rows, full = its_epoch, [], False
                if row is None:
                    continue
                rows.append((index, *row))
                if len(rows) == self.batch_size:
                    indices, pixels, captions = zip(*rows)
                    rows, full = [], True
                    self._epoch, self._position = epoch, position + 1
                    yield Batch(np.stack(pixels), list(captions), np.array(indices, np.int64))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def state(self):
        """Where the stream stands after the last batch that was yielded: a JSON-able dict for `restore`."""
        return {'epoch': self._epoch, 'position': self._position, 'seed': self.seed, 'num_samples': len(self.caption_set)}

    def restore(self, state):
        """Continue after the batch that `state()` was taken at; counts for iterators made from now on.

        Raises:
            ConfigError: the state is of another seed or of a set with another number of samples.
        """
        for key, mine in (('seed', self.seed), ('num_samples', len(self.caption_set))):
            if state[key] != mine:
                raise ConfigError(f'the data position was saved with {key} = {state[key]}, this run has {mine}: it cannot be continued')
        self._epoch, self._position = state['epoch'], state['position']

    def _order(self, epoch, position):
        while True:
            size = len(self.caption_set)
            order = self._rng(epoch).permutation(size) if self.shuffle else np.arange(size)
            for place in range(position, size):
                yield epoch, place, int(order[place])
            epoch, position = epoch + 1, 0

    def _rng(self, *key):
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, *key))))

    def _load(self, item):
        """(epoch, position, index) -> (pixels, caption), or None for a bad sample."""
        epoch, _, index = item
        if index in self._bad:
            return None
        row = self._cache.get(index) if self._cache is not None else None
        if row is None:
            try:
                sample = self.caption_set.read(index)
            except BadSample as e:
                self.skipped[e.key] = e.reason
                self._bad.add(index)
                return None
            row = to_pixels(resize_center_crop(sample.image, self.image_size)), sample.caption
            if self._cache is not None:
                self._cache[index] = row
        pixels, caption = row
        return self._augment(pixels, epoch, index), caption

    def _augment(self, pixels, epoch, index):
        if not (self.random_flip or self.random_shift):
            return pixels
        rng = self._rng(epoch, index + 1)        # + 1: a seed sequence ends in zeros, (seed, epoch, 0) would be the permutation's
        flip = rng.integers(2)
        down, right = rng.integers(-self.random_shift, self.random_shift + 1, 2)
        if self.random_flip and flip:
            pixels = pixels[:, :, ::-1]
        return shift(pixels, int(down), int(right))

    def _too_few(self, good):
        reasons = '; '.join(f'{k}: {v}' for k, v in islice(self.skipped.items(), 3))
        return (f'{good} good samples ({len(self.skipped)} skipped{", for example " + reasons if reasons else ""}) do not fill one batch '
                f'of {self.batch_size}; lower train.batch_size or mend the data')


def shift(pixels, down, right):
    """uint8 (3, H, W) moved by whole pixels, what becomes free is white."""
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
        progress: show a bar (never where stderr is no terminal).

    Returns:
        Samples.

    Raises:
        ConfigError: no sample is good.
    """
    rows, skipped = [], dict(getattr(caption_set, 'skipped', {}))
    with ThreadPoolExecutor(num_workers) as pool:
        stream = ordered_map(pool, lambda i: read_pixels(caption_set, i, image_size), range(len(caption_set)), 64 * num_workers)
        for i, row in tqdm(stream, total=len(caption_set), desc='reading', disable=None if progress else True, leave=False):
            if isinstance(row, BadSample):
                skipped[row.key] = row.reason
            else:
                rows.append((*row, i))
    if not rows:
        raise ConfigError(f'none of {len(caption_set)} samples can be used; the first: {next(iter(skipped.items()))}')
    pixels, captions, labels, keys, indices = zip(*rows)
    return Samples(np.stack(pixels), list(captions), list(labels), list(keys), np.array(indices), skipped)


def read_pixels(caption_set, i, image_size):
    """(pixels (3, S, S) uint8, caption, label, key) of sample `i`, or its BadSample: a thread hands on what it met."""
    try:
        sample = caption_set.read(i)
    except BadSample as e:
        return e
    return to_pixels(resize_center_crop(sample.image, image_size)), sample.caption, sample.label, sample.key


def ordered_map(pool, function, items, window):
    """Yields (item, function(item)) in the order of `items`, which may be endless; at most `window` calls are under way."""
    items, pending = iter(items), deque()
    for item in islice(items, window):
        pending.append((item, pool.submit(function, item)))
    while pending:
        item, future = pending.popleft()
        result = future.result()
        for following in islice(items, 1):
            pending.append((following, pool.submit(function, following)))
        yield item, result

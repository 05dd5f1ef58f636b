"""The order in which training sees its samples: a pure function of (seed, epoch), the same on every process."""

import zlib
from itertools import count, islice
from typing import Any

import numpy as np

from diffdis_ms.data.stream.check import one_line
from diffdis_ms.errors import ConfigError
from diffdis_ms.world import World


def generator(*key):
    """A random generator that depends on integers >= 0 alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class GlobalOrder:
    """Epochs one after the other, each a permutation of all samples, cut into full batches.

    The batch that straddles two epochs holds no sample twice (in a contrastive loss it would be its own negative):
    those of the new epoch that are already in it wait until just after it. So every batch is full, and every sample
    comes exactly once an epoch.
    """

    def __init__(self, samples, batch_size, seed, shuffle=True):
        """Args:
        samples: int64 (N,): what to order, N >= batch_size. batch_size: samples a batch, all processes together.
        seed: integer >= 0. shuffle: off: every epoch in the order of `samples`.
        """
        self.samples, self.batch_size, self.seed, self.shuffle = samples, batch_size, seed, shuffle
        self._kept: tuple[int, Any] = -1, None  # the epoch that was asked for last, and its order

    def batch(self, number):
        """Batch `number` of the endless stream: epochs int64 (B,), samples int64 (B,)."""
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        epochs, places = np.divmod(places, len(self.samples))
        return epochs, np.concatenate([self.epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def epoch(self, number) -> Any:
        """Samples of an epoch in their order, int64 (N,)."""
        if self._kept[0] == number:
            return self._kept[1]
        n, b = len(self.samples), self.batch_size
        # What waits stays among an epoch's first B. With two batches or more an epoch's end is therefore its
        # permutation's; with less it follows from the epochs before, from the first one on (they are short).
        long = n >= 2 * b
        first, order = (
            (number, None) if long else (self._kept[0] + 1, self._kept[1]) if self._kept[0] < number else (0, None)
        )
        before: Any
        for e in range(first, number + 1):
            before, order = order, self._permutation(e)
            begun = e * n % b  # samples of the epoch before in the batch that this epoch completes
            if begun:
                end = (self._permutation(e - 1) if long else before)[-begun:]
                waits = np.isin(order[:b], end)
                order = np.concatenate([order[:b][~waits], order[:b][waits], order[b:]])
        self._kept = number, order
        return order

    def _permutation(self, epoch):
        return generator(self.seed, epoch).permutation(self.samples) if self.shuffle else self.samples


class Stream:
    """Where a process stands in the endless stream of batches; what `Loader` and `CachedLoader` share.

    Attributes:
        good: int64, the samples that are seen. batch_size: of all processes together. skipped: {key: reason} of the
            samples that are not.
    """

    def __init__(self, good, num_samples, batch_size, seed, world=World(), shuffle=True, skipped=None):
        """Raises ConfigError: fewer good samples than a batch, or a number that is out of range."""
        for name, value, low in (('batch_size', batch_size, 1), ('seed', seed, 0)):
            if value < low:
                raise ConfigError(f'{name}: {value} is below {low}')
        if batch_size % world.size:
            raise ConfigError(
                f'train.batch_size: {batch_size} samples cannot be shared equally by {world.size} processes; make'
                f' it a multiple of {world.size}'
            )
        self.good = good
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.skipped = skipped or {}
        self.world = world
        if len(good) < batch_size:
            raise ConfigError(too_few(len(good), batch_size, self.skipped))
        self._order = GlobalOrder(good, batch_size, seed, shuffle)
        self._next = 0  # number of the next batch

    def state(self):
        """Where the stream stands after the last batch that was yielded: a JSON-able dict for `restore`, equal on all
        processes."""
        epoch, position = divmod(self._next * self.batch_size, len(self.good))
        return {'epoch': epoch, 'position': position, **self._identity()}

    def restore(self, state):
        """Continue after the batch that `state()` was taken at, by any number of processes; counts for iterators made
        from now on.

        Raises:
            ConfigError: the state is of another seed, batch size or set of good samples.
        """
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise ConfigError(
                    f'the data position was saved with {key} = {state.get(key)}, this run has {mine}: it cannot be'
                    ' continued'
                )
        self.seek((state['epoch'] * len(self.good) + state['position']) // self.batch_size)

    def seek(self, number):
        """Continue with batch `number` of the stream, from 0; counts for iterators made from now on."""
        self._next = number

    def _identity(self):
        """What decides the stream. `good_samples` is a checksum: it tells processes apart that see different data."""
        return {
            'seed': self.seed,
            'batch_size': self.batch_size,
            'num_samples': self.num_samples,
            'num_good': len(self.good),
            'good_samples': zlib.crc32(self.good.tobytes()),
        }

    def _items(self, number, ahead):
        """(epoch, index) of this process' samples from batch `number` on; the indices of each batch are appended to
        `ahead` as it begins."""
        for k in count(number):
            epochs, samples = (self.world.share(rows) for rows in self._order.batch(k))
            ahead.append(samples)
            yield from zip(epochs.tolist(), samples.tolist(), strict=True)


def too_few(good, batch_size, skipped):
    """The message that there are fewer good samples than a batch."""
    reasons = '; '.join(f'{one_line(k)}: {v}' for k, v in islice(skipped.items(), 3))
    return (
        f'{good} good samples ({len(skipped)} skipped{", for example " + reasons if reasons else ""}) do not fill one'
        f' batch of {batch_size}; lower train.batch_size or mend the data'
    )

"""The order of training samples. It is a pure function of (seed, epoch), the same in every process."""

import zlib
from itertools import count, islice
from typing import Any

import numpy as np

from diffdis_ms.data.stream.check import one_line
from diffdis_ms.errors import ConfigError
from diffdis_ms.world import World


def generator(*key):
    """Make a random generator that depends only on the given integers >= 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class GlobalOrder:
    """Consecutive epochs, each a permutation of all samples, cut into full batches.

    A batch that spans two epochs must not have a sample twice, which would be its own negative in a contrastive loss.
    So samples of the new epoch that are already in the batch are moved to just after it. Every batch is full, and every
    sample occurs exactly once per epoch.
    """

    def __init__(self, samples, batch_size, seed, shuffle=True):
        """Args:
        samples: int64 (N,), the samples to order, N >= batch_size. batch_size: samples per batch of all processes.
        seed: integer >= 0. shuffle: False: every epoch in the order of `samples`.
        """
        self.samples, self.batch_size, self.seed, self.shuffle = samples, batch_size, seed, shuffle
        self._kept: tuple[int, Any] = -1, None  # the epoch requested last, and its order

    def batch(self, number):
        """Batch `number` of the endless stream: epochs int64 (B,), samples int64 (B,)."""
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        epochs, places = np.divmod(places, len(self.samples))
        return epochs, np.concatenate([self.epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def epoch(self, number) -> Any:
        """Samples of an epoch, in order, int64 (N,)."""
        if self._kept[0] == number:
            return self._kept[1]
        n, b = len(self.samples), self.batch_size
        # Moved samples stay among an epoch's first B. So with two or more batches, the end of an epoch is the end of
        # its permutation. With fewer, it depends on the earlier epochs, computed from the first on (they are short).
        long = n >= 2 * b
        first, order = (
            (number, None) if long else (self._kept[0] + 1, self._kept[1]) if self._kept[0] < number else (0, None)
        )
        before: Any
        for e in range(first, number + 1):
            before, order = order, self._permutation(e)
            begun = e * n % b  # samples of the previous epoch in the batch that this epoch completes
            if begun:
                end = (self._permutation(e - 1) if long else before)[-begun:]
                waits = np.isin(order[:b], end)
                order = np.concatenate([order[:b][~waits], order[:b][waits], order[b:]])
        self._kept = number, order
        return order

    def _permutation(self, epoch):
        return generator(self.seed, epoch).permutation(self.samples) if self.shuffle else self.samples


class Stream:
    """The position of a process in the endless stream of batches; base of `Loader` and `CachedLoader`.

    Attributes:
        good: int64, the samples in the stream. batch_size: samples per batch of all processes. skipped: {key: reason}
            of the other samples.
    """

    def __init__(self, good, num_samples, batch_size, seed, world=World(), shuffle=True, skipped=None):
        """Raises ConfigError if there are fewer good samples than a batch, or a number is out of range."""
        for name, value, low in (('batch_size', batch_size, 1), ('seed', seed, 0)):
            if value < low:
                raise ConfigError(f'{name}: {value} is below {low}')
        if batch_size % world.size:
            raise ConfigError(
                f'train.batch_size: {batch_size} samples cannot be divided equally among {world.size} processes; make'
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
        """Position of the stream after the last yielded batch, as a JSON-able dict for `restore`.

        It is the same in all processes.
        """
        epoch, position = divmod(self._next * self.batch_size, len(self.good))
        return {'epoch': epoch, 'position': position, **self._identity()}

    def restore(self, state):
        """Continue from a `state()`, with any number of processes. It affects iterators made from now on.

        Raises:
            ConfigError: the state belongs to another seed, batch size or set of good samples.
        """
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise ConfigError(
                    f'the data position was saved with {key} = {state.get(key)}, this run has {mine}: it cannot be'
                    ' continued'
                )
        self.seek((state['epoch'] * len(self.good) + state['position']) // self.batch_size)

    def seek(self, number):
        """Continue with batch `number` of the stream, counted from 0. It affects iterators made from now on."""
        self._next = number

    def _identity(self):
        """Everything that determines the stream. The checksum `good_samples` reveals processes with other data."""
        return {
            'seed': self.seed,
            'batch_size': self.batch_size,
            'num_samples': self.num_samples,
            'num_good': len(self.good),
            'good_samples': zlib.crc32(self.good.tobytes()),
        }

    def _items(self, number, ahead):
        """Yield (epoch, index) of this process' samples from batch `number` on.

        The indices of each batch are appended to `ahead` when it begins.
        """
        for k in count(number):
            epochs, samples = (self.world.share(rows) for rows in self._order.batch(k))
            ahead.append(samples)
            yield from zip(epochs.tolist(), samples.tolist(), strict=True)


def too_few(good, batch_size, skipped):
    """Make the message for fewer good samples than a batch."""
    reasons = '; '.join(f'{one_line(k)}: {v}' for k, v in islice(skipped.items(), 3))
    return (
        f'{good} good samples ({len(skipped)} skipped{", for example " + reasons if reasons else ""}) do not fill one'
        f' batch of {batch_size}; lower train.batch_size or repair the data'
    )

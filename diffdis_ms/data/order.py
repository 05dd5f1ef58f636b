"""The order in which training sees its samples: a pure function of (seed, epoch), the same on every process."""
import numpy as np


def generator(*key):
    """A random generator that depends on integers >= 0 alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class GlobalOrder:
    """Epochs one after the other, each a permutation of all samples, cut into full batches.

    The batch that straddles two epochs holds no sample twice (in a contrastive loss it would be its own negative): those of the new
    epoch that are already in it wait until just after it. So every batch is full, and every sample comes exactly once an epoch.
    """

    def __init__(self, samples, batch_size, seed, shuffle=True):
        """Args:
            samples: int64 (N,): what to order, N >= batch_size. batch_size: samples a batch, all processes together.
            seed: integer >= 0. shuffle: off: every epoch in the order of `samples`.
        """
        self.samples, self.batch_size, self.seed, self.shuffle = samples, batch_size, seed, shuffle
        self._kept = -1, None                    # the epoch that was asked for last, and its order

    def batch(self, number):
        """Batch `number` of the endless stream: epochs int64 (B,), samples int64 (B,)."""
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        epochs, places = np.divmod(places, len(self.samples))
        return epochs, np.concatenate([self.epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def epoch(self, number):
        """Samples of an epoch in their order, int64 (N,)."""
        if self._kept[0] == number:
            return self._kept[1]
        n, b = len(self.samples), self.batch_size
        # What waits stays among an epoch's first B. With two batches or more an epoch's end is therefore its permutation's; with
        # less it follows from the epochs before, from the first one on (they are short).
        long = n >= 2 * b
        first, order = (number, None) if long else (self._kept[0] + 1, self._kept[1]) if self._kept[0] < number else (0, None)
        for e in range(first, number + 1):
            before, order = order, self._permutation(e)
            begun = e * n % b                    # samples of the epoch before in the batch that this epoch completes
            if begun:
                end = (self._permutation(e - 1) if long else before)[-begun:]
                waits = np.isin(order[:b], end)
                order = np.concatenate([order[:b][~waits], order[:b][waits], order[b:]])
        self._kept = number, order
        return order

    def _permutation(self, epoch):
        return generator(self.seed, epoch).permutation(self.samples) if self.shuffle else self.samples

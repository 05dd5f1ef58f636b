"""How several processes share a piece of work."""

from dataclasses import dataclass

from diffdis_ms.errors import ConfigError


@dataclass(frozen=True)
class World:
    """This process' number `rank`, counted from 0, among the `size` processes that share a piece of work.

    Raises:
        ConfigError: rank is not in 0..size-1.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self):
        if not 0 <= self.rank < self.size:
            raise ConfigError(f'rank: {self.rank} is not in 0..{self.size - 1} (size: {self.size})')

    @property
    def first(self):
        """Whether this is process 0, which writes files that exist only once."""
        return self.rank == 0

    def share(self, rows):
        """Select this process' rows of an array, list or range: every `size`-th row.

        With such strided rows, the first g rows of all processes together are the first g * size rows of the whole.
        """
        return rows[self.rank :: self.size]

    def order(self, count):
        """List the order in which this process works on the parts 0..count-1, whose results are files.

        First come its own parts (every `size`-th), from the front. Then it helps with the other processes' parts, from
        the end, because their owners work from the front. So no process waits for one that is slow or dead.
        """
        own = self.share(range(count))
        return [*own, *(k for k in reversed(range(count)) if k not in own)]

"""Which of the processes that share a piece of work this one is."""

from dataclasses import dataclass

from diffdis_ms.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The processes that share a piece of work: there are `size` of them, this one is number `rank`, from 0.

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
        """Whether this process is the one that writes what there is once."""
        return self.rank == 0

    def share(self, rows):
        """This process's rows of an array, list or range that all of them share.

        They are strided, not a block: the first g rows of every process are then the first g * size rows of the whole,
        whatever the size.
        """
        return rows[self.rank :: self.size]

    def order(self, count):
        """In which order this process takes the parts 0..count-1 of work whose results lie in files: every size-th one
        is its own, from the front; then it helps with the others', from the end, as their owners come from the front.
        So nobody waits for one that is slow or dead.
        """
        own = self.share(range(count))
        return [*own, *(k for k in reversed(range(count)) if k not in own)]

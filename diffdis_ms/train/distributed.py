"""Data parallelism: the two collectives of a training step, and how a process joins the others.

Every process computes the alignment loss over the global batch from the gathered queries, so all n processes have the
same loss. The gradients are then averaged over the processes, which divides the gradient of a process' own rows by n.
To compensate, the gradient of the gather is n times the process' own slice. It needs no collective (AllGather's own
gradient needs ReduceScatter, which does not exist on the CPU).
"""

import os

import mindspore as ms
from mindspore import nn, ops

from diffdis_ms.world import World


class Gather(nn.Cell):
    """Gather the rows of all processes in the order of ranks: (B, D) -> (n B, D), with the gradient described above.
    A single process keeps its own rows.

    Args:
        world: World.
    """

    def __init__(self, world):
        super().__init__()
        self.rank, self.size = world.rank, world.size
        self.all_gather = ops.AllGather() if world.size > 1 else None

    def construct(self, x):
        if self.all_gather is None:
            return x
        return self.all_gather(x)

    def bprop(self, x, out, dout):
        """Gradient dx from dout (n B, D)."""
        if self.all_gather is None:
            return (dout,)
        rows = x.shape[0]
        return (dout[self.rank * rows : (self.rank + 1) * rows] * self.size,)


class Average(nn.Cell):
    """Elementwise mean over the processes; a single process keeps its own values.

    Args:
        world: World.
    """

    def __init__(self, world):
        super().__init__()
        self.size = world.size
        self.all_reduce = ops.AllReduce() if world.size > 1 else None

    def construct(self, x):
        if self.all_reduce is None:
            return x
        return self.all_reduce(x) / self.size


def join_world():
    """Set up the communication under msrun and return this process' `World`; a single process without msrun.

    The process that msrun starts as scheduler stays in this function until the others are done, and then ends.
    """
    if 'MS_ROLE' not in os.environ:
        return World()
    ms.communication.init()
    return World(ms.communication.get_rank(), ms.communication.get_group_size())

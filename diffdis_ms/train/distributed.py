"""Data parallel: the two collectives of a training step, and how a process joins the others.

Every process computes the alignment loss over the global batch from the gathered queries, so all of them hold the same
loss. Gradients are averaged over the processes. Both together decide the gradient of the gather: of the average of n
equal losses, a process's own rows get n times what they get here, divided by n. So the gather's gradient is n times the
own slice, without a collective (ReduceScatter, which AllGather's own gradient needs, does not exist on the CPU).
"""

import os

import mindspore as ms
from mindspore import nn, ops

from diffdis_ms.world import World


class Gather(nn.Cell):
    """Rows of all processes, rank by rank: (B, D) -> (n B, D), with the gradient described above. Of one process: its
    own.

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
        """dx of dout (n B, D)."""
        if self.all_gather is None:
            return (dout,)
        rows = x.shape[0]
        return (dout[self.rank * rows : (self.rank + 1) * rows] * self.size,)


class Average(nn.Cell):
    """Mean over the processes, element by element; of one process: its own.

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
    """The `World` of this process: under msrun the communication is set up; otherwise one process alone.

    The process that msrun starts as the scheduler serves the others in here, until they are done, and ends.
    """
    if 'MS_ROLE' not in os.environ:
        return World()
    ms.communication.init()
    return World(ms.communication.get_rank(), ms.communication.get_group_size())

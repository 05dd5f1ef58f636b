"""Optimizer-state sharding: each process updates and averages one part of every parameter, and all of them gather the
result.

AdamW's moments and the EMA, 12 of the 20 bytes that training holds a parameter, are divided by the number of processes.
The arithmetic is
element by element, so nothing else changes: not a bit of the weights, and checkpoints are those of a run without it.
"""

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

PART = 'part.'


def _cut(rank, count, g):
    g, size = g.reshape(-1), -(-g.size // count)
    if size * count != g.size:
        g = ops.concat((g, ops.zeros((size * count - g.size,), g.dtype)))
    return g[rank * size : (rank + 1) * size]


def _whole(all_gather, unit, value):
    return all_gather(value)[: unit.size].reshape(unit.shape)


class Shards(nn.Cell):
    """This process's part of each unit: the k-th of n equal pieces of its elements, the last one filled up with zeros.

    Args:
        units: optim.Units. world: World of more than one process.

    Attributes:
        parts: Parameters (ceil(size / n),) float32, named part.<unit>, in the order of `units.units`. groups: {name:
            parts}.
    """

    def __init__(self, units, world):
        super().__init__(auto_prefix=False)
        self.rank, self.count, self.units = world.rank, world.size, units.units
        cut = {u.name: Parameter(self.part_of(u.asnumpy()), name=PART + u.name) for u in units.units}
        self.parts = [cut[u.name] for u in units.units]
        self.groups = {name: [cut[u.name] for u in members] for name, members in units.groups.items()}
        self.all_gather, self.map = ops.AllGather(), ops.HyperMap()

    def cut(self, grads):
        """Gradients of the units -> of this process's parts."""
        return self.map(ops.partial(_cut, self.rank, self.count), grads)

    def gather(self, units, values):
        """This process's parts -> the whole units; a collective."""
        return self.map(ops.partial(_whole, self.all_gather), units, values)

    def part_of(self, array):
        """This process's part of a NumPy array."""
        size = -(-array.size // self.count)
        flat = np.zeros(size * self.count, np.float32)
        flat[: array.size] = array.reshape(-1)
        return flat[self.rank * size : (self.rank + 1) * size]

    def whole(self, part, shape):
        """The whole array, of a shape, of all processes' parts (a Parameter); a collective."""
        gathered = self.all_gather(Tensor(part.asnumpy(), mstype.float32)).asnumpy()
        return gathered[: int(np.prod(shape))].reshape(shape)

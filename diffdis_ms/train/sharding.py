"""Optimizer-state sharding: each process updates one shard of every parameter and its EMA; all then gather the result.

AdamW's moments and the EMA take 12 of the 20 bytes per parameter in training. Sharding divides them by the number of
processes. The arithmetic is elementwise, so the weights are the same to the last bit, and so are the checkpoints.
"""

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

SHARD = 'shard.'


def _cut(rank, count, g):
    g, size = g.reshape(-1), -(-g.size // count)
    if size * count != g.size:
        g = ops.concat((g, ops.zeros((size * count - g.size,), g.dtype)))
    return g[rank * size : (rank + 1) * size]


def _whole(all_gather, unit, value):
    return all_gather(value)[: unit.size].reshape(unit.shape)


class Shards(nn.Cell):
    """This process' shard of each unit: piece k of n equal pieces of its elements, the last one padded with zeros.

    Args:
        units: optim.Units. world: World of more than one process.

    Attributes:
        own: Parameters (ceil(size / n),) float32, named shard.<unit>, in the order of `units.units`. groups: {name:
            shards}.
    """

    def __init__(self, units, world):
        super().__init__(auto_prefix=False)
        self.rank, self.count, self.units = world.rank, world.size, units.units
        cut = {u.name: Parameter(self.shard_of(u.asnumpy()), name=SHARD + u.name) for u in units.units}
        self.own = [cut[u.name] for u in units.units]
        self.groups = {name: [cut[u.name] for u in members] for name, members in units.groups.items()}
        self.all_gather, self.map = ops.AllGather(), ops.HyperMap()

    def cut(self, grads):
        """Gradients of the units -> gradients of this process' shards."""
        return self.map(ops.partial(_cut, self.rank, self.count), grads)

    def gather(self, units, values):
        """This process' shards -> the whole units; a collective."""
        return self.map(ops.partial(_whole, self.all_gather), units, values)

    def shard_of(self, array):
        """This process' shard of a NumPy array."""
        size = -(-array.size // self.count)
        flat = np.zeros(size * self.count, np.float32)
        flat[: array.size] = array.reshape(-1)
        return flat[self.rank * size : (self.rank + 1) * size]

    def whole(self, shard, shape):
        """Gather the whole array, of the given shape, from all processes' shards (Parameters); a collective."""
        gathered = self.all_gather(Tensor(shard.asnumpy(), mstype.float32)).asnumpy()
        return gathered[: int(np.prod(shape))].reshape(shape)

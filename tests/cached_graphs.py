"""Run by test_compile_cache.py in processes of its own: compiles graphs through the cache and prints what happened, as
JSON.

cached_graphs.py DIRECTORY cells WHICH K... a small cell for each constant K, in this order; the cache is asked for
                                           those of WHICH (1,0: the first)
cached_graphs.py DIRECTORY step SEED       a training step of a CLIP with weights of this seed, three steps
cached_graphs.py DIRECTORY ranks           under msrun: a sum over the ranks
"""

import hashlib
import json
import sys

import mindspore as ms
from mindspore import nn, ops

from diffdis_ms import runtime
from diffdis_ms.runtime.compile_cache import compile_cached
from tests.helpers import make_objective, normal, randomize, tiny_run


class Times(nn.Cell):
    def __init__(self, k):
        super().__init__()
        self.k = k

    def construct(self, x):
        return ops.sum(x) * self.k


class SumOverRanks(nn.Cell):
    def __init__(self):
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, x):
        return self.reduce(x)


def cells(config, which, *constants):
    found = []
    for cached, k in zip(which.split(','), constants, strict=True):
        cell, x = Times(float(k)), ms.ops.ones((2, 3))
        how = compile_cached(cell, (x,), config) if cached == '1' else None
        found.append((how, float(cell(x)), float(cell(ms.ops.ones((5, 3))))))  # the second shape compiles as usual
    return found


def step(config, seed):
    from diffdis_ms.train.optim import build_optimizer
    from diffdis_ms.train.step import TrainStep, Update

    cell, inputs = make_objective(config)
    randomize(cell, int(seed))
    units, optimizer, _ = build_optimizer(config, list(cell.trainable_params()))
    train_step = TrainStep(cell, Update(cell, units, optimizer, config)).set_train()
    how = compile_cached(train_step, inputs, config)
    losses = [[float(x) for x in train_step.run(inputs)] for _ in range(3)]
    digest = hashlib.sha256()
    for p in (*units.parameters, *train_step.update.averages):
        digest.update(p.asnumpy().tobytes())
    return how, losses, digest.hexdigest()


def ranks(config):
    ms.communication.init()
    world = runtime.this_world()
    cell, x = SumOverRanks(), normal(world.rank, 4)
    how = compile_cached(cell, (x,), config, world)
    return how, world.rank, cell(x).asnumpy().tolist()


def main():
    directory, what, *args = sys.argv[1:]
    config = tiny_run('clip', batch_size=2)
    for part in (config.model.text_encoder, config.model.image_encoder):
        part.num_hidden_layers = 1
    config.runtime.compile_cache, config.runtime.compile_cache_dir = directory != 'off', directory
    runtime.setup('CPU')
    print(
        'RESULT',
        json.dumps(
            {
                'cells': lambda: cells(config, *args),
                'step': lambda: step(config, *args),
                'ranks': lambda: ranks(config),
            }[what]()
        ),
    )


if __name__ == '__main__':
    main()

"""Reading ahead in parallel, in order: threads, or MindSpore's dataset pipeline with processes of its own.

Pillow decodes and resizes without Python's lock, so a few threads are as fast as processes and start at once. What needs the lock (reading,
tokenising, array handling) is about a tenth of a sample's time: from some 8 workers a process on, processes win.
"""
import os
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from diffdis_ms.config import ConfigError


def ordered_map(pool, function, items, window):
    """Yields (item, function(item)) in the order of `items`, which may be endless; at most `window` calls are under way."""
    items, pending = iter(items), deque()
    for item in islice(items, window):
        pending.append((item, pool.submit(function, item)))
    while pending:
        item, future = pending.popleft()
        result = future.result()
        for following in islice(items, 1):
            pending.append((following, pool.submit(function, following)))
        yield item, result


def in_threads(function, items, num_workers, rows, ahead):
    """Batches of `function`'s results over endless `items`.

    Args:
        function: item -> (pixels uint8 array, token ids int32 array, caption, whether it failed), of the same shapes always; it does not raise.
        items: of pairs of ints. num_workers: threads. rows: results a batch. ahead: batches read ahead.

    Yields:
        pixels and token ids stacked, list of captions, bool (rows,) of failures.
    """
    pool = ThreadPoolExecutor(num_workers)
    try:
        stream = ordered_map(pool, function, items, rows * ahead)
        while True:
            pixels, ids, captions, failed = zip(*(result for _, result in islice(stream, rows)))
            yield np.stack(pixels), np.stack(ids), list(captions), np.array(failed)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_processes(function, items, num_workers, rows, ahead):
    """As `in_threads`, in a MindSpore dataset pipeline whose workers are forked processes; what `function` holds must not be changed by it.

    Raises:
        ConfigError: more workers than MindSpore takes.
    """
    import mindspore.dataset as ds               # seconds: readers alone do without it
    if num_workers > os.cpu_count():
        raise ConfigError(f'data.num_workers: {num_workers} processes on {os.cpu_count()} cores; MindSpore takes one a core at most')
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'       # its threads would not survive the fork
    source = ds.GeneratorDataset(lambda: ((np.array(item, np.int64),) for item in items), ['item'], shuffle=False, num_parallel_workers=1,
                                 python_multiprocessing=False)
    source = source.map(_InWorker(function), ['item'], ['pixels', 'ids', 'caption', 'failed'], num_parallel_workers=num_workers,
                        python_multiprocessing=True)
    iterator = source.batch(rows, num_parallel_workers=1).create_tuple_iterator(num_epochs=1, output_numpy=True)
    try:
        for pixels, ids, captions, failed in iterator:
            yield pixels, ids, [str(c) for c in captions], failed
    finally:
        iterator.stop()


class _InWorker:
    """The function as an operation of the pipeline."""

    def __init__(self, function):
        self.function, self.parent = function, os.getpid()

    def __call__(self, item):
        if os.getpid() != self.parent:           # a handler of the training process ("save, then end") is not for its workers
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.parent = os.getpid()
        pixels, ids, caption, failed = self.function(tuple(item.tolist()))
        return pixels, ids, np.array(caption), np.array(failed)

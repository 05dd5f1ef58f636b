"""Read ahead in parallel and in order, with threads or with the processes of MindSpore's dataset pipeline.

Pillow decodes and resizes without Python's global lock, so a few threads are as fast as processes (measured with two:
864 and 862 images/s). Threads also start and end at once, while MindSpore's processes take about 6 s to end. Work that
needs the lock (reading, tokenising, array handling) is about a tenth of the time per sample, so processes should be
faster from about 8 workers on. This is an estimate, not measured.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from diffdis_ms.errors import ConfigError

BATCHES_AHEAD = 3  # batches that a loader reads ahead
_WAIT = 1.0  # seconds between checks that the workers are alive


def look_ahead(items, count):
    """Yield `items`, which may be endless, while keeping `count` further ones taken.

    Work that starts when an item is taken runs meanwhile.
    """
    taken = deque()
    for item in items:
        taken.append(item)
        if len(taken) > count:
            yield taken.popleft()
    yield from taken


def ordered_map(pool, function, items, window):
    """Yield (item, function(item)) in the order of `items`, which may be endless.

    `window` calls run while the caller works on a result.
    """
    for item, future in look_ahead(((item, pool.submit(function, item)) for item in items), window):
        yield item, future.result()


def in_threads(function, items, num_workers, rows, ahead):
    """Yield batches of `function`'s results over endless `items`.

    Args:
        function: item -> (pixels uint8 array, token ids int32 array, caption, whether it failed), always with the same
            shapes. It must not raise.
        items: pairs of ints. num_workers: threads. rows: results per batch. ahead: batches read ahead.

    Yields:
        Stacked pixels, stacked token ids, list of captions, bool (rows,) of failures.
    """
    pool = ThreadPoolExecutor(num_workers)
    try:
        stream = ordered_map(pool, function, items, rows * ahead)
        while True:
            pixels, ids, captions, failed = zip(*(result for _, result in islice(stream, rows)), strict=True)
            yield np.stack(pixels), np.stack(ids), list(captions), np.array(failed)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_processes(function, items, num_workers, rows, ahead):
    """Do the same as `in_threads` in a MindSpore dataset pipeline with forked worker processes.

    `function` must not change its own state.

    Raises:
        ConfigError: there are more workers than MindSpore accepts, or one has died.
    """
    import mindspore.dataset as ds  # takes seconds to import, and threads do not need it

    if num_workers > os.cpu_count():
        raise ConfigError(
            f'data.num_workers: {num_workers} processes on {os.cpu_count()} cores, but MindSpore allows one per core'
        )
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # threads do not survive a fork
    source = ds.GeneratorDataset(
        lambda: ((np.array(item, np.int64),) for item in items),
        ['item'],
        shuffle=False,
        num_parallel_workers=1,
        python_multiprocessing=False,
    )
    source = source.map(
        _InWorker(function),
        ['item'],
        ['pixels', 'ids', 'caption', 'failed'],
        num_parallel_workers=num_workers,
        python_multiprocessing=True,
    )
    others = set(multiprocessing.active_children())
    iterator = source.batch(rows, num_parallel_workers=1).create_tuple_iterator(num_epochs=1, output_numpy=True)
    workers = set()  # MindSpore starts them with the first batch
    done, closing = queue.Queue(1), threading.Event()
    # A thread waits for MindSpore, because waiting inside it blocks signals, and never ends if a worker dies.
    thread = threading.Thread(target=_hand_on, args=(iterator, done, closing), daemon=True)
    thread.start()
    try:
        while True:
            pixels, ids, captions, failed = _get(done, workers, others)
            yield pixels, ids, [str(c) for c in captions], failed
    finally:
        closing.set()
        if all(map(_is_alive, workers)):
            thread.join()


def _hand_on(iterator, done, closing):
    """Put the pipeline's batches into a queue, or the error that ended it, then close it.

    All in one thread, because MindSpore does not allow a second thread on the same pipeline.
    """
    try:
        for batch in iterator:
            while not closing.is_set():
                try:
                    done.put(batch, timeout=_WAIT)
                    break
                except queue.Full:
                    pass
            if closing.is_set():
                break
    except RuntimeError as e:  # MindSpore's errors
        done.put(e)
    finally:
        iterator.stop()


def _get(done, workers, others):
    """Get the next batch, and update `workers`: this process' children that are not in `others`."""
    while True:
        try:
            batch = done.get(timeout=_WAIT)
            workers |= set() if workers else set(multiprocessing.active_children()) - others
        except queue.Empty:
            workers |= set(multiprocessing.active_children()) - others
            if all(map(_is_alive, workers)):
                continue
            raise ConfigError(
                'a process that reads data has died (is memory or /dev/shm too small?); start again with fewer '
                'data.num_workers, or data.workers=threads'
            ) from None
        if isinstance(batch, RuntimeError):
            raise batch
        return batch


def _is_alive(process):
    if not process.is_alive():
        return False
    try:
        os.kill(process.pid, 0)  # MindSpore may have reaped it, then Python thinks it is alive
    except ProcessLookupError:
        return False
    return True


class _InWorker:
    """Wrap the function as an operation of the pipeline."""

    def __init__(self, function):
        self.function, self.parent = function, os.getpid()

    def __call__(self, item):
        if os.getpid() != self.parent:  # workers must not run the training process' signal handlers
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.parent = os.getpid()
        pixels, ids, caption, failed = self.function(tuple(item.tolist()))
        return pixels, ids, np.array(caption), np.array(failed)

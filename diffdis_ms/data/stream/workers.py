"""Reading ahead in parallel, in order: threads, or MindSpore's dataset pipeline with processes of its own.

Pillow decodes and resizes without Python's lock, so a few threads are as fast as processes (measured with two: 864 and
862 images/s) and start and end at once, where MindSpore's processes take some 6 s to end. What needs the lock (reading,
tokenising, array handling) is about a tenth of a sample's time, so that with some 8 threads and more processes should
win; that is an estimate, not measured.
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

BATCHES_AHEAD = 3  # of a loader
_WAIT = 1.0  # seconds between two looks at whether the workers are alive


def look_ahead(items, count):
    """Yields `items`, which may be endless, taking each when `count` more have been taken: work that taking one starts
    goes on meanwhile."""
    taken = deque()
    for item in items:
        taken.append(item)
        if len(taken) > count:
            yield taken.popleft()
    yield from taken


def ordered_map(pool, function, items, window):
    """Yields (item, function(item)) in the order of `items`, which may be endless; `window` calls are under way while
    the caller works on a result."""
    for item, future in look_ahead(((item, pool.submit(function, item)) for item in items), window):
        yield item, future.result()


def in_threads(function, items, num_workers, rows, ahead):
    """Batches of `function`'s results over endless `items`.

    Args:
        function: item -> (pixels uint8 array, token ids int32 array, caption, whether it failed), of the same shapes
            always; it does not raise.
        items: of pairs of ints. num_workers: threads. rows: results a batch. ahead: batches read ahead.

    Yields:
        pixels and token ids stacked, list of captions, bool (rows,) of failures.
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
    """As `in_threads`, in a MindSpore dataset pipeline whose workers are forked processes; what `function` holds must
    not be changed by it.

    Raises:
        ConfigError: more workers than MindSpore takes; one of them has died.
    """
    import mindspore.dataset as ds  # seconds: readers alone do without it

    if num_workers > os.cpu_count():
        raise ConfigError(
            f'data.num_workers: {num_workers} processes on {os.cpu_count()} cores; MindSpore takes one a core at most'
        )
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # its threads would not survive the fork
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
    # Waited for in a thread: whoever waits inside of MindSpore handles no signal, and when a worker dies it waits for
    # ever.
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
    """Batches of the pipeline, or the error that ended it; then its end. MindSpore allows no second thread on the same
    pipeline."""
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
    except RuntimeError as e:  # what went wrong in MindSpore
        done.put(e)
    finally:
        iterator.stop()


def _get(done, workers, others):
    """The next batch; `workers` is brought up to date, the children of this process that are not `others`."""
    while True:
        try:
            batch = done.get(timeout=_WAIT)
            workers |= set() if workers else set(multiprocessing.active_children()) - others
        except queue.Empty:
            workers |= set(multiprocessing.active_children()) - others
            if all(map(_is_alive, workers)):
                continue
            raise ConfigError(
                'a process that reads data has died (is the memory, or /dev/shm, too small?); start again with fewer '
                'data.num_workers, or data.workers=threads'
            ) from None
        if isinstance(batch, RuntimeError):
            raise batch
        return batch


def _is_alive(process):
    if not process.is_alive():
        return False
    try:
        os.kill(process.pid, 0)  # MindSpore may have collected it, which Python takes for alive
    except ProcessLookupError:
        return False
    return True


class _InWorker:
    """The function as an operation of the pipeline."""

    def __init__(self, function):
        self.function, self.parent = function, os.getpid()

    def __call__(self, item):
        if os.getpid() != self.parent:  # a handler of the training process ("save, then end") is not for its workers
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.parent = os.getpid()
        pixels, ids, caption, failed = self.function(tuple(item.tolist()))
        return pixels, ids, np.array(caption), np.array(failed)

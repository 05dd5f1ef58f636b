"""A pass over many images that reads ahead, is shared by any number of processes and continues after a crash.

The batches have fixed contents, and each finished batch is a file. So a killed run goes on where it was, and the result
is the same to the last bit for any number of processes.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffdis_ms.data.stream.workers import look_ahead
from diffdis_ms.storage.files import whole_file
from diffdis_ms.world import World

READERS = min(8, os.cpu_count() or 1)  # threads that decode pictures


@dataclass(frozen=True)
class Share:
    """The share of this process in the work.

    Attributes:
        parts: directory for finished batches, shared by all processes; None: keep them in memory (one process only).
        world: World. Each process computes its share of the batches, then helps with those that others have not
            finished.
    """

    parts: Path | None = None
    world: World = World()


def parts_directory(out, **identity):
    """Directory for the finished batches of a result file: beside it, named after everything that determines them."""
    out = Path(out)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return out.with_name(f'.{out.name}.{key}.parts')


def shared_pass(count, batch_size, read, compute, share=Share(), name='', progress=''):
    """Read and compute items in batches.

    Args:
        count: number of items; batch k holds the items from k * batch_size on.
        read: item -> anything; called from several threads, for the next batch while one is computed.
        compute: (range of items, list of what `read` returned for them) -> {name: array}.
        share: Share. name: name of this pass, if several use the same directory. progress: description of the progress
            bar, '' for none.

    Returns:
        list of the results of `compute`, one per batch, in order.
    """
    batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    files = [share.parts and share.parts / f'{name}{k:06d}.npz' for k in range(len(batches))]
    if share.parts is not None:
        share.parts.mkdir(parents=True, exist_ok=True)
    done = {}
    with tqdm(
        total=count, desc=progress or None, unit='images', disable=None if progress else True, leave=False
    ) as bar:

        def finish(k, part):
            done[k] = part
            bar.update(len(batches[k]))

        def unfinished():
            for k in share.world.order(len(batches)):
                part = _load(files[k])
                if part is None:
                    yield k
                else:
                    finish(k, part)

        for k, rows in read_ahead(unfinished(), lambda k: batches[k], read):
            part = _load(files[k])  # another process may have finished it by now
            if part is None:
                part = compute(batches[k], rows)
                _save(files[k], part)
            finish(k, part)
    return [done[k] for k in range(len(batches))]


def read_ahead(batches, items, read):
    """Yield (batch, [read(item) for item in items(batch)]) in order.

    Threads read the next batch while the caller works on one.
    """
    with ThreadPoolExecutor(READERS) as pool:
        try:
            started = ((batch, [pool.submit(read, item) for item in items(batch)]) for batch in batches)
            for batch, futures in look_ahead(started, 1):
                yield batch, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _save(file, arrays):
    if file is None:
        return
    try:
        with whole_file(file) as f:
            np.savez(f, **arrays)
    except FileNotFoundError:  # another process had all batches, wrote the result and deleted the directory
        pass


def _load(file):
    """Load a finished batch; None if it is not finished or its file is damaged."""
    if file is None or not file.is_file():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return None

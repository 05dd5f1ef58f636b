"""Write files and directories completely or not at all."""

import glob
import hashlib
import json
import math
import os
import shutil
import socket
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np

PIECE, FLUSH_EVERY = 4 << 20, 512 << 20  # bytes
KINDS = {
    np.dtype(np.float64): 'F64',
    np.dtype(np.float32): 'F32',
    np.dtype(np.float16): 'F16',
    np.dtype(np.int64): 'I64',
    np.dtype(np.int32): 'I32',
}


@contextmanager
def whole_directory(directory, flushed=True):
    """Yield a new directory beside `directory`, which replaces it when the block ends. After an error `directory` is
    unchanged.

    Args:
        directory: need not exist; if it does, it is replaced with all its contents.
        flushed: wait until everything is on disk first, which takes long for very many files.
    """
    directory = Path(os.path.abspath(directory))
    own = f'.{directory.name}.{socket.gethostname()}.'
    for left in directory.parent.glob(glob.escape(own) + '*'):  # left by a process that was killed here
        if not _is_alive(left.name[len(own) :].partition('.')[0]):
            shutil.rmtree(left, ignore_errors=True)
    temporary = directory.with_name(f'{own}{os.getpid()}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob('*'), temporary] if flushed else ():
            flush(path)
        if directory.exists():
            old = directory.with_name(f'{own}{os.getpid()}.old')
            os.rename(directory, old)
            os.rename(temporary, directory)
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink()
        else:
            os.rename(temporary, directory)
        flush(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_alive(pid):
    """Whether this machine has a process with this id (text); True if the text is not a number."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        pass
    return True


@contextmanager
def whole_file(path):
    """Yield a binary file to write to, which replaces `path` once it is completely on disk.

    After an error `path` is unchanged.
    """
    path = Path(path)
    # several machines may use the directory
    temporary = path.with_name(f'.{path.name}.{socket.gethostname()}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_flushed(path, data):
    """Write bytes and wait until they are on disk."""
    with open(path, 'wb') as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_weights(path, arrays):
    """Write a safetensors file tensor by tensor. The library's own writer needs all of them in memory at once.

    Args:
        path: path of the file. It is not flushed; `whole_directory` does that.
        arrays: {name: array}. Instead of an array, a value may be an object with `shape`, `dtype` and
            `pieces(buffers)`, which yields its bytes when they are written. It reads them into buffers from the
            iterator `buffers`; two buffers are in use at a time.

    Returns:
        sha256 of the file, as hex digits.
    """
    header, end = {}, 0
    for name, array in arrays.items():
        dtype = np.dtype(array.dtype)
        begin, end = end, end + math.prod(array.shape) * dtype.itemsize
        header[name] = {'dtype': KINDS[dtype], 'shape': list(array.shape), 'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # the data starts at a multiple of 8
    digest, pending, flushes, unflushed = hashlib.sha256(), deque(), [], 0
    buffers = cycle([bytearray(PIECE) for _ in range(3)])
    with open(path, 'wb', buffering=0) as f, ThreadPoolExecutor(1) as hashing, ThreadPoolExecutor(1) as flushing:
        _write_all(f, len(text).to_bytes(8, 'little') + text)
        digest.update(len(text).to_bytes(8, 'little') + text)
        for array in arrays.values():
            for piece in (
                array.pieces(buffers)
                if hasattr(array, 'pieces')
                else [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data]
            ):
                pending.append(hashing.submit(digest.update, piece))  # in parallel: neither needs Python's global lock
                _write_all(f, piece)
                unflushed += piece.nbytes
                if len(pending) > 1:  # the buffer of the piece before the last is filled next
                    pending.popleft().result()
            if unflushed > FLUSH_EVERY:  # otherwise the disk is idle now, and all data is flushed at the end
                flushes.append(flushing.submit(os.fsync, f.fileno()))
                unflushed = 0
        for waiting in (*pending, *flushes):
            waiting.result()  # a full disk may only be reported here
    return digest.hexdigest()


def _write_all(f, data):
    """Write all data. Unbuffered writes may be incomplete (Linux stops at 2 GB)."""
    data = memoryview(data)
    while data.nbytes:
        data = data[f.write(data) :]


def sha256(path):
    """sha256 of a file as hex digits. It reads large pieces, so that other threads' use of Python's lock rarely blocks
    it."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(8 << 20))
    with open(path, 'rb', buffering=0) as f:
        while size := f.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def flush(path):
    """Wait until a file, or a directory's entries, are on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

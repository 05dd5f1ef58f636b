"""Files and directories that are written whole or not at all."""
import glob
import hashlib
import json
import math
import mmap
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

KINDS = {np.dtype(np.float64): 'F64', np.dtype(np.float32): 'F32', np.dtype(np.float16): 'F16', np.dtype(np.int64): 'I64', np.dtype(np.int32): 'I32'}


def write_directory(directory, fill):
    """Call `fill(temporary)` on a fresh directory beside `directory`, flush it, and rename it into place."""
    directory = Path(os.path.abspath(directory))
    own = f'.{directory.name}.{socket.gethostname()}.'
    for left in directory.parent.glob(glob.escape(own) + '*'):                   # of a process that was killed here
        if not _is_alive(left.name[len(own):].partition('.')[0]):
            shutil.rmtree(left, ignore_errors=True)
    temporary = directory.with_name(f'{own}{os.getpid()}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        for path in [*temporary.rglob('*'), temporary]:
            flush(path)
        if directory.exists():
            old = directory.with_name(f'{own}{os.getpid()}.old')
            os.rename(directory, old)
            os.rename(temporary, directory)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, directory)
        flush(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_alive(pid):
    """Whether a process of this machine has this number (text); True for what is no number."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        pass
    return True


def write_flushed(path, data):
    """Write bytes and wait until they are on the disk."""
    with open(path, 'wb') as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_weights(path, arrays):
    """Write a safetensors file tensor by tensor: the library's own writer wants all of them in memory at once.

    Args:
        path: of the file. It is not flushed yet: `write_directory` does that.
        arrays: {name: array, or what has shape and dtype and becomes one by numpy.asarray when its turn comes}; where it has a
            method `release`, that is called when it was written.

    Returns:
        sha256 of the file, as hex digits.
    """
    header, end = {}, 0
    for name, array in arrays.items():
        dtype = np.dtype(array.dtype)
        begin, end = end, end + math.prod(array.shape) * dtype.itemsize
        header[name] = {'dtype': KINDS[dtype], 'shape': list(array.shape), 'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)              # numbers begin at a multiple of 8
    digest = hashlib.sha256()
    with open(path, 'wb') as f, ThreadPoolExecutor(1) as hashing:
        def write(data):
            hashed = hashing.submit(digest.update, data)       # beside the writing: neither holds Python's lock
            f.write(data)
            hashed.result()

        write(len(text).to_bytes(8, 'little') + text)
        for array in arrays.values():
            data = np.ascontiguousarray(array)
            if data.size:
                write(data.reshape(-1).view(np.uint8).data)
            del data
            if hasattr(array, 'release'):
                array.release()
    return digest.hexdigest()


def sha256(path):
    """Hex digest of a file; in large pieces, so that beside other Python threads it seldom waits for Python's lock."""
    digest, piece = hashlib.sha256(), 128 << 20
    with open(path, 'rb') as f:
        size = os.fstat(f.fileno()).st_size
        if size:
            with mmap.mmap(f.fileno(), size, access=mmap.ACCESS_READ) as memory, memoryview(memory) as view:
                for start in range(0, size, piece):
                    with view[start:start + piece] as part:
                        digest.update(part)
                    memory.madvise(mmap.MADV_DONTNEED)         # or the whole file would count as this process's memory
    return digest.hexdigest()


def flush(path):
    """Wait until a file, or a directory's entries, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Tensors that are read from their file only when needed."""

import math
import mmap
import os
import stat
from dataclasses import dataclass

import numpy as np

from diffdis_ms.errors import CheckpointError

# safetensors' name -> NumPy type of the stored data; NumPy has no bfloat16, which is read as 16-bit integers
# fmt: off
DTYPES = {
    'F64': np.dtype('<f8'), 'F32': np.dtype('<f4'), 'F16': np.dtype('<f2'), 'BF16': np.dtype('<u2'),
    'I64': np.dtype('<i8'), 'I32': np.dtype('<i4'), 'I16': np.dtype('<i2'), 'I8': np.dtype('i1'), 'U8': np.dtype('u1'),
    'BOOL': np.dtype('?'),
}
# fmt: on


class MappedFile:
    """A file that is memory-mapped for headers and non-contiguous tensors, and read for large ones.

    Reading is faster for large tensors: mapping gigabytes of pages costs more time than copying them. Raises
    CheckpointError if the file cannot be opened.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait forever
                raise CheckpointError(
                    f'{path} is {"a directory" if os.path.isdir(path) else "no regular file"}, expected a file'
                )
            self._file = open(path, 'rb', buffering=0)  # noqa: SIM115 (closed by close)
            self.size = os.fstat(self._file.fileno()).st_size
            if not self.size:
                raise CheckpointError(f'{path} is empty')
            self.memory = mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise CheckpointError(f'{path} does not exist') from None
        except (OSError, ValueError) as e:
            if isinstance(e, CheckpointError):
                raise
            raise CheckpointError(f'{path} cannot be read: {getattr(e, "strerror", None) or e}') from None

    def read(self, start, size):
        """Bytes [start, start + size), which must be inside the file."""
        if start < 0 or size < 0 or start + size > self.size:
            raise CheckpointError(
                f'{self.path} is cut short: bytes {start}..{start + size} of {self.size} are asked for'
            )
        return self.memory[start : start + size]

    def read_into(self, rest, start):
        """Fill a memoryview with the file's bytes from `start` on."""
        while rest.nbytes:
            count = os.preadv(self._file.fileno(), [rest], start)
            if not count:
                raise CheckpointError(f'{self.path} became shorter while it was read')
            rest, start = rest[count:], start + count

    def release(self, start, size):
        """Tell the system that these bytes are not needed any more, so that a large file does not fill the memory."""
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        if size and hasattr(mmap, 'MADV_DONTNEED'):
            self.memory.madvise(mmap.MADV_DONTNEED, first, start + size - first)


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor of a checkpoint. Its bounds were checked when it was created.

    Attributes:
        file: MappedFile. start: position of element 0 in bytes. kind: a key of DTYPES.
        shape: shape of the tensor. strides: distance between neighbouring entries along each axis, in elements.
    """

    file: MappedFile
    start: int
    kind: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self):
        """NumPy type of `numpy()`: float32 for bfloat16, which NumPy does not have."""
        return np.dtype(np.float32) if self.kind == 'BF16' else DTYPES[self.kind]

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        return self.size * DTYPES[self.kind].itemsize

    def numpy(self):
        """Read the values into a contiguous array."""
        stored = DTYPES[self.kind]
        if not self.size:
            return np.zeros(self.shape, self.dtype)
        if self._is_contiguous():
            array = np.empty(self.shape, stored)
            self.file.read_into(array.reshape(-1).view(np.uint8).data, self.start)
        else:
            array = self._gather(stored)
        if self.kind == 'BF16':
            array = array.astype(np.uint32)
            array <<= np.uint32(16)  # in place and with this type, because a plain shift could change it
            array = array.view(np.float32)
        return array

    @property
    def is_plain(self):
        """Whether the bytes in the file are those of `numpy()`."""
        return self.kind != 'BF16' and self._is_contiguous()

    def pieces(self, buffers):
        """Yield the bytes of a plain tensor, read into buffers from an iterator of them; see `files.write_weights`."""
        start, left = self.start, self.nbytes
        while left:
            piece = memoryview(next(buffers))[:left]
            self.file.read_into(piece, start)
            start, left = start + piece.nbytes, left - piece.nbytes
            yield piece

    def _is_contiguous(self):
        return self.strides == contiguous_strides(self.shape)

    def _gather(self, stored):
        flat = np.frombuffer(self.file.memory, stored, self._span(), self.start)
        # strides of axes of length 1 may be huge
        steps = [stride * stored.itemsize if n > 1 else 0 for n, stride in zip(self.shape, self.strides, strict=True)]
        array = np.lib.stride_tricks.as_strided(flat, self.shape, steps).copy(order='C')
        del flat
        self.file.release(self.start, self._span() * stored.itemsize)
        return array

    def _span(self):
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


def is_shape(sizes):
    """Whether NumPy can have an array of these sizes: at most 32 integers, not negative, with less than 2^63 elements
    and bytes."""
    return (
        len(sizes) <= 32
        and all(type(n) is int and 0 <= n < 1 << 59 for n in sizes)
        and math.prod(max(n, 1) for n in sizes) < 1 << 59
    )


def contiguous_strides(shape):
    """Strides in elements of a C-contiguous tensor."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def short(value, limit=80):
    """repr for a message, escaped and shortened, because names may come from malicious files."""
    if isinstance(value, int):  # Python refuses to print integers of more than 4300 digits
        return str(value) if value.bit_length() <= 128 else f'a number of {value.bit_length()} bits'
    text = repr(value[:limit]) if isinstance(value, (str, bytes)) else type(value).__name__
    return text if len(text) <= limit else text[: limit - 3] + '...'

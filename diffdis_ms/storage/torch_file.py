"""Read PyTorch's files: zip archives (torch.save since 1.6, TorchScript) and the older format, a sequence of pickles
and raw storages."""

import struct
import zipfile
from dataclasses import dataclass
from typing import Any

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import DTYPES, LazyTensor, is_shape, short
from diffdis_ms.storage.unpickle import MAX_BYTES, MAX_NAME, Global, Inert, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_BYTES = b'\x8a\x0a' + LEGACY_MAGIC.to_bytes(10, 'little')  # LONG1, after the protocol and perhaps a frame
MAX_DIRECTORY = 16 << 20  # bytes of a zip's central directory, enough for about 150,000 members
MAX_EXPANSION = 64 << 20  # bytes by which a tensor may exceed its storage (stride 0)
# fmt: off
STORAGES = {
    'DoubleStorage': 'F64', 'FloatStorage': 'F32', 'HalfStorage': 'F16', 'BFloat16Storage': 'BF16',
    'LongStorage': 'I64', 'IntStorage': 'I32', 'ShortStorage': 'I16', 'CharStorage': 'I8', 'ByteStorage': 'U8',
    'BoolStorage': 'BOOL', 'UntypedStorage': 'U8',
}
# fmt: on
# fmt: off
TORCH_DTYPES = {
    'float64': 'F64', 'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16', 'int64': 'I64', 'int32': 'I32',
    'int16': 'I16', 'int8': 'I8', 'uint8': 'U8', 'bool': 'BOOL',
}
# fmt: on


@dataclass
class Storage:
    """Raw numbers of a file. In the older format the data follows the pickle, so `start` is filled in later."""

    file: Any
    kind: str
    count: int
    start: int = -1


def read_zip(file):
    """Read the value of `data.pkl` in a zip archive, with tensors as LazyTensor."""
    members = _members(file)
    pickles = [name for name in members if name == 'data.pkl' or (name.endswith('/data.pkl') and name.count('/') == 1)]
    if len(pickles) != 1:
        raise CheckpointError(
            f'{file.path} is a zip archive with {len(pickles)} data.pkl at its top, not a PyTorch file; '
            'if a checkpoint is packed in it, unpack it first'
        )
    prefix = pickles[0][: -len('data.pkl')]
    order = _record(file, members, prefix + 'byteorder')
    if order not in (None, b'little'):
        raise CheckpointError(
            f'{file.path} was written on a big-endian machine ({short(order)}); save it again on a little-endian one'
        )
    storages = {}

    def persistent(pid):
        kind, key, count = _storage_id(pid)
        if kind is None:
            return Inert('persistent id', pid)
        if key not in storages:
            start, size = _member(file, members, f'{prefix}data/{key}')
            if size != count * DTYPES[kind].itemsize:
                raise CheckpointError(
                    f'storage {short(key)} has {size} bytes, its pickle says {count} numbers of {kind}'
                )
            storages[key] = (start, size)
        start, size = storages[key]
        if size < count * DTYPES[kind].itemsize:
            raise CheckpointError(f'storage {short(key)} has {size} bytes, its pickle says {count} numbers of {kind}')
        return Storage(file, kind, count, start)

    data = _record(file, members, pickles[0])
    root = unpickle(data, _known(_rebuild_now), persistent, f'{file.path}: {short(pickles[0])}')[0]
    end = 0
    for start, size in sorted(storages.values()):
        if start < end:
            raise CheckpointError(f'{file.path}: two storages overlap at byte {start}')
        end = start + size
    return root


def read_legacy(file):
    """Read the value of a file of torch.save before 1.6, with tensors as LazyTensor."""
    position, value = 0, None
    for what, expected in (('magic number', LEGACY_MAGIC), ('protocol', 1001), ('system information', None)):
        value, length = unpickle(_window(file, position), {}, None, f'{file.path}: {what}', 1000)
        position += length
        if expected is not None and value != expected:
            raise CheckpointError(f'{file.path}: {what} {short(value)} of torch.save is unknown (expected: {expected})')
    if isinstance(value, dict) and value.get('little_endian') is False:
        raise CheckpointError(f'{file.path} was written on a big-endian machine; save it again on a little-endian one')
    storages, pending = {}, []

    def persistent(pid):
        kind, key, count = _storage_id(pid)
        if kind is None:
            return Inert('persistent id', pid)
        storage, view = storages.setdefault(key, Storage(file, kind, count)), pid[5] if len(pid) > 5 else None
        if (storage.kind, storage.count) != (kind, count):
            raise CheckpointError(f'storage {short(key)} is described in two ways')
        if view is not None:
            raise CheckpointError(
                'views of storages (torch before 0.4) are not understood; load and save it again with a newer torch'
            )
        return storage

    root, length = unpickle(
        _window(file, position), _known(lambda *a: _rebuild_later(pending, *a)), persistent, f'{file.path}: pickle'
    )
    keys, after = unpickle(
        _window(file, position + length), {}, None, f'{file.path}: list of storages', 4 * len(storages) + 1000
    )
    position += length + after
    if (
        not isinstance(keys, list)
        or not all(isinstance(k, str) for k in keys)
        or set(keys) != set(storages)
        or len(keys) != len(storages)
    ):
        raise CheckpointError(f'{file.path}: the list of storages does not fit the pickle')
    for key in keys:
        storage = storages[key]
        count = struct.unpack('<q', file.read(position, 8))[0]
        if count != storage.count:
            raise CheckpointError(
                f'{file.path}: storage {short(key)} has {count} numbers, its pickle says {storage.count}'
            )
        storage.start = position + 8
        position += 8 + count * DTYPES[storage.kind].itemsize
        if position > file.size:
            raise CheckpointError(
                f'{file.path} is cut short: storage {short(key)} ends at byte {position} of {file.size}'
            )
    for tensor, storage in pending:
        object.__setattr__(tensor, 'start', tensor.start + storage.start)
    return root


def _window(file, position):
    """The part of the file for one pickle: the largest allowed size, plus one byte to detect pickles that are too
    long."""
    return file.read(position, min(MAX_BYTES + 1, file.size - position))


class _BoundedReader:
    """File object for zipfile with a size limit; otherwise zipfile would read a central directory of any size."""

    def __init__(self, file):
        self.file, self.position = file, 0

    def seek(self, offset, whence=0):
        self.position = offset + (0, self.position, self.file.size)[whence]
        if self.position < 0:
            raise OSError('a position before the start')
        return self.position

    def tell(self):
        return self.position

    def read(self, size=-1):
        left = max(self.file.size - self.position, 0)
        size = left if size < 0 else min(size, left)
        if size > MAX_DIRECTORY:
            raise CheckpointError(f'{self.file.path}: a directory of {size} bytes is too large for a checkpoint')
        self.position += size
        return self.file.read(self.position - size, size)


def _members(file):
    """{name: ZipInfo}, after checking the names."""
    try:
        with zipfile.ZipFile(_BoundedReader(file)) as archive:
            infos = archive.infolist()
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError, OverflowError, IndexError) as e:
        raise CheckpointError(
            f'{file.path} is a damaged or incomplete zip archive ({short(str(e))}); download or copy it again'
        ) from None
    members = {info.orig_filename: info for info in infos}  # `filename` ends at a NUL
    if len(members) != len(infos):
        raise CheckpointError(f'{file.path}: two members have the same name')
    for name in members:
        if name.startswith('/') or '\\' in name or '\0' in name or '..' in name.split('/'):
            raise CheckpointError(f'{file.path}: member {short(name)} points outside the archive')
    return members


def _member(file, members, name):
    """Find the bytes of a stored member in the file; returns (start, size)."""
    info = members.get(name)
    if info is None:
        raise CheckpointError(f'{file.path} lacks {short(name)}: it is incomplete')
    header = file.read(info.header_offset, 30)
    signature, flags, method, name_length, extra_length = struct.unpack('<4s2xHH16xHH', header)
    if signature != b'PK\x03\x04' or flags & 1:
        raise CheckpointError(
            f'{file.path}: {short(name)} is {"encrypted" if flags & 1 else "not where the directory says"}'
        )
    if method or info.compress_type or info.compress_size != info.file_size:
        raise CheckpointError(
            f'{file.path}: {short(name)} is compressed, which torch.save never does; save it again with torch.save'
        )
    start = info.header_offset + 30 + name_length + extra_length
    if file.read(info.header_offset + 30, name_length) != info.orig_filename.encode(
        'utf-8' if info.flag_bits & 0x800 else 'cp437', 'replace'
    ):
        raise CheckpointError(f'{file.path}: {short(name)} has another name in its own header')
    if start + info.file_size > file.size:
        raise CheckpointError(
            f'{file.path} is cut short: {short(name)} ends at byte {start + info.file_size} of {file.size}'
        )
    return start, info.file_size


def _record(file, members, name):
    """Read the bytes of a small member; None if it does not exist."""
    if name not in members:
        return None
    start, size = _member(file, members, name)
    if size > MAX_BYTES:
        raise CheckpointError(
            f'{file.path}: {short(name)} has {size} bytes, more than the {MAX_BYTES >> 20} MB that any checkpoint needs'
        )
    return file.read(start, size)


def _storage_id(pid) -> tuple[Any, Any, Any]:
    """(kind, key, count) of a persistent id; kind is None if it is not a storage of a known number type."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != 'storage' or not isinstance(pid[1], Global):
        return None, None, None
    cls, key, count = pid[1], pid[2], pid[4]
    if cls.module not in ('torch', 'torch.storage', 'torch.cuda') or cls.name not in STORAGES:
        return None, None, None
    if not isinstance(key, str) or len(key) > MAX_NAME or not _is_count(count):
        raise CheckpointError('is damaged (a storage without a name or size)')
    return STORAGES[cls.name], key, count


def _is_count(value):
    return type(value) is int and 0 <= value < 1 << 62


def _rebuild_now(storage, offset, shape, strides, kind=None):
    return _tensor(storage, offset, shape, strides, kind)


def _rebuild_later(pending, storage, offset, shape, strides, kind=None):
    """Make a tensor in the older format, whose start is known later because the data follows the pickle."""
    tensor = _tensor(storage, offset, shape, strides, kind)
    if isinstance(tensor, LazyTensor):
        object.__setattr__(tensor, 'start', tensor.start - storage.start)
        pending.append((tensor, storage))
    return tensor


def _tensor(storage, offset, shape, strides, kind=None):
    """Make a LazyTensor on a storage and check its bounds; Inert if the storage is of an unknown type."""
    if not isinstance(storage, Storage):
        return Inert('tensor', (storage,))
    kind = kind or storage.kind
    count = storage.count * DTYPES[storage.kind].itemsize // DTYPES[kind].itemsize
    if not (
        _is_count(offset)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and is_shape(shape)
        and len(shape) == len(strides)
        and all(map(_is_count, strides))
    ):
        raise CheckpointError('is damaged (a tensor whose shape, strides or offset are not sizes)')
    tensor = LazyTensor(storage.file, storage.start + offset * DTYPES[kind].itemsize, kind, shape, strides)
    if tensor.size and offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) >= count:
        raise CheckpointError(
            f'a tensor of shape {short(str(shape))} at {offset} reaches beyond its storage of {count} numbers'
        )
    if tensor.size > count and tensor.nbytes > MAX_EXPANSION:
        raise CheckpointError(f'a tensor of shape {short(str(shape))} expands a storage of {count} numbers')
    return tensor


def _known(rebuild):
    """Our own functions for the functions that torch's pickles may call. Everything else stays inert."""

    def ordered_dict(pairs=()):
        if pairs != () and not (isinstance(pairs, list) and not pairs):
            raise CheckpointError('an OrderedDict made of another object is not understood')
        return {}

    def tensor_v2(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
        return rebuild(storage, offset, shape, strides)

    def tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype, metadata=None):
        if not isinstance(dtype, Global) or dtype.module != 'torch' or dtype.name not in TORCH_DTYPES:
            return Inert('tensor', (dtype,))
        return rebuild(storage, offset, shape, strides, TORCH_DTYPES[dtype.name])

    def unchanged(value, *_):
        return value

    return {
        ('collections', 'OrderedDict'): ordered_dict,
        ('torch', 'Size'): unchanged,
        ('torch._utils', '_rebuild_tensor'): tensor_v2,
        ('torch._utils', '_rebuild_tensor_v2'): tensor_v2,
        ('torch._utils', '_rebuild_tensor_v3'): tensor_v3,
        ('torch._utils', '_rebuild_parameter'): unchanged,
        ('torch._utils', '_rebuild_parameter_with_state'): unchanged,
        ('torch.nn.parameter', 'Parameter'): unchanged,
        ('torch.jit._pickle', 'restore_type_tag'): unchanged,
        ('torch.jit._pickle', 'build_intlist'): unchanged,
        ('torch.jit._pickle', 'build_doublelist'): unchanged,
        ('torch.jit._pickle', 'build_boollist'): unchanged,
        ('torch.jit._pickle', 'build_tensorlist'): unchanged,
    }

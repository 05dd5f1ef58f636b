"""Read safetensors files lazily. They have an 8-byte length, a JSON header and the data."""

import json
import struct

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import DTYPES, LazyTensor, contiguous_strides, is_shape, short

MAX_HEADER = 8 << 20  # bytes; Stable Diffusion's has 0.2 million, and parsed JSON takes up to 40 times its size


def read_safetensors(file):
    """Read {name: LazyTensor}; raises CheckpointError if the header does not describe the file exactly."""
    size = struct.unpack('<Q', file.read(0, 8))[0]
    if size > min(MAX_HEADER, file.size - 8):
        raise CheckpointError(f'{file.path}: its header would have {size} bytes; not a safetensors file, or cut short')
    try:
        header = json.loads(file.read(8, size).decode('utf-8'), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f'{file.path}: the header is damaged ({short(str(e))})') from None
    if not isinstance(header, dict):
        raise CheckpointError(f'{file.path}: the header is no mapping of names to tensors')
    header.pop('__metadata__', None)
    tensors = {name: _tensor(file, 8 + size, name, entry) for name, entry in header.items()}
    end = 8 + size
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start != end:
            raise CheckpointError(
                f'{file.path}: {short(name)} begins at byte {tensor.start}, expected {end}: gap or overlap'
            )
        end += tensor.nbytes
    if end != file.size:
        raise CheckpointError(
            f'{file.path} has {file.size} bytes, its header describes {end}: it is cut short or damaged'
        )
    return tensors


def _unique(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError('a name occurs twice')
    return result


def _tensor(file, data, name, entry):
    first = last = 0
    try:
        kind, shape, (first, last) = entry['dtype'], entry['shape'], entry['data_offsets']
        sound = isinstance(kind, str) and isinstance(shape, list) and is_shape(shape)
        sound = sound and all(type(n) is int and 0 <= n < 1 << 62 for n in (first, last))
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise CheckpointError(f'{file.path}: the entry of {short(name)} is damaged')
    if kind not in DTYPES:
        raise CheckpointError(f'{file.path}: {short(name)} is of type {short(kind)}, which is not understood')
    tensor = LazyTensor(file, data + first, kind, tuple(shape), contiguous_strides(shape))
    if tensor.nbytes != last - first or data + last > file.size:
        raise CheckpointError(
            f'{file.path}: {short(name)} {kind} {shape if len(str(shape)) < 60 else "..."} does not fit bytes'
            f' {first}..{last}'
        )
    return tensor

"""CIFAR-10 and CIFAR-100, python and binary version.

The pickles are read by `diffdis_ms.storage.unpickle`, which executes nothing in them.
"""

from math import prod

import numpy as np
from PIL import Image

from diffdis_ms.data.benchmarks.files import as_integers, find_base, read_class_lines, required, spaced
from diffdis_ms.data.samples import Sample
from diffdis_ms.errors import CheckpointError, ConfigError
from diffdis_ms.storage.unpickle import Global, Inert, unpickle

SIDE = 32
PIXELS = 3 * SIDE * SIDE
MAX_BYTES = 64 << 20  # per file; the official ones have 31 MB

# name -> (python version: folder, batch file, field of the labels, meta file, field of the names;
#          binary version: folder, batch file, number of label bytes before each image, names file)
_LAYOUT = {
    'cifar10': (
        ('cifar-10-batches-py', 'test_batch', 'labels', 'batches.meta', 'label_names'),
        ('cifar-10-batches-bin', 'test_batch.bin', 1, 'batches.meta.txt'),
    ),
    'cifar100': (
        ('cifar-100-python', 'test', 'fine_labels', 'meta', 'fine_label_names'),
        ('cifar-100-binary', 'test.bin', 2, 'fine_label_names.txt'),
    ),
}


class ArraySet:
    """A classification set in memory: images uint8 (N, 3072), channel by channel. It has the attributes of
    `benchmarks.files.FileSet`."""

    def __init__(self, pixels, labels, class_names, split):
        self._pixels, self._labels = pixels, labels
        self.class_names, self.num_classes, self.split = class_names, len(class_names), split

    def __len__(self):
        return len(self._labels)

    def read(self, i):
        """Sample `i`."""
        picture = self._pixels[i].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        label = self._labels[i]
        return Sample(f'test/{i:05d}', Image.fromarray(np.ascontiguousarray(picture)), self.class_names[label], label)


def open_cifar(name, root):
    """Open the test split of 'cifar10' or 'cifar100' (fine labels), from the python version if both exist.

    Raises:
        ConfigError: a file is missing, truncated, damaged, or not the official one.
    """
    python, binary = _LAYOUT[name]
    python_base, binary_base = (
        find_base(root, (folder,), (batch, meta))
        for folder, batch, meta in ((python[0], python[1], python[3]), (binary[0], binary[1], binary[3]))
    )
    if (binary_base / binary[1]).is_file() and not (python_base / python[1]).is_file():
        return _open_binary(name, binary_base, *binary[1:])
    return _open_python(name, python_base, *python[1:])


def _open_python(name, base, batch, label_field, meta, name_field):
    path, meta_path = base / batch, base / meta
    content, names = _load(name, path), _field(name, meta_path, _load(name, meta_path), name_field)
    if not isinstance(names, list) or not names:
        raise ConfigError(f'{name}: {meta_path}: {name_field!r} is not a list of names')
    names = [_name(name, meta_path, n) for n in names]
    pixels = _pixels(name, path, _field(name, path, content, 'data'))
    labels = _field(name, path, content, label_field)
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ConfigError(f'{name}: {path}: {label_field!r} is not a list of {len(pixels)} labels')
    return ArraySet(pixels, as_integers(name, path, labels, 0, len(names) - 1), names, 'test (python version)')


def _open_binary(name, base, batch, num_labels, meta):
    path = base / batch
    names = [spaced(line) for line in read_class_lines(name, base / meta)]
    content = np.frombuffer(_read(name, path), np.uint8)
    record = num_labels + PIXELS
    if not content.size or content.size % record:
        raise ConfigError(
            f'{name}: {path} has {content.size} bytes, not a multiple of {record}: it is truncated; extract it again'
        )
    content = content.reshape(-1, record)
    labels = as_integers(name, path, content[:, num_labels - 1], 0, len(names) - 1)  # CIFAR-100: coarse, then fine
    return ArraySet(content[:, num_labels:], labels, names, 'test (binary version)')


def _read(name, path):
    size = required(name, path).stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f'{name}: {path} has {size} bytes, more than {MAX_BYTES}: this is not the official file')
    return path.read_bytes()


def _load(name, path):
    try:
        return unpickle(_read(name, path), {('_codecs', 'encode'): _encode}, what=f'{name}: {path}')[0]
    except CheckpointError as e:
        raise ConfigError(f'{e}; extract the official download again') from None


def _encode(text, encoding):
    """Decode bytes that Python 3 wrote as a call in a protocol 2 pickle."""
    if not isinstance(text, str) or encoding != 'latin1':
        raise ValueError('bytes of an unknown encoding')
    return text.encode('latin-1')


def _field(name, path, content, field):
    """Get a dict's value. Files rewritten by Python 3 may have bytes as keys, which the safe reader keeps as Inert."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == field or isinstance(key, Inert) and key.args == field.encode():
            return value
    raise ConfigError(f'{name}: {path} has no {field!r}: this is not the official file')


def _name(name, path, value):
    try:
        text = spaced(value.decode('utf-8') if isinstance(value, bytes) else value)
    except (UnicodeDecodeError, AttributeError):
        text = ''
    if not text:
        raise ConfigError(f'{name}: {path}: {str(value)[:40]!r} is not a name')
    return text


def _pixels(name, path, value):
    """uint8 (N, 3072) from an array pickled by NumPy.

    Such a pickle calls `_reconstruct` and sets a state, or calls `_frombuffer` (protocol 5).
    """
    function = value.cls.name if isinstance(value, Inert) and isinstance(value.cls, Global) else None
    fields = value.state if function == '_reconstruct' else value.args if function == '_frombuffer' else None
    if function == '_reconstruct' and isinstance(fields, tuple) and len(fields) == 5:
        _, shape, dtype, fortran, raw = fields
    elif function == '_frombuffer' and isinstance(fields, tuple) and len(fields) == 4:
        raw, dtype, shape, order = fields
        fortran = order != 'C'
    else:
        raise ConfigError(f'{name}: {path}: \'data\' is not a NumPy array')
    kind = dtype.args[0] if isinstance(dtype, Inert) and isinstance(dtype.args, tuple) and dtype.args else None
    try:
        raw = raw.encode('latin-1') if isinstance(raw, str) else raw  # Python 2 had one kind of string
    except UnicodeEncodeError:
        raw = None
    if (
        kind not in ('u1', '|u1')
        or fortran
        or not isinstance(raw, (bytes, bytearray))
        or not isinstance(shape, tuple)
        or len(shape) != 2
        or any(type(n) is not int or n < 1 for n in shape)
        or shape[1] != PIXELS
        or prod(shape) != len(raw)
    ):
        raise ConfigError(f'{name}: {path}: \'data\' is not an array of N x {PIXELS} bytes')
    return np.frombuffer(raw, np.uint8).reshape(shape)

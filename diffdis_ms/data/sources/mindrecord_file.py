"""MindRecord, MindSpore's own container: written by MindSpore's writer, and read by index here.

Untrusted files are not given to MindSpore's C++ reader. The header (JSON), the index (SQLite, opened read-only) and the
records (msgpack) are read in Python, and every size and position is checked against the file before it is used. Only
SQLite's own parser remains. MindSpore's `MindDataset` and `FileReader` can read the same files.

A file has a header, then pages of one size. The index `FILE.db` gives the positions of each row's fields. Numbers and
texts are together in one place (u64 little-endian size, msgpack map). Fields of bytes are in another place (u64
little-endian size, then the field; with several such fields, each follows its own u64 big-endian size, in the order of
the header's `blob_fields`).
"""

import json
import os
import sqlite3
import stat
import struct
from pathlib import Path

import msgpack
import numpy as np

from diffdis_ms.data.samples import find_files
from diffdis_ms.errors import ConfigError

SUFFIX = '.mindrecord'
MAX_HEADER = 64 << 20  # bytes
MAX_FIELDS = 1 << 16
_VALUES = (str, int, float, bool, bytes, type(None))
_PLACES = 'PAGE_ID_RAW, PAGE_OFFSET_RAW, PAGE_OFFSET_RAW_END, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END'


class Records:
    """Rows of MindRecord files, by index.

    Attributes:
        paths: the files. files: the files and their indices. folder: their folder.
        skipped: {key: reason} of rows whose position is outside the file.
    """

    def __init__(self, path):
        """Args:
            path: a directory with *.mindrecord (or *.mindrecord0, ...), one such file, or a glob pattern.

        Raises:
            ConfigError: there is no file, its index or another file of the set is missing, or it is not MindRecord.
        """
        self.skipped = {}
        self.paths = [p for p in find_files(path, f'*{SUFFIX}*', 'MindRecord file') if p.suffix != '.db']
        self._fields, self._rows, shards = [], [], set()
        for number, file in enumerate(self.paths):
            header = _read_header(file)
            shards |= {Path(str(name)).name for name in header.get('shard_addresses') or ()}
            self._fields.append(_fields(file, header))
            self._rows.append(self._index(number, file, header))
        if not self.paths:
            raise ConfigError(f'{path} has only indices (*.db), without the files that they belong to')
        missing = shards - {p.name for p in self.paths}
        if Path(path).is_dir() and missing:
            raise ConfigError(f'{path}: {sorted(missing)[0]} is missing, which belongs to the same MindRecord set')
        # (N, 5): file, position and size of the texts, position and size of the bytes
        self._rows = np.concatenate(self._rows)
        if not len(self._rows):
            raise ConfigError(f'{path}: no row in {len(self.paths)} MindRecord file(s)')
        self.folder = self.paths[0].absolute().parent
        self.files = [*self.paths, *map(_index_of, self.paths)]

    def __len__(self):
        return len(self._rows)

    def row(self, i):
        """Read ({name: text or number}, {name: bytes}) of row `i`; raises ValueError if it is damaged, OSError if the
        file is gone."""
        number, text_at, text_size, blob_at, blob_size = self._rows[i].tolist()
        with open(self.paths[number], 'rb') as file:  # opened per read, which is thread-safe
            texts, content = _read_at(file, text_at, text_size), _read_at(file, blob_at, blob_size)
        names = self._fields[number][1]
        try:
            return _unpack(_sized(texts)), dict(zip(names, _blobs(_sized(content), len(names)), strict=True))
        except struct.error as e:
            raise ValueError(str(e)) from None

    def _index(self, number, path, header):
        size, at, page = path.stat().st_size, header['header_size'], header['page_size']
        rows = _read_index(_index_of(path))
        ends = (at + rows[:, [0, 3]] * page) + rows[:, [2, 5]]
        starts = (at + rows[:, [0, 3]] * page) + rows[:, [1, 4]]
        sound = (
            (rows >= 0).all(1)
            & (rows[:, [0, 3]] <= size // page).all(1)
            & (rows[:, [1, 4]] <= rows[:, [2, 5]]).all(1)
            & (rows[:, [2, 5]] <= page).all(1)
            & (ends <= size).all(1)
        )
        reason = 'its position is outside the file: the file is truncated, or the index belongs to another file'
        self.skipped |= {f'{path.name}: row {row}': reason for row in np.flatnonzero(~sound).tolist()}
        lengths = ends - starts
        places = [np.full(len(rows), number), starts[:, 0], lengths[:, 0], starts[:, 1], lengths[:, 1]]
        return np.stack(places, 1)[sound]


def open_writer(path, schema, index, row_bytes):
    """Open MindSpore's writer for a file.

    Args:
        path: path of the file. schema: {field: {'type': ...}}. index: field of the index, besides the row number.
        row_bytes: bytes of the largest row.
    """
    from mindspore.mindrecord import FileWriter  # takes seconds to import, and only writing needs it

    writer = FileWriter(str(path), 1)
    writer.set_header_size(1 << 20)
    writer.set_page_size(min(256 << 20, max(4 << 20, 1 << row_bytes.bit_length())))  # a row must fit in a page
    writer.add_schema(schema, 'image and caption pairs')
    writer.add_index([index])
    return writer


def close_writer(writer, path):
    """Finish what `open_writer` began."""
    writer.commit()
    for file in (path, _index_of(path)):
        os.chmod(file, stat.S_IMODE(os.stat(path.parent).st_mode) & 0o666)  # MindSpore gives access only to the owner


def _index_of(path):
    return path.with_name(path.name + '.db')


def _read_header(path):
    """Read the header, a dict with plausible page and header sizes."""
    with open(path, 'rb') as file:
        size = int.from_bytes(file.read(8), 'little')
        text = file.read(size) if 0 < size <= MAX_HEADER else b''
    try:
        header = json.loads(text)
        sizes = [header[name] for name in ('header_size', 'page_size')]
        shards = header.get('shard_addresses') or []
        if all(type(n) is int and 0 < n < 1 << 40 for n in sizes) and isinstance(shards, list):
            return header
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        pass
    raise ConfigError(f'{path} is not a MindRecord file (its header cannot be read)')


def _fields(path, header):
    """({field: type}, ordered names of the fields of bytes)."""
    try:
        (schema,) = header['schema']
        types = {str(name): what['type'] for name, what in schema['schema'].items()}
        return types, [str(name) for name in schema['blob_fields']]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise ConfigError(f'{path}: the header has no readable schema') from None


def _read_index(path):
    """Read the positions of all rows, int64 (N, 6)."""
    if not path.is_file():
        raise ConfigError(f'{path} is missing: a MindRecord file cannot be read without its index')
    try:
        database = sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro&immutable=1', uri=True)
        try:
            database.execute('PRAGMA trusted_schema = OFF')
            database.execute('PRAGMA cell_size_check = ON')
            kind = database.execute("SELECT type FROM sqlite_master WHERE name = 'INDEXES'").fetchone()
            if kind != ('table',):  # a view could compute forever
                raise ConfigError(f'{path} is not the index of a MindRecord file')
            rows = database.execute(f'SELECT {_PLACES} FROM INDEXES ORDER BY ROW_ID').fetchall()
            return np.array(rows, np.int64).reshape(-1, 6)
        finally:
            database.close()
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as e:
        raise ConfigError(
            f'{path} cannot be read as the index of a MindRecord file: {" ".join(str(e).split())}'
        ) from None


def _read_at(file, at, size):
    file.seek(at)
    return file.read(size)


def _sized(content):
    """The content after a u64 little-endian size."""
    size = struct.unpack_from('<Q', content)[0]
    if size > len(content) - 8:
        raise ValueError('cut')
    return content[8 : 8 + size]


def _blobs(content, count):
    """Split the content into `count` fields of bytes."""
    if count == 1:
        return [content]
    found, at = [], 0
    for _ in range(count):
        size = struct.unpack_from('>Q', content, at)[0]
        if size > len(content) - at - 8:
            raise ValueError('cut')
        found.append(content[at + 8 : at + 8 + size])
        at += 8 + size
    return found


def _unpack(data):
    """Decode a flat msgpack map of texts and numbers, as written by MindSpore. Raises ValueError for anything else."""
    room = max(1, len(data))
    head = msgpack.Unpacker(max_buffer_size=room, max_map_len=MAX_FIELDS)
    # nested maps and arrays would take far more memory than they have bytes in the file
    body = msgpack.Unpacker(max_buffer_size=room, max_map_len=0, max_array_len=0, max_ext_len=0)
    fields = {}
    try:
        head.feed(data)
        count = head.read_map_header()
        if count > MAX_FIELDS:
            raise ValueError('too many fields')
        body.feed(data[head.tell() :])
        for _ in range(count):
            name, value = body.unpack(), body.unpack()
            if type(name) is not str or type(value) not in _VALUES:
                raise ValueError('not a map of texts and numbers')
            fields[name] = value
    except msgpack.UnpackException as e:
        raise ValueError(str(e)) from None
    if head.tell() + body.tell() != len(data):
        raise ValueError('more than a map')
    return fields

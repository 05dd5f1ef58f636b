"""MindRecord: what MindSpore writes is read here, what is written here MindSpore reads, and damage is met with one
line."""

import io
import json
import sqlite3
import struct

import msgpack
import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.sources.mindrecord import MindRecordSet, MindRecordWriter
from diffdis_ms.data.sources.mindrecord_file import _unpack
from diffdis_ms.errors import BadSample, ConfigError
from tests.data.test_webdataset import picture, png


def write(folder, count=7, per_shard=3):
    with MindRecordWriter(folder, samples_per_shard=per_shard, image_format='PNG') as writer:
        for i in range(count):
            writer.write(f'{i:04d}', picture(i), f'caption {i} ü', i % 3 if i else None, {'number': i})
    return folder


def foreign(path, rows, schema, index=()):
    """As somebody else writes it, with MindSpore's defaults; `schema` is {field: type}."""
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path), 1)
    writer.add_schema(
        {name: what if isinstance(what, dict) else {'type': what} for name, what in schema.items()}, 'foreign'
    )
    if index:
        writer.add_index(list(index))
    writer.write_raw_data(rows)
    writer.commit()
    return path


def test_what_is_written_is_read_back(tmp_path):
    records = MindRecordSet(write(tmp_path))
    assert [p.name for p in records.paths] == ['00000.mindrecord', '00001.mindrecord', '00002.mindrecord'] and len(
        records
    ) == 7
    for i in range(7):
        sample = records.read(i)
        assert (sample.key, sample.caption, sample.meta) == (f'{i:04d}', f'caption {i} ü', {'number': i})
        assert sample.label == (i % 3 if i else None)
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(picture(i)))
    assert records.skipped == {} and not records.checked and records.class_names is None
    assert (
        len(MindRecordSet(tmp_path / '00001.mindrecord')) == 3
        and len(MindRecordSet(str(tmp_path / '0000[01].mindrecord'))) == 6
    )
    (tmp_path / 'summary.json').write_text('{"num_kept": 7}')
    assert MindRecordSet(tmp_path).checked


def test_mindspore_reads_the_same_rows(tmp_path):
    import mindspore.dataset as ds

    records = MindRecordSet(write(tmp_path))
    rows = list(
        ds.MindDataset(
            [str(p) for p in records.paths], ['key', 'image', 'caption', 'label'], shuffle=False
        ).create_dict_iterator(num_epochs=1, output_numpy=True)
    )
    assert len(rows) == 7
    for i, row in enumerate(rows):
        sample = records.read(i)
        assert (str(row['key']), str(row['caption']), int(row['label'])) == (
            sample.key,
            sample.caption,
            -1 if sample.label is None else sample.label,
        )
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(row['image'].tobytes()))), np.asarray(sample.image)
        )


def test_sets_of_others_with_arrays_numbers_and_several_fields_of_bytes(tmp_path):
    rows = [
        {
            'img': png(i),
            'mask': b'm' * i,
            'zeta': b'z' * (7 + i),
            'weights': np.full(3, i, np.float32),
            'text': 'x' * (10**i),
            'label': 300**i,
            'big': -(10**12),
            'score': 0.5,
        }
        for i in range(4)
    ]
    foreign(
        tmp_path / 'set.mindrecord',
        rows,
        {
            'img': 'bytes',
            'mask': 'bytes',
            'zeta': 'bytes',
            'text': 'string',
            'label': 'int32',
            'big': 'int64',
            'score': 'float64',
            'weights': {'type': 'float32', 'shape': [3]},
        },
        ['label'],
    )
    records = MindRecordSet(tmp_path)
    for i, row in enumerate(rows):
        sample = records.read(i)
        assert (sample.key, sample.caption, sample.label, sample.meta) == (
            f'set.mindrecord:{i}',
            row['text'],
            row['label'],
            {},
        )
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(picture(i)))


def test_many_pages(tmp_path):
    """More than a page of images and of texts."""
    with MindRecordWriter(tmp_path, image_format='PNG') as writer:
        for i in range(150):
            writer.write(f'{i:04d}', picture(i, 120), f'{i} ' + 'long ' * 8000)
    records = MindRecordSet(tmp_path)
    assert json.loads((tmp_path / '00000.mindrecord').read_bytes()[8:].split(b'\0')[0])['page'][-1]['page_id'] > 2
    for i in (0, 42, 99, 100, 149):
        np.testing.assert_array_equal(np.asarray(records.read(i).image), np.asarray(picture(i, 120)))
        assert records.read(i).caption.startswith(f'{i} long')


def test_bad_rows_say_why(tmp_path):
    foreign(
        tmp_path / 'a.mindrecord',
        [
            {'image': image, 'caption': caption, 'key': f'k{i}'}
            for i, (image, caption) in enumerate(((png(), 'fine'), (b'broken', 'x'), (png()[:60], 'x'), (png(), ' ')))
        ],
        {'image': 'bytes', 'caption': 'string', 'key': 'string'},
    )
    records = MindRecordSet(tmp_path)
    assert records.read(0).caption == 'fine'
    for i, reason in ((1, 'k1: not an image'), (2, 'k2: pixels cannot'), (3, 'k3: no caption')):
        with pytest.raises(BadSample, match=reason):
            records.read(i)
    with pytest.raises(BadSample, match='more than 50'):
        MindRecordSet(tmp_path, max_member_bytes=50).read(0)


def patch(path, sql, *values):
    database = sqlite3.connect(path)
    with database:
        database.execute(sql, values)
    database.close()


@pytest.mark.parametrize('value', [-1, 2**40, 2**62])
@pytest.mark.parametrize(
    'column',
    [
        'PAGE_ID_RAW',
        'PAGE_OFFSET_RAW',
        'PAGE_OFFSET_RAW_END',
        'PAGE_ID_BLOB',
        'PAGE_OFFSET_BLOB',
        'PAGE_OFFSET_BLOB_END',
    ],
)
def test_an_index_that_points_out_of_the_file_loses_its_row_only(tmp_path, column, value):
    write(tmp_path, 3)
    patch(tmp_path / '00000.mindrecord.db', f'UPDATE INDEXES SET {column} = ? WHERE ROW_ID = 1', value)
    records = MindRecordSet(tmp_path)
    assert list(records.skipped) == ['00000.mindrecord: row 1']
    assert [records.read(i).key for i in range(len(records))] == ['0000', '0002']


def test_damaged_records_are_bad_samples_whatever_the_damage(tmp_path):
    """Bytes of the rows are overwritten at random: a sample or a BadSample, nothing else."""
    file = write(tmp_path, 3) / '00000.mindrecord'
    sound, rng, bad = file.read_bytes(), np.random.default_rng(0), 0
    records = MindRecordSet(tmp_path)
    places = [
        p for row in records._rows for start, size in (row[1:3], row[3:5]) for p in range(start, start + min(size, 80))
    ]
    for _ in range(300):
        content = bytearray(sound)
        for place in rng.choice(places, 3):
            content[place] = rng.integers(256)
        file.write_bytes(content)
        for i in range(3):
            try:
                records.read(i)
            except BadSample:
                bad += 1
    assert bad > 100


TEXT = b'\xa1a'  # msgpack of 'a'


@pytest.mark.parametrize(
    'record',
    [
        b'',
        TEXT,
        b'\x91' + TEXT,
        b'\x81' + TEXT,
        b'\x81\x01' + TEXT,
        b'\x81' + TEXT + TEXT + b'\xc0',
        b'\x81' + TEXT + b'\xa1\xff',
        b'\x81' + TEXT + b'\xc1',
        b'\x81' + TEXT + b'\x80',
        b'\x81' + TEXT + b'\x90',
        b'\x81' + TEXT + b'\xd6\xff' + bytes(4),
        b'\x81' + TEXT + b'\xc7\x00\x05',
        b'\x81' + TEXT + b'\xdb\xff\xff\xff\xff',
        b'\x81' + TEXT + b'\xdd\xff\xff\xff\xff',
        (b'\x81' + TEXT) * 5000 + b'\xc0',
        b'\xdf\x00\x02\x00\x00' + (TEXT + b'\xc0') * 0x20000,
    ],
    ids=[
        'nothing',
        'no map',
        'an array',
        'cut',
        'a number as name',
        'bytes behind it',
        'not UTF-8',
        'no msgpack',
        'a map inside',
        'an array inside',
        'a time',
        'an extension',
        'a text of 4 GB',
        'an array of 4 billion',
        'deep',
        'many fields',
    ],
)
def test_a_record_is_a_flat_map_of_texts_and_numbers_or_damaged(record):
    with pytest.raises(ValueError):
        _unpack(record)


def test_every_kind_of_number_and_text_is_read():
    fields = {'a': 1, 'b': -(2**63), 'c': 2**64 - 1, 'd': 0.5, 'e': 'ü' * 70000, 'f': b'x' * 300, 'g': None, 'h': True}
    assert _unpack(msgpack.packb(fields)) == fields and _unpack(b'\x80') == {}
    assert _unpack(b'\xde\x00\x01' + TEXT + b'\xca\x3f\x80\x00\x00') == {'a': 1.0}


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda f: f.write_bytes(b'no header'), 'not a MindRecord file'),
        (lambda f: f.write_bytes(struct.pack('<Q', 2**60) + b'{}'), 'not a MindRecord file'),
        (lambda f: f.write_bytes(struct.pack('<Q', 50000) + b'[' * 50000), 'not a MindRecord file'),
        (lambda f: f.with_name(f.name + '.db').unlink(), 'db is missing'),
        (lambda f: f.with_name(f.name + '.db').write_bytes(b'x' * 5000), 'cannot be read as the index'),
        (lambda f: patch(f.with_name(f.name + '.db'), 'DROP TABLE INDEXES'), 'not the index'),
        (
            lambda f: (
                patch(f.with_name(f.name + '.db'), 'ALTER TABLE INDEXES RENAME TO X'),
                patch(f.with_name(f.name + '.db'), 'CREATE VIEW INDEXES AS SELECT * FROM X'),
            ),
            'not the index',
        ),
        (
            lambda f: patch(f.with_name(f.name + '.db'), "UPDATE INDEXES SET PAGE_ID_RAW = 'x'"),
            'cannot be read as the index',
        ),
        (lambda f: patch(f.with_name(f.name + '.db'), 'DELETE FROM INDEXES'), 'no row'),
    ],
)
def test_what_is_no_mindrecord_is_refused_in_one_line(tmp_path, damage, message):
    damage(write(tmp_path, 3) / '00000.mindrecord')
    with pytest.raises(ConfigError, match=message) as error:
        MindRecordSet(tmp_path)
    assert '\n' not in str(error.value)


def test_sets_without_a_caption_or_in_part_are_refused(tmp_path):
    foreign(tmp_path / 'a.mindrecord', [{'image': png(), 'label': 1}], {'image': 'bytes', 'label': 'int32'})
    with pytest.raises(ConfigError, match='image: bytes, label: int32; needed are .*caption'):
        MindRecordSet(tmp_path)
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(tmp_path / 'b' / 's.mindrecord'), 2)
    (tmp_path / 'b').mkdir()
    writer.add_schema({'image': {'type': 'bytes'}, 'caption': {'type': 'string'}}, 'x')
    writer.write_raw_data([{'image': png(i), 'caption': 'x'} for i in range(4)])
    writer.commit()
    assert len(MindRecordSet(tmp_path / 'b')) == 4
    (tmp_path / 'b' / 's.mindrecord1').unlink()
    with pytest.raises(ConfigError, match='s.mindrecord1 is missing'):
        MindRecordSet(tmp_path / 'b')
    (tmp_path / 'c').mkdir()
    (tmp_path / 'c' / 'x.mindrecord.db').write_bytes(b'')
    for name, message in (('c', 'only indices'), ('none', 'does not exist')):
        with pytest.raises(ConfigError, match=message):
            MindRecordSet(tmp_path / name)

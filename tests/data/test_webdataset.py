"""Webdataset tars: written, read, and met in a bad state."""

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.sources.webdataset import CaptionSet, TarWriter
from diffdis_ms.errors import BadSample, ConfigError


def picture(i, size=16):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (size, size, 3), np.uint8))


def png(i=0):
    buffer = io.BytesIO()
    picture(i).save(buffer, 'PNG')
    return buffer.getvalue()


def write_set(directory, count=7, per_shard=3):
    with TarWriter(directory, samples_per_shard=per_shard) as writer:
        for i in range(count):
            writer.write(f'{i:04d}', picture(i), f'caption {i}', i % 3, {'number': i})


def raw_tar(path, members):
    with tarfile.open(path, 'w') as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_what_is_written_is_read_back(tmp_path):
    write_set(tmp_path)
    captions = CaptionSet(tmp_path)
    assert [p.name for p in captions.paths] == ['00000.tar', '00001.tar', '00002.tar'] and len(captions) == 7
    for i in range(7):
        sample = captions.read(i)
        assert (sample.key, sample.caption, sample.label, sample.meta) == (
            f'{i:04d}',
            f'caption {i}',
            i % 3,
            {'number': i},
        )
        np.testing.assert_array_equal(np.asarray(sample.image), np.asarray(picture(i)))
    assert captions.class_names is None and captions.skipped == {}
    assert len(CaptionSet(tmp_path / '00001.tar')) == 3 and len(CaptionSet(str(tmp_path / '0000[01].tar'))) == 6


def test_same_samples_give_the_same_bytes(tmp_path):
    for name in 'ab':
        write_set(tmp_path / name)
    for shard in (tmp_path / 'a').iterdir():
        assert shard.read_bytes() == (tmp_path / 'b' / shard.name).read_bytes()


def test_no_unfinished_shard_is_left_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), TarWriter(tmp_path, samples_per_shard=2) as writer:
        for i in range(3):
            writer.write(str(i), picture(i), 'caption')
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ['00000.tar']
    with pytest.raises(ValueError, match='dot'), TarWriter(tmp_path) as writer:
        writer.write('a.b', picture(0), 'caption')


def test_members_are_grouped_as_webdataset_does(tmp_path):
    raw_tar(
        tmp_path / 'a.tar',
        [
            ('x/1.png', png(1)),
            ('x/1.txt', b'one'),
            ('y.z/1.TXT', b'two'),
            ('y.z/1.PNG', png(2)),
            ('3.png', png(3)),
            ('3.json', json.dumps({'caption': ' three ', 'url': 'u'}).encode()),
            ('.hidden', b''),
            ('note', b''),
            ('__readme.txt', b'text'),
        ],
    )
    captions = CaptionSet(tmp_path)
    samples = [captions.read(i) for i in range(len(captions))]
    assert [(s.key, s.caption) for s in samples] == [('x/1', 'one'), ('y.z/1', 'two'), ('3', 'three')]
    assert samples[2].meta['url'] == 'u' and samples[0].label is None
    assert captions.skipped == {'__readme': 'no image'}


@pytest.mark.parametrize(
    'members,reason',
    [
        ([('a.png', b'broken'), ('a.txt', b'x')], 'not an image'),
        ([('a.png', b''), ('a.txt', b'x')], 'empty'),
        ([('a.png', png())], 'no caption'),
        ([('a.png', png()), ('a.txt', b' \n')], 'no caption'),
        ([('a.png', png()), ('a.txt', b'caf\xe9')], 'UTF-8'),
        ([('a.png', png()), ('a.txt', b'x'), ('a.json', b'{')], 'json'),
        ([('a.png', png()), ('a.json', b'{"caption": 3}')], 'no caption'),
        ([('a.png', png()), ('a.txt', b'x'), ('a.cls', b'cat')], 'integer'),
    ],
)
def test_unusable_samples_say_why(tmp_path, members, reason):
    captions = CaptionSet(raw_tar(tmp_path / 'a.tar', members))
    with pytest.raises(BadSample, match=reason) as error:
        captions.read(0)
    assert error.value.key == 'a' and '\n' not in error.value.reason


def test_caption_may_be_optional(tmp_path):
    sample = CaptionSet(raw_tar(tmp_path / 'a.tar', [('a.png', png()), ('a.cls', b'4\n')]), require_caption=False).read(
        0
    )
    assert sample.caption == '' and sample.label == 4


def test_members_beyond_the_limit_and_doubled_ones_are_refused(tmp_path):
    path = raw_tar(
        tmp_path / 'a.tar',
        [('a.png', png()), ('a.txt', b'x' * 5000), ('b.png', png()), ('b.png', png()), ('b.txt', b'x')],
    )
    captions = CaptionSet(path, max_member_bytes=4000)
    assert len(captions) == 1 and 'two members' in captions.skipped['b']
    with pytest.raises(BadSample, match='more than 4000'):
        captions.read(0)


def test_links_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        for name, content in (('a.txt', b'x'), ('b.png', png()), ('b.txt', b'y')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo('a.png')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
    captions = CaptionSet(tmp_path)
    assert len(captions) == 1 and captions.skipped == {'a': 'no image'}


def test_of_a_truncated_tar_the_whole_samples_are_kept(tmp_path):
    write_set(tmp_path, 4, 10)
    content = (tmp_path / '00000.tar').read_bytes()
    with tarfile.open(tmp_path / '00000.tar') as tar:
        cut = tar.getmember('0002.png').offset_data + 100
    (tmp_path / '00000.tar').write_bytes(content[:cut])
    captions = CaptionSet(tmp_path)
    assert [captions.read(i).key for i in range(len(captions))] == ['0000', '0001']
    assert list(captions.skipped) == ['0002'] and 'truncated' in captions.skipped['0002']


def test_damage_in_the_middle_of_a_tar_is_reported(tmp_path):
    write_set(tmp_path, 4, 10)
    content = bytearray((tmp_path / '00000.tar').read_bytes())
    with tarfile.open(tmp_path / '00000.tar') as tar:
        start = tar.getmember('0002.png').offset
    content[start : start + 512] = b'\x55' * 512
    (tmp_path / '00000.tar').write_bytes(content)
    captions = CaptionSet(tmp_path)
    assert len(captions) == 2 and 'damaged' in captions.skipped[f'00000.tar@{start}']


def test_what_is_no_set_is_refused_in_one_line(tmp_path):
    (tmp_path / 'broken.tar').write_bytes(b'x' * 2000)
    (tmp_path / 'empty.tar').write_bytes(b'')
    raw_tar(tmp_path / 'text.tar', [('a.txt', b'x')])
    with tarfile.open(tmp_path / 'zip.tar', 'w:gz') as tar:
        tar.addfile(tarfile.TarInfo('a'))
    (tmp_path / 'dir').mkdir()
    for name, match in (
        ('broken.tar', 'not an uncompressed tar'),
        ('empty.tar', 'not an uncompressed tar'),
        ('text.tar', 'no image'),
        ('zip.tar', 'gunzip'),
        ('dir', 'no \\*.tar'),
        ('none*.tar', 'matches no file'),
    ):
        with pytest.raises(ConfigError, match=match) as error:
            CaptionSet(tmp_path / name)
        assert name in str(error.value) and '\n' not in str(error.value)


def test_class_names_lie_beside_the_tars(tmp_path):
    write_set(tmp_path)
    (tmp_path / 'classnames.txt').write_text('cat\ndog\n\nfox\n')
    assert CaptionSet(tmp_path).class_names == CaptionSet(tmp_path / '00000.tar').class_names == ['cat', 'dog', 'fox']


def test_threads_read_at_the_same_time(tmp_path):
    write_set(tmp_path, 12, 5)
    captions = CaptionSet(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda i: captions.read(i).key, list(range(12)) * 10))
    assert keys == [f'{i:04d}' for i in range(12)] * 10

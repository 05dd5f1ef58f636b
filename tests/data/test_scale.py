"""10,000 samples, 3 % of them bad in 14 ways: every good one is seen exactly once an epoch over 2 processes, every bad
one is listed."""

import io
import struct
import zlib
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.errors import ConfigError
from diffdis_ms.world import World
from tests.data.test_webdataset import raw_tar

COUNT, EVERY, SHARD, SIZE, BATCH = 10_000, 33, 2_000, 16, 64


def encoded(kind='JPEG', size=(20, 20), seed=0, mode='RGB'):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode).save(
        buffer, kind
    )
    return buffer.getvalue()


def bomb():
    """A PNG of a few bytes whose header announces 50,000 x 50,000 pixels."""
    chunks = b''
    for name, content in (
        (b'IHDR', struct.pack('>IIBBBBB', 50000, 50000, 8, 2, 0, 0, 0)),
        (b'IDAT', zlib.compress(b'\0' * 1000)),
        (b'IEND', b''),
    ):
        chunks += struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
    return b'\x89PNG\r\n\x1a\n' + chunks


SOUND, TEXT = encoded(), b'a caption'
BAD = {  # kind -> members of the sample, what its reason says
    'truncated JPEG': ({'jpg': encoded(size=(64, 64))[:900], 'txt': TEXT}, 'cannot be decoded'),
    'no bytes': ({'jpg': b'', 'txt': TEXT}, 'empty file'),
    'a web page': ({'jpg': b'<html>404 not found</html>', 'txt': TEXT}, 'not an image'),
    'bomb': ({'png': bomb(), 'txt': TEXT}, 'pixels'),
    'one pixel': ({'gif': encoded('GIF', (1, 1)), 'txt': TEXT}, '1 x 1'),
    'tiny': ({'jpg': encoded(size=(40, 12)), 'txt': TEXT}, 'below 16 pixels'),
    'no caption': ({'jpg': SOUND}, 'no caption'),
    'blank caption': ({'jpg': SOUND, 'txt': b' \n\t '}, 'no caption'),
    'caption is not UTF-8': ({'jpg': SOUND, 'txt': b'caf\xe9'}, 'not UTF-8'),
    'too large a member': ({'jpg': SOUND + bytes(70_000), 'txt': TEXT}, 'more than 65536'),
    'caption without image': ({'txt': TEXT}, 'no image'),
    'a format Pillow is not asked for': ({'jpg': encoded('ICO', (32, 32)), 'txt': TEXT}, 'not an image'),
    'broken json': ({'jpg': SOUND, 'json': b'{"caption": "x"'}, 'json'),
    'half a character': ({'jpg': SOUND, 'json': b'{"caption": "\\ud800 x"}'}, 'lone surrogate'),
}
GOOD = [  # unusual ones among them: image's extension, pictures, caption's extension and text
    ('jpg', [encoded(seed=k) for k in range(9)], 'txt', 'sample {}'),
    ('png', [encoded('PNG', seed=k, mode='L') for k in range(9)], 'txt', 'sample {}'),
    ('jpeg', [encoded(seed=k, mode='CMYK') for k in range(9)], 'json', '{{"caption": "sample {}"}}'),
    ('webp', [encoded('WEBP', seed=k) for k in range(9)], 'txt', '  sample {}\n'),
    ('gif', [encoded('GIF', seed=k) for k in range(9)], 'txt', 'sample {}'),
]


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    """(directory, {key of a bad sample: what its reason says}); a tar that ends in a sample, and one with a name that
    leads out of it."""
    folder, bad, kinds = tmp_path_factory.mktemp('large'), {}, list(BAD.values())
    for start in range(0, COUNT, SHARD):
        members = []
        for i in range(start, start + SHARD):
            if i % EVERY == 5:
                content, reason = kinds[i // EVERY % len(kinds)]
                bad[f'{i:05d}'] = reason
            else:
                extension, pictures, caption, text = GOOD[i % len(GOOD)]
                content = {extension: pictures[i % 9], caption: text.format(i).encode()}
            members += [(f'{i:05d}.{name}', data) for name, data in content.items()]
        raw_tar(folder / f'{start:05d}.tar', members)
    content = raw_tar(
        folder / 'x.tar', [('../../out.jpg', SOUND), ('../../out.txt', TEXT), ('cut.txt', TEXT), ('cut.jpg', SOUND * 9)]
    ).read_bytes()
    (folder / 'x.tar').write_bytes(content[: 5 * 512 + 1024 + 512 + 700])
    bad['cut'] = 'ends inside it'
    return folder, bad


def make(folder, **options):
    """Members above 64 kB are too large here, to keep the files small."""
    return Loader(
        CaptionSet(folder, max_member_bytes=65536), BATCH, SIZE, seed=7, min_side=16, num_workers=2, **options
    )


def test_every_good_sample_once_an_epoch_over_two_processes_every_bad_one_listed(large):
    folder, bad = large
    loaders = [make(folder, world=World(rank, 2)) for rank in range(2)]
    assert len(bad) > 0.03 * COUNT and len(BAD) >= 12
    for loader in loaders:
        assert loader.skipped.keys() == bad.keys()
        assert not [
            (key, loader.skipped[key], reason) for key, reason in bad.items() if reason not in loader.skipped[key]
        ]
    good = loaders[0].good
    # also the one whose name leads out of the tar: it is read, never written
    assert len(good) == COUNT + 1 - (len(bad) - 1)

    steps = -(-2 * len(good) // BATCH)
    streams, captions = [], []
    for batches in zip(*(islice(loader, steps) for loader in loaders), strict=True):
        joined = np.stack([b.indices for b in batches], 1).reshape(-1)
        assert len(set(joined)) == BATCH
        streams.append(joined)
        captions += [c for b in batches for c in b.captions]
    stream = np.concatenate(streams)
    first, second = stream[: len(good)], stream[len(good) : 2 * len(good)]
    assert sorted(first) == sorted(second) == good.tolist() and not (first == second).all()
    assert set(captions) == {f'sample {i}' for i in range(COUNT) if f'{i:05d}' not in bad} | {'a caption'}
    assert not (folder.parent.parent / 'out.jpg').exists()


def test_the_middle_of_an_epoch_is_continued_by_another_number_of_processes(large):
    whole = [b.indices for b in islice(make(large[0]), 12)]
    pair = [make(large[0], world=World(rank, 2)) for rank in range(2)]
    for loader in pair:
        list(islice(loader, 5))
    assert pair[0].state() == pair[1].state()
    four = [make(large[0], world=World(rank, 4)) for rank in range(4)]
    for loader in four:
        loader.restore(pair[0].state())
    for expected, batches in zip(whole[5:], zip(*(islice(loader, 7) for loader in four), strict=True), strict=True):
        np.testing.assert_array_equal(np.stack([b.indices for b in batches], 1).reshape(-1), expected)


def test_too_few_good_samples_are_an_early_error(large):
    with pytest.raises(
        ConfigError, match=r'^9\d\d\d good samples \(30\d skipped, for example .*\) do not fill one batch of 9900'
    ):
        Loader(CaptionSet(large[0], max_member_bytes=65536), 9_900, SIZE, seed=7, min_side=16)

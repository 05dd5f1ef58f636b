"""Latents and text features computed once train as those computed at every step do, and a stale cache is refused."""

import json
import shutil
from itertools import islice

import numpy as np
import pytest

from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.data.stream.latent_cache import CachedLoader, LatentCache
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.errors import ConfigError
from diffdis_ms.train import cache as module
from diffdis_ms.train.cache import CacheWriter
from diffdis_ms.world import World
from tests.workspace import assert_one_line_error, command, draw, make_data, make_workspace


class Encoders:
    """Features that tell which picture and caption they are of, without networks."""

    class config:
        image_size = 16

    def __init__(self):
        self.seen = 0

    def encode_images(self, pixels):
        self.seen += len(pixels)
        return np.broadcast_to(
            pixels.reshape(len(pixels), -1).mean(1).reshape(-1, 1, 1, 1), (len(pixels), 4, 2, 2)
        ).astype(np.float32)

    def zero_latent(self):
        return self.encode_images(np.zeros((1, 3, self.config.image_size, self.config.image_size), np.float32))

    def encode_texts(self, texts):
        lengths = np.array([len(t) + 1 for t in texts], np.float32).reshape(-1, 1, 1)
        return np.broadcast_to(lengths, (len(texts), 5, 3)).astype(np.float32), np.broadcast_to(
            lengths, (len(texts), 1, 7)
        ).astype(np.float32)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'PART', 4)  # 15 samples: four parts
    make_data(tmp_path / 'data')
    return CaptionSet(tmp_path / 'data')


def make(data, out, encoders, dtype='float32', **options):
    return CacheWriter(out, 'key', dtype=dtype, caption_set=data, min_side=16, **options).run(encoders)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_two_processes_make_it_and_any_number_reads_the_stream_of_the_pictures(data, tmp_path, dtype):
    out, encoders = tmp_path / 'cache', Encoders()
    assert not make(data, out, encoders, dtype, world=World(0, 2))
    with pytest.raises(ConfigError, match='not a finished cache'):
        LatentCache(out)
    assert make(data, out, encoders, dtype, world=World(1, 2))
    cache = LatentCache(out)
    assert cache.zero_latent.shape == (1, 4, 2, 2) and (cache.empty_context == np.ones((1, 5, 3))).all()
    for rank in range(2):
        ours, theirs = (
            CachedLoader(cache, 6, seed=3, world=World(rank, 2)),
            Loader(data, 6, 16, seed=3, world=World(rank, 2)),
        )
        for mine, other in zip(islice(ours, 7), islice(theirs, 7), strict=True):
            assert mine.captions == other.captions and np.array_equal(mine.indices, other.indices)
            assert np.allclose(mine.z, Encoders().encode_images(other.pixels), rtol=1e-3) and mine.z.dtype == np.float32
            c, e = Encoders().encode_texts(other.captions)
            assert np.array_equal(mine.c, c) and np.array_equal(mine.e, e)
        assert ours.state() == theirs.state()
        again = CachedLoader(cache, 6, seed=3, world=World(rank, 2))
        again.restore(ours.state())
        assert np.array_equal(next(iter(again)).indices, next(iter(ours)).indices)


def test_a_run_that_was_killed_goes_on_with_the_parts_that_are_missing(data, tmp_path):
    class Killed(Exception):
        pass

    class Dying(Encoders):
        def encode_texts(self, texts):
            if self.seen > 8:
                raise Killed
            return super().encode_texts(texts)

    out = tmp_path / 'cache'
    with pytest.raises(Killed):
        make(data, out, Dying())
    assert sorted(p.name for p in out.glob('*.mindrecord')) == ['part_00000.mindrecord', 'part_00001.mindrecord']
    (out / 'part_00001.mindrecord.db').unlink()  # its index had not been put in place
    encoders = Encoders()
    assert make(data, out, encoders)
    assert encoders.seen == 15 - 4 + 1  # all but the first part, and the zero image
    assert len(LatentCache(out).good) == 15


def test_damage_and_foreign_directories_are_refused(data, tmp_path):
    out = tmp_path / 'cache'
    make(data, out, Encoders())
    begun = (out / 'begun.json').read_bytes()
    for mark, key in ((begun, 'another key'), (begun[:20], 'key'), (b'\xff\xfe', 'key'), (b'[' * 100000, 'key')):
        (out / 'begun.json').write_bytes(mark)
        with pytest.raises(ConfigError, match='other weights, data, precision or device'):
            CacheWriter(out, key, dtype='float32', caption_set=data, min_side=16)
    (out / 'begun.json').write_bytes(begun)
    (tmp_path / 'photos').mkdir()
    draw('red', 'bar').save(tmp_path / 'photos' / 'a.png')
    with pytest.raises(ConfigError, match='is not a cache'):
        make(data, tmp_path / 'photos', Encoders(), overwrite=True)
    lost = tmp_path / 'lost'
    shutil.copytree(out, lost)
    (lost / 'part_00002.mindrecord').unlink()
    (lost / 'part_00002.mindrecord.db').unlink()
    with pytest.raises(ConfigError, match='make it again'):
        LatentCache(lost)
    part = out / 'part_00001.mindrecord'
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(ConfigError):
        LatentCache(out)
    (out / 'cache.json').write_text('[]')
    with pytest.raises(ConfigError, match='damaged'):
        LatentCache(out)


def rows(directory):
    return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


def test_cached_and_uncached_runs_have_the_same_losses_and_stale_caches_are_refused(trained, tmp_path):
    directory, model = make_workspace(tmp_path), trained[0] / 'run/model'
    out = tmp_path / 'cache'
    done = command('tools/cache_latents.py', '--model', model, '--data', directory / 'data', '--out', out)
    assert done.returncode == 0 and '15 samples' in done.stdout, done.stderr
    train = (
        'tools/train.py',
        '--config',
        directory / 'diffdis.yaml',
        f'init.vae={model}',
        f'init.text_encoder={model}',
    )
    for name, more in (('plain', ()), ('cached', (f'data.cache={out}',))):
        done = command(*train, f'output_dir={tmp_path / name}', *more)
        assert done.returncode == 0, done.stderr
    for mine, other in zip(rows(tmp_path / 'cached'), rows(tmp_path / 'plain'), strict=True):
        assert all(np.isclose(mine[key], other[key], rtol=1e-4) for key in ('loss', 'loss_ig', 'loss_ita')), (
            mine,
            other,
        )
    assert len(rows(tmp_path / 'cached')) == 8
    files = sorted(p.name for p in (tmp_path / 'cached/model').iterdir())
    assert files == sorted(p.name for p in (tmp_path / 'plain/model').iterdir()) and 'vae.safetensors' in files

    cached = (f'data.cache={out}', f'output_dir={tmp_path / "refused"}')
    assert_one_line_error(
        command(*train, *cached, f'init.vae={tmp_path / "cached/model"}', 'model.image_size=64'), 'stale'
    )
    assert_one_line_error(command(*train, *cached, 'data.random_flip=true'), 'data.cache', 'data.random_flip')
    (directory / 'data/00000.tar').touch()
    assert_one_line_error(command(*train, *cached), 'not of the data set')
    graphs = tmp_path / 'graphs'
    cached += ('data.path=', 'runtime.compile_cache=true', f'runtime.compile_cache_dir={graphs}')
    dry = command(*train, *cached, '--dry-run')
    assert (
        dry.returncode == 0
        and 'millions' in dry.stdout
        and 'sum' in dry.stdout
        and 'is now in the compile cache' in dry.stdout
    ), dry.stderr
    assert (tmp_path / 'refused/first_batch.png').is_file() and not (tmp_path / 'refused/model').exists()
    stored = {path: path.read_bytes() for path in graphs.rglob('*') if path.is_file()}
    done = command(*train, *cached)
    assert done.returncode == 0, done.stderr
    assert stored == {
        path: path.read_bytes() for path in graphs.rglob('*') if path.is_file()
    }  # taken: a new graph would have been written

"""The check of a set before training: once, shared between processes, kept until the data changes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.make.prepare import rewrite
from diffdis_ms.data.sources.folders import CsvFolder, ImageFolder
from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.data.stream import check
from diffdis_ms.data.stream.check import good_samples, write_skipped
from diffdis_ms.world import World
from tests.data.test_webdataset import png, raw_tar
from tests.workspace import ROOT


@pytest.fixture
def tars(tmp_path):
    """Two tars of ten samples each; 3 and 14 are broken, and both shards have an image without a caption under the same
    key."""
    folder = tmp_path / 'tars'
    folder.mkdir()
    for shard in range(2):
        members = [('none.png', png(99))]
        for i in range(10 * shard, 10 * shard + 10):
            members += [
                (f'{i:04d}.png', b'broken' if i in (3, 14) else png(i)),
                (f'{i:04d}.txt', f'caption {i}'.encode()),
            ]
        raw_tar(folder / f'{shard}.tar', members)
    return folder


BAD = {'0003', '0014', 'none', 'none (sample 11)'}


class Watched(CaptionSet):
    """Counts its reads, and is interrupted before read number `stop`."""

    reads, stop = 0, None

    def read(self, i):
        if self.reads == self.stop:
            raise KeyboardInterrupt
        self.reads += 1
        return super().read(i)


def test_every_bad_sample_is_found_once_and_remembered(tars):
    first, second = Watched(tars), Watched(tars)
    good, skipped = good_samples(first)
    assert len(good) == 18 and skipped.keys() == BAD and first.reads == 22
    again = good_samples(second)
    assert second.reads == 0 and (again[0] == good).all() and again[1] == skipped


@pytest.mark.parametrize('change', ['data', 'min_side', 'verdict'])
def test_a_changed_set_is_checked_anew(tars, change):
    good_samples(Watched(tars))
    (verdict,) = tars.glob('.checked-*.json')
    if change == 'data':
        (tars / '1.tar').write_bytes((tars / '0.tar').read_bytes())
    elif change == 'verdict':
        verdict.write_text('[[100, "beyond", "the set"]]')
    again = Watched(tars)
    good, _ = good_samples(again, min_side=17 if change == 'min_side' else 16)
    assert again.reads == 22 and len(good) == {'data': 18, 'min_side': 0, 'verdict': 18}[change]


def test_tiny_pictures_are_bad_below_the_side_asked_for(tars):
    good, skipped = good_samples(CaptionSet(tars), min_side=17)
    assert len(good) == 0 and skipped['0000'] == '16 x 16: a side is below 17 pixels'


def test_the_verdict_goes_elsewhere_where_the_data_cannot_be_written(tars, tmp_path, monkeypatch):
    # tests may run as root, who may write everywhere
    monkeypatch.setattr(check.os, 'access', lambda path, mode: path != tars)
    elsewhere = tmp_path / 'run' / 'here'
    good_samples(Watched(tars), directory=elsewhere)
    assert [p.suffix for p in elsewhere.iterdir()] == ['.json'] and not list(tars.glob('.checked*'))
    again = Watched(tars)
    good_samples(again, directory=elsewhere)
    assert again.reads == 0


def test_what_prepare_data_wrote_needs_no_check(tars, tmp_path):
    rewrite(CaptionSet(tars), tmp_path / 'out', 16, 'webdataset', progress=False)
    prepared = Watched(tmp_path / 'out')
    good, skipped = good_samples(prepared)
    assert len(good) == 18 and skipped == {} and prepared.reads == 0
    raw_tar(tmp_path / 'out' / 'added.tar', [('x.png', b'broken'), ('x.txt', b'x')])
    assert good_samples(CaptionSet(tmp_path / 'out'))[1].keys() == {'x'}


def test_processes_share_the_check_and_end_with_one_verdict(tars, monkeypatch):
    """The second process starts when the first has done a part: a killed process' parts are used, too."""
    monkeypatch.setattr(check, 'PART', 2)
    killed = Watched(tars)
    killed.stop = 5
    with pytest.raises(KeyboardInterrupt):
        good_samples(killed, num_workers=1, world=World(0, 2))
    rest = Watched(tars)
    good, skipped = good_samples(rest, num_workers=1, world=World(1, 2))
    assert len(good) == 18 and skipped.keys() == BAD and 22 - 5 <= rest.reads <= 22 - 4
    assert len(list(tars.glob('.checked*'))) == 1


def test_two_real_processes_agree(tars):
    code = (
        'import sys, json; from diffdis_ms.data.stream import check; from diffdis_ms.data.sources.webdataset import'
        ' CaptionSet; from diffdis_ms.world import World; check.PART = 1\n'
        f'good, skipped = check.good_samples(CaptionSet({str(tars)!r}),'
        ' world=World(int(sys.argv[1]), 2), num_workers=1)\nprint(json.dumps([good.tolist(), skipped]))'
    )
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', code, str(rank)], env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    one, two = (json.loads(p.communicate(timeout=120)[0]) for p in processes)
    assert one == two and len(one[0]) == 18 and one[1].keys() == BAD


def test_folders_are_checked_by_their_images(tmp_path):
    for name in ('cat/1.png', 'cat/2.png', 'dog/1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    (tmp_path / 'set.csv').write_text('dir,text\ncat/1.png,a\nnone.png,b\n')
    for reader, count in ((ImageFolder, 3), (CsvFolder, 1)):
        assert len(good_samples(reader(tmp_path))[0]) == count
        (tmp_path / 'cat' / '1.png').write_bytes(b'broken')
        assert len(good_samples(reader(tmp_path))[0]) == count - 1
        (tmp_path / 'cat' / '1.png').write_bytes(png())


def test_the_list_of_the_skipped_has_one_line_each(tmp_path):
    write_skipped(tmp_path / 'skipped.txt', {'a\nb\udc80': 'two\tlines', 'ö': 'x'})
    assert (tmp_path / 'skipped.txt').read_text(encoding='utf-8') == 'a\\nb\\udc80\ttwo\\tlines\nö\tx\n'


def test_good_samples_are_indices(tmp_path):
    class Even:
        def __len__(self):
            return 4

        def read(self, i):
            if i % 2:
                raise check.BadSample(str(i), 'odd')
            return check_sample_image()

    good, skipped = good_samples(Even(), world=World(1, 2))
    assert good.dtype == np.int64 and good.tolist() == [0, 2] and skipped == {'1': 'odd', '3': 'odd'}


def check_sample_image():
    return type('S', (), {'image': Image.new('RGB', (20, 20)), 'key': 'k'})

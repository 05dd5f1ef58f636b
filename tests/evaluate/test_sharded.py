"""An evaluation shared by processes, or killed and started again, writes the file that one undisturbed process
writes."""

import json

import pytest

from tests.workspace import assert_one_line_error, command, make_pictures, msrun, start_paused

BATCH_DONE = 'diffdis_ms.evaluate.shared:_save'

ARGS = (
    '--dataset',
    'webdataset',
    '--batch-size',
    '2',
    '--steps',
    '3',
    '2',
    '--guidance-weight',
    '3',
    '0',
    '--seeds',
    '2',
)


def arguments(trained, out):
    return [
        'tools/evaluate.py',
        'zeroshot',
        '--model',
        trained[0] / 'run/model',
        '--data-root',
        trained[0] / 'data',
        *ARGS,
        '--out',
        out,
    ]


def result(out):
    """The file without its time, and a check that nothing else lies beside it."""
    assert sorted(p.name for p in out.parent.iterdir()) == [out.name, f'{out.name}.confusion.png']
    found = json.loads(out.read_text())
    return {key: value for key, value in found.items() if key != 'seconds'}


@pytest.fixture(scope='module')
def expected(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp('alone') / 'result.json'
    done = command(*arguments(trained, out))
    assert done.returncode == 0, done.stderr
    found = result(out)
    assert (
        len(found['sweep']) == 8 and len(found['spread']) == 4 and found['metrics']['acc1'] == found['sweep'][0]['acc1']
    )
    assert sum(row['count'] for row in found['per_class']) == found['num_samples'] == 15
    return found


def test_two_ranks(trained, expected, tmp_path):
    (tmp_path / 'shared').mkdir()
    out = tmp_path / 'shared' / 'result.json'
    done = msrun(2, tmp_path / 'logs', *arguments(trained, out))
    assert done.returncode == 0, done.stderr
    assert all('15 samples' in (tmp_path / 'logs' / f'worker_{rank}.log').read_text() for rank in (0, 1))
    assert result(out) == expected


def test_killed_and_started_again(trained, expected, tmp_path):
    (tmp_path / 'killed').mkdir()
    out = tmp_path / 'killed' / 'result.json'
    process = start_paused(BATCH_DONE, 3, tmp_path / 'paused', *arguments(trained, out))
    process.kill()
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.parent.rglob('*.npz')}
    assert len(finished) == 3 and not out.exists()
    next(iter(finished)).write_bytes(b'damaged')
    done = command(*arguments(trained, out))
    assert done.returncode == 0, done.stderr
    assert result(out) == expected


def generation(folder, out, weights, clip):
    return [
        'tools/evaluate.py',
        'generation',
        '--real',
        folder / 'real',
        '--fake',
        folder / 'fake',
        '--captions',
        folder / 'captions.txt',
        '--metrics',
        'fid,kid,clip_score',
        '--inception',
        weights,
        '--clip',
        clip,
        '--batch-size',
        '2',
        '--kid-subset-size',
        '4',
        '--cache-dir',
        out.parent / 'cache',
        '--out',
        out,
    ]


def measured(out):
    """The file without its time, and a check that only the cache of the real set lies beside it."""
    assert (
        sorted(p.name for p in out.parent.iterdir()) == ['cache', out.name]
        and len(list((out.parent / 'cache').iterdir())) == 1
    )
    return {key: value for key, value in json.loads(out.read_text()).items() if key != 'seconds'}


def test_generation_of_two_ranks_and_of_a_killed_run(weights, clip, tmp_path):
    make_pictures(tmp_path / 'real', 7), make_pictures(tmp_path / 'fake', 5, seed=1)
    (tmp_path / 'captions.txt').write_text('red\nsquare\nblue frame\nred frame\nblue\n')
    outs = {name: tmp_path / name / 'result.json' for name in ('one', 'two', 'killed')}
    done = command(*generation(tmp_path, outs['one'], weights, clip))
    assert done.returncode == 0, done.stderr
    expected = measured(outs['one'])
    assert len(set(expected['metrics'].values())) == 4 and expected['num_samples'] == 5

    done = msrun(2, tmp_path / 'logs', *generation(tmp_path, outs['two'], weights, clip))
    assert done.returncode == 0, done.stderr
    assert measured(outs['two']) == expected

    place = tmp_path / 'paused'  # after the 4 batches of the real pictures and one of the others
    process = start_paused(BATCH_DONE, 5, place, *generation(tmp_path, outs['killed'], weights, clip))
    process.kill()
    process.wait()
    finished = {path.name for path in outs['killed'].parent.rglob('*.parts/*.npz')}
    assert {f'real{k:06d}.npz' for k in range(4)} | {'fake000000.npz'} <= finished and not outs['killed'].exists()
    done = command(*generation(tmp_path, outs['killed'], weights, clip))
    assert done.returncode == 0, done.stderr
    assert measured(outs['killed']) == expected


PROMPTS = ['red square', 'blue bar', 'green frame', 'black bar', 'yellow square']


def sample(trained, out, *more):
    return [
        'tools/sample.py',
        '--model',
        trained[0] / 'run/model',
        '--prompts',
        out.parent / 'prompts.txt',
        '--steps',
        '3',
        '--batch-size',
        '2',
        '--out',
        out,
        *more,
    ]


def test_pictures_of_two_ranks_are_those_of_one(trained, tmp_path):
    (tmp_path / 'prompts.txt').write_text('\n'.join(PROMPTS))
    done = command(*sample(trained, tmp_path / 'one', '--grid'))
    assert done.returncode == 0 and '5 of 5' in done.stdout, done.stderr
    one = {p.name: p.read_bytes() for p in (tmp_path / 'one').glob('0*.png')}
    assert len(set(one.values())) == 5 and sorted(p.name for p in (tmp_path / 'one').iterdir()) == [
        *sorted(one),
        'grid.png',
        'prompts.json',
    ]
    done = msrun(2, tmp_path / 'logs', *sample(trained, tmp_path / 'two'))
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / 'two').glob('0*.png')} == one

    (tmp_path / 'one' / '00003.png').unlink()  # as if it had been killed before this one
    before = (tmp_path / 'one' / '00000.png').stat().st_mtime_ns
    assert command(*sample(trained, tmp_path / 'one')).returncode == 0
    assert (tmp_path / 'one' / '00003.png').read_bytes() == one['00003.png'] and (
        tmp_path / 'one' / '00000.png'
    ).stat().st_mtime_ns == before
    assert_one_line_error(command(*sample(trained, tmp_path / 'one', '--seed', '5')), 'prompts.json', '--out')


def test_pictures_do_not_depend_on_the_batch_size(trained):
    from PIL import ImageChops

    from diffdis_ms import DiffDisPipeline

    pictures = [
        DiffDisPipeline.from_pretrained(trained[0] / 'run/model', batch_size=b).generate(PROMPTS[:3], steps=3)
        for b in (1, 3)
    ]
    for a, b in zip(*pictures, strict=True):  # but for rounding
        assert max(high for _, high in ImageChops.difference(a, b).getextrema()) <= 1

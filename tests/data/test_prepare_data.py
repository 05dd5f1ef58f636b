"""tools/prepare_data.py as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffdis_ms.data.make.prepare import staged
from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run

ROOT = Path(__file__).resolve().parents[2]


def call(*args):
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, 'tools/prepare_data.py', *map(str, args)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def src(tmp_path):
    path = tmp_path / 'src'
    path.mkdir()
    for i in range(5):
        Image.new('RGB', (40 + i, 30), (i, 0, 0)).save(path / f'{i}.png')
    (path / '5.png').write_bytes(b'broken')
    (path / 'set.csv').write_text('dir,text\n' + ''.join(f'{i}.png,caption {i}\n' for i in range(6)))
    return path


def test_csv_becomes_tars_that_webdataset_reads_back(src, tmp_path):
    done = call('csv', '--src', src, '--out', tmp_path / 'a', '--size', 24)
    assert done.returncode == 0 and 'kept 5, skipped 1' in done.stdout and done.stdout.count('\n') == 1, done.stderr
    assert done.stderr == ''
    captions = CaptionSet(tmp_path / 'a')
    samples = [captions.read(i) for i in range(len(captions))]
    assert {s.caption for s in samples} == {f'caption {i}' for i in range(5)} and {s.image.size for s in samples} == {
        (24, 24)
    }
    assert (tmp_path / 'a' / 'skipped.txt').read_text() == '5.png\tnot an image of a known format\n'
    assert json.loads((tmp_path / 'a' / 'summary.json').read_text())['num_kept'] == 5

    (tmp_path / 'a' / 'classnames.txt').write_text('cat\n')
    again = call(
        'webdataset', '--src', tmp_path / 'a', '--out', tmp_path / 'b', '--size', 16, '--workers', 1, '--seed', 3
    )
    assert again.returncode == 0 and 'kept 5, skipped 0' in again.stdout, again.stderr
    assert CaptionSet(tmp_path / 'b').read(0).image.size == (16, 16) and CaptionSet(tmp_path / 'b').class_names == [
        'cat'
    ]


def test_mindrecord_is_written_from_any_source_and_read_as_one(src, tmp_path):
    (src / 'set.csv').unlink()
    (src / 'set.tsv').write_text(''.join(f'caption {i}\thttp://x/{i}\n' for i in range(6)))
    Image.new('RGB', (40, 10)).save(src / '4.png')
    # fmt: off
    done = call(
        'cc3m-tsv', '--src', src / 'set.tsv', '--images', src, '--out', tmp_path / 'a', '--size', 24,
        '--format', 'mindrecord',
    )
    # fmt: on
    assert done.returncode == 0 and 'kept 4, skipped 2' in done.stdout, done.stderr
    assert sorted(p.name for p in (tmp_path / 'a').iterdir()) == [
        '00000.mindrecord',
        '00000.mindrecord.db',
        'skipped.txt',
        'summary.json',
    ]
    assert (tmp_path / 'a' / 'skipped.txt').read_text().count('row') == 2 and '40 x 10' in (
        tmp_path / 'a' / 'skipped.txt'
    ).read_text()
    records = open_captions(tmp_path / 'a')
    assert records.checked and {records.read(i).caption for i in range(4)} == {f'caption {i}' for i in range(4)}

    again = call('mindrecord', '--src', tmp_path / 'a', '--out', tmp_path / 'b', '--size', 24)
    assert again.returncode == 0 and 'kept 4, skipped 0' in again.stdout, again.stderr
    assert {s.caption for s in map(CaptionSet(tmp_path / 'b').read, range(4))} == {f'caption {i}' for i in range(4)}


@pytest.mark.parametrize(
    'args,message',
    [
        (('csv', '--src', 'none.csv', '--out', '{}/x'), 'none.csv'),
        (('webdataset', '--src', '{}/src', '--out', '{}/x'), 'no *.tar'),
        (('csv', '--src', '{}/src', '--out', '{}/src'), 'would replace the source'),
        (('csv', '--src', '{}/src', '--out', '{}'), 'would replace the source'),
        (('emoji', '--out', '{}/src'), '--overwrite'),
        (('csv', '--src', '{}/src', '--out', '{}/src/set.csv/x'), 'Not a directory'),
    ],
)
def test_mistakes_end_in_one_line(src, tmp_path, args, message):
    done = call(*(a.format(tmp_path) for a in args))
    assert done.returncode == 1 and done.stdout == ''
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1 and message in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ['src']


def test_help_teaches_with_examples():
    for args in (('--help',), ('csv', '--help')):
        done = call(*args)
        assert done.returncode == 0 and 'python tools/prepare_data.py csv --src' in done.stdout


def test_result_appears_only_when_complete_and_replaces_an_earlier_one(tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(RuntimeError), staged(out):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    for text in ('one', 'two'):
        with staged(out) as temp:
            (temp / 'summary.json').write_text(text)
    assert (out / 'summary.json').read_text() == 'two' and [p.name for p in tmp_path.iterdir()] == ['out']
    (out / 'summary.json').unlink()
    (out / 'other').write_text('x')
    with pytest.raises(ConfigError), staged(out):
        pass
    with staged(out, overwrite=True):
        pass
    assert not list(out.iterdir())


def test_run_ends_a_command(capsys):
    def fail(error):
        def main():
            raise error

        return main

    for main, code, message in (
        (lambda: None, None, ''),
        (lambda: 3, 3, ''),
        (fail(ConfigError('a\nb')), 1, 'error: a b\n'),
        (fail(FileNotFoundError(2, 'No such file', 'x')), 1, 'error: x: No such file\n'),
        (fail(KeyboardInterrupt()), 130, 'interrupted\n'),
    ):
        with pytest.raises(SystemExit) as end:
            run(main)
        assert end.value.code == code and capsys.readouterr().err == message
    with pytest.raises(KeyError):
        run(fail(KeyError('a defect keeps its trace')))

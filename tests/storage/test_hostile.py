"""Hostile and broken files (corpus.py): refused with one clear line, or read without anything of theirs running."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.reader import open_checkpoint
from tests.storage.corpus import INERT, REFUSED, WEIGHT
from tests.workspace import ROOT

SECONDS = 30  # for one file; the slowest takes three
MAX_MEMORY = 1 << 30  # bytes of the whole process
READ_ALL = '''
import json, sys
from diffdis_ms.storage.reader import open_checkpoint
from diffdis_ms.storage.tensors import CheckpointError
jobs = json.load(sys.stdin)
sys.path[:0] = [folder for _, folder in jobs]    # whatever a file would import is found
before, refused = set(sys.modules), 0
for path, _ in jobs:
    try:
        for tensor in open_checkpoint(path).tensors.values():
            tensor.numpy().copy()
    except CheckpointError:
        refused += 1
status = open('/proc/self/status').read()        # getrusage would count the peak of the parent before exec
peak = int(status.split('VmHWM:')[1].split()[0]) * 1024
print(json.dumps({'refused': refused, 'peak': peak, 'modules': sorted(set(sys.modules) - before)}))
'''


@pytest.fixture
def in_time():
    """Fails the test where a file makes the reader hang, on a pipe for instance."""

    def stop(*_):
        raise TimeoutError(f'not done after {SECONDS} s')

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def files(folder):
    return sorted(str(p) for p in folder.rglob('*'))


def assert_nothing_new(folder, before):
    assert not (folder / 'canary').exists(), 'code of the file ran'
    assert files(folder) == before


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name, tmp_path, monkeypatch, in_time):
    path = REFUSED[name](tmp_path)
    before = files(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert type(caught.value) is CheckpointError
    assert message.isprintable(), message  # so it is one line, too
    assert str(path) in message or str(tmp_path) in message
    assert len(message.replace(str(tmp_path), '')) < 400, message
    assert_nothing_new(tmp_path, before)


@pytest.mark.parametrize('name', INERT)
def test_inert(name, tmp_path, monkeypatch, in_time):
    path = INERT[name](tmp_path)
    before = files(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = open_checkpoint(path)
    arrays = {key: tensor.numpy().copy() for key, tensor in checkpoint.tensors.items()}
    np.testing.assert_array_equal(arrays['weight'], WEIGHT, strict=True)
    for key, tensor in checkpoint.tensors.items():
        assert (arrays[key].shape, arrays[key].dtype, arrays[key].size) == (tensor.shape, tensor.dtype, tensor.size)
    assert_nothing_new(tmp_path, before)


def test_all_in_one_process(tmp_path):
    """Memory, imports and files of a fresh process that reads them all."""
    corpus, work = tmp_path / 'corpus', tmp_path / 'work'
    work.mkdir()
    jobs = []
    for i, build in enumerate([*REFUSED.values(), *INERT.values()]):
        folder = corpus / str(i)
        folder.mkdir(parents=True)
        jobs.append((str(build(folder)), str(folder)))
    before, start = files(corpus), time.perf_counter()
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONDONTWRITEBYTECODE': '1'}
    done = subprocess.run(
        [sys.executable, '-c', READ_ALL],
        input=json.dumps(jobs),
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(f'{len(jobs)} files in {time.perf_counter() - start:.1f} s, {result["peak"] >> 20} MB')
    assert result['refused'] == len(REFUSED)
    assert result['peak'] < MAX_MEMORY
    # of zip's member names
    assert all(module.startswith('encodings.') for module in result['modules']), result['modules']
    assert files(corpus) == before and not files(work)
    assert not list(corpus.rglob('canary'))

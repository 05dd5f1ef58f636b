"""MindSpore's dataset pipeline gives what threads give, ends with its loader, and says what went wrong."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice

import numpy as np
import pytest

from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.data.stream.workers import look_ahead
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.errors import ConfigError
from diffdis_ms.world import World
from tests.data.test_loader import Numbers
from tests.workspace import COLOURS, ROOT, SHAPES, make_data, train_tokenizer


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    directory = tmp_path_factory.mktemp('workers')
    make_data(directory / 'data')
    train_tokenizer([f'{c} {s}' for c in COLOURS for s in SHAPES], 520, directory / 'tokenizer')
    return directory


def children(pid):
    return list(
        map(
            int,
            subprocess.run(
                ['ps', '-o', 'pid=', '--ppid', str(pid)], capture_output=True, text=True, check=False
            ).stdout.split(),
        )
    )


def start(workspace):
    """A process that has read three batches, and goes on."""
    process = subprocess.Popen(
        [sys.executable, '-c', SCRIPT, str(workspace / 'data')],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(3):
        assert process.stdout.readline() == 'on\n'
    return process


@pytest.mark.parametrize('count', [0, 1, 3])
def test_looking_ahead_takes_so_many_more_and_keeps_the_order(count):
    taken = []
    for place, item in enumerate(look_ahead((taken.append(i) or i for i in range(6)), count)):
        assert item == place and taken == list(range(min(place + count + 1, 6)))
    assert place == 5


def test_processes_give_what_threads_give_and_are_gone_at_the_end(workspace):
    tokenizer = Tokenizer.load(workspace / 'tokenizer')

    def make(workers):
        return Loader(
            open_captions(workspace / 'data'),
            6,
            32,
            seed=2,
            num_workers=2,
            random_flip=True,
            random_shift=3,
            world=World(1, 2),
            workers=workers,
            tokenizer=tokenizer,
            token_length=16,
        )

    threads, processes = make('threads'), make('processes')
    expected = list(islice(threads, 7))
    iterator = iter(processes)
    for batch, other in zip(islice(iterator, 4), expected[:4], strict=True):
        for name in ('pixels', 'indices', 'token_ids'):
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))
            assert getattr(batch, name).dtype == getattr(other, name).dtype
        assert batch.captions == other.captions and {type(c) for c in batch.captions} == {str}
        np.testing.assert_array_equal(batch.token_ids, tokenizer.encode(batch.captions, 16))
    iterator.close()
    assert not multiprocessing.active_children()
    resumed = make('threads')
    resumed.restore(processes.state())
    np.testing.assert_array_equal(next(iter(resumed)).pixels, expected[4].pixels)


def test_a_sample_that_breaks_in_a_worker_is_named():
    numbers = Numbers(8)
    loader = Loader(numbers, 4, 8, seed=0, workers='processes')
    numbers.bad = {5}
    with pytest.raises(ConfigError, match='^sample k5 was good .*broken') as error:
        list(islice(loader, 2))
    assert '\n' not in str(error.value)


def test_what_processes_cannot_do_is_refused():
    with pytest.raises(ConfigError, match='cache_in_memory'):
        Loader(Numbers(8), 4, 8, seed=0, workers='processes', cache=True)
    with pytest.raises(ConfigError, match='cores'):
        next(iter(Loader(Numbers(8), 4, 8, seed=0, workers='processes', num_workers=10**4)))
    with pytest.raises(ConfigError, match='data.workers'):
        Loader(Numbers(8), 4, 8, seed=0, workers='fibres')


def test_a_dead_worker_ends_the_loader_with_one_line(workspace):
    """In a process with a handler for SIGTERM, as a training run has: MindSpore's own answer, to terminate the process,
    is then void."""
    process = start(workspace)
    time.sleep(0.5)
    victim = children(process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    process.stdout.read()
    assert process.wait(timeout=60) != 0
    # one time in ten MindSpore crashes in its pipeline before we can speak: then its line is there
    error = process.stderr.read()
    assert 'ConfigError: a process that reads data has died' in error or 'Dataset worker process' in error


SCRIPT = '''
import signal, sys, time
from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.data.stream.workers import look_ahead
signal.signal(signal.SIGTERM, lambda *a: None)
it = iter(Loader(open_captions(sys.argv[1]), 4, 32, seed=0, num_workers=2, workers='processes'))
while True:
    next(it)
    print('on', flush=True)
    time.sleep(0.05)
'''


def test_nothing_is_left_when_the_process_is_killed(workspace):
    """Even with a handler for SIGTERM, which the workers inherit."""
    process = start(workspace)
    found = children(process.pid)
    assert len(found) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(os.path.exists(f'/proc/{pid}') for pid in found):
        time.sleep(0.1)
    assert not [pid for pid in found if os.path.exists(f'/proc/{pid}')]

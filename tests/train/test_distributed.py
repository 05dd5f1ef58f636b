"""Several processes train as one does; a dead one ends the job, which a restart continues to the same last bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from tests.workspace import (
    LOGGED,
    ROOT,
    assert_one_line_error,
    command,
    free_port,
    make_workspace,
    port_was_taken,
    wait_until_paused,
)

STEPS = 14
COMMON = (
    f'max_steps={STEPS}',
    'checkpoint_every=6',
    'optimizer.learning_rate=1e-4',
    'optimizer.new_learning_rate=1e-4',
)


def launch_args(directory, *arguments, restarts=0, pause=()):
    """`pause`: arguments of tests/paused.py in front of the tool."""
    return [
        '--port',
        str(free_port()),
        '--logs',
        str(directory / 'logs'),
        '--max-restarts',
        str(restarts),
        '2',
        *(('tests/paused.py', *map(str, pause)) if pause else ()),
        'tools/train.py',
        '--config',
        str(directory / 'diffdis.yaml'),
        *COMMON,
        *arguments,
    ]


LAUNCH = {'cwd': ROOT, 'env': {**os.environ, 'VENV': sys.prefix}, 'stderr': subprocess.PIPE, 'text': True}


def launch(directory, *arguments, forks=False, **options):
    """Run a job by tools/launch.sh, or by a fork of tools/launch.py (tests/warm.py), which saves the imports of five
    processes; returns the finished launcher. A fork does not know the rank of a process that failed."""
    for _ in range(3):
        args = launch_args(directory, *arguments, **options)
        if forks:
            done = command('tools/launch.py', *args)
        else:
            done = subprocess.run(['bash', 'tools/launch.sh', *args], stdout=subprocess.PIPE, timeout=900, **LAUNCH)
        if done.returncode == 0 or not port_was_taken(directory / 'logs'):
            break
    return done


def start_paused(directory, step, *arguments, restarts=0):
    """Start a job whose two processes pause after a step; returns the launcher and the processes."""
    file = directory / 'paused'
    args = launch_args(directory, *arguments, restarts=restarts, pause=(LOGGED, step, file))
    launcher = subprocess.Popen(['bash', 'tools/launch.sh', *args], stdout=subprocess.DEVNULL, **LAUNCH)
    for rank in range(2):
        wait_until_paused(launcher, directory / f'paused{rank}')
    assert len(rows(directory)) == step
    found = workers(launcher)
    assert len(found) == 2
    return launcher, found


def rows(directory):
    return [json.loads(line) for line in (directory / 'run/metrics.jsonl').read_text().splitlines()]


def state(directory, step=STEPS):
    return load_file(directory / f'run/checkpoints/step_{step}/state.safetensors')


def assert_close_runs(ours, theirs):
    """Losses and weights to 1e-5, relative."""
    for mine, other in zip(rows(ours), rows(theirs), strict=True):
        assert mine['step'] == other['step']
        for key in ('loss', 'loss_ig', 'loss_ita', 'logit_scale'):
            assert np.isclose(mine[key], other[key], rtol=1e-5), (mine['step'], key, mine[key], other[key])
    assert len(rows(ours)) == len(rows(theirs)) == STEPS
    mine, other = state(ours), state(theirs)
    assert mine.keys() == other.keys()
    weights = [name for name in mine if not name.startswith(('adam', 'small.', 'ema.', 'global'))]
    assert len(weights) > 50
    apart = sum(np.square(mine[n].astype(np.float64) - other[n]).sum() for n in weights) ** 0.5
    assert apart < 1e-5 * sum(np.square(other[n].astype(np.float64)).sum() for n in weights) ** 0.5


@pytest.fixture(scope='module')
def one_process(tmp_path_factory):
    directory = make_workspace(tmp_path_factory.mktemp('one'))
    done = command('tools/train.py', '--config', directory / 'diffdis.yaml', *COMMON, 'batch_size=4')
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    directory = make_workspace(tmp_path_factory.mktemp('two'))
    done = launch(directory, 'batch_size=2')
    assert done.returncode == 0, done.stderr
    return directory


def test_two_processes_equal_one_with_twice_the_batch(one_process, two_processes):
    assert_close_runs(two_processes, one_process)
    log = (two_processes / 'logs/attempt_0/worker_0.log').read_text()
    assert 'on 2 processes' in log and f'step {STEPS}/{STEPS}' in log
    assert not (two_processes / 'logs/attempt_1').exists()


def test_sharded_optimizer_state_changes_no_bit_and_any_run_continues_from_its_checkpoints(two_processes, tmp_path):
    directory = make_workspace(tmp_path)
    done = launch(directory, 'batch_size=2', 'shard_optimizer=true', 'max_steps=12', forks=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = state(directory, 12), state(two_processes, 12)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    done = launch(directory, 'batch_size=2', 'shard_optimizer=true', forks=True)
    assert done.returncode == 0 and 'resumed from' in (directory / 'logs/attempt_0/worker_0.log').read_text(), (
        done.stderr
    )
    ours, theirs = state(directory), state(two_processes)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    models = [load_file(d / 'run/model/unet.safetensors') for d in (directory, two_processes)]
    assert all(np.array_equal(models[0][name], models[1][name]) for name in models[1])
    done = command(
        'tools/train.py', '--config', directory / 'diffdis.yaml', *COMMON, f'max_steps={STEPS + 1}', 'batch_size=4'
    )  # alone, without
    assert done.returncode == 0 and 'resumed from' in done.stdout, done.stderr


def test_four_accumulated_micro_batches_equal_the_whole_batch(one_process, tmp_path):
    directory = make_workspace(tmp_path)
    done = command(
        'tools/train.py', '--config', directory / 'diffdis.yaml', *COMMON, 'batch_size=1', 'accumulation_steps=4'
    )
    assert done.returncode == 0, done.stderr
    assert_close_runs(directory, one_process)


def workers(launcher):
    """The training processes below a launcher: msrun gives each a group of its own."""
    found = []
    for child in psutil.Process(launcher.pid).children(recursive=True):
        try:
            if (
                os.getpgid(child.pid) == child.pid
                and 'tools/train.py' in child.cmdline()
                and child.environ().get('MS_ROLE') == 'MS_WORKER'
            ):
                found.append(child)
        except (psutil.Error, ProcessLookupError):
            pass
    return sorted(found, key=lambda p: p.environ()['RANK_ID'])


def test_a_killed_worker_ends_the_job_which_restarts_to_the_same_last_bit(two_processes, tmp_path):
    directory = make_workspace(tmp_path)
    launcher, first = start_paused(directory, 8, 'batch_size=2', restarts=2)
    first[1].send_signal(signal.SIGKILL)
    _, errors = launcher.communicate(timeout=900)
    assert launcher.returncode == 0, errors
    assert 'process 1 was killed by signal 9 (SIGKILL)' in errors and 'restart 1 of 2' in errors
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in first)
    assert 'resumed from' in (directory / 'logs/attempt_1/worker_0.log').read_text()
    ours, theirs = state(directory), state(two_processes)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert [r['loss'] for r in rows(directory)] == [r['loss'] for r in rows(two_processes)]


def test_sigterm_saves_and_the_next_run_continues(two_processes, tmp_path):
    directory = make_workspace(tmp_path)
    launcher, _ = start_paused(directory, 4, 'batch_size=2', 'checkpoint_every=1000')
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == 143, errors
    saved = [p.name for p in (directory / 'run/checkpoints').iterdir()]
    assert saved == ['step_4'] and not (directory / 'run/model').exists()
    done = launch(directory, 'batch_size=2', forks=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = state(directory), state(two_processes)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_mistake_is_one_clear_line_and_is_not_tried_again(tmp_path):
    directory = make_workspace(tmp_path)
    done = launch(directory, 'batch_size=40', restarts=2)
    assert done.returncode == 1
    assert 'do not fill one batch' in done.stderr and 'restart' not in done.stderr
    assert_one_line_error(command('tools/launch.py', '0', 'tools/train.py'), '--processes')
    assert_one_line_error(command('tools/launch.py', '2', 'tools/nothing.py'), 'tools/nothing.py does not exist')
    assert_one_line_error(command('tools/launch.py', '2', '--nodes', '2', 'tools/train.py'), '--address')

"""MindFormers' trainer from a YAML file: the same training as ours, on one process and on two, and resumed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from mindspore import load_checkpoint
from safetensors.numpy import load_file

from tests.formers.workspace import STEPS, make_cached_workspace, mindformers_yaml
from tests.workspace import ROOT, assert_one_line_error, command, free_port

pytestmark = pytest.mark.xdist_group('memory')  # each of its processes takes 3 GB


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return make_cached_workspace(tmp_path_factory.mktemp('cached'))


@pytest.fixture(scope='module')
def ours(directory):
    """tools/train.py's run."""
    done = command('tools/train.py', '--config', directory / 'cached.yaml')
    assert done.returncode == 0, done.stderr
    return directory / 'run'


def losses(run):
    return [json.loads(line)['loss'] for line in (run / 'metrics.jsonl').read_text().splitlines()]


def assert_same_run(run, ours):
    """Losses, weights' averages and logit scale."""
    mine, other = (load_file(path / 'model/unet.safetensors') for path in (run, ours))
    assert mine.keys() == other.keys() and len(mine) > 50
    apart = sum(np.square(mine[n].astype(np.float64) - other[n]).sum() for n in mine) ** 0.5
    assert apart < 1e-5 * sum(np.square(other[n].astype(np.float64)).sum() for n in mine) ** 0.5
    mine, other = (yaml.safe_load((path / 'model/config.yaml').read_text()) for path in (run, ours))
    assert mine.pop('logit_scale') == pytest.approx(other.pop('logit_scale'), rel=1e-6) and mine == other


@pytest.fixture(scope='module')
def formers(directory):
    """The run of MindFormers' trainer."""
    done = command('tools/mindformers_train.py', '--config', mindformers_yaml(directory))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return directory / 'formers'


def test_one_process_trains_as_ours_does(ours, formers):
    assert np.allclose(losses(formers), losses(ours), rtol=1e-5, atol=0) and len(losses(ours)) == STEPS
    assert_same_run(formers, ours)
    names = sorted(p.name for p in (formers / 'checkpoint/rank_0').glob('*.ckpt'))
    assert names == ['diffdis_rank_0-1_3.ckpt', 'diffdis_rank_0-1_6.ckpt']  # steps 3 and 6 of the one epoch
    files = [sorted(p.name for p in (run / 'model').iterdir()) for run in (formers, ours)]
    assert files[0] == files[1] and 'tokenizer' in files[0]


@pytest.mark.slow
def test_two_processes_continue_from_a_checkpoint_and_stay_equal(directory, ours, formers):
    """From step 3 of the one process: ranks of data parallel training have equal checkpoints."""
    for rank in range(2):
        target = directory / f'half/rank_{rank}/diffdis_rank_{rank}-1_3.ckpt'
        target.parent.mkdir(parents=True)
        shutil.copy(formers / 'checkpoint/rank_0/diffdis_rank_0-1_3.ckpt', target)
    run = directory / 'two'
    done = subprocess.run(
        [
            'bash',
            'tools/launch.sh',
            '--port',
            str(free_port()),
            '--logs',
            str(directory / 'logs'),
            '2',
            'tools/mindformers_train.py',
            '--config',
            str(directory / 'mindformers.yaml'),
            '--use_parallel',
            'True',
            '--output_dir',
            str(run),
            '--load_checkpoint',
            str(directory / 'half'),
            '--resume_training',
            'True',
            'runner_config.batch_size=2',
        ],
        cwd=ROOT,
        env={**os.environ, 'VENV': sys.prefix},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)['step'] for line in (run / 'metrics.jsonl').read_text().splitlines()] == [4, 5, 6]
    assert_same_run(run, ours)
    states = [load_checkpoint(str(next((run / f'checkpoint/rank_{rank}').glob('*.ckpt')))) for rank in range(2)]
    assert int(states[0]['global_step'].asnumpy().item()) == STEPS
    assert states[0].keys() == states[1].keys() and sum(name.startswith('ema.') for name in states[0]) > 50
    assert all(np.array_equal(*(state[name].asnumpy() for state in states)) for name in states[0])


def test_mistakes_are_one_clear_line(directory):
    assert_one_line_error(command('tools/mindformers_train.py', '--config', directory / 'nothing.yaml'), '--config')
    assert_one_line_error(
        command('tools/mindformers_train.py', '--config', mindformers_yaml(directory), 'seed'), 'section.key=value'
    )
    done = command('tools/mindformers_train.py', '--config', mindformers_yaml(directory), 'runner_config.epochs=2')
    assert (
        done.returncode == 1
        and done.stderr.splitlines()[-1].startswith('error: ')
        and 'train.max_steps' in done.stderr.splitlines()[-1]
    )

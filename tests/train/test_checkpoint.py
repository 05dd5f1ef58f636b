"""Checkpoints: damage is one clear line, and a step with weights that are no numbers is never saved."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter

from diffdis_ms.errors import ConfigError
from diffdis_ms.train import loop
from diffdis_ms.train.checkpoint import checkpoints, damage, find_checkpoint, load_checkpoint, save_checkpoint
from diffdis_ms.world import World
from tests.helpers import tiny_run

STATE = {'step': 3, 'seconds': 1.0, 'loader': {}}


def step_of(*values):
    """What has parameters as a step has, named p0, p1 ..."""
    parameters = [Parameter(np.array(value, np.float32), name=f'p{i}') for i, value in enumerate(values)]
    update = SimpleNamespace(shards=None, loss_scale=None, skipped_steps=None)
    return SimpleNamespace(get_parameters=lambda: parameters, update=update)


@pytest.fixture
def checkpoint(tmp_path):
    save_checkpoint(tmp_path, {'p0': np.ones(3, np.float32)}, STATE, keep=3)
    return tmp_path / 'step_3'


def test_it_comes_back(checkpoint):
    step = step_of([0, 0, 0])
    assert damage(checkpoint) is None and load_checkpoint(checkpoint, step) == STATE
    assert (step.get_parameters()[0].asnumpy() == 1).all()


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'{"files": ',
        b'[]',
        b'{}',
        b'{"files": []}',
        b'{"files": {"state.json": 3}}',
        b'\xff\xfe\x00',
        b'[' * 100000,
        '{"files": "é"}'.encode('latin-1'),
    ],
)
def test_a_damaged_manifest_is_passed_over_with_one_line(checkpoint, content):
    (checkpoint / 'manifest.json').write_bytes(content)
    lines = []
    assert find_checkpoint('auto', checkpoint.parent, lines.append) is None
    assert len(lines) == 1 and str(checkpoint) in lines[0] and 'manifest.json' in lines[0]
    with pytest.raises(ConfigError, match='damaged'):
        find_checkpoint(str(checkpoint), checkpoint.parent)


@pytest.mark.parametrize('content', [b'{"step": ', b'[]', b'{"step": 3, "seconds": 1.0}', b'\xff\xfe\x00'])
def test_a_damaged_state_is_one_line(checkpoint, content):
    (checkpoint / 'state.json').write_bytes(content)
    with pytest.raises(ConfigError, match='state.json') as error:
        load_checkpoint(checkpoint, step_of([0, 0, 0]))
    assert '\n' not in str(error.value)


def job_of(*values):
    config, step = tiny_run(), step_of(*values)
    return SimpleNamespace(config=config, step=step, update=step.update, first=True, world=World())


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_weights_that_are_not_finite_never_become_the_newest_checkpoint(tmp_path, value):
    loop._save(job_of([1, 2], [3]), {**STATE, 'step': 3}, tmp_path)
    with pytest.raises(loop.TrainingError, match='step 6: p1 is not finite'):
        loop._save(job_of([1, 2], [value]), {**STATE, 'step': 6}, tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ['step_3']


@pytest.mark.parametrize(
    'outputs, what',
    [
        ((math.nan, 1, 1, 1.0), 'the loss is nan'),
        ((2.0, 1, 1, math.inf), "the gradients' norm is inf"),
        ((2.0, 1, 1, math.nan), "the gradients' norm is nan"),
    ],
)
def test_a_step_that_is_not_finite_stops_training_with_its_samples(outputs, what):
    job, batch = job_of([1]), SimpleNamespace(indices=np.array([4, 9]))
    loop._check(job, 5, (2.0, 1, 1, 3.0), batch)
    with pytest.raises(loop.TrainingError, match=rf'step 5: {what} \(samples: \[4, 9\]'):
        loop._check(job, 5, outputs, batch)
    job.update.skipped_steps = Parameter(np.array(1, np.float32), name='skipped')
    job.update.loss_scale = Parameter(
        np.array(2, np.float32), name='scale'
    )  # fp16: it halves, and the step was skipped
    loop._check(job, 5, outputs, batch)
    job.update.loss_scale = Parameter(np.array(1, np.float32), name='scale')
    with pytest.raises(loop.TrainingError, match=what):
        loop._check(job, 5, outputs, batch)

"""MindSpore's own Ascend backend, in its dry run with stub libraries: what it accepts, refuses and plans.

A machine without g++ cannot make the stubs: the tests are skipped there, but fail under CI=true.
"""

import json
import os
import platform
import shutil

import pytest

from diffdis_ms.ascend import stubs
from diffdis_ms.ascend.evidence import disagreements
from diffdis_ms.ascend.simulation import simulate, toolkit
from diffdis_ms.errors import ConfigError
from tests.workspace import assert_one_line_error, command

MISSING = [name for name in stubs.PROGRAMS if not shutil.which(name)] or platform.machine() != 'x86_64'
GRAPHS = 'diffdis_ms.ascend.graphs'
needs_compiler = pytest.mark.skipif(
    bool(MISSING) and os.environ.get('CI') != 'true', reason=f'the dry run needs {MISSING}'
)


@pytest.fixture(scope='module')
def home():
    with toolkit() as found:
        yield found


def kinds(result):
    """{operator: its kind of kernel}."""
    return {name: kind for name, kind, *_ in result['kernels']}


@needs_compiler
@pytest.mark.parametrize(
    'graphs',
    ['generation', 'alignment', 'autoencoder', 'clip', 'convolutional', 'half_precision', 'flash_attention_text'],
)
def test_networks_are_accepted(home, graphs):
    for result in simulate(home, f'{GRAPHS}:{graphs}'):
        assert result['error'] is None, (result['title'], result['error'])
        assert result['memory'] > 0 and 'cpu' not in kinds(result).values() and '?' not in kinds(result).values()
        if graphs == 'flash_attention_text':
            assert kinds(result)['FlashAttentionScore'] == kinds(result)['FlashAttentionScoreGrad'] == 'aclnn'


@needs_compiler
@pytest.mark.parametrize('graphs', ['training', 'mixed_precision'])
def test_training_steps_are_accepted(home, graphs):
    for result in simulate(home, f'{GRAPHS}:{graphs}'):
        assert result['error'] is None, (result['title'], result['error'])


@needs_compiler
def test_what_ascend_lacks_is_refused(home):
    results = list(simulate(home, f'{GRAPHS}:negative'))
    assert [result['title'] for result in results] == ['Fmax', 'LayerNorm float64']
    assert all(result['error'] for result in results)


@needs_compiler
def test_a_training_run_as_rank_0_of_8(home):
    smaller = ('unet.block_out_channels=[32]', 'unet.attention_levels=[false]', 'alignment.num_layers=1')
    settings = ['train.precision=fp16', 'train.shard_optimizer=true', *(f'model.{setting}' for setting in smaller)]
    (result,) = simulate(home, 'ascend_configs/tiny.yaml', ranks=8, overrides=settings)
    assert result['error'] is None, result['error']
    sizes = {
        name: [size for other, size in result['collectives'] if other == name] for name, _ in result['collectives']
    }
    # both vectors of gradients, three losses, "finite", the stop flags; e, e0, both vectors of shards
    assert len(sizes['AllReduce']) == 7 and len(sizes['AllGather']) == 4
    assert result['memory'] > max(sizes['AllReduce']) > 1e6 and set(kinds(result).values()) >= {'aclnn', 'acl', 'hccl'}


@needs_compiler
def test_the_command_says_what_is_refused(tmp_path):
    done = command('tools/ascend_dry_run.py', 'negative', '--json', tmp_path / 'dry.json')
    assert done.returncode == 1 and 'Fmax: REFUSED' in done.stdout and '2 graphs or runs, 2 refused' in done.stdout
    found = json.loads((tmp_path / 'dry.json').read_text())
    assert found['chip'] == 'ascend910b' and [result['title'] for result in found['results']][0] == 'Fmax'


@needs_compiler
@pytest.mark.parametrize(
    'arguments, words',
    [
        (['nothing'], 'does not name a function'),
        (['ascend_configs/tiny.yaml', '--set', 'trian.batch_size=3'], "unknown key 'trian'"),
        (['negative', '--set', 'train.batch_size=3'], 'negative is no config'),
        (['ascend_configs/tiny.yaml', '--set', 'max_steps=3'], 'a dry run sets max_steps itself'),
    ],
)
def test_mistakes_are_one_line(arguments, words):
    assert_one_line_error(command('tools/ascend_dry_run.py', *arguments), words)


def test_where_the_two_witnesses_disagree():
    table = {
        'aclnn': {'Add': True},
        'acl': {'Split': 'Split', 'Add': 'Add'},
        'types': {},
        'aicpu': [],
        'views': ['Split'],
    }
    rows = [
        ['Add', 'acl', 'Float32', 'Float32', 2],
        ['Split', 'acl', 'Float16', 'Float16', 1],
        ['Reshape', 'rt', '', '', 9],
    ]
    assert disagreements(rows, table) == [('Add', 'acl', 'aclnn')]


def test_missing_programs_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(stubs.shutil, 'which', lambda name: None if name in ('g++', 'nm') else name)
    with pytest.raises(ConfigError, match=r'needs g\+\+, nm: install g\+\+ with binutils'):
        stubs.make_stubs(tmp_path)

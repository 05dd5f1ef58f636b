"""The operator coverage check, run as a user runs it: it passes what Ascend has and finds what it has not."""

import json

import pytest

from diffdis_ms.ascend.evidence import evidence, read_table
from diffdis_ms.errors import ConfigError
from tests.workspace import assert_one_line_error, command


def coverage(function):
    done = command('-m', 'diffdis_ms.ascend.coverage', f'diffdis_ms.ascend.graphs:{function}', '--json')
    assert done.returncode in (0, 1), done.stderr
    head, *graphs = map(json.loads, done.stdout.splitlines())
    return done.returncode, head, graphs


def test_an_operator_that_ascend_lacks_is_found():
    code, head, graphs = coverage('negative')
    assert code == 1 and [graph['missing'] for graph in graphs] == [['Fmax'], ['LayerNorm']]
    assert head['aclnn'] > 400 and head['acl'] > 800 and head['aicpu'] > 400  # of 2.7.2: 500, 915, 490
    assert head['mindspore'] == '2.7.2'


def test_the_attention_kernel_and_its_gradient_are_there():
    code, _, graphs = coverage('flash_attention_text')
    kinds = {name: kind for graph in graphs for name, _, _, kind, _ in graph['primitives']}
    assert code == 0 and not any(graph['missing'] for graph in graphs)
    assert kinds['FlashAttentionScore'] == kinds['FlashAttentionScoreGrad'] == 'aclnn'


@pytest.mark.parametrize(
    'graphs, message',
    [
        ('diffdis_ms.ascend.nothing:models', 'no module diffdis_ms.ascend.nothing'),
        ('diffdis_ms.ascend.tiny:nothing', 'does not name a function'),
        ('diffdis_ms.ascend.tiny', 'does not name a function'),
    ],
)
def test_graphs_that_are_not_there_are_one_line(graphs, message):
    assert_one_line_error(command('-m', 'diffdis_ms.ascend.coverage', graphs), message)


TABLE = {
    'aclnn': {'Direct': True, 'Idle': False, 'IdleAdapter': False, 'TupleIdle': False, 'DirectView': True},
    'acl': {'Adapter': 'GeName', 'AnyType': 'Untyped', 'IdleAdapter': 'GeName', 'AdapterView': 'GeName'},
    'types': {'GeName': 'fp16 fp32'},
    'aicpu': ['OnTheAiCpu', 'Idle2'],
    'rewritten': {'Replaced': 'ReplacedMindIR'},
    'views': ['DirectView', 'AdapterView'],
}


@pytest.mark.parametrize(
    'name, types, kind, why',
    [
        ('TupleGetItem', {'fp32'}, 'framework', 'graph'),
        ('AllReduce', {'fp32'}, 'hccl', 'communication'),
        ('Direct', {'bf16'}, 'aclnn', 'aclnn kernel'),
        ('DirectView', {'bf16'}, 'aclnn', 'aclnn kernel'),
        ('AdapterView', {'bf16'}, 'view', 'no kernel'),
        ('Reshape', {'bf16'}, 'view', 'no kernel'),
        ('Adapter', {'fp16', 'fp32'}, 'acl', 'GeName'),
        ('Adapter', {'fp16', 'bf16'}, 'none', 'GeName does not take bf16'),
        ('AnyType', {'bf16'}, 'acl', 'Untyped'),
        ('IdleAdapter', {'fp16'}, 'acl', 'GeName'),
        ('OnTheAiCpu', {'fp64'}, 'aicpu', 'AI CPU'),
        ('Idle', {'fp32'}, 'none', 'does not dispatch'),
        ('TupleIdle', {'i64'}, 'none', 'does not dispatch'),
        ('ScalarAdd', {'i64'}, 'host', 'scalars'),
        ('Replaced', {'fp32'}, 'rewritten', 'ReplacedMindIR'),
        ('Unheard', {'fp32'}, 'none', 'nothing found'),
    ],
)
def test_what_the_table_says_of_a_primitive(name, types, kind, why):
    found, because = evidence(name, types, TABLE)
    assert found == kind and why in because


def test_a_version_without_a_table_is_one_line():
    with pytest.raises(ConfigError, match=r'MindSpore 2\.7\.2 are known, not those of 2\.6\.0') as error:
        read_table('2.6.0')
    assert '\n' not in str(error.value)

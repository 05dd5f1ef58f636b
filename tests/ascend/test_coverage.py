"""The operator coverage check, run as a user runs it: it passes what Ascend has and finds what it has not."""

import json
import platform

import pytest

from tests.workspace import command

pytestmark = pytest.mark.skipif(platform.machine() != 'x86_64', reason='read from the x86-64 wheel')


def coverage(function):
    done = command('-m', 'diffdis_ms.ascend.coverage', f'tests.ascend.graphs:{function}', '--json')
    assert done.returncode in (0, 1), done.stderr
    head, *graphs = map(json.loads, done.stdout.splitlines())
    return done.returncode, head, graphs


def test_an_operator_that_ascend_lacks_is_found():
    code, head, (graph,) = coverage('negative')
    assert code == 1 and graph['missing'] == ['Fmax']
    assert head['aclnn'] > 400 and head['acl'] > 800 and head['aicpu'] > 400  # of 2.7.2: 500, 915, 490


def test_the_attention_kernel_and_its_gradient_are_there():
    code, _, graphs = coverage('flash_attention_text')
    kinds = {name: kind for graph in graphs for name, _, _, kind, _ in graph['primitives']}
    assert code == 0 and not any(graph['missing'] for graph in graphs)
    assert kinds['FlashAttentionScore'] == kinds['FlashAttentionScoreGrad'] == 'aclnn'


def test_an_unreadable_library_is_one_clear_error(tmp_path):
    from diffdis_ms.ascend.elf import Elf
    from diffdis_ms.errors import ConfigError

    path = tmp_path / 'lib.so'
    path.write_bytes(b'\x7fELF\x02' + bytes(13) + (183).to_bytes(2, 'little') + bytes(100))  # AArch64
    with pytest.raises(ConfigError, match='x86-64'):
        Elf(path)

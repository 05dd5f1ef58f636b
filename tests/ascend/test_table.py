"""The table of Ascend's operators and the reading of MindSpore's libraries behind it (tools/ascend_table.py)."""

import json
import platform

import pytest

from diffdis_ms.ascend.evidence import read_table
from diffdis_ms.errors import ConfigError
from tests.workspace import ROOT, assert_one_line_error, command, python

TABLE = ROOT / 'diffdis_ms/ascend/mindspore_2_7_2.json'


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='the table is made from the x86-64 wheel')
def test_the_table_is_what_the_installed_wheel_says(tmp_path):
    done = command('tools/ascend_table.py', '--out', tmp_path / 'made.json')
    assert done.returncode == 0, done.stderr
    made, kept = (json.loads(path.read_text()) for path in (tmp_path / 'made.json', TABLE))
    for key in kept:
        if key != 'wheel':
            assert made[key] == kept[key], key
    assert made.keys() == kept.keys() and made['wheel']['version'] == kept['wheel']['version']
    if made['wheel']['python'] == kept['wheel']['python']:  # each version of Python has a build of its own
        assert (tmp_path / 'made.json').read_bytes() == TABLE.read_bytes()


def test_the_table_says_where_it_is_from_and_is_sorted():
    table = read_table('2.7.2')
    assert table['wheel']['name'] == 'mindspore' and table['wheel']['version'] == '2.7.2'
    assert table['wheel']['platform'] == 'linux-x86_64' and table['wheel']['python'].startswith('cp3')
    assert all(len(digest) == 64 for digest in table['wheel']['sha256'].values()) and table['wheel']['sha256']
    for key in ('aclnn', 'acl', 'types', 'aicpu', 'rewritten', 'views'):
        assert list(table[key]) == sorted(table[key]) and table[key], key
    assert TABLE.stat().st_size < 200_000


def header(machine):
    """The header of a 64-bit little-endian shared library without sections."""
    kind, version, size = (3).to_bytes(2, 'little'), (1).to_bytes(4, 'little'), (64).to_bytes(2, 'little')
    return (
        b'\x7fELF\x02\x01\x01'
        + bytes(9)
        + kind
        + machine.to_bytes(2, 'little')
        + version
        + bytes(28)
        + size
        + bytes(10)
    )


@pytest.mark.parametrize(
    'content, message',
    [
        (header(183), 'not an x86-64 library'),
        (header(62)[:30], 'not a shared library'),
        (b'text', 'not a shared library'),
    ],
    ids=['AArch64', 'cut', 'text'],
)
def test_an_unreadable_library_is_one_clear_error(tmp_path, content, message):
    from tools.ascend.elf import Library

    path = tmp_path / 'lib.so'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        Library(path)
    assert '\n' not in str(error.value)


def test_a_missing_pyelftools_is_named():
    hide = "import runpy, sys; sys.modules['elftools'] = None; sys.argv = ['ascend_table.py', '--out', 'made.json']"
    done = python('-c', f"{hide}; runpy.run_path('tools/ascend_table.py', run_name='__main__')")
    assert_one_line_error(done, 'pip install pyelftools')

"""tools/mutate.py on a toy: which changes it makes, and which of them it finds unnoticed."""

import ast
import json
import subprocess
import sys

import pytest

from tests.workspace import ROOT, assert_one_line_error, command

sys.path.insert(0, str(ROOT / 'tools'))
from mutate import TESTS, Copy, mutants  # noqa: E402

TOY = 'def f(a, b):\n    return b - a if a < b else a\n'
WEAK = 'from toy import f\n\n\ndef test_f():\n    assert f(3, 1) == 3 and f(1, 3) == 2\n'


def changes(source):
    found = mutants(source)
    assert len({m['source'] for m in found} | {source}) == len(found) + 1 and all(ast.parse(m['source']) for m in found)
    return {(m['kind'], m['new'].strip()) for m in found}


def test_kinds_of_mutants():
    assert changes('x = a + b * 2') == {
        ('operator', 'x = (a - b * 2)'),
        ('operator', 'x = a + (b / 2)'),
        ('constant', 'x = a + b * 3'),
        ('value times 0', 'x = 0 * (a + b * 2)'),
    }
    guidance = changes('def f(c, v, w):\n    return guided(c, v, w)')
    assert {('arguments swapped', 'return (guided(v, c, w))'), ('call left out', 'return c')} <= guidance
    assert ('statement dropped', 'pass') in changes('def f(x):\n    x = x + 1\n    return x')
    assert changes('a = not b and c >= 0.5') >= {
        ('operator', 'a = (not b or c >= 0.5)'),
        ('operator', 'a = b and c >= 0.5'),
        ('comparison', 'a = not b and (c > 0.5)'),
        ('constant', 'a = not b and c >= 1.0'),
    }


def test_what_no_test_could_notice_is_left_alone():
    assert changes('"""Text 1."""\nprint(1 + 1, f"{1 + 1}")\nbar.update(2)') == set()
    assert changes('def f():\n    raise ConfigError(1 + 1)') == {('statement dropped', 'pass')}


def test_only_the_place_itself_changes():
    source = "x = ('ä',  1)   # kept\n"
    assert [m['source'] for m in mutants(source)] == ["x = ('ä',  0)   # kept\n"]


@pytest.fixture
def toy(tmp_path):
    (tmp_path / 'toy.py').write_text(TOY)
    (tmp_path / 'test_toy.py').write_text(WEAK)
    return tmp_path


def test_survivors_are_printed_and_a_run_goes_on(toy):
    options = ('--root', toy, '--tests', 'test_toy.py', '--json', toy / 'found.json')
    done = command('tools/mutate.py', 'toy.py', *options)
    assert done.returncode == 0, done.stderr
    assert (toy / 'toy.py').read_text() == TOY
    line = '@@ toy.py:2 comparison @@\n-    return b - a if a < b else a\n+    return b - a if (a <= b) else a'
    assert line in done.stdout
    results = json.loads((toy / 'found.json').read_text())['toy.py']['mutants'].values()
    assert [m['kind'] for m in results if not m['killed_by']] == ['comparison'] and len(results) == 3
    assert f'| toy.py | {len(results)} | {len(results)} | {len(results) - 1} | 1 |' in done.stdout
    (toy / 'test_toy.py').write_text(WEAK + '    assert f(2, 2) == 2\n')  # now the survivor alone is tried again
    done = command('tools/mutate.py', 'toy.py', *options)
    assert f'| {len(results)} | 0 |' in done.stdout and 'Survivors' not in done.stdout


def test_a_mutant_that_never_ends_counts_as_killed(toy, tmp_path_factory):
    (toy / 'test_toy.py').write_text('def test_f():\n    while True:\n        pass\n')
    passed, said, seconds = Copy(toy, tmp_path_factory.mktemp('copy')).passes('test_toy.py', 2)
    assert not passed and 'timeout' in said and seconds < 30


def test_mistakes_are_one_line(toy):
    assert_one_line_error(command('tools/mutate.py', 'none.py', '--root', toy), 'none.py', 'no such file')
    assert_one_line_error(command('tools/mutate.py', 'toy.py', '--root', toy), 'toy.py', '--tests')
    (toy / 'test_toy.py').write_text('def test_f():\n    assert False\n')
    failing = command('tools/mutate.py', 'toy.py', '--root', toy, '--tests', 'test_toy.py')
    assert_one_line_error(failing, 'test_toy.py does not pass')


def test_targets_and_their_tests_exist():
    for target, tests in TESTS.items():
        assert (ROOT / target).is_file() and all((ROOT / test.split()[0]).is_file() for test in tests), target


def test_help_teaches():
    done = subprocess.run([sys.executable, ROOT / 'tools/mutate.py', '--help'], capture_output=True, text=True)
    assert done.returncode == 0 and 'examples:' in done.stdout

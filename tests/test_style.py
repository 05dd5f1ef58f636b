"""One style, sound types, and every file that says the same thing says the same: Python's versions, ruff's version."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.workspace import ROOT

PROJECT = (ROOT / 'pyproject.toml').read_text()
NOT_TYPED = """
def half(x: int | None) -> int:
    return x // 2
"""


def run(*words):
    return subprocess.run([sys.executable, '-m', *words], cwd=ROOT, capture_output=True, text=True)


def said(pattern, text):
    """The groups of the one place where a text says something."""
    (found,) = re.findall(pattern, text, re.M)
    return found


@pytest.mark.parametrize('words', [('ruff', 'check', '.'), ('ruff', 'format', '--check', '.')])
def test_ruff(words):
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types():
    """basedpyright is pyright with node in its wheel; what it looks at, and how strictly: [tool.pyright]."""
    done = run('basedpyright')
    assert done.returncode == 0, done.stdout + done.stderr
    assert '0 errors' in done.stdout


def test_a_wrong_type_is_found(tmp_path):
    (tmp_path / 'wrong.py').write_text(NOT_TYPED)
    settings = said(r'^\[tool\.pyright\]\n((?:.+\n)*)', PROJECT)
    settings = re.sub(r'^include = .*$', 'include = ["."]', settings, flags=re.M)
    (tmp_path / 'pyproject.toml').write_text(f'[tool.pyright]\n{settings}')
    done = run('basedpyright', '--project', str(tmp_path))
    assert done.returncode == 1 and 'wrong.py:3:12' in done.stdout, done.stdout + done.stderr


def test_the_versions_of_python_are_the_same_everywhere():
    low, end = said(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', PROJECT)
    versions = [f'3.{minor}' for minor in range(int(low), int(end))]
    assert said(r'^target-version = "py3(\d+)"$', PROJECT) == low  # ruff's
    assert said(r'^pythonVersion = "3\.(\d+)"$', PROJECT) == low  # pyright's
    script = (ROOT / 'tools/venv.sh').read_text()
    assert said(r'\(3, (\d+)\) <= sys\.version_info\[:2\] < \(3, (\d+)\)', script) == (low, end)
    assert said(r'needs Python (.*?);', script) == ' or '.join(versions)
    jobs = yaml.safe_load((ROOT / '.github/workflows/test.yml').read_text())['jobs']
    assert {tuple(job['strategy']['matrix']['python']) for job in jobs.values()} == {tuple(versions)}


def test_an_old_python_is_refused_by_one_line(tmp_path):
    fake = tmp_path / 'python3'
    fake.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" || exit 1\n')
    fake.chmod(0o755)
    script = f'. {ROOT}/tools/venv.sh .'
    env = {'PATH': '/usr/bin:/bin', 'PYTHON': str(fake), 'VENV': str(tmp_path / 'venv')}
    done = subprocess.run(['bash', '-c', script], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not (tmp_path / 'venv').exists()
    assert done.stderr.startswith('error: ') and 'Python 3.9.2' in done.stderr and done.stderr.count('\n') == 1


def test_ruff_is_the_same_before_a_commit_and_in_the_tests():
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    revisions = {repository['repo'].rpartition('/')[2]: repository['rev'] for repository in hooks}
    assert revisions['ruff-pre-commit'] == 'v' + said(r'"ruff==([\d.]+)"', PROJECT)

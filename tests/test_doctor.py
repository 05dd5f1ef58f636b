"""tools/doctor.py as a user runs it: on this machine, and on machines with something broken, which it must name and
tell how to mend."""

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys

import pytest

from diffdis_ms.config import RuntimeConfig
from tests.workspace import ROOT, command
from tools import doctor as tool


def doctor(*args, path=(), **environment):
    """Run it with directories before this environment's packages; returns (exit code, {check: row}, stderr)."""
    env = {k: v for k, v in os.environ.items() if k != 'MS_COMPILER_CACHE_ENABLE'}
    env.update(PYTHONPATH=os.pathsep.join([*map(str, path), str(ROOT)]), **environment)
    done = subprocess.run(
        [sys.executable, 'tools/doctor.py', '--json', *args],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert 'Traceback' not in done.stderr
    found = json.loads(done.stdout)
    assert found['ok'] == (done.returncode == 0)
    return done.returncode, {row['name']: row for row in found['checks']}, done.stderr


def pretend_version(directory, name, version):
    info = directory / f'{name}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    return directory


def test_this_environment_is_sound(tmp_path):
    code, rows, _ = doctor('--quick', XDG_CACHE_HOME=str(tmp_path))
    assert code == 0, [row for row in rows.values() if row['status'] == 'problem']
    assert rows['mindspore']['found'] == '2.7.2' and rows['MindSpore runs']['status'] == 'ok'
    assert str(tmp_path) in rows['compile cache']['found'] and 'operator coverage' not in rows


def test_the_table_tells_the_same(tmp_path):
    done = command('tools/doctor.py', '--quick')
    assert done.returncode == 0 and 'DiffDis can run here' in done.stdout and 'numpy' in done.stdout


@pytest.mark.parametrize(
    'name, version, advice',
    [
        ('numpy', '2.1.0', 'numpy>=1.26,<2'),
        ('mindspore', '2.3.0', 'mindspore==2.7.2'),
        ('transformers', '4.40', 'transformers==4.57.1'),
    ],
)
def test_a_wrong_version(tmp_path, name, version, advice):
    code, rows, _ = doctor('--quick', path=[pretend_version(tmp_path, name, version)])
    assert (
        code == 1
        and rows[name]['status'] == 'problem'
        and rows[name]['found'] == version
        and advice in rows[name]['advice']
    )


def test_a_mindspore_that_cannot_be_imported(tmp_path):
    (tmp_path / 'mindspore').mkdir()
    (tmp_path / 'mindspore/__init__.py').write_text("raise ImportError('libfoo.so: cannot open shared object file')\n")
    code, rows, _ = doctor(path=[tmp_path])
    assert (
        code == 1 and rows['MindSpore runs']['status'] == 'problem' and 'libfoo.so' in rows['MindSpore runs']['found']
    )
    assert rows['operator coverage']['status'] == 'note'


def test_a_torchvision_that_breaks_transformers(tmp_path):
    pretend_version(tmp_path, 'torchvision', '0.20.0')
    (tmp_path / 'torchvision.py').write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code, rows, _ = doctor('--quick', path=[tmp_path])
    assert (
        code == 1
        and 'nms' in rows['torchvision']['found']
        and 'pip uninstall torchvision' in rows['torchvision']['advice']
    )


def test_msruns_workers_would_be_another_python(tmp_path):
    for name in ('python', 'msrun'):
        (tmp_path / name).write_text('#!/bin/sh\necho /elsewhere\n')
        (tmp_path / name).chmod(0o755)
    code, rows, _ = doctor('--quick', PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    assert code == 0 and rows['msrun']['status'] == 'warning' and 'activate' in rows['msrun']['advice']


def test_environment_and_cache(tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'cache/diffdis_ms/graphs/old').mkdir(parents=True)
    code, rows, _ = doctor('--quick', MS_COMPILER_CACHE_ENABLE='1', XDG_CACHE_HOME=str(tmp_path / 'cache'))
    assert code == 1 and rows['MS_COMPILER_CACHE_ENABLE']['status'] == 'problem'
    assert '1 stale' in rows['compile cache']['found'] and 'rm -r' in rows['compile cache']['advice']
    code, rows, _ = doctor('--quick', XDG_CACHE_HOME=str(tmp_path / 'file'))
    assert code == 0 and rows['compile cache']['status'] == 'warning'


PROBE = {'version': '2.7.2', 'ascend': False}


@pytest.mark.parametrize('ascend, status', [(False, 'warning'), (True, 'problem')])
def test_operator_coverage_needs_no_x86_64(monkeypatch, ascend, status):
    """Most Ascend servers are aarch64; the table is read there as it is here."""
    monkeypatch.setattr(platform, 'machine', lambda: 'aarch64')
    monkeypatch.setattr(tool, 'GRAPHS', 'diffdis_ms.ascend.graphs:negative')
    (row,) = tool.check_coverage({**PROBE, 'ascend': ascend})
    assert row['status'] == status
    assert row['found'] == '2 primitives of 1 graphs, without Ascend implementation: Fmax'
    assert 'diffdis_ms.ascend.coverage diffdis_ms.ascend.graphs:negative' in row['advice']


def test_operator_coverage_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(tool, 'GRAPHS', 'diffdis_ms.ascend.nothing:models')
    (row,) = tool.check_coverage(PROBE)
    assert row['status'] == 'warning' and 'there is no module diffdis_ms.ascend.nothing' in row['found']


def test_operator_coverage_of_a_version_without_a_table_is_one_line():
    (row,) = tool.check_coverage({**PROBE, 'version': '2.8.0'})
    assert row['status'] == 'note' and '\n' not in row['found'] and not row['advice']
    assert row['found'].startswith('not looked at: ') and '2.7.2' in row['found'] and '2.8.0' in row['found']


SPEAKERS = ['tools/doctor.py', 'tools/launch.py', 'tools/launch.sh', 'tools/ascend_table.py']
SPEAKERS += ['diffdis_ms/ascend/evidence.py', 'diffdis_ms/ascend/coverage.py', 'diffdis_ms/runtime/context.py']


def test_files_and_commands_that_messages_name_exist():
    text = '\n'.join((ROOT / name).read_text() for name in SPEAKERS)
    files = set(re.findall(r'\b(?:tools|tests|docs|ascend_configs|diffdis_ms)/[\w/]+\.\w+', text))
    assert {'tools/doctor.py', 'tools/venv.sh', 'tools/launch.sh', 'tools/ascend_table.py'} <= files
    placeholders = {'tools/TOOL.py', 'diffdis_ms/ascend/mindspore_VERSION.json'}
    assert [name for name in files - placeholders if not (ROOT / name).is_file()] == []
    modules = set(re.findall(r'-m (diffdis_ms[\w.]+)', text))
    assert 'diffdis_ms.ascend.coverage' in modules and all(importlib.util.find_spec(name) for name in modules)
    graphs = set(re.findall(r'diffdis_ms\.ascend\.graphs:(\w+)', text))
    source = (ROOT / 'diffdis_ms/ascend/graphs.py').read_text()
    assert {'doctor', 'models'} <= graphs and all(f'\ndef {name}():' in source for name in graphs)
    fields = set(re.findall(r'\bruntime\.(\w+)=', text)) | {'compile_cache_dir'}
    assert 'compile_cache' in fields and all(hasattr(RuntimeConfig(), name) for name in fields)

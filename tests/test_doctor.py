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
from tests.workspace import ROOT
from tools import doctor as tool


def run(*args, path=(), **environment):
    """The finished command, with directories before this environment's packages."""
    env = {k: v for k, v in os.environ.items() if k != 'MS_COMPILER_CACHE_ENABLE'}
    env.update(PYTHONPATH=os.pathsep.join([*map(str, path), str(ROOT)]), **environment)
    command = [sys.executable, 'tools/doctor.py', *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def doctor(*args, **options):
    """(exit code, {check: row}) of the command with --json; see `run`."""
    done = run('--json', *args, **options)
    assert 'Traceback' not in done.stderr
    found = json.loads(done.stdout)
    assert found['ok'] == (done.returncode == 0)
    return done.returncode, {row['name']: row for row in found['checks']}


STUB = """
import numpy as np

GRAPH_MODE, __version__ = 0, '2.7.2'
set_context = set_device = lambda *_, **__: None


class Tensor:
    def __init__(self, value):
        self.value = value

    def sum(self):
        return Tensor(self.value.sum())

    def asnumpy(self):
        return self.value


class ops:
    matmul = staticmethod(lambda a, b: Tensor(a.value @ b.value))


class device_context:
    class ascend:
        is_available = staticmethod(lambda: False)
"""
STUB_CONTEXT = """
class MSContext:
    get_instance = staticmethod(lambda: MSContext)
    get_ascend_soc_version = staticmethod(lambda: '')
"""


@pytest.fixture
def stub(tmp_path):
    """A directory with a MindSpore that answers at once, for what is about something else."""
    package = tmp_path / 'stub/mindspore'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(STUB)
    (package / '_c_expression.py').write_text(STUB_CONTEXT)
    return package.parent


def pretend_version(directory, name, version):
    info = directory / f'{name}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    return directory


def test_this_environment_is_sound(tmp_path):
    code, rows = doctor('--quick', XDG_CACHE_HOME=str(tmp_path))
    assert code == 0, [row for row in rows.values() if row['status'] == 'problem']
    assert rows['mindspore']['found'] == '2.7.2' and rows['MindSpore runs']['status'] == 'ok'
    assert str(tmp_path) in rows['compile cache']['found'] and 'operator coverage' not in rows


def test_the_printed_table_tells_the_same(stub):
    _, rows = doctor('--quick', path=[stub])
    done = run('--quick', path=[stub])
    *lines, blank, last = done.stdout.splitlines()
    assert done.returncode == 0 and blank == '' and last == 'DiffDis can run here.'
    found = [line.split(None, 1) for line in lines if not line.startswith(' ')]
    assert [status for status, _ in found] == [row['status'] for row in rows.values()]
    assert all(text.startswith(row['name']) for (_, text), row in zip(found, rows.values(), strict=True))
    advice = [line.strip() for line in lines if line.startswith(' ')]
    assert advice == [f'-> {row["advice"]}' for row in rows.values() if row['advice']]


def test_the_printed_table_ends_with_what_to_mend(stub, tmp_path):
    pretend_version(tmp_path, 'numpy', '2.1.0')
    done = run('--quick', path=[tmp_path, stub])
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == '1 to fix before DiffDis runs: numpy'


@pytest.mark.parametrize(
    'name, version, advice',
    [
        ('numpy', '2.1.0', 'numpy>=1.26,<2'),
        ('mindspore', '2.3.0', 'mindspore==2.7.2'),
        ('transformers', '4.40', 'transformers==4.57.1'),
    ],
)
def test_a_wrong_version(stub, tmp_path, name, version, advice):
    code, rows = doctor('--quick', path=[pretend_version(tmp_path, name, version), stub])
    assert (
        code == 1
        and rows[name]['status'] == 'problem'
        and rows[name]['found'] == version
        and advice in rows[name]['advice']
    )


def test_a_mindspore_that_cannot_be_imported(tmp_path):
    (tmp_path / 'mindspore').mkdir()
    (tmp_path / 'mindspore/__init__.py').write_text("raise ImportError('libfoo.so: cannot open shared object file')\n")
    code, rows = doctor(path=[tmp_path])
    assert (
        code == 1 and rows['MindSpore runs']['status'] == 'problem' and 'libfoo.so' in rows['MindSpore runs']['found']
    )
    assert rows['operator coverage']['status'] == 'note'


def test_a_torchvision_that_breaks_transformers(stub, tmp_path):
    pretend_version(tmp_path, 'torchvision', '0.20.0')
    (tmp_path / 'torchvision.py').write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code, rows = doctor('--quick', path=[tmp_path, stub])
    assert (
        code == 1
        and 'nms' in rows['torchvision']['found']
        and 'pip uninstall torchvision' in rows['torchvision']['advice']
    )


def test_msruns_workers_would_be_another_python(stub, tmp_path):
    for name in ('python', 'msrun'):
        (tmp_path / name).write_text('#!/bin/sh\necho /elsewhere\n')
        (tmp_path / name).chmod(0o755)
    code, rows = doctor('--quick', path=[stub], PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    assert code == 0 and rows['msrun']['status'] == 'warning' and 'activate' in rows['msrun']['advice']


def test_environment_and_cache(stub, tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'cache/diffdis_ms/graphs/old').mkdir(parents=True)
    code, rows = doctor('--quick', path=[stub], MS_COMPILER_CACHE_ENABLE='1', XDG_CACHE_HOME=str(tmp_path / 'cache'))
    assert code == 1 and rows['MS_COMPILER_CACHE_ENABLE']['status'] == 'problem'
    assert '1 stale' in rows['compile cache']['found'] and 'rm -r' in rows['compile cache']['advice']
    code, rows = doctor('--quick', path=[stub], XDG_CACHE_HOME=str(tmp_path / 'file'))
    assert code == 0 and rows['compile cache']['status'] == 'warning'


def ascend(monkeypatch, devices, home, **probe):
    """{check: row} of `check_ascend` on a machine with these devices and CANN there, or nowhere (None)."""
    monkeypatch.setattr(tool.glob, 'glob', lambda pattern: [*devices, '/dev/davinci_manager'])
    for name in ('ASCEND_HOME_PATH', 'ASCEND_TOOLKIT_HOME'):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv('ASCEND_HOME_PATH', str(home))
    return {row['name']: row for row in tool.check_ascend(probe)}


def test_a_machine_without_ascend(monkeypatch):
    rows = ascend(monkeypatch, [], None)
    assert list(rows) == ['Ascend'] and rows['Ascend']['status'] == 'note' and not rows['Ascend']['advice']


def test_devices_without_cann(monkeypatch):
    rows = ascend(monkeypatch, ['/dev/davinci0', '/dev/davinci1'], None, ascend=False, chip='ascend910b')
    assert (rows['Ascend devices']['status'], rows['Ascend devices']['found']) == ('ok', '2 (ascend910b)')
    assert rows['driver']['status'] == 'warning' and 'driver' in rows['driver']['advice']
    assert rows['CANN']['status'] == 'problem' and 'set_env.sh' in rows['CANN']['advice']


def test_cann_without_devices(monkeypatch, tmp_path):
    (tmp_path / 'version.cfg').write_text('# versions\nruntime_running_version=[8.1.RC1]\n')
    rows = ascend(monkeypatch, [], tmp_path, ascend=False, chip='')
    assert rows['Ascend devices']['status'] == 'warning' and '/dev/davinci*' in rows['Ascend devices']['advice']
    assert (
        rows['CANN']['status'] == 'ok' and '8.1.RC1' in rows['CANN']['found'] and str(tmp_path) in rows['CANN']['found']
    )
    assert 'MindSpore on Ascend' not in rows


@pytest.mark.parametrize('seen', [True, False])
def test_devices_that_mindspore_does_not_see(monkeypatch, tmp_path, seen):
    rows = ascend(monkeypatch, ['/dev/davinci0'], tmp_path, ascend=seen, chip='ascend910b')
    assert ('MindSpore on Ascend' in rows) != seen and 'version unknown' in rows['CANN']['found']
    assert seen or rows['MindSpore on Ascend']['status'] == 'problem'


PROBE = {'version': '2.7.2', 'ascend': False}


def test_operator_coverage_needs_no_x86_64(monkeypatch):
    """Most Ascend servers are aarch64; the table is read there as it is here."""
    monkeypatch.setattr(platform, 'machine', lambda: 'aarch64')
    monkeypatch.setattr(tool, 'GRAPHS', 'diffdis_ms.ascend.graphs:negative')
    (row,) = tool.check_coverage(PROBE)
    assert row['status'] == 'warning'
    assert row['found'] == '4 primitives of 2 graphs, without Ascend implementation: Fmax, LayerNorm'
    assert 'diffdis_ms.ascend.coverage diffdis_ms.ascend.graphs:negative' in row['advice']


@pytest.mark.parametrize(
    'ascend, missing, status', [(True, ['Add'], 'problem'), (False, ['Add'], 'warning'), (True, [], 'ok')]
)
def test_a_missing_operator_is_a_problem_on_ascend(monkeypatch, ascend, missing, status):
    class Finished:
        def __init__(self, *_, **__):
            graph = {'title': 'a', 'primitives': [['Add', 1, [], '', ''], ['Mul', 2, [], '', '']], 'missing': missing}
            self.stdout = [json.dumps({'mindspore': '2.7.2'}), json.dumps(graph), json.dumps(graph)]

        def wait(self):
            return int(bool(missing))

    monkeypatch.setattr(tool.subprocess, 'Popen', Finished)
    (row,) = tool.check_coverage({**PROBE, 'ascend': ascend})
    assert row['status'] == status and row['found'].startswith('2 primitives of 2 graphs, ')
    assert bool(row['advice']) == bool(missing) and row['found'].endswith(
        'Add' if missing else 'an Ascend implementation'
    )


def test_operator_coverage_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(tool, 'GRAPHS', 'diffdis_ms.ascend.nothing:models')
    (row,) = tool.check_coverage(PROBE)
    assert row['status'] == 'warning' and 'there is no module diffdis_ms.ascend.nothing' in row['found']


def test_operator_coverage_of_a_version_without_a_table_is_one_line():
    (row,) = tool.check_coverage({**PROBE, 'version': '2.8.0'})
    assert row['status'] == 'note' and '\n' not in row['found'] and not row['advice']
    assert row['found'].startswith('not checked: ') and '2.7.2' in row['found'] and '2.8.0' in row['found']


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

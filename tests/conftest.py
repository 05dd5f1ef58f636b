"""MindSpore in graph mode on the CPU, quiet, for every test; how tests share graphs and are spread over processes."""

import gc
import os
import shutil
import tempfile

import pytest

from diffdis_ms import runtime
from diffdis_ms.runtime.compile_cache import give_back_memory
from tests.helpers import make_tiny_config
from tests.workspace import GRAPHS, command, make_workspace

runtime.setup('CPU')


def pytest_configure(config):
    """One compile cache a run, which all processes of its tests share: the workers of pytest-xdist inherit it."""
    if GRAPHS not in os.environ:
        os.environ[GRAPHS] = config.graphs = tempfile.mkdtemp(prefix='graphs')


def pytest_unconfigure(config):
    if hasattr(config, 'graphs'):
        shutil.rmtree(config.graphs, ignore_errors=True)
        del os.environ[GRAPHS]


FIRST = (
    'test_distributed.py',
    'test_precision.py',
    'test_accumulation.py',
    'test_step.py',
    'test_resume.py',
    'test_sharded.py',
)  # files that take longest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """For pytest-xdist: a file's tests stay together, as they share what they made. All that need much memory are one
    group, so that no two of them run at once: the slow ones, and files marked with this group. It comes first, its
    largest networks last. Then come the files that take longest, so that both processes end together."""
    for item in items:
        marked = item.get_closest_marker('xdist_group')
        item.group = marked.args[0] if marked else 'memory' if item.get_closest_marker('slow') else str(item.path)
        if not marked:
            item.add_marker(pytest.mark.xdist_group(item.group))
    items.sort(
        key=lambda item: (
            item.group != 'memory',
            item.get_closest_marker('slow') is not None,
            'full_size' in item.path.name,
            FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST),
        )
    )


def pytest_collection_finish():
    """MindSpore collects garbage before each graph it compiles: it need not look through all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    result = yield
    if item.group == 'memory' and (nextitem is None or nextitem.group != 'memory'):
        give_back_memory()
    return result


@pytest.fixture
def tiny_config():
    """A fresh tiny ModelConfig; a test may change it."""
    return make_tiny_config()


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A workspace in which the tiny DiffDis was trained for 8 steps by tools/train.py: (directory, its stdout)."""
    directory = make_workspace(tmp_path_factory.mktemp('trained'))
    done = command('tools/train.py', '--config', directory / 'diffdis.yaml', 'tensorboard=true')
    assert done.returncode == 0, done.stderr
    return directory, done.stdout

"""MindSpore in graph mode on the CPU, quiet, for every test."""

import pytest

from diffdis_ms import runtime
from tests.helpers import make_tiny_config
from tests.workspace import command, make_workspace

runtime.setup('CPU')


@pytest.fixture
def tiny_config():
    """A fresh tiny ModelConfig; a test may change it."""
    return make_tiny_config()


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A workspace in which the tiny DiffDis was trained for 8 steps by tools/train.py: (directory, its stdout)."""
    directory = make_workspace(tmp_path_factory.mktemp('trained'))
    done = command('tools/train.py', '--config', directory / 'diffdis.yaml')
    assert done.returncode == 0, done.stderr
    return directory, done.stdout

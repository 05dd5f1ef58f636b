"""MindSpore in graph mode on the CPU, quiet, for every test."""
import os

os.environ.setdefault('GLOG_v', '3')                   # read when MindSpore is imported

import mindspore as ms
import pytest

from tests.helpers import make_tiny_config

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device('CPU')
ms.runtime.dispatch_threads_num(1)


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: full-size networks; minutes and up to 16 GB of memory')


@pytest.fixture
def tiny_config():
    """A fresh tiny ModelConfig; a test may change it."""
    return make_tiny_config()

"""Import parts of open_clip and torch_fidelity where torchvision is not installed: see CONTRIBUTING.md,
dependencies."""

import importlib
import importlib.util
import os
import sys
import types

import pytest


def import_part(name):
    """Import the module `package.part` without running the package's `__init__`, which asks for torchvision.

    A package that is not installed skips the calling test module, but fails it under CI=true, as in conftest.py.
    """
    package = name.partition('.')[0]
    spec = importlib.util.find_spec(package)
    if spec is None:
        if os.environ.get('CI') == 'true':
            pytest.fail(f'this parity test needs {package}', pytrace=False)
        pytest.skip(f'this parity test needs {package}', allow_module_level=True)
    sys.modules.setdefault(package, importlib.util.module_from_spec(spec))
    stub = types.ModuleType('torchvision.ops.misc')  # open_clip.utils wants one class, for layers it freezes
    stub.FrozenBatchNorm2d = None
    sys.modules[stub.__name__] = stub
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[stub.__name__]  # transformers must not find it

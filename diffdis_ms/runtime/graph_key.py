"""The name of a compiled graph: a hash of everything that determines the graph.

MindSpore's compiler sees the tree of cells: their classes, constants, operators, sub-cells and parameters, also inside
lists, closures and partial functions. All of this is hashed here. An object of an unknown kind raises `Unknown`, so
that its graph is not stored, instead of being stored under an incomplete name. The hash also includes the inputs'
shapes and types, the sources, versions, MindSpore's context, the chip and the rank. It does not include the values of
parameters and input tensors, which are read when the graph runs, or the config itself, so paths, logging and
checkpoints do not change the name.

Two things are only covered by the hash of the sources: constants of modules, and the argument `reverse` of
`ops.HyperMap`, which MindSpore hides in C++. Neither may depend on a config.
"""

import functools
import hashlib
import os
import platform
import sys
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from diffdis_ms.storage.files import sha256
from diffdis_ms.world import World

PACKAGE = Path(__file__).parents[1]
# the sources of these modules are covered by a version or by `build_id`
_VERSIONED = ('pybind11_builtins', 'mindspore', 'mindformers', 'diffdis_ms')

# Attributes of a Cell that only tell when, or with which number, it was made or compiled. All others are hashed.
_CELL_STATE = {
    '__compile_cell_hook__',
    '__parse_method__',
    '_compile_cache',
    '_compile_phase',
    '_compiled',
    '_create_time',
    '_exist_names',
    '_exist_objs',
    '_has_mutable_args_list',
    '_id',
    '_init_flag',
    '_is_check_and_refresh',
    '_jit_graph_name',
    '_lazy_construct_sig',
    '_parameter_layout_dict',
    '_phase',
    '_phase_cache',
    '_scope',
    'arguments_key',
    'current_phase',
    'is_top_cell',
}
_JIT_STATE = {'hash_obj'}  # the same for a function in ms.jit: its creation time
# Settings of MindSpore's context that do not affect graphs: output paths, printing, memory limits.
_CONTEXT_STATE = {
    'compile_cache_path',
    'cur_step_num',
    'device_id',
    'enable_compile_cache',
    'enable_profiling',
    'env_config_path',
    'hccl_watchdog',
    'last_triggered_step',
    'max_device_memory',
    'need_ckpt',
    'op_timeout',
    'print_file_path',
    'profiling_options',
    'runtime_num_threads',
    'save_checkpoint_steps',
    'save_graphs',
    'save_graphs_path',
}
# Variables that identify this process among those of msrun; the key has rank and size instead.
_MSRUN = {
    'MS_NODE_ID',
    'MS_NODE_RANK',
    'MS_ROLE',
    'MS_SCHED_HOST',
    'MS_SCHED_PORT',
    'MS_TOPO_TIMEOUT',
    'MS_WORKER_NUM',
}


class Unknown(Exception):
    """A graph contains an object whose state cannot be read completely. The message names its type."""


@functools.cache
def build_id():
    """Versions and a hash of this package: {'mindspore', 'mindformers', 'python', 'sources'}. If one changes, all
    stored graphs are stale."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob('*.py')):
        digest.update(f'{path.relative_to(PACKAGE)}\n{sha256(path)}\n'.encode())
    return {
        'mindspore': _version('mindspore'),
        'mindformers': _version('mindformers'),
        'python': sys.version.split()[0],
        'sources': digest.hexdigest()[:16],
    }


def graph_key(cell, inputs, world=World()):
    """Hex name of the graph of `cell(*inputs)`, which differs for every different graph.

    Args:
        cell: the outermost cell. inputs: inputs of its call: Tensors, None, numbers, or tuples of them.
        world: World.

    Raises:
        Unknown: the graph has no name, because an object in it is of an unknown kind.
    """
    key = _Key()
    key.write(build_id(), world.rank, world.size, *_surroundings())
    for x in inputs:
        key.add_input(x)
    try:
        key.add(cell)
    except RecursionError:
        raise Unknown('something that contains itself') from None
    return key.digest.hexdigest()[:32]


def _surroundings():
    """Everything besides the cells that affects compilation: machine, chip, context and environment."""
    from mindspore import context
    from mindspore._c_expression import MSContext, ms_ctx_param

    from diffdis_ms.models.attention import uses_flash
    from diffdis_ms.runtime.context import ascend_chip

    settings = {
        name: MSContext.get_instance().get_param(member)
        for name, member in sorted(ms_ctx_param.__members__.items())
        if name not in _CONTEXT_STATE
    }
    parallel = {key: context.get_auto_parallel_context(key) for key in ('parallel_mode', 'device_num', 'full_batch')}
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith('MS_') and k not in _MSRUN}
    return platform.machine(), ascend_chip(), uses_flash(), settings, parallel, environment


class _Key:
    """Feed values to a digest. A repeated object is written as its number, so that cycles end and sharing is hashed."""

    def __init__(self):
        self.digest, self.seen = hashlib.sha256(), {}

    def write(self, *words):
        self.digest.update(repr(words).encode())

    def add_input(self, x):
        """Add an argument of the graph. A tensor's value is only hashed if it was declared constant."""
        import mindspore as ms

        if isinstance(x, (list, tuple)):
            self.write(type(x).__name__, len(x))
            for item in x:
                self.add_input(item)
        elif isinstance(x, ms.Tensor) and not isinstance(x, ms.Parameter) and not x.const_arg:
            self.write('input', x.shape, str(x.dtype))
        else:
            self.add(x)

    def add(self, value):
        """Add any object of a cell. Raises Unknown."""
        import mindspore as ms
        from mindspore._c_expression import typing

        if value is None or isinstance(
            value, (bool, int, float, complex, str, bytes, slice, type(Ellipsis), np.generic)
        ):
            self.write(type(value).__name__, value)
        elif isinstance(value, (typing.Type, np.dtype)):
            self.write('dtype', str(value))
        elif isinstance(value, ms.Parameter):
            self.write('parameter', value.name, value.shape, str(value.dtype), value.requires_grad)
            self.write(value.layerwise_parallel, value.parallel_optimizer)
        elif isinstance(value, ms.Tensor):
            array = value.astype(ms.float32).asnumpy() if value.dtype == ms.bfloat16 else value.asnumpy()
            self.write('tensor', value.shape, str(value.dtype), hashlib.sha256(array.tobytes()).hexdigest())
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self.write('array', value.shape, value.dtype.str, hashlib.sha256(value.tobytes()).hexdigest())
        elif hasattr(type(value), '__members__'):  # an enumeration of Python or C++
            self.write(*_sources(type(value)), str(value))
        elif isinstance(value, type):
            self.write('class', *_sources(value))
        elif isinstance(value, types.ModuleType):
            self.write('module', value.__name__)
        elif isinstance(value, (list, tuple)):
            self.write(*_sources(type(value)), len(value))
            for item in value:
                self.add(item)
        elif isinstance(value, dict):
            self.write(*_sources(type(value)), len(value))
            for name, item in value.items():
                self.add(name)
                self.add(item)
        elif isinstance(value, (set, frozenset)):
            self.write(*_sources(type(value)))
            self.add(sorted(value, key=repr))
        elif id(value) in self.seen:
            self.write('again', self.seen[id(value)][0])
        else:
            self.seen[id(value)] = len(self.seen), value  # stored, because otherwise another object could get its id
            self._add_object(value)

    def _add_object(self, value):
        kind = type(value)
        if isinstance(value, types.FunctionType):
            code, module = value.__code__, value.__globals__.get('__name__')
            self.write(
                'function', module, value.__qualname__, code.co_firstlineno, code.co_code.hex(), _file_hash(module)
            )
            state = _JIT_STATE if module == 'mindspore.common.api' else ()
            captured = zip(code.co_freevars, value.__closure__ or (), strict=True)
            self.add({name: cell.cell_contents for name, cell in captured if name not in state})
            self.add([value.__defaults__, value.__kwdefaults__])
        elif isinstance(value, types.MethodType):
            self.write('method', value.__func__.__qualname__)
            self.add([value.__self__, value.__func__])
        elif isinstance(value, types.BuiltinFunctionType):
            self.write('builtin', value.__module__, value.__qualname__)
            self.add(value.__self__)
        elif isinstance(value, functools.partial):
            self.write('partial')
            self.add([value.func, value.args, value.keywords])
        elif hasattr(value, '__dict__') and not _hides_state(kind):
            self._add_attributes(value)
        else:
            raise Unknown(f'{kind.__module__}.{kind.__qualname__}')

    def _add_attributes(self, value):
        import mindspore as ms

        state = _CELL_STATE if isinstance(value, ms.nn.Cell) else ()
        self.write('object', *_sources(type(value)))
        if isinstance(value, ms.ops.Primitive):
            self.add([value.name, dict(value.attrs)])
        for name, item in sorted(vars(value).items()):
            unset = name.startswith(('_lazy_', '_func_graph_flags')) and not item  # an empty one is created by a call
            if name not in state and not unset:
                self.write(name)
                self.add(item)


def _hides_state(kind):
    """Whether objects of a class may have state that Python cannot read.

    These are slots, and MindSpore's C++ classes except the bases of its cells, operators and functions, whose arguments
    are also attributes (for `ops.HyperMap` see the module's docstring).
    """
    from mindspore._c_expression import Cell_, GradOperation_, MetaFuncGraph_, Primitive_

    if any(getattr(base, '__slots__', ()) for base in kind.__mro__):
        return True
    return kind.__mro__[-2].__name__ == 'pybind11_object' and not issubclass(
        kind, (Cell_, GradOperation_, MetaFuncGraph_, Primitive_)
    )


@functools.lru_cache
def _sources(kind):
    """Names of a class and its base classes, each with the hash of its file."""
    return tuple((base.__module__, base.__qualname__, _file_hash(base.__module__)) for base in kind.__mro__)


@functools.lru_cache
def _file_hash(module):
    """sha256 of the file of a module that no version covers; raises Unknown if it has no file."""
    package = module.partition('.')[0]
    if package in _VERSIONED or package in sys.stdlib_module_names:
        return None
    try:
        return sha256(sys.modules[module].__file__)
    except (KeyError, AttributeError, TypeError, OSError):
        raise Unknown(f'{module}, whose source cannot be found') from None


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return 'none'

"""A process's main graph kept on the disk, so that a training step that was compiled before starts in seconds.

MindSpore's own cache (2.7.2) knows a graph by the order in which the process compiles it, and by nothing else: another
cell, another constant, another input shape at the same place of the order is answered with the old graph, without a
word; and the first directory a process uses stays its directory. So it is never left on. Here it is on while one graph
a process is compiled, in a directory whose name
is a hash of all that the graph depends on: the config, every constant in the tree of cells, names and shapes of the
parameters, shapes and types of the inputs, the sources of this package, the versions, the context, the rank. What is in
the directory is checked against its sha256 before it is believed.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffdis_ms.config import to_yaml
from diffdis_ms.storage.files import sha256, whole_directory, write_flushed
from diffdis_ms.text_files import read_json
from diffdis_ms.world import World

ENTRY = 'entry.json'
_WITHOUT_EFFECT = ('output_dir', 'resume')  # config keys that no graph can depend on
_state = {'used': False}


def default_directory():
    """~/.cache/diffdis_ms/graphs, or below XDG_CACHE_HOME."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'diffdis_ms' / 'graphs'


def build_id():
    """What makes all graphs stale at once: {'mindspore', 'mindformers', 'python', 'sources'}, versions and a hash of
    this package."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(root.rglob('*.py')):
        digest.update(f'{path.relative_to(root)}\n{sha256(path)}\n'.encode())
    return {
        'mindspore': _version('mindspore'),
        'mindformers': _version('mindformers'),
        'python': sys.version.split()[0],
        'sources': digest.hexdigest()[:16],
    }


def compile_cached(cell, inputs, config, world=World()):
    """Compile `cell` for `inputs`, from the cache where it has this graph; without `config.runtime.compile_cache`
    nothing happens.

    Call it right before the first call of the cell that takes longest to compile: a process has one graph in the cache.
    A second call does nothing; other graphs, and other shapes of this one, compile as usual.

    Args:
        cell: the outermost cell, complete: parameters, optimizer, `set_train`, `recompute`.
        inputs: what it will be called with (Tensors, None, numbers).
        config: Config. world: World; each rank has graphs of its own.

    Returns:
        None (cache off, or used before), 'cold' (compiled and stored) or 'warm' (read).

    Raises:
        OSError: the directory cannot be written.
    """
    if not config.runtime.compile_cache or _state['used']:
        return None
    _state['used'] = True
    directory = Path(config.runtime.compile_cache_dir or default_directory()) / graph_key(cell, inputs, config, world)
    if _is_whole(directory):
        _compile_in(directory, cell, inputs)
        return 'warm'
    shutil.rmtree(directory, ignore_errors=True)
    with whole_directory(directory) as temporary:
        started = time.monotonic()
        _compile_in(temporary, cell, inputs)
        files = {str(p.relative_to(temporary)): sha256(p) for p in sorted(temporary.rglob('*')) if p.is_file()}
        entry = {
            **build_id(),
            'objective': config.objective,
            'rank': world.rank,
            'size': world.size,
            'files': files,
            'compile_seconds': round(time.monotonic() - started, 1),
        }
        write_flushed(temporary / ENTRY, json.dumps(entry, indent=1).encode())
    return 'cold'


def give_back_memory():
    """Hand memory that was freed back to the system: compiling leaves more than a GiB of it (glibc keeps it; others do
    it by themselves)."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL('libc.so.6').malloc_trim(0)


def graph_key(cell, inputs, config, world=World()):
    """Hex name of the graph of `cell(*inputs)`: whatever could change it changes the name."""
    import mindspore as ms

    text = '\n'.join(
        line
        for line in to_yaml(config).splitlines()
        if not line.startswith(tuple(f'{key}:' for key in _WITHOUT_EFFECT))
    )
    context = [ms.get_context(key) for key in ('device_target', 'mode', 'deterministic', 'jit_config')]
    digest = hashlib.sha256(repr((text, build_id(), context, world.rank, world.size)).encode())
    _add(digest, inputs)
    own = set(vars(ms.nn.Cell())) - {'training', 'mixed_precision_type', '_params', '_has_config_recompute'}
    for name, part in cell.cells_and_names():
        digest.update(f'{name}:{type(part).__module__}.{type(part).__qualname__}'.encode())
        for key, value in sorted(vars(part).items()):
            if key not in own:
                digest.update(key.encode())
                _add(digest, value)
    return digest.hexdigest()[:32]


def entries(directory):
    """What lies in a cache directory: list of {'path', 'bytes', 'stale': reason or None}, the newest first."""
    now, found = build_id(), []
    directory = Path(directory)
    for path in sorted(directory.iterdir(), key=lambda p: -p.stat().st_mtime) if directory.is_dir() else []:
        if path.is_dir():
            size = sum(p.stat().st_size for p in path.rglob('*') if p.is_file())
            found.append({'path': str(path), 'bytes': size, 'stale': _staleness(path, now)})
    return found


def _staleness(path, now):
    try:
        entry = read_json(path / ENTRY)
        changed = [key for key in now if entry.get(key) != now[key]]
    except (OSError, ValueError, AttributeError):
        return 'not complete'
    return f'made with another {" and ".join(changed)}' if changed else None


def _is_whole(directory):
    """Whether every file of an entry is there with the bytes it was stored with, and no other."""
    try:
        files = read_json(directory / ENTRY)['files']
        there = {str(p.relative_to(directory)) for p in directory.rglob('*') if p.is_file()} - {ENTRY}
        return (
            bool(files)
            and there == set(files)
            and all(sha256(directory / name) == digest for name, digest in files.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _compile_in(directory, cell, inputs):
    import mindspore as ms

    ms.set_context(enable_compile_cache=True, compile_cache_path=str(directory))
    try:
        cell.compile(*inputs)
    finally:
        ms.set_context(enable_compile_cache=False)


def _add(digest, value):
    """Feed a constant to the digest. Parameters count by name, shape and type: their values are read when the graph
    runs."""
    import mindspore as ms
    import numpy as np

    if isinstance(value, ms.Parameter):
        digest.update(f'parameter {value.name} {value.shape} {value.dtype} {value.requires_grad}'.encode())
    elif isinstance(value, (ms.Tensor, np.ndarray)):
        array = (
            value
            if isinstance(value, np.ndarray)
            else value.astype(ms.float32).asnumpy()
            if value.dtype == ms.bfloat16
            else value.asnumpy()
        )
        digest.update(f'tensor {value.shape} {value.dtype}'.encode() + array.tobytes())
    elif isinstance(value, (list, tuple)):
        digest.update(f'{len(value)} items'.encode())
        for item in value:
            _add(digest, item)
    elif isinstance(value, dict):
        digest.update(f'{len(value)} entries'.encode())
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _add(digest, value[key])
    elif isinstance(value, ms.ops.Primitive):
        digest.update(f'operator {value.name}'.encode())
        _add(digest, dict(value.attrs))
    elif value is None or isinstance(value, (bool, int, float, str)):
        digest.update(f'{type(value).__name__} {value!r}'.encode())
    else:  # functions, sub-cells (visited on their own), MindSpore's types
        digest.update(
            f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", type(value).__qualname__)}'.encode()
        )


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return 'none'

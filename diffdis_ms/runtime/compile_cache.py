"""A process's main graph kept on the disk, so that a training step that was compiled before starts in seconds.

MindSpore's own cache (2.7.2) knows a graph by the order in which the process compiles it, and by nothing else: another
cell, another constant or another input shape at the same place of the order is answered with the old graph, without a
word. The first directory that a process uses stays its directory. So the cache is never left on. It is on while one
graph a process is compiled, in a directory of its own whose name says what the graph is made of (`graph_key`). What is
in the directory is checked against its sha256 before it is believed.
"""

import contextlib
import ctypes
import json
import os
import shutil
import time
import warnings
from pathlib import Path

from diffdis_ms.runtime.graph_key import Unknown, build_id, graph_key
from diffdis_ms.storage.files import sha256, whole_directory, write_flushed
from diffdis_ms.text_files import read_json
from diffdis_ms.world import World

ENTRY = 'entry.json'
_state = {'used': False}


def default_directory():
    """~/.cache/diffdis_ms/graphs, or below XDG_CACHE_HOME."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'diffdis_ms' / 'graphs'


def compile_cached(cell, inputs, config, world=World()):
    """Compile `cell` for `inputs`, from the cache where it has this graph; without `config.runtime.compile_cache`
    nothing happens.

    Call it right before the first call of the cell that takes longest to compile: a process has one graph in the cache.
    A second call does nothing; other graphs, and other shapes of this one, compile as usual.

    Args:
        cell: the outermost cell, complete: parameters, optimizer, `set_train`, `recompute`.
        inputs: what it will be called with (Tensors, None, numbers).
        config: Config; only `runtime.compile_cache` and `runtime.compile_cache_dir` matter, and the objective is noted.
        world: World; each rank has graphs of its own.

    Returns:
        None (cache off, used before, or a graph that `graph_key` cannot name), 'cold' (compiled and stored) or 'warm'
        (read).

    Raises:
        OSError: the directory cannot be written.
    """
    if not config.runtime.compile_cache or _state['used']:
        return None
    try:
        name = graph_key(cell, inputs, world)
    except Unknown as e:
        warnings.warn(f'runtime.compile_cache: this graph is not kept, because it holds {e}', stacklevel=2)
        return None
    _state['used'] = True
    directory = Path(config.runtime.compile_cache_dir or default_directory()) / name
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

"""Store a process' main graph on disk, so that a training step that was compiled before starts in seconds.

MindSpore's own cache (2.7.2) identifies a graph only by its position in the order of compilation. For another cell,
constant or input shape at the same position, it silently returns the old graph. A process also keeps the first cache
directory that it uses. So the cache is only switched on while one graph per process is compiled, in a separate
directory whose name depends on everything that determines the graph (`graph_key`). Files in it are used only if their
sha256 is right.

MindSpore also compiles again, and replaces the files, if the script that was started is another one than before, or has
changed. The name of the directory already covers all code that a graph is made of, so MindSpore is always given this
file as the script.
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
    """Compile `cell` for `inputs`, or load it from the cache. Does nothing without `config.runtime.compile_cache`.

    Call it right before the first call of the cell that takes longest to compile, because a process can cache only one
    graph. A second call does nothing. Other graphs, and other shapes of this one, compile as usual.

    Args:
        cell: the outermost cell, complete: parameters, optimizer, `set_train`, `recompute`.
        inputs: inputs of its calls (Tensors, None, numbers).
        config: Config; only `runtime.compile_cache` and `runtime.compile_cache_dir` are used, and the objective is
            recorded.
        world: World; each rank has separate graphs.

    Returns:
        None (cache off, already used, or no `graph_key` for this graph), 'cold' (compiled and stored) or 'warm' (read).

    Raises:
        OSError: the directory is not writable.
    """
    if not config.runtime.compile_cache or _state['used']:
        return None
    try:
        name = graph_key(cell, inputs, world)
    except Unknown as e:
        warnings.warn(f'runtime.compile_cache: this graph is not stored, because it contains {e}', stacklevel=2)
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
    """Return freed memory to the system. After compiling, glibc keeps more than a GiB; other C libraries do not."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL('libc.so.6').malloc_trim(0)


def entries(directory):
    """List the entries of a cache directory as {'path', 'bytes', 'stale': reason or None}, newest first."""
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
    """Whether an entry has exactly the files that were stored, with unchanged contents."""
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
    from mindspore.common import api

    script = api.entry_script_path
    api.entry_script_path = __file__
    ms.set_context(enable_compile_cache=True, compile_cache_path=str(directory))
    try:
        cell.compile(*inputs)
    finally:
        ms.set_context(enable_compile_cache=False)
        api.entry_script_path = script

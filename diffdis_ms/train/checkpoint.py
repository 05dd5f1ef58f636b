"""Training checkpoints: checkpoints/step_N/{state.safetensors, state.json, manifest.json}.

They are written completely or not at all.
"""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mindspore import Tensor

from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.files import sha256, whole_directory, write_flushed, write_weights
from diffdis_ms.storage.model_dir import MANIFEST, read_weights
from diffdis_ms.text_files import read_json
from diffdis_ms.train.sharding import SHARD


def state_arrays(step):
    """{name: array} of a step's whole state: parameters, moments, averages, counters.

    Sharded state is gathered, which is a collective.
    """
    arrays = {}
    for p, name, shape in _parameters(step):
        arrays[name] = np.atleast_1d(p.asnumpy()) if shape is None else step.update.shards.whole(p, shape)
    return arrays


def _parameters(step):
    """Yield (parameter, name in a checkpoint, shape of the whole if it is a shard, else None), each name once."""
    shards = step.update.shards
    shapes = {} if shards is None else {SHARD + unit.name: unit.shape for unit in shards.units}
    for p in step.get_parameters():
        prefix, found, name = p.name.partition(SHARD)
        if not found:
            yield p, p.name, None
        elif prefix:  # shards of the weights are not saved, because the weights are
            yield p, prefix + name, shapes[SHARD + name]


def save_checkpoint(directory, arrays, state, keep):
    """Write step_N for state['step'], then delete all but the newest `keep` checkpoints.

    Args:
        directory: the run's `checkpoints`. arrays: `state_arrays`. state: JSON-able: step, loader position, seconds.
    """
    with whole_directory(Path(directory) / f'step_{state["step"]}') as temporary:
        digest = write_weights(temporary / 'state.safetensors', arrays)
        write_flushed(temporary / 'state.json', json.dumps(state).encode())
        files = {'state.safetensors': digest, 'state.json': sha256(temporary / 'state.json')}
        manifest = {
            'step': state['step'],
            'files': {
                name: {'bytes': (temporary / name).stat().st_size, 'sha256': digest} for name, digest in files.items()
            },
            'versions': {name: version(name) for name in ('mindspore', 'mindformers', 'numpy')},
        }
        write_flushed(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
    for old in checkpoints(directory)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(path, step):
    """Restore a checkpoint of `save_checkpoint`, with any number of processes and with or without shards.

    Returns:
        The saved `state`.

    Raises:
        ConfigError: the checkpoint is damaged, or belongs to a run with other parameters.
    """
    path = Path(path)
    arrays = read_weights(path / 'state.safetensors')
    params = {name: (p, shape) for p, name, shape in _parameters(step)}
    sizes = {name: p.size if shape is None else int(np.prod(shape)) for name, (p, shape) in params.items()}
    odd = sorted(set(arrays) ^ set(params)) or [name for name in params if arrays[name].size != sizes[name]]
    if odd:
        raise ConfigError(
            f'checkpoint {path} belongs to another config: {odd[0]} differs (resume=none starts from scratch)'
        )
    shards = step.update.shards
    for name, (p, shape) in params.items():
        array = arrays[name].reshape(p.shape) if shape is None else shards.shard_of(arrays[name])
        p.set_data(Tensor(array, p.dtype))
    if shards is not None:
        for shard, unit in zip(shards.own, shards.units, strict=True):
            shard.set_data(Tensor(shards.shard_of(arrays[unit.name])))
    state = read_json(path / 'state.json')
    missing = {'step', 'seconds', 'loader'} - state.keys()
    if missing:
        raise ConfigError(
            f'checkpoint {path} is damaged: state.json lacks {sorted(missing)[0]} (resume=none starts from scratch)'
        )
    return state


def checkpoints(directory):
    """List the checkpoints, oldest first. Unfinished ones have a temporary name and are not listed."""
    found = [p for p in Path(directory).glob('step_*') if re.fullmatch(r'step_\d+', p.name) and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name[5:]))


def damage(path):
    """Describe what is wrong with a checkpoint; None if all files of its manifest have the right size and sha256."""
    try:
        files = read_json(Path(path) / MANIFEST)['files']
        for name in ('state.safetensors', 'state.json'):
            file = Path(path) / name
            if file.stat().st_size != files[name]['bytes'] or sha256(file) != files[name]['sha256']:
                return f'{name} does not match {MANIFEST}'
    except (OSError, ValueError, KeyError, TypeError):
        return f'{MANIFEST}, or a file it names, is missing or cannot be read'
    return None


def find_checkpoint(resume, directory, report=print):
    """Find the checkpoint for `resume` (auto, none or a path); None if there is none.

    `auto` skips damaged checkpoints with a warning.

    Raises:
        ConfigError: the path is not a checkpoint, or a damaged one.
    """
    if resume == 'none':
        return None
    if resume != 'auto':
        if not (Path(resume) / 'state.json').is_file():
            raise ConfigError(f'resume: {resume} is not a checkpoint directory (step_N with state.json in it)')
        wrong = damage(resume)
        if wrong:
            raise ConfigError(f'resume: checkpoint {resume} is damaged: {wrong}')
        return Path(resume)
    for left in sorted(Path(directory).glob('.step_*')):
        report(f'warning: {left} is ignored: it was not finished')
    for path in reversed(checkpoints(directory)):
        wrong = damage(path)
        if not wrong:
            return path
        report(f'warning: checkpoint {path} is ignored: {wrong}')
    return None

"""Training checkpoints: checkpoints/step_N/{state.safetensors, state.json}, whole or not there at all."""
import json
import re
import shutil
from pathlib import Path

import numpy as np
from mindspore import Tensor

from diffdis_ms.config import ConfigError
from diffdis_ms.files import write_directory, write_flushed, write_weights
from diffdis_ms.model_dir import read_weights


def save_checkpoint(directory, step_cell, state, keep):
    """Write step_N for state['step'], then drop all but the newest `keep`.

    Args:
        directory: the run's `checkpoints`. step_cell: TrainStep; parameters, moments, averages and counters are kept.
        state: JSON-able: step, loader position, seconds.
    """
    arrays = {p.name: np.atleast_1d(p.asnumpy()) for p in step_cell.get_parameters()}

    def fill(temporary):
        write_weights(temporary / 'state.safetensors', arrays)
        write_flushed(temporary / 'state.json', json.dumps(state).encode())

    write_directory(Path(directory) / f'step_{state["step"]}', fill)
    for old in checkpoints(directory)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(path, step_cell):
    """Restore what `save_checkpoint` wrote; returns its state.

    Raises:
        ConfigError: damaged, or written by a run with other parameters.
    """
    path = Path(path)
    arrays = read_weights(path / 'state.safetensors')
    params = {p.name: p for p in step_cell.get_parameters()}
    odd = sorted(set(arrays) ^ set(params)) or [n for n in params if arrays[n].size != params[n].size]
    if odd:
        raise ConfigError(f'checkpoint {path} belongs to another config: {odd[0]} differs (resume=none starts anew)')
    for name, p in params.items():
        p.set_data(Tensor(arrays[name].reshape(p.shape), p.dtype))
    try:
        return json.loads((path / 'state.json').read_text())
    except (OSError, ValueError) as e:
        raise ConfigError(f'checkpoint {path}: state.json cannot be read ({e})') from None


def checkpoints(directory):
    """Complete checkpoints, oldest first (an unfinished one has a temporary name)."""
    found = [p for p in Path(directory).glob('step_*') if re.fullmatch(r'step_\d+', p.name) and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name[5:]))


def find_checkpoint(resume, directory):
    """The checkpoint that `resume` (auto, none or a path) means, or None.

    Raises:
        ConfigError: a path that holds none.
    """
    if resume == 'none':
        return None
    if resume == 'auto':
        found = checkpoints(directory)
        return found[-1] if found else None
    if not (Path(resume) / 'state.json').is_file():
        raise ConfigError(f'resume: {resume} is not a checkpoint directory (step_N with state.json in it)')
    return Path(resume)

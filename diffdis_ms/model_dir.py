"""Model directories: config.yaml, one safetensors file a network, tokenizer/, manifest.json (see the README).

A directory is written under a temporary name, flushed and renamed: a reader meets a whole model or none.
"""
import hashlib
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mindspore import Tensor
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diffdis_ms.config import ConfigError, ModelConfig, load, to_yaml

MANIFEST = 'manifest.json'


def parameters_to_numpy(cell, prefix=''):
    """{name: array} of a network; `prefix` picks parameters by it and is cut off."""
    return {p.name[len(prefix):]: p.asnumpy() for p in cell.get_parameters() if p.name.startswith(prefix)}


def save_model(directory, config, networks, tokenizer=None, extra=None):
    """Write a model directory, replacing an earlier one whole.

    Args:
        directory: where to.
        config: ModelConfig.
        networks: {'unet': {name: array}, ...}: file stem -> parameters.
        tokenizer: diffdis_ms.data.tokenizer.Tokenizer or None.
        extra: entries for manifest.json (training step, source files).
    """
    def fill(temporary):
        (temporary / 'config.yaml').write_text(to_yaml(config), encoding='utf-8')
        for stem, arrays in networks.items():
            write_flushed(temporary / f'{stem}.safetensors', save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
        if tokenizer is not None:
            tokenizer.save(temporary / 'tokenizer')
        files = sorted(p for p in temporary.rglob('*') if p.is_file())
        manifest = {'files': {str(p.relative_to(temporary)): sha256(p) for p in files},
                    'versions': {name: version(name) for name in ('mindspore', 'mindformers', 'numpy')}, **(extra or {})}
        write_flushed(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())

    write_directory(directory, fill)


def write_directory(directory, fill):
    """Call `fill(temporary)` on a fresh directory beside `directory`, flush it, and rename it into place."""
    directory = Path(directory)
    temporary = directory.with_name(f'.{directory.name}.{os.getpid()}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        _sync(temporary)
        if directory.exists():
            old = directory.with_name(f'.{directory.name}.{os.getpid()}.old')
            os.rename(directory, old)
            os.rename(temporary, directory)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_flushed(path, data):
    """Write bytes and wait until they are on the disk."""
    with open(path, 'wb') as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def read_config(directory):
    """The ModelConfig of a model directory; ConfigError where it is none."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ConfigError(f'model directory {directory} does not exist')
    if not (directory / 'config.yaml').is_file() or not (directory / MANIFEST).is_file():
        raise ConfigError(f'{directory} is not a model directory: config.yaml and {MANIFEST} are expected in it')
    return load(directory / 'config.yaml', schema=ModelConfig)


def read_weights(path):
    """{name: array} of a safetensors file; ConfigError where it is missing, cut or not one."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f'{path} does not exist: is this a complete model directory?')
    try:
        with safe_open(path, framework='numpy') as f:
            return {name: f.get_tensor(name) for name in f.keys()}
    except (SafetensorError, OSError, ValueError) as e:
        raise ConfigError(f'{path} is damaged or not a safetensors file ({str(e).strip().splitlines()[0]}); copy it again') from None


def load_weights(cell, path, may_be_missing=None):
    """Load a safetensors file into a network.

    Args:
        cell: the network.
        path: the file.
        may_be_missing: predicate on names of parameters that may be absent from the file (None: none may).

    Raises:
        ConfigError: file missing or damaged, or names or shapes that do not fit; up to three are named.
    """
    arrays = read_weights(path)
    params = {p.name: p for p in cell.get_parameters()}
    wrong = [f'{n} is not in the network' for n in arrays if n not in params]
    wrong += [f'{n} is missing' for n in params if n not in arrays and not (may_be_missing and may_be_missing(n))]
    wrong += [f'{n} has shape {arrays[n].shape}, expected {tuple(p.shape)}' for n, p in params.items()
              if n in arrays and arrays[n].shape != tuple(p.shape)]
    if wrong:
        more = f' (and {len(wrong) - 3} more)' if len(wrong) > 3 else ''
        raise ConfigError(f'{path} does not fit the config: {"; ".join(wrong[:3])}{more}')
    for name, array in arrays.items():
        params[name].set_data(Tensor(array, params[name].dtype))


def sha256(path):
    """Hex digest of a file."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def _sync(directory):
    """Flush the entries of a directory tree (files written by others included)."""
    for path in [*Path(directory).glob('*'), Path(directory)] if Path(directory).is_dir() else []:
        if path.is_symlink():
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

"""Model directories: config.yaml, one safetensors file per network, tokenizer/, manifest.json (see the README).

A directory is written under a temporary name, flushed and renamed, so that a reader finds a complete model or none.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from diffdis_ms.config import ModelConfig, load, to_yaml
from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.files import flush, sha256, whole_directory, write_flushed, write_weights
from diffdis_ms.text_files import read_json

MANIFEST = 'manifest.json'


def parameters_to_numpy(cell, prefix=''):
    """{name: array} of a network's parameters that start with `prefix`, which is removed from the names."""
    return {p.name[len(prefix) :]: p.asnumpy() for p in cell.get_parameters() if p.name.startswith(prefix)}


def save_model(directory, config, networks, tokenizer=None, extra: Any = None):
    """Write a model directory; an earlier one is replaced completely.

    Args:
        directory: output directory.
        config: ModelConfig.
        networks: {'unet': {name: array}, ...}: file stem -> parameters; arrays as for `write_weights`.
        tokenizer: diffdis_ms.data.tokenizer.Tokenizer, or an object with the same `save`, or None.
        extra: entries for manifest.json (training step, source files), or a function that returns them and is called
            last.
    """
    with whole_directory(directory) as temporary:
        if config is not None:
            (temporary / 'config.yaml').write_text(to_yaml(config), encoding='utf-8')
        hashes, flushes = {}, []
        with ThreadPoolExecutor(1) as flushing:  # flush one file while the next is written
            for stem, arrays in networks.items():
                path = temporary / f'{stem}.safetensors'
                hashes[path.name] = write_weights(path, arrays)
                flushes.append(flushing.submit(flush, path))
            for flushed in flushes:
                flushed.result()  # a full disk may only be reported here
        if tokenizer is not None:
            tokenizer.save(temporary / 'tokenizer')
        files = sorted(str(p.relative_to(temporary)) for p in temporary.rglob('*') if p.is_file())
        manifest: dict[str, Any] = {
            'files': {name: hashes.get(name) or sha256(temporary / name) for name in files},
            'versions': {name: version(name) for name in ('mindspore', 'mindformers', 'numpy')},
        }
        more: Any = extra() if callable(extra) else extra
        manifest.update(more or {})
        write_flushed(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())


def read_config(directory):
    """Read the ModelConfig of a model directory; ConfigError if it is not one."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ConfigError(f'model directory {directory} does not exist')
    if not (directory / 'config.yaml').is_file() or not (directory / MANIFEST).is_file():
        raise ConfigError(f'{directory} is not a model directory: config.yaml and {MANIFEST} are expected in it')
    read_manifest(directory)
    held = [stem for stem in ('unet', 'vae') if (directory / f'{stem}.safetensors').is_file()]
    objective = 'diffdis' if 'unet' in held else 'autoencoder' if held else 'clip'
    return load(directory / 'config.yaml', schema=ModelConfig, objective=objective)


def read_manifest(directory):
    """Read manifest.json; ConfigError if it is missing, damaged or lists no files."""
    path = Path(directory) / MANIFEST
    manifest = read_json(path)
    files = manifest.get('files')
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ConfigError(
            f'{path} does not say which files the model has ("files": {{name: sha256}}); copy the model directory again'
        )
    return manifest


def file_hashes(directory):
    """{file: sha256} of the files that determine a model: config.yaml, weights, tokenizer/.

    The hashes are computed from the files, not taken from the manifest.
    """
    directory = Path(directory)
    files = [directory / 'config.yaml', *directory.glob('*.safetensors'), *directory.glob('tokenizer/**/*')]
    return {str(path.relative_to(directory)): sha256(path) for path in sorted(files) if path.is_file()}


def read_weights(path):
    """Read {name: array} from a safetensors file; ConfigError if it is missing, truncated or not one."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f'{path} does not exist: is this a complete model directory?')
    try:
        with safe_open(path, framework='numpy') as f:
            return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError) as e:
        raise ConfigError(
            f'{path} is damaged or not a safetensors file ({str(e).strip().splitlines()[0]}); copy it again'
        ) from None


def load_weights(cell, path, may_be_missing=None):
    """Load a safetensors file into a network.

    Args:
        cell: the network.
        path: the file.
        may_be_missing: predicate on names of parameters that may be absent from the file (None: none may).

    Returns:
        set of str: names of the parameters in the file.

    Raises:
        ConfigError: the file is missing or damaged, or names or shapes do not fit (the message gives up to three).
    """
    from mindspore import Tensor  # imported here, because writing a model directory does not need it

    arrays = read_weights(path)
    params = {p.name: p for p in cell.get_parameters()}
    wrong = [f'{n} is not in the network' for n in arrays if n not in params]
    wrong += [f'{n} is missing' for n in params if n not in arrays and not (may_be_missing and may_be_missing(n))]
    wrong += [
        f'{n} has shape {arrays[n].shape}, expected {tuple(p.shape)}'
        for n, p in params.items()
        if n in arrays and arrays[n].shape != tuple(p.shape)
    ]
    if wrong:
        more = f' (and {len(wrong) - 3} more)' if len(wrong) > 3 else ''
        raise ConfigError(f'{path} does not fit the config: {"; ".join(wrong[:3])}{more}')
    names = set(arrays)
    for name in names:  # each array is freed as soon as the network has it
        params[name].set_data(Tensor(arrays.pop(name), params[name].dtype))
    return names

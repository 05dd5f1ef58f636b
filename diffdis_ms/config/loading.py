"""Read a config from YAML files, where later ones override earlier ones, and `key=value`. Errors name file and key."""

import copy
import difflib
import functools
from dataclasses import fields, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffdis_ms.config.fields import Config
from diffdis_ms.config.validation import validate, validate_run
from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import read_text


def load(
    path: str | PathLike | list | tuple | None = None, overrides=(), schema: type = Config, objective='diffdis'
) -> Any:
    """Read a config.

    Later values override earlier ones. The order is: defaults of the dataclasses, then the files (each after the files
    in its `base:`), then the overrides. A list replaces an earlier list as a whole. Networks whose weights come from a
    model directory (`init.*`) are described by that directory's config; a file or an override with another value is an
    error (`train.build.resolve_model`).

    Args:
        path: YAML file or a list of them, or None for the defaults. A top-level `base: other.yaml` (relative to the
            file), or a list of files, is read before the file.
        overrides: strings `key.sub=value`. Keys below `train` need no prefix (`max_steps=10`).
        schema: the dataclass to fill (`Config`, or `ModelConfig` for the config.yaml of a model directory).
        objective: for a ModelConfig, what its networks are used for (see `validate`).

    Returns:
        An instance of `schema`. Its attribute `stated` is the set of dotted keys that have a value in the files or
        overrides.

    Raises:
        ConfigError: a file is missing or not YAML; a key is unknown (the message suggests the nearest one); a value has
            the wrong type or is not allowed. The message names the file.
    """
    tree, stated = copy.deepcopy(_defaults(schema)), set()
    for top in [] if path is None else path if isinstance(path, (list, tuple)) else [path]:
        for file, content in _layers(Path(top)):
            stated |= _leaves(content)
            _merge(tree, content, schema, str(file))
    for item in overrides:
        key, eq, _ = item.partition('=')
        if not eq:
            raise ConfigError(f'override {item!r} is not of the form key=value')
        if schema is Config and key not in _keys(schema) and f'train.{key}' in _keys(schema):
            item = f'train.{item}'
        try:
            content = OmegaConf.to_container(OmegaConf.from_dotlist([item]))
        except (OmegaConfBaseException, yaml.YAMLError) as e:
            raise ConfigError(f'override {item!r} cannot be read: {_first_line(e)}') from None
        stated |= _leaves(content)
        _merge(tree, content, schema, 'command line')
    try:
        config: Any = OmegaConf.to_object(tree)
    except OmegaConfBaseException as e:  # an interpolation of a key that does not exist
        raise ConfigError(_first_line(e)) from None
    config.stated = stated
    if schema is Config:
        if not (config.init.unet or config.init.vae or config.init.text_encoder):  # otherwise `resolve_model` checks it
            validate(config.model, config.objective)
        validate_run(config)
    else:
        validate(config, objective)
    return config


def to_yaml(config):
    """The resolved config as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


@functools.cache
def _defaults(schema):
    return OmegaConf.structured(schema)  # some 40 ms for a Config


def _layers(path, above=()):
    """List of (file, content): first the files in `base:`, in order, then the file itself.

    `above` are the files whose `base:` led to this one.
    """
    if path.resolve() in above:
        raise ConfigError(f'config file {path} is its own base')
    try:
        content = yaml.safe_load(read_text(path))
    except ConfigError as e:
        raise ConfigError(f'config file {e}') from None
    except (yaml.YAMLError, RecursionError) as e:
        raise ConfigError(f'config file {path} cannot be read: {_first_line(e)}') from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f'config file {path} is not a mapping of keys to values')
    bases = content.pop('base', None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f'config file {path}: base: {bases!r} is not a file name or a list of them')
    below = [layer for base in bases for layer in _layers(path.parent / base, (*above, path.resolve()))]
    return [*below, (path, content)]


def _leaves(layer, prefix=''):
    """Yield the dotted keys of all values in a nested mapping."""
    found = set()
    for key, value in layer.items():
        found |= _leaves(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}'}
    return found


def _merge(tree, content, schema, source):
    try:
        tree.merge_with(content)
    except OmegaConfBaseException as e:
        key = getattr(e, 'full_key', None) or next(_mappings_for_lists(content, tree), '')
        key = key.partition('[')[0]  # of a list, not of its element
        if key and key not in _keys(schema):
            raise ConfigError(f'{source}: unknown key {key!r}{_nearest(key, _keys(schema))}') from None
        raise ConfigError(f'{source}: {key + ": " if key else ""}{_first_line(e)}') from None


def _mappings_for_lists(content, tree, prefix=''):
    """Yield keys of lists that are given a mapping; OmegaConf's error does not name them."""
    for key, value in content.items():
        if isinstance(value, dict) and key in tree:
            if OmegaConf.is_list(tree[key]):
                yield prefix + key
            elif OmegaConf.is_dict(tree[key]):
                yield from _mappings_for_lists(value, tree[key], f'{prefix}{key}.')


def _keys(schema, prefix=''):
    """All dotted keys of a dataclass, inner nodes included."""
    found = []
    for f in fields(schema):
        found.append(prefix + f.name)
        if is_dataclass(f.type):
            found += _keys(f.type, prefix + f.name + '.')
    return found


def _nearest(key, keys):
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not close:  # the right name under a wrong parent
        last = {k.rsplit('.', 1)[-1]: k for k in keys}
        close = [last[m] for m in difflib.get_close_matches(key.rsplit('.', 1)[-1], last, n=1, cutoff=0.6)]
    return f'; did you mean {close[0]!r}?' if close else ''


def _first_line(error):
    return str(error).strip().split('\n')[0]

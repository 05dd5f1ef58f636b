"""Verify a model directory against its source. Every tensor and every config is read again on both sides."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ckpt_convert.model_config import flat
from ckpt_convert.plan import make_plan
from ckpt_convert.report import complaints
from ckpt_convert.source import open_source
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.files import sha256
from diffdis_ms.storage.model_dir import MANIFEST, read_config
from diffdis_ms.storage.reader import open_checkpoint
from diffdis_ms.text_files import read_json


def verify(src, dst, text_encoder=None):
    """Compare a model directory with the checkpoint it was converted from.

    Args:
        src: the checkpoint. dst: the model directory. text_encoder: the CLIP with the text projection (None: the path
            in the manifest).

    Returns:
        dict of counts: tensors compared, tensors not converted, tensors initialised, files whose sha256 was checked.

    Raises:
        CheckpointError: there is a difference. The message names the first one.
    """
    dst = Path(dst)
    manifest = _manifest(dst)
    made, initialized = manifest['converted_from'], manifest['initialized']
    for name, digest in manifest['files'].items():
        if not (dst / name).is_file() or sha256(dst / name) != digest:
            raise CheckpointError(f'{dst / name} is not the file that was written (its sha256 differs from {MANIFEST})')
    source, text_source = open_source(src, ema=made['ema']), _text_source(made, text_encoder)
    for path in source.paths + (text_source.paths if text_source else []):
        if sha256(path) not in [s['sha256'] for s in made['sources']]:
            raise CheckpointError(f'{path} is not the file that {dst} was converted from (sha256 differs)')
    plan = make_plan(source, text_source, made.get('overrides') or (), None, initialized['seed'])
    if plan.config is not None:
        _compare_configs(dst, plan.config, source, 'overrides' in made)
    plan.unmapped = [name for name in plan.unmapped if name not in manifest['unused']]
    if complaints(plan):
        raise CheckpointError(f'{source.path} does not fit: {complaints(plan)}')
    compared = set()
    for stem, network in plan.networks.items():
        written = open_checkpoint(dst / f'{stem}.safetensors').tensors
        odd = sorted(set(written) ^ set(network))
        if odd:
            raise CheckpointError(f'{dst}: {stem} {"lacks" if odd[0] in network else "has an extra"} {odd[0]}')
        for name, converted in tqdm(network.items(), desc=f'comparing {stem}', disable=None, leave=False):
            converted.dtype = written[name].dtype
            if not np.array_equal(np.asarray(converted), written[name].numpy(), equal_nan=True):
                raise CheckpointError(f'{dst}: {stem}: {name} differs from {converted.label or "its initialisation"}')
            compared.add(converted.label)
    return {
        'tensors': len(compared - {''}),
        'unused': len(manifest['unused']),
        'initialized': len(plan.initialized),
        'files': len(manifest['files']),
    }


def _manifest(dst):
    unknown = CheckpointError(
        f'{dst} was not written by `ckpt_convert import`: no {MANIFEST} that says what it was converted from'
    )
    if not (dst / MANIFEST).is_file():
        raise unknown
    manifest = read_json(dst / MANIFEST, error=CheckpointError)
    try:
        made, unused = manifest['converted_from'], manifest['unused']
        sound = (
            isinstance(manifest['files'], dict)
            and isinstance(unused, (dict, list))
            and isinstance(made['ema'], bool)
            and isinstance(manifest['initialized']['seed'], int)
            and all(isinstance(s['sha256'], str) for s in made['sources'])
            and isinstance(made.get('text_encoder'), (str, type(None)))
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise unknown
    return manifest


def _text_source(made, text_encoder):
    remembered = made.get('text_encoder')
    if text_encoder is None and remembered and Path(remembered).exists():
        text_encoder = remembered
    return open_source(text_encoder, 'clip') if text_encoder else None


def _compare_configs(dst, expected, source, remembers):
    """Compare the configs of both sides, key by key. They have the settings that shapes do not tell."""
    for ours, theirs in zip(flat(read_config(dst)), flat(expected), strict=True):
        if ours != theirs:
            key, _, value = theirs.partition('=')
            hint = '' if remembers else ' (it does not record the --set of its import: import it again)'
            raise CheckpointError(
                f'{dst}: {ours.replace("=", " = ", 1)}, but {source.path} says {value} for {key}{hint}'
            )

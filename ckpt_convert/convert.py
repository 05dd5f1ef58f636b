"""Import: convert a checkpoint to a model directory, completely or not at all."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ckpt_convert.plan import make_plan
from ckpt_convert.report import assumptions, complaints
from ckpt_convert.source import open_source
from ckpt_convert.vocabulary import find_tokenizer
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.files import sha256
from diffdis_ms.storage.model_dir import save_model


class Watched:
    """A parameter that advances the progress bar when it is written."""

    def __init__(self, converted, bar):
        self.converted, self.bar, self.shape, self.dtype = converted, bar, converted.shape, converted.dtype

    def pieces(self, buffers):
        for piece in self.converted.pieces(buffers):
            self.bar.update(piece.nbytes)
            yield piece


def convert(
    src,
    dst,
    *,
    kind='auto',
    text_encoder=None,
    vocab=None,
    dtype=None,
    ema=False,
    seed=0,
    overrides=(),
    allow_unmapped=False,
    overwrite=False,
):
    """Convert a checkpoint to a model directory.

    Args:
        src: file or directory; see `open_source`. dst: model directory to write.
        kind, ema: see `open_source`. text_encoder: a CLIP checkpoint with the text projection. vocab: tokenizer, if the
            checkpoint has none.
        dtype, overrides, seed: see `make_plan`. allow_unmapped: leave out tensors that the model has no place for,
            instead of refusing them.
        overwrite: replace an existing model directory.

    Returns:
        dict: tensors, parameters, bytes, seconds, initialized, unused; assumed: list of settings that were assumed.

    Raises:
        CheckpointError: the checkpoint cannot be converted. Nothing is written.
    """
    start, dst = time.time(), Path(dst)
    check_destination(dst, overwrite)
    source = open_source(src, kind, ema)
    text_source = open_source(text_encoder, 'clip') if text_encoder else None
    paths = source.paths + (text_source.paths if text_source else [])
    with ThreadPoolExecutor(1) as hashing:
        hashes = hashing.map(sha256, paths)  # in parallel with the conversion
        try:
            plan, tokenizer = _prepare(source, text_source, vocab, dtype, seed, overrides, allow_unmapped)
            rows = [c for network in plan.networks.values() for c in network.values()]

            def manifest():
                return {
                    'converted_from': {
                        'layout': source.layout,
                        'format': source.format,
                        'ema': ema,
                        'text_encoder': os.path.abspath(text_encoder) if text_encoder else None,
                        'overrides': list(overrides),
                        'sources': [
                            {'path': os.path.abspath(p), 'sha256': h} for p, h in zip(paths, hashes, strict=True)
                        ],
                    },
                    'initialized': {'seed': seed, 'parameters': plan.initialized},
                    'unused': plan.unused,
                }

            _write(dst, plan, tokenizer, rows, manifest)
        except BaseException:
            hashing.shutdown(wait=False, cancel_futures=True)
            raise
    return {
        'tensors': len({c.label for c in rows if c.tensor is not None}),
        'parameters': sum(c.nbytes // c.dtype.itemsize for c in rows),
        'bytes': sum(c.nbytes for c in rows),
        'seconds': time.time() - start,
        'initialized': plan.initialized,
        'unused': plan.unused,
        'assumed': assumptions(source, overrides),
    }


def _prepare(source, text_source, vocab, dtype, seed, overrides, allow_unmapped):
    """Make (plan, tokenizer); raises a CheckpointError that says what does not fit."""
    plan = make_plan(source, text_source, overrides, dtype, seed)
    if allow_unmapped:
        plan.unused.update(dict.fromkeys(plan.unmapped, 'has no place; left out as asked'))
        plan.unmapped.clear()
    if complaints(plan):
        raise CheckpointError(f'{source.path} does not fit: {complaints(plan)}')
    return plan, (
        find_tokenizer(vocab, (source, text_source), plan.config.text_encoder.vocab_size) if plan.config else None
    )


def _write(dst, plan, tokenizer, rows, manifest):
    with tqdm(total=sum(c.nbytes for c in rows), unit='B', unit_scale=True, desc='converting', disable=None) as bar:
        networks = {
            stem: {name: Watched(c, bar) for name, c in network.items()} for stem, network in plan.networks.items()
        }
        save_model(dst, plan.config, networks, tokenizer, manifest)


def check_destination(dst, overwrite):
    """Refuse to replace existing files unless `overwrite`; even then replace only a model directory."""
    if dst.is_file() or dst.is_symlink():
        raise CheckpointError(f'{dst} is a file or a link; --dst must be a new directory')
    if dst.is_dir() and any(dst.iterdir()):
        if not overwrite:
            raise CheckpointError(f'{dst} exists and is not empty; --overwrite replaces it')
        if (
            not (dst / 'manifest.json').is_file()
            and not (dst / 'model_index.json').is_file()
            and not (dst / 'diffdis').is_dir()
        ):
            raise CheckpointError(f'{dst} is not a model directory, so --overwrite does not replace it')

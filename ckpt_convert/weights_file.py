"""Find the weights file in a directory of diffusers, transformers or open_clip."""

import re

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import short

WEIGHTS = ('{}.safetensors', '{}.safetensors.index.json', '{}.bin', '{}.bin.index.json')
# the same weights in other precisions, best first; other variants are different weights
VARIANTS = ('fp32', 'fp16', 'bf16')
STEMS = ('diffusion_pytorch_model', 'model', 'pytorch_model', 'open_clip_model', 'open_clip_pytorch_model')


def weights_file(folder):
    """Path of the weights file, by the names that these tools use; CheckpointError if there is none."""
    for stem in STEMS:
        for pattern in WEIGHTS:
            if (folder / pattern.format(stem)).is_file():
                return folder / pattern.format(stem)
    return _variant_file(folder)


def _variant_file(folder):
    """The file of the best variant, for folders without a plain file.

    Variants are `model.fp16.safetensors`, `model.safetensors.index.fp16.json` and the like.
    """
    file_name = r'(%s)\.(?:(?P<a>[\w-]+)\.(safetensors|bin)|(safetensors|bin)\.index\.(?P<b>[\w-]+)\.json)'
    pattern = re.compile(file_name % '|'.join(STEMS))
    found = {}
    for file in sorted(folder.iterdir()):
        match = pattern.fullmatch(file.name)
        variant = match and (match['a'] or match['b'])
        if variant and not re.search(r'-\d{5}-of-\d{5}$', variant) and file.is_file():
            found.setdefault(variant, []).append(file)
    others = [variant for variant in found if variant not in VARIANTS]
    if len(found) > 1 and others:
        raise CheckpointError(
            f'{folder} holds the variants {", ".join(map(short, found))} and no plain file: they may be '
            'different weights; keep only one of them'
        )
    if not found:
        raise CheckpointError(
            f'{folder} holds no weights under a known name (such as {WEIGHTS[0].format(STEMS[0])},'
            f' {WEIGHTS[2].format(STEMS[2])})'
        )
    files = found[next((variant for variant in VARIANTS if variant in found), *others)]
    return min(
        files,
        key=lambda file: (
            '.safetensors' not in file.name,
            '.index.' in file.name,
            STEMS.index(file.name.partition('.')[0]),
        ),
    )

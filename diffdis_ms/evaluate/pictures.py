"""Folders of pictures for the generation metrics: which files count, their content's hash, their captions, and networks
run over them."""

import hashlib
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from mindspore import Tensor
from PIL import Image
from tqdm import tqdm

from diffdis_ms.data.transforms import FORMATS, IMAGE_SUFFIXES, decode_image
from diffdis_ms.errors import BadImage, ConfigError
from diffdis_ms.evaluate.shared import Share, shared_pass
from diffdis_ms.finite import check_finite
from diffdis_ms.storage.files import sha256
from diffdis_ms.text_files import read_json, read_lines

PROMPTS = 'prompts.json'
MAX_NAMED = 20  # of odd pictures, in a result file


def list_images(folder):
    """Paths of the pictures of a folder, sorted by name; folders in it are not looked into, as torch-fidelity does not.

    Where tools/sample.py's prompts.json is in the folder, they are the pictures it lists: not grid.png, not those of
    an earlier run.

    Raises:
        ConfigError: no such folder, no picture in it, or a listed one is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(
            f'{folder} is not a folder of pictures' if folder.exists() else f'picture folder {folder} does not exist'
        )
    names = sorted(
        p.name
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.') and p.is_file()
    )
    if (folder / PROMPTS).is_file():
        listed = sorted(read_prompts(folder / PROMPTS))
        missing = sorted(set(listed) - set(names))
        if missing:
            raise ConfigError(
                f'{folder / PROMPTS} lists {missing[0]}, which is not a picture in {folder} ({len(missing)} such)'
            )
        left_out = len(names) - len(listed)
        if left_out:
            warnings.warn(
                f'{folder}: left out are {left_out} of the pictures: {PROMPTS} does not list them', stacklevel=2
            )
        names = listed
    if not names:
        raise ConfigError(f'{folder} holds no pictures ({", ".join(IMAGE_SUFFIXES)})')
    return [folder / name for name in names]


def read_captions(file, paths):
    """The caption of each picture.

    Args:
        file: JSON with {"prompts": {file name: text}} (tools/sample.py writes it), or text, one caption a line, in the
            order of the pictures' names (see `in_order`).
        paths: of the pictures.

    Returns:
        list of strings.

    Raises:
        ConfigError: the file is missing or unreadable, or captions and pictures are not one to one.
    """
    file = Path(file)
    if file.suffix.lower() == '.json':
        prompts = read_prompts(file)
        without = [p.name for p in paths if p.name not in prompts]
        if without:
            raise ConfigError(f'{file} has no caption for {without[0]} ({len(without)} such)')
        if len(prompts) > len(paths):
            extra = min(set(prompts) - {p.name for p in paths})
            raise ConfigError(
                f'{file} has a caption for {extra}, which is not among the pictures ({len(prompts) - len(paths)} such)'
            )
        return [prompts[p.name] for p in paths]
    lines = read_lines(file)
    if len(lines) != len(paths):
        raise ConfigError(
            f'{file} has {len(lines)} captions for {len(paths)} pictures; one a line is expected, in '
            'the order of the file names'
        )
    empty = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if empty:
        raise ConfigError(f'{file}: line {empty} is empty')
    caption_of = dict(zip(in_order(paths), lines, strict=True))
    return [caption_of[path] for path in paths]


def in_order(paths):
    """Pictures in the order in which lines of a text belong to them: by number where all names are whole numbers, else
    by name.

    Raises:
        ConfigError: two names are the same number, or names hold numbers that by value and as text are in another order
            (a_2, a_10).
    """
    paths = sorted(paths, key=lambda path: path.name)
    if all(path.stem.isascii() and path.stem.isdigit() for path in paths):
        numbers = Counter(int(path.stem) for path in paths)
        twice = next((path for path in paths if numbers[int(path.stem)] > 1), None)
        if twice is not None:
            raise ConfigError(
                f'{twice.name}: another picture of {twice.parent} has the same number, so that lines do '
                'not say which is which; give the captions as JSON: {"prompts": {file name: text}}'
            )
        return sorted(paths, key=lambda path: int(path.stem))
    before = {}  # kind of name, its numbers left out -> the one of this kind before
    for path in paths:
        kind, numbers = re.sub('[0-9]+', '#', path.stem), [int(n) for n in re.findall('[0-9]+', path.stem)]
        last, smaller = before.get(kind, ('', []))
        if smaller > numbers:
            raise ConfigError(
                f'{path.parent}: does {path.name} or {last} come first? As text it is {last}, by number '
                f'{path.name}; '
                'give the captions as JSON: {"prompts": {file name: text}}'
            )
        before[kind] = path.name, numbers
    return paths


def sizes_of(paths):
    """What the headers of pictures say of their sizes: dict sizes {'256x256': count, ...}, the ten most frequent,
    num_sizes, and not_square {count, names}. Damaged ones are left to whoever reads them."""
    sizes, odd = Counter(), []
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
        except Exception:  # whatever a decoder makes of arbitrary bytes: reading it says so
            continue
        sizes[f'{width}x{height}'] += 1
        if width != height:
            odd.append(path.name)
    return {
        'sizes': dict(sizes.most_common(10)),
        'num_sizes': len(sizes),
        'not_square': {'count': len(odd), 'names': odd[:MAX_NAMED]},
    }


def content_sha256(paths, progress=False):
    """sha256, as hex digits, over names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in tqdm(paths, desc='hashing pictures', disable=None if progress else True, leave=False):
        digest.update(f'{len(path.name)} {path.name} {sha256(path)}\n'.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def read_rgb(path):
    """PIL image, mode RGB, read as torch-fidelity and CLIP do; ConfigError that names the file where it cannot be
    decoded."""
    try:
        return decode_image(path, as_stored=True)
    except BadImage as e:
        raise ConfigError(f'{path}: {e}; mend or remove it (a metric over fewer pictures is another number)') from None


def over_images(network, read, paths, batch_size, progress='', share=Share(), name='pictures'):
    """Run a network over pictures in batches of one size; the next batch is read meanwhile.

    Args:
        network: (B, ...) Tensor -> (B, D) Tensor. read: path -> array, of one shape. progress: description of a bar, ''
            for none.
        share: Share, of the work between processes. name: of this pass among those of one Share.

    Returns:
        float32 (len(paths), D).

    Raises:
        ConfigError: what the network gives is not finite; the picture is named.
    """

    def compute(places, arrays):
        filled = arrays + arrays[-1:] * (batch_size - len(arrays))  # one graph serves every batch
        rows = network(Tensor(np.stack(filled))).asnumpy()[: len(arrays)].astype(np.float32)
        return {'rows': check_finite(rows, 'pictures', [paths[i] for i in places])}

    parts = shared_pass(len(paths), batch_size, lambda i: read(paths[i]), compute, share, name, progress)
    return np.concatenate([part['rows'] for part in parts])


def read_prompts(file):
    """{file name: caption} of a prompts.json; ConfigError where it is none."""
    return checked_prompts(read_json(file), file)


def checked_prompts(content, file):
    """The {file name: caption} in the content of a prompts.json (`file`, for messages); ConfigError where there is
    none, or not of that kind."""
    prompts = content.get('prompts')
    if not isinstance(prompts, dict) or not prompts or not all(isinstance(text, str) for text in prompts.values()):
        raise ConfigError(f'{file} is not what tools/sample.py writes: {{"prompts": {{file name: text}}}} is expected')
    for name in prompts:
        outside = not name or name[0] == '.' or {'/', '\\', '\0'} & set(name)
        if outside or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise ConfigError(
                f'{file}: {name!r} is not the name of a picture in its folder ({", ".join(IMAGE_SUFFIXES)})'
            )
        if any('\ud800' <= c <= '\udfff' for c in name + prompts[name]):  # JSON can write them
            raise ConfigError(f'{file}: the name or text of {name!r} has halves of characters')
    return prompts

"""Folders of images for the generation metrics: list, hash and read them, their captions, and run networks on them."""

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
MAX_NAMED = 20  # images that are not square, in a result file


def list_images(folder):
    """List the images of a folder, sorted by name, without subfolders (like torch-fidelity).

    If the folder has a prompts.json of tools/sample.py, only the images that it lists are taken: not grid.png, and not
    those of an earlier run.

    Raises:
        ConfigError: the folder does not exist or has no images, or a listed one is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(
            f'{folder} is not a folder of images' if folder.exists() else f'image folder {folder} does not exist'
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
                f'{folder / PROMPTS} lists {missing[0]}, which is not an image in {folder} ({len(missing)} in total)'
            )
        left_out = len(names) - len(listed)
        if left_out:
            warnings.warn(f'{folder}: leaving out {left_out} images that {PROMPTS} does not list', stacklevel=2)
        names = listed
    if not names:
        raise ConfigError(f'{folder} contains no images ({", ".join(IMAGE_SUFFIXES)})')
    return [folder / name for name in names]


def read_captions(file, paths):
    """Read the caption of each image.

    Args:
        file: JSON with {"prompts": {file name: text}} (as written by tools/sample.py), or a text file with one caption
            per line, in the order of the image names (see `in_order`).
        paths: paths of the images.

    Returns:
        list of strings.

    Raises:
        ConfigError: the file is missing or unreadable, or captions and images do not match one to one.
    """
    file = Path(file)
    if file.suffix.lower() == '.json':
        prompts = read_prompts(file)
        without = [p.name for p in paths if p.name not in prompts]
        if without:
            raise ConfigError(f'{file} has no caption for {without[0]} ({len(without)} in total)')
        if len(prompts) > len(paths):
            extra = min(set(prompts) - {p.name for p in paths})
            raise ConfigError(
                f'{file} has a caption for {extra}, which is not among the images '
                f'({len(prompts) - len(paths)} in total)'
            )
        return [prompts[p.name] for p in paths]
    lines = read_lines(file)
    if len(lines) != len(paths):
        raise ConfigError(
            f'{file} has {len(lines)} captions for {len(paths)} images; one caption per line is expected, in '
            'the order of the file names'
        )
    empty = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if empty:
        raise ConfigError(f'{file}: line {empty} is empty')
    caption_of = dict(zip(in_order(paths), lines, strict=True))
    return [caption_of[path] for path in paths]


def in_order(paths):
    """Sort images in the order of the lines of a caption file: by number if all names are whole numbers, else by name.

    Raises:
        ConfigError: two names are the same number, or names contain numbers whose order differs by value and as text
            (a_2, a_10).
    """
    paths = sorted(paths, key=lambda path: path.name)
    if all(path.stem.isascii() and path.stem.isdigit() for path in paths):
        numbers = Counter(int(path.stem) for path in paths)
        twice = next((path for path in paths if numbers[int(path.stem)] > 1), None)
        if twice is not None:
            raise ConfigError(
                f'{twice.name}: another image in {twice.parent} has the same number, so the lines cannot be '
                'matched; give the captions as JSON: {"prompts": {file name: text}}'
            )
        return sorted(paths, key=lambda path: int(path.stem))
    before = {}  # name without its numbers -> the previous name of this kind
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
    """Image sizes from the file headers.

    Returns:
        dict sizes {'256x256': count, ...} (the ten most frequent), num_sizes, and not_square {count, names}. Damaged
        files are left out; reading them raises later.
    """
    sizes, odd = Counter(), []
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
        except Exception:  # decoders raise anything on damaged files; reading the image reports it
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
    """sha256, as hex digits, over names and contents of files, in the given order."""
    digest = hashlib.sha256()
    for path in tqdm(paths, desc='hashing pictures', disable=None if progress else True, leave=False):
        digest.update(f'{len(path.name)} {path.name} {sha256(path)}\n'.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def read_rgb(path):
    """Read a PIL image in mode RGB, as torch-fidelity and CLIP do; ConfigError names a file that cannot be decoded."""
    try:
        return decode_image(path, as_stored=True)
    except BadImage as e:
        raise ConfigError(f'{path}: {e}; repair or remove it (a metric over fewer images is another number)') from None


def over_images(network, read, paths, batch_size, progress='', share=Share(), name='pictures'):
    """Run a network over images in batches of one size, and read the next batch meanwhile.

    Args:
        network: (B, ...) Tensor -> (B, D) Tensor. read: path -> array, always of the same shape. progress: description
            of the progress bar, '' for none.
        share: Share of this process in the work. name: name of this pass among those of the Share.

    Returns:
        float32 (len(paths), D).

    Raises:
        ConfigError: an output of the network is not finite; the message names the image.
    """

    def compute(places, arrays):
        filled = arrays + arrays[-1:] * (batch_size - len(arrays))  # the same shape, and graph, for every batch
        rows = network(Tensor(np.stack(filled))).asnumpy()[: len(arrays)].astype(np.float32)
        return {'rows': check_finite(rows, 'pictures', [paths[i] for i in places])}

    parts = shared_pass(len(paths), batch_size, lambda i: read(paths[i]), compute, share, name, progress)
    return np.concatenate([part['rows'] for part in parts])


def read_prompts(file):
    """Read {file name: caption} from a prompts.json; ConfigError if it is not one."""
    return checked_prompts(read_json(file), file)


def checked_prompts(content, file):
    """Check the content of a prompts.json (`file`, for messages) and return its {file name: caption}.

    Raises:
        ConfigError: the content is not of this form.
    """
    prompts = content.get('prompts')
    if not isinstance(prompts, dict) or not prompts or not all(isinstance(text, str) for text in prompts.values()):
        raise ConfigError(f'{file} is not a file of tools/sample.py: {{"prompts": {{file name: text}}}} is expected')
    for name in prompts:
        outside = not name or name[0] == '.' or {'/', '\\', '\0'} & set(name)
        if outside or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise ConfigError(
                f'{file}: {name!r} is not the name of an image in its folder ({", ".join(IMAGE_SUFFIXES)})'
            )
        if any('\ud800' <= c <= '\udfff' for c in name + prompts[name]):  # JSON can contain them
            raise ConfigError(
                f'{file}: the name or text of {name!r} has an incomplete Unicode character (a lone surrogate)'
            )
    return prompts

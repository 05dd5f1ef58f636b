"""Folders of pictures for the generation metrics: which files count, their content's hash, their captions, and networks run over them."""
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from diffdis_ms.config import ConfigError
from diffdis_ms.data.transforms import IMAGE_SUFFIXES, BadImage, decode_image
from diffdis_ms.evaluate.shared import Share, shared_pass
from diffdis_ms.files import sha256

PROMPTS = 'prompts.json'


def list_images(folder):
    """Paths of the pictures of a folder, sorted by name; folders in it are not looked into, as torch-fidelity does not.

    Where tools/sample.py's prompts.json lies in the folder, they are the pictures it lists: not grid.png, not those of an earlier run.

    Raises:
        ConfigError: no such folder, no picture in it, or a listed one is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f'{folder} is not a folder of pictures' if folder.exists() else f'picture folder {folder} does not exist')
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.') and p.is_file())
    if (folder / PROMPTS).is_file():
        listed = sorted(read_prompts(folder / PROMPTS))
        missing = sorted(set(listed) - set(names))
        if missing:
            raise ConfigError(f'{folder / PROMPTS} lists {missing[0]}, which is not a picture in {folder} ({len(missing)} such)')
        left_out = len(names) - len(listed)
        if left_out:
            warnings.warn(f'{folder}: left out are {left_out} of the pictures: {PROMPTS} does not list them', stacklevel=2)
        names = listed
    if not names:
        raise ConfigError(f'{folder} holds no pictures ({", ".join(IMAGE_SUFFIXES)})')
    return [folder / name for name in names]


def read_captions(file, paths):
    """The caption of each picture.

    Args:
        file: JSON with {"prompts": {file name: text}} (tools/sample.py writes it), or text, one caption a line, in the order of `paths`.
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
            raise ConfigError(f'{file} has a caption for {extra}, which is not among the pictures ({len(prompts) - len(paths)} such)')
        return [prompts[p.name] for p in paths]
    lines = [line.rstrip('\r') for line in _read_text(file).split('\n')]
    lines = lines[:-1] if lines[-1] == '' else lines
    if len(lines) != len(paths):
        raise ConfigError(f'{file} has {len(lines)} captions for {len(paths)} pictures; one a line is expected, in the order of the sorted file names')
    empty = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if empty:
        raise ConfigError(f'{file}: line {empty} is empty')
    return lines


def content_sha256(paths, progress=False):
    """sha256, as hex digits, over names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in tqdm(paths, desc='hashing pictures', disable=None if progress else True, leave=False):
        digest.update(f'{len(path.name)} {path.name} {sha256(path)}\n'.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def read_rgb(path):
    """PIL image, mode RGB, read as torch-fidelity and CLIP do; ConfigError that names the file where it cannot be decoded."""
    try:
        return decode_image(path, as_stored=True)
    except BadImage as e:
        raise ConfigError(f'{path}: {e}; mend or remove it (a metric over fewer pictures is another number)') from None


def over_images(network, read, paths, batch_size, progress='', share=Share(), name='pictures'):
    """Run a network over pictures in batches of one size; the next batch is read meanwhile.

    Args:
        network: (B, ...) Tensor -> (B, D) Tensor. read: path -> array, of one shape. progress: description of a bar, '' for none.
        share: Share, of the work between processes. name: of this pass among those of one Share.

    Returns:
        float32 (len(paths), D).
    """
    def compute(places, arrays):
        filled = arrays + arrays[-1:] * (batch_size - len(arrays))               # one graph serves every batch
        return {'rows': network(Tensor(np.stack(filled))).asnumpy()[:len(arrays)].astype(np.float32)}

    parts = shared_pass(len(paths), batch_size, lambda i: read(paths[i]), compute, share, name, progress)
    return np.concatenate([part['rows'] for part in parts])


def read_prompts(file):
    """{file name: caption} of a prompts.json; ConfigError where it is none."""
    try:
        prompts = json.loads(_read_text(file))['prompts']
        sound = isinstance(prompts, dict) and prompts and all(isinstance(text, str) for text in prompts.values())
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise ConfigError(f'{file} is not what tools/sample.py writes: {{"prompts": {{file name: text}}}} is expected')
    return prompts


def _read_text(file):
    try:
        return Path(file).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        raise ConfigError(f'{file} is not UTF-8 text') from None
    except OSError as e:
        raise ConfigError(f'{file} cannot be read: {e.strerror or e}') from None

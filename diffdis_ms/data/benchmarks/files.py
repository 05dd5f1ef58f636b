"""What the readers of the official data sets share: finding the folder, reading lists and .mat files, checking that all
images are there."""

import os
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from diffdis_ms.data.listing import list_images
from diffdis_ms.data.samples import Sample, read_image
from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import lines_of, read_text


class FileSet:
    """A classification set whose images are files.

    Attributes:
        class_names: list, or None where the set's files hold no names; then captions are ''.
        num_classes: int.
        split: what was chosen (split, partition, classes), for results.
        class_ids: what the set itself calls each class, where that is not its name: WordNet ids, numbers; else None.
    """

    missing: list[str]

    def __init__(self, base, rows, class_names, split, num_classes=None, class_ids=None):
        """`rows`: [(path below `base`, label)]."""
        self.base, self._rows = base, rows
        self.class_names, self.split = class_names, split
        self.num_classes, self.class_ids = num_classes or len(class_names), class_ids

    def __len__(self):
        return len(self._rows)

    def read(self, i):
        """Sample `i`; raises BadSample for an image that cannot be used."""
        key, label = self._rows[i]
        return Sample(key, read_image(self.base / key, key), self.class_names[label] if self.class_names else '', label)


def find_base(root, folders, markers):
    """The folder of a set: `root` or one of `folders` below it, whichever holds most of `markers`; where none is found,
    the official one."""
    bases = [root, *(root / folder for folder in folders)]
    found = [sum((base / marker).exists() for marker in markers) for base in bases]
    if any(found):
        return bases[found.index(max(found))]
    return root if not folders or root.name == Path(folders[0]).name else bases[1]


def first_existing(paths):
    """The first path that exists, or else the first one: `required` names it."""
    return next((path for path in paths if path.exists()), paths[0])


def required(name, path):
    """`path`, which the set `name` needs; raises ConfigError where it is not."""
    if not path.exists():
        raise ConfigError(f'{name}: expected {path}, which is not there; download and extract the data set whole')
    return path


def read_lines(name, path):
    """Lines of a list, stripped, blank ones left out; raises ConfigError: missing, empty, not text."""
    required(name, path)
    lines = [line.strip() for line in lines_of(read_text(path, lambda reason: ConfigError(f'{name}: {reason}')))]
    lines = [line for line in lines if line]
    if not lines:
        raise ConfigError(f'{name}: {path} is empty; extract the data set again')
    return lines


def read_class_lines(name, path):
    """As `read_lines`, for a list of classes: raises ConfigError also where one occurs twice."""
    lines = read_lines(name, path)
    if len(set(lines)) < len(lines):
        twice = next(line for i, line in enumerate(lines) if line in lines[:i])
        raise ConfigError(f'{name}: {path} has {twice!r} twice')
    return lines


def malformed(name, path, line, expected):
    """The error for a line of a list that is not as it should be."""
    return ConfigError(f'{name}: {path}: {line[:80]!r} is malformed; expected {expected}')


def load_mat(name, path, variable, fields=()):
    """A variable of a .mat file, squeezed, at least one-dimensional.

    Args:
        fields: those it must have, if it is a struct.

    Raises:
        ConfigError: missing, not a .mat file (of MATLAB before 7.3), or without this variable or its fields.
    """
    required(name, path)
    try:
        content = loadmat(path, squeeze_me=True, variable_names=[variable])
    except Exception as e:  # whatever scipy makes of arbitrary bytes
        reason = ' '.join(str(e).split()) or type(e).__name__
        raise ConfigError(
            f'{name}: {path} is not a .mat file that can be read ({reason[:80]}); extract it again'
        ) from None
    if variable not in content:
        raise ConfigError(f'{name}: {path} has no variable {variable!r}')
    value = np.atleast_1d(content[variable])
    lacking = [field for field in fields if field not in (value.dtype.names or ())]
    if lacking or value.ndim != 1 or not value.size:
        raise ConfigError(
            f'{name}: {path}: {variable!r} ' + (f'has no field {lacking[0]!r}' if lacking else 'is not a list')
        )
    return value


def as_integers(name, path, values, low, high):
    """list of int of what a .mat or a list holds; raises ConfigError for what is none, or not in low..high."""
    numbers = []
    for value in values:
        try:
            number = int(value)
            sound = number == value or isinstance(value, str)
        except (TypeError, ValueError, OverflowError):
            sound = False
        if not sound or not low <= number <= high:
            raise ConfigError(f'{name}: {path}: {str(value)[:40]!r} is no number in {low}..{high}')
        numbers.append(number)
    return numbers


def as_strings(name, path, values):
    """list of str, stripped, of what a .mat holds; raises ConfigError for what is no string or empty."""
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f'{name}: {path}: {str(value)[:40]!r} is no name')
    return [value.strip() for value in values]


def listed(name, base, rows, source, *args, **kwargs):
    """FileSet of `rows` [(path, label)] that the list `source` names.

    Raises:
        ConfigError: a path leaves the set, or none of the files is there. Some that are not are the set's `missing`.
    """
    for path, _ in rows:
        if not {'', '.', '..'}.isdisjoint(path.split('/')) or '\0' in path:
            raise malformed(name, source, path, 'a path inside the data set')
    present = {}  # folder -> names in it: one listing is faster than asking for each file
    for path, _ in rows:
        folder = (base / path).parent
        if folder not in present:
            present[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
    missing = [path for path, _ in rows if (base / path).name not in present[(base / path).parent]]
    images = FileSet(base, rows, *args, **kwargs)
    images.missing = missing  # `open_benchmark` refuses them unless told not to
    if len(missing) == len(rows):
        refuse_missing(name, images)
    return images


def refuse_missing(name, images):
    """ConfigError where images of a FileSet are missing: on part of a split a metric would not be comparable."""
    if images.missing:
        raise ConfigError(
            f'{name}: expected {images.base / images.missing[0]}, which is not there '
            f'({len(images.missing)} of the {len(images)} '
            'images are missing); download and extract the data set whole, or leave them out with '
            '--allow-missing'
        )


def images_of(name, folder):
    """Names of the images in a class folder; raises ConfigError: no such folder, or none in it."""
    images = list_images(folder) if folder.is_dir() else []
    if not images:
        raise ConfigError(
            f'{name}: expected images in {folder}, which has none; download and extract the data set whole'
        )
    return [image.name for image in images]


def spaced(text):
    """A name as a human writes it: underscores become spaces."""
    return ' '.join(text.replace('_', ' ').split())

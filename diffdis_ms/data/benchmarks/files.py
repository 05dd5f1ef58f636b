"""Code shared by the readers of official data sets: find the folder, read lists and .mat files, check the images."""

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
        class_names: list, or None if the set's files have no class names; then captions are ''.
        num_classes: int.
        split: description of the chosen split, partition and classes, for results.
        class_ids: the set's own ids of the classes (WordNet ids, numbers) if they are not the names, else None.
    """

    missing: list[str]

    def __init__(self, base, rows, class_names, split, num_classes=None, class_ids=None):
        """Args: rows: [(path below `base`, label)]."""
        self.base, self._rows = base, rows
        self.class_names, self.split = class_names, split
        self.num_classes, self.class_ids = num_classes or len(class_names), class_ids

    def __len__(self):
        return len(self._rows)

    def read(self, i):
        """Read sample `i`; raises BadSample if its image cannot be used."""
        key, label = self._rows[i]
        return Sample(key, read_image(self.base / key, key), self.class_names[label] if self.class_names else '', label)


def find_base(root, folders, markers):
    """Find the folder of a set: `root` or one of `folders` below it, whichever contains most of `markers`.

    If none contains any, it is the official folder, for the error message.
    """
    bases = [root, *(root / folder for folder in folders)]
    found = [sum((base / marker).exists() for marker in markers) for base in bases]
    if any(found):
        return bases[found.index(max(found))]
    return root if not folders or root.name == Path(folders[0]).name else bases[1]


def first_existing(paths):
    """The first path that exists, or else the first path, which `required` then reports."""
    return next((path for path in paths if path.exists()), paths[0])


def required(name, path):
    """Return `path`, which the set `name` needs; raises ConfigError if it does not exist."""
    if not path.exists():
        raise ConfigError(f'{name}: expected {path}, which does not exist; download and extract the whole data set')
    return path


def read_lines(name, path):
    """Read the non-blank lines of a list, stripped; raises ConfigError if it is missing, empty or not text."""
    required(name, path)
    lines = [line.strip() for line in lines_of(read_text(path, lambda reason: ConfigError(f'{name}: {reason}')))]
    lines = [line for line in lines if line]
    if not lines:
        raise ConfigError(f'{name}: {path} is empty; extract the data set again')
    return lines


def read_class_lines(name, path):
    """Read a list of classes like `read_lines`; raises ConfigError also if one occurs twice."""
    lines = read_lines(name, path)
    if len(set(lines)) < len(lines):
        twice = next(line for i, line in enumerate(lines) if line in lines[:i])
        raise ConfigError(f'{name}: {path} has {twice!r} twice')
    return lines


def malformed(name, path, line, expected):
    """Make the error for a malformed line of a list."""
    return ConfigError(f'{name}: {path}: {line[:80]!r} is malformed; expected {expected}')


def load_mat(name, path, variable, fields=()):
    """Read a variable of a .mat file, squeezed to at least one dimension.

    Args:
        fields: fields that a struct must have.

    Raises:
        ConfigError: the file is missing, is not a .mat file (older than MATLAB 7.3), or lacks the variable or its
            fields.
    """
    required(name, path)
    try:
        content = loadmat(path, squeeze_me=True, variable_names=[variable])
    except Exception as e:  # scipy raises anything on arbitrary bytes
        reason = ' '.join(str(e).split()) or type(e).__name__
        raise ConfigError(f'{name}: {path} is not a readable .mat file ({reason[:80]}); extract it again') from None
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
    """Convert values of a .mat file or a list to a list of int in low..high; raises ConfigError if one is not."""
    numbers = []
    for value in values:
        try:
            number = int(value)
            sound = number == value or isinstance(value, str)
        except (TypeError, ValueError, OverflowError):
            sound = False
        if not sound or not low <= number <= high:
            raise ConfigError(f'{name}: {path}: {str(value)[:40]!r} is not a number in {low}..{high}')
        numbers.append(number)
    return numbers


def as_strings(name, path, values):
    """Convert values of a .mat file to a list of str, stripped; raises ConfigError if one is empty or no string."""
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f'{name}: {path}: {str(value)[:40]!r} is not a name')
    return [value.strip() for value in values]


def listed(name, base, rows, source, *args, **kwargs):
    """Make a FileSet of the `rows` [(path, label)] of the list `source`. Its `missing` are files that do not exist.

    Raises:
        ConfigError: a path leaves the set, or none of the files exists.
    """
    for path, _ in rows:
        if not {'', '.', '..'}.isdisjoint(path.split('/')) or '\0' in path:
            raise malformed(name, source, path, 'a path inside the data set')
    present = {}  # folder -> names in it: one listing is faster than a check per file
    for path, _ in rows:
        folder = (base / path).parent
        if folder not in present:
            present[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
    missing = [path for path, _ in rows if (base / path).name not in present[(base / path).parent]]
    images = FileSet(base, rows, *args, **kwargs)
    images.missing = missing  # `open_benchmark` refuses them unless allow_missing
    if len(missing) == len(rows):
        refuse_missing(name, images)
    return images


def refuse_missing(name, images):
    """Raise ConfigError if images of a FileSet are missing: a metric over part of a split is not comparable."""
    if images.missing:
        raise ConfigError(
            f'{name}: expected {images.base / images.missing[0]}, which does not exist '
            f'({len(images.missing)} of the {len(images)} '
            'images are missing); download and extract the whole data set, or leave them out with '
            '--allow-missing'
        )


def images_of(name, folder):
    """Names of the images in a class folder; raises ConfigError if there is no such folder or no image in it."""
    images = list_images(folder) if folder.is_dir() else []
    if not images:
        raise ConfigError(
            f'{name}: expected images in {folder}, which has none; download and extract the whole data set'
        )
    return [image.name for image in images]


def spaced(text):
    """Replace the underscores of a name with spaces."""
    return ' '.join(text.replace('_', ' ').split())

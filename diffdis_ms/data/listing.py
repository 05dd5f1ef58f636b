"""List folders and images: which files are ignored, and in which order the others come."""

import re
from pathlib import Path

from diffdis_ms.data.transforms import IMAGE_SUFFIXES

# Files that systems and tools leave in folders, besides names that begin with a dot (.DS_Store, ._x, .git).
# fmt: off
SYSTEM_NAMES = (
    '__macosx', 'icon\r', '@eadir', '@tmp', '#recycle', '#snapshot', '@recycle', '@recently-snapshot', '$recycle.bin',
    'recycler', 'system volume information', 'lost+found', 'lost.dir', 'found.000', 'thumbs.db', 'ehthumbs.db',
    'ehthumbs_vista.db', 'desktop.ini', '__pycache__',
)
# fmt: on
# fmt: off
FOREIGN_SUFFIXES = (  # image formats that are not read
    '.heic', '.heif', '.avif', '.jxl', '.jp2', '.j2k', '.svg', '.eps', '.psd', '.raw', '.dng', '.cr2', '.nef', '.arw',
    '.exr', '.hdr', '.tga', '.ico', '.npy', '.dcm',
)
# fmt: on


def is_hidden(name):
    """Whether a file or folder belongs to the system or a tool according to its name, and not to the data."""
    return name.startswith('.') or name.lower() in SYSTEM_NAMES


def in_hidden(path):
    """Whether a name in a path (text with slashes) is hidden; '.' and '..' are not."""
    return any(name not in ('', '.', '..') and is_hidden(name) for name in path.split('/'))


def number_order(names):
    """Sort names, with numbers by value: '2' comes before '10', with or without leading zeros.

    If all names have the same text before their first number ('2-dog', '10-cat'; 'a2', 'a10'), they are sorted by that
    number. Names that are only numbers come first, by value. All others are sorted as text, as in other tools: 'An-12',
    'C-130' and 'C-47' stay in this order.
    """
    matches = {name: re.fullmatch('([^0-9]*)([0-9]+)(.*)', name, re.DOTALL) for name in names}
    if all(matches.values()) and len({match[1] for match in matches.values() if match}) == 1:
        alike = len({re.sub('[0-9]+', '0', name) for name in matches}) == 1  # then later numbers count as well
        last = None if alike else 1
        return sorted(matches, key=lambda name: ([int(n) for n in re.findall('[0-9]+', name)][:last], name))
    numbers = [name for name in matches if re.fullmatch('[0-9]+', name)]
    others = [name for name in matches if not re.fullmatch('[0-9]+', name)]
    return number_order(numbers) + number_order(others) if numbers else sorted(others)


def folders_of(root):
    """List the folders in a folder, without hidden ones, in `number_order`."""
    names = [path.name for path in Path(root).iterdir() if path.is_dir() and not is_hidden(path.name)]
    return [Path(root) / name for name in number_order(names)]


def list_images(folder):
    """List the images in a folder (files with an image suffix), without hidden ones.

    They are in `number_order` of their names without suffix.
    """
    by_stem = {}
    for path in folder.iterdir():
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) and path.is_file():
            by_stem.setdefault(path.stem, []).append(path)
    return [path for stem in number_order(by_stem) for path in sorted(by_stem[stem])]


def left_out(folder):
    """List what is left out of a class folder: folders with images, and images in formats that are not read.

    Returns:
        {what: reason}.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            continue
        if path.is_dir():
            inside = sum(
                p.suffix.lower() in IMAGE_SUFFIXES and not in_hidden(p.relative_to(path).as_posix())
                for p in path.rglob('*')
            )
            if inside:
                reason = f'{inside} image(s) are deeper than {folder.name}/<image>: move them up'
                found[f'{folder.name}/{path.name}/'] = reason
        elif path.suffix.lower() in FOREIGN_SUFFIXES:
            found[f'{folder.name}/{path.name}'] = f'{path.suffix} is not a supported format'
    return found

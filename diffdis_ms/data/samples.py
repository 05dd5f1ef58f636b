"""Samples, and the functions that all readers share: list files, read images, check captions and sizes."""

import glob
import sys
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from diffdis_ms.data.listing import is_hidden, number_order
from diffdis_ms.data.transforms import decode_image
from diffdis_ms.errors import BadImage, BadSample, ConfigError
from diffdis_ms.text_files import read_json, read_lines

MAX_MEMBER_BYTES = 64 * 2**20
SUMMARY = 'summary.json'  # written by tools/prepare_data.py


@dataclass
class Sample:
    """An image with its caption, and its label and metadata if known."""

    key: str
    image: Image.Image  # RGB
    caption: str
    label: int | None = None
    meta: dict = field(default_factory=dict)


def checked_caption(key, caption, required=True):
    """Strip a caption and check it; None becomes ''. Raises BadSample if it cannot be used."""
    # a NUL ends a text in MindSpore's pipeline
    caption = caption.replace('\0', ' ').strip() if isinstance(caption, str) else ''
    if required and not caption:
        raise BadSample(key, 'no caption')
    if any('\ud800' <= c <= '\udfff' for c in caption):  # JSON can contain them
        raise BadSample(key, 'the caption has an incomplete Unicode character (a lone surrogate)')
    return caption


def check_side(sample, min_side):
    """Raise BadSample if the image has a side below `min_side` pixels."""
    width, height = sample.image.size
    if min(width, height) < min_side:
        raise BadSample(sample.key, f'{width} x {height}: a side is below {min_side} pixels')


def add_skipped(skipped, key, reason, place):
    """Add an entry to {key: reason}.

    If the key exists already (each shard may number its samples from 0), the position is added to the key.
    """
    skipped[key if key not in skipped else f'{key} (sample {place})'] = reason


def warn_of(left_out, where):
    """Print one warning line on stderr about what a reader has left out of a set: {what: reason}."""
    if left_out:
        shown = '; '.join(f'{what}: {reason}' for what, reason in list(left_out.items())[:5])
        more = f'; and {len(left_out) - 5} more' if len(left_out) > 5 else ''
        print(f'warning: {where}: left out: {shown}{more}', file=sys.stderr)


def read_class_names(directory):
    """Read the names in `classnames.txt` of a directory, one per line; None if there is no such file."""
    path = Path(directory) / 'classnames.txt'
    if not path.is_file():
        return None
    return [line.strip() for line in read_lines(path) if line.strip()]


def prepared_samples(directory):
    """Number of samples in a directory according to its summary.json of tools/prepare_data.py; None without one."""
    try:
        return read_json(Path(directory) / SUMMARY, limit=1 << 30)['num_kept']
    except (ConfigError, KeyError):
        return None


def visible_files(folder, pattern):
    """List the files of a folder that match `pattern`, without hidden ones, in `number_order`."""
    files = {path.name: path for path in Path(folder).glob(pattern) if not is_hidden(path.name) and not path.is_dir()}
    return [files[name] for name in number_order(files)]


def find_files(path, pattern, what):
    """Find the files of a directory that match `pattern`, one file, or the files that match a glob pattern.

    Hidden files are left out. The order is `number_order`.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        files, where = visible_files(path, pattern), f'directory {path} has no {pattern}'
    elif path.is_file():
        files, where = [path], ''
    else:
        names = [name for name in glob.glob(str(path)) if not is_hidden(Path(name).name)]
        files, where = [Path(name) for name in number_order(names)], f'{path} does not exist and matches no file'
    if not files:
        raise ConfigError(
            f'{where}; give a directory with {pattern}, one {what} or a glob pattern (tools/prepare_data.py writes'
            ' such)'
        )
    return files


def read_image(path, key):
    """Read the RGB image of a file; raises BadSample (with `key`) if it is missing, too large or unreadable."""
    try:
        if not path.is_file():
            raise BadSample(key, 'no such image file')
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise BadSample(key, f'more than {MAX_MEMBER_BYTES} bytes')
        return decode_image(path)
    except BadImage as e:
        raise BadSample(key, str(e)) from None
    except OSError as e:
        raise BadSample(key, f'cannot be read: {e.strerror}') from None

"""What every reader gives and refuses: a sample, a bad sample, and the checks that all of them share."""
import glob
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from PIL import Image

from diffdis_ms.config import ConfigError
from diffdis_ms.data.transforms import BadImage, decode_image

MAX_MEMBER_BYTES = 64 * 2 ** 20
SUMMARY = 'summary.json'                         # beside what tools/prepare_data.py has written


class BadSample(ValueError):
    """A sample that cannot be used. `key` names it, `reason` is one line."""

    def __init__(self, key, reason):
        super().__init__(f'{key}: {reason}')
        self.key, self.reason = key, reason


@dataclass
class Sample:
    """One image with its caption, and what else is known of it."""
    key: str
    image: Image.Image                           # RGB
    caption: str
    label: Optional[int] = None
    meta: dict = field(default_factory=dict)


def checked_caption(key, caption, required=True):
    """The caption without space around it, '' where it is None; raises BadSample where it cannot be used."""
    caption = caption.replace('\0', ' ').strip() if isinstance(caption, str) else ''        # a NUL ends a text in MindSpore's pipeline
    if required and not caption:
        raise BadSample(key, 'no caption')
    if any('\ud800' <= c <= '\udfff' for c in caption):          # JSON can write them
        raise BadSample(key, 'the caption has halves of characters')
    return caption


def check_side(sample, min_side):
    """Raises BadSample for a picture with a side below `min_side` pixels."""
    width, height = sample.image.size
    if min(width, height) < min_side:
        raise BadSample(sample.key, f'{width} x {height}: a side is below {min_side} pixels')


def add_skipped(skipped, key, reason, place):
    """Add to {key: reason}; a key that is there already (shards may number their samples from 0 each) gets its place added."""
    skipped[key if key not in skipped else f'{key} (sample {place})'] = reason


def read_class_names(directory):
    """Names in `classnames.txt` of a directory, one a line, or None where there is no such file."""
    path = Path(directory) / 'classnames.txt'
    if not path.is_file():
        return None
    try:
        return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ConfigError(f'{path} is not UTF-8 text') from None


def prepared_samples(directory):
    """Number of samples that summary.json, written by tools/prepare_data.py, says a directory holds; None without one."""
    try:
        summary = json.loads((Path(directory) / SUMMARY).read_bytes())
        return summary['num_kept']
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def find_files(path, pattern, what):
    """Files of a directory that fit `pattern`, one file, or those that fit a glob pattern, sorted; raises ConfigError where there is none."""
    path = Path(path)
    if path.is_dir():
        files, where = sorted(path.glob(pattern)), f'directory {path} has no {pattern}'
    elif path.is_file():
        files, where = [path], ''
    else:
        files, where = sorted(Path(p) for p in glob.glob(str(path))), f'{path} does not exist and matches no file'
    if not files:
        raise ConfigError(f'{where}; give a directory with {pattern}, one {what} or a glob pattern (tools/prepare_data.py writes such)')
    return files


def read_image(path, key):
    """RGB image of a file; raises BadSample (named `key`) where it is missing, too large or not readable."""
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

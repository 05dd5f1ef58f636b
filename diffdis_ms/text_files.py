"""Read small text and JSON files: prompts, captions, class names, configs, manifests, results.

All such files are read here, so that encodings, line ends and messages about damaged files are the same everywhere.
"""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffdis_ms.errors import ConfigError

MakeError = Callable[[str], Exception]  # an exception class, or a function from a message to an exception
MAX_BYTES = 64 << 20
MARKS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


def decode(data, name, error: MakeError = ConfigError) -> str:
    """Decode bytes as UTF-8, or as UTF-8, UTF-16 or UTF-32 if they start with its byte order mark, which is removed.

    Args:
        data: bytes. name: file name for the message. error: makes the exception from a message.

    Raises:
        error: the data is binary or in another encoding (for example latin-1).
    """
    mark, encoding = next(((mark, encoding) for mark, encoding in MARKS if data.startswith(mark)), (b'', 'utf-8'))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as e:
        raise error(f'{name} is not {encoding.upper()} text (byte {len(mark) + e.start}); save it as UTF-8') from None
    if '\0' in text:
        raise error(f'{name} holds NUL characters: it is binary, or UTF-16 without a byte order mark; save it as UTF-8')
    return text


def read_text(path, error: MakeError = ConfigError, limit=MAX_BYTES) -> str:
    """Read a text file and decode it with `decode`.

    Args:
        path: path of the file. error: makes the exception from a message. limit: largest size in bytes.

    Raises:
        error: the file is missing, unreadable, larger than `limit`, or not text.
    """
    path = Path(path)
    try:
        with open(path, 'rb') as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise error(f'{path} does not exist') from None
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise error(f'{path} cannot be read: {getattr(e, "strerror", None) or e}') from None
    if len(data) > limit:
        raise error(f'{path} has more than {limit} bytes: it is not the small text file that is expected')
    return decode(data, path, error)


def lines_of(text):
    r"""Split a text into lines at \n, \r\n and \r only. Form feeds, NEL and U+2028 stay inside their line."""
    lines = text.replace('\r\n', '\n').replace('\r', '\n').split('\n')
    return lines[:-1] if lines[-1] == '' else lines


def read_lines(path, error: MakeError = ConfigError) -> list[str]:
    """Read the lines of a text file; see `read_text` and `lines_of`."""
    return lines_of(read_text(path, error))


def parse_json(text, name, kind: type | tuple[type, ...] = dict, error: MakeError = ConfigError) -> Any:
    """Parse a JSON text.

    Args:
        text: str. name: file name for the message. kind: the type (or tuple of types) that the content must have.
        error: makes the exception from a message.

    Raises:
        error: the text is not JSON, an object has a key twice, or the content is of another type.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise error(f'{name} cannot be used: its JSON is nested too deeply') from None
    except ValueError as e:
        raise error(f'{name} is damaged or not JSON ({" ".join(str(e).split())[:120]})') from None
    if not isinstance(content, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = ' or '.join({dict: 'an object {...}', list: 'a list [...]'}.get(k, k.__name__) for k in kinds)
        raise error(f'{name} holds {type(content).__name__}, {expected} is expected')
    return content


def read_json(path, kind: type | tuple[type, ...] = dict, error: MakeError = ConfigError, limit=MAX_BYTES) -> Any:
    """Read the content of a JSON file; see `read_text` and `parse_json`."""
    return parse_json(read_text(path, error, limit), path, kind, error)


def _unique(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'key {next(n for n in names if names.count(n) > 1)!r} occurs twice in one object')
    return content

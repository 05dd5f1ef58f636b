"""The one reader of small text and JSON files: prompts, captions, class names, configs, manifests, results.

Every place that reads one calls this module, so all of them take the same encodings, end a line at the same characters,
and answer a damaged file with the same single line.
"""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffdis_ms.errors import ConfigError

MakeError = Callable[[str], Exception]  # a class of exceptions, or a function that makes one, of its message
MAX_BYTES = 64 << 20
MARKS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


def decode(data, name, error: MakeError = ConfigError) -> str:
    """Bytes -> str: UTF-8, or what a byte order mark at the start says (UTF-8, UTF-16, UTF-32), which is removed.

    Args:
        data: bytes. name: of the file, for the message. error: what to raise, made of one string.

    Raises:
        error: another encoding (latin-1 for example), or binary data.
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
    """Text of a file, decoded by `decode`.

    Args:
        path: of the file. error: what to raise, made of one string. limit: largest size in bytes.

    Raises:
        error: missing, unreadable, larger than `limit`, or not text.
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
    r"""Lines of a text. Only a newline (\n, \r\n or a lone \r) ends one: form feeds, NEL and U+2028 stay inside their
    line."""
    lines = text.replace('\r\n', '\n').replace('\r', '\n').split('\n')
    return lines[:-1] if lines[-1] == '' else lines


def read_lines(path, error: MakeError = ConfigError) -> list[str]:
    """Lines of a text file; see `read_text` and `lines_of`."""
    return lines_of(read_text(path, error))


def parse_json(text, name, kind: type | tuple[type, ...] = dict, error: MakeError = ConfigError) -> Any:
    """A JSON text as Python values.

    Args:
        text: str. name: of the file, for the message. kind: the type (or tuple of types) that it must have.
        error: what to raise, made of one string.

    Raises:
        error: no JSON, a key that stands twice in one object, or a value of another type.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise error(f'{name} is not JSON that can be used: it is nested too deeply') from None
    except ValueError as e:
        raise error(f'{name} is damaged or not JSON ({" ".join(str(e).split())[:120]})') from None
    if not isinstance(content, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = ' or '.join({dict: 'an object {...}', list: 'a list [...]'}.get(k, k.__name__) for k in kinds)
        raise error(f'{name} holds {type(content).__name__}, {expected} is expected')
    return content


def read_json(path, kind: type | tuple[type, ...] = dict, error: MakeError = ConfigError, limit=MAX_BYTES) -> Any:
    """Content of a JSON file; see `read_text` and `parse_json`."""
    return parse_json(read_text(path, error, limit), path, kind, error)


def _unique(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'key {next(n for n in names if names.count(n) > 1)!r} stands twice in one object')
    return content

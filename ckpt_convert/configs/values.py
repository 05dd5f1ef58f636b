"""Check values of another tool's config file. Each function raises a CheckpointError that names file, key and value."""

import math

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import short

MAX_JSON = 1 << 20  # bytes of a config file


def shown(value):
    """Format a value of a JSON file for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + '...'


def section(content, key, where, required=False):
    """Get a mapping in a mapping; {} if it is absent and not required."""
    value = content.get(key)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f'{where}: {key} {"is missing" if value is None else "is no mapping of keys to values"}')
    return value


def number(cfg, key, default, where):
    """A number above 0."""
    value = cfg.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f'{where}: {key} = {shown(value)} is no number above 0')
    return value


def whole(cfg, key, default, where):
    """A whole number above 0."""
    value = number(cfg, key, default, where)
    if value != int(value):
        raise CheckpointError(f'{where}: {key} = {value!r} is no whole number')
    return int(value)


def one_of(cfg, key, table, default, where):
    """Translate a word of the other tool with `table`."""
    value = cfg.get(key, default)
    if not isinstance(value, str) or value not in table:
        raise CheckpointError(f'{where}: {key} = {short(repr(value))}; {", ".join(table)} can be converted')
    return table[value]


def side(size, key, where):
    """A length given as a number, as two equal ones, or as height and width."""
    sides = (
        list(size.values())
        if isinstance(size, dict) and set(size) == {'height', 'width'}
        else size
        if isinstance(size, list) and size
        else [size]
    )
    numbers = [whole({key: side}, key, None, where) for side in sides]
    if len(set(numbers)) != 1 or len(numbers) > 2:
        raise CheckpointError(f'{where}: {key} = {shown(size)} is not the side of a square')
    return numbers[0]


def agree(size, other, where, name='image_size'):
    """Check that images are resized to the size in `name`."""
    if size != other:
        raise CheckpointError(f'{where}: images are resized to {size}, but {name} = {other}')


def colours(cfg, key, default, where):
    """Get three floats; a single number is used for all three."""
    value = cfg.get(key, list(default))
    value = [value] * 3 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(value, list) or len(value) != 3:
        raise CheckpointError(f'{where}: {key} = {shown(value)} is not one number for each of the three colours')
    numbers = [float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else math.nan for v in value]
    if not all(map(math.isfinite, numbers)):
        raise CheckpointError(f'{where}: {key} = {shown(value)} is not one number for each of the three colours')
    return numbers

"""Check config files of other tools against a list of known keys, so that no key is silently ignored."""

import difflib

from ckpt_convert.configs.values import shown
from diffdis_ms.errors import CheckpointError


def check_keys(config, where, used=(), no_effect=(), only=None):
    """Check that every key is used by us, has no effect on results, or has a value that matches our computation.

    Args:
        config: dict read from a JSON file. where: file (and section) for the messages.
        used: keys that the caller reads and uses. no_effect: keys that have no effect on results at inference.
        only: {key: (allowed values)}; other values are refused.

    Raises:
        CheckpointError: a key or value would be ignored. The message names up to three.
    """
    only = only or {}
    wrong = [
        f'{key} = {_shown(value)} (only {" or ".join(map(repr, only[key]))} can be converted)'
        for key, value in config.items()
        if key in only and not any(_same(value, allowed) for allowed in only[key])
    ]
    known = {*used, *no_effect, *only}
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.8)
            wrong.append(
                f'{_shown(key)} = {_shown(config[key])} is not known{f" (did it mean {near[0]}?)" if near else ""}, '
                'and could change results'
            )
    if wrong:
        raise CheckpointError(
            f'{where}: {"; ".join(wrong[:3])}{f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""}'
        )


def _shown(value):
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 80 else shown(value)


def _same(value, allowed):
    """Whether two values are equal and of the same type: True is not 1, but 1 equals 1.0."""
    numbers = (int, float)
    return value == allowed and (type(value) is type(allowed) or type(value) in numbers and type(allowed) in numbers)

"""Config files from outside, read against a whitelist: no key is passed over in silence."""

import difflib

from ckpt_convert.configs.values import shown
from diffdis_ms.errors import CheckpointError


def check_keys(config, where, used=(), no_effect=(), only=None):
    """Every key must be used by us, known to have no effect on the numbers, or have a value that means what we
    compute anyway.

    Args:
        config: dict read from a JSON file. where: file (and section) for the messages.
        used: keys that the caller reads and uses. no_effect: keys that change no number at inference.
        only: {key: (allowed values)}; any other value is refused by name.

    Raises:
        CheckpointError: up to three keys or values that would be ignored, by name.
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
                'so what it does to the numbers is not either'
            )
    if wrong:
        raise CheckpointError(
            f'{where}: {"; ".join(wrong[:3])}{f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""}'
        )


def _shown(value):
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 80 else shown(value)


def _same(value, allowed):
    """Equal and of one type, so that True is not 1; whole numbers equal their floats."""
    numbers = (int, float)
    return value == allowed and (type(value) is type(allowed) or type(value) in numbers and type(allowed) in numbers)

"""What networks give must be numbers: NaN compares as nothing, so that a ranking of NaN is a perfect score."""

import numpy as np

from diffdis_ms.errors import ConfigError


def check_finite(rows, what, names=None):
    """Refuse embeddings, features or pixels that hold NaN or infinite numbers.

    Args:
        rows: (N, ...) float array. what: the N things that they were computed of ('images').
        names: N names of them, for the message; None: they are numbered.

    Returns:
        `rows`.

    Raises:
        ConfigError: says how many of the rows are not finite, and which is the first.
    """
    rows = np.asarray(rows)
    bad = np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))
    if len(bad):
        first = f'number {bad[0] + 1}' if names is None else repr(str(names[bad[0]]))
        raise ConfigError(
            f'{len(bad)} of the {len(rows)} {what} give numbers that are not finite (NaN or infinite), '
            f'the first: {first}; the weights are damaged, or 16 bits are too few for them'
        )
    return rows

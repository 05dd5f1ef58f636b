"""Check that network outputs are finite. NaN compares as False, so a ranking of NaN would be a perfect score."""

import numpy as np

from diffdis_ms.errors import ConfigError


def check_finite(rows, what, names=None):
    """Refuse embeddings, features or pixels that hold NaN or infinite numbers.

    Args:
        rows: (N, ...) float array. what: the kind of inputs that they were computed from ('images').
        names: names of the N inputs, for the message; None: they are numbered.

    Returns:
        `rows`.

    Raises:
        ConfigError: some rows are not finite. The message gives their number and names the first.
    """
    rows = np.asarray(rows)
    bad = np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))
    if len(bad):
        first = f'number {bad[0] + 1}' if names is None else repr(str(names[bad[0]]))
        raise ConfigError(
            f'{len(bad)} of the {len(rows)} {what} give numbers that are not finite (NaN or infinite), '
            f'the first: {first}; the weights are damaged, or too large for a 16-bit type'
        )
    return rows

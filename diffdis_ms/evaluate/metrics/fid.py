"""FID and KID of two sets of features, as torch-fidelity 0.4 defines them, in NumPy.

Both run on one thread. The number of BLAS threads changes the last digits, and msrun gives its processes fewer threads.
This costs no time: FID's eigenvalues take 3.5 s on one thread and on two.
"""

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from diffdis_ms.errors import ConfigError

one_thread = threadpool_limits.wrap(limits=1, user_api='blas')


@one_thread
def fid(real, fake):
    """Frechet distance between Gaussians with the means m and covariances S of two sets, in float64.

    It is |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)). The last trace is the sum of the square roots of the
    eigenvalues of S1 S2, which are real and not negative. Rounding makes some of the smallest negative; their imaginary
    roots are left out. No matrix root is computed, so singular covariances (fewer images than features) are no problem.

    Args:
        real: (N, D). fake: (M, D).

    Raises:
        ConfigError: a set has fewer than 2 rows, or numbers that are not finite.
    """
    real, fake = _checked(real), _checked(fake)
    difference = real.mean(0) - fake.mean(0)
    s1, s2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, fake))
    roots = np.sqrt(np.linalg.eigvals(s1 @ s2).astype(np.complex128)).real
    return float(difference @ difference + np.trace(s1) + np.trace(s2) - 2 * roots.sum())


@one_thread
def kid(real, fake, subsets=100, subset_size=1000, *, degree=3, gamma=None, coef0=1.0, seed=2020, progress=False):
    """Kernel Inception distance: unbiased MMD^2 with kernel (gamma x.y + coef0)^degree over random subsets.

    Args:
        real: (N, D). fake: (M, D). gamma: None for 1 / D. seed: seed of the subsets, drawn in torch-fidelity's order.

    Returns:
        (mean, standard deviation) over the subsets.

    Raises:
        ConfigError: a set is smaller than `subset_size`, `subset_size` is below 2, or numbers are not finite.
    """
    check_subsets(len(real), len(fake), subsets, subset_size)
    real, fake = _checked(real), _checked(fake)
    gamma = 1 / real.shape[1] if gamma is None else gamma
    rng, distances = np.random.RandomState(seed), np.zeros(subsets)
    for i in tqdm(range(subsets), desc='KID', unit='subsets', disable=None if progress else True, leave=False):
        x = real[rng.choice(len(real), subset_size, replace=False)]
        y = fake[rng.choice(len(fake), subset_size, replace=False)]
        xx, yy, xy = ((a @ b.T * gamma + coef0) ** degree for a, b in ((x, x), (y, y), (x, y)))
        within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)  # pairs of different images
        distances[i] = within / (subset_size * (subset_size - 1)) - 2 * xy.mean()
    return float(distances.mean()), float(distances.std())


def check_subsets(num_real, num_fake, subsets, subset_size):
    """Raise ConfigError if the sets are too small for KID's subsets."""
    if subsets < 1 or subset_size < 2:
        raise ConfigError(f'KID needs at least 1 subset of at least 2 images, not {subsets} of {subset_size}')
    if min(num_real, num_fake) < subset_size:
        raise ConfigError(
            f'KID draws subsets of {subset_size} images, but there are {num_real} real and {num_fake} generated ones:'
            f' lower it with --kid-subset-size {min(num_real, num_fake)} (KID is defined with 1000), or leave kid out'
            ' of --metrics'
        )


def _checked(features):
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ConfigError(f'FID and KID need at least 2 images per set, not {len(features)}')
    if not np.isfinite(features).all():
        raise ConfigError(
            'the features contain infinite numbers or NaN: are these the weights of the published Inception?'
        )
    return features

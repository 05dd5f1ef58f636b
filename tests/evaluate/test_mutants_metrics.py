"""Retrieval's numbers by their names, KID's limits and seed: what tools/mutate.py found unnoticed."""

import numpy as np
import pytest

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.metrics.fid import check_subsets, fid, kid
from diffdis_ms.evaluate.metrics.retrieval import retrieval_metrics


def test_retrieval_reports_recall_at_1_5_and_10():
    """Text i is the (i + 1)-th best of every image, so R@K says how many of the 12 ranks lie below K."""
    angles = np.linspace(0.1, 1.2, 12)
    texts = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = retrieval_metrics(np.tile([[1.0, 0.0]], (12, 1)), texts, np.arange(12))
    for k in (1, 5, 10):
        assert np.isclose(found[f'image_to_text_R@{k}'], k / 12) and np.isclose(found[f'text_to_image_R@{k}'], k / 12)
    assert len(found) == 7 and np.isclose(found['mean_R@1'], 1 / 12)


def test_kid_takes_subsets_of_two_and_of_all_pictures():
    check_subsets(2, 5, 1, 2)
    for num_real, subsets, size in ((1, 1, 2), (2, 1, 1), (2, 0, 2)):
        with pytest.raises(ConfigError):
            check_subsets(num_real, 5, subsets, size)


def test_kid_draws_with_torch_fidelitys_seed_and_both_give_plain_numbers():
    real, fake = np.random.default_rng(0).standard_normal((2, 12, 4))
    assert kid(real, fake, 3, 5) == kid(real, fake, 3, 5, seed=2020) != kid(real, fake, 3, 5, seed=2021)
    assert type(fid(real, fake)) is float

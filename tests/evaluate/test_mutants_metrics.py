"""Retrieval's numbers by their names: what tools/mutate.py found unnoticed."""
import numpy as np

from diffdis_ms.evaluate.retrieval import retrieval_metrics


def test_retrieval_reports_recall_at_1_5_and_10():
    """Text i is the (i + 1)-th best of every image, so R@K says how many of the 12 ranks lie below K."""
    angles = np.linspace(0.1, 1.2, 12)
    texts = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = retrieval_metrics(np.tile([[1.0, 0.0]], (12, 1)), texts, np.arange(12))
    for k in (1, 5, 10):
        assert np.isclose(found[f'image_to_text_R@{k}'], k / 12) and np.isclose(found[f'text_to_image_R@{k}'], k / 12)
    assert len(found) == 7 and np.isclose(found['mean_R@1'], 1 / 12)

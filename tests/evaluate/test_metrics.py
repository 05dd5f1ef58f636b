"""Zero-shot and retrieval metrics against direct computations, ties included."""
import numpy as np

from diffdis_ms.evaluate.retrieval import ranks, retrieval_metrics
from diffdis_ms.evaluate.zeroshot import zeroshot_metrics


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_zeroshot_metrics_by_hand():
    rng = np.random.default_rng(0)
    e0, classes, labels = unit(rng, 40, 6), unit(rng, 9, 6), rng.integers(0, 9, 40)
    found = zeroshot_metrics(e0, classes, labels)
    hits1, hits5, per_class = 0, 0, {}
    for x, label in zip(e0, labels):
        order = sorted(range(9), key=lambda c: (-(classes[c] @ x), c))
        hits1, hits5 = hits1 + (order[0] == label), hits5 + (label in order[:5])
        per_class.setdefault(label, []).append(order[0] == label)
    assert found['acc1'] == hits1 / 40 and found['acc5'] == hits5 / 40
    assert np.isclose(found['mean_per_class_recall'], np.mean([np.mean(v) for v in per_class.values()]))


def test_equal_similarities_go_to_the_lower_index():
    e0, classes = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert zeroshot_metrics(e0, classes, [0])['acc1'] == 1 and zeroshot_metrics(e0, classes, [1])['acc1'] == 0
    assert ranks(np.array([[0.5, 0.5, 0.5]]), [np.array([1])]).tolist() == [1]


def test_retrieval_with_several_captions_an_image():
    e0 = np.eye(3)
    e = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.8, 0, 0.2], [0, 0.2, 1]])         # texts of images 0, 1, 2, 2
    found = retrieval_metrics(e0, e, [0, 1, 2, 2], ks=(1, 2))
    assert found['image_to_text_R@1'] == 1.0
    assert found['text_to_image_R@1'] == 0.75 and found['text_to_image_R@2'] == 1.0
    assert found['mean_R@1'] == 0.875

"""Zero-shot and retrieval metrics against direct computations, ties included."""

import numpy as np
import pytest

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.clip_score import clip_score
from diffdis_ms.evaluate.metrics import retrieval
from diffdis_ms.evaluate.metrics.retrieval import hits, retrieval_metrics
from diffdis_ms.evaluate.metrics.zeroshot import confusion, zeroshot_metrics
from tests.workspace import python


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_zeroshot_metrics_by_hand():
    rng = np.random.default_rng(0)
    e0, classes, labels = unit(rng, 40, 6), unit(rng, 9, 6), rng.integers(0, 9, 40)
    found = zeroshot_metrics(e0, classes, labels)
    hits1, hits5, per_class = 0, 0, {}
    for x, label in zip(e0, labels, strict=True):
        order = sorted(range(9), key=lambda c: (-(classes[c] @ x), c))
        hits1, hits5 = hits1 + (order[0] == label), hits5 + (label in order[:5])
        per_class.setdefault(label, []).append(order[0] == label)
    assert found['acc1'] == hits1 / 40 and found['acc5'] == hits5 / 40
    assert np.isclose(found['mean_per_class_recall'], np.mean([np.mean(v) for v in per_class.values()]))


def test_equal_similarities_share_the_hit():
    e0, classes = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert [zeroshot_metrics(e0, classes, [label])['acc1'] for label in (0, 1)] == [0.5, 0.5]
    query, candidates = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]] * 3)
    assert np.allclose(hits(query, candidates, [np.array([1])], (1, 2, 3, 5)), [[1 / 3, 2 / 3, 1, 1]])
    assert np.allclose(hits(query, candidates, [np.array([0, 2])], (1, 2)), [[2 / 3, 1]])
    # right ones alone tie
    assert hits(query, np.array([[0.6, 0.8], [0.6, 0.8], [1, 0]]), [np.array([0, 1])], (1, 2)).tolist() == [[0, 1]]


def test_one_embedding_for_everything_scores_as_chance():
    """It used to be the first of equals: 100 % where the right one stands first."""
    same = np.tile(unit(np.random.default_rng(2), 8), (20, 1))
    found = retrieval_metrics(same, same, np.arange(20))
    assert np.allclose(
        [found['image_to_text_R@1'], found['text_to_image_R@5'], found['mean_R@1']], [1 / 20, 5 / 20, 1 / 20]
    )
    assert np.isclose(zeroshot_metrics(same, same[:10], np.zeros(20, int))['acc1'], 1 / 10)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_an_error_and_no_score(value):
    e0 = unit(np.random.default_rng(3), 6, 4)
    bad = e0.copy()
    bad[2:5, 1] = value
    for call in (
        lambda: retrieval_metrics(bad, e0, np.arange(6)),
        lambda: retrieval_metrics(e0, bad, np.arange(6)),
        lambda: zeroshot_metrics(bad, e0, np.arange(6)),
        lambda: zeroshot_metrics(e0, bad, np.arange(6)),
        lambda: confusion(bad, e0, np.arange(6)),
        lambda: clip_score(bad, e0),
        lambda: clip_score(e0, bad),
    ):
        with pytest.raises(ConfigError, match='3 of the 6 .*not finite.*number 3'):
            call()


def test_retrieval_with_several_captions_an_image():
    e0 = np.eye(3)
    e = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.8, 0, 0.2], [0, 0.2, 1]])  # texts of images 0, 1, 2, 2
    found = retrieval_metrics(e0, e, [0, 1, 2, 2], ks=(1, 2))
    assert found['image_to_text_R@1'] == 1.0
    assert found['text_to_image_R@1'] == 0.75 and found['text_to_image_R@2'] == 1.0
    assert found['mean_R@1'] == 0.875


def test_hits_in_blocks_are_those_of_a_full_sort(monkeypatch):
    rng, ks = np.random.default_rng(1), (1, 5, 10)
    queries, candidates = unit(rng, 50, 8), unit(rng, 70, 8)
    own = [np.sort(rng.choice(70, rng.integers(1, 6), replace=False)) for _ in range(50)]
    expected = []
    for q, right in zip(queries, own, strict=True):
        order = sorted(range(70), key=lambda c: (-np.float32(candidates[c] @ q), c))
        expected.append([min(order.index(i) for i in right) < k for k in ks])
    assert hits(queries, candidates, own, ks).tolist() == expected
    monkeypatch.setattr(retrieval, 'BLOCK_BYTES', 8 * 70 * 7)
    assert hits(queries, candidates, own, ks).tolist() == expected


@pytest.mark.slow
def test_a_hundred_thousand_images_and_texts_need_less_than_2_gb():
    code = """
import numpy as np
from diffdis_ms.evaluate.metrics.retrieval import retrieval_metrics
rng = np.random.default_rng(0)
e0 = rng.standard_normal((100_000, 16), dtype=np.float32)
e0 /= np.linalg.norm(e0, axis=1, keepdims=True)
right = rng.permutation(100_000)
found = retrieval_metrics(e0, e0[right], right)
assert found['mean_R@1'] == 1.0, found
print(int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) // 1024)
"""
    done = python('-c', code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048


def test_confusion():
    e0, classes = np.eye(3)[[0, 0, 1, 2, 2]], np.eye(3)
    assert confusion(e0, classes, [0, 1, 1, 2, 0]).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]

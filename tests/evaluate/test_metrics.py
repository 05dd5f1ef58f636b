"""Zero-shot and retrieval metrics against direct computations, ties included."""
import subprocess
import sys

import numpy as np
import pytest

from diffdis_ms.evaluate import retrieval
from diffdis_ms.evaluate.retrieval import ranks, retrieval_metrics
from diffdis_ms.evaluate.zeroshot import confusion, zeroshot_metrics
from tests.workspace import ROOT


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
    assert ranks(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]] * 3), [np.array([1])]).tolist() == [1]


def test_retrieval_with_several_captions_an_image():
    e0 = np.eye(3)
    e = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.8, 0, 0.2], [0, 0.2, 1]])         # texts of images 0, 1, 2, 2
    found = retrieval_metrics(e0, e, [0, 1, 2, 2], ks=(1, 2))
    assert found['image_to_text_R@1'] == 1.0
    assert found['text_to_image_R@1'] == 0.75 and found['text_to_image_R@2'] == 1.0
    assert found['mean_R@1'] == 0.875


def test_ranks_in_blocks_are_those_of_a_full_sort(monkeypatch):
    rng = np.random.default_rng(1)
    queries, candidates = unit(rng, 50, 8), unit(rng, 70, 8)
    candidates[40:] = candidates[:30]                                            # ties, everywhere
    own = [np.sort(rng.choice(70, rng.integers(1, 6), replace=False)) for _ in range(50)]
    expected = []
    for q, right in zip(queries, own):
        order = sorted(range(70), key=lambda c: (-np.float32(candidates[c] @ q), c))
        expected.append(min(order.index(i) for i in right))
    assert ranks(queries, candidates, own).tolist() == expected
    monkeypatch.setattr(retrieval, 'BLOCK_BYTES', 8 * 70 * 7)
    assert ranks(queries, candidates, own).tolist() == expected


@pytest.mark.slow
def test_a_hundred_thousand_images_and_texts_need_less_than_2_gb():
    code = """
import numpy as np
from diffdis_ms.evaluate.retrieval import retrieval_metrics
rng = np.random.default_rng(0)
e0 = rng.standard_normal((100_000, 64), dtype=np.float32)
e0 /= np.linalg.norm(e0, axis=1, keepdims=True)
right = rng.permutation(100_000)
found = retrieval_metrics(e0, e0[right], right)
assert found['mean_R@1'] == 1.0, found
print(int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) // 1024)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048


def test_confusion():
    e0, classes = np.eye(3)[[0, 0, 1, 2, 2]], np.eye(3)
    assert confusion(e0, classes, [0, 1, 1, 2, 0]).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]

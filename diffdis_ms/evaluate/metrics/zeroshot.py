"""Zero-shot classification (Sec. 4.1): which class name fits the generated e0 best. Metrics are NumPy."""

import numpy as np

from diffdis_ms.evaluate.metrics.retrieval import cosines, hits
from diffdis_ms.finite import check_finite


def zeroshot_metrics(e0, label_embeddings, labels):
    """Top-1, top-5 and mean per-class accuracy.

    Args:
        e0: (N, D) generated text queries, L2-normalised.
        label_embeddings: (C, D), L2-normalised.
        labels: (N,) int, the right class of each image.

    Returns:
        dict acc1, acc5, mean_per_class_recall (0..1). Classes of equal similarity (two with one name, say) share the
        hit: see
        `retrieval.hits`.

    Raises:
        ConfigError: an embedding that is not finite.
    """
    top1, top5 = class_hits(e0, label_embeddings, labels).T
    labels = np.asarray(labels)
    recalls = [top1[labels == c].mean() for c in np.unique(labels)]
    return {'acc1': float(top1.mean()), 'acc5': float(top5.mean()), 'mean_per_class_recall': float(np.mean(recalls))}


def class_hits(e0, label_embeddings, labels):
    """(N, 2) float64: whether the right class is the first, and among the first five; arguments as for
    `zeroshot_metrics`."""
    check_finite(e0, 'images'), check_finite(label_embeddings, 'class names')
    return hits(e0, label_embeddings, np.asarray(labels)[:, None], (1, 5))


def confusion(e0, label_embeddings, labels):
    """(C, C) int64: how often an image of the class of the row was given the class of the column; of equal ones the
    lower index."""
    found = np.argmax(cosines(check_finite(e0, 'images'), check_finite(label_embeddings, 'class names')), 1)
    matrix = np.zeros((len(label_embeddings),) * 2, np.int64)
    np.add.at(matrix, (np.asarray(labels), found), 1)
    return matrix

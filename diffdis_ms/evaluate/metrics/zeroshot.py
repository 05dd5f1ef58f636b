"""Zero-shot classification (Sec. 4.1) in NumPy: which class name fits the generated e0 best."""

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
        dict acc1, acc5, mean_per_class_recall (0..1). Classes of equal similarity (for example two with the same name)
        share the hit: see `retrieval.hits`.

    Raises:
        ConfigError: an embedding is not finite.
    """
    top1, top5 = class_hits(e0, label_embeddings, labels).T
    labels = np.asarray(labels)
    recalls = [top1[labels == c].mean() for c in np.unique(labels)]
    return {'acc1': float(top1.mean()), 'acc5': float(top5.mean()), 'mean_per_class_recall': float(np.mean(recalls))}


def class_hits(e0, label_embeddings, labels):
    """Whether the right class is first, and whether it is among the first five: (N, 2) float64.

    The arguments are those of `zeroshot_metrics`.
    """
    check_finite(e0, 'images'), check_finite(label_embeddings, 'class names')
    return hits(e0, label_embeddings, np.asarray(labels)[:, None], (1, 5))


def confusion(e0, label_embeddings, labels):
    """Confusion matrix (C, C) int64: rows are true classes, columns are predicted classes.

    Among equal similarities the lower index is predicted.
    """
    found = np.argmax(cosines(check_finite(e0, 'images'), check_finite(label_embeddings, 'class names')), 1)
    matrix = np.zeros((len(label_embeddings),) * 2, np.int64)
    np.add.at(matrix, (np.asarray(labels), found), 1)
    return matrix

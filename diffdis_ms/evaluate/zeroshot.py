"""Zero-shot classification (Sec. 4.1): which class name fits the generated e0 best. Metrics are NumPy."""
import numpy as np

from diffdis_ms.evaluate.retrieval import cosines


def zeroshot_metrics(e0, label_embeddings, labels):
    """Top-1, top-5 and mean per-class accuracy.

    Args:
        e0: (N, D) generated text queries, L2-normalised.
        label_embeddings: (C, D), L2-normalised.
        labels: (N,) int, the right class of each image.

    Returns:
        dict acc1, acc5, mean_per_class_recall (0..1). Of equal similarities, the class with the lower index comes first.
    """
    labels = np.asarray(labels)
    order = np.argsort(-cosines(e0, label_embeddings), 1, kind='stable')         # (N, C)
    hit = order == labels[:, None]
    recalls = [hit[labels == c, 0].mean() for c in np.unique(labels)]
    return {'acc1': float(hit[:, 0].mean()), 'acc5': float(hit[:, :5].any(1).mean()), 'mean_per_class_recall': float(np.mean(recalls))}


def confusion(e0, label_embeddings, labels):
    """(C, C) int64: how often an image of the class of the row was given the class of the column."""
    found = np.argmax(cosines(e0, label_embeddings), 1)
    matrix = np.zeros((len(label_embeddings),) * 2, np.int64)
    np.add.at(matrix, (np.asarray(labels), found), 1)
    return matrix

"""Prompt ensembling (Radford et al. 2021): one embedding per class, from all its prompts."""

from math import gcd

import numpy as np

from diffdis_ms.finite import check_finite


def ensemble_labels(embed_texts, labels, templates, batch_size=1):
    """Average each label's embeddings over all templates, then L2-normalise.

    Args:
        embed_texts: list of N strings -> (N, D), L2-normalised. labels: list of str. templates: list of str with one
            {}.
        batch_size: batch size of `embed_texts`. Labels are embedded in groups that fill whole batches. So not all texts
            (80,000 for ImageNet) are in memory at once, but the batches are the same as if they were.

    Returns:
        (len(labels), D) float32.

    Raises:
        ConfigError: an embedding is not finite.
    """
    step, rows = batch_size // gcd(batch_size, len(templates)), []
    for start in range(0, len(labels), step):
        texts = [t.format(label) for label in labels[start : start + step] for t in templates]
        e = check_finite(embed_texts(texts), 'texts', texts)
        rows.append(e.reshape(-1, len(templates), e.shape[-1]).mean(1))
    e = np.concatenate(rows)
    return e / np.linalg.norm(e, axis=-1, keepdims=True)

"""Image-text retrieval: recall among all candidates, both ways, in blocks of bounded memory. Metrics are NumPy."""

import numpy as np

from diffdis_ms.finite import check_finite

BLOCK_BYTES = 128 << 20  # of the float64 similarities held at a time


def cosines(queries, candidates):
    """(Q, C) float32 of L2-normalised (Q, D) and (C, D): products in float64, rounded once, so that equal vectors tie
    wherever in a block they stand."""
    return (np.asarray(queries, np.float64) @ np.asarray(candidates, np.float64).T).astype(np.float32)


def hits(queries, candidates, own, ks):
    """Whether a right candidate of each query is among its K best.

    Ties are broken at random, and what is returned is the probability: 1 or 0 where no wrong candidate equals the
    best right one. So equal captions of two images share their hits, and a model that gives everything the same
    embedding scores as chance does.

    Args:
        queries: (Q, D). candidates: (C, D), both L2-normalised. own: Q arrays, the indices of the right candidates. ks:
            the K's.

    Returns:
        (Q, len(ks)) float64, 0..1.
    """
    block, result = max(1, BLOCK_BYTES // (8 * len(candidates))), np.empty((len(queries), len(ks)))
    candidates = np.asarray(candidates, np.float64)
    for start in range(0, len(queries), block):
        similarity = cosines(queries[start : start + block], candidates)  # (block, C)
        for q, row in enumerate(similarity, start):
            right = row[np.asarray(own[q])]
            best = right.max()
            better, tied_right = np.count_nonzero(row > best), np.count_nonzero(right == best)
            tied_wrong = np.count_nonzero(row == best) - tied_right
            result[q] = [_drawn(k - better, tied_right, tied_wrong) for k in ks]
    return result


def _drawn(places, right, wrong):
    """Probability that `places` drawn from so many right and wrong ones hold a right one."""
    missed = 1.0
    for i in range(min(max(places, 0), wrong + 1)):
        missed *= (wrong - i) / (right + wrong - i)
    return 1.0 - missed


def retrieval_metrics(e0, e, image_of_text, ks=(1, 5, 10)):
    """R@K image-to-text and text-to-image, and the mean of the two R@1. Ties as in `hits`.

    Args:
        e0: (N, D) generated queries of the images. e: (M, D) text queries; both L2-normalised.
        image_of_text: (M,) int, the image each text belongs to; every image has at least one.

    Returns:
        dict image_to_text_R@1 ... text_to_image_R@10, mean_R@1 (0..1).

    Raises:
        ConfigError: an embedding that is not finite.
    """
    check_finite(e0, 'images'), check_finite(e, 'texts')
    image_of_text = np.asarray(image_of_text)
    texts = np.argsort(image_of_text, kind='stable')
    own = np.split(texts, np.searchsorted(image_of_text[texts], np.arange(1, len(e0))))
    metrics = {}
    both = {'image_to_text': hits(e0, e, own, ks), 'text_to_image': hits(e, e0, image_of_text[:, None], ks)}
    for way, found in both.items():
        metrics.update({f'{way}_R@{k}': float(share) for k, share in zip(ks, found.mean(0), strict=True)})
    metrics['mean_R@1'] = (metrics['image_to_text_R@1'] + metrics['text_to_image_R@1']) / 2
    return metrics

"""Image-text retrieval: recall among all candidates, both ways, in blocks of bounded memory. Metrics are NumPy."""
import numpy as np

BLOCK_BYTES = 128 << 20                          # of the float64 similarities held at a time


def cosines(queries, candidates):
    """(Q, C) float32 of L2-normalised (Q, D) and (C, D): products in float64, rounded once, so that equal vectors tie
    wherever in a block they stand."""
    return (np.asarray(queries, np.float64) @ np.asarray(candidates, np.float64).T).astype(np.float32)


def ranks(queries, candidates, own):
    """Rank (0 is best) of the best right candidate of each query.

    Args:
        queries: (Q, D). candidates: (C, D), both L2-normalised. own: list of Q arrays, the sorted indices of the right candidates.

    Returns:
        (Q,) int. Among equal similarities the candidate with the lower index comes first.
    """
    block, result = max(1, BLOCK_BYTES // (8 * len(candidates))), np.empty(len(queries), np.int64)
    candidates = np.asarray(candidates, np.float64)
    for start in range(0, len(queries), block):
        similarity = cosines(queries[start:start + block], candidates)           # (block, C)
        for q, row in enumerate(similarity, start):
            right = np.asarray(own[q])
            best = right[np.argmax(row[right])]                                  # the first of equal ones: `own` is sorted
            result[q] = np.count_nonzero(row > row[best]) + np.count_nonzero(row[:best] == row[best])
    return result


def retrieval_metrics(e0, e, image_of_text, ks=(1, 5, 10)):
    """R@K image-to-text and text-to-image, and the mean of the two R@1.

    Args:
        e0: (N, D) generated queries of the images. e: (M, D) text queries; both L2-normalised.
        image_of_text: (M,) int, the image each text belongs to; every image has at least one.

    Returns:
        dict image_to_text_R@1 ... text_to_image_R@10, mean_R@1 (0..1).
    """
    image_of_text = np.asarray(image_of_text)
    texts = np.argsort(image_of_text, kind='stable')
    own = np.split(texts, np.searchsorted(image_of_text[texts], np.arange(1, len(e0))))
    to_text, to_image = ranks(e0, e, own), ranks(e, e0, image_of_text[:, None])
    metrics = {f'image_to_text_R@{k}': float((to_text < k).mean()) for k in ks}
    metrics.update({f'text_to_image_R@{k}': float((to_image < k).mean()) for k in ks})
    metrics['mean_R@1'] = (metrics['image_to_text_R@1'] + metrics['text_to_image_R@1']) / 2
    return metrics

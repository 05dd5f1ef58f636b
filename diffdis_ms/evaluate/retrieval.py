"""Image-text retrieval: recall among all candidates, both ways. Metrics are NumPy."""
import numpy as np


def ranks(similarity, own):
    """Rank (0 is best) of the best right candidate of each query.

    Args:
        similarity: (Q, C). own: list of Q arrays, the indices of the right candidates.

    Returns:
        (Q,) int. Among equal similarities the candidate with the lower index comes first.
    """
    order = np.argsort(-similarity, 1, kind='stable')
    position = np.empty_like(order)
    np.put_along_axis(position, order, np.arange(order.shape[1])[None], 1)
    return np.array([position[q, right].min() for q, right in enumerate(own)])


def retrieval_metrics(e0, e, image_of_text, ks=(1, 5, 10)):
    """R@K image-to-text and text-to-image, and the mean of the two R@1.

    Args:
        e0: (N, D) generated queries of the images. e: (M, D) text queries; both L2-normalised.
        image_of_text: (M,) int, the image each text belongs to.

    Returns:
        dict image_to_text_R@1 ... text_to_image_R@10, mean_R@1 (0..1).
    """
    image_of_text = np.asarray(image_of_text)
    similarity = e0 @ e.T                                                        # (N, M)
    to_text = ranks(similarity, [np.flatnonzero(image_of_text == i) for i in range(len(e0))])
    to_image = ranks(similarity.T, [np.array([i]) for i in image_of_text])
    metrics = {f'image_to_text_R@{k}': float((to_text < k).mean()) for k in ks}
    metrics.update({f'text_to_image_R@{k}': float((to_image < k).mean()) for k in ks})
    metrics['mean_R@1'] = (metrics['image_to_text_R@1'] + metrics['text_to_image_R@1']) / 2
    return metrics

"""The losses: one function per equation, all in float32."""

import mindspore.common.dtype as mstype
from mindspore import ops


def mean_over_samples(x):
    """Mean of all elements of (B, ...), first within each sample and then over the samples.

    On a CPU, MindSpore adds a long vector in the order in which its threads finish, which changes from run to run. Each
    sample is summed by one thread.
    """
    return ops.mean(ops.mean(x.reshape(x.shape[0], -1), -1))


def image_generation_loss(prediction, target):
    """Eq. 4: mean of |target - prediction|^2 over the batch and all elements; both (B, 4, H, W)."""
    diff = target.astype(mstype.float32) - prediction.astype(mstype.float32)
    return mean_over_samples(diff * diff)


def similarity(e0_hat, e):
    """Eq. 7: cosines between all predictions and all queries: (B, D), (B', D) -> (B, B'), rows are images."""
    a, b = e0_hat.astype(mstype.float32), e.astype(mstype.float32)
    a = a / ops.sqrt(ops.sum(a * a, -1, keepdim=True) + 1e-24)
    b = b / ops.sqrt(ops.sum(b * b, -1, keepdim=True) + 1e-24)
    return ops.matmul(a, ops.swapaxes(b, 0, 1))


def alignment_loss(e0_hat, e, logit_scale):
    """Eq. 8: image-to-text and text-to-image cross-entropy, averaged.

    Args:
        e0_hat: (B, D) predicted clean queries, not normalised. e: (B, D) text queries. Row i of one belongs to row i of
            the other.
        logit_scale: scalar; 1 gives Eq. 8 exactly.

    Returns:
        scalar float32.
    """
    logits = logit_scale * similarity(e0_hat, e)  # (B, B)
    to_text = ops.diagonal(ops.log_softmax(logits, -1))  # over the texts of each image, (B,)
    to_image = ops.diagonal(ops.log_softmax(ops.swapaxes(logits, 0, 1), -1))  # over the images of each text, (B,)
    return -0.5 * (ops.mean(to_text) + ops.mean(to_image))


def total_loss(loss_ig, loss_ita, lambda_ita):
    """Eq. 9: L_IG + lambda * L_ITA."""
    return loss_ig + lambda_ita * loss_ita


def autoencoder_loss(reconstruction, x, mean, logvar, kl_weight, chroma_weight):
    """Absolute and squared error, an additional absolute error of the colours, and the KL divergence to a unit normal.

    Args:
        reconstruction, x: (B, 3, H, W). mean, logvar: of the posterior. kl_weight: weight of the KL divergence per
            element of z.
        chroma_weight: weight of the error without each pixel's mean over the channels. Brightness is learned first and
            colours last; the weight makes colours appear earlier in short training runs (0: off).

    Returns:
        scalar.
    """
    error = reconstruction - x
    loss = mean_over_samples(ops.abs(error)) + mean_over_samples(error * error)
    if chroma_weight > 0:
        loss = loss + chroma_weight * mean_over_samples(ops.abs(error - ops.mean(error, 1, keep_dims=True)))
    kl = 0.5 * mean_over_samples(mean * mean + ops.exp(logvar) - 1.0 - logvar)
    return loss + kl_weight * kl

"""CLIP-score: how well images fit their captions according to a CLIP (any architecture; the paper's is ResNet-50)."""

import numpy as np

from diffdis_ms.data.transforms import to_pixels
from diffdis_ms.evaluate.clip_model import ClipModel, resized, standardized
from diffdis_ms.evaluate.pictures import over_images, read_rgb
from diffdis_ms.evaluate.shared import Share, shared_pass
from diffdis_ms.finite import check_finite


def clip_embeddings(clip, paths, captions, batch_size=32, progress=False, share=Share(), precision='fp32'):
    """Embed images and their captions.

    Args:
        clip: ClipDirectory. paths: N image files. captions: list of M strings; long ones are truncated.
        share: Share of this process in the work. precision: see `ClipModel`.

    Returns:
        float32 (N, D) and (M, D), L2-normalised.

    Raises:
        ConfigError: the weights do not fit, or an image cannot be decoded.
    """
    model = ClipModel(clip, batch_size, precision)
    parts = shared_pass(
        len(captions),
        batch_size,
        lambda i: captions[i],
        lambda places, rows: {'rows': model.embed_texts(rows)},
        share,
        'captions',
        progress and 'CLIP: captions',
    )
    texts = np.concatenate([part['rows'] for part in parts])
    encoder = clip.config.image_encoder
    images = over_images(
        model.image,
        lambda path: preprocess(read_rgb(path), encoder),
        paths,
        batch_size,
        progress and 'CLIP: pictures',
        share,
        'clip',
    )
    return images, texts


def preprocess(image, encoder):
    """PIL RGB image -> float32 (3, S, S), resized, cropped and normalised as the ImageEncoderConfig requires."""
    return standardized(to_pixels(resized(image, encoder)), encoder)


def clip_score(images, texts, clip=False, weight=100.0):
    """Mean over pairs of weight * cosine.

    Args:
        images, texts: (N, D), one pair per row, L2-normalised.
        clip: count negative cosines as 0. weight: 100 as in the paper; CLIPScore (Hessel et al.) uses 2.5 and clip.

    Raises:
        ConfigError: an embedding is not finite.
    """
    check_finite(images, 'pictures'), check_finite(texts, 'captions')
    cosines = np.einsum('nd,nd->n', images.astype(np.float64), texts.astype(np.float64))
    return float(weight * (np.maximum(cosines, 0) if clip else cosines).mean())


def definition(clip, weight):
    """Describe the score in words."""
    return f'mean over pairs of {weight:g} * {"max(cosine, 0)" if clip else "cosine"} of the image and text embedding'

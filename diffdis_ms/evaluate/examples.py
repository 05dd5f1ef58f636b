"""Examples for a report, small enough for the result file: thumbnails as base64 JPEG, captions shortened."""

import base64
import io

import numpy as np

from diffdis_ms.data.transforms import decode_image, resize_center_crop
from diffdis_ms.errors import BadImage, ConfigError
from diffdis_ms.evaluate.metrics.retrieval import cosines
from diffdis_ms.evaluate.pictures import PROMPTS, read_prompts, read_rgb

NUM_EXAMPLES, TOP = 8, 5  # queries per direction, and candidates shown per query
SIDE, MAX_SIDE, MAX_CAPTION = 96, 512, 300  # pixels when written, pixels accepted when read, characters


def thumbnail(image):
    """PIL RGB image -> base64 text of a JPEG of its centre, at most 96 x 96 pixels."""
    buffer = io.BytesIO()
    resize_center_crop(image, min(SIDE, *image.size)).save(buffer, 'JPEG', quality=88, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode()


def read_thumbnail(text):
    """Decode a thumbnail of a result file to a PIL image; ConfigError if it is not one (files may be untrusted)."""
    try:
        return decode_image(base64.b64decode(text, validate=True), max_pixels=MAX_SIDE**2)
    except (BadImage, ValueError, TypeError) as e:
        raise ConfigError(f'a thumbnail in a result file cannot be read: {e}') from None


def spread_rows(n, count):
    """Choose at most `count` of 0..n-1, spread evenly from the first to the last."""
    count = min(n, count)
    return [round(k * (n - 1) / max(1, count - 1)) for k in range(count)]


def retrieval_examples(e0, e, image_of_text, texts, keys, read, count=NUM_EXAMPLES):
    """Some images with the texts found for them, and some texts with the images found for them.

    Args:
        e0: (N, D) embeddings of the images. e: (M, D) of the texts; both L2-normalised. image_of_text: (M,) int, the
            image of each text.
        texts: M strings. keys: N strings. read: row of e0 -> PIL image.

    Returns:
        dict image_to_text: list of {key, image, captions, found: [{caption, right}]}, and text_to_image: list of
        {caption, found: [{key, image, right}]}; best first, and the lower index first among equals.
    """
    image_of_text, made = np.asarray(image_of_text), {}
    rows = spread_rows(len(e0), count)
    first = [int(np.flatnonzero(image_of_text == row)[0]) for row in rows]

    def picture(row):
        if row not in made:
            made[row] = thumbnail(read(row))
        return made[row]

    def best(queries, candidates):
        return np.argsort(-cosines(queries, candidates), 1, kind='stable')[:, :TOP].tolist()

    return {
        'image_to_text': [
            {
                'key': _cut(keys[row]),
                'image': picture(row),
                'captions': [_cut(texts[i]) for i in np.flatnonzero(image_of_text == row)[:TOP]],
                'found': [{'caption': _cut(texts[i]), 'right': bool(image_of_text[i] == row)} for i in found],
            }
            for row, found in zip(rows, best(e0[rows], e), strict=True)
        ],
        'text_to_image': [
            {
                'caption': _cut(texts[i]),
                'found': [
                    {'key': _cut(keys[row]), 'image': picture(row), 'right': bool(image_of_text[i] == row)}
                    for row in found
                ],
            }
            for i, found in zip(first, best(e[first], e0), strict=True)
        ],
    }


def generation_examples(fakes, real=None, count=NUM_EXAMPLES, captions=None):
    """Some generated images with their captions and the real images of the same captions.

    A real image is shown if the prompts.json of both folders give the same name the same caption.

    Args:
        fakes: paths in one folder. real: folder or None. captions: captions of `fakes`, if not those of prompts.json.

    Returns:
        list of {name, caption: text or None, fake: thumbnail, real: thumbnail or None}.
    """
    own, theirs = _prompts(fakes[0].parent), _prompts(real)
    rows = spread_rows(len(fakes), count)
    made = []
    for path, caption in ((fakes[row], captions[row] if captions else own.get(fakes[row].name)) for row in rows):
        same = caption is not None and theirs.get(path.name) == caption
        made.append(
            {
                'name': _cut(path.name),
                'caption': None if caption is None else _cut(caption),
                'fake': thumbnail(read_rgb(path)),
                'real': thumbnail(read_rgb(real / path.name)) if same else None,
            }
        )
    return made


def _prompts(folder):
    return read_prompts(folder / PROMPTS) if folder is not None and (folder / PROMPTS).is_file() else {}


def _cut(text):
    return text if len(text) <= MAX_CAPTION else text[:MAX_CAPTION] + '…'

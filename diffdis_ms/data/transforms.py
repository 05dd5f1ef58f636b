"""From image bytes to arrays and back: decoding of untrusted files, resize and crop, value ranges."""
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from diffdis_ms.config import CLIP_MEAN, CLIP_STD

MAX_PIXELS = 64_000_000
MIN_SIDE = 8

# Pillow knows formats that call other programs (EPS) or have seen little use; these are the ones data sets hold.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.ppm')

_MAX_ASPECT = 16

# decode_image refuses by its own, lower limit; Pillow's warning on the way there would only be noise.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


class BadImage(ValueError):
    """An image that cannot be used; the message is one line that says why."""


def decode_image(source, max_pixels=MAX_PIXELS, as_stored=False):
    """Decode an image that nobody has checked.

    Args:
        source: the file's bytes, or its path.
        max_pixels: refuse a picture whose header announces more, before any pixel is decoded.
        as_stored: Pillow's `convert('RGB')` alone, as torch-fidelity and CLIP read pictures: not turned upright, transparency dropped.

    Returns:
        PIL image, mode RGB; unless as_stored: EXIF orientation applied, transparent pixels composited on white, first frame of an animation.

    Raises:
        BadImage: empty, unreadable, truncated, too large or with a side below 8 pixels.
    """
    if isinstance(source, (str, Path)):
        try:
            source = Path(source).read_bytes()
        except OSError as e:
            raise BadImage(f'cannot be read: {e.strerror or e}') from None
    if not source:
        raise BadImage('empty file')
    try:
        image = Image.open(io.BytesIO(source), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise BadImage('not an image of a known format') from None
    except Image.DecompressionBombError:
        raise BadImage(f'more than {max_pixels} pixels') from None
    except Exception as e:                       # whatever a decoder makes of arbitrary bytes
        raise BadImage(f'header cannot be decoded: {_one_line(e)}') from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f'{width} x {height} is more than {max_pixels} pixels')
    if min(width, height) < MIN_SIDE:
        raise BadImage(f'{width} x {height}: a side is below {MIN_SIDE} pixels')
    try:
        image.load()
        return image.convert('RGB') if as_stored else _to_rgb(_upright(image))
    except Exception as e:
        raise BadImage(f'pixels cannot be decoded: {_one_line(e)}') from None


def resize_center_crop(image, size, interpolation='bicubic', mode='shortest'):
    """Resize the shorter side to `size` (antialiased) and cut out the centre, as CLIP does.

    Args:
        image: PIL image. size: pixels.
        interpolation: name of one of Pillow's, in small letters.
        mode: 'shortest', or 'squash': both sides are resized to `size`, nothing is cut.

    Returns:
        PIL image, size x size.
    """
    resampling = Image.Resampling[interpolation.upper()]
    if mode == 'squash':
        return image if image.size == (size, size) else image.resize((size, size), resampling)
    width, height = image.size
    limit = _MAX_ASPECT * min(width, height)
    if max(width, height) > limit:               # only the centre is kept, and the resized strip could be huge
        image = _center_crop(image, min(width, limit), min(height, limit))
        width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    image = image.resize((size * width // short, size * height // short), resampling)
    return _center_crop(image, size, size)


def to_pixels(image):
    """PIL RGB image -> uint8 (3, H, W)."""
    return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


def normalize(pixels):
    """uint8 (..., 3, H, W) -> float32 in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_image(array):
    """float (3, H, W) in [-1, 1], values beyond clipped -> PIL RGB image."""
    pixels = np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def clip_normalize(array, mean=CLIP_MEAN, std=CLIP_STD):
    """float32 (..., 3, H, W) in [-1, 1] -> float32 with the mean and standard deviation (of colours in 0..1) taken out."""
    mean = np.array(mean, np.float32)[:, None, None]
    std = np.array(std, np.float32)[:, None, None]
    return ((array + 1) / 2 - mean) / std


def _upright(image):
    try:
        if not 2 <= image.getexif().get(ExifTags.Base.Orientation, 1) <= 8:
            return image                         # exif_transpose would copy it
        return ImageOps.exif_transpose(image)
    except Exception:                            # broken EXIF beside sound pixels: common in photos from the web
        return image


def _to_rgb(image):
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    if image.mode.startswith('I'):               # 16 bits a pixel; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert('RGB')
    return image if image.mode == 'RGB' else image.convert('RGB')                # convert would copy it


def _center_crop(image, width, height):
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _one_line(error):
    return ' '.join(str(error).split()) or type(error).__name__


def image_grid(images, columns=None, gap=2):
    """Images of one size on one white sheet, row by row (columns: about as many as rows)."""
    columns = columns or int(np.ceil(len(images) ** 0.5))
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new('RGB', (columns * (width + gap) - gap, rows * (height + gap) - gap), 'white')
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet

"""Convert image files to arrays and back: decode untrusted files, resize and crop, scale values."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from diffdis_ms.config import CLIP_MEAN, CLIP_STD
from diffdis_ms.errors import BadImage
from diffdis_ms.pixels import to_uint8, to_unit_range

MAX_PIXELS = 64_000_000
MIN_SIDE = 8

# Some of Pillow's formats call other programs (EPS) or are rarely used. These are the formats of data sets.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
# Their suffixes. If a sample has several images, the first in this order is used: open_clip's jpg, png, jpeg, webp,
# then the others.
# fmt: off
IMAGE_SUFFIXES = (
    '.jpg', '.png', '.jpeg', '.webp', '.jfif', '.jpe', '.jif', '.apng', '.gif', '.bmp', '.dib', '.tif', '.tiff', '.ppm',
    '.pgm', '.pbm', '.pnm',
)
# fmt: on

_MAX_ASPECT = 16

# decode_image has its own, lower limit, so Pillow's warning is not needed.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def decode_image(source, max_pixels=MAX_PIXELS, as_stored=False):
    """Decode an untrusted image.

    Args:
        source: the file's bytes, or its path.
        max_pixels: refuse an image with more pixels in its header, before any pixel is decoded.
        as_stored: use only Pillow's `convert('RGB')`, as torch-fidelity and CLIP do: EXIF orientation is ignored and
            transparency dropped. Pixels of more than 8 bits are scaled as always.

    Returns:
        PIL image, mode RGB, first frame of an animation. Unless as_stored, EXIF orientation is applied and transparent
        pixels are composited on white.

    Raises:
        BadImage: the image is empty, unreadable, truncated, too large or has a side below 8 pixels; or its pixels have
            more than 8 bits and their range is not declared.
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
    except Exception as e:  # decoders raise anything on arbitrary bytes
        raise BadImage(f'header cannot be decoded: {_one_line(e)}') from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f'{width} x {height} is more than {max_pixels} pixels')
    if min(width, height) < MIN_SIDE:
        raise BadImage(f'{width} x {height}: a side is below {MIN_SIDE} pixels')
    try:
        # pixel modes in the file; not available after loading
        raw = str([tile[3] for tile in getattr(image, 'tile', ())])
        image.load()
        shallow = _eight_bits(image, raw, source)
        if shallow is not image and image.getexif().get(ExifTags.Base.Orientation):
            shallow.getexif()[ExifTags.Base.Orientation] = image.getexif()[ExifTags.Base.Orientation]
        image = shallow
        return image.convert('RGB') if as_stored else _to_rgb(_upright(image))
    except BadImage:
        raise
    except Exception as e:
        raise BadImage(f'pixels cannot be decoded: {_one_line(e)}') from None


def resize_center_crop(image, size, interpolation='bicubic', mode='shortest'):
    """Resize the shorter side to `size` (antialiased) and crop the centre, as CLIP does.

    Args:
        image: PIL image. size: pixels.
        interpolation: name of a Pillow filter, in lower case.
        mode: 'shortest', or 'squash': resize both sides to `size` without cropping.

    Returns:
        PIL image, size x size.
    """
    resampling = Image.Resampling[interpolation.upper()]
    if mode == 'squash':
        return image if image.size == (size, size) else image.resize((size, size), resampling)
    width, height = image.size
    limit = _MAX_ASPECT * min(width, height)
    if max(width, height) > limit:  # crop first: only the centre is kept, and the resized strip could be huge
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


def to_image(array):
    """float (3, H, W) in [-1, 1] -> PIL RGB image; values outside are clipped."""
    return Image.fromarray(np.ascontiguousarray(to_uint8(array).transpose(1, 2, 0)))


def clip_normalize(pixels, mean=CLIP_MEAN, std=CLIP_STD):
    """Pixels (..., 3, H, W) as for `to_unit_range` -> float32, normalised with mean and standard deviation of 0..1."""
    mean = np.array(mean, np.float32)[:, None, None]
    std = np.array(std, np.float32)[:, None, None]
    return ((to_unit_range(pixels) + 1) / 2 - mean) / std


def _upright(image):
    try:
        if not 2 <= image.getexif().get(ExifTags.Base.Orientation, 1) <= 8:
            return image  # avoids the copy by exif_transpose
        return ImageOps.exif_transpose(image)
    except Exception:  # photos from the web often have broken EXIF data but good pixels
        return image


def _eight_bits(image, raw, source):
    """Scale an image with more than 8 bits per channel to 8 bits; others are unchanged.

    Pillow's own conversion would clip at 255. The range is the one declared in the file: a TIFF's MaxSampleValue or
    BitsPerSample, a PNG's sBIT, a PPM's maximum (Pillow scales by it); or 0 to 1 for floats that fill it. 12- or 10-bit
    images are often declared as 16 bits, so an image that uses at most a quarter of its range is refused.

    Args:
        image: loaded image. raw: modes of its tiles, as text. source: the file's bytes.

    Raises:
        BadImage: the range is not known.
    """
    if image.mode != 'F' and not image.mode.startswith('I'):
        if (
            ';16' in raw
            and image.mode in ('RGB', 'RGBA', 'LA', 'RGBX')
            and max(high for _, high in _extrema(image)) < 64
        ):
            raise BadImage('16 bits per channel, but at most 14 are used: its range is not declared')
        return image
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    declared = _declared_range(image, source, high)
    if declared is None or not 0 <= low <= high <= declared:  # also true for NaN
        kind = 'floats' if image.mode == 'F' else f'{8 * pixels.dtype.itemsize}-bit grey values'
        raise BadImage(f'{kind} from {low:g} to {high:g}: the value of white is not declared')
    return Image.fromarray(
        np.clip(pixels * (256 / (declared + 1)) if declared > 255 else pixels * (255 / declared), 0, 255).astype(
            np.uint8
        )
    )


def _declared_range(image, source, high):
    """The value of white, or None if it is not known. `high` is the largest value in the image."""
    tags = getattr(image, 'tag_v2', {})
    maximum = tags.get(341, tags.get(281))  # SMaxSampleValue, MaxSampleValue
    maximum = maximum[0] if isinstance(maximum, tuple) else maximum
    # many programs write these, whatever the values are
    if maximum is not None and (image.mode == 'F' or maximum != 65535):
        return float(maximum) if maximum > 0 else None
    if image.mode == 'F':
        return 1.0 if 0.25 < high <= 1 else None
    if image.format == 'TIFF':
        bits = tags.get(258, (16,))[0]
    elif image.format == 'PNG':
        head = source[: max(0, source.find(b'IDAT'))]
        bits = head[head.find(b'sBIT') + 4] if b'sBIT' in head else 16
        # according to the standard, values are scaled to the full 16 bits
        bits = bits if high < 1 << bits else 16
    elif image.format == 'PPM':
        return 65535.0  # Pillow has scaled the values
    else:
        return None
    return (1 << bits) - 1.0 if bits < 16 or bits == 16 and high > 16383 else None


def _extrema(image):
    extrema = image.getextrema()
    return (extrema if isinstance(extrema[0], tuple) else (extrema,))[: 1 if image.mode == 'LA' else 3]


def _to_rgb(image):
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image if image.mode == 'RGB' else image.convert('RGB')  # avoids a copy


def _center_crop(image, width, height):
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _one_line(error):
    return ' '.join(str(error).split()) or type(error).__name__


def image_grid(images, columns=None, gap=2):
    """Arrange images of one size on a white sheet, row by row (default: about as many columns as rows)."""
    columns = columns or int(np.ceil(len(images) ** 0.5))
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new('RGB', (columns * (width + gap) - gap, rows * (height + gap) - gap), 'white')
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet

"""From image bytes to arrays and back: decoding of untrusted files, resize and crop, value ranges."""

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

# Pillow knows formats that call other programs (EPS) or have seen little use; these are the ones data sets hold.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
# Their suffixes. Where a sample has several pictures the first of these is taken: open_clip's jpg, png, jpeg, webp,
# then the others.
# fmt: off
IMAGE_SUFFIXES = (
    '.jpg', '.png', '.jpeg', '.webp', '.jfif', '.jpe', '.jif', '.apng', '.gif', '.bmp', '.dib', '.tif', '.tiff', '.ppm',
    '.pgm', '.pbm', '.pnm',
)
# fmt: on

_MAX_ASPECT = 16

# decode_image refuses by its own, lower limit; Pillow's warning on the way there would only be noise.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def decode_image(source, max_pixels=MAX_PIXELS, as_stored=False):
    """Decode an image that nobody has checked.

    Args:
        source: the file's bytes, or its path.
        max_pixels: refuse a picture whose header announces more, before any pixel is decoded.
        as_stored: Pillow's `convert('RGB')` alone, as torch-fidelity and CLIP read pictures: not turned upright,
            transparency dropped
            (but deep pixels are scaled as always).

    Returns:
        PIL image, mode RGB; unless as_stored: EXIF orientation applied, transparent pixels composited on white, first
        frame of an animation.

    Raises:
        BadImage: empty, unreadable, truncated, too large or with a side below 8 pixels; deep pixels whose range
            nothing declares.
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
    except Exception as e:  # whatever a decoder makes of arbitrary bytes
        raise BadImage(f'header cannot be decoded: {_one_line(e)}') from None
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(f'{width} x {height} is more than {max_pixels} pixels')
    if min(width, height) < MIN_SIDE:
        raise BadImage(f'{width} x {height}: a side is below {MIN_SIDE} pixels')
    try:
        # how pixels lie in the file; gone once they are loaded
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
    if max(width, height) > limit:  # only the centre is kept, and the resized strip could be huge
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
    """float (3, H, W) in [-1, 1], values beyond clipped -> PIL RGB image."""
    return Image.fromarray(np.ascontiguousarray(to_uint8(array).transpose(1, 2, 0)))


def clip_normalize(pixels, mean=CLIP_MEAN, std=CLIP_STD):
    """Pixels (..., 3, H, W) as for `to_unit_range` -> float32 with the mean and standard deviation (of colours in 0..1)
    taken out."""
    mean = np.array(mean, np.float32)[:, None, None]
    std = np.array(std, np.float32)[:, None, None]
    return ((to_unit_range(pixels) + 1) / 2 - mean) / std


def _upright(image):
    try:
        if not 2 <= image.getexif().get(ExifTags.Base.Orientation, 1) <= 8:
            return image  # exif_transpose would copy it
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF beside sound pixels: common in photos from the web
        return image


def _eight_bits(image, raw, source):
    """A picture of deep pixels as one of 8 bits; any other as it is. Pillow's own conversion would clip at 255.

    The range is what the file declares: a TIFF's MaxSampleValue or BitsPerSample, a PNG's sBIT, a PPM's maximum (Pillow
    scales by it); 0 to 1 for floats that fill it. Sixteen bits are often declared of 12 or 10: a picture that uses no
    more than a quarter of its range is not known well enough.

    Args:
        image: loaded. raw: modes of its tiles, as text. source: the file's bytes.

    Raises:
        BadImage: the range is not known.
    """
    if image.mode != 'F' and not image.mode.startswith('I'):
        if (
            ';16' in raw
            and image.mode in ('RGB', 'RGBA', 'LA', 'RGBX')
            and max(high for _, high in _extrema(image)) < 64
        ):
            raise BadImage('16 bits a channel, of which no more than 14 are used: its range is not declared')
        return image
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    declared = _declared_range(image, source, high)
    if declared is None or not 0 <= low <= high <= declared:  # NaN is none of them
        kind = 'floats' if image.mode == 'F' else f'{8 * pixels.dtype.itemsize}-bit grey values'
        raise BadImage(f'{kind} from {low:g} to {high:g}: which value is white is not declared')
    return Image.fromarray(
        np.clip(pixels * (256 / (declared + 1)) if declared > 255 else pixels * (255 / declared), 0, 255).astype(
            np.uint8
        )
    )


def _declared_range(image, source, high):
    """The value that is white, or None where it is not known. `high`: the greatest there is."""
    tags = getattr(image, 'tag_v2', {})
    maximum = tags.get(341, tags.get(281))  # SMaxSampleValue, MaxSampleValue
    maximum = maximum[0] if isinstance(maximum, tuple) else maximum
    # what many write whatever the values are
    if maximum is not None and (image.mode == 'F' or maximum != 65535):
        return float(maximum) if maximum > 0 else None
    if image.mode == 'F':
        return 1.0 if 0.25 < high <= 1 else None
    if image.format == 'TIFF':
        bits = tags.get(258, (16,))[0]
    elif image.format == 'PNG':
        head = source[: max(0, source.find(b'IDAT'))]
        bits = head[head.find(b'sBIT') + 4] if b'sBIT' in head else 16
        # by the standard values are scaled to all 16
        bits = bits if high < 1 << bits else 16
    elif image.format == 'PPM':
        return 65535.0  # Pillow has scaled it
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
    return image if image.mode == 'RGB' else image.convert('RGB')  # convert would copy it


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

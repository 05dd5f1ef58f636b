"""Decoding of untrusted images, resizing and value ranges."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.transforms import clip_normalize, decode_image, resize_center_crop, to_image, to_pixels
from diffdis_ms.errors import BadImage
from diffdis_ms.pixels import to_unit_range


def encoded(image, kind='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width=40, height=30, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def png_header(width, height):
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + body + struct.pack('>I', zlib.crc32(body)) + b'\0\0\0\0IDAT'


def test_lossless_image_is_decoded_exactly_from_bytes_and_path(tmp_path):
    array = noise()
    (tmp_path / 'a.png').write_bytes(encoded(Image.fromarray(array)))
    for source in ((tmp_path / 'a.png').read_bytes(), tmp_path / 'a.png', str(tmp_path / 'a.png')):
        image = decode_image(source)
        assert image.mode == 'RGB'
        np.testing.assert_array_equal(np.asarray(image), array)


@pytest.mark.parametrize(
    'content', [b'', b'no image', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', png_header(20, 20)]
)
def test_what_is_no_image_is_refused_in_one_line(content):
    with pytest.raises(BadImage) as error:
        decode_image(content)
    assert str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
def test_truncated_image_is_refused(kind):
    content = encoded(Image.fromarray(noise(200, 200)), kind)
    with pytest.raises(BadImage):
        decode_image(content[: len(content) // 2])


@pytest.mark.parametrize('side', [9000, 20000, 2**31 - 1])
def test_bomb_is_refused_by_its_header(side):
    with pytest.raises(BadImage, match='pixels'):
        decode_image(png_header(side, side))


def test_tiny_and_missing_images_are_refused(tmp_path):
    with pytest.raises(BadImage, match='below 8'):
        decode_image(encoded(Image.new('RGB', (7, 100))))
    with pytest.raises(BadImage, match='No such file'):
        decode_image(tmp_path / 'none.png')


def test_transparent_pixels_become_white():
    array = noise(channels=4)
    array[:, :20, 3], array[:, 20:, 3] = 0, 255
    seen = np.asarray(decode_image(encoded(Image.fromarray(array, 'RGBA'))))
    assert (seen[:, :20] == 255).all()
    np.testing.assert_array_equal(seen[:, 20:], array[:, 20:, :3])
    palette = Image.fromarray(noise(10, 10)).quantize(8)
    palette.paste(3, (0, 0, 10, 10))
    assert (np.asarray(decode_image(encoded(palette, transparency=3))) == 255).all()


def test_sixteen_bit_grey_keeps_its_range():
    grey = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (16, 1))
    seen = np.asarray(decode_image(encoded(Image.fromarray(grey))))
    assert seen.min() == 0 and seen.max() == 255 and abs(int(seen[0, 32, 0]) - 129) < 3


GREY = np.tile(np.linspace(0, 1, 64), (16, 1))


def png16(values, colour, *chunks):
    """A PNG of 16 bits a channel, values as given; Pillow writes grey ones only."""
    height, width = values.shape[:2]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values.astype(int))
    made = b'\x89PNG\r\n\x1a\n'
    for name, body in (
        (b'IHDR', struct.pack('>IIBBBBB', width, height, 16, colour, 0, 0, 0)),
        *chunks,
        (b'IDAT', zlib.compress(rows)),
        (b'IEND', b''),
    ):
        made += struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
    return made


def tiff(values, kind, **tags):
    return encoded(
        Image.fromarray(values.astype(kind)),
        'TIFF',
        **({'tiffinfo': {int(tag[1:]): value for tag, value in tags.items()}} if tags else {}),
    )


@pytest.mark.parametrize('as_stored', [False, True])
@pytest.mark.parametrize(
    'content',
    [
        encoded(Image.fromarray((GREY * 65535).astype(np.uint16))),
        tiff(GREY * 65535, np.uint16),
        tiff(GREY * 4095, np.uint16, t281=4095),
        tiff(GREY, np.float32),
        tiff(GREY * 65535, np.float32, t341=65535.0),
        tiff(GREY * 255, np.int32, t281=255),
        b'P5 64 16 65535\n' + (GREY * 65535).astype('>u2').tobytes(),
        b'P5 64 16 4095\n' + (GREY * 4095).astype('>u2').tobytes(),
        b'P6 64 16 1023\n' + np.repeat((GREY * 1023).astype('>u2')[..., None], 3, 2).tobytes(),
        png16(GREY * 4095, 0, (b'sBIT', b'\x0c')),
        png16(GREY * 65535, 0, (b'sBIT', b'\x0c')),
        png16(np.repeat(GREY[..., None] * 65535, 3, 2), 2),
    ],
)
def test_deep_pixels_are_scaled_by_their_declared_range(content, as_stored):
    seen = np.asarray(decode_image(content, as_stored=as_stored)).astype(int)
    assert seen.shape == (16, 64, 3) and np.abs(seen - 255 * GREY[..., None]).max() < 2


@pytest.mark.parametrize('as_stored', [False, True])
@pytest.mark.parametrize(
    'content',
    [
        encoded(Image.fromarray((GREY * 4095).astype(np.uint16))),
        encoded(Image.fromarray((GREY * 255).astype(np.uint16))),
        tiff(GREY * 4095, np.uint16),
        tiff(GREY * 1023, np.uint16, t281=65535),
        tiff(GREY * 255, np.int32),
        tiff(GREY * 65535, np.int32),
        tiff(GREY * 65535, np.float32),
        tiff(GREY * 255, np.float32),
        tiff(GREY * 2 - 1, np.float32),
        tiff(GREY * np.nan, np.float32),
        png16(np.repeat(GREY[..., None] * 4095, 3, 2), 2),
        png16(np.stack([GREY * 4095, 0 * GREY + 65535], 2), 4),
    ],
)
def test_deep_pixels_of_unknown_range_are_refused(content, as_stored):
    with pytest.raises(BadImage, match='not declared') as error:
        decode_image(content, as_stored=as_stored)
    assert '\n' not in str(error.value)


def test_deep_pixels_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(Image.fromarray((GREY * 65535).astype(np.uint16)), 'PNG', exif=exif)).size == (16, 64)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: to be turned by 90 degrees
    assert decode_image(encoded(Image.new('RGB', (40, 20)), 'JPEG', exif=exif)).size == (20, 40)
    assert decode_image(encoded(Image.new('RGB', (40, 20)), 'JPEG', exif=b'Exif\0\0broken')).size == (40, 20)


@pytest.mark.parametrize('size', [(100, 60), (60, 100), (33, 32), (20, 50), (8, 30000)])
def test_resize_center_crop_gives_a_square_of_the_centre(size):
    image = Image.new('RGB', size, 'red')
    width, height = size
    short = min(size)
    image.paste('blue', ((width - short) // 2, (height - short) // 2, (width + short) // 2, (height + short) // 2))
    out = resize_center_crop(image, 32)
    assert out.size == (32, 32)
    inner = np.asarray(out)[4:-4, 4:-4]
    assert (inner[..., 2] > 200).all() and (inner[..., 0] < 50).all()


def test_resizing_is_antialiased():
    board = np.indices((256, 256)).sum(0) % 2 * 255
    seen = np.asarray(resize_center_crop(Image.fromarray(board.astype(np.uint8)).convert('RGB'), 32))[4:-4, 4:-4]
    assert np.abs(seen.astype(int) - 127).max() < 8


def test_pixels_and_values_go_round():
    image = Image.fromarray(noise(16, 16))
    pixels = to_pixels(image)
    assert pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8
    values = to_unit_range(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32 and values[0] == -1 and values[-1] == 1
    np.testing.assert_array_equal(np.asarray(to_image(to_unit_range(pixels))), np.asarray(image))
    assert np.asarray(to_image(np.full((3, 8, 8), 7.0))).min() == 255


def test_clip_normalize_is_openais_constants():
    out = clip_normalize(np.zeros((2, 3, 4, 4), np.float32))
    assert out.dtype == np.float32 and out.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(
        out[0, :, 0, 0],
        [(0.5 - 0.48145466) / 0.26862954, (0.5 - 0.4578275) / 0.26130258, (0.5 - 0.40821073) / 0.27577711],
        rtol=1e-5,
    )

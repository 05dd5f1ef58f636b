"""Decoding of untrusted images, resizing and value ranges."""
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.transforms import BadImage, clip_normalize, decode_image, normalize, resize_center_crop, to_image, to_pixels


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


@pytest.mark.parametrize('content', [b'', b'no image', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', png_header(20, 20)])
def test_what_is_no_image_is_refused_in_one_line(content):
    with pytest.raises(BadImage) as error:
        decode_image(content)
    assert str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
def test_truncated_image_is_refused(kind):
    content = encoded(Image.fromarray(noise(200, 200)), kind)
    with pytest.raises(BadImage):
        decode_image(content[:len(content) // 2])


@pytest.mark.parametrize('side', [9000, 20000, 2 ** 31 - 1])
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


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6                             # the camera was held upright: to be turned by 90 degrees
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
    values = normalize(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32 and values[0] == -1 and values[-1] == 1
    np.testing.assert_array_equal(np.asarray(to_image(normalize(pixels))), np.asarray(image))
    assert np.asarray(to_image(np.full((3, 8, 8), 7.0))).min() == 255


def test_clip_normalize_is_openais_constants():
    out = clip_normalize(np.zeros((2, 3, 4, 4), np.float32))
    assert out.dtype == np.float32 and out.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(out[0, :, 0, 0], [(0.5 - 0.48145466) / 0.26862954, (0.5 - 0.4578275) / 0.26130258,
                                                 (0.5 - 0.40821073) / 0.27577711], rtol=1e-5)

"""FID, KID, CLIP-score and what surrounds them against direct computations; the command's complaints."""

import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate import generation, inception
from diffdis_ms.evaluate.clip_model import open_clip_directory
from diffdis_ms.evaluate.clip_score import clip_score
from diffdis_ms.evaluate.inception import build_inception, cache_file, open_inception, read_cached, resize, write_cached
from diffdis_ms.evaluate.metrics.fid import fid, kid
from diffdis_ms.evaluate.pictures import content_sha256, list_images, over_images, read_captions, read_rgb, sizes_of
from tests.workspace import ROOT, assert_one_line_error, command, make_pictures

# the numbers


def test_fid_of_known_gaussians():
    """Whitened samples have mean 0 and covariance 1 exactly; two affine images with matrices that commute have a
    distance by hand."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    a, b, shift = rng.uniform(0.5, 3, 6), rng.uniform(0.5, 3, 6), rng.standard_normal(6)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    expected = (shift**2).sum() + ((a - b) ** 2).sum()
    assert fid(x * a @ rotation, (x * b + shift) @ rotation) == pytest.approx(expected, rel=1e-9)


def test_fid_is_that_of_a_matrix_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 20)) @ rng.standard_normal((20, 20))
    y = rng.standard_normal((200, 20)) @ rng.standard_normal((20, 20)) + 1
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert fid(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('count', [10, 400])
def test_fid_of_a_set_with_itself(count):
    x = np.random.default_rng(2).standard_normal((count, 64)).astype(np.float32)  # 10: singular covariances
    assert abs(fid(x, x)) < 1e-5 * 64


def test_kid_is_the_double_loop():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((25, 5)) + 0.5
    order, n, found = np.random.RandomState(7), 8, []
    for _ in range(4):
        a = x[order.choice(30, n, replace=False)]
        b = y[order.choice(25, n, replace=False)]
        value = 0.0
        for i in range(n):
            for j in range(n):
                if i != j:
                    value += ((a[i] @ a[j] / 5 + 1) ** 3 + (b[i] @ b[j] / 5 + 1) ** 3) / (n * (n - 1))
                value -= 2 * (a[i] @ b[j] / 5 + 1) ** 3 / n**2
        found.append(value)
    assert kid(x, y, subsets=4, subset_size=n, seed=7) == pytest.approx((np.mean(found), np.std(found)), rel=1e-9)
    assert kid(x, y, subsets=2, subset_size=n, degree=2, gamma=0.3, coef0=0.5) != pytest.approx(
        kid(x, y, subsets=2, subset_size=n)
    )


def test_fid_and_kid_do_not_depend_on_the_threads():
    """msrun sets OMP_NUM_THREADS in its processes."""
    code = """
import numpy as np
from diffdis_ms.evaluate.metrics.fid import fid, kid
rng = np.random.default_rng(0)
x, y = rng.standard_normal((300, 400)), rng.standard_normal((200, 400))
print(repr(fid(x, y)), repr(kid(x, y, subsets=2, subset_size=150)))
"""
    found = [
        subprocess.run(
            [sys.executable, '-c', code],
            cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': threads},
            capture_output=True,
            text=True,
        )
        for threads in ('1', '2')
    ]
    assert found[0].returncode == 0 and found[0].stdout == found[1].stdout, found


def test_what_fid_and_kid_refuse():
    x = np.zeros((40, 3))
    with pytest.raises(ConfigError, match='1000 images.*40 real and 40 generated.*--kid-subset-size 40'):
        kid(x, x)
    with pytest.raises(ConfigError, match='at least 1 subset'):
        kid(x, x, subsets=0)
    with pytest.raises(ConfigError, match='at least 2 images'):
        fid(x, x[:1])
    with pytest.raises(ConfigError, match='NaN'):
        fid(x, x * np.nan)


def test_clip_score_and_its_options():
    images = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    texts = np.array([[1, 0], [0, -1], [0.8, 0.6]], np.float32)
    assert clip_score(images, texts) == pytest.approx(100 * (1 - 1 + 0.96) / 3)
    assert clip_score(images, texts, clip=True, weight=2.5) == pytest.approx(2.5 * (1 + 0 + 0.96) / 3)


def test_resize_by_hand():
    """Output i reads position i * 2 / 4: no half-pixel shift, the last one held."""
    x = np.array([[[0.0], [10.0]], [[20.0], [30.0]]])
    np.testing.assert_array_equal(
        resize(x, 4)[..., 0], [[0, 5, 10, 10], [10, 15, 20, 20], [20, 25, 30, 30], [20, 25, 30, 30]]
    )


# pictures and captions


def test_pictures_are_those_of_the_folder_sorted(tmp_path):
    make_pictures(tmp_path, 3)
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / '._00000.png').write_text('a file of macOS')
    make_pictures(tmp_path / 'inner.png', 2)  # a folder
    assert [p.name for p in list_images(tmp_path)] == ['00000.png', '00001.png', '00002.png']
    for folder, words in (
        (tmp_path / 'none', 'does not exist'),
        (tmp_path / 'notes.txt', 'not a folder'),
        (tmp_path / 'empty', 'contains no images'),
    ):
        (tmp_path / 'empty').mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=words):
            list_images(folder)


def test_prompts_choose_the_pictures(tmp_path):
    make_pictures(tmp_path, 3)
    (tmp_path / '00002.png').rename(tmp_path / 'grid.png')
    prompts = tmp_path / 'prompts.json'
    prompts.write_text(json.dumps({'prompts': {'00001.png': 'b', '00000.png': 'a'}}))
    with pytest.warns(UserWarning, match='leaving out 1 image'):
        paths = list_images(tmp_path)
    assert [p.name for p in paths] == ['00000.png', '00001.png'] and read_captions(prompts, paths) == ['a', 'b']
    prompts.write_text(json.dumps({'prompts': {'00000.png': 'a', '../x.png': 'b'}}))
    with pytest.raises(ConfigError, match='x.png'):
        list_images(tmp_path)


@pytest.mark.parametrize(
    'name, text, words',
    [
        ('c.txt', 'one\ntwo\n', '2 captions for 3 images'),
        ('c.txt', 'one\n\nthree\n', 'line 2 is empty'),
        ('c.txt', 'caf\xe9\n'.encode('latin-1'), 'UTF-8'),
        ('c.json', '{"prompts": {"00000.png": "a", "00001.png": "b"}}', 'no caption for 00002.png'),
        (
            'c.json',
            '{"prompts": {"00000.png": "a", "00001.png": "b", "00002.png": "c", "9.png": "d"}}',
            '9.png, which is not among',
        ),
        ('c.json', '{"prompts": ["a"]}', 'is expected'),
        ('c.json', '{', 'damaged'),
        ('c.json', '{"prompts": {"a.png": "\\ud800"}}', 'lone surrogate'),
        ('absent.txt', None, 'absent.txt'),
    ],
)
def test_captions_that_do_not_fit(tmp_path, name, text, words):
    paths = list_images(make_pictures(tmp_path / 'set', 3))
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=words):
        read_captions(tmp_path / name, paths)


def test_captions_one_a_line(tmp_path):
    (tmp_path / 'c.txt').write_bytes('\ufeffein Bär\r\ntwo\u2028parts\r\n'.encode())
    assert read_captions(tmp_path / 'c.txt', list_images(make_pictures(tmp_path / 'set', 2))) == [
        'ein Bär',
        'two\u2028parts',
    ]


def test_captions_in_any_marked_encoding(tmp_path):
    paths = list_images(make_pictures(tmp_path / 'set', 2))
    for encoding in ('utf-8', 'utf-8-sig', 'utf-16', 'utf-32'):
        (tmp_path / 'c.txt').write_bytes('ein Bär\x0con a hill\ntwo\x85parts'.encode(encoding))
        assert read_captions(tmp_path / 'c.txt', paths) == ['ein Bär\x0con a hill', 'two\x85parts']


def named_pictures(folder, names):
    folder.mkdir()
    for name in names:
        Image.new('RGB', (8, 8)).save(folder / name)
    return list_images(folder)


@pytest.mark.parametrize(
    'names',
    [
        [f'{i}.png' for i in range(12)],
        [f'{i:02d}.png' for i in range(12)],
        [f'{i}.{"jpg" if i % 2 else "png"}' for i in range(1, 13)],
        ['img.png', *(f'img{i:02d}.png' for i in range(1, 12))],
        ['-.png', 'a.png', 'b1.png', 'b2.png'],
    ],
)
def test_captions_go_to_pictures_by_number(tmp_path, names):
    paths = named_pictures(tmp_path / 'set', names)
    (tmp_path / 'c.txt').write_text(''.join(f'caption of {name}\n' for name in names))
    assert read_captions(tmp_path / 'c.txt', paths) == [f'caption of {path.name}' for path in paths]


@pytest.mark.parametrize(
    'names, words',
    [
        (['a_2.png', 'a_10.png', 'b.png'], 'does a_2.png or a_10.png come first'),
        (['1.png', '01.png'], 'the same number'),
        (['7.png', '7.jpg'], 'the same number'),
        (['2.png', '10.png', 'x.png'], 'does 2.png or 10.png come first'),
    ],
)
def test_captions_of_names_without_a_sure_order_are_asked_for_by_name(tmp_path, names, words):
    paths = named_pictures(tmp_path / 'set', names)
    (tmp_path / 'c.txt').write_text('a\n' * len(names))
    with pytest.raises(ConfigError, match=f'{words}.*prompts'):
        read_captions(tmp_path / 'c.txt', paths)
    (tmp_path / 'prompts.json').write_text(json.dumps({'prompts': {name: name for name in names}}))
    assert read_captions(tmp_path / 'prompts.json', paths) == [path.name for path in paths]


def test_features_that_are_not_finite_name_their_picture(tmp_path):
    paths = list_images(make_pictures(tmp_path, 3))
    with pytest.raises(ConfigError, match='1 of the 2 pictures .*00001.png'):
        over_images(lambda x: x, lambda p: np.array([np.inf if p.stem == '00001' else 1], np.float32), paths, 2)


def test_sizes_of_pictures(tmp_path):
    found = sizes_of(list_images(make_pictures(tmp_path, 3)))
    assert found == {
        'sizes': {'24x24': 1, '25x24': 1, '26x24': 1},
        'num_sizes': 3,
        'not_square': {'count': 2, 'names': ['00001.png', '00002.png']},
    }


def test_pictures_are_read_as_stored(tmp_path):
    """Transparent pixels keep their colour and nothing is turned, as in torch-fidelity."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 4), np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / 'a.png')), pixels[..., :3])


def test_order_and_batches(tmp_path):
    paths, calls = list_images(make_pictures(tmp_path, 5)), []

    def network(x):
        calls.append(x.shape)
        return x * 2

    found = over_images(network, lambda p: np.array([int(p.stem)], np.float32), paths, 2)
    np.testing.assert_array_equal(found[:, 0], [0, 2, 4, 6, 8])
    assert calls == [(2, 1)] * 3


# Inception's weights and the cache


def test_weights_that_do_not_fit(weights, tmp_path):
    from safetensors.numpy import load_file

    state = load_file(weights)
    state['Conv2d_1a_3x3.bn.num_batches_tracked'] = np.array(1)
    save_file(state, tmp_path / 'inception.safetensors')
    network = build_inception(*open_inception(tmp_path))  # a directory
    np.testing.assert_array_equal(network.inception.fc.bias.asnumpy(), state['fc.bias'])
    state['fc.bias'], state['AuxLogits.fc.bias'] = np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    del state['fc.weight']
    save_file(state, tmp_path / 'other.safetensors')
    with pytest.raises(
        ConfigError, match='fc.weight is missing; .*fc.bias.*1000.*1008.*; AuxLogits.fc.bias is unexpected'
    ):
        build_inception(*open_inception(tmp_path / 'other.safetensors'))


def fake_network(calls):
    """Stands for Inception: features of a picture that only its pixels decide."""

    def features(network, paths, *args):
        calls.append(paths[0].parent.name)
        seeds = [zlib.crc32(np.asarray(read_rgb(p)).tobytes()) for p in paths]
        return np.stack([np.random.default_rng(seed).standard_normal(16, np.float32) for seed in seeds])

    return features


@pytest.fixture
def measure(weights, tmp_path, monkeypatch):
    """(function that measures, list of folders whose features were computed)."""
    calls = []
    monkeypatch.setattr(inception, 'inception_features', fake_network(calls))
    monkeypatch.setattr(inception, 'build_inception', lambda *args: None)
    monkeypatch.setattr(inception, 'WIDTH', 16)
    make_pictures(tmp_path / 'real', 6), make_pictures(tmp_path / 'fake', 5, seed=1)
    return (
        lambda: generation.evaluate_generation(
            tmp_path / 'real',
            tmp_path / 'fake',
            inception=weights,
            cache_dir=tmp_path / 'cache',
            kid_subsets=3,
            kid_subset_size=4,
        ),
        calls,
    )


def test_cache(measure, tmp_path):
    run, calls = measure
    (tmp_path / 'fake/prompts.json').write_text(
        json.dumps({'steps': 20, 'prompts': {f'{i:05d}.png': 'a' for i in range(5)}})
    )
    first = run()
    assert (
        first['protocol']['drawn_with'] == {'steps': 20}
        and first['protocol']['pictures']['fake']['not_square']['count'] == 4
    )
    assert calls == ['real', 'fake'] and set(first['metrics']) == {'fid', 'kid_mean', 'kid_std'}
    assert run() == first and calls == ['real', 'fake', 'fake']
    assert len(list((tmp_path / 'cache').iterdir())) == 1  # no temporary file is left
    os.rename(tmp_path / 'real', tmp_path / 'moved'), os.rename(tmp_path / 'moved', tmp_path / 'real')
    Image.new('RGB', (20, 20), 'red').save(tmp_path / 'real' / '00003.png')
    changed = run()
    assert calls[3:] == ['real', 'fake'] and changed['metrics']['fid'] != first['metrics']['fid']
    assert changed['protocol']['real_sha256'] != first['protocol']['real_sha256']
    # the name counts, too: it decides KID's subsets
    os.rename(tmp_path / 'real' / '00005.png', tmp_path / 'real' / 'z.png')
    run()
    assert calls[5:] == ['real', 'fake']


@pytest.mark.parametrize('damage', ['cut', 'bit', 'empty', 'pickle', 'shape', 'text'])
def test_damaged_cache_is_computed_again(measure, tmp_path, damage):
    run, calls = measure
    first = run()
    (file,) = (tmp_path / 'cache').iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    if damage in ('pickle', 'shape'):
        np.savez(file, features=np.array([{}], object) if damage == 'pickle' else np.zeros((5, 16), np.float32))
    else:
        file.write_bytes({'cut': data[:-1000], 'bit': data, 'empty': b'', 'text': b'<html>'}[damage])
    with pytest.warns(UserWarning, match='damaged'):
        assert run() == first
    assert calls == ['real', 'fake'] * 2 and read_cached(file, 6) is not None


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.warns(UserWarning, match='cannot be cached'):
        write_cached(tmp_path / 'file' / 'x.npz', np.zeros((2, 2048), np.float32))


def test_cache_lies_where_the_system_wants_it(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_file(None, 'a', 'b').parent == tmp_path / 'diffdis_ms' / 'features'
    assert cache_file(tmp_path, 'a', 'b') != cache_file(tmp_path, 'a', 'c')
    paths = list_images(make_pictures(tmp_path / 'set', 3))
    assert content_sha256(paths) != content_sha256(paths[:2])


# the command


def test_command(weights, clip, tmp_path):
    make_pictures(tmp_path / 'real', 4), make_pictures(tmp_path / 'fake', 3, seed=1)
    (tmp_path / 'captions.txt').write_text('red\nsquare\nblue frame\n')
    # fmt: off
    done = command(
        'tools/evaluate.py', 'generation', '--real', tmp_path / 'real', '--fake', tmp_path / 'fake',
        '--out', tmp_path / 'o' / 'r.json', '--metrics', 'fid,kid,clip_score', '--inception', weights, '--clip', clip,
        '--captions', tmp_path / 'captions.txt', '--batch-size', 2, '--kid-subset-size', 3,
        '--cache-dir', tmp_path / 'cache',
    )
    # fmt: on
    assert done.returncode == 0 and '3 pictures' in done.stdout, done.stderr
    assert (
        '3 real images are not square (00001.png, 00002.png, 00003.png)' in done.stderr
        and '2 fake images' in done.stderr
    )
    result = json.loads((tmp_path / 'o' / 'r.json').read_text())
    assert (
        result['task'] == 'generation'
        and result['num_samples'] == 3
        and set(result['metrics']) == {'fid', 'kid_mean', 'kid_std', 'clip_score'}
    )
    protocol = result['protocol']
    assert (
        protocol['num_real'] == 4
        and protocol['definitions']['clip_score'].startswith('mean over pairs of 100 * cosine')
        and protocol['clip_sha256']
    )


def test_missing_clip_parts_are_named(clip, tmp_path):
    import shutil

    shutil.copytree(clip, tmp_path / 'sd')
    (tmp_path / 'sd' / 'image_encoder.safetensors').unlink()
    with pytest.raises(ConfigError, match='not a CLIP: it lacks image_encoder.safetensors'):
        open_clip_directory(tmp_path / 'sd')


def test_what_is_missing_is_one_line_before_any_network(weights, clip, tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError('a network was built')

    monkeypatch.setattr(inception, 'InceptionV3', never)
    real = make_pictures(tmp_path / 'real', 4)
    fake = make_pictures(tmp_path / 'fake', 3)
    one = make_pictures(tmp_path / 'one', 1)
    (tmp_path / 'bad.pth').write_bytes(b'<html>')
    evaluate = generation.evaluate_generation
    for words, options in (
        ('none of fid, kid, clip_score', {'metrics': ['fid', 'is']}),
        ('name some', {'metrics': []}),
        ('--real is missing', {'real': None}),
        ('--inception is missing', {'inception': None}),
        ('does not exist', {'inception': tmp_path / 'x.pth'}),
        ('HTML', {'inception': tmp_path / 'bad.pth'}),
        ('does not exist', {'fake': tmp_path / 'nowhere'}),
        ('at least 2', {'fake': one}),
        ('--kid-subset-size 3', {}),
        ('batch size 0', {'batch_size': 0}),
        ('--clip is missing', {'metrics': ['clip_score']}),
        ('--captions is missing', {'metrics': ['clip_score'], 'clip': clip}),
        ('not a model directory', {'metrics': ['clip_score'], 'clip': real, 'captions': 'c.txt'}),
    ):
        if 'captions' in options:
            options['captions'] = tmp_path / 'c.txt'
            options['captions'].write_text('a\nb\nc\n')
        with pytest.raises(ConfigError, match=words) as e:
            evaluate(**{'real': real, 'fake': fake, 'inception': weights, 'cache_dir': tmp_path, **options})
        assert '\n' not in str(e.value)


def test_command_complains_in_one_line(weights, tmp_path):
    make_pictures(tmp_path / 'real', 3), make_pictures(tmp_path / 'fake', 3)
    (tmp_path / 'fake' / '00001.png').write_bytes(b'\x89PNG cut')
    paths = ('--fake', tmp_path / 'fake', '--out', tmp_path / 'r.json', '--cache-dir', tmp_path / 'cache')
    assert_one_line_error(command('tools/evaluate.py', 'generation', *paths), '--real is missing')
    # fmt: off
    assert_one_line_error(
        command('tools/evaluate.py', 'generation', '--real', tmp_path / 'fake', *paths,
                '--metrics', 'fid', '--inception', weights, '--batch-size', 2),
        '00001.png', 'repair or remove',
    )
    # fmt: on
    assert not (tmp_path / 'r.json').exists()

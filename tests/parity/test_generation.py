"""FID, KID and CLIP-score against torch-fidelity, open_clip and transformers on the same files; weights are random,
pictures are emoji."""

import inspect
import json
import sys
import types

import numpy as np
import pytest
import torch
from mindspore import nn
from PIL import Image, ImageOps
from transformers import CLIPImageProcessor, CLIPTokenizer

from ckpt_convert.convert import convert
from diffdis_ms.config import ImageEncoderConfig
from diffdis_ms.data.make.emoji import draw_all
from diffdis_ms.data.transforms import CLIP_MEAN, CLIP_STD
from diffdis_ms.evaluate import generation
from diffdis_ms.evaluate import inception as inception_module
from diffdis_ms.evaluate.clip_model import open_clip_directory
from diffdis_ms.evaluate.clip_score import clip_embeddings, preprocess
from diffdis_ms.evaluate.inception import resize
from diffdis_ms.evaluate.metrics.fid import kid
from diffdis_ms.evaluate.pictures import read_rgb
from diffdis_ms.models.inception import InceptionV3
from tests.helpers import make_tiny_config, make_tiny_resnet, randomize
from tests.parity.checkpoints import TorchModels, make_open_clip, write_tokenizer
from tests.parity.weights import check, copy_to_torch, relative_error, settle_batch_norms
from tests.parity.without_torchvision import import_part

FeatureExtractorInceptionV3 = import_part('torch_fidelity.feature_extractor_inceptionv3').FeatureExtractorInceptionV3
like_tensorflow = import_part('torch_fidelity.interpolate_compat_tensorflow').interpolate_bilinear_2d_like_tensorflow1x
WORDS = 600


def import_metric(name):
    """A metric of torch-fidelity without its `utils`, which read data sets with torchvision: features are given
    here."""
    stub = types.ModuleType('torch_fidelity.utils')
    stub.__getattr__ = lambda attribute: None
    sys.modules[stub.__name__] = stub
    try:
        return import_part(f'torch_fidelity.{name}')
    finally:
        del sys.modules[stub.__name__]


metric_fid, metric_kid = import_metric('metric_fid'), import_metric('metric_kid')


@pytest.fixture(scope='module')
def emoji():
    """All emoji at 64 x 64, in the order of their captions: neighbours are alike."""
    return draw_all(64, progress=False)[0]


@pytest.fixture(scope='module')
def inception(emoji, tmp_path_factory):
    return make_inception(tmp_path_factory.mktemp('inception') / 'pt_inception.pth', emoji)


def make_inception(path, emoji):
    """(weights file in the published layout, torch-fidelity's network with it)."""
    cell = randomize(InceptionV3(), 0)
    torch.save(FeatureExtractorWithoutFile().state_dict(), path)
    module = copy_to_torch(FeatureExtractorInceptionV3('inception', ['2048'], str(path)), cell)
    settle_batch_norms(cell, module, torch.stack([to_uint8(e.image) for e in emoji[:: len(emoji) // 16]]))
    torch.save(module.state_dict(), path)
    module = FeatureExtractorInceptionV3('inception', ['2048'], str(path)).eval()
    return path, module.to(memory_format=torch.channels_last)  # the same network, a fifth faster on the CPU


class FeatureExtractorWithoutFile(FeatureExtractorInceptionV3):
    """Freshly initialised; its constructor reads a file or downloads one."""

    def __init__(self):
        load, torch.load = torch.load, lambda *args, **options: None
        try:
            super().__init__('inception', ['2048'], 'none')
        finally:
            torch.load = load

    def load_state_dict(self, *args, **options):
        pass


def to_uint8(image):
    return torch.from_numpy(np.array(image.convert('RGB')).transpose(2, 0, 1).copy())


def save_all(images, folder):
    folder.mkdir()
    for i, image in enumerate(images):
        image.save(folder / f'{i:05d}.png')
    return folder


def inverted(emoji):
    """Pictures with wrong colours. Of sets that are alike torch-fidelity's KID is lost in its rounding: it computes in
    float32, where two halves of the emoji give a deviation that is 2e-3 off that of the same features in float64."""
    return [ImageOps.invert(e.image) for e in emoji]


def torch_features(module, folder, batch=32):
    """As torch-fidelity extracts them: sorted files, `convert('RGB')`, batches as they come."""
    paths = sorted(folder.glob('*.png'))
    with torch.no_grad():
        return torch.cat(
            [
                module(torch.stack([to_uint8(Image.open(p)) for p in paths[i : i + batch]]))[0]
                for i in range(0, len(paths), batch)
            ]
        )


def compare(tmp_path, monkeypatch, inception, real, fake, **options):
    """Features, FID and KID of two lists of pictures, ours by evaluate_generation."""
    path, module = inception
    real, fake = save_all(real, tmp_path / 'real'), save_all(fake, tmp_path / 'fake')
    features, our_fid = [], generation.fid
    monkeypatch.setattr(generation, 'fid', lambda *sets: features.extend(sets) or our_fid(*sets))
    paths = {'inception': path, 'cache_dir': tmp_path / 'cache'}
    ours = generation.evaluate_generation(real, fake, ('fid', 'kid'), **paths, **options)['metrics']
    theirs = [torch_features(module, folder) for folder in (real, fake)]
    for what, a, b in zip(('real', 'fake'), features, theirs, strict=True):
        half = len(b) // 2
        assert relative_error(b[:half], b[-half:]) > 0.02  # the network tells pictures apart (neighbours are alike)
        check(f'features, {what}', torch.from_numpy(a), b, 1e-4)
        rows = np.linalg.norm(a - b.numpy(), axis=1) / np.linalg.norm(b.numpy(), axis=1)
        print(f'features, {what}: worst picture {rows.max():.1e}')
        assert rows.max() <= 1e-4
    expected = metric_fid.fid_statistics_to_metric(*(metric_fid.fid_features_to_statistics(f) for f in theirs), False)
    expected.update(metric_kid.kid_features_to_metric(*theirs, verbose=False, **options))
    for name, other in (
        ('fid', 'frechet_inception_distance'),
        ('kid_mean', 'kernel_inception_distance_mean'),
        ('kid_std', 'kernel_inception_distance_std'),
    ):
        print(
            f'{name}: {ours[name]:.7g}, torch-fidelity {expected[other]:.7g}, relative difference'
            f' {abs(ours[name] / expected[other] - 1):.1e}'
        )
        assert ours[name] == pytest.approx(expected[other], rel=1e-3)


@pytest.mark.parametrize('size', [(64, 64), (48, 100), (299, 299), (640, 333), (8, 1200)])
def test_resize(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = like_tensorflow(
        torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32)), (299, 299), align_corners=False
    )
    np.testing.assert_allclose(resize(pixels, 299).transpose(2, 0, 1), expected[0].numpy(), rtol=0, atol=1e-5)


def test_fid_and_kid(tmp_path, monkeypatch, inception, emoji):
    compare(
        tmp_path,
        monkeypatch,
        inception,
        [e.image for e in emoji[:24]],
        inverted(emoji[2000:2020]),
        batch_size=16,
        kid_subsets=10,
        kid_subset_size=16,
    )


@pytest.mark.slow
def test_fid_and_kid_of_2048_pictures(tmp_path, monkeypatch, emoji):
    """As many pictures as features have numbers, so that covariances have full rank. Both networks see them at 75
    pixels, their least, which takes a tenth of the time; `test_fid_and_kid` has them at 299. KID takes a quarter of
    its subsets, of their usual size."""
    assert len(emoji) >= 3500  # of 3,904 now: the sets share few pictures
    monkeypatch.setattr(inception_module, 'SIZE', 75)
    monkeypatch.setattr(FeatureExtractorInceptionV3, 'INPUT_IMAGE_SIZE', 75)
    inception = make_inception(tmp_path / 'pt_inception.pth', emoji)
    compare(tmp_path, monkeypatch, inception, [e.image for e in emoji[:2048]], inverted(emoji[-2048:]), kid_subsets=25)


@pytest.mark.parametrize('function, prefix', [(generation.evaluate_generation, 'kid_'), (kid, '')])
def test_defaults_are_torch_fidelitys(function, prefix):
    theirs = import_part('torch_fidelity.defaults').DEFAULTS
    names = {f'{prefix}subsets': 'kid_subsets', f'{prefix}subset_size': 'kid_subset_size', 'seed': 'rng_seed'}
    if function is kid:
        names |= {name: f'kid_kernel_poly_{name}' for name in ('degree', 'gamma', 'coef0')}
    defaults = {name: value.default for name, value in inspect.signature(function).parameters.items()}
    assert {name: defaults[name] for name in names} == {name: theirs[other] for name, other in names.items()}


# CLIP-score


@pytest.fixture(scope='module')
def captioned(emoji, tmp_path_factory):
    """A folder of pictures of several sizes and its captions, as tools/sample.py leaves it."""
    chosen = emoji[:: len(emoji) // 9][:9]
    # at 32 pixels no margin is 4k + 3: of half a pixel OpenAI and open_clip round to even, transformers' processor
    # rounds down
    sizes = [(64, 64), (65, 90), (128, 100), (40, 40), (33, 72), (200, 66), (90, 64), (71, 71), (64, 130)]
    folder = save_all(
        [e.image.resize(size) for e, size in zip(chosen, sizes, strict=True)],
        tmp_path_factory.mktemp('captioned') / 'pictures',
    )
    prompts = {f'{i:05d}.png': e.caption for i, e in enumerate(chosen)}
    (folder / 'prompts.json').write_text(json.dumps({'prompts': prompts}))
    return folder, [folder / name for name in prompts], list(prompts.values())


def openai_preprocess(image, size):
    """torchvision's Resize (bicubic), CenterCrop, ToTensor and Normalize, written out."""
    width, height = image.size
    short, long = min(width, height), int(size * max(width, height) / min(width, height))
    if short != size or short != max(width, height):
        image = image.resize((size, long) if width <= height else (long, size), Image.Resampling.BICUBIC)
    top, left = int(round((image.height - size) / 2.0)), int(round((image.width - size) / 2.0))
    x = to_uint8(image.crop((left, top, left + size, top + size))).float() / 255
    return (x - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def compare_scores(captioned, clip, image_embeds, text_embeds):
    folder, paths, captions = captioned
    theirs = [torch.nn.functional.normalize(x, dim=-1) for x in (image_embeds, text_embeds)]
    for what, a, b in zip(
        ('pictures', 'captions'), clip_embeddings(open_clip_directory(clip), paths, captions, 4), theirs, strict=True
    ):
        assert relative_error(b[:1], b[1:2]) > 0.01
        check(what, torch.from_numpy(a), b, 1e-4)
    cosines = (theirs[0] * theirs[1]).sum(1).double()
    for options, expected in (
        ({}, 100 * cosines.mean()),
        ({'clip_at_zero': True, 'clip_weight': 2.5}, 2.5 * cosines.clamp(min=0).mean()),
    ):
        measured = generation.evaluate_generation(None, folder, ['clip_score'], clip=clip, batch_size=4, **options)
        found = measured['metrics']['clip_score']
        print(
            f'CLIP-score: {found:.6f}, expected {expected:.6f}, relative difference'
            f' {abs(found / float(expected) - 1):.1e}'
        )
        assert found == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize('resnet', [True, False])
def test_clip_score_is_open_clips(captioned, tmp_path, resnet):
    config = make_tiny_config()
    config.text_encoder.vocab_size, config.text_encoder.max_position_embeddings = WORDS, 77
    if resnet:
        config.image_encoder = make_tiny_resnet()
    torch.manual_seed(0)
    model = make_open_clip(config.text_encoder, config.image_encoder)
    pixels = torch.stack([openai_preprocess(Image.open(p), config.image_encoder.image_size) for p in captioned[1]])
    if resnet:  # or pictures would hardly differ
        settle_batch_norms(nn.Cell(), model.visual, pixels)
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    write_tokenizer(tmp_path / 'tokenizer', WORDS)
    convert(
        tmp_path / 'clip.pt',
        tmp_path / 'clip',
        kind='clip',
        vocab=tmp_path / 'tokenizer',
        overrides=[
            f'{stem}.{setting}'
            for stem in ('text_encoder', 'image_encoder')
            for setting in ('num_attention_heads=4', 'hidden_act=quick_gelu')
        ],
    )
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / 'tokenizer')
    ids = torch.zeros(len(captioned[2]), 77, dtype=torch.long)  # open_clip fills up with 0
    for row, text in zip(ids, captioned[2], strict=True):
        tokens = tokenizer(text)['input_ids']
        row[: len(tokens)] = torch.tensor(tokens)
    with torch.no_grad():
        compare_scores(captioned, tmp_path / 'clip', model.encode_image(pixels), model.encode_text(ids))


def test_clip_score_is_transformers(captioned, tmp_path):
    config = make_tiny_config()
    config.text_encoder.vocab_size, config.text_encoder.max_position_embeddings = WORDS, 77
    clip = TorchModels(config).clip
    clip.save_pretrained(tmp_path / 'torch')
    write_tokenizer(tmp_path / 'tokenizer', WORDS)
    convert(tmp_path / 'torch', tmp_path / 'clip', vocab=tmp_path / 'tokenizer')
    size = config.image_encoder.image_size
    processor = CLIPImageProcessor(size={'shortest_edge': size}, crop_size={'height': size, 'width': size})
    ids = CLIPTokenizer.from_pretrained(tmp_path / 'tokenizer')(
        captioned[2], padding='max_length', max_length=77, return_tensors='pt'
    )['input_ids']
    with torch.no_grad():
        pixels = processor([Image.open(p) for p in captioned[1]], return_tensors='pt')['pixel_values']
        out = clip(input_ids=ids, pixel_values=pixels)
    for path, expected in zip(captioned[1], pixels, strict=True):
        np.testing.assert_allclose(
            preprocess(read_rgb(path), ImageEncoderConfig(image_size=size)),
            expected.numpy(),
            atol=2e-5,
            err_msg=str(path),
        )
    compare_scores(captioned, tmp_path / 'clip', out.image_embeds, out.text_embeds)

"""Every directory of report_clips.py is converted to the same features, or refused by name; never to other features."""

import json

import mindspore
import numpy as np
import pytest
import torch
from mindspore import Tensor
from PIL import Image
from transformers import CLIPImageProcessor

from ckpt_convert.convert import convert
from ckpt_convert.verify import verify
from diffdis_ms.config import ImageEncoderConfig
from diffdis_ms.errors import CheckpointError
from diffdis_ms.evaluate.clip_model import ClipModel, open_clip_directory
from diffdis_ms.evaluate.clip_score import preprocess
from diffdis_ms.storage.model_dir import read_config
from tests.parity.report_clips import (
    EQUAL,
    HALF,
    OPENAI,
    PIXELS,
    PREPROCESSOR,
    REFUSED,
    SIDE,
    VISION,
    OpenClip,
    Transformers,
    token_ids,
    write_json,
)
from tests.parity.weights import check

ACTS = ['text_encoder.hidden_act=gelu', 'image_encoder.hidden_act=gelu', 'text_encoder.num_attention_heads=4']


@pytest.fixture(scope='module', autouse=True)
def without_graphs():
    """Not a graph for each of these: the cells are those of test_clip.py, which compiles them."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    yield
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


def compare(directory, expected):
    model = ClipModel(open_clip_directory(directory), batch_size=2)
    check('images', Tensor(model.embed_images(PIXELS)), torch.from_numpy(expected[0]), 1e-4)
    check('texts', Tensor(model.text(Tensor(token_ids()))[1].asnumpy()[:, 0]), torch.from_numpy(expected[1]), 1e-4)


@pytest.mark.parametrize('case', EQUAL)
def test_features_are_the_same(tmp_path, case):
    expected = EQUAL[case].write(tmp_path / 'src')
    convert(tmp_path / 'src', tmp_path / 'out')
    compare(tmp_path / 'out', expected)
    verify(tmp_path / 'src', tmp_path / 'out')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A directory of each tool, whose configs are then replaced."""
    made = {kind: tmp_path_factory.mktemp(kind.__name__) for kind in (OpenClip, Transformers)}
    for kind, folder in made.items():
        kind().write(folder)
    return made


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_converted_is_named(folders, tmp_path, case):
    made, word = REFUSED[case]
    src = tmp_path / 'src'
    src.mkdir()
    for file in folders[type(made)].iterdir():
        (src / file.name).symlink_to(file)
    if isinstance(made, OpenClip):
        replace(
            src / 'open_clip_config.json',
            {
                'model_cfg': {'embed_dim': 48, 'vision_cfg': made.vision, 'text_cfg': made.text, **made.said},
                'preprocess_cfg': made.preprocess,
            },
        )
    else:
        replace(src / 'config.json', {**json.loads((src / 'config.json').read_text()), **made.top})
        replace(src / 'preprocessor_config.json', made.preprocessor)
    with pytest.raises(CheckpointError, match=word):
        convert(src, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def replace(path, content):
    path.unlink()
    write_json(path, content)


def test_bare_training_checkpoints(tmp_path):
    """Of a run of open_clip's training: nothing says which activation."""
    expected = OpenClip().write(tmp_path / 'src', config=False)
    from safetensors.torch import load_file

    state = load_file(tmp_path / 'src' / 'open_clip_model.safetensors')
    (tmp_path / 'src' / 'open_clip_model.safetensors').unlink()
    for prefix in ('module.', 'module._orig_mod.', '_orig_mod.', ''):
        path = tmp_path / 'src' / 'epoch_32.pt'
        torch.save(
            {
                'epoch': 32,
                'name': 'run',
                'state_dict': {prefix + n: t for n, t in state.items()},
                'optimizer': {'state': {}, 'param_groups': []},
            },
            path,
        )
        for overrides, missing in (
            ([], 'text_encoder.hidden_act and text_encoder.num_attention_heads and image_encoder.hidden_act'),
            (ACTS[::2], 'no config beside the weights gives image_encoder.hidden_act, '),
        ):
            with pytest.raises(CheckpointError, match=f'{missing}.*--set'):
                convert(path, tmp_path / 'out', overrides=overrides)
    done = convert(path, tmp_path / 'out', overrides=ACTS)
    assert 'image_mean=[0.48145466,0.4578275,0.40821073]' in done['assumed'][0]
    compare(tmp_path / 'out', expected)
    verify(path, tmp_path / 'out')
    half = [f'image_encoder.{key}=[0.5,0.5,0.5]' for key in ('image_mean', 'image_std')]
    done = convert(path, tmp_path / 'half', overrides=[*ACTS, *half])
    assert 'mean' not in done['assumed'][0]
    verify(path, tmp_path / 'half')


def test_bare_checkpoint_of_a_wide_encoder(tmp_path):
    """ViT-H's heads are 80 wide, G's 104: their number cannot be guessed."""
    OpenClip({'width': 1280, 'head_width': 80, 'layers': 1, 'mlp_ratio': 0.1}).write(tmp_path, config=False)
    with pytest.raises(CheckpointError, match='image_encoder.num_attention_heads'):
        convert(tmp_path, tmp_path / 'out', overrides=ACTS)
    convert(tmp_path, tmp_path / 'out', overrides=[*ACTS, 'image_encoder.num_attention_heads=16'])


def test_two_configs_in_a_folder(tmp_path):
    """The one that belongs to the names of the weights counts."""
    expected = Transformers({'num_attention_heads': 8}).write(tmp_path / 'src')
    write_json(
        tmp_path / 'src' / 'open_clip_config.json',
        {'model_cfg': {'vision_cfg': {**VISION, 'head_width': 64}}, 'preprocess_cfg': HALF},
    )
    convert(tmp_path / 'src', tmp_path / 'out')
    compare(tmp_path / 'out', expected)
    (tmp_path / 'src' / 'preprocessor_config.json').unlink()
    with pytest.raises(CheckpointError, match='image_mean=.0.5,0.5,0.5'):  # the other tool's is not taken unasked
        convert(tmp_path / 'src', tmp_path / 'no')
    OpenClip(preprocess=HALF).write(tmp_path / 'both')
    write_json(tmp_path / 'both' / 'preprocessor_config.json', {'image_mean': OPENAI['mean'], 'size': 224})
    write_json(tmp_path / 'both' / 'config.json', {'model_type': 'siglip'})
    convert(tmp_path / 'both', tmp_path / 'half')
    assert read_config(tmp_path / 'half').image_encoder.image_mean == [0.5] * 3


def test_pictures_are_prepared_as_transformers_does(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 96, 3), dtype=np.uint8))
    Transformers().write(tmp_path / 'src')
    for k, preprocessor in enumerate(
        (
            {},
            {'resample': 2},
            {'resample': 0, 'do_normalize': False},
            {'image_mean': [0.5] * 3, 'image_std': [0.25] * 3},
            {'size': {'height': SIDE, 'width': SIDE}, 'do_center_crop': False},
            {'size': {'height': SIDE, 'width': SIDE}, 'resample': 1},
        )
    ):
        write_json(tmp_path / 'src' / 'preprocessor_config.json', {**PREPROCESSOR, **preprocessor})
        convert(tmp_path / 'src', tmp_path / f'out{k}')
        theirs = CLIPImageProcessor.from_pretrained(tmp_path / 'src')(picture, return_tensors='np')['pixel_values'][0]
        ours = preprocess(picture, read_config(tmp_path / f'out{k}').image_encoder)
        np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=str(preprocessor))


def test_pictures_are_prepared_as_open_clip_does():
    """Its transforms are torchvision's, which resize with Pillow."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 96, 3), dtype=np.uint8))
    squashed = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1) / 255
    encoder = ImageEncoderConfig(
        image_size=SIDE,
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        interpolation='bilinear',
        resize_mode='squash',
    )
    np.testing.assert_allclose(preprocess(picture, encoder), (squashed - 0.5) / 0.5, atol=1e-6)


def test_verify_sees_each_setting(tmp_path):
    """A directory converted without a setting is not the source with it."""
    base = OpenClip()
    base.write(tmp_path / 'src')
    convert(tmp_path / 'src', tmp_path / 'out')
    for key, config in {
        'image_encoder.image_mean': OpenClip(preprocess=HALF),
        'image_encoder.num_attention_heads': OpenClip({'head_width': 32}),
        'image_encoder.layer_norm_eps': OpenClip({'norm_kwargs': {'eps': 1e-2}}),
        'text_encoder.hidden_act': OpenClip(quick=True),
        'text_encoder.layer_norm_eps': OpenClip(text={'norm_kwargs': {'eps': 1e-2}}),
        'image_encoder.resize_mode': OpenClip(preprocess={**OPENAI, 'resize_mode': 'squash'}),
        'image_encoder.interpolation': OpenClip(preprocess={**OPENAI, 'interpolation': 'bilinear'}),
    }.items():
        cfg = {'embed_dim': 48, 'vision_cfg': config.vision, 'text_cfg': config.text, 'quick_gelu': config.quick}
        write_json(tmp_path / 'src' / 'open_clip_config.json', {'model_cfg': cfg, 'preprocess_cfg': config.preprocess})
        with pytest.raises(CheckpointError, match=key):
            verify(tmp_path / 'src', tmp_path / 'out')
    write_json(
        tmp_path / 'src' / 'open_clip_config.json', {'model_cfg': {**cfg, 'vision_cfg': {**VISION, 'pool_type': 'avg'}}}
    )
    with pytest.raises(CheckpointError, match='pool_type'):
        verify(tmp_path / 'src', tmp_path / 'out')

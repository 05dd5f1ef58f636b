"""Checkpoints that torch, diffusers, transformers and open_clip wrote, through the converter and back."""

import functools
import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from mindspore import Tensor
from safetensors.numpy import load_file
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from ckpt_convert.convert import convert
from ckpt_convert.export import export
from ckpt_convert.forward import compare
from ckpt_convert.source import BPE
from ckpt_convert.verify import verify
from diffdis_ms import DiffDisPipeline
from diffdis_ms.config import ImageDiffusionConfig, ImageEncoderConfig, TextEncoderConfig
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.errors import CheckpointError
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.inception import InceptionV3
from diffdis_ms.storage.model_dir import load_weights, read_config
from tests.helpers import make_tiny_config, make_tiny_resnet, normal, randomize
from tests.parity.checkpoints import OpenAIArchive, TorchModels, fill, make_open_clip, write_bpe, write_tokenizer
from tests.parity.test_clip import make_captions
from tests.parity.weights import check, to_torch, torch_name
from tests.parity.without_torchvision import import_part
from tests.workspace import assert_one_line_error, command

WORDS = 600
# what the shapes of the tiny networks do not tell, and an alignment transformer and a picture of their size
# fmt: off
SET = (
    'unet.num_attention_heads=4', 'unet.norm_num_groups=8', 'vae.norm_num_groups=8',
    'text_encoder.num_attention_heads=4', 'image_encoder.num_attention_heads=4', 'alignment.width=64',
    'alignment.head_dim=16', 'alignment.num_layers=2', 'image_size=32',
)
# fmt: on


@pytest.fixture(scope='module')
def torch_side(tmp_path_factory):
    """(folder, TorchModels): tokenizer/, clip/ (transformers) and bpe.txt lie in the folder."""
    folder, config = tmp_path_factory.mktemp('torch_side'), make_tiny_config()
    config.text_encoder.vocab_size = WORDS
    models = TorchModels(config)
    write_tokenizer(folder / 'tokenizer', WORDS)
    write_bpe(folder / 'bpe.txt', WORDS)
    models.clip.save_pretrained(folder / 'clip')
    torch.save({'state_dict': models.compvis(), 'global_step': 470000}, folder / 'sd.ckpt')
    return folder, models


@pytest.fixture(scope='module')
def converted(torch_side, tmp_path_factory):
    """The model directory made of sd.ckpt."""
    folder, out = torch_side[0], tmp_path_factory.mktemp('converted') / 'model'
    overrides = [s for s in SET if not s.startswith('text_encoder')]  # the CLIP's config.json says how many heads
    convert(
        folder / 'sd.ckpt', out, text_encoder=folder / 'clip', vocab=folder / 'bpe.txt', overrides=overrides, seed=3
    )
    return out


def weights(directory):
    return {
        f'{stem}.{name}': array
        for stem in ('unet', 'vae', 'text_encoder')
        for name, array in load_file(Path(directory) / f'{stem}.safetensors').items()
    }


def assert_same(a, b, tolerance=0.0):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


def half(state):
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def write(models, folder, layout, tokenizer):
    """A checkpoint of Stable Diffusion in one of the layouts that users have."""
    path = folder / 'sd.ckpt'
    if layout.startswith('diffusers'):
        options = {
            'diffusers': {},
            'diffusers bin': {'safe_serialization': False},
            'diffusers sharded': {'max_shard_size': '2MB'},
            'diffusers sharded fp16': {'max_shard_size': '2MB', 'variant': 'fp16'},
            'diffusers sharded fp16 bin': {'max_shard_size': '2MB', 'variant': 'fp16', 'safe_serialization': False},
            'diffusers sharded bin': {'max_shard_size': '2MB', 'safe_serialization': False},
            'diffusers fp16 variant': {'variant': 'fp16'},
        }
        if layout == 'diffusers, old names':
            models.save_old_diffusers(folder / 'sd', tokenizer)
        else:
            models.save_diffusers(folder / 'sd', tokenizer, **options[layout])
        return folder / 'sd'
    if layout == 'safetensors':
        save_file({name: t.contiguous() for name, t in models.compvis().items()}, folder / 'sd.safetensors')
        return folder / 'sd.safetensors'
    state = {
        'plain': models.compvis,
        'no wrapper': models.compvis,
        'no extras': lambda: models.compvis(extras=False),
        'ema': lambda: models.compvis(ema=True),
        'legacy': models.compvis,
        'half': lambda: half(models.compvis()),
    }[layout]()
    torch.save(
        (
            state
            if layout == 'no wrapper'
            else {'state_dict': state, 'callbacks': {StableDiffusionPipeline: np.float64(2)}}
        ),
        path,
        _use_new_zipfile_serialization=layout != 'legacy',
    )
    return path


@pytest.mark.parametrize(
    'layout',
    [
        'no wrapper',
        'no extras',
        'ema',
        'legacy',
        'half',
        'safetensors',
        'diffusers',
        'diffusers bin',
        'diffusers sharded',
        'diffusers sharded bin',
        'diffusers sharded fp16',
        'diffusers sharded fp16 bin',
        'diffusers fp16 variant',
        'diffusers, old names',
    ],
)
def test_every_layout_of_stable_diffusion(torch_side, converted, tmp_path, layout):
    folder, models = torch_side
    src, out = write(models, tmp_path, layout, folder / 'tokenizer'), tmp_path / 'model'
    done = convert(src, out, text_encoder=folder / 'clip', vocab=folder / 'bpe.txt', overrides=SET, seed=3)
    assert_same(weights(out), weights(converted), 2e-3 if layout == 'half' else 0.0)
    checked = verify(src, out)
    assert (
        checked['tensors'] == done['tensors']
        and checked['unused'] == len(done['unused'])
        and checked['initialized'] > 50
    )


@pytest.mark.parametrize(
    'settings, expected',
    [
        ({'prediction_type': 'v_prediction'}, {'target': 'velocity'}),
        (
            {'beta_schedule': 'linear', 'beta_start': 0.0001, 'beta_end': 0.02},
            {'schedule': 'linear_beta', 'beta_start': 0.0001, 'beta_end': 0.02},
        ),
    ],
)
def test_settings_of_a_scheduler_come_along_and_go_back(torch_side, tmp_path, settings, expected):
    """Written by diffusers, imported, exported, read by diffusers."""
    folder, models = torch_side
    models.save_diffusers(tmp_path / 'sd', folder / 'tokenizer')
    scheduler = PNDMScheduler.from_pretrained(tmp_path / 'sd/scheduler')
    PNDMScheduler.from_config({**scheduler.config, **settings}).save_pretrained(tmp_path / 'sd/scheduler')
    convert(tmp_path / 'sd', tmp_path / 'out', text_encoder=folder / 'clip', overrides=SET)
    assert read_config(tmp_path / 'out').image_diffusion == ImageDiffusionConfig(**expected)
    export(tmp_path / 'out', tmp_path / 'again', 'diffusers')
    again = StableDiffusionPipeline.from_pretrained(tmp_path / 'again').scheduler
    assert again.config.prediction_type == settings.get('prediction_type', 'epsilon')
    np.testing.assert_allclose(again.alphas_cumprod, alphas_cumprod(ImageDiffusionConfig(**expected)), rtol=1e-4)


def test_outputs_are_those_of_the_torch_side(torch_side, converted):
    for what, error in compare(torch_side[0] / 'sd.ckpt', converted):
        assert error < 1e-4, (what, error)


def test_outputs_of_a_diffusers_directory(torch_side, converted, tmp_path):
    """The names of long ago, read by diffusers' network; `converted` has the same bytes as what this directory
    gives."""
    src = write(torch_side[1], tmp_path, 'diffusers, old names', torch_side[0] / 'tokenizer')
    for what, error in compare(src, converted):
        assert error < 1e-4, (what, error)


def test_ema(torch_side, converted, tmp_path):
    folder, models = torch_side
    src = write(models, tmp_path, 'ema', None)
    convert(src, tmp_path / 'model', text_encoder=folder / 'clip', vocab=folder / 'bpe.txt', overrides=SET, ema=True)
    verify(src, tmp_path / 'model')
    ours, last = weights(tmp_path / 'model'), weights(converted)
    np.testing.assert_array_equal(ours['unet.conv_in.weight'], last['unet.conv_in.weight'] * np.float32(1.25))
    np.testing.assert_array_equal(ours['vae.quant_conv.weight'], last['vae.quant_conv.weight'])


def test_new_parts_are_those_of_a_fresh_model(converted):
    """What training makes of a file that has Stable Diffusion's weights alone."""
    from diffdis_ms.models.diffdis import DiffDisUNet
    from diffdis_ms.models.init import copy_image_weights, initialize
    from diffdis_ms.models.names import is_new_parameter

    unet, ours = DiffDisUNet(read_config(converted)), weights(converted)
    initialize(unet, 3)
    for p in unet.get_parameters():
        if not is_new_parameter(p.name):
            p.set_data(Tensor(ours[f'unet.{p.name}']))
    copy_image_weights(unet)
    for name, p in unet.parameters_and_names():
        np.testing.assert_array_equal(ours[f'unet.{name}'], p.asnumpy(), err_msg=name)
    manifest = json.loads((converted / 'manifest.json').read_text())
    assert manifest['initialized']['seed'] == 3 and all(map(is_new_parameter, manifest['initialized']['parameters']))


def test_converted_model_draws(converted):
    pipe = DiffDisPipeline.from_pretrained(converted)
    images = pipe.generate(['a cat', 'a dog'], steps=2)
    assert images[0].size == (32, 32) and np.asarray(images[0]).std() > 0


@pytest.mark.parametrize('layout', ['diffusers', 'ldm'])
def test_export_and_import_again(torch_side, converted, tmp_path, layout):
    models = torch_side[1]
    export(converted, tmp_path / 'exported', layout)
    convert(tmp_path / 'exported', tmp_path / 'again')
    verify(tmp_path / 'exported', tmp_path / 'again')
    files = sorted(p.relative_to(converted) for p in converted.rglob('*') if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / 'again') for p in (tmp_path / 'again').rglob('*') if p.is_file())
    for file in files:
        if file.name != 'manifest.json':
            assert (converted / file).read_bytes() == (tmp_path / 'again' / file).read_bytes(), file
    if layout == 'diffusers':
        pipe = StableDiffusionPipeline.from_pretrained(tmp_path / 'exported')
        unet, vae = pipe.unet.state_dict(), pipe.vae.state_dict()
        assert (
            pipe.tokenizer.model_max_length == 77
            and not pipe.text_encoder.load_state_dict(
                {n: t for n, t in models.clip.state_dict().items() if n.startswith('text_model.')}, strict=True
            ).missing_keys
        )
    else:
        unet, vae = (
            reader(
                dict(map_to_torch(load_file(tmp_path / 'exported' / 'model.safetensors'))), config=dict(network.config)
            )
            for reader, network in (
                (convert_ldm_unet_checkpoint, models.unet),
                (convert_ldm_vae_checkpoint, models.vae),
            )
        )
    for network, state in ((models.unet, unet), (models.vae, vae)):
        assert set(state) == set(network.state_dict())
        for name, tensor in network.state_dict().items():
            assert torch.equal(state[name].reshape(tensor.shape), tensor), name


def map_to_torch(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_exported_unet_predicts_the_same_noise(converted, tmp_path):
    export(converted, tmp_path / 'exported', 'diffusers')
    pipe = DiffDisPipeline.from_pretrained(converted)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / 'exported')
    z, c = normal(0, 2, 4, 8, 8), normal(1, 2, 16, 32)
    with torch.no_grad():
        expected = theirs.unet(to_torch(z), 700, to_torch(c)).sample
    check('noise', pipe.unet.predict_noise(z, np.array([700, 700]), c), expected, 1e-4)


def test_fresh_model_survives_export(tiny_config, tmp_path):
    tiny_config.text_encoder.vocab_size, tiny_config.vae.scaling_factor = WORDS, 0.5
    write_tokenizer(tmp_path / 'tokenizer', WORDS)
    DiffDisPipeline.from_config(tiny_config, 1, tmp_path / 'tokenizer').save_pretrained(tmp_path / 'model')
    for layout in ('diffusers', 'ldm'):
        export(tmp_path / 'model', tmp_path / layout, layout)
        convert(tmp_path / layout, tmp_path / f'{layout} again')
        for name in (
            'unet.safetensors',
            'vae.safetensors',
            'text_encoder.safetensors',
            'config.yaml',
            'tokenizer/vocab.json',
        ):
            assert (tmp_path / 'model' / name).read_bytes() == (tmp_path / f'{layout} again' / name).read_bytes(), (
                layout,
                name,
            )


# CLIP


@functools.lru_cache(2)
def towers(configs):
    """Networks of a CLIP, which are compiled once for all tests of one size; the weights are those of the last test."""
    text, image = json.loads(configs)
    return CLIPTextEncoder(TextEncoderConfig(**text)), CLIPImageEncoder(ImageEncoderConfig(**image)).set_train(False)


def compare_clip(directory, text_output, image_output, tolerance=1e-4):
    """Outputs of a CLIP model directory against torch functions of token ids and of pixels (not normalised)."""
    config = read_config(directory)
    text, image = towers(json.dumps([vars(config.text_encoder), vars(config.image_encoder)]))
    load_weights(text, directory / 'text_encoder.safetensors')
    load_weights(image, directory / 'image_encoder.safetensors')
    ids, size = make_captions(config.text_encoder, 3), config.image_encoder.image_size
    pixels = normal(0, 2, 3, size, size)
    with torch.no_grad():
        expected = [
            torch.nn.functional.normalize(x.float(), dim=-1)
            for x in (text_output(torch.from_numpy(ids).long()), image_output(to_torch(pixels)))
        ]
    check('text query', text(Tensor(ids))[1][:, 0], expected[0], tolerance)
    check('image embedding', image(pixels), expected[1], tolerance)


def clip_config(resnet):
    config = make_tiny_config()
    config.text_encoder.vocab_size = WORDS
    if resnet:
        config.image_encoder = make_tiny_resnet()
    return config


@pytest.mark.parametrize('resnet', [False, True])
@pytest.mark.parametrize(
    'layout', ['state dict', 'training checkpoint', 'safetensors', 'TorchScript', 'TorchScript half']
)
def test_openai_and_open_clip(torch_side, tmp_path, layout, resnet):
    config = clip_config(resnet)
    model = make_open_clip(config.text_encoder, config.image_encoder)
    path = tmp_path / 'clip.pt'
    if layout.startswith('TorchScript'):
        archive = OpenAIArchive(model, 224, 77, WORDS).eval()
        archive = archive.half() if layout.endswith('half') else archive
        pixels = torch.randn(1, 3, config.image_encoder.image_size, config.image_encoder.image_size)
        torch.jit.trace(archive, pixels.to(next(archive.parameters()).dtype), check_trace=False).save(path)
        model.float()
    elif layout == 'safetensors':
        path = tmp_path / 'clip.safetensors'
        save_file(model.state_dict(), path)
    else:
        state = model.state_dict()
        torch.save(
            (
                state
                if layout == 'state dict'
                else {'epoch': 3, 'state_dict': {f'module.{n}': t for n, t in state.items()}, 'optimizer': {}}
            ),
            path,
        )
    # which OpenAI's own files need not be told
    acts = ['text_encoder.hidden_act=quick_gelu', 'image_encoder.hidden_act=quick_gelu']
    convert(
        path,
        tmp_path / 'out',
        kind='clip',
        vocab=torch_side[0] / 'bpe.txt',
        overrides=[*(s for s in SET if 'encoder' in s), *([] if layout.startswith('TorchScript') else acts)],
    )
    verify(path, tmp_path / 'out')
    compare_clip(tmp_path / 'out', model.encode_text, model.encode_image, 5e-3 if layout.endswith('half') else 1e-4)
    assert read_config(tmp_path / 'out').logit_scale == pytest.approx(float(model.logit_scale.exp()), rel=2e-3)


@pytest.mark.parametrize(
    'options', [{}, {'safe_serialization': False}, {'max_shard_size': '100KB'}], ids=['safetensors', 'bin', 'sharded']
)
def test_hugging_face_clip(torch_side, tmp_path, options):
    folder, models = torch_side
    models.clip.save_pretrained(tmp_path / 'clip', **options)
    convert(tmp_path / 'clip', tmp_path / 'out', vocab=folder / 'tokenizer')
    verify(tmp_path / 'clip', tmp_path / 'out')
    compare_clip(tmp_path / 'out', models.clip.get_text_features, models.clip.get_image_features)
    assert all(error < 1e-4 for _, error in compare(tmp_path / 'clip', tmp_path / 'out'))


def test_inception(tmp_path):
    cell = randomize(InceptionV3(), 0)
    state = {torch_name(name): to_torch(p) for name, p in cell.parameters_and_names()}
    state.update(
        {
            name.replace('running_mean', 'num_batches_tracked'): torch.tensor(7)
            for name in list(state)
            if name.endswith('running_mean')
        }
    )
    torch.save(state, tmp_path / 'pt_inception.pth')
    convert(tmp_path / 'pt_inception.pth', tmp_path / 'out')
    verify(tmp_path / 'pt_inception.pth', tmp_path / 'out')
    fresh = InceptionV3()
    load_weights(fresh, tmp_path / 'out' / 'inception.safetensors')
    for (name, a), (_, b) in zip(cell.parameters_and_names(), fresh.parameters_and_names(), strict=True):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy(), err_msg=name)


# what does not fit


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda s: s.pop('model.diffusion_model.out.2.bias'), ['model.diffusion_model.out.2.bias', 'missing']),
        (
            lambda s: s.update({'model.diffusion_model.out.2.bias': torch.zeros(5)}),
            ['model.diffusion_model.out.2.bias', '(5,)', '(4,)'],
        ),
        (
            lambda s: s.update({'model.diffusion_model.surprise.weight': torch.zeros(5)}),
            ['model.diffusion_model.surprise.weight', 'no place'],
        ),
        (lambda s: s.update({'control_model.weight': torch.zeros(5)}), ['control_model.weight', 'no place']),
        (lambda s: s.update({'alphas_cumprod': torch.linspace(1, 0, 1000)}), ['alphas_cumprod', 'schedule']),
        (
            lambda s: s.update({'model.diffusion_model.out.2.bias': torch.zeros(4, dtype=torch.int64)}),
            ['model.diffusion_model.out.2.bias', 'I64'],
        ),
    ],
)
def test_what_does_not_fit_is_named(torch_side, tmp_path, change, words):
    folder, models = torch_side
    state = models.compvis()
    change(state)
    torch.save(state, tmp_path / 'sd.ckpt')
    with pytest.raises(CheckpointError) as e:
        convert(
            tmp_path / 'sd.ckpt',
            tmp_path / 'out',
            text_encoder=folder / 'clip',
            vocab=folder / 'bpe.txt',
            overrides=SET,
        )
    assert all(word in str(e.value) for word in words), e.value
    assert not (tmp_path / 'out').exists()


def test_left_over_tensors_can_be_left_out(torch_side, converted, tmp_path):
    folder, models = torch_side
    torch.save({**models.compvis(), 'control_model.weight': torch.zeros(5)}, tmp_path / 'sd.ckpt')
    done = convert(
        tmp_path / 'sd.ckpt',
        tmp_path / 'out',
        text_encoder=folder / 'clip',
        vocab=folder / 'bpe.txt',
        overrides=SET,
        seed=3,
        allow_unmapped=True,
    )
    assert 'control_model.weight' in done['unused']
    assert_same(weights(tmp_path / 'out'), weights(converted))
    verify(tmp_path / 'sd.ckpt', tmp_path / 'out')


def test_text_projection_must_come_from_somewhere(torch_side, tmp_path):
    folder, models = torch_side
    # fmt: off
    done = command(
        '-m', 'ckpt_convert', 'import', '--src', folder / 'sd.ckpt', '--dst', tmp_path / 'out',
        '--vocab', folder / 'bpe.txt', '--set', *SET,
    )
    # fmt: on
    assert_one_line_error(done, 'text_projection', '--text-encoder')
    other = TorchModels(models.config, seed=9).clip
    other.save_pretrained(tmp_path / 'other')
    with pytest.raises(CheckpointError, match='differs'):
        convert(
            folder / 'sd.ckpt',
            tmp_path / 'out',
            text_encoder=tmp_path / 'other',
            vocab=folder / 'bpe.txt',
            overrides=SET,
        )
    with pytest.raises(CheckpointError, match='bpe_simple_vocab_16e6.txt.gz'):
        convert(
            folder / 'sd.ckpt',
            tmp_path / 'out',
            text_encoder=folder / 'clip' / 'model.safetensors',
            vocab=tmp_path / 'absent',
            overrides=SET,
        )
    with pytest.raises(CheckpointError, match='kind'):
        convert(folder / 'clip', tmp_path / 'out', kind='sd')
    assert not (tmp_path / 'out').exists()


def test_half_precision_directory(torch_side, converted, tmp_path):
    folder, models = torch_side
    args = {'text_encoder': folder / 'clip', 'vocab': folder / 'bpe.txt', 'overrides': SET}
    convert(folder / 'sd.ckpt', tmp_path / 'half', dtype='float16', seed=3, **args)
    verify(folder / 'sd.ckpt', tmp_path / 'half')
    assert {array.dtype for array in weights(tmp_path / 'half').values()} == {np.dtype(np.float16)}
    DiffDisPipeline.from_pretrained(tmp_path / 'half')
    state = models.compvis()
    state['model.diffusion_model.out.2.bias'] = torch.full((4,), 1e6)
    torch.save(state, tmp_path / 'large.ckpt')
    with pytest.raises(CheckpointError, match='does not fit into float16'):
        convert(tmp_path / 'large.ckpt', tmp_path / 'out', dtype='float16', **args)
    assert not (tmp_path / 'out').exists()


def test_verify_sees_a_changed_file(torch_side, tmp_path):
    folder, models = torch_side
    torch.save(models.compvis(), tmp_path / 'sd.ckpt')
    convert(
        tmp_path / 'sd.ckpt', tmp_path / 'out', text_encoder=folder / 'clip', vocab=folder / 'bpe.txt', overrides=SET
    )
    data = bytearray((tmp_path / 'out/unet.safetensors').read_bytes())
    data[-5] ^= 1
    (tmp_path / 'out/unet.safetensors').write_bytes(data)
    with pytest.raises(CheckpointError, match='unet.safetensors'):
        verify(tmp_path / 'sd.ckpt', tmp_path / 'out')
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())  # even where somebody mended the manifest
    from diffdis_ms.storage.files import sha256

    manifest['files']['unet.safetensors'] = sha256(tmp_path / 'out/unet.safetensors')
    (tmp_path / 'out/manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match='differs'):
        verify(tmp_path / 'sd.ckpt', tmp_path / 'out')
    with pytest.raises(CheckpointError, match='not the file'):
        verify(folder / 'sd.ckpt', tmp_path / 'out')


def test_destination_is_not_overwritten_unasked(torch_side, converted, tmp_path):
    folder = torch_side[0]
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('mine')
    args = {'text_encoder': folder / 'clip', 'vocab': folder / 'bpe.txt', 'overrides': SET}
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match='mine'):
            convert(folder / 'sd.ckpt', tmp_path / 'mine', overwrite=overwrite, **args)
    assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'mine'


def test_commands(torch_side, tmp_path):
    folder, models = torch_side
    models.save_diffusers(tmp_path / 'sd', folder / 'tokenizer')
    shown = command('-m', 'ckpt_convert', 'inspect', tmp_path / 'sd')
    assert shown.returncode == 0 and 'unet' in shown.stdout and 'text_projection' in shown.stdout, shown.stderr
    # fmt: off
    done = command(
        '-m', 'ckpt_convert', 'import', '--src', tmp_path / 'sd', '--dst', tmp_path / 'out',
        '--text-encoder', folder / 'clip', '--seed', 1,
    )
    # fmt: on
    assert done.returncode == 0 and 'initialised (seed 1)' in done.stdout, done.stderr
    done = command('-m', 'ckpt_convert', 'verify', '--src', tmp_path / 'sd', '--dst', tmp_path / 'out')
    assert done.returncode == 0 and 'tensors equal' in done.stdout, done.stderr
    done = command(
        '-m', 'ckpt_convert', 'export', '--src', tmp_path / 'out', '--dst', tmp_path / 'e', '--format', 'ldm'
    )
    assert done.returncode == 0 and (tmp_path / 'e/model.safetensors').is_file(), done.stderr
    assert_one_line_error(
        command('-m', 'ckpt_convert', 'import', '--src', tmp_path / 'absent', '--dst', tmp_path / 'x'),
        'absent',
        'does not exist',
    )


# the tokenizer

AWKWARD = [
    '',
    'café naïve',
    'Cafe\u0301',
    '😀 family 👨\u200d👩\u200d👧',
    '&lt;b&gt; &amp;amp; &quot;x&quot; &nbsp;',
    'a photo of ' * 60,
    'x' * 400,
    '一只猫坐在垫子上',
    '日本語 テスト',
    '“curly” ‘quotes’ — dash…',
    'ｆｕｌｌｗｉｄｔｈ',
    'schÃ¶n',
    'tab\tnew\nline  double',
    'İstanbul ß',
    "don't I'LL we've",
    '$5,000.75',
    'null\x00\x07',
    'ﬁ',
    '<|startoftext|> in <|endoftext|> out',
    'Привет',
    'مرحبا',
    'नमस्ते',
    '한국어',
    'ΑΣ',
    '<b> Fish &amp; chips &lt; 5 &quot;x&quot;',
    'caf&eacute; &amp;amp; <tea>',
    '\ufeffbom',
    '\xa0\u3000',
    '!!!???',
    'a_b-c/d\\e',
    '½ ©®™',
    '𝒜',
]


def test_token_ids_of_openai_vocabulary(tmp_path):
    """open_clip carries the real list of merges."""
    from ckpt_convert.vocabulary import find_tokenizer

    bpe = Path(importlib.util.find_spec('open_clip').submodule_search_locations[0]) / BPE
    find_tokenizer(bpe, (), 49408).save(tmp_path / 'packed')
    (tmp_path / 'bpe.txt').write_bytes(gzip.decompress(bpe.read_bytes()))
    find_tokenizer(tmp_path / 'bpe.txt', (), 49408).save(tmp_path / 'plain')
    find_tokenizer(tmp_path / 'plain', (), 49408).save(tmp_path / 'copied')
    tokenizer = import_part('open_clip.tokenizer').SimpleTokenizer()
    # these ids are CLIP's
    assert Tokenizer.load(tmp_path / 'packed').encode(['a photo of a cat'], 7).tolist() == [
        [49406, 320, 1125, 539, 320, 2368, 49407]
    ]
    ids = tokenizer(AWKWARD, 77).numpy()
    theirs = np.where((ids == 49407).cumsum(1) > 0, 49407, ids)  # it pads with 0
    reference = CLIPTokenizer.from_pretrained(tmp_path / 'packed')(
        AWKWARD, truncation=True, max_length=77, padding='max_length', return_tensors='np'
    ).input_ids
    # open_clip names its special tokens differently, and transformers leaves entities to ftfy
    special, entities = (np.array([sign in text for text in AWKWARD]) for sign in ('<|', '&'))
    for folder in ('packed', 'plain', 'copied'):
        ours = Tokenizer.load(tmp_path / folder).encode(AWKWARD, 77)
        np.testing.assert_array_equal(ours[~special], theirs[~special])
        np.testing.assert_array_equal(ours[~entities], reference[~entities])


def test_fill_is_not_trivial():
    layer = torch.nn.BatchNorm2d(50)
    fill(layer)
    assert layer.running_var.min() > 0 and layer.weight.std() > 0.05

"""Stable Diffusion v1 and CLIP at their real sizes, random weights, in every layout: nothing unmapped, the same bytes
from each, the torch side's outputs."""

import gc
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ckpt_convert.convert import convert
from ckpt_convert.forward import compare, make_clip
from ckpt_convert.verify import verify
from diffdis_ms.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from diffdis_ms.storage.model_dir import read_config
from tests.parity.checkpoints import OpenAIArchive, TorchModels, fill, make_open_clip, write_bpe, write_tokenizer
from tests.parity.test_convert import compare_clip, half

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def stable_diffusion(tmp_path_factory):
    """(folder, TorchModels, hashes of the files that sd.ckpt is converted to)."""
    folder, models = tmp_path_factory.mktemp('full_size'), TorchModels(ModelConfig())
    write_tokenizer(folder / 'tokenizer', 49408)
    models.clip.save_pretrained(folder / 'clip')
    torch.save({'state_dict': models.compvis(), 'global_step': 470000}, folder / 'sd.ckpt')
    hashes = convert_and_hash(folder, folder / 'sd.ckpt', folder / 'model')
    yield folder, models, hashes
    shutil.rmtree(folder)


def convert_and_hash(folder, src, dst):
    done = convert(src, dst, text_encoder=folder / 'clip', vocab=folder / 'tokenizer')
    assert done['tensors'] == 686 + 248 + 196 + 1  # UNet, autoencoder, text tower, text projection
    files = json.loads((dst / 'manifest.json').read_text())['files']
    return {name: files[f'{name}.safetensors'] for name in ('unet', 'vae', 'text_encoder')}


def test_outputs(stable_diffusion):
    folder = stable_diffusion[0]
    assert read_config(folder / 'model') == ModelConfig()
    verify(folder / 'sd.ckpt', folder / 'model')
    for what, error in compare(folder / 'sd.ckpt', folder / 'model'):
        print(f'{what}: relative error {error:.1e} (tolerance 1e-04)')
        assert error < 1e-4, (what, error)
    shutil.rmtree(folder / 'model')
    gc.collect()


@pytest.mark.parametrize(
    'layout',
    ['ema', 'legacy', 'safetensors', 'no wrapper, half', 'diffusers', 'diffusers sharded bin', 'diffusers, old names'],
)
def test_layout(stable_diffusion, tmp_path, layout):
    folder, models, expected = stable_diffusion
    src = tmp_path / 'sd.ckpt'
    if layout == 'safetensors':
        src = tmp_path / 'sd.safetensors'
        save_file({name: t.contiguous() for name, t in models.compvis().items()}, src)
    elif layout == 'diffusers, old names':
        models.save_old_diffusers(tmp_path / 'sd', folder / 'tokenizer')
    elif layout.startswith('diffusers'):
        models.save_diffusers(
            tmp_path / 'sd',
            folder / 'tokenizer',
            **({'max_shard_size': '1GB', 'safe_serialization': False} if 'bin' in layout else {}),
        )
    elif layout.endswith('half'):
        torch.save(half(models.compvis()), src)
    else:
        torch.save(
            {'state_dict': models.compvis(ema=layout == 'ema')}, src, _use_new_zipfile_serialization=layout != 'legacy'
        )
    src = tmp_path / 'sd' if layout.startswith('diffusers') else src
    hashes = convert_and_hash(folder, src, tmp_path / 'model')
    if layout.endswith('half'):
        verify(src, tmp_path / 'model')
    else:
        assert hashes == expected
    shutil.rmtree(tmp_path)


CLIPS = {
    'ViT-B/32': (
        TextEncoderConfig(hidden_size=512, intermediate_size=2048, num_attention_heads=8, projection_dim=512),
        ImageEncoderConfig(
            patch_size=32,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=512,
        ),
    ),
    'ViT-B/16': (
        TextEncoderConfig(hidden_size=512, intermediate_size=2048, num_attention_heads=8, projection_dim=512),
        ImageEncoderConfig(
            patch_size=16,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=512,
        ),
    ),
    'ViT-L/14': (TextEncoderConfig(), ImageEncoderConfig()),
    'RN50': (
        TextEncoderConfig(hidden_size=512, intermediate_size=2048, num_attention_heads=8, projection_dim=1024),
        ImageEncoderConfig(architecture='resnet', hidden_size=2048, num_attention_heads=32, projection_dim=1024),
    ),
}


@pytest.mark.parametrize(
    'name, layout',
    [
        *((name, 'state dict') for name in CLIPS),
        ('RN50', 'TorchScript'),
        ('ViT-L/14', 'TorchScript half'),
        ('ViT-L/14', 'Hugging Face'),
    ],
)
def test_clip(tmp_path, name, layout):
    """Sizes, heads included, are found without a word; the activation only where a file says it, or where OpenAI wrote
    it."""
    text, image = CLIPS[name]
    src, vocab = tmp_path / 'clip.pt', write_bpe(tmp_path / 'bpe.txt', 49408)
    if layout == 'Hugging Face':
        model, src = make_clip(text, image).eval(), tmp_path / 'clip'
        fill(model)
        model.save_pretrained(src)
        outputs = model.get_text_features, model.get_image_features
    else:
        model = make_open_clip(text, image)
        outputs = model.encode_text, model.encode_image
    if layout.startswith('TorchScript'):
        archive = OpenAIArchive(model, image.image_size, 77, 49408).eval()
        archive = archive.half() if layout.endswith('half') else archive
        pixels = torch.randn(1, 3, image.image_size, image.image_size).to(next(archive.parameters()).dtype)
        torch.jit.trace(archive, pixels, check_trace=False).save(src)
        model.float()  # its weights stay those that were rounded
    elif layout == 'state dict':
        torch.save(model.state_dict(), src)
    acts = [f'{stem}.hidden_act={text.hidden_act}' for stem in ('text_encoder', 'image_encoder')]
    convert(src, tmp_path / 'out', vocab=vocab, overrides=acts if layout == 'state dict' else ())
    verify(src, tmp_path / 'out')
    config = read_config(tmp_path / 'out')
    assert (
        config.text_encoder == text
        and {k: v for k, v in vars(config.image_encoder).items() if v != vars(image)[k]}.keys()
        <= UNUSED[image.architecture]
    )
    compare_clip(tmp_path / 'out', *outputs)
    shutil.rmtree(tmp_path)


UNUSED = {'vit': {'resnet_layers'}, 'resnet': {'patch_size', 'intermediate_size', 'num_hidden_layers'}}

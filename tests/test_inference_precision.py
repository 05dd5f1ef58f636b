"""Inference in 16 bits, and the options that ask for it."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from diffdis_ms import DiffDisPipeline
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.precision import store_precision
from diffdis_ms.runtime.options import default_precision, runtime_settings
from diffdis_ms.train.cache import cache_key
from tests.workspace import assert_one_line_error, command, draw
from tools.benchmarks.bfloat16 import RoundedAttention, round_products

IMAGES = [draw('red', 'square'), draw('blue', 'bar'), draw('green', 'frame')]
TEXTS = ['red square', 'blue bar', 'green frame']


@pytest.fixture(scope='module')
def model(trained):
    return trained[0] / 'run/model'


def results(pipe):
    pictures = pipe.generate(TEXTS, steps=3, sampler='ddim')
    return pipe.embed_images(IMAGES), pipe.embed_texts(TEXTS), np.stack([np.asarray(x, float) for x in pictures])


@pytest.fixture(scope='module')
def full(model):
    return results(DiffDisPipeline.from_pretrained(model, batch_size=3))


def assert_close(found, full):
    """Within the bounds that the demo's model has to keep as well (tools/bench.py precision)."""
    for ours, theirs in zip(found[:2], full[:2], strict=True):
        assert ours.dtype == np.float32 and not np.array_equal(ours, theirs)
        assert (ours * theirs).sum(1).min() >= 0.999
    assert 0 < np.abs(found[2] - full[2]).mean() <= 2


def test_fp16_is_close_to_fp32(model, full):
    pipe = DiffDisPipeline.from_pretrained(model, batch_size=3, precision='fp16')
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        kinds = {(nn.Dense, nn.Conv2d): ms.float16, (nn.LayerNorm, nn.GroupNorm): ms.float32}
        for cells, dtype in kinds.items():
            found = [cell for _, cell in network.cells_and_names() if isinstance(cell, cells)]
            assert found and all(p.dtype == dtype for cell in found for p in cell.get_parameters())
    assert_close(results(pipe), full)


def test_bf16_rounding_is_close_to_fp32(model, full):
    pipe = DiffDisPipeline.from_pretrained(model, batch_size=3)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        round_products(network)
    with RoundedAttention():
        assert_close(results(pipe), full)


def test_bf16_weights_are_stored_in_16_bits_and_norms_are_not():
    cell = store_precision(nn.SequentialCell(nn.Dense(3, 2), nn.LayerNorm((2,))), 'bf16')
    assert [p.dtype for p in cell.get_parameters()] == [ms.bfloat16, ms.bfloat16, ms.float32, ms.float32]


def test_rounded_weights_are_not_saved(model, tmp_path):
    pipe = DiffDisPipeline.from_pretrained(model, precision='fp16')
    with pytest.raises(ConfigError, match='rounded to fp16.*fp32'):
        pipe.save_pretrained(tmp_path / 'copy')
    assert not (tmp_path / 'copy').exists()


def test_each_chip_has_a_default():
    chips = ('CPU', 'ascend910', 'ascend910b', 'ascend910_93')
    assert [default_precision(chip) for chip in chips] == ['fp32', 'fp16', 'bf16', 'bf16']


def test_settings_are_used_or_refused_by_name():
    found = runtime_settings(['runtime.flash_attention=false', 'runtime.jit_level=O1'])
    assert (found.flash_attention, found.jit_level) == (False, 'O1')
    for setting, message in (
        ('train.max_steps=3', 'train.max_steps has no effect here.*flash_attention'),
        ('flash_attention=false', 'flash_attention has no effect here'),
        ('runtime.compile_cache=true', 'runtime.compile_cache has no effect here'),
        ('runtime.flash=true', 'runtime.flash'),
        ('runtime.jit_level=O9', 'jit_level'),
    ):
        with pytest.raises(ConfigError, match=message):
            runtime_settings([setting])


def test_a_cache_belongs_to_the_precision_and_the_chip(model):
    keys = [cache_key(model, model, 32, *made_by) for made_by in ((), ('fp32', 'CPU'), ('fp16', 'CPU'))]
    assert keys[0] == keys[1] != keys[2] != cache_key(model, model, 32, 'fp16', 'ascend910b')


def test_tools_say_in_what_they_ran(model, trained, tmp_path):
    data = trained[0] / 'data'
    zeroshot = ('zeroshot', '--model', model, '--dataset', 'emoji', '--data-root', data, '--steps', 2, '--limit', 4)
    done = command('tools/evaluate.py', *zeroshot, '--out', tmp_path / 'z.json', '--precision', 'fp16')
    assert done.returncode == 0, done.stderr
    protocol = json.loads((tmp_path / 'z.json').read_text())['protocol']
    assert (protocol['precision'], protocol['device']) == ('fp16', 'CPU')

    sample = ('tools/sample.py', '--model', model, '--prompt', 'red bar', '--steps', 2, '--out', tmp_path / 'pictures')
    assert command(*sample, '--precision', 'fp16').returncode == 0
    assert json.loads((tmp_path / 'pictures/prompts.json').read_text())['precision'] == 'fp16'
    assert_one_line_error(command(*sample), 'belongs to other precision')

    cache = ('tools/cache_latents.py', '--model', model, '--data', data, '--out', tmp_path / 'cache')
    assert command(*cache, '--precision', 'fp16').returncode == 0
    assert json.loads((tmp_path / 'cache/cache.json').read_text())['precision'] == 'fp16'
    assert_one_line_error(command(*cache), 'cache of other weights, data, precision or device')
    used = ('init.vae', 'init.text_encoder')
    done = command(
        'tools/train.py', '--config', trained[0] / 'diffdis.yaml', f'data.cache={tmp_path / "cache"}', 'max_steps=1',
        f'output_dir={tmp_path / "run"}', *(f'{key}={model}' for key in used), 'init.tokenizer=null', 'data.path=null',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_mistakes_are_one_line(model, tmp_path):
    IMAGES[0].save(tmp_path / 'x.png')
    classify = ('tools/classify.py', '--model', model, '--labels', 'a,b', tmp_path / 'x.png')
    assert_one_line_error(command(*classify, '--precision', 'bf16'), '--precision', 'no bf16 kernels for the CPU')
    assert_one_line_error(command(*classify, '--set', 'runtime.compile_cache=true'), 'no effect here')

"""`verify` compares what shapes do not tell: the configs of both sides."""

import json

import pytest

from ckpt_convert.convert import convert
from ckpt_convert.verify import verify
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.model_dir import MANIFEST, read_config
from tests.ckpt_convert.clips import write_open_clip


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_another_config_is_another_model(tmp_path):
    src = write_open_clip(tmp_path / 'src')
    convert(src, tmp_path / 'out')
    verify(src, tmp_path / 'out')
    change_json(src / 'open_clip_config.json', lambda c: c['model_cfg'].update(quick_gelu=True))
    with pytest.raises(CheckpointError, match='text_encoder.hidden_act = gelu, but .* says quick_gelu'):
        verify(src, tmp_path / 'out')


def test_overrides_are_remembered(tmp_path):
    src = write_open_clip(tmp_path / 'src')
    convert(src, tmp_path / 'out', overrides=['text_encoder.num_attention_heads=2', 'logit_scale=3'])
    assert read_config(tmp_path / 'out').text_encoder.num_attention_heads == 2
    verify(src, tmp_path / 'out')
    change_json(tmp_path / 'out' / MANIFEST, lambda m: m['converted_from'].pop('overrides'))
    with pytest.raises(
        CheckpointError, match='text_encoder.num_attention_heads.*import it again'
    ):  # written before they were
        verify(src, tmp_path / 'out')


def test_damaged_manifest_is_one_line(tmp_path):
    src = write_open_clip(tmp_path / 'src')
    convert(src, tmp_path / 'out')
    (tmp_path / 'out' / MANIFEST).write_text('{"files": ')
    with pytest.raises(CheckpointError, match='manifest.json is damaged'):
        verify(src, tmp_path / 'out')

"""What the configs beside a CLIP say, as the field writes them."""

import pytest

from ckpt_convert.convert import convert
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.model_dir import read_config
from tests.ckpt_convert.clips import TEXT_CONFIG, VISION_CONFIG, write, write_open_clip, write_transformers
from tests.workspace import command

# written into text_config and vision_config by transformers of 2022
OLD = {
    '_name_or_path': '',
    'add_cross_attention': False,
    'architectures': None,
    'attention_dropout': 0.0,
    'bad_words_ids': None,
    'chunk_size_feed_forward': 0,
    'cross_attention_hidden_size': None,
    'decoder_start_token_id': None,
    'diversity_penalty': 0.0,
    'do_sample': False,
    'dropout': 0.0,
    'early_stopping': False,
    'encoder_no_repeat_ngram_size': 0,
    'exponential_decay_length_penalty': None,
    'finetuning_task': None,
    'forced_bos_token_id': None,
    'forced_eos_token_id': None,
    'id2label': {'0': 'LABEL_0', '1': 'LABEL_1'},
    'initializer_factor': 1.0,
    'initializer_range': 0.02,
    'is_decoder': False,
    'is_encoder_decoder': False,
    'label2id': {'LABEL_0': 0, 'LABEL_1': 1},
    'length_penalty': 1.0,
    'max_length': 20,
    'min_length': 0,
    'no_repeat_ngram_size': 0,
    'num_beam_groups': 1,
    'num_beams': 1,
    'num_return_sequences': 1,
    'output_attentions': False,
    'output_hidden_states': False,
    'output_scores': False,
    'pad_token_id': 1,
    'prefix': None,
    'problem_type': None,
    'pruned_heads': {},
    'remove_invalid_values': False,
    'repetition_penalty': 1.0,
    'return_dict': True,
    'return_dict_in_generate': False,
    'sep_token_id': None,
    'task_specific_params': None,
    'temperature': 1.0,
    'tie_encoder_decoder': False,
    'tie_word_embeddings': True,
    'tokenizer_class': None,
    'top_k': 50,
    'top_p': 1.0,
    'torch_dtype': None,
    'torchscript': False,
    'transformers_version': '4.24.0',
    'typical_p': 1.0,
    'use_bfloat16': False,
    'layer_norm_eps': 1e-05,
}
# fmt: off
PREPROCESSOR = {
    'crop_size': 16, 'do_center_crop': True, 'do_normalize': True, 'do_resize': True,
    'feature_extractor_type': 'CLIPFeatureExtractor', 'image_mean': [0.48145466, 0.4578275, 0.40821073],
    'image_std': [0.26862954, 0.26130258, 0.27577711], 'resample': 3, 'size': 16,
}
# fmt: on


def test_old_configs_of_transformers(tmp_path):
    """As of openai/clip-vit-large-patch14 (sizes written twice) and LAION's (projection_dim of the towers stale)."""
    sizes = {
        key: VISION_CONFIG[key]
        for key in (
            'hidden_size',
            'num_hidden_layers',
            'patch_size',
            'num_attention_heads',
            'intermediate_size',
            'image_size',
        )
    }
    src = write_transformers(
        tmp_path / 'src',
        {**OLD, 'model_type': 'clip_vision_model', 'hidden_act': 'quick_gelu', 'projection_dim': 512},
        {
            **OLD,
            'model_type': 'clip_text_model',
            'hidden_act': 'quick_gelu',
            'projection_dim': 512,
            'eos_token_id': 2,
            'bos_token_id': 0,
        },
        PREPROCESSOR,
        **{key: OLD[key] for key in ('_name_or_path', 'initializer_factor', 'torch_dtype')},
        logit_scale_init_value=2.6592,
        architectures=['CLIPModel'],
        transformers_version=None,
        vision_config_dict=sizes,
        text_config_dict=None,
    )
    done = convert(src, tmp_path / 'out')
    assert done['assumed'] == [] and read_config(tmp_path / 'out').image_encoder.hidden_act == 'quick_gelu'


def test_processor_config_of_transformers_5(tmp_path):
    src = write_transformers(tmp_path / 'src')
    write(
        src / 'processor_config.json',
        {
            'processor_class': 'CLIPProcessor',
            'image_processor': {
                **PREPROCESSOR,
                'image_mean': [0.5] * 3,
                'size': {'shortest_edge': 16},
                'crop_size': {'height': 16, 'width': 16},
                'do_rescale': True,
                'rescale_factor': 0.00392156862745098,
                'data_format': 'channels_first',
                'image_processor_type': 'CLIPImageProcessorFast',
                'pad_size': None,
            },
        },
    )
    convert(src, tmp_path / 'out')
    assert read_config(tmp_path / 'out').image_encoder.image_mean == [0.5] * 3


def test_what_is_left_out_is_the_tools_default(tmp_path):
    """Not ours: transformers' towers have 8 and 12 heads and quick_gelu, open_clip's texts 8 and gelu."""
    text = {key: value for key, value in TEXT_CONFIG.items() if key not in ('num_attention_heads', 'hidden_act')}
    src = write_transformers(tmp_path / 'src')
    write(src / 'config.json', {'text_config': text, 'vision_config': VISION_CONFIG, 'projection_dim': 32})
    convert(src, tmp_path / 'out')
    config = read_config(tmp_path / 'out').text_encoder
    assert (config.num_attention_heads, config.hidden_act) == (8, 'quick_gelu')
    src = write_open_clip(tmp_path / 'open_clip')
    cfg = {
        'embed_dim': 32,
        'vision_cfg': {'image_size': 16, 'layers': 1, 'width': 64, 'patch_size': 8},
        'text_cfg': {'context_length': 16, 'vocab_size': 520, 'width': 64, 'layers': 1},
    }
    write(src / 'open_clip_config.json', {'model_cfg': cfg})
    convert(src, tmp_path / 'out2')
    config = read_config(tmp_path / 'out2').text_encoder
    assert (config.num_attention_heads, config.hidden_act) == (8, 'gelu')


def test_end_token_by_default(tmp_path):
    """transformers' default is 49407: with another vocabulary it would pool at the start of every text."""
    text = {key: value for key, value in TEXT_CONFIG.items() if key != 'eos_token_id'}
    src = write_transformers(tmp_path / 'src')
    write(
        src / 'config.json',
        {'model_type': 'clip', 'text_config': text, 'vision_config': VISION_CONFIG, 'projection_dim': 32},
    )
    with pytest.raises(CheckpointError, match='eos_token_id = 49407'):
        convert(src, tmp_path / 'out')


@pytest.mark.parametrize(
    'content',
    [
        '{',
        '[]',
        '{"model_cfg": 3}',
        '{"model_cfg": {}}',
        '{"model_cfg": {"vision_cfg": {"width": "64"}, "text_cfg": {}}}',
        '{"model_cfg": {"vision_cfg": {"layers": [1, 1], "image_size": [16, 8]}, "text_cfg": {}}}',
        '{"model_cfg": {"vision_cfg": {"norm_kwargs": {"eps": 0}}, "text_cfg": {}}}',
        '{"model_cfg": ' + '[' * 99999,
    ],
)
def test_damaged_config_is_one_line(tmp_path, content):
    src = write_open_clip(tmp_path / 'src')
    (src / 'open_clip_config.json').write_text(content)
    with pytest.raises(CheckpointError, match='open_clip_config.json'):
        convert(src, tmp_path / 'out')


def test_commands_say_what_is_missing_and_what_is_assumed(tmp_path):
    src = write_open_clip(tmp_path / 'src')
    (src / 'open_clip_config.json').unlink()
    acts = ('text_encoder.hidden_act=gelu', 'image_encoder.hidden_act=gelu', 'text_encoder.num_attention_heads=4')
    with pytest.raises(
        CheckpointError,
        match='text_encoder.hidden_act and text_encoder.num_attention_heads and image_encoder.hidden_act.*--set',
    ):
        convert(src, tmp_path / 'out')
    done = command('-m', 'ckpt_convert', 'import', '--src', src, '--dst', tmp_path / 'out', '--set', *acts)
    assert (
        done.returncode == 0 and 'assumed: no config beside the weights gives the image preprocessing' in done.stdout
    ), done

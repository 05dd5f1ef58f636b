"""Read transformers' config.json and preprocessor_config.json: settings of a CLIP and of its image preprocessing."""

from ckpt_convert.configs.keys import check_keys
from ckpt_convert.configs.values import MAX_JSON, agree, colours, number, section, shown, side, whole
from diffdis_ms.config import CLIP_MEAN, CLIP_STD
from diffdis_ms.errors import CheckpointError
from diffdis_ms.text_files import read_json

TRANSFORMERS, PREPROCESSOR, PROCESSOR = 'config.json', 'preprocessor_config.json', 'processor_config.json'
RESAMPLE = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')  # Pillow's numbers
# the last three differ only by rounding
ACTIVATIONS = {
    'quick_gelu': 'quick_gelu',
    'gelu': 'gelu',
    'gelu_python': 'gelu',
    'gelu_pytorch_tanh': 'gelu_pytorch_tanh',
    'gelu_new': 'gelu_pytorch_tanh',
    'gelu_fast': 'gelu_pytorch_tanh',
}

# fmt: off
CLIP_USED = (
    'model_type', 'text_config', 'vision_config', 'text_config_dict', 'vision_config_dict', 'projection_dim',
    'eos_token_id',
)
# fmt: on
# keys that every config may have, including defaults for text generation (padding after the end of a text does not
# change its embedding)
# fmt: off
HF_NO_EFFECT = (
    '_name_or_path', '_commit_hash', '_attn_implementation', '_attn_implementation_autoset', 'attn_implementation',
    'architectures', 'attention_dropout', 'bad_words_ids', 'begin_suppress_tokens', 'bos_token_id',
    'chunk_size_feed_forward', 'cross_attention_hidden_size', 'decoder_start_token_id', 'diversity_penalty',
    'do_sample', 'dropout', 'dtype', 'early_stopping', 'encoder_no_repeat_ngram_size',
    'exponential_decay_length_penalty', 'finetuning_task', 'forced_bos_token_id', 'forced_eos_token_id',
    'gradient_checkpointing', 'id2label', 'initializer_factor', 'initializer_range', 'is_encoder_decoder', 'label2id',
    'length_penalty', 'max_length', 'min_length', 'no_repeat_ngram_size', 'num_beam_groups', 'num_beams',
    'num_return_sequences', 'output_attentions', 'output_hidden_states', 'output_scores', 'pad_token_id', 'prefix',
    'problem_type', 'remove_invalid_values', 'repetition_penalty', 'return_dict', 'return_dict_in_generate',
    'sep_token_id', 'suppress_tokens', 'task_specific_params', 'temperature', 'tf_legacy_loss', 'tie_encoder_decoder',
    'tie_word_embeddings', 'tokenizer_class', 'top_k', 'top_p', 'torch_dtype', 'torchscript', 'transformers_version',
    'typical_p', 'use_bfloat16', 'use_cache', 'logit_scale_init_value',
)
# fmt: on
HF_ONLY = {'add_cross_attention': (False,), 'is_decoder': (False,), 'pruned_heads': ({}, None), 'num_channels': (3,)}
# fmt: off
PREPROCESSOR_USED = (
    'image_mean', 'image_std', 'size', 'crop_size', 'do_center_crop', 'do_normalize', 'resample', 'rescale_factor',
)
PREPROCESSOR_NO_EFFECT = (
    'processor_class', 'do_convert_rgb', 'data_format', 'input_data_format', 'return_tensors', 'device',
    'disable_grouping', 'image_seq_length', '_processor_class', '_valid_processor_keys',
)
# fmt: on
PROCESSORS = tuple(
    f'CLIP{kind}'
    for kind in ('ImageProcessor', 'ImageProcessorFast', 'ImageProcessorPil', 'FeatureExtractor', 'Processor')
)
PREPROCESSOR_ONLY = {
    'do_resize': (True,),
    'do_rescale': (True,),
    'do_pad': (None, False),
    'pad_size': (None,),
    'default_to_square': (None, False),
    'use_square_size': (False,),
    'image_processor_type': PROCESSORS,
    'feature_extractor_type': PROCESSORS,
}


def transformers_towers(path):
    """{tower: its settings} as in `clip.read_configs`; CheckpointError if a setting would be ignored."""
    content = read_json(path, error=CheckpointError, limit=MAX_JSON)
    kind = content.get('model_type', 'clip')
    if kind not in ('clip', 'clip_text_model'):
        raise CheckpointError(f'{path}: model_type = {shown(kind)} (only clip and clip_text_model can be converted)')
    if kind == 'clip_text_model':
        return {'text_encoder': transformers_text(content, path), 'image_encoder': {}}
    check_keys(content, path, CLIP_USED, HF_NO_EFFECT, HF_ONLY)
    towers = {}
    for stem, key, reader in (
        ('text_encoder', 'text_config', transformers_text),
        ('image_encoder', 'vision_config', _transformers_vision),
    ):
        towers[stem] = reader(section(content, key, path), f'{path}, {key}')
        if content.get(f'{key}_dict') is not None:  # transformers uses it, with its defaults, instead of the other
            again = reader(section(content, f'{key}_dict', path), f'{path}, {key}_dict')
            differing = next(
                (k for k in ('hidden_act', 'num_attention_heads', 'layer_norm_eps') if towers[stem][k] != again[k]),
                None,
            )
            if differing:
                raise CheckpointError(
                    f'{path}: {key} says {differing} = {towers[stem][differing]}, but {key}_dict {again[differing]}:'
                    ' remove one of them'
                )
            towers[stem]['sizes'].update({k: v for k, v in again['sizes'].items() if v is not None})
        towers[stem]['sizes']['projection_dim'] = content.get('projection_dim')  # the towers' own is not used
    return towers


def transformers_text(cfg, where):
    """Settings of a CLIPTextConfig, as in `read_configs`; raises the same CheckpointError."""
    keys = ('vocab_size', 'max_position_embeddings', 'hidden_size', 'intermediate_size', 'num_hidden_layers')
    tower = _transformers_tower(cfg, where, keys, 8, 'clip_text_model')
    words, end = whole(cfg, 'vocab_size', 49408, where), cfg.get('eos_token_id', 49407)
    if end not in (2, words - 1):  # 2 makes transformers look for the highest id
        raise CheckpointError(
            f'{where}: eos_token_id = {shown(end)}, at which the text would be pooled (only 2 or the highest id,'
            f' {words - 1}, can be converted)'
        )
    return tower


def _transformers_vision(cfg, where):
    keys = ('image_size', 'patch_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers')
    return _transformers_tower(cfg, where, keys, 12, 'clip_vision_model')


def _transformers_tower(cfg, where, keys, heads, model_type):
    """Settings of one tower. `keys` are its sizes; a missing key has the default of transformers' classes."""
    check_keys(
        cfg,
        where,
        (*keys, 'num_attention_heads', 'hidden_act', 'layer_norm_eps', 'eos_token_id', 'projection_dim'),
        HF_NO_EFFECT,
        {**HF_ONLY, 'model_type': (model_type,)},
    )
    act = cfg.get('hidden_act', 'quick_gelu')
    if act not in ACTIVATIONS:
        raise CheckpointError(f'{where}: hidden_act = {shown(act)} (only {", ".join(ACTIVATIONS)} can be converted)')
    return {
        'hidden_act': ACTIVATIONS[act],
        'num_attention_heads': whole(cfg, 'num_attention_heads', heads, where),
        'layer_norm_eps': number(cfg, 'layer_norm_eps', 1e-5, where),
        'sizes': {key: cfg.get(key) for key in keys},
    }


def transformers_pictures(folder):
    """Image preprocessing, or None if there is no such file; CheckpointError if a setting would be ignored."""
    path = folder / PREPROCESSOR
    if path.is_file():
        cfg = read_json(path, error=CheckpointError, limit=MAX_JSON)
    elif (folder / PROCESSOR).is_file():  # the file of transformers 5
        path = folder / PROCESSOR
        cfg = section(read_json(path, error=CheckpointError, limit=MAX_JSON), 'image_processor', path)
    else:
        return None
    cfg = {key: value for key, value in cfg.items() if value is not None}
    check_keys(cfg, path, PREPROCESSOR_USED, PREPROCESSOR_NO_EFFECT, PREPROCESSOR_ONLY)
    if abs(255 * number(cfg, 'rescale_factor', 1 / 255, path) - 1) > 1e-6:
        raise CheckpointError(f'{path}: rescale_factor = {cfg["rescale_factor"]!r} (only 1/255 can be converted)')
    if type(cfg.get('resample', 3)) is not int or cfg.get('resample', 3) not in range(len(RESAMPLE)):
        raise CheckpointError(
            f'{path}: resample = {shown(cfg["resample"])} is none of Pillow\'s 0 to {len(RESAMPLE) - 1}'
        )
    squash, normalized = _transformers_size(cfg, path), cfg.get('do_normalize', True)
    if not isinstance(normalized, bool):
        raise CheckpointError(f'{path}: do_normalize = {shown(normalized)} is neither true nor false')
    norm = {
        'image_mean': colours(cfg, 'image_mean', CLIP_MEAN, path),
        'image_std': colours(cfg, 'image_std', CLIP_STD, path),
    }
    norm = norm if normalized else {'image_mean': [0.0] * 3, 'image_std': [1.0] * 3}
    return {
        **norm,
        'interpolation': RESAMPLE[cfg.get('resample', 3)],
        'resize_mode': 'squash' if squash else 'shortest',
        'size': _transformers_side(cfg, path),
    }


def _transformers_size(cfg, where):
    """Whether both sides are resized to one length; CheckpointError if the centre crop is smaller than the shorter
    side."""
    size = cfg.get('size', 224)
    squash = isinstance(size, dict) and set(size) == {'height', 'width'}
    if isinstance(size, dict) and not squash and set(size) != {'shortest_edge'}:
        raise CheckpointError(
            f'{where}: size = {shown(size)} (only shortest_edge, or height and width, can be converted)'
        )
    if cfg.get('do_center_crop', True) is True:
        agree(_transformers_side(cfg, where), side(cfg.get('crop_size', 224), 'crop_size', where), where, 'crop_size')
    elif not squash:
        raise CheckpointError(f'{where}: do_center_crop = {shown(cfg["do_center_crop"])}: images would not be square')
    return squash


def _transformers_side(cfg, where):
    size = cfg.get('size', 224)
    return side(size.get('shortest_edge', size) if isinstance(size, dict) else size, 'size', where)

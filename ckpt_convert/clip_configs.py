"""What the configs beside a CLIP say of it that no name and no shape does: activation, heads, epsilons, how pictures are prepared.

open_clip writes open_clip_config.json, transformers config.json and preprocessor_config.json. The file that belongs to the names of the weights
counts; the other one, if it is there too, describes other weights. Every key is honoured, known to change no number, or refused by name.
"""
import math

from diffdis_ms.config import CLIP_MEAN, CLIP_STD
from diffdis_ms.text_files import read_json

from ckpt_convert.known_keys import check_keys
from ckpt_convert.tensors import CheckpointError

MAX_JSON = 1 << 20                               # bytes
OPEN_CLIP, TRANSFORMERS, PREPROCESSOR, PROCESSOR = 'open_clip_config.json', 'config.json', 'preprocessor_config.json', 'processor_config.json'
PICTURES = ('image_mean', 'image_std', 'interpolation', 'resize_mode')
OPENAI_PICTURES = {'image_mean': list(CLIP_MEAN), 'image_std': list(CLIP_STD), 'interpolation': 'bicubic', 'resize_mode': 'shortest'}
SURE = {'text_encoder': (256, 1024), 'image_encoder': (64, 1024)}  # widths whose heads are 64 wide in all CLIPs; ViT-H's, g's and G's are not
RESAMPLE = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')       # Pillow's numbers
ACTIVATIONS = {'quick_gelu': 'quick_gelu', 'gelu': 'gelu', 'gelu_python': 'gelu', 'gelu_pytorch_tanh': 'gelu_pytorch_tanh',
               'gelu_new': 'gelu_pytorch_tanh', 'gelu_fast': 'gelu_pytorch_tanh'}            # the last three differ in rounding only

# open_clip: what changes no number, and what has to have one of these values
BLOCK_ONLY = {'ls_init_value': (None,), 'block_type': (None, 'default'), **{key: (None, False) for key in (
    'qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner', 'scale_attn', 'scale_fc')}}
VISION_ONLY = {**BLOCK_ONLY, 'attentional_pool': (None, False), 'no_ln_pre': (False,), 'pool_type': ('tok',), 'timm_model_name': (None, ''),
               'pos_embed_type': ('learnable', 'sin_cos_2d'),      # both are stored as a table
               'global_average_pool': (False,), 'input_patchnorm': (False,)}
VISION_IDLE = ('patch_dropout', 'attn_pooler_queries', 'attn_pooler_heads', 'n_queries', 'output_tokens', 'timm_model_pretrained', 'timm_pool', 'timm_proj',
               'timm_proj_bias', 'timm_drop', 'timm_drop_path', 'final_ln_after_pool')       # a norm of each token: before or after choosing one
TEXT_ONLY = {**BLOCK_ONLY, 'no_causal_mask': (None, False), 'embed_cls': (False,), 'proj_bias': (False,), 'proj_type': ('linear',),
             'hf_model_name': (None, ''), 'hf_tokenizer_name': (None, ''), 'tokenizer_mode': (None, ''), 'tokenizer_kwargs': (None, {}),
             'use_pad_mask': (False,), 'correct_cls_mask': (False,), 'pool_type': ('argmax', 'eos')}
TEXT_IDLE = ('pad_id', 'output_tokens', 'hf_model_pretrained', 'hf_proj_type', 'hf_pooler_type', 'final_ln_after_pool')
MODEL_IDLE = ('custom_text', 'init_logit_scale', 'nonscalar_logit_scale', 'cast_dtype', 'output_dict')

# transformers: what every config of it may hold, generation's defaults among them
HF_IDLE = ('_name_or_path', '_commit_hash', '_attn_implementation', '_attn_implementation_autoset', 'attn_implementation', 'architectures',
           'attention_dropout', 'bad_words_ids', 'begin_suppress_tokens', 'bos_token_id', 'chunk_size_feed_forward', 'cross_attention_hidden_size',
           'decoder_start_token_id', 'diversity_penalty', 'do_sample', 'dropout', 'dtype', 'early_stopping', 'encoder_no_repeat_ngram_size',
           'exponential_decay_length_penalty', 'finetuning_task', 'forced_bos_token_id', 'forced_eos_token_id', 'gradient_checkpointing', 'id2label',
           'initializer_factor', 'initializer_range', 'is_encoder_decoder', 'label2id', 'length_penalty', 'max_length', 'min_length', 'no_repeat_ngram_size',
           'num_beam_groups', 'num_beams', 'num_return_sequences', 'output_attentions', 'output_hidden_states', 'output_scores', 'pad_token_id', 'prefix',
           'problem_type', 'remove_invalid_values', 'repetition_penalty', 'return_dict', 'return_dict_in_generate', 'sep_token_id', 'suppress_tokens',
           'task_specific_params', 'temperature', 'tf_legacy_loss', 'tie_encoder_decoder', 'tie_word_embeddings', 'tokenizer_class', 'top_k', 'top_p',
           'torch_dtype', 'torchscript', 'transformers_version', 'typical_p', 'use_bfloat16', 'use_cache', 'logit_scale_init_value')
HF_ONLY = {'add_cross_attention': (False,), 'is_decoder': (False,), 'pruned_heads': ({}, None), 'num_channels': (3,)}
PREPROCESSOR_IDLE = ('processor_class', 'do_convert_rgb', 'data_format', 'input_data_format', 'return_tensors', 'device', 'disable_grouping',
                     'image_seq_length', '_processor_class', '_valid_processor_keys')
PROCESSORS = tuple(f'CLIP{kind}' for kind in ('ImageProcessor', 'ImageProcessorFast', 'ImageProcessorPil', 'FeatureExtractor', 'Processor'))
PREPROCESSOR_ONLY = {'do_resize': (True,), 'do_rescale': (True,), 'do_pad': (None, False), 'pad_size': (None,), 'default_to_square': (None, False),
                     'use_square_size': (False,), 'image_processor_type': PROCESSORS, 'feature_extractor_type': PROCESSORS}


def read_configs(folder, layout, openai=False):
    """What the configs in a folder say of the CLIP whose weights are in a layout.

    Args:
        folder: of the weights. layout: 'openai' (open_clip's names, too) or 'transformers'. openai: the file is one of OpenAI's own, which says enough.

    Returns:
        {'text_encoder' | 'image_encoder': dict}: fields of our config (hidden_act, num_attention_heads, layer_norm_eps, image_mean ...) as far as
        they are said, and `sizes`: those that the tensors must have, too.

    Raises:
        CheckpointError: a key or value that would be ignored, a contradiction, a damaged file.
    """
    towers = {'text_encoder': {}, 'image_encoder': {}}
    if layout == 'openai' and openai:
        return {'text_encoder': {'hidden_act': 'quick_gelu'}, 'image_encoder': {'hidden_act': 'quick_gelu', **OPENAI_PICTURES}}
    own, other = (_open_clip_pictures, _transformers_pictures) if layout == 'openai' else (_transformers_pictures, _open_clip_pictures)
    if layout == 'openai' and (folder / OPEN_CLIP).is_file():
        towers = _open_clip_towers(folder / OPEN_CLIP)
    elif layout == 'transformers' and (folder / TRANSFORMERS).is_file():
        towers = _transformers_towers(folder / TRANSFORMERS)
    pictures = own(folder)
    if pictures is None and (not towers['image_encoder'] or layout == 'transformers'):
        foreign = other(folder)
        if foreign is not None and _decisive(foreign) != _decisive(OPENAI_PICTURES):
            raise CheckpointError(f'{folder}: no file that belongs to the weights says how pictures are prepared, and the one of another tool says '
                                  f'{_settings(foreign)}: give --set {_settings(foreign)} to take it, or other values')
    towers['image_encoder'].update(pictures or {})               # with `size`, the side that pictures are resized to
    return towers


def check_sizes(config, said, where):
    """CheckpointError where the sizes of a config file (`said['sizes']`) are not those of the tensors, which `config` has."""
    if said.get('size', getattr(config, 'image_size', None)) != getattr(config, 'image_size', None):
        raise CheckpointError(f'{where}: pictures are resized to {said["size"]}, but the tensors are for {config.image_size}')
    for key, value in said.get('sizes', {}).items():
        if value is not None and getattr(config, key) != value:
            raise CheckpointError(f'{where}: the config beside the weights says {key} = {_shown(value)}, the tensors {getattr(config, key)}')


def require_known(config, towers, overrides, where):
    """CheckpointError where nothing says what the networks compute: an activation, or the heads of an encoder of unusual width.

    Args:
        config: ModelConfig. towers: {'text_encoder' | 'image_encoder': what `read_configs` said}. overrides: 'key=value' strings.
    """
    given, missing = {item.partition('=')[0] for item in overrides}, []
    for stem, said in towers.items():
        part = getattr(config, stem)
        if 'hidden_act' in said or getattr(part, 'architecture', '') == 'resnet':
            continue
        low, high = SURE[stem]
        keys = ('hidden_act',) if low <= part.hidden_size <= high else ('hidden_act', 'num_attention_heads')
        missing += [f'{stem}.{key}' for key in keys if f'{stem}.{key}' not in given]
    if missing:
        example = ' '.join(f'{key}={"gelu" if key.endswith("act") else "N"}' for key in missing)
        raise CheckpointError(f'{where}: no config beside the weights says {" and ".join(missing)}, and the weights cannot: give --set {example} '
                              '(activations: quick_gelu, as OpenAI trained; gelu, as most of open_clip\'s; gelu_pytorch_tanh)')


def assumed(towers, overrides):
    """Lines that say what was assumed for lack of a config."""
    given = {item.partition('=')[0] for item in overrides}
    image = towers.get('image_encoder')
    keys = [key for key in PICTURES if image is not None and key not in image and f'image_encoder.{key}' not in given]
    return [f'no config beside the weights says how pictures are prepared; taken as OpenAI\'s CLIP has it: {_settings({k: OPENAI_PICTURES[k] for k in keys})}'
            ' (--set changes it)'] if keys else []


def _settings(pictures):
    return ' '.join(f'image_encoder.{key}={str(value).replace(" ", "")}' for key, value in pictures.items() if key in PICTURES)


def _decisive(pictures):
    return [pictures[key] for key in PICTURES]


# open_clip

def _open_clip(path):
    content = read_json(path, error=CheckpointError, limit=MAX_JSON)
    check_keys(content, path, honoured=('model_cfg', 'preprocess_cfg'))
    return content


def _open_clip_towers(path):
    model = _section(_open_clip(path), 'model_cfg', path, required=True)
    check_keys(model, f'{path}, model_cfg', ('embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu'), MODEL_IDLE,
               {'init_logit_bias': (None,), 'multimodal_cfg': (None,)})
    vision, text = _section(model, 'vision_cfg', path, True), _section(model, 'text_cfg', path, True)
    quick = model.get('quick_gelu') or False
    if not isinstance(quick, bool):
        raise CheckpointError(f'{path}: quick_gelu = {_shown(quick)} is neither true nor false')
    return {'text_encoder': _open_clip_text(text, quick, model.get('embed_dim'), f'{path}, text_cfg'),
            'image_encoder': _open_clip_vision(vision, quick, model.get('embed_dim'), f'{path}, vision_cfg')}


def _open_clip_text(cfg, quick, embed_dim, where):
    check_keys(cfg, where, ('context_length', 'vocab_size', 'width', 'heads', 'layers', 'mlp_ratio', 'norm_kwargs', 'act_kwargs', 'eos_id'),
               TEXT_IDLE, TEXT_ONLY)
    words, width = _whole(cfg, 'vocab_size', 49408, where), _whole(cfg, 'width', 512, where)
    if cfg.get('pool_type') == 'eos' and cfg.get('eos_id', 2) != words - 1:
        raise CheckpointError(f'{where}: pool_type = eos with eos_id = {_shown(cfg.get("eos_id", 2))}: only the highest id ({words - 1}) can be converted')
    return {'hidden_act': _open_clip_act(cfg, quick, where), 'layer_norm_eps': _open_clip_eps(cfg, where),
            'num_attention_heads': _whole(cfg, 'heads', 8, where),
            'sizes': {'vocab_size': words, 'max_position_embeddings': _whole(cfg, 'context_length', 77, where), 'hidden_size': width,
                      'num_hidden_layers': _whole(cfg, 'layers', 12, where), 'intermediate_size': int(width * _number(cfg, 'mlp_ratio', 4.0, where)),
                      'projection_dim': embed_dim}}


def _open_clip_vision(cfg, quick, embed_dim, where):
    check_keys(cfg, where, ('layers', 'width', 'head_width', 'mlp_ratio', 'patch_size', 'image_size', 'norm_kwargs', 'act_kwargs'), VISION_IDLE, VISION_ONLY)
    width, head = _whole(cfg, 'width', 768, where), _whole(cfg, 'head_width', 64, where)
    sizes = {'image_size': _side(cfg.get('image_size', 224), 'image_size', where), 'projection_dim': embed_dim}
    if isinstance(cfg.get('layers'), list):
        return {'num_attention_heads': 32 * width // head, 'sizes': {**sizes, 'hidden_size': 32 * width, 'resnet_layers': cfg['layers']}}
    if width % head:
        raise CheckpointError(f'{where}: head_width = {head} does not divide width = {width}')
    return {'hidden_act': _open_clip_act(cfg, quick, where), 'layer_norm_eps': _open_clip_eps(cfg, where), 'num_attention_heads': width // head,
            'sizes': {**sizes, 'patch_size': _side(cfg.get('patch_size', 16), 'patch_size', where), 'hidden_size': width,
                      'num_hidden_layers': _whole(cfg, 'layers', 12, where), 'intermediate_size': int(width * _number(cfg, 'mlp_ratio', 4.0, where))}}


def _open_clip_act(cfg, quick, where):
    options = cfg.get('act_kwargs') or {}
    if not isinstance(options, dict) or options and quick:
        raise CheckpointError(f'{where}: act_kwargs = {_shown(options)} does not go with {"quick_gelu" if quick else "an activation"}')
    check_keys(options, f'{where}, act_kwargs', only={'approximate': ('none', 'tanh')})
    return 'quick_gelu' if quick else 'gelu_pytorch_tanh' if options.get('approximate') == 'tanh' else 'gelu'


def _open_clip_eps(cfg, where):
    options = cfg.get('norm_kwargs') or {}
    if not isinstance(options, dict):
        raise CheckpointError(f'{where}: norm_kwargs = {_shown(options)} is no mapping')
    check_keys(options, f'{where}, norm_kwargs', ('eps',), only={'elementwise_affine': (True,), 'bias': (True,)})
    return _number(options, 'eps', 1e-5, where)


def _open_clip_pictures(folder):
    path = folder / OPEN_CLIP
    if not path.is_file():
        return None
    where, content = f'{path}, preprocess_cfg', _open_clip(path)
    cfg = {key: value for key, value in _section(content, 'preprocess_cfg', path).items() if value is not None}
    check_keys(cfg, where, ('mean', 'std', 'size'), ('fill_color',),             # of the borders that resize_mode = longest leaves
               {'mode': ('RGB',), 'interpolation': ('bicubic', 'bilinear', 'random'), 'resize_mode': ('shortest', 'squash')})
    if 'size' in cfg:
        towers = _section(_section(content, 'model_cfg', path), 'vision_cfg', path)
        _agree(_side(cfg['size'], 'size', where), _side(towers.get('image_size', 224), 'image_size', path), where)
    return {'image_mean': _colours(cfg, 'mean', CLIP_MEAN, where), 'image_std': _colours(cfg, 'std', CLIP_STD, where),
            'interpolation': 'bilinear' if cfg.get('interpolation') == 'bilinear' else 'bicubic',            # random: of training only
            'resize_mode': cfg.get('resize_mode', 'shortest')}


# transformers

def _transformers_towers(path):
    content = read_json(path, error=CheckpointError, limit=MAX_JSON)
    kind = content.get('model_type', 'clip')
    if kind not in ('clip', 'clip_text_model'):
        raise CheckpointError(f'{path}: model_type = {_shown(kind)} (only clip and clip_text_model can be converted)')
    if kind == 'clip_text_model':
        return {'text_encoder': transformers_text(content, path), 'image_encoder': {}}
    check_keys(content, path, ('model_type', 'text_config', 'vision_config', 'text_config_dict', 'vision_config_dict', 'projection_dim', 'eos_token_id'),
               HF_IDLE, HF_ONLY)
    towers = {}
    for stem, key, reader in (('text_encoder', 'text_config', transformers_text), ('image_encoder', 'vision_config', _transformers_vision)):
        towers[stem] = reader(_section(content, key, path), f'{path}, {key}')
        if content.get(f'{key}_dict') is not None:                               # transformers takes it, defaults included, in place of the other
            again = reader(_section(content, f'{key}_dict', path), f'{path}, {key}_dict')
            differing = next((k for k in ('hidden_act', 'num_attention_heads', 'layer_norm_eps') if towers[stem][k] != again[k]), None)
            if differing:
                raise CheckpointError(f'{path}: {key} says {differing} = {towers[stem][differing]}, {key}_dict {again[differing]}: take one of them out')
            towers[stem]['sizes'].update({k: v for k, v in again['sizes'].items() if v is not None})
        towers[stem]['sizes']['projection_dim'] = content.get('projection_dim')  # the towers' own is not used
    return towers


def transformers_text(cfg, where):
    """A CLIPTextConfig as `read_configs` gives it; raises CheckpointError as that does."""
    keys = ('vocab_size', 'max_position_embeddings', 'hidden_size', 'intermediate_size', 'num_hidden_layers')
    check_keys(cfg, where, (*keys, 'num_attention_heads', 'hidden_act', 'layer_norm_eps', 'eos_token_id', 'projection_dim'), HF_IDLE,
               {**HF_ONLY, 'model_type': ('clip_text_model',)})
    words, end = _whole(cfg, 'vocab_size', 49408, where), cfg.get('eos_token_id', 49407)
    if end not in (2, words - 1):                # 2 makes transformers look for the highest id
        raise CheckpointError(f'{where}: eos_token_id = {_shown(end)}, at which the text would be pooled (only 2 or the highest id, {words - 1}, '
                              'can be converted)')
    return {**_transformers_tower(cfg, 8, where), 'sizes': {key: cfg.get(key) for key in keys}}


def _transformers_vision(cfg, where):
    keys = ('image_size', 'patch_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers')
    check_keys(cfg, where, (*keys, 'num_attention_heads', 'hidden_act', 'layer_norm_eps', 'projection_dim', 'eos_token_id'), HF_IDLE,
               {**HF_ONLY, 'model_type': ('clip_vision_model',)})
    return {**_transformers_tower(cfg, 12, where), 'sizes': {key: cfg.get(key) for key in keys}}


def _transformers_tower(cfg, heads, where):
    """What transformers leaves out is what its classes have by default."""
    act = cfg.get('hidden_act', 'quick_gelu')
    if act not in ACTIVATIONS:
        raise CheckpointError(f'{where}: hidden_act = {_shown(act)} (only {", ".join(ACTIVATIONS)} can be converted)')
    return {'hidden_act': ACTIVATIONS[act], 'num_attention_heads': _whole(cfg, 'num_attention_heads', heads, where),
            'layer_norm_eps': _number(cfg, 'layer_norm_eps', 1e-5, where)}


def _transformers_pictures(folder):
    path = folder / PREPROCESSOR
    if path.is_file():
        cfg = read_json(path, error=CheckpointError, limit=MAX_JSON)
    elif (folder / PROCESSOR).is_file():         # where transformers 5 keeps it
        path = folder / PROCESSOR
        cfg = _section(read_json(path, error=CheckpointError, limit=MAX_JSON), 'image_processor', path)
    else:
        return None
    cfg = {key: value for key, value in cfg.items() if value is not None}
    check_keys(cfg, path, ('image_mean', 'image_std', 'size', 'crop_size', 'do_center_crop', 'do_normalize', 'resample', 'rescale_factor'),
               PREPROCESSOR_IDLE, PREPROCESSOR_ONLY)
    if abs(255 * _number(cfg, 'rescale_factor', 1 / 255, path) - 1) > 1e-6:
        raise CheckpointError(f'{path}: rescale_factor = {cfg["rescale_factor"]!r} (only 1/255 can be converted)')
    if type(cfg.get('resample', 3)) is not int or cfg.get('resample', 3) not in range(len(RESAMPLE)):
        raise CheckpointError(f'{path}: resample = {_shown(cfg["resample"])} is none of Pillow\'s 0 to {len(RESAMPLE) - 1}')
    squash, normalized = _transformers_size(cfg, path), cfg.get('do_normalize', True)
    if not isinstance(normalized, bool):
        raise CheckpointError(f'{path}: do_normalize = {_shown(normalized)} is neither true nor false')
    colours = {'image_mean': _colours(cfg, 'image_mean', CLIP_MEAN, path), 'image_std': _colours(cfg, 'image_std', CLIP_STD, path)}
    colours = colours if normalized else {'image_mean': [0.0] * 3, 'image_std': [1.0] * 3}
    return {**colours, 'interpolation': RESAMPLE[cfg.get('resample', 3)], 'resize_mode': 'squash' if squash else 'shortest',
            'size': _transformers_side(cfg, path)}


def _transformers_size(cfg, where):
    """Whether both sides are resized to one length; CheckpointError where the centre cut out is not all of the shorter side."""
    size = cfg.get('size', 224)
    squash = isinstance(size, dict) and set(size) == {'height', 'width'}
    if isinstance(size, dict) and not squash and set(size) != {'shortest_edge'}:
        raise CheckpointError(f'{where}: size = {_shown(size)} (only shortest_edge, or height and width, can be converted)')
    if cfg.get('do_center_crop', True) is True:
        _agree(_transformers_side(cfg, where), _side(cfg.get('crop_size', 224), 'crop_size', where), where, 'crop_size')
    elif not squash:
        raise CheckpointError(f'{where}: do_center_crop = {_shown(cfg["do_center_crop"])}: pictures would not be square')
    return squash


def _transformers_side(cfg, where):
    size = cfg.get('size', 224)
    return _side(size.get('shortest_edge', size) if isinstance(size, dict) else size, 'size', where)


# values

def _shown(value):
    """A value of a JSON file for a message, cut."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + '...'


def _section(content, key, where, required=False):
    value = content.get(key)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f'{where}: {key} {"is missing" if value is None else "is no mapping of keys to values"}')
    return value


def _number(cfg, key, default, where):
    value = cfg.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f'{where}: {key} = {_shown(value)} is no number above 0')
    return value


def _whole(cfg, key, default, where):
    value = _number(cfg, key, default, where)
    if value != int(value):
        raise CheckpointError(f'{where}: {key} = {value!r} is no whole number')
    return int(value)


def _side(size, key, where):
    """A length given as a number, as two equal ones, or as height and width."""
    sides = list(size.values()) if isinstance(size, dict) and set(size) == {'height', 'width'} else size if isinstance(size, list) and size else [size]
    numbers = [_whole({key: side}, key, None, where) for side in sides]
    if len(set(numbers)) != 1 or len(numbers) > 2:
        raise CheckpointError(f'{where}: {key} = {_shown(size)} is not the side of a square')
    return numbers[0]


def _agree(size, other, where, name='image_size'):
    if size != other:
        raise CheckpointError(f'{where}: pictures are resized to {size}, but {name} = {other}')


def _colours(cfg, key, default, where):
    value = cfg.get(key, list(default))
    value = [value] * 3 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(value, list) or len(value) != 3:
        raise CheckpointError(f'{where}: {key} = {_shown(value)} is not one number for each of the three colours')
    numbers = [float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else math.nan for v in value]
    if not all(map(math.isfinite, numbers)):
        raise CheckpointError(f'{where}: {key} = {_shown(value)} is not one number for each of the three colours')
    return numbers

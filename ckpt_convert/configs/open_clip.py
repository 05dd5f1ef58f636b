"""Read open_clip_config.json: settings of a CLIP and of its image preprocessing."""

from ckpt_convert.configs.keys import check_keys
from ckpt_convert.configs.values import MAX_JSON, agree, colours, number, section, shown, side, whole
from diffdis_ms.config import CLIP_MEAN, CLIP_STD
from diffdis_ms.errors import CheckpointError
from diffdis_ms.text_files import read_json

OPEN_CLIP = 'open_clip_config.json'
# by section of the file: keys that are used, keys without effect on results, keys that must have one of these values
BLOCK_ONLY = {
    'ls_init_value': (None,),
    'block_type': (None, 'default'),
    **dict.fromkeys(
        ('qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner', 'scale_attn', 'scale_fc'), (None, False)
    ),
}
VISION_USED = ('layers', 'width', 'head_width', 'mlp_ratio', 'patch_size', 'image_size', 'norm_kwargs', 'act_kwargs')
VISION_ONLY = {
    **BLOCK_ONLY,
    'attentional_pool': (None, False),
    'no_ln_pre': (False,),
    'pool_type': ('tok',),
    'timm_model_name': (None, ''),
    'pos_embed_type': ('learnable', 'sin_cos_2d'),  # both are stored as a table
    'global_average_pool': (False,),
    'input_patchnorm': (False,),
}
# final_ln_after_pool has no effect: the norm acts on each token, before or after one is chosen
# fmt: off
VISION_NO_EFFECT = (
    'patch_dropout', 'attn_pooler_queries', 'attn_pooler_heads', 'n_queries', 'output_tokens', 'timm_model_pretrained',
    'timm_pool', 'timm_proj', 'timm_proj_bias', 'timm_drop', 'timm_drop_path', 'final_ln_after_pool',
)
# fmt: on
# fmt: off
TEXT_USED = (
    'context_length', 'vocab_size', 'width', 'heads', 'layers', 'mlp_ratio', 'norm_kwargs', 'act_kwargs', 'eos_id',
)
# fmt: on
TEXT_ONLY = {
    **BLOCK_ONLY,
    'no_causal_mask': (None, False),
    'embed_cls': (False,),
    'proj_bias': (False,),
    'proj_type': ('linear',),
    'hf_model_name': (None, ''),
    'hf_tokenizer_name': (None, ''),
    'tokenizer_mode': (None, ''),
    'tokenizer_kwargs': (None, {}),
    'use_pad_mask': (False,),
    'correct_cls_mask': (False,),
    'pool_type': ('argmax', 'eos'),
}
TEXT_NO_EFFECT = (
    'pad_id',
    'output_tokens',
    'hf_model_pretrained',
    'hf_proj_type',
    'hf_pooler_type',
    'final_ln_after_pool',
)
MODEL_NO_EFFECT = ('custom_text', 'init_logit_scale', 'nonscalar_logit_scale', 'cast_dtype', 'output_dict')


def _open_clip(path):
    content = read_json(path, error=CheckpointError, limit=MAX_JSON)
    check_keys(content, path, used=('model_cfg', 'preprocess_cfg'))
    return content


def open_clip_towers(path):
    """{tower: its settings} as in `clip.read_configs`; CheckpointError if a setting would be ignored."""
    model = section(_open_clip(path), 'model_cfg', path, required=True)
    check_keys(
        model,
        f'{path}, model_cfg',
        ('embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu'),
        MODEL_NO_EFFECT,
        {'init_logit_bias': (None,), 'multimodal_cfg': (None,)},
    )
    vision, text = section(model, 'vision_cfg', path, True), section(model, 'text_cfg', path, True)
    quick = model.get('quick_gelu') or False
    if not isinstance(quick, bool):
        raise CheckpointError(f'{path}: quick_gelu = {shown(quick)} is neither true nor false')
    return {
        'text_encoder': _open_clip_text(text, quick, model.get('embed_dim'), f'{path}, text_cfg'),
        'image_encoder': _open_clip_vision(vision, quick, model.get('embed_dim'), f'{path}, vision_cfg'),
    }


def _open_clip_text(cfg, quick, embed_dim, where):
    check_keys(cfg, where, TEXT_USED, TEXT_NO_EFFECT, TEXT_ONLY)
    words, width = whole(cfg, 'vocab_size', 49408, where), whole(cfg, 'width', 512, where)
    if cfg.get('pool_type') == 'eos' and cfg.get('eos_id', 2) != words - 1:
        raise CheckpointError(
            f'{where}: pool_type = eos with eos_id = {shown(cfg.get("eos_id", 2))}: only the highest id ({words - 1})'
            ' can be converted'
        )
    return {
        'hidden_act': _open_clip_act(cfg, quick, where),
        'layer_norm_eps': _open_clip_eps(cfg, where),
        'num_attention_heads': whole(cfg, 'heads', 8, where),
        'sizes': {
            'vocab_size': words,
            'max_position_embeddings': whole(cfg, 'context_length', 77, where),
            'hidden_size': width,
            'num_hidden_layers': whole(cfg, 'layers', 12, where),
            'intermediate_size': int(width * number(cfg, 'mlp_ratio', 4.0, where)),
            'projection_dim': embed_dim,
        },
    }


def _open_clip_vision(cfg, quick, embed_dim, where):
    check_keys(cfg, where, VISION_USED, VISION_NO_EFFECT, VISION_ONLY)
    width, head = whole(cfg, 'width', 768, where), whole(cfg, 'head_width', 64, where)
    sizes = {'image_size': side(cfg.get('image_size', 224), 'image_size', where), 'projection_dim': embed_dim}
    if isinstance(cfg.get('layers'), list):
        return {
            'num_attention_heads': 32 * width // head,
            'sizes': {**sizes, 'hidden_size': 32 * width, 'resnet_layers': cfg['layers']},
        }
    if width % head:
        raise CheckpointError(f'{where}: head_width = {head} does not divide width = {width}')
    return {
        'hidden_act': _open_clip_act(cfg, quick, where),
        'layer_norm_eps': _open_clip_eps(cfg, where),
        'num_attention_heads': width // head,
        'sizes': {
            **sizes,
            'patch_size': side(cfg.get('patch_size', 16), 'patch_size', where),
            'hidden_size': width,
            'num_hidden_layers': whole(cfg, 'layers', 12, where),
            'intermediate_size': int(width * number(cfg, 'mlp_ratio', 4.0, where)),
        },
    }


def _open_clip_act(cfg, quick, where):
    options = cfg.get('act_kwargs') or {}
    if not isinstance(options, dict) or options and quick:
        raise CheckpointError(
            f'{where}: act_kwargs = {shown(options)} does not go with {"quick_gelu" if quick else "an activation"}'
        )
    check_keys(options, f'{where}, act_kwargs', only={'approximate': ('none', 'tanh')})
    return 'quick_gelu' if quick else 'gelu_pytorch_tanh' if options.get('approximate') == 'tanh' else 'gelu'


def _open_clip_eps(cfg, where):
    options = cfg.get('norm_kwargs') or {}
    if not isinstance(options, dict):
        raise CheckpointError(f'{where}: norm_kwargs = {shown(options)} is no mapping')
    check_keys(options, f'{where}, norm_kwargs', ('eps',), only={'elementwise_affine': (True,), 'bias': (True,)})
    return number(options, 'eps', 1e-5, where)


def open_clip_pictures(folder):
    """Image preprocessing, or None if there is no such file; CheckpointError if a setting would be ignored."""
    path = folder / OPEN_CLIP
    if not path.is_file():
        return None
    where, content = f'{path}, preprocess_cfg', _open_clip(path)
    cfg = {key: value for key, value in section(content, 'preprocess_cfg', path).items() if value is not None}
    check_keys(
        cfg,
        where,
        ('mean', 'std', 'size'),
        ('fill_color',),  # only for the borders of resize_mode = longest
        {'mode': ('RGB',), 'interpolation': ('bicubic', 'bilinear', 'random'), 'resize_mode': ('shortest', 'squash')},
    )
    if 'size' in cfg:
        towers = section(section(content, 'model_cfg', path), 'vision_cfg', path)
        agree(side(cfg['size'], 'size', where), side(towers.get('image_size', 224), 'image_size', path), where)
    return {
        'image_mean': colours(cfg, 'mean', CLIP_MEAN, where),
        'image_std': colours(cfg, 'std', CLIP_STD, where),
        # 'random' is only for training
        'interpolation': 'bilinear' if cfg.get('interpolation') == 'bilinear' else 'bicubic',
        'resize_mode': cfg.get('resize_mode', 'shortest'),
    }

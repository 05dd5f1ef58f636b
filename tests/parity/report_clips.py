"""CLIPs with settings that leave no trace in names or shapes, as open_clip and transformers write them, and the
features they give."""

import json

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from diffdis_ms.config import CLIP_MEAN, CLIP_STD
from tests.parity.checkpoints import fill, write_tokenizer
from tests.parity.without_torchvision import import_part

WORDS, SIDE, LENGTH = 600, 64, 24
VISION = {'image_size': SIDE, 'layers': 1, 'width': 128, 'patch_size': 16}
TEXT = {'context_length': LENGTH, 'vocab_size': WORDS, 'width': 64, 'heads': 4, 'layers': 1}
# fmt: off
HF_TEXT = {
    'vocab_size': WORDS, 'max_position_embeddings': LENGTH, 'hidden_size': 64, 'intermediate_size': 256,
    'num_hidden_layers': 1, 'num_attention_heads': 4, 'hidden_act': 'gelu', 'eos_token_id': WORDS - 1,
    'bos_token_id': WORDS - 2, 'pad_token_id': 1,
}
# fmt: on
# fmt: off
HF_VISION = {
    'image_size': SIDE, 'patch_size': 16, 'hidden_size': 128, 'intermediate_size': 512, 'num_hidden_layers': 1,
    'num_attention_heads': 2, 'hidden_act': 'gelu',
}
# fmt: on
OPENAI, HALF = {'mean': list(CLIP_MEAN), 'std': list(CLIP_STD)}, {'mean': [0.5] * 3, 'std': [0.5] * 3}
# fmt: off
PREPROCESSOR = {
    'crop_size': SIDE, 'do_center_crop': True, 'do_normalize': True, 'do_resize': True,
    'feature_extractor_type': 'CLIPFeatureExtractor', 'image_mean': list(CLIP_MEAN), 'image_std': list(CLIP_STD),
    'resample': 3, 'size': SIDE,
}
# fmt: on
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), dtype=np.uint8)


def token_ids():
    """Two texts, padded with zeros as open_clip does."""
    ids = np.zeros((2, LENGTH), np.int32)
    ids[:, 0] = WORDS - 2
    for row, words in zip(ids, ([5, 9, 70], [17, 17, 40, 8, 9]), strict=True):
        row[1 : 1 + len(words)], row[1 + len(words)] = words, WORDS - 1
    return ids


class OpenClip:
    """A directory of open_clip; `vision`, `text` and `model` are added to the model's config, `said` to what the file
    says alone."""

    def __init__(self, vision=(), text=(), preprocess=OPENAI, model=(), said=(), quick=False):
        self.vision, self.text, self.quick = {**VISION, **dict(vision)}, {**TEXT, **dict(text)}, quick
        self.preprocess, self.model, self.said = preprocess, dict(model), dict(said)

    def write(self, folder, config=True):
        """Write it and return the torch features (images, texts) of PIXELS and `token_ids()`."""
        module = import_part('open_clip.model')
        net = fill_seeded(
            module.CLIP(
                embed_dim=48,
                vision_cfg=module.CLIPVisionCfg(**self.vision),
                text_cfg=module.CLIPTextCfg(**self.text),
                quick_gelu=self.quick,
                **self.model,
            )
        )
        write_tokenizer(folder, WORDS)
        if config:
            cfg = {
                'embed_dim': 48,
                'vision_cfg': self.vision,
                'text_cfg': self.text,
                **self.model,
                **({'quick_gelu': True} if self.quick else {}),
                **self.said,
            }
            write_json(folder / 'open_clip_config.json', {'model_cfg': cfg, 'preprocess_cfg': self.preprocess})
        save_file(
            {name: t.contiguous() for name, t in net.state_dict().items()}, folder / 'open_clip_model.safetensors'
        )
        return features(
            net,
            self.preprocess,
            lambda pixels: net.encode_image(pixels, normalize=True),
            lambda ids: net.encode_text(ids, normalize=True),
        )


class Transformers:
    """A directory of transformers; `vision` and `text` are added to the configs, `preprocessor` to
    preprocessor_config.json (None: there is none)."""

    def __init__(self, vision=(), text=(), preprocessor=(), top=(), norm=OPENAI):
        self.config = CLIPConfig(
            text_config={**HF_TEXT, **dict(text)}, vision_config={**HF_VISION, **dict(vision)}, projection_dim=48
        )
        self.preprocessor = None if preprocessor is None else {**PREPROCESSOR, **dict(preprocessor)}
        self.top, self.norm = dict(top), norm

    def write(self, folder):
        net = fill_seeded(CLIPModel(self.config))
        net.save_pretrained(folder)
        write_tokenizer(folder, WORDS)
        if self.top:
            write_json(folder / 'config.json', {**json.loads((folder / 'config.json').read_text()), **self.top})
        if self.preprocessor is not None:
            write_json(folder / 'preprocessor_config.json', self.preprocessor)
        normalize = torch.nn.functional.normalize
        return features(
            net,
            self.norm,
            lambda pixels: normalize(net.get_image_features(pixels), dim=-1),
            lambda ids: normalize(net.get_text_features(ids), dim=-1),
        )


def features(net, norm, image, text):
    pixels = (torch.from_numpy(PIXELS).float() / 255 - torch.tensor(norm['mean'])[:, None, None]) / torch.tensor(
        norm['std']
    )[:, None, None]
    with torch.no_grad():
        return image(pixels).numpy(), text(torch.from_numpy(token_ids()).long()).numpy()


def fill_seeded(net):
    torch.manual_seed(7)
    fill(net)
    return net.eval()


def write_json(path, content):
    path.write_text(json.dumps(content), encoding='utf-8')


EQUAL = {
    'open_clip': OpenClip(),
    'open_clip, mean and deviation 0.5': OpenClip(preprocess=HALF),
    'open_clip, head_width 32': OpenClip({'head_width': 32}, {'heads': 2}),
    'open_clip, heads by default': OpenClip(text={'heads': 8}),
    'open_clip, epsilons': OpenClip({'norm_kwargs': {'eps': 1e-2}}, {'norm_kwargs': {'eps': 3e-3}}),
    'open_clip, tanh': OpenClip({'act_kwargs': {'approximate': 'tanh'}}, {'act_kwargs': {'approximate': 'tanh'}}),
    'open_clip, quick_gelu': OpenClip(quick=True),
    'open_clip, squash': OpenClip(
        preprocess={
            **OPENAI,
            'interpolation': 'bilinear',
            'resize_mode': 'squash',
            'mode': 'RGB',
            'size': [SIDE, SIDE],
            'fill_color': 0,
        }
    ),
    'open_clip, ResNet': OpenClip(
        {'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 32, 'patch_size': None}, preprocess=HALF, quick=True
    ),
    'open_clip, no effect': OpenClip(
        {'patch_dropout': 0.5, 'final_ln_after_pool': True, 'pos_embed_type': 'sin_cos_2d', 'pool_type': 'tok'},
        {'pool_type': 'eos', 'eos_id': WORDS - 1, 'pad_id': 5},
        said={'custom_text': True, 'cast_dtype': 'fp16'},
    ),
    'transformers': Transformers(),
    'transformers, mean and deviation 0.5': Transformers(
        preprocessor={'image_mean': 0.5, 'image_std': [0.5] * 3}, norm=HALF
    ),
    'transformers, not normalised': Transformers(
        preprocessor={'do_normalize': False}, norm={'mean': [0.0] * 3, 'std': [1.0] * 3}
    ),
    'transformers, epsilons and heads': Transformers(
        {'layer_norm_eps': 1e-2, 'num_attention_heads': 8}, {'layer_norm_eps': 2e-3, 'num_attention_heads': 2}
    ),
    'transformers, tanh': Transformers({'hidden_act': 'gelu_pytorch_tanh'}, {'hidden_act': 'gelu_new'}),
    'transformers, sizes as mappings': Transformers(
        {'hidden_act': 'quick_gelu'},
        preprocessor={
            'size': {'shortest_edge': SIDE},
            'crop_size': {'height': SIDE, 'width': SIDE},
            'rescale_factor': 1 / 255,
            'do_rescale': True,
            'resample': 2,
            'do_convert_rgb': True,
            'image_processor_type': 'CLIPImageProcessor',
            'processor_class': 'CLIPProcessor',
        },
    ),
}

# what is refused: (config, what the message must name)
REFUSED = {
    **{
        f'vision_cfg, {next(iter(cfg))} = {next(iter(cfg.values()))}': (
            OpenClip(said={'vision_cfg': {**VISION, **cfg}}),
            next(iter(cfg)),
        )
        for cfg in (
            {'pool_type': 'avg'},
            {'pool_type': 'none'},
            {'pool_type': 'avg', 'final_ln_after_pool': True},
            {'attentional_pool': True},
            {'attentional_pool': 'parallel'},
            {'no_ln_pre': True},
            {'qk_norm': True},
            {'scale_fc': True},
            {'block_type': 'custom'},
            {'ls_init_value': 1e-4},
            {'timm_model_name': 'vit_base_patch16_siglip_224'},
            {'act_kwargs': {'approximate': 'sinh'}},
            {'norm_kwargs': {'bias': False}},
            {'pos_embed_type': 'rope'},
            {'head_widht': 32},
            {'image_size': 96},
            {'layers': 3},
            {'head_width': 48},
        )
    },
    **{
        f'text_cfg, {next(iter(cfg))} = {next(iter(cfg.values()))}': (
            OpenClip(said={'text_cfg': {**TEXT, **cfg}}),
            next(iter(cfg)),
        )
        for cfg in (
            {'pool_type': 'last'},
            {'pool_type': 'first'},
            {'pool_type': 'eos', 'eos_id': 2},
            {'no_causal_mask': True},
            {'embed_cls': True},
            {'proj_bias': True},
            {'proj_type': 'none'},
            {'hf_model_name': 'roberta-base'},
            {'hf_tokenizer_name': 'bert-base-uncased'},
            {'tokenizer_kwargs': {'clean': 'canonicalize'}},
            {'ls_init_value': 1e-5},
            {'vocab_size': 601},
        )
    },
    **{
        f'model_cfg, {key}': (OpenClip(said={key: value}), key)
        for key, value in {
            'init_logit_bias': -10,
            'multimodal_cfg': {'width': 512},
            'quick_gelu': 'yes',
            'surprise': 1,
        }.items()
    },
    'model_cfg, embed_dim': (OpenClip(said={'embed_dim': 32}), 'projection_dim = 32'),
    **{
        f'preprocess_cfg, {key} = {value}': (OpenClip(preprocess={**OPENAI, key: value}), name)
        for key, value, name in (
            ('resize_mode', 'longest', 'resize_mode'),
            ('interpolation', 'nearest', 'interpolation'),
            ('size', 96, 'size'),
            ('mode', 'L', 'mode'),
            ('crop_pct', 0.9, 'crop_pct'),
            ('mean', [0.5, 0.5], 'mean'),
        )
    },
    **{
        f'preprocessor_config, {key} = {value}': (Transformers(preprocessor={key: value}), key)
        for key, value in (
            ('do_resize', False),
            ('do_rescale', False),
            ('rescale_factor', 1 / 127.5),
            ('do_center_crop', False),
            ('size', 72),
            ('size', {'longest_edge': SIDE}),
            ('crop_size', {'height': SIDE, 'width': 32}),
            ('resample', 7),
            ('image_processor_type', 'ViTImageProcessor'),
            ('do_reduce_labels', True),
            ('do_normalize', 'no'),
            ('image_std', 'half'),
        )
    },
    **{
        f'config.json, {next(iter(top))}': (Transformers(top=top), word)
        for top, word in (
            ({'model_type': 'siglip'}, 'model_type'),
            ({'quantization_config': {}}, 'quantization_config'),
            ({'projection_dim': 32}, 'projection_dim'),
            ({'text_config': {**HF_TEXT, 'eos_token_id': 5}}, 'eos_token_id'),
            ({'text_config_dict': {**HF_TEXT, 'layer_norm_eps': 1e-2}}, 'layer_norm_eps'),
            ({'vision_config': {**HF_VISION, 'hidden_act': 'relu'}}, 'hidden_act'),
            ({'vision_config': {**HF_VISION, 'num_hidden_layers': 2}}, 'num_hidden_layers'),
            ({'vision_config_dict': {**HF_VISION, 'num_channels': 1}}, 'num_channels'),
        )
    },
}

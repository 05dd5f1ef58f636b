"""Read settings of a CLIP that its weights do not tell: activation, heads, epsilons and image preprocessing.

open_clip writes them to open_clip_config.json, transformers to config.json and preprocessor_config.json. The file of
the tool whose names the weights have is used. A file of the other tool describes other weights and is ignored.
"""

from ckpt_convert.configs.open_clip import OPEN_CLIP, open_clip_pictures, open_clip_towers
from ckpt_convert.configs.transformers_clip import TRANSFORMERS, transformers_pictures, transformers_towers
from ckpt_convert.configs.values import shown
from diffdis_ms.config import CLIP_MEAN, CLIP_STD
from diffdis_ms.errors import CheckpointError

PICTURES = ('image_mean', 'image_std', 'interpolation', 'resize_mode')
OPENAI_PICTURES = {
    'image_mean': list(CLIP_MEAN),
    'image_std': list(CLIP_STD),
    'interpolation': 'bicubic',
    'resize_mode': 'shortest',
}
# widths at which all CLIPs have heads of width 64; ViT-H, g and G have other heads
SURE = {'text_encoder': (256, 1024), 'image_encoder': (64, 1024)}


def read_configs(folder, layout, openai=False):
    """Read the configs in the folder of a CLIP's weights.

    Args:
        folder: folder of the weights. layout: 'openai' (also for open_clip's names) or 'transformers'. openai: whether
            it is one of OpenAI's own files, which need no config.

    Returns:
        {'text_encoder' | 'image_encoder': dict}: the fields of our config (hidden_act, num_attention_heads,
        layer_norm_eps, image_mean ...) that the files give, and `sizes`, which the tensors must also have.

    Raises:
        CheckpointError: a key or value would be ignored, files contradict each other, or a file is damaged.
    """
    towers = {'text_encoder': {}, 'image_encoder': {}}
    if layout == 'openai' and openai:
        return {
            'text_encoder': {'hidden_act': 'quick_gelu'},
            'image_encoder': {'hidden_act': 'quick_gelu', **OPENAI_PICTURES},
        }
    own, other = (
        (open_clip_pictures, transformers_pictures)
        if layout == 'openai'
        else (transformers_pictures, open_clip_pictures)
    )
    if layout == 'openai' and (folder / OPEN_CLIP).is_file():
        towers = open_clip_towers(folder / OPEN_CLIP)
    elif layout == 'transformers' and (folder / TRANSFORMERS).is_file():
        towers = transformers_towers(folder / TRANSFORMERS)
    pictures = own(folder)
    if pictures is None and (not towers['image_encoder'] or layout == 'transformers'):
        foreign = other(folder)
        if foreign is not None and _decisive(foreign) != _decisive(OPENAI_PICTURES):
            raise CheckpointError(
                f'{folder}: no config of the weights\' own tool gives the image preprocessing, and that of another'
                f' tool has {_settings(foreign)}: give --set {_settings(foreign)} to use it, or other values'
            )
    towers['image_encoder'].update(pictures or {})  # with `size`, to which images are resized
    return towers


def check_sizes(config, said, where):
    """Raise CheckpointError if the sizes of a config file (`said['sizes']`) differ from the tensors' (in `config`)."""
    if said.get('size', getattr(config, 'image_size', None)) != getattr(config, 'image_size', None):
        raise CheckpointError(
            f'{where}: images are resized to {said["size"]}, but the tensors are for {config.image_size}'
        )
    for key, value in said.get('sizes', {}).items():
        if value is not None and getattr(config, key) != value:
            raise CheckpointError(
                f'{where}: the config beside the weights says {key} = {shown(value)}, but the tensors have'
                f' {getattr(config, key)}'
            )


def require_known(config, towers, overrides, where):
    """Raise CheckpointError if an activation, or the heads of an encoder of unusual width, are not known.

    Args:
        config: ModelConfig. towers: {'text_encoder' | 'image_encoder': result of `read_configs`}. overrides:
            'key=value' strings.
    """
    given, missing = {item.partition('=')[0] for item in overrides}, []
    for stem, said in towers.items():
        tower = getattr(config, stem)
        if 'hidden_act' in said or getattr(tower, 'architecture', '') == 'resnet':
            continue
        low, high = SURE[stem]
        keys = ('hidden_act',) if low <= tower.hidden_size <= high else ('hidden_act', 'num_attention_heads')
        missing += [f'{stem}.{key}' for key in keys if f'{stem}.{key}' not in given]
    if missing:
        example = ' '.join(f'{key}={"gelu" if key.endswith("act") else "N"}' for key in missing)
        raise CheckpointError(
            f'{where}: no config beside the weights gives {" and ".join(missing)}, and the weights do not: give --set'
            f' {example} (activations: quick_gelu, as OpenAI trained; gelu, as most of open_clip\'s; gelu_pytorch_tanh)'
        )


def assumed(towers, overrides):
    """List what was assumed because there is no config."""
    given = {item.partition('=')[0] for item in overrides}
    image = towers.get('image_encoder')
    keys = [key for key in PICTURES if image is not None and key not in image and f'image_encoder.{key}' not in given]
    return (
        [
            'no config beside the weights gives the image preprocessing; using that of OpenAI\'s CLIP:'
            f' {_settings({k: OPENAI_PICTURES[k] for k in keys})} (--set changes it)'
        ]
        if keys
        else []
    )


def _settings(pictures):
    return ' '.join(
        f'image_encoder.{key}={str(value).replace(" ", "")}' for key, value in pictures.items() if key in PICTURES
    )


def _decisive(pictures):
    return [pictures[key] for key in PICTURES]

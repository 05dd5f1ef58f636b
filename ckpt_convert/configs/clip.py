"""What the configs beside a CLIP say of it that no name and no shape does: activation, heads, epsilons, how pictures
are prepared.

open_clip writes open_clip_config.json, transformers config.json and preprocessor_config.json. The file that belongs to
the names of the weights counts; the other one, if it is there too, describes other weights. Every key is used,
known to change no number, or refused by name.
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
# widths whose heads are 64 wide in all CLIPs; ViT-H's, g's and G's are not
SURE = {'text_encoder': (256, 1024), 'image_encoder': (64, 1024)}


def read_configs(folder, layout, openai=False):
    """What the configs in a folder say of the CLIP whose weights are in a layout.

    Args:
        folder: of the weights. layout: 'openai' (open_clip's names, too) or 'transformers'. openai: the file is one of
            OpenAI's own, which says enough.

    Returns:
        {'text_encoder' | 'image_encoder': dict}: fields of our config (hidden_act, num_attention_heads, layer_norm_eps,
        image_mean ...) as far as they are said, and `sizes`: those that the tensors must have, too.

    Raises:
        CheckpointError: a key or value that would be ignored, a contradiction, a damaged file.
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
                f'{folder}: no file that belongs to the weights says how pictures are prepared, and the one of another'
                f' tool says {_settings(foreign)}: give --set {_settings(foreign)} to take it, or other values'
            )
    towers['image_encoder'].update(pictures or {})  # with `size`, the side that pictures are resized to
    return towers


def check_sizes(config, said, where):
    """CheckpointError where the sizes of a config file (`said['sizes']`) are not those of the tensors, which `config`
    has."""
    if said.get('size', getattr(config, 'image_size', None)) != getattr(config, 'image_size', None):
        raise CheckpointError(
            f'{where}: pictures are resized to {said["size"]}, but the tensors are for {config.image_size}'
        )
    for key, value in said.get('sizes', {}).items():
        if value is not None and getattr(config, key) != value:
            raise CheckpointError(
                f'{where}: the config beside the weights says {key} = {shown(value)}, the tensors'
                f' {getattr(config, key)}'
            )


def require_known(config, towers, overrides, where):
    """CheckpointError where nothing says what the networks compute: an activation, or the heads of an encoder of
    unusual width.

    Args:
        config: ModelConfig. towers: {'text_encoder' | 'image_encoder': what `read_configs` said}. overrides:
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
            f'{where}: no config beside the weights says {" and ".join(missing)}, and the weights cannot: give --set'
            f' {example} (activations: quick_gelu, as OpenAI trained; gelu, as most of open_clip\'s; gelu_pytorch_tanh)'
        )


def assumed(towers, overrides):
    """Lines that say what was assumed for lack of a config."""
    given = {item.partition('=')[0] for item in overrides}
    image = towers.get('image_encoder')
    keys = [key for key in PICTURES if image is not None and key not in image and f'image_encoder.{key}' not in given]
    return (
        [
            'no config beside the weights says how pictures are prepared; taken as OpenAI\'s CLIP has it:'
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

"""Infer the sizes of the networks in a checkpoint from the shapes of its tensors.

Settings that shapes do not tell (number of attention heads, activation, epsilon) come from the config beside the file,
if there is one (for a CLIP see configs/clip.py). Otherwise they are those of the published models. `--set key=value`
overrides both.
"""

from ckpt_convert.configs.clip import PICTURES
from ckpt_convert.configs.stable_diffusion import check_sizes, check_unet, check_vae, same_for_all
from ckpt_convert.configs.transformers_clip import ACTIVATIONS
from diffdis_ms.config import AutoencoderConfig, ImageEncoderConfig, TextEncoderConfig, UNetConfig
from diffdis_ms.errors import CheckpointError

CLIP_HEAD = 64  # width of a head in all of OpenAI's CLIP models
MAX_TOKENS = 4096  # longest plausible text or patch grid


def unet_config(shapes, json=None):
    """Infer a UNetConfig from {name: shape} with CompVis' or diffusers' names."""
    json = json or {}
    check_unet(json)
    if 'input_blocks.0.0.weight' in shapes:
        levels, conv_in, conv_out = _levels_ldm(shapes), 'input_blocks.0.0.weight', 'out.2.weight'
    else:
        levels, conv_in, conv_out = _levels_diffusers(shapes), 'conv_in.weight', 'conv_out.weight'
    layers = {len(level) for level in levels}
    depths = {depth for level in levels for _, depth in level if depth}
    if len(layers) != 1 or len(depths) > 1:
        raise CheckpointError(
            'the UNet has different numbers of blocks per level: this is not a UNet of Stable Diffusion v1'
        )
    # diffusers' attention_head_dim is the number of heads
    heads = same_for_all(json.get('num_attention_heads') or json.get('attention_head_dim', 8))
    if type(heads) is not int:
        raise CheckpointError(
            f'unet/config.json: attention_head_dim = {heads!r}: this is not a UNet of Stable Diffusion v1'
        )
    unet = UNetConfig(
        in_channels=_shape(shapes, conv_in, 4)[1],
        out_channels=_shape(shapes, conv_out, 4)[0],
        block_out_channels=[level[0][0] for level in levels],
        attention_levels=[bool(level[0][1]) for level in levels],
        layers_per_block=layers.pop(),
        transformer_layers_per_block=depths.pop() if depths else 1,
        num_attention_heads=heads,
        norm_num_groups=_number(json, 'norm_num_groups', 32),
    )
    kinds = ['CrossAttn' if attends else '' for attends in unet.attention_levels]
    context = next((shape[-1] for name, shape in shapes.items() if name.endswith('attn2.to_k.weight')), None)
    check_sizes(
        json,
        'unet/config.json',
        {
            'in_channels': unet.in_channels,
            'out_channels': unet.out_channels,
            'block_out_channels': unet.block_out_channels,
            'layers_per_block': unet.layers_per_block,
            'transformer_layers_per_block': unet.transformer_layers_per_block,
            'down_block_types': [f'{kind}DownBlock2D' for kind in kinds],
            'up_block_types': [f'{kind}UpBlock2D' for kind in reversed(kinds)],
            **({} if context is None else {'cross_attention_dim': context}),
        },
    )
    return unet


def _levels_ldm(shapes):
    """The encoder half as [[(width, transformer blocks), ...] for each level]."""
    levels, n = [[]], 1
    while True:
        block = f'input_blocks.{n}'
        if f'{block}.0.op.weight' in shapes:
            levels.append([])
        elif f'{block}.0.in_layers.2.weight' in shapes:
            levels[-1].append(
                (
                    _shape(shapes, f'{block}.0.in_layers.2.weight', 4)[0],
                    _count(shapes, block + '.1.transformer_blocks.{}.norm1.weight'),
                )
            )
        else:
            return _checked(levels)
        n += 1


def _levels_diffusers(shapes):
    levels = []
    for level in range(_count(shapes, 'down_blocks.{}.resnets.0.conv1.weight')):
        block = f'down_blocks.{level}'
        levels.append(
            [
                (
                    _shape(shapes, f'{block}.resnets.{i}.conv1.weight', 4)[0],
                    _count(shapes, f'{block}.attentions.{i}.transformer_blocks.' + '{}.norm1.weight'),
                )
                for i in range(_count(shapes, block + '.resnets.{}.conv1.weight'))
            ]
        )
    return _checked(levels)


def _checked(levels):
    if not levels or not all(levels):
        raise CheckpointError('the file holds no UNet of Stable Diffusion (no blocks found in its encoder half)')
    return levels


def vae_config(shapes, json=None):
    """Infer an AutoencoderConfig from {name: shape} with CompVis' or diffusers' names."""
    json = json or {}
    check_vae(json)
    block = (
        'encoder.down.{}.block.{}.conv1.weight'
        if 'encoder.down.0.block.0.conv1.weight' in shapes
        else 'encoder.down_blocks.{}.resnets.{}.conv1.weight'
    )
    levels = _count(shapes, block.format('{}', 0))
    if not levels:
        raise CheckpointError('the file holds no autoencoder (no encoder.down... tensors)')
    vae = AutoencoderConfig(
        in_channels=_shape(shapes, 'encoder.conv_in.weight', 4)[1],
        latent_channels=_shape(shapes, 'post_quant_conv.weight', 4)[0],
        block_out_channels=[_shape(shapes, block.format(i, 0), 4)[0] for i in range(levels)],
        layers_per_block=_count(shapes, block.format(0, '{}')),
        norm_num_groups=_number(json, 'norm_num_groups', 32),
        scaling_factor=float(_number(json, 'scaling_factor', 0.18215)),
    )
    if not 0 < vae.scaling_factor < float('inf'):
        raise CheckpointError(f'vae/config.json: scaling_factor = {vae.scaling_factor} is not above 0')
    check_sizes(
        json,
        'vae/config.json',
        {
            'in_channels': vae.in_channels,
            'out_channels': vae.in_channels,
            'latent_channels': vae.latent_channels,
            'block_out_channels': vae.block_out_channels,
            'layers_per_block': vae.layers_per_block,
            'down_block_types': ['DownEncoderBlock2D'] * levels,
            'up_block_types': ['UpDecoderBlock2D'] * levels,
        },
    )
    return vae


def text_config(shapes, json=None):
    """Infer a TextEncoderConfig from {name: shape} with transformers' or OpenAI's names.

    Without a text projection, projection_dim is hidden_size.
    """
    json = json or {}
    openai = 'token_embedding.weight' in shapes
    words = _shape(shapes, 'token_embedding.weight' if openai else 'text_model.embeddings.token_embedding.weight', 2)
    positions = _shape(
        shapes, 'positional_embedding' if openai else 'text_model.embeddings.position_embedding.weight', 2
    )
    if positions[0] > MAX_TOKENS:
        raise CheckpointError(
            f'the text encoder would read {positions[0]} tokens; more than {MAX_TOKENS} are not plausible'
        )
    layer = 'transformer.resblocks.{}.mlp.c_fc.weight' if openai else 'text_model.encoder.layers.{}.mlp.fc1.weight'
    name, axis = ('text_projection', 1) if openai else ('text_projection.weight', 0)
    projection = _shape(shapes, name, 2)[axis] if name in shapes else words[1]
    return TextEncoderConfig(
        vocab_size=words[0],
        max_position_embeddings=positions[0],
        hidden_size=words[1],
        intermediate_size=_shape(shapes, layer.format(0), 2)[0],
        num_hidden_layers=_count(shapes, layer),
        num_attention_heads=_number(json, 'num_attention_heads', max(words[1] // CLIP_HEAD, 1)),
        projection_dim=projection,
        hidden_act=_activation(json),
        layer_norm_eps=_number(json, 'layer_norm_eps', 1e-5),
    )


def image_config(shapes, json=None):
    """Infer an ImageEncoderConfig, of a vision transformer or ResNet, from {name: shape}.

    The names are transformers' or OpenAI's.
    """
    json = json or {}
    if 'visual.layer1.0.conv1.weight' in shapes:
        width = 32 * _shape(shapes, 'visual.conv3.weight', 4)[0]
        grid = _side(shapes, 'visual.attnpool.positional_embedding')
        return ImageEncoderConfig(
            architecture='resnet',
            image_size=32 * grid,
            hidden_size=width,
            num_attention_heads=_number(json, 'num_attention_heads', max(width // CLIP_HEAD, 1)),
            resnet_layers=[_count(shapes, f'visual.layer{i}.' + '{}.conv1.weight') for i in range(1, 5)],
            projection_dim=_shape(shapes, 'visual.attnpool.c_proj.weight', 2)[0],
            **_pictures(json),
        )
    openai = 'visual.conv1.weight' in shapes
    patches = _shape(shapes, 'visual.conv1.weight' if openai else 'vision_model.embeddings.patch_embedding.weight', 4)
    grid = _side(
        shapes, 'visual.positional_embedding' if openai else 'vision_model.embeddings.position_embedding.weight'
    )
    layer = (
        'visual.transformer.resblocks.{}.mlp.c_fc.weight' if openai else 'vision_model.encoder.layers.{}.mlp.fc1.weight'
    )
    return ImageEncoderConfig(
        image_size=grid * patches[2],
        patch_size=patches[2],
        hidden_size=patches[0],
        intermediate_size=_shape(shapes, layer.format(0), 2)[0],
        num_hidden_layers=_count(shapes, layer),
        num_attention_heads=_number(json, 'num_attention_heads', max(patches[0] // CLIP_HEAD, 1)),
        projection_dim=(
            _shape(shapes, 'visual.proj', 2)[1] if openai else _shape(shapes, 'visual_projection.weight', 2)[0]
        ),
        hidden_act=_activation(json),
        layer_norm_eps=_number(json, 'layer_norm_eps', 1e-5),
        **_pictures(json),
    )


def _pictures(json):
    return {key: json[key] for key in PICTURES if key in json}


def _count(shapes, template):
    """Count how many of template.format(0), template.format(1), ... exist."""
    n = 0
    while template.format(n) in shapes:
        n += 1
    return n


def _side(shapes, name):
    """Side of the square of patches in a table of positions, which also has one of the class token or the mean."""
    rows = _shape(shapes, name, 2)[0]
    side = int((rows - 1) ** 0.5) if 1 < rows <= MAX_TOKENS**2 else 0
    if side * side + 1 != rows:
        raise CheckpointError(f'{name} has {rows} rows, which is not a square number plus 1')
    return side


def _shape(shapes, name, axes):
    if name not in shapes:
        raise CheckpointError(f'{name} is missing')
    if len(shapes[name]) != axes or 0 in shapes[name]:
        raise CheckpointError(f'{name} has shape {shapes[name]}, expected {axes} axes and no empty one')
    return shapes[name]


def _number(json, key, default):
    value = json.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError(f'config.json: {key} = {value!r} is no number')
    return value


def _activation(json):
    act = json.get('hidden_act', 'quick_gelu')
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise CheckpointError(f'config.json: hidden_act = {act!r} (only {", ".join(ACTIVATIONS)} can be converted)')
    return ACTIVATIONS[act]

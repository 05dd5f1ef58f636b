"""Names of parameters in every layout, as tables from module to module.

The MindSpore networks have diffusers' and transformers' module names; only the last part of norms' and embeddings'
names differs (LEAVES). Each table below maps such a module name to its name in another layout. A parameter belongs to
the longest module name that is a prefix of its own. The networks themselves define which parameters exist and their
shapes.
"""

from dataclasses import dataclass

from diffdis_ms.errors import CheckpointError
from diffdis_ms.models.names import field_name

# our module -> its name in the other layout
RESNET_LDM = {
    'norm1': 'in_layers.0',
    'conv1': 'in_layers.2',
    'time_emb_proj': 'emb_layers.1',
    'norm2': 'out_layers.0',
    'conv2': 'out_layers.3',
    'conv_shortcut': 'skip_connection',
}
VAE_ATTENTION_LDM = {'group_norm': 'norm', 'to_q': 'q', 'to_k': 'k', 'to_v': 'v', 'to_out.0': 'proj_out'}
VAE_ATTENTION_OLD = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
CLIP_LAYER_OPENAI = {
    'layer_norm1': 'ln_1',
    'layer_norm2': 'ln_2',
    'mlp.fc1': 'mlp.c_fc',
    'mlp.fc2': 'mlp.c_proj',
    'self_attn.out_proj': 'attn.out_proj',
}


@dataclass(frozen=True)
class Place:
    """Where a parameter is in another layout: name and shape of the tensor, and how to extract the parameter."""

    name: str
    shape: tuple[int, ...]
    third: int | None = None  # query, key or value of a fused matrix
    transposed: bool = False

    def extract(self, array, shape):
        """Extract the parameter, of `shape`, from the tensor."""
        if self.third is not None:
            array = array[self.third * shape[0] : (self.third + 1) * shape[0]]
        return (array.T if self.transposed else array).reshape(shape)


def place(name, shape, table):
    """Find the place of a parameter in a layout.

    Args:
        name, shape: of our parameter. table: {our module: its name there}, or None if the names are the same.
    """
    name, shape = field_name(name), tuple(shape)
    if table is None:
        return Place(name, shape)
    module, rest = name, ''
    while module not in table:
        module, dot, last = module.rpartition('.')
        if not dot:
            raise CheckpointError(f'{name} has no place in this layout')
        rest = f'.{last}{rest}'
    there = table[module]
    if callable(there):
        return there(rest, shape)
    return Place(there + rest, shape)


def unet_ldm(unet):
    """Table diffusers -> CompVis (`model.diffusion_model.`) for a UNetConfig."""
    layers, levels = unet.layers_per_block, len(unet.block_out_channels)
    table = {
        'time_embedding.linear_1': 'time_embed.0',
        'time_embedding.linear_2': 'time_embed.2',
        'conv_in': 'input_blocks.0.0',
        'conv_norm_out': 'out.0',
        'conv_out': 'out.2',
        'mid_block.attentions.0': 'middle_block.1',
    }

    def resnet(ours, theirs):
        table.update({f'{ours}.{a}': f'{theirs}.{b}' for a, b in RESNET_LDM.items()})

    for level in range(levels):
        for i in range(layers):
            n = level * (layers + 1) + i + 1
            resnet(f'down_blocks.{level}.resnets.{i}', f'input_blocks.{n}.0')
            table[f'down_blocks.{level}.attentions.{i}'] = f'input_blocks.{n}.1'
        table[f'down_blocks.{level}.downsamplers.0.conv'] = f'input_blocks.{(level + 1) * (layers + 1)}.0.op'
        for i in range(layers + 1):  # up_blocks are numbered from the lowest level
            n = level * (layers + 1) + i
            resnet(f'up_blocks.{level}.resnets.{i}', f'output_blocks.{n}.0')
            table[f'up_blocks.{level}.attentions.{i}'] = f'output_blocks.{n}.1'
        upsampler = 2 if unet.attention_levels[levels - 1 - level] else 1
        table[f'up_blocks.{level}.upsamplers.0.conv'] = f'output_blocks.{n}.{upsampler}.conv'
    resnet('mid_block.resnets.0', 'middle_block.0')
    resnet('mid_block.resnets.1', 'middle_block.2')
    return table


def vae_ldm(vae):
    """Table diffusers -> CompVis (`first_stage_model.`) for an AutoencoderConfig. CompVis' attention uses 1x1
    convolutions."""
    levels = len(vae.block_out_channels)
    table = {'quant_conv': 'quant_conv', 'post_quant_conv': 'post_quant_conv'}

    def resnet(ours, theirs):
        table.update({ours: theirs, f'{ours}.conv_shortcut': f'{theirs}.nin_shortcut'})

    for coder in ('encoder', 'decoder'):
        for i in range(2):
            resnet(f'{coder}.mid_block.resnets.{i}', f'{coder}.mid.block_{i + 1}')
        for a, b in VAE_ATTENTION_LDM.items():
            table[f'{coder}.mid_block.attentions.0.{a}'] = _convolution(f'{coder}.mid.attn_1.{b}')
        table.update(
            {
                f'{coder}.conv_in': f'{coder}.conv_in',
                f'{coder}.conv_norm_out': f'{coder}.norm_out',
                f'{coder}.conv_out': f'{coder}.conv_out',
            }
        )
    for level in range(levels):
        for i in range(vae.layers_per_block + 1):
            resnet(f'encoder.down_blocks.{level}.resnets.{i}', f'encoder.down.{level}.block.{i}')
            resnet(f'decoder.up_blocks.{level}.resnets.{i}', f'decoder.up.{levels - 1 - level}.block.{i}')
        table[f'encoder.down_blocks.{level}.downsamplers.0.conv'] = f'encoder.down.{level}.downsample.conv'
        table[f'decoder.up_blocks.{level}.upsamplers.0.conv'] = f'decoder.up.{levels - 1 - level}.upsample.conv'
    return table


def vae_old(vae):
    """Table of diffusers' present names of the autoencoder's attention -> those before 0.18. Others are unchanged."""
    table = {name: name for name in ('encoder', 'decoder', 'quant_conv', 'post_quant_conv')}
    for coder in ('encoder', 'decoder'):
        table.update(
            {
                f'{coder}.mid_block.attentions.0.{a}': f'{coder}.mid_block.attentions.0.{b}'
                for a, b in VAE_ATTENTION_OLD.items()
            }
        )
    return table


def clip_text_openai(text):
    """Table transformers -> OpenAI and open_clip for a TextEncoderConfig."""
    return {
        'text_model.embeddings.token_embedding': 'token_embedding',
        'text_model.embeddings.position_embedding.weight': 'positional_embedding',
        'text_model.final_layer_norm': 'ln_final',
        'text_projection.weight': _transposed('text_projection'),
        **_clip_layers('text_model.', 'transformer.', text.num_hidden_layers),
    }


def clip_image_openai(image):
    """Table transformers -> OpenAI and open_clip for an ImageEncoderConfig.

    ResNets have OpenAI's names on both sides.
    """
    if image.architecture == 'resnet':
        return {'visual': 'visual'}
    return {
        'vision_model.embeddings.patch_embedding': 'visual.conv1',
        'vision_model.embeddings.class_embedding': 'visual.class_embedding',
        'vision_model.embeddings.position_embedding.weight': 'visual.positional_embedding',
        'vision_model.pre_layrnorm': 'visual.ln_pre',
        'vision_model.post_layernorm': 'visual.ln_post',
        'visual_projection.weight': _transposed('visual.proj'),
        **_clip_layers('vision_model.', 'visual.transformer.', image.num_hidden_layers),
    }


def _clip_layers(ours, theirs, count):
    table = {}
    for i in range(count):
        a, b = f'{ours}encoder.layers.{i}', f'{theirs}resblocks.{i}'
        table.update({f'{a}.{x}': f'{b}.{y}' for x, y in CLIP_LAYER_OPENAI.items()})
        table.update({f'{a}.self_attn.{x}_proj': _third(f'{b}.attn.in_proj_', third) for third, x in enumerate('qkv')})
    return table


def _convolution(module):
    return lambda rest, shape: Place(module + rest, shape + (1, 1) if len(shape) == 2 else shape)


def _transposed(name):
    return lambda rest, shape: Place(name, shape[::-1], transposed=True)


def _third(prefix, third):
    return lambda rest, shape: Place(prefix + rest[1:], (3 * shape[0], *shape[1:]), third=third)

"""Recognise known relatives of Stable Diffusion v1 by their tensors and folders, for a helpful error message."""

from diffdis_ms.errors import CheckpointError


def refuse_other_models(source):
    """Raise a CheckpointError with the model's name if it is a known relative of Stable Diffusion v1."""
    what = _other_model(source)
    if what:
        raise CheckpointError(
            f'{source.path} is {what}, not Stable Diffusion v1: it cannot be converted, with or without --text-encoder'
        )


def _other_model(source):
    network = source.networks.get('unet')
    if network is None:
        return None
    tensors, json, context = network.tensors, network.json, context_width(network)

    def has(*beginnings):
        return any(name.startswith(beginnings) for names in (tensors, source.unknown) for name in names)

    if has('joint_blocks.', 'double_blocks.', 'transformer_blocks.'):
        return 'a diffusion transformer (Stable Diffusion 3, FLUX or a relative)'
    if (
        has('conditioner.', 'label_emb.', 'add_embedding.')
        or context == 2048
        or 'text_encoder_2' in source.folders
        or json.get('addition_embed_type') == 'text_time'
    ):
        return 'Stable Diffusion XL (two text encoders and an embedding of sizes)'
    linear = any(name.endswith('.proj_in.weight') and len(t.shape) == 2 for name, t in tensors.items())
    if has('cond_stage_model.model.') or context == 1024 or linear or json.get('use_linear_projection') is True:
        return f'Stable Diffusion 2 (OpenCLIP\'s text encoder, contexts of width {context}, linear projections)'
    first = [name for name in ('conv_in.weight', 'input_blocks.0.0.weight') if name in tensors]
    conv_in = tensors[first[0]].shape if first else ()
    channels = conv_in[1] if len(conv_in) == 4 else 4
    kind = {
        9: 'an inpainting model',
        8: 'InstructPix2Pix or another model that takes a second latent',
        5: 'a depth-to-image model',
        7: 'an upscaler',
    }.get(channels)
    return f'{kind} (its UNet takes {channels} channels, not 4)' if kind else None


def text_width(network):
    """Width of a text encoder's output, or None."""
    names = ('text_model.embeddings.token_embedding.weight', 'token_embedding.weight')
    shapes = [network.tensors[name].shape for name in names if name in network.tensors]
    return shapes[0][-1] if shapes and len(shapes[0]) == 2 else None


def context_width(network):
    """Width of the context that a UNet's cross-attention reads, or None."""
    shapes = (t.shape for name, t in network.tensors.items() if name.endswith('attn2.to_k.weight'))
    return next((shape[-1] for shape in shapes if len(shape) == 2), None)

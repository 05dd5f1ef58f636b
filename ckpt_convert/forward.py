"""`verify --forward`: compare outputs of a converted model with those of diffusers and transformers on its source.

This is the only module of the package that imports torch. It does not use our name tables: diffusers' converter reads
CompVis' layout, and the other layouts are those of diffusers and transformers. All tensors are read by our safe reader.
"""

import numpy as np

from ckpt_convert.source import open_source
from diffdis_ms.errors import CheckpointError
from diffdis_ms.text_files import read_json

try:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel
except ImportError as e:
    raise CheckpointError(f'--forward needs torch and diffusers (pip install \'.[parity]\'): {e}') from None

# names in the autoencoder before diffusers 0.18
OLD_ATTENTION = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}


def compare(src, dst, seed=0):
    """Run the networks of a source and of its model directory on the same random inputs.

    Args:
        src: Stable Diffusion (either layout) or a CLIP of transformers. dst: model directory made from it. seed: seed
            of the inputs.

    Returns:
        list of (what, |ours - theirs| / |theirs|).

    Raises:
        CheckpointError: diffusers and transformers cannot read the layout.
    """
    source = open_source(src)
    if source.layout not in ('ldm', 'diffusers', 'transformers'):
        raise CheckpointError(
            f'{src} is in {source.layout} layout: --forward compares Stable Diffusion and transformers\' CLIP'
        )
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        return _compare_sd(source, dst, rng) if source.kind == 'sd' else _compare_clip(source, dst, rng)


def difference(ours, theirs):
    """|ours - theirs| / |theirs| in float64."""
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def _compare_sd(source, dst, rng):
    from diffdis_ms import DiffDisPipeline

    pipe = DiffDisPipeline.from_pretrained(dst, batch_size=1)
    config, side = pipe.config, pipe.config.latent_shape[-1]
    ids = _token_ids(config.text_encoder, rng)
    z = rng.standard_normal((1, config.unet.in_channels, side, side), np.float32)
    context = pipe.text_encoder(_tensor(ids))[0].asnumpy()
    pixels = rng.uniform(-1, 1, (1, 3, config.image_size, config.image_size)).astype(np.float32)
    latents = pipe.encode_images(pixels)
    results = [
        (
            'text encoder',
            difference(context, _text_model(source, config)(torch.from_numpy(ids).long()).last_hidden_state),
        )
    ]
    unet = _unet(source, config)
    results.append(
        (
            'UNet',
            difference(
                pipe.unet.predict_noise(z, np.array([500]), context).asnumpy(),
                unet(torch.from_numpy(z), 500, torch.from_numpy(context)).sample,
            ),
        )
    )
    del unet
    vae, scale = _vae(source, config), config.vae.scaling_factor
    results.append(
        ('autoencoder, encoder', difference(latents, vae.encode(torch.from_numpy(pixels)).latent_dist.mean * scale))
    )
    results.append(
        (
            'autoencoder, decoder',
            difference(
                pipe.vae.decode(_tensor(latents)).asnumpy(), vae.decode(torch.from_numpy(latents) / scale).sample
            ),
        )
    )
    return results


def _compare_clip(source, dst, rng):
    from diffdis_ms import runtime
    from diffdis_ms.evaluate.clip_model import ClipModel, open_clip_directory

    runtime.setup_once()
    clip = ClipModel(open_clip_directory(dst))
    config, text, image = clip.config, clip.text, clip.image
    towers = [source.networks[stem] for stem in ('text_encoder', 'image_encoder')]
    beside = (source.path if source.path.is_dir() else source.path.parent) / 'config.json'
    if not beside.is_file():
        raise CheckpointError(f'{source.path} has no config.json, which transformers needs to build the CLIP')
    model = CLIPModel(CLIPConfig.from_dict(read_json(beside, error=CheckpointError))).eval()
    state = {name: tensor for network in towers for name, tensor in _torch_tensors(network).items()}
    model.load_state_dict({'logit_scale': model.logit_scale, **state})
    ids = _token_ids(config.text_encoder, rng)
    pixels = rng.standard_normal((1, 3, config.image_encoder.image_size, config.image_encoder.image_size)).astype(
        np.float32
    )
    out = model(input_ids=torch.from_numpy(ids).long(), pixel_values=torch.from_numpy(pixels))
    return [
        ('text query', difference(text(_tensor(ids))[1].asnumpy()[:, 0], out.text_embeds)),
        ('image embedding', difference(image(_tensor(pixels)).asnumpy(), out.image_embeds)),
    ]


def _tensor(array):
    from diffdis_ms.models.diffdis import as_tensor

    return as_tensor(array)


def _token_ids(text, rng):
    ids = np.full((1, text.max_position_embeddings), text.vocab_size - 1, np.int32)
    ids[0, 0], ids[0, 1:6] = text.vocab_size - 2, rng.integers(0, text.vocab_size - 2, 5)
    return ids


def _torch_tensors(network):
    return {name: torch.from_numpy(t.numpy()).float() for name, t in network.tensors.items()}


def _unet(source, config):
    network = source.networks['unet']
    state = _torch_tensors(network)
    with torch.device('meta'):  # no memory and no random weights, which `assign` would replace anyway
        unet = UNet2DConditionModel.from_config(network.json) if source.layout == 'diffusers' else make_unet(config)
    if source.layout != 'diffusers':
        state = convert_ldm_unet_checkpoint({network.where + n: t for n, t in state.items()}, config=dict(unet.config))
    unet.load_state_dict(state, assign=True)
    return unet.eval()


def _vae(source, config):
    network = source.networks['vae']
    state = _torch_tensors(network)
    with torch.device('meta'):  # as in `_unet`
        vae = AutoencoderKL.from_config(network.json) if source.layout == 'diffusers' else make_autoencoder(config.vae)
    if source.layout == 'diffusers':
        for old, new in OLD_ATTENTION.items():
            state = {n.replace(f'.attentions.0.{old}.', f'.attentions.0.{new}.'): t for n, t in state.items()}
    else:
        state = convert_ldm_vae_checkpoint({network.where + n: t for n, t in state.items()}, config=dict(vae.config))
    vae.load_state_dict({n: state[n].reshape(p.shape) for n, p in vae.state_dict().items()}, assign=True)
    return vae.eval()


def _text_model(source, config):
    model = CLIPTextModel(CLIPTextConfig(**_clip_text(config.text_encoder)))
    model.load_state_dict(
        {n: t for n, t in _torch_tensors(source.networks['text_encoder']).items() if n.startswith('text_model.')}
    )
    return model.eval()


def make_unet(config):
    """Build diffusers' UNet in the setup of Stable Diffusion v1 from a ModelConfig.

    Its `attention_head_dim` is the number of heads.
    """
    unet = config.unet
    return UNet2DConditionModel(
        in_channels=unet.in_channels,
        out_channels=unet.out_channels,
        block_out_channels=tuple(unet.block_out_channels),
        layers_per_block=unet.layers_per_block,
        transformer_layers_per_block=unet.transformer_layers_per_block,
        down_block_types=tuple('CrossAttnDownBlock2D' if a else 'DownBlock2D' for a in unet.attention_levels),
        up_block_types=tuple('CrossAttnUpBlock2D' if a else 'UpBlock2D' for a in reversed(unet.attention_levels)),
        attention_head_dim=unet.num_attention_heads,
        cross_attention_dim=config.text_encoder.hidden_size,
        norm_num_groups=unet.norm_num_groups,
        flip_sin_to_cos=True,
        freq_shift=0,
        use_linear_projection=False,
    )


def make_autoencoder(vae):
    """Build diffusers' autoencoder from an AutoencoderConfig."""
    levels = len(vae.block_out_channels)
    return AutoencoderKL(
        in_channels=vae.in_channels,
        out_channels=vae.in_channels,
        latent_channels=vae.latent_channels,
        block_out_channels=tuple(vae.block_out_channels),
        layers_per_block=vae.layers_per_block,
        norm_num_groups=vae.norm_num_groups,
        down_block_types=('DownEncoderBlock2D',) * levels,
        up_block_types=('UpDecoderBlock2D',) * levels,
        scaling_factor=vae.scaling_factor,
    )


def make_clip(text, image):
    """Build transformers' CLIPModel with both towers."""
    return CLIPModel(
        CLIPConfig(
            text_config=_clip_text(text),
            vision_config={
                'image_size': image.image_size,
                'patch_size': image.patch_size,
                'hidden_size': image.hidden_size,
                'intermediate_size': image.intermediate_size,
                'num_hidden_layers': image.num_hidden_layers,
                'num_attention_heads': image.num_attention_heads,
                'hidden_act': image.hidden_act,
                'layer_norm_eps': image.layer_norm_eps,
                'projection_dim': image.projection_dim,
            },
            projection_dim=text.projection_dim,
        )
    )


def _clip_text(text):
    """Make a CLIPTextConfig. With 2 as end token, as in OpenAI's configs, the token with the highest id is pooled."""
    return {
        'vocab_size': text.vocab_size,
        'max_position_embeddings': text.max_position_embeddings,
        'hidden_size': text.hidden_size,
        'intermediate_size': text.intermediate_size,
        'num_hidden_layers': text.num_hidden_layers,
        'num_attention_heads': text.num_attention_heads,
        'hidden_act': text.hidden_act,
        'layer_norm_eps': text.layer_norm_eps,
        'eos_token_id': 2,
        'projection_dim': text.projection_dim,
    }

"""diffusers' and transformers' networks built from our config."""
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel


def make_unet(config):
    """diffusers' UNet as Stable Diffusion v1 sets it up; its `attention_head_dim` is the number of heads."""
    unet = config.unet
    return UNet2DConditionModel(
        in_channels=unet.in_channels, out_channels=unet.out_channels, block_out_channels=tuple(unet.block_out_channels),
        layers_per_block=unet.layers_per_block, transformer_layers_per_block=unet.transformer_layers_per_block,
        down_block_types=tuple('CrossAttnDownBlock2D' if a else 'DownBlock2D' for a in unet.attention_levels),
        up_block_types=tuple('CrossAttnUpBlock2D' if a else 'UpBlock2D' for a in reversed(unet.attention_levels)),
        attention_head_dim=unet.num_attention_heads, cross_attention_dim=config.text_encoder.hidden_size,
        norm_num_groups=unet.norm_num_groups, flip_sin_to_cos=True, freq_shift=0, use_linear_projection=False)


def make_autoencoder(vae):
    levels = len(vae.block_out_channels)
    return AutoencoderKL(
        in_channels=vae.in_channels, out_channels=vae.in_channels, latent_channels=vae.latent_channels,
        block_out_channels=tuple(vae.block_out_channels), layers_per_block=vae.layers_per_block, norm_num_groups=vae.norm_num_groups,
        down_block_types=('DownEncoderBlock2D',) * levels, up_block_types=('UpDecoderBlock2D',) * levels,
        scaling_factor=vae.scaling_factor)


def make_clip(text, image):
    """transformers' CLIPModel, both towers. OpenAI's configs name 2 as the end of text: the pooled token is then the largest id."""
    return CLIPModel(CLIPConfig(
        text_config={'vocab_size': text.vocab_size, 'max_position_embeddings': text.max_position_embeddings,
                     'hidden_size': text.hidden_size, 'intermediate_size': text.intermediate_size,
                     'num_hidden_layers': text.num_hidden_layers, 'num_attention_heads': text.num_attention_heads,
                     'hidden_act': text.hidden_act, 'eos_token_id': 2, 'projection_dim': text.projection_dim},
        vision_config={'image_size': image.image_size, 'patch_size': image.patch_size, 'hidden_size': image.hidden_size,
                       'intermediate_size': image.intermediate_size, 'num_hidden_layers': image.num_hidden_layers,
                       'num_attention_heads': image.num_attention_heads, 'hidden_act': image.hidden_act,
                       'projection_dim': image.projection_dim},
        projection_dim=text.projection_dim))

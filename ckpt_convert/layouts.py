"""Layouts of checkpoints: recognised by the tensors' names, they tell which network each tensor belongs to."""

OPENAI = {'input_resolution', 'context_length', 'vocab_size'}  # constants that only OpenAI's own CLIP files have
SCHEDULE = 'noise schedule, computed from the config'
CONSTANT = 'a constant of the network'
COUNTER = 'counter of batch normalisation'
# a CLIPTextModel without `text_model.`
FLAT = r'(embeddings\.(token|position)_embedding\.|encoder\.layers\.|final_layer_norm\.)'
# layout -> (pattern of a tensor's name, its network or None, prefix to remove, reason why it is not converted)
# fmt: off
RULES = {
    'ldm': [
        (r'model\.diffusion_model\.', 'unet', 'model.diffusion_model.', ''),
        (r'first_stage_model\.loss\.', None, '', 'training loss of the autoencoder'),
        (r'first_stage_model\.', 'vae', 'first_stage_model.', ''),
        (r'cond_stage_model\.transformer\.(text_model\.)?embeddings\.position_ids$', None, '', CONSTANT),
        (r'cond_stage_model\.transformer\.', 'text_encoder', 'cond_stage_model.transformer.', ''),
        (r'model_ema\.', None, '', 'EMA of the UNet; --ema converts it'),
        (r'(betas|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_\w+|lvlb_weights|logvar)$',
         None, '', SCHEDULE),
        (r'scale_factor$', None, '', 'scaling factor of the latents, kept in the config'),
    ],
    'openai': [
        (r'(.*\.)?(input_resolution|context_length|vocab_size|attn_mask)$', None, '', CONSTANT),
        (r'visual\..*num_batches_tracked$', None, '', COUNTER),
        (r'visual\.', 'image_encoder', '', ''),
        (r'(transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection$)',
         'text_encoder', '', ''),
        (r'logit_scale$', None, '', 'logit scale, kept in the config'),
    ],
    'transformers': [
        (r'((text|vision)_model\.)?embeddings\.position_ids$', None, '', CONSTANT),
        (r'(text_model\.|text_projection\.)', 'text_encoder', '', ''),
        (FLAT, 'text_encoder', '', ''),
        (r'(vision_model\.|visual_projection\.)', 'image_encoder', '', ''),
        (r'logit_scale$', None, '', 'logit scale, kept in the config'),
    ],
    'inception': [
        (r'.*num_batches_tracked$', None, '', COUNTER),
        (r'AuxLogits\.', None, '', 'auxiliary classifier, used in training only'),
        (r'(Conv2d_|Mixed_|fc\.)', 'inception', '', ''),
    ],
}
# fmt: on
KINDS = {'ldm': 'sd', 'openai': 'clip', 'transformers': 'clip', 'inception': 'inception'}
NETWORKS = {  # kind -> networks in its model directory
    'sd': ('unet', 'vae', 'text_encoder'),
    'clip': ('text_encoder', 'image_encoder'),
    'inception': ('inception',),
}


def own_names(tensors):
    """Remove what data-parallel training, torch.compile or open_clip's CustomTextCLIP adds to the names."""
    names = {name: name.replace('_orig_mod.', '') for name in tensors}
    if names and all(name.startswith('module.') for name in names.values()):
        names = {name: own[len('module.') :] for name, own in names.items()}
    if {'text.token_embedding.weight', 'text.positional_embedding'} <= set(names.values()):
        names = {name: own[len('text.') :] if own.startswith('text.') else own for name, own in names.items()}
    return {names[name]: t for name, t in tensors.items()} if len(set(names.values())) == len(names) else tensors


def layout_of(tensors):
    """The layout in RULES that the names belong to, or None."""
    names = set(tensors)
    if any(n.startswith('model.diffusion_model.') for n in names):
        return 'ldm'
    if 'Conv2d_1a_3x3.conv.weight' in names:
        return 'inception'
    if {'token_embedding.weight', 'positional_embedding'} <= names:
        return 'openai'
    return (
        'transformers'
        if {'text_model.embeddings.token_embedding.weight', 'embeddings.token_embedding.weight'} & names
        else None
    )

"""Checkpoints as the torch side writes them, of any size: random weights in every layout that users have."""

import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from ckpt_convert import name_map
from ckpt_convert.forward import make_autoencoder, make_clip, make_unet
from diffdis_ms.ascend.made_up import write_tokenizer
from diffdis_ms.diffusion.schedule import alphas_cumprod, betas
from tests.parity.without_torchvision import import_part

SCHEDULE = (
    'alphas_cumprod_prev',
    'sqrt_alphas_cumprod',
    'sqrt_one_minus_alphas_cumprod',
    'log_one_minus_alphas_cumprod',
    'sqrt_recip_alphas_cumprod',
    'sqrt_recipm1_alphas_cumprod',
    'posterior_variance',
    'posterior_log_variance_clipped',
    'posterior_mean_coef1',
    'posterior_mean_coef2',
)


class TorchModels:
    """diffusers' and transformers' networks of a ModelConfig with random weights."""

    def __init__(self, config, seed=0):
        self.config = config
        torch.manual_seed(seed)
        with torch.device('meta'):  # `fill` draws the weights
            self.unet = make_unet(config)
        self.unet.to_empty(device='cpu')
        self.vae = make_autoencoder(config.vae)
        self.clip = make_clip(config.text_encoder, config.image_encoder)
        for network in (self.unet, self.vae, self.clip):
            fill(network)

    def compvis(self, ema=False, extras=True):
        """A state dict with CompVis' names, as `sd-v1-4.ckpt` has it."""
        unet_table, vae_table = name_map.unet_ldm(self.config.unet), name_map.vae_ldm(self.config.vae)
        state = {}
        for network, prefix, table in (
            (self.unet, 'model.diffusion_model.', unet_table),
            (self.vae, 'first_stage_model.', vae_table),
            (self.clip.text_model, 'cond_stage_model.transformer.text_model.', None),
        ):
            for name, tensor in network.state_dict().items():
                place = name_map.place(name, tensor.shape, table)
                state[prefix + place.name] = tensor.reshape(place.shape)
        if ema:
            state.update(
                {
                    'model_ema.' + name[len('model.') :].replace('.', ''): tensor * 1.25
                    for name, tensor in state.items()
                    if name.startswith('model.diffusion_model.')
                }
            )
            state.update(
                {'model_ema.decay': torch.tensor(0.9999), 'model_ema.num_updates': torch.tensor(3, dtype=torch.int32)}
            )
        if extras:
            diffusion, length = self.config.image_diffusion, self.config.text_encoder.max_position_embeddings
            state['betas'] = torch.tensor(betas(diffusion)).float()
            state['alphas_cumprod'] = torch.tensor(alphas_cumprod(diffusion)).float()
            state.update({name: torch.ones(1000) for name in SCHEDULE})
            state['cond_stage_model.transformer.text_model.embeddings.position_ids'] = torch.arange(length)[None]
        return state

    def save_diffusers(self, folder, tokenizer, **options):
        """A pipeline directory; options go to save_pretrained (safe_serialization, max_shard_size, variant)."""
        text_model = CLIPTextModel(self.clip.config.text_config)
        text_model.text_model.load_state_dict(self.clip.text_model.state_dict())
        scheduler = PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear', skip_prk_steps=True, steps_offset=1
        )
        pipeline = StableDiffusionPipeline(
            self.vae,
            text_model,
            CLIPTokenizer.from_pretrained(tokenizer),
            self.unet,
            scheduler,
            None,
            None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder, **options)

    def save_old_diffusers(self, folder, tokenizer):
        """The same with the names that the autoencoder's attention had before diffusers 0.18."""
        self.save_diffusers(folder, tokenizer)
        table = name_map.vae_old(self.config.vae)
        state = {
            name_map.place(name, tensor.shape, table).name: tensor.contiguous()
            for name, tensor in self.vae.state_dict().items()
        }
        save_file(state, folder / 'vae' / 'diffusion_pytorch_model.safetensors')


def fill(network, scale=0.7):
    """Random values that keep the size of a layer's input; every parameter and running statistic is non-trivial."""
    for name, p in network.state_dict().items():
        if not p.is_floating_point() or name == 'logit_scale':
            continue
        p.normal_()
        if p.ndim > 1:
            p.mul_(scale * p[0].numel() ** -0.5)
        elif name.endswith('running_var'):
            p.mul_(0.1).exp_()
        else:
            p.mul_(0.1).add_(1.0 if name.endswith('weight') else 0.0)


def make_open_clip(text, image):
    """open_clip's CLIP, whose names are OpenAI's, of a TextEncoderConfig and an ImageEncoderConfig of either
    architecture."""
    module = import_part('open_clip.model')
    vision = {'image_size': image.image_size, 'head_width': image.hidden_size // image.num_attention_heads}
    if image.architecture == 'resnet':  # its heads are 32 widths of the stem over head_width
        vision.update(layers=list(image.resnet_layers), width=image.hidden_size // 32)
    else:
        vision.update(
            layers=image.num_hidden_layers,
            width=image.hidden_size,
            patch_size=image.patch_size,
            mlp_ratio=image.intermediate_size / image.hidden_size,
        )
    model = module.CLIP(
        embed_dim=text.projection_dim,
        vision_cfg=module.CLIPVisionCfg(**vision),
        quick_gelu=text.hidden_act == 'quick_gelu',
        text_cfg=module.CLIPTextCfg(
            context_length=text.max_position_embeddings,
            vocab_size=text.vocab_size,
            width=text.hidden_size,
            heads=text.num_attention_heads,
            layers=text.num_hidden_layers,
            mlp_ratio=text.intermediate_size / text.hidden_size,
        ),
    )
    torch.manual_seed(0)
    fill(model)
    return model.eval()


class OpenAIArchive(torch.nn.Module):
    """What OpenAI's TorchScript files hold beside the towers: constants as buffers."""

    def __init__(self, clip, resolution, length, words):
        super().__init__()
        for name, child in clip.named_children():
            self.add_module(name, child)
        for name, p in clip.named_parameters(recurse=False):
            self.register_parameter(name, p)
        for name, number in (('input_resolution', resolution), ('context_length', length), ('vocab_size', words)):
            self.register_buffer(name, torch.tensor(number))

    def forward(self, pixels):
        return self.visual(pixels)


def write_bpe(path, vocab_size):
    """OpenAI's list of merges, made up: a line of comment, then pairs."""
    with tempfile.TemporaryDirectory() as temp:
        shutil.copyfile(write_tokenizer(Path(temp), vocab_size) / 'merges.txt', path)
    return path

"""The torch part of the benchmarks. It runs as a separate process, so that nothing else in tools/ imports torch.

python -m tools.benchmarks.torch_side make-stable-diffusion FILE CLIP_FILE SEED
    full-size, random weights, CompVis layout; CLIP's text tower
python -m tools.benchmarks.torch_side load-and-save FILE OUT
"""

import os
import sys

import torch

from ckpt_convert.name_map import place, unet_ldm, vae_ldm
from ckpt_convert.shapes import parameter_shapes
from diffdis_ms.config import ModelConfig
from diffdis_ms.models.names import field_name, is_new_parameter


def make_stable_diffusion(path, clip_path, seed):
    """Write a Stable Diffusion v1 checkpoint in CompVis' layout (4.3 GB, no EMA) and its CLIP text encoder."""
    config, generator = ModelConfig(), torch.Generator().manual_seed(int(seed))
    state, clip = {}, {}
    for stem, prefix, table in (
        ('unet', 'model.diffusion_model.', unet_ldm(config.unet)),
        ('vae', 'first_stage_model.', vae_ldm(config.vae)),
        ('text_encoder', 'cond_stage_model.transformer.', None),
    ):
        for name, shape in parameter_shapes(stem, config).items():
            if not is_new_parameter(name):
                there = place(name, shape, table)
                tensor = torch.randn(there.shape, generator=generator) * 0.05
                if stem == 'text_encoder':
                    clip[field_name(name)] = tensor
                if name != 'text_projection.weight':
                    state[prefix + there.name] = tensor
    torch.save({'state_dict': state, 'global_step': 1}, path)
    torch.save(clip, clip_path)


def load_and_save(path, out):
    """Do the least that a converter built on torch has to do."""
    torch.save(torch.load(path, map_location='cpu', weights_only=True), out)
    with open(out, 'rb') as f:
        os.fsync(f.fileno())


if __name__ == '__main__':
    {'make-stable-diffusion': make_stable_diffusion, 'load-and-save': load_and_save}[sys.argv[1]](*sys.argv[2:])

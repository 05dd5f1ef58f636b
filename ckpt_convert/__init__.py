"""Convert checkpoints of Stable Diffusion and CLIP to model directories and back, without torch.

See `python -m ckpt_convert --help`.
"""

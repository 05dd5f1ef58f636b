"""Checkpoints of Stable Diffusion and CLIP to model directories and back, without torch: `python -m ckpt_convert
--help`."""

"""Measure a full-size training step on a CPU and compare its memory with --dry-run's estimate.

The model is Stable Diffusion's UNet with all of DiffDis' additions, in float32; its inputs come from a latent cache.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from diffdis_ms.config import ModelConfig
from diffdis_ms.data.stream.latent_cache import CONSTANTS, SUMMARY, write_part
from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.storage.files import whole_file
from tools.benchmarks.data import WORDS
from tools.benchmarks.processes import run_python

CONFIG, ROWS, VOCAB, GiB = 'ascend_configs/cc3m_diffdis.yaml', 8, 570, 2**30


def measure(work, repeats, seed):
    """Measurements of one process after `repeats` + 1 steps with batch size 1."""
    work = work.resolve() / 'full_step'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        # The step needs nearly all of the machine's memory. So this process stays small, and the model is made in a
        # process that has ended before the measurement.
        run_python('-m', 'tools.benchmarks.full_step', work, seed)
        options = [
            'device=CPU',
            'batch_size=1',
            'init.unet=null',
            f'init.vae={work / "model"}',
            f'init.text_encoder={work / "model"}',
            'data.path=',
            f'data.cache={work / "cache"}',
            'data.num_workers=1',
            f'output_dir={work / "run"}',
            'runtime.compile_cache=true',
            f'runtime.compile_cache_dir={work / "graphs"}',
        ]
        # Compiling takes memory that is never given back. So another process compiles, and the measured one loads the
        # graph from the cache, as training does after a --dry-run. Both run the same script, because MindSpore finds a
        # cached graph only for the script that compiled it.
        side = ['tools/benchmarks/step_side.py', CONFIG]
        run_python(*side, 0, *options)
        printed, _ = run_python(*side, repeats + 1, *options)
        return json.loads(printed.splitlines()[-1])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make_model(directory, seed):
    """Write V and T at full size with random weights. T has a small vocabulary, because no text is read."""
    from diffdis_ms import runtime

    runtime.setup('CPU')
    from diffdis_ms.models.autoencoder import AutoencoderKL
    from diffdis_ms.models.clip import CLIPTextEncoder
    from diffdis_ms.models.init import initialize
    from diffdis_ms.storage.model_dir import parameters_to_numpy, save_model

    config = ModelConfig()
    config.text_encoder.vocab_size = VOCAB
    networks = {'vae': AutoencoderKL(config.vae), 'text_encoder': CLIPTextEncoder(config.text_encoder)}
    for network in networks.values():
        initialize(network, seed)
    tokenizer = train_tokenizer(WORDS, VOCAB, directory.parent / 'tokenizer')
    save_model(directory, config, {stem: parameters_to_numpy(network) for stem, network in networks.items()}, tokenizer)


def make_cache(directory, model, seed):
    """Write random latents and text features of the right shapes as a latent cache."""
    from diffdis_ms.train.cache import cache_key

    directory.mkdir()
    rng = np.random.default_rng(seed)
    z, c, e = (rng.standard_normal((ROWS, *shape), dtype=np.float32) for shape in ((4, 32, 32), (77, 768), (1, 768)))
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    write_part(directory, 0, [(z[i], c[i], e[i], 'a photo', i) for i in range(ROWS)], 'float32')
    with whole_file(directory / CONSTANTS) as f:
        f.write(save({'zero_latent': z[:1] * 0.5, 'empty_context': c[:1] * 0.5, 'good': np.arange(ROWS)}))
    summary = {
        'key': cache_key(model, model, 256),
        'data': None,
        'dtype': 'float32',
        'num_samples': ROWS,
        'num_parts': 1,
        'shapes': {'z': z.shape[1:], 'c': c.shape[1:], 'e': e.shape[1:]},
    }
    with whole_file(directory / SUMMARY) as f:
        f.write(json.dumps(summary).encode())


def lines(result):
    """For people."""
    estimate, measured = result['estimate'], result['measured']
    total = sum(estimate.values())
    first = sum(estimate[part] for part in ('weights that train', 'small ones once more, as one vector', 'EMA'))
    rows = [
        ('Python, MindSpore', None, measured['program']),
        ('weights, EMA', first, measured['assembled'] - measured['program']),
        ('the compiled graph', None, measured['compiled'] - measured['assembled']),
        ("moments, gradients, activations, kernels' own", total - first, measured['peak'] - measured['compiled']),
        ('in all', total, measured['peak']),
    ]
    yield (
        f'{result["parameters"] / 1e6:.2f} M parameters, batch 1: {result["seconds"]:.1f} s per step (the first one'
        f' {result["first_step"]:.0f} s)'
    )
    yield f'{"GiB":<46}{"estimated":>10}{"measured":>10}'
    for name, guess, found in rows:
        yield f'{name:<46}{"" if guess is None else format(guess / GiB, ".2f"):>10}{found / GiB:>10.2f}'


if __name__ == '__main__':  # the process of `measure` that makes the model and the cache
    work, seed = Path(sys.argv[1]), int(sys.argv[2])
    make_model(work / 'model', seed)
    make_cache(work / 'cache', work / 'model', seed)

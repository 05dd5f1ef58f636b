"""A full-size training step (Stable Diffusion's UNet with all new parts, float32) on a CPU, from a cache: memory beside --dry-run's estimate."""
import json
import shutil
import subprocess
import sys

import numpy as np
from safetensors.numpy import save

from diffdis_ms.config import ConfigError, ModelConfig
from diffdis_ms.data.latent_cache import CONSTANTS, SUMMARY, write_part
from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.files import whole_file
from tools.benchmarks.data import WORDS
from tools.benchmarks.processes import ROOT

ROWS, VOCAB = 8, 570
SIDE = """
import json, resource, sys, time
import psutil
from diffdis_ms import runtime
from diffdis_ms.config import load
runtime.setup('CPU')
from diffdis_ms.train.describe import memory
from diffdis_ms.train.loop import assemble
config = load('ascend_configs/cc3m_diffdis.yaml', sys.argv[1:])
job = assemble(config)
assembled = psutil.Process().memory_info().rss
seconds, losses, batches = [], [], iter(job.loader)
for step in range(3):
    begun = time.perf_counter()
    losses.append([float(x) for x in job.step.run(job.setup.features(next(batches), step))][0])
    seconds.append(time.perf_counter() - begun)
print(json.dumps({'estimate': memory(job), 'assembled': assembled, 'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  'seconds': seconds, 'losses': losses, 'parameters': sum(p.size for p in job.update.units.parameters)}))
"""


def measure(work, repeats, seed):
    """Returns the figures of one process (repeats does not count: it takes minutes): {'batch_1': {...}, 'batch_2': {...}}."""
    work = work.resolve() / 'full_step'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        make_model(work / 'model', seed)
        make_cache(work / 'cache', work / 'model', seed)
        options = ['device=CPU', 'init.unet=null', f'init.vae={work / "model"}', f'init.text_encoder={work / "model"}', 'data.path=',
                   f'data.cache={work / "cache"}', 'data.num_workers=1', f'output_dir={work / "run"}']
        return {f'batch_{batch}': step(options + [f'batch_size={batch}']) for batch in (1, 2)}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def step(options):
    """Three steps in a process of their own."""
    done = subprocess.run([sys.executable, '-c', SIDE, *options], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f'the step failed with code {done.returncode}: {(done.stderr.strip().splitlines() or ["killed: not enough memory?"])[-1]}')
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_model(directory, seed):
    """V and T at full size with random weights; of T's vocabulary a small one, as no text is read."""
    from diffdis_ms import runtime
    runtime.setup('CPU')
    from diffdis_ms.model_dir import parameters_to_numpy, save_model
    from diffdis_ms.models.autoencoder import AutoencoderKL
    from diffdis_ms.models.clip import CLIPTextEncoder
    from diffdis_ms.models.init import initialize
    config = ModelConfig()
    config.text_encoder.vocab_size = VOCAB
    networks = {'vae': AutoencoderKL(config.vae), 'text_encoder': CLIPTextEncoder(config.text_encoder)}
    for network in networks.values():
        initialize(network, seed)
    tokenizer = train_tokenizer(WORDS, VOCAB, directory.parent / 'tokenizer')
    save_model(directory, config, {stem: parameters_to_numpy(network) for stem, network in networks.items()}, tokenizer)


def make_cache(directory, model, seed):
    """Random latents and text features of the right shapes, in the cache's own format."""
    from diffdis_ms.train.cache import cache_key
    directory.mkdir()
    rng = np.random.default_rng(seed)
    z, c, e = (rng.standard_normal((ROWS, *shape), dtype=np.float32) for shape in ((4, 32, 32), (77, 768), (1, 768)))
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    write_part(directory, 0, [(z[i], c[i], e[i], 'a photo', i) for i in range(ROWS)], 'float32')
    with whole_file(directory / CONSTANTS) as f:
        f.write(save({'zero_latent': z[:1] * 0.5, 'empty_context': c[:1] * 0.5, 'good': np.arange(ROWS)}))
    summary = {'key': cache_key(model, model, 256), 'data': None, 'dtype': 'float32', 'num_samples': ROWS, 'num_parts': 1,
               'shapes': {'z': z.shape[1:], 'c': c.shape[1:], 'e': e.shape[1:]}}
    with whole_file(directory / SUMMARY) as f:
        f.write(json.dumps(summary).encode())


def lines(result):
    """For people."""
    for batch, found in ((name, result[name]) for name in ('batch_1', 'batch_2')):
        estimate, gib = found['estimate'], 2 ** 30
        held = sum(estimate[part] for part in ('weights that train', 'small ones once more, as one vector', 'moments of AdamW', 'EMA'))
        yield f'{batch.replace("_", " ")}: {found["parameters"] / 1e6:.2f} M parameters, steps of ' + ', '.join(f'{s:.1f}' for s in found['seconds']) + ' s'
        yield f'  weights, moments, EMA:            estimate {held / gib:6.2f} GiB, measured {found["assembled"] / gib:6.2f} (with MindSpore itself)'
        whole = sum(estimate.values())
        yield f'  gradients, activations, the rest: estimate {(whole - held) / gib:6.2f} GiB, measured {(found["peak"] - found["assembled"]) / gib:6.2f}'
        yield f'  in all:                           estimate {whole / gib:6.2f} GiB, measured {found["peak"] / gib:6.2f} (peak)'

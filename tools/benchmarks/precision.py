"""What 16-bit inference changes on the demo's model: fp16 as it runs, bf16 by its rounding (the CPU has no kernels)."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np

from diffdis_ms import runtime
from diffdis_ms.errors import ConfigError
from tools.benchmarks.bfloat16 import RoundedAttention, round_products

DEMO = Path('outputs/demo')
PROMPTS = 16


def measure(work, repeats, seed):
    """Embeddings, zero-shot, retrieval and pictures in each precision.

    Returns:
        {precision: {'R@1', 'acc1' (in percent), 'cosine' (the lowest with fp32's embedding of the same picture or
        text), 'pictures' (mean absolute difference from fp32's, of 255)}}.
    """
    if not (DEMO / 'model/unet.safetensors').is_file():
        raise ConfigError(f'{DEMO}/model does not exist: run bash tools/demo.sh first')
    runtime.setup('CPU')
    found = {precision: _run(precision, seed) for precision in ('fp32', 'fp16', 'bf16')}
    reference = found['fp32']
    return {
        'precisions': {
            precision: {
                'R@1': 100 * values['retrieval'],
                'acc1': 100 * values['zeroshot'],
                'cosine': min(float((values[k] * reference[k]).sum(1).min()) for k in ('e0', 'e')),
                'pictures': float(np.abs(values['pictures'] - reference['pictures']).mean()),
            }
            for precision, values in found.items()
        }
    }


def _run(precision, seed):
    from diffdis_ms import DiffDisPipeline
    from diffdis_ms.evaluate import tasks
    from diffdis_ms.evaluate.datasets import open_zeroshot
    from diffdis_ms.evaluate.embedding import GeneratedQueries, Sampling, embed_set

    emulated = precision == 'bf16'
    pipe = DiffDisPipeline.from_pretrained(DEMO / 'model', 50, 'fp32' if emulated else precision)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder) if emulated else ():
        round_products(network)
    with RoundedAttention() if emulated else nullcontext():
        images, names = open_zeroshot('emoji', DEMO / 'data')
        embedded = embed_set(GeneratedQueries(pipe), images, [Sampling(seed=seed)])
        prompts = embedded.captions[:PROMPTS]
        return {
            'e0': embedded.e0[Sampling(seed=seed)],
            'e': pipe.embed_texts(embedded.captions),
            'retrieval': tasks.retrieval(pipe, embedded, images)['metrics']['mean_R@1'],
            'zeroshot': tasks.zeroshot(pipe, embedded, names, ['{}'])[0]['metrics']['acc1'],
            'pictures': np.stack([np.asarray(x, np.float32) for x in pipe.generate(prompts, 50, 1.0, seed=seed)]),
        }


def lines(result):
    """Lines of text for `measure`'s result."""
    yield f'{"":6}{"mean R@1, %":>12}{"acc1, %":>9}{"lowest cosine with fp32":>25}{"pictures, of 255":>18}'
    for precision, row in result['precisions'].items():
        yield f'{precision:6}{row["R@1"]:12.2f}{row["acc1"]:9.2f}{row["cosine"]:25.6f}{row["pictures"]:18.2f}'

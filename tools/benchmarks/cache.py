"""Time a training step's inputs on the tiny config: encoded from images by V and T, and read from a latent cache."""

import shutil
import statistics
import time
from itertools import islice

from tqdm import tqdm

from diffdis_ms import runtime
from diffdis_ms.config import load
from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.stream.latent_cache import CachedLoader, LatentCache
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.storage.model_dir import parameters_to_numpy, save_model
from tools.benchmarks.data import COUNT, WORDS, write_tars

BATCHES, VOCAB = 40, 570


def measure(work, repeats, seed):
    """Returns {'runs': {'pictures' or 'cache': [seconds per batch]}, 'medians', 'times': speed-up by the cache}."""
    runtime.setup('CPU')
    from diffdis_ms.train.build import build, load_tokenizer
    from diffdis_ms.train.cache import CacheWriter, cache_key
    from diffdis_ms.train.features import CachedFeatures

    work = work.resolve() / 'cache'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        write_tars(work / 'tars', seed)
        # as if prepare_data.py had written it: the samples are not checked first
        (work / 'tars' / 'summary.json').write_text(f'{{"num_kept": {COUNT}}}')
        train_tokenizer(WORDS, VOCAB, work / 'tokenizer')
        config = load(
            'ascend_configs/tiny.yaml',
            [f'init.tokenizer={work / "tokenizer"}', f'model.text_encoder.vocab_size={VOCAB}', 'batch_size=8'],
        )
        captions, tokenizer, size = open_captions(work / 'tars'), load_tokenizer(config), config.model.image_size
        learner = build(config, captions, tokenizer)
        model, out = work / 'model', work / 'latents'
        save_model(
            model,
            config.model,
            {stem: parameters_to_numpy(learner.network(stem)) for stem in learner.networks},
            tokenizer,
        )
        key, min_side = cache_key(model, model, size), config.data.min_side
        CacheWriter(out, key, dtype='float32', caption_set=captions, min_side=min_side).run(learner.features.encoders)
        cache, batch = LatentCache(out), config.train.batch_size
        length = config.model.text_encoder.max_position_embeddings
        contenders = {
            'pictures': (
                Loader(captions, batch, size, seed=seed, num_workers=1, tokenizer=tokenizer, token_length=length),
                learner.features,
            ),
            'cache': (CachedLoader(cache, batch, seed, 1), CachedFeatures(cache, config)),
        }
        runs = {what: [] for what in contenders}
        for _ in tqdm(range(repeats), desc='rounds', disable=None):
            for what, contender in contenders.items():
                runs[what].append(seconds_a_batch(*contender))
        medians = {what: statistics.median(some) for what, some in runs.items()}
        return {'batch_size': batch, 'runs': runs, 'medians': medians, 'times': medians['pictures'] / medians['cache']}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def seconds_a_batch(loader, features):
    """Seconds per batch from the loader to the loss cell's arrays; mean over BATCHES batches after the first."""
    batches = iter(loader)
    features(next(batches), 0)
    begun = time.perf_counter()
    for step, batch in enumerate(islice(batches, BATCHES)):
        features(batch, step)
    seconds = time.perf_counter() - begun
    batches.close()
    return seconds / BATCHES


def lines(result):
    """For people."""
    yield f'inputs of a tiny step, batch {result["batch_size"]}; medians of {len(result["runs"]["cache"])} rounds'
    for what, seconds in result['medians'].items():
        yield f'  {what:10} {seconds * 1e3:8.2f} ms per batch'
    yield f'  the cache is {result["times"]:.1f} times cheaper'

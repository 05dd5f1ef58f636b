"""FID, KID and CLIP-score of generated images, for `tools/evaluate.py generation`."""

import sys
from pathlib import Path

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate import clip_score as clips
from diffdis_ms.evaluate import inception as inceptions
from diffdis_ms.evaluate.clip_model import open_clip_directory
from diffdis_ms.evaluate.examples import NUM_EXAMPLES, generation_examples
from diffdis_ms.evaluate.metrics.fid import check_subsets, fid, kid
from diffdis_ms.evaluate.pictures import PROMPTS, content_sha256, list_images, read_captions, sizes_of
from diffdis_ms.evaluate.shared import Share, parts_directory
from diffdis_ms.storage.files import sha256
from diffdis_ms.text_files import read_json
from diffdis_ms.world import World

METRICS = ('fid', 'kid', 'clip_score')


def evaluate_generation(
    real,
    fake,
    metrics=('fid', 'kid'),
    *,
    inception=None,
    clip=None,
    captions=None,
    batch_size=32,
    cache_dir=None,
    kid_subsets=100,
    kid_subset_size=1000,
    seed=2020,
    clip_at_zero=False,
    clip_weight=100.0,
    progress=False,
    out=None,
    world=World(),
    num_examples=2 * NUM_EXAMPLES,
    precision='fp32',
    device='CPU',
):
    """Measure a folder of generated images. All inputs are checked before a network is built.

    Args:
        real, fake: folders of images (see `pictures.list_images`); `real` may be None if only CLIP-score is computed.
        metrics: some of METRICS.
        inception: weights for FID and KID, see `inception.open_inception`.
        clip: a CLIP model directory. captions: file for the CLIP-score, see `pictures.read_captions`; None:
            `fake`/prompts.json.
        batch_size: images per graph call.
        cache_dir: directory for features of the real set; see `inception.cache_file`.
        kid_subsets, kid_subset_size, seed: see `kid`. clip_at_zero, clip_weight: see `clip_score`.
        progress: show progress bars.
        out: result file; finished batches are stored beside it and shared by all processes. None: keep them in memory.
        world: World.
        num_examples: number of images, spread evenly over the set, that the result holds as examples for a report.
        precision: of the CLIP; Inception is always float32. device: 'CPU' or the chip's name, for the record.

    Returns:
        dict metrics {fid, kid_mean, kid_std, clip_score: those requested}, protocol and examples. Only the first
        process computes the metrics; the others return None.

    Raises:
        ConfigError: an input is missing or does not fit.
    """
    metrics = tuple(dict.fromkeys(metrics))
    if batch_size < 1:
        raise ConfigError(f'batch size {batch_size} is below 1')
    _check_metrics(metrics, fake=fake, real=real, inception=inception, clip=clip)
    with_inception = 'fid' in metrics or 'kid' in metrics
    fakes = list_images(fake)
    texts, protocol = None, {'num_fake': len(fakes), 'batch_size': batch_size, 'device': device, 'definitions': {}}
    if with_inception:
        reals, weights = list_images(real), inceptions.open_inception(inception)
        if min(len(reals), len(fakes)) < 2:
            raise ConfigError(
                f'FID and KID need at least 2 images per set: {real} has {len(reals)}, {fake} has {len(fakes)}'
            )
        if 'kid' in metrics:
            check_subsets(len(reals), len(fakes), kid_subsets, kid_subset_size)
    if 'clip_score' in metrics:
        texts, clip = _captions(captions, fake, fakes), open_clip_directory(clip)

    protocol['fake_sha256'], results = content_sha256(fakes, progress), {}
    protocol['drawn_with'] = _drawn_with(Path(fake) / PROMPTS)
    if with_inception:
        protocol['pictures'] = {'real': sizes_of(reals), 'fake': sizes_of(fakes)}
        digest = sha256(weights[0])
        protocol.update(
            num_real=len(reals),
            real_sha256=content_sha256(reals, progress),
            inception_sha256=digest,
            inception_published=inceptions.is_published(weights[0], digest),
            preprocessing=inceptions.PREPROCESSING,
        )
    if 'clip_score' in metrics:
        image = clip.config.image_encoder
        protocol.update(
            clip_precision=precision,
            clip_at_zero=clip_at_zero,
            clip_weight=clip_weight,
            clip_sha256=clip.sha256(),
            clip_image_size=image.image_size,
            clip=f'{clip.path} ({image.architecture})',
        )
    share = Share()
    if out is not None:
        share = Share(parts_directory(out, texts=texts, **protocol), world)

    if with_inception:
        features = _features(reals, fakes, weights, protocol, cache_dir, share, progress)
    if 'clip_score' in metrics:
        embeddings = clips.clip_embeddings(clip, fakes, texts, batch_size, progress, share, precision)
    if not world.first:
        return None
    _say_sizes(protocol.get('pictures', {}))
    if 'fid' in metrics:
        results['fid'] = fid(*features)
        protocol['definitions']['fid'] = (
            'torch-fidelity 0.4: 2048 features of the 2015-12-05 Inception, np.cov, eigenvalues of the product'
        )
    if 'kid' in metrics:
        results['kid_mean'], results['kid_std'] = kid(
            *features, kid_subsets, kid_subset_size, seed=seed, progress=progress
        )
        protocol['definitions']['kid'] = (
            f'torch-fidelity: unbiased MMD^2, kernel (x.y / 2048 + 1)^3, {kid_subsets} subsets of {kid_subset_size},'
            f' seed {seed}'
        )
        protocol.update(kid_subsets=kid_subsets, kid_subset_size=kid_subset_size, seed=seed)
    if 'clip_score' in metrics:
        results['clip_score'] = clips.clip_score(*embeddings, clip_at_zero, clip_weight)
        protocol['definitions']['clip_score'] = clips.definition(clip_at_zero, clip_weight)
    return {
        'metrics': results,
        'protocol': protocol,
        'examples': generation_examples(fakes, Path(real) if with_inception else None, num_examples, texts),
    }


def _check_metrics(metrics, **given):
    """Raise ConfigError if `metrics` are not in METRICS, or an input that they need is not given."""
    unknown = next((m for m in metrics if m not in METRICS), None)
    if not metrics or unknown is not None:
        raise ConfigError(
            f'metrics: {unknown!r} is none of {", ".join(METRICS)}'
            if metrics
            else f'metrics: name some of {", ".join(METRICS)}'
        )
    needed = {'fid': ('real', 'inception'), 'kid': ('real', 'inception'), 'clip_score': ('clip',)}
    for name in ('fake', *dict.fromkeys(name for metric in metrics for name in needed[metric])):
        if not given[name]:
            raise ConfigError(f'{", ".join(metrics)}: --{name} is missing')


def _drawn_with(file):
    """{setting: value} of the tools/sample.py run that made a folder, from its prompts.json; {} if not recorded."""
    content = read_json(file) if file.is_file() else {}
    return {name: content[name] for name in ('steps', 'sampler', 'guidance_weight', 'seed') if name in content}


def _say_sizes(pictures):
    """Warn on stderr, one line per set, if images are not square: they are squashed for Inception."""
    for name, about in pictures.items():
        odd = about['not_square']
        if odd['count']:
            print(
                f'{odd["count"]} {name} images are not square '
                f'({", ".join(odd["names"][:3])}{" ..." if odd["count"] > 3 else ""}): they are squashed for FID and '
                'KID, which then cannot be compared with results on cropped images; tools/prepare_data.py coco-fid '
                'crops',
                file=sys.stderr,
            )


def _captions(file, fake, paths):
    if not file and not (Path(fake) / PROMPTS).is_file():
        raise ConfigError(f'clip_score: --captions is missing, and {fake} has no {PROMPTS}')
    return read_captions(file or Path(fake) / PROMPTS, paths)


def _features(reals, fakes, weights, protocol, cache_dir, share, progress):
    """(real features, fake features); the real ones come from the cache if it has them."""
    sources = protocol['real_sha256'], protocol['inception_sha256']
    file = inceptions.cache_file(cache_dir, *sources, protocol['device'])
    network, real = inceptions.build_inception(*weights), inceptions.read_cached(file, len(reals))
    batch_size = protocol['batch_size']
    if real is None:
        real = inceptions.inception_features(
            network, reals, batch_size, progress and 'Inception: real images', share, 'real'
        )
        if share.world.first:
            inceptions.write_cached(file, real)
    if protocol['fake_sha256'] == protocol['real_sha256']:
        return real, real
    return real, inceptions.inception_features(
        network, fakes, batch_size, progress and 'Inception: generated images', share, 'fake'
    )

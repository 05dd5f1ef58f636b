"""The paper's results (Tables 1 to 3), their protocol, and in what a result's protocol differs."""

from diffdis_ms.data.benchmarks.prompt_templates import DATASET_TEMPLATES
from diffdis_ms.data.benchmarks.sets import BENCHMARKS

# Table 1, top-1 in percent, in the order of BENCHMARKS
ZEROSHOT = {
    'CLIP-ViT-B/32': (63.0, 28.5, 58.2, 1.1, 12.4, 12.8, 24.3, 7.6, 1.5, 11.5, 11.8, 16.7),
    'CLIP-ViT-B/16': (57.2, 27.0, 54.8, 1.0, 12.9, 13.6, 28.8, 10.1, 1.1, 10.3, 10.8, 19.7),
    'CLIP-ViT-L/14': (57.5, 28.1, 57.2, 1.8, 10.8, 14.3, 31.2, 12.1, 1.7, 11.7, 24.9, 21.1),
    'DiffDis': (57.1, 32.3, 68.6, 3.1, 16.9, 16.2, 35.1, 26.4, 2.0, 28.5, 17.5, 25.9),
}
# Table 2, recalls in percent, in the order of result_files.RECALLS
RETRIEVAL = {
    'flickr30k': {
        'CLIP-ViT-B/32': (18.8, 42.3, 53.9, 12.5, 30.5, 39.9),
        'CLIP-ViT-B/16': (30.1, 56.4, 68.9, 19.4, 42.1, 52.7),
        'CLIP-ViT-L/14': (29.9, 58.3, 70.4, 20.3, 46.1, 57.6),
        'DiffDis': (49.8, 77.5, 85.6, 38.8, 67.9, 77.6),
    },
    'coco': {
        'CLIP-ViT-B/32': (10.1, 25.3, 35.3, 7.0, 18.9, 27.1),
        'CLIP-ViT-B/16': (14.4, 34.6, 46.1, 10.3, 26.5, 36.6),
        'CLIP-ViT-L/14': (14.7, 35.0, 47.1, 11.3, 28.4, 38.9),
        'DiffDis': (26.3, 50.9, 62.8, 19.5, 42.2, 54.2),
    },
}
# Table 3: FID, KID, CLIP-score
GENERATION = {'Stable Diffusion': (10.8, 2.9e-3, 24.6), 'DiffDis': (9.8, 2.3e-3, 24.4)}

STEPS, WEIGHT = 8, 3.0  # of the text query
RETRIEVAL_SIZES = {'coco': 5000, 'flickr30k': 1000}  # images of Karpathy's test splits
PICTURES, SIDE, DRAWN_WITH = 30_000, 256, {'steps': 50, 'sampler': 'pndm', 'guidance_weight': 3.0}


def mean_retrieval(name):
    """Mean R@1 over both directions and both sets, in percent, as in the paper's abstract (33.6 for DiffDis)."""
    return sum(RETRIEVAL[dataset][name][k] for dataset in RETRIEVAL for k in (0, 3)) / 4


def in_paper(result):
    """Whether the paper has results for a result's task and data set."""
    sets = {'zeroshot': BENCHMARKS, 'retrieval': RETRIEVAL}
    return result['task'] == 'generation' or result['dataset'] in sets[result['task']]


def differences(result):
    """Differences between a result's protocol (see `result_files.read_results`) and the paper's: list of short texts.

    A setting that the result file does not state counts as a difference, except for the image sampler, which only
    tools/sample.py records.
    """
    protocol, found = result['protocol'], []
    missing = result.get('missing') or {}
    if missing:
        found.append(
            f'{missing.get("count", 0)} images and {missing.get("classes", {}).get("count", 0)} classes are missing'
        )
    if result['task'] == 'generation':
        return found + _of_generation(result['metrics'], protocol)
    if protocol.get('limit') is not None:
        found.append(f'only the first {protocol["limit"]} samples')
    if protocol.get('model') != 'CLIP':
        if protocol.get('steps') != STEPS:
            found.append(f'{protocol.get("steps", "unknown")} steps, not {STEPS}')
        if protocol.get('guidance_weight') != WEIGHT:
            found.append(f'w = {protocol.get("guidance_weight", "unknown")}, not {WEIGHT:g}')
    if result['task'] == 'zeroshot':
        if protocol.get('templates') != DATASET_TEMPLATES[result['dataset']]:
            found.append(f'templates {template_set(result)}, not CLIP\'s for the set')
        size = BENCHMARKS[result['dataset']][1]
    else:
        size = RETRIEVAL_SIZES[result['dataset']]
        if result['split'] != 'Karpathy test':
            found.append(f'split {result["split"]}, not Karpathy test')
    if result['num_samples'] != str(size):
        found.append(f'{result["num_samples"]} images, not {size}')
    return found


def _of_generation(metrics, protocol):
    found = []
    if 'fid' in metrics or 'kid_mean' in metrics:
        if protocol.get('inception_published') is not True:
            found.append('Inception weights that are not the published ones')
        sizes = protocol.get('pictures', {})
        for name in ('real', 'fake'):
            if list(sizes.get(name, {}).get('sizes', {})) != [f'{SIDE}x{SIDE}']:
                found.append(f'{name} images that are not all known to have {SIDE} x {SIDE} pixels')
        if protocol.get('num_real') != PICTURES:
            found.append(f'{protocol.get("num_real", "unknown")} real images, not {PICTURES}')
    if protocol.get('num_fake') != PICTURES:
        found.append(f'{protocol.get("num_fake", "unknown")} generated images, not {PICTURES}')
    drawn = protocol.get('drawn_with') or {}
    found += [
        f'generated with {name} {drawn[name]}, not {value}'
        for name, value in DRAWN_WITH.items()
        if drawn.get(name, value) != value
    ]
    score = '(resnet)' in str(protocol.get('clip')), protocol.get('clip_weight'), bool(protocol.get('clip_at_zero'))
    if 'clip_score' in metrics and score != (True, 100, False):
        found.append('a CLIP-score that is not 100 * cosine of a CLIP ResNet')
    return found


def template_set(result):
    """Name of a zero-shot result's prompt templates, or a description if they have no name."""
    protocol = result['protocol']
    if protocol.get('template_set'):
        return str(protocol['template_set'])
    templates = protocol.get('templates')
    if not isinstance(templates, list) or not templates:
        return 'unknown'
    if templates == DATASET_TEMPLATES.get(result['dataset']):
        return 'clip'
    if len(templates) > 1:
        return f'{len(templates)} templates'
    return 'plain' if templates == ['{}'] else str(templates[0])

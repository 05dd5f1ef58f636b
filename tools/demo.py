"""The demo: train V, T and DiffDis on emoji, then classify, retrieve and generate emoji that training never saw."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from diffdis_ms.runtime.cli import run
from diffdis_ms.text_files import read_json

OUT = Path('outputs/demo')
RESULTS = {task: OUT / f'evaluation/{task}.json' for task in ('generation', 'zeroshot', 'retrieval')}
STEPS, GUIDANCE_WEIGHT = 8, 3.0  # of the text query
FAST = {'autoencoder': 20, 'clip': 6, 'diffdis': 6}  # training steps of --fast
# from the training set: kinds of emoji other than the held-out people and hands
# fmt: off
KINDS = [
    'flag of France', 'flag of Japan', 'flag of Sweden', 'grinning face', 'angry face', 'cat face', 'red apple',
    'red heart', 'blue circle', 'green square', 'yellow square', 'person standing',
]
# fmt: on


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='writes outputs/demo/report.html and outputs/demo/metrics.json'
    )
    parser.add_argument(
        '--fast',
        action='store_true',
        help='only a few steps of everything, to see that it runs; the numbers mean little',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    return parser.parse_args()


class Clock:
    """Time the stages in seconds, and print each."""

    def __init__(self):
        self.started, self.stages = time.monotonic(), {}

    def __call__(self, name, function, *args):
        print(f'== {name}', flush=True)
        start = time.monotonic()
        result = function(*args)
        self.stages[name] = round(time.monotonic() - start, 1)
        print(f'   {name}: {self.stages[name]:.0f} s', flush=True)
        return result


def tool(*args):
    """Run one of the repository's own commands, as a user would."""
    code = subprocess.run([sys.executable, *map(str, args)]).returncode
    if code:
        sys.exit(code)


def train_stage(name, args):
    steps = [f'max_steps={FAST[name]}', 'train.log_every=2', 'optimizer.warmup_steps=2'] if args.fast else []
    tool('tools/train.py', '--config', f'ascend_configs/demo_{name}.yaml', '--seed', args.seed, 'resume=none', *steps)


def train_tokenizer():
    from diffdis_ms.config import load
    from diffdis_ms.data import tokenizer
    from diffdis_ms.data.sources.webdataset import CaptionSet

    captions = CaptionSet(OUT / 'data/train')
    size = load('ascend_configs/demo_model.yaml').model.text_encoder.vocab_size
    tokenizer.train_tokenizer(
        [captions.read(i).caption for i in tqdm(range(len(captions)), desc='captions', disable=None)],
        size,
        OUT / 'tokenizer',
    )


def evaluate(args, clock):
    """Measure the trained model on the held-out emoji, as tools/evaluate.py does.

    Writes the result files outputs/demo/evaluation/{generation,zeroshot,retrieval}.json.

    Returns:
        (metrics, generated and real images of KINDS).
    """
    from diffdis_ms.data.transforms import resize_center_crop
    from diffdis_ms.evaluate import results, tasks
    from diffdis_ms.evaluate.datasets import open_zeroshot
    from diffdis_ms.evaluate.embedding import embed_set
    from diffdis_ms.evaluate.models import open_model

    started = time.monotonic()
    pipe, encoder, about = open_model(OUT / 'model', batch_size=50)
    images, names = open_zeroshot('emoji', OUT / 'data')
    samplings = choose_samplings(args)
    embedded = clock('embedding', embed_set, encoder, images, samplings)
    protocol, count = {**vars(samplings[0]), 'batch_size': 50, **about}, len(embedded.keys)
    retrieval = clock('retrieval', tasks.retrieval, pipe, embedded, images)
    zeroshot, matrix = clock('zeroshot', tasks.zeroshot, pipe, embedded, names, ['{}'])
    for task, measured, more in (
        ('zeroshot', zeroshot, {'templates': ['{}'], 'num_classes': len(names)}),
        ('retrieval', retrieval, {}),
    ):
        results.write_result(
            RESULTS[task], results.task_result(task, 'emoji', images, embedded, measured, {**protocol, **more}), started
        )
    results.confusion_picture(matrix).save(f'{RESULTS["zeroshot"]}.confusion.png')

    prompts, rows = choose_prompts(embedded.captions, 8 if args.fast else 48)
    generation = {
        'num_images': len(prompts) + len(KINDS),
        'guidance_weight': 1.0,
        'steps': 4 if args.fast else 50,
        'sampler': 'pndm',
    }
    drawn = clock(
        'generation',
        lambda: pipe.generate(
            prompts + KINDS,
            generation['steps'],
            generation['guidance_weight'],
            generation['sampler'],
            args.seed,
            progress=True,
        ),
    )
    true = [resize_center_crop(images.read(int(i)).image, pipe.config.image_size) for i in embedded.indices[rows]]
    generation.update(clock('generation metrics', measure_pictures, drawn[: len(prompts)], true, prompts, args.seed))
    metrics = {
        'retrieval': {'num_candidates': count, **retrieval['metrics'], 'chance_R@1': 1 / count},
        'zeroshot': {'num_classes': len(names), **zeroshot['metrics'], 'chance': 1 / len(names)},
        'generation': generation,
    }
    return metrics, (drawn[len(prompts) :], training_pictures(KINDS, pipe.config.image_size))


def choose_samplings(args):
    """The samplings to measure: the main one first, then with other steps (Table 8), guidance weights (Table 7) or
    seeds (Table 9), one changed at a time."""
    from diffdis_ms.evaluate.embedding import Sampling

    if args.fast:
        chosen = [(STEPS, GUIDANCE_WEIGHT, 0), (2, GUIDANCE_WEIGHT, 0), (2, 0.0, 0), (2, GUIDANCE_WEIGHT, 1)]
    else:
        chosen = [(steps, GUIDANCE_WEIGHT, 0) for steps in (STEPS, 1, 2, 4, 16)] + [
            (STEPS, weight, 0) for weight in (0.0, 1.0, 6.0)
        ]
        chosen += [(4, GUIDANCE_WEIGHT, seed) for seed in (1, 2)]
    return [Sampling(steps, weight, args.seed + seed) for steps, weight, seed in chosen]


def measure_pictures(drawn, true, captions, seed):
    """FID, KID and CLIP-score without a download: from an Inception with random weights and the demo's own CLIP."""
    from diffdis_ms.evaluate.generation import evaluate_generation
    from diffdis_ms.evaluate.inception import write_random_inception
    from diffdis_ms.evaluate.results import generation_result, write_result

    started = time.monotonic()
    for folder, pictures in ((OUT / 'pictures', drawn), (OUT / 'true', true)):
        folder.mkdir()
        files = [f'{i:05d}.png' for i in range(len(pictures))]
        for name, picture in zip(files, pictures, strict=True):
            picture.save(folder / name)
        (folder / 'prompts.json').write_text(
            json.dumps({'prompts': dict(zip(files, captions, strict=True))}, indent=1, ensure_ascii=False),
            encoding='utf-8',
        )
    write_random_inception(OUT / 'inception.safetensors')
    measured = evaluate_generation(
        OUT / 'true',
        OUT / 'pictures',
        ('fid', 'kid', 'clip_score'),
        inception=OUT / 'inception.safetensors',
        clip=OUT / 'clip/model',
        batch_size=8,
        cache_dir=OUT / 'cache',
        kid_subset_size=len(drawn) // 2,
        seed=seed,
        progress=True,
        num_examples=len(drawn),
    )
    write_result(RESULTS['generation'], generation_result(OUT / 'true', measured), started)
    return measured['metrics']


def choose_prompts(captions, count):
    """Choose held-out captions that are spread evenly over the set."""
    rows = [round(i * (len(captions) - 1) / (count - 1)) for i in range(count)]
    return [captions[i] for i in rows], rows


def training_pictures(captions, size):
    """The training set's images of the given captions."""
    from diffdis_ms.data.sources.webdataset import CaptionSet
    from diffdis_ms.data.transforms import resize_center_crop

    found = {}
    samples = CaptionSet(OUT / 'data/train')
    for sample in map(samples.read, range(len(samples))):
        if sample.caption in captions:
            found[sample.caption] = resize_center_crop(sample.image, size)
    return [found[caption] for caption in captions]


def write_report(metrics, shown, fast):
    from diffdis_ms.evaluate.report.html_report import add_results
    from diffdis_ms.evaluate.report.page import Report
    from diffdis_ms.evaluate.report.result_files import read_results

    retrieval, zeroshot = metrics['retrieval'], metrics['zeroshot']
    report = Report('DiffDis on emoji')
    report.text(
        'One network, trained from scratch on this machine, generated the images below from captions and found'
        f' the captions of images it had never seen. It was trained on {metrics["num_train"]} emoji.'
        f' {metrics["num_held_out"]} were held out: combinations of concept and skin tone that are not in the training'
        f' set. {metrics["skipped"]} could not be drawn.'
    )
    if fast:
        report.text(
            'This was --fast: a few training steps to see that everything runs. The numbers and images mean little.',
            note=True,
        )
    report.heading('Against chance')
    percent = '{:.1%}'.format
    report.table(
        ['held-out emoji', 'measured', 'chance'],
        [
            [
                f'image to text R@{k}, {retrieval["num_candidates"]} captions',
                percent(retrieval[f'image_to_text_R@{k}']),
                percent(k * retrieval['chance_R@1']),
            ]
            for k in (1, 5, 10)
        ]
        + [
            [
                f'text to image R@{k}, {retrieval["num_candidates"]} images',
                percent(retrieval[f'text_to_image_R@{k}']),
                percent(k * retrieval['chance_R@1']),
            ]
            for k in (1, 5, 10)
        ]
        + [
            ['mean R@1', percent(retrieval['mean_R@1']), percent(retrieval['chance_R@1'])],
            [
                f'zero-shot top-1, {zeroshot["num_classes"]} base concepts',
                percent(zeroshot['acc1']),
                percent(zeroshot['chance']),
            ],
            ['zero-shot top-5', percent(zeroshot['acc5']), percent(5 * zeroshot['chance'])],
        ],
    )
    report.text(
        'The demo downloads nothing, so FID and KID below use an Inception network with random weights. They show that'
        ' the computation runs, and can be compared only within this report, not with published numbers. The CLIP-score'
        ' uses the CLIP that this demo trained. The model was trained with the text tower of the same CLIP, so the'
        ' score is not independent.',
        note=True,
    )
    add_results(report, read_results(RESULTS.values()))
    report.heading('Generated from captions of the training set (left), and the real emoji (right)')
    report.pairs(KINDS, *shown)
    report.heading('Training')
    report.curves(
        {
            'autoencoder V, D': OUT / 'autoencoder/metrics.jsonl',
            'CLIP, for T': OUT / 'clip/metrics.jsonl',
            'DiffDis': OUT / 'diffdis/metrics.jsonl',
        }
    )
    report.heading('Settings')
    report.text(
        f'Text query: {STEPS} DDIM steps, guidance weight {GUIDANCE_WEIGHT:g}. Images:'
        f' {metrics["generation"]["steps"]} {metrics["generation"]["sampler"].upper()} steps, guidance weight'
        f' {metrics["generation"]["guidance_weight"]:g}. EMA weights. Configs: ascend_configs/demo_*.yaml. Results:'
        f' {OUT}/evaluation/*.json.'
    )
    report.table(
        ['stage', 'seconds'],
        [[name, f'{seconds:.0f}'] for name, seconds in metrics['stages'].items()]
        + [['all', f'{metrics["seconds"]:.0f}']],
    )
    report.write(OUT / 'report.html')


def main():
    args = parse_args()
    clock = Clock()
    shutil.rmtree(OUT, ignore_errors=True)
    clock('data', tool, 'tools/prepare_data.py', 'emoji', '--out', OUT / 'data', '--seed', args.seed)
    clock('tokenizer', train_tokenizer)
    for name in ('autoencoder', 'clip', 'diffdis'):
        clock(f'train {name}', train_stage, name, args)
    (OUT / 'diffdis/model').rename(OUT / 'model')
    measured, shown = evaluate(args, clock)
    summary = read_json(OUT / 'data/summary.json')
    metrics = {
        'seconds': round(time.monotonic() - clock.started, 1),
        'stages': clock.stages,
        'num_train': summary['num_train'],
        'num_held_out': summary['num_held_out'],
        'skipped': summary['num_skipped'],
        **measured,
        'model': str(OUT / 'model'),
        'fast': args.fast,
    }
    (OUT / 'metrics.json').write_text(json.dumps(metrics, indent=1) + '\n')
    write_report(metrics, shown, args.fast)
    retrieval, zeroshot = metrics['retrieval'], metrics['zeroshot']
    print(
        f'{metrics["seconds"]:.0f} s. Mean R@1 among {retrieval["num_candidates"]} held-out emoji'
        f' {retrieval["mean_R@1"]:.1%} (chance {retrieval["chance_R@1"]:.2%}); zero-shot over {zeroshot["num_classes"]}'
        f' concepts {zeroshot["acc1"]:.1%} (chance {zeroshot["chance"]:.2%})'
    )
    print(f'report:  {OUT / "report.html"}\nmetrics: {OUT / "metrics.json"}')


if __name__ == '__main__':
    run(main)

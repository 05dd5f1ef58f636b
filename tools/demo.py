"""The demo: train V, T and DiffDis on emoji, then classify, retrieve and draw emoji that training never saw."""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from diffdis_ms.cli import run

OUT = Path('outputs/demo')
STEPS, GUIDANCE_WEIGHT = 8, 3.0                  # of the text query
FAST = {'autoencoder': 20, 'clip': 6, 'diffdis': 6}    # training steps of --fast
KINDS = ['flag of France', 'flag of Japan', 'flag of Sweden', 'grinning face', 'angry face', 'cat face', 'red apple', 'red heart', 'blue circle',
         'green square', 'yellow square', 'person standing']       # in the training set: other kinds of things than the held-out people and hands


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, epilog='writes outputs/demo/report.html and outputs/demo/metrics.json')
    parser.add_argument('--fast', action='store_true', help='a few steps of everything, to see that it works; the numbers mean little')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    return parser.parse_args()


class Clock:
    """Seconds by stage, printed as they pass."""

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
    from diffdis_ms.data.webdataset import CaptionSet
    captions = CaptionSet(OUT / 'data/train')
    size = load('ascend_configs/demo_model.yaml').model.text_encoder.vocab_size
    tokenizer.train_tokenizer([captions.read(i).caption for i in tqdm(range(len(captions)), desc='captions', disable=None)], size,
                              OUT / 'tokenizer')


def evaluate(args, clock):
    """Measure the trained model on the held-out emoji; returns (metrics, what the report shows)."""
    from diffdis_ms import DiffDisPipeline
    from diffdis_ms.data.transforms import resize_center_crop
    from diffdis_ms.evaluate import tasks
    from diffdis_ms.evaluate.embedding import GeneratedQueries, Sampling, embed_set
    pipe = DiffDisPipeline.from_pretrained(OUT / 'model', batch_size=50)
    images, names = tasks.open_zeroshot('emoji', OUT / 'data')
    embedded = clock('embedding', embed_set, GeneratedQueries(pipe), images, [Sampling(STEPS, GUIDANCE_WEIGHT, args.seed)])
    count = len(embedded.keys)
    retrieval = clock('retrieval', tasks.retrieval, pipe, embedded, images)['metrics']
    zeroshot = clock('zeroshot', tasks.zeroshot, pipe, embedded, names, ['{}'])[0]['metrics']
    prompts, rows = choose_prompts(embedded.captions, 8 if args.fast else 48)
    generation = {'num_images': len(prompts) + len(KINDS), 'guidance_weight': 1.0, 'steps': 4 if args.fast else 50, 'sampler': 'pndm'}
    drawn = clock('generation', lambda: pipe.generate(prompts + KINDS, generation['steps'], generation['guidance_weight'],
                                                      generation['sampler'], args.seed, progress=True))
    metrics = {'retrieval': {'num_candidates': count, **retrieval, 'chance_R@1': 1 / count},
               'zeroshot': {'num_classes': len(names), 'acc1': zeroshot['acc1'], 'acc5': zeroshot['acc5'], 'chance': 1 / len(names)},
               'generation': generation}
    true = [resize_center_crop(images.read(i).image, pipe.config.image_size) for i in embedded.indices[rows]]
    return metrics, (pipe, embedded, prompts, rows, drawn, true)


def choose_prompts(captions, count):
    """Held-out captions spread evenly over the set."""
    rows = [round(i * (len(captions) - 1) / (count - 1)) for i in range(count)]
    return [captions[i] for i in rows], rows


def training_pictures(captions, size):
    """The training set's pictures of some captions."""
    from diffdis_ms.data.transforms import resize_center_crop
    from diffdis_ms.data.webdataset import CaptionSet
    found = {}
    samples = CaptionSet(OUT / 'data/train')
    for sample in map(samples.read, range(len(samples))):
        if sample.caption in captions:
            found[sample.caption] = resize_center_crop(sample.image, size)
    return [found[caption] for caption in captions]


def write_report(metrics, shown, fast):
    from diffdis_ms.evaluate.report import Report
    pipe, embedded, prompts, rows, drawn, true = shown
    retrieval, zeroshot = metrics['retrieval'], metrics['zeroshot']
    report = Report('DiffDis on emoji')
    report.text('One network, trained from scratch just now on this machine, drew the pictures below from captions and found the captions '
                f'of pictures it had never seen. {metrics["num_train"]} emoji were trained on; {metrics["num_held_out"]} were held out, '
                f'combinations of concept and skin tone that training never met; {metrics["skipped"]} could not be drawn.')
    if fast:
        report.text('This was --fast: a few training steps to see that everything runs. The numbers and pictures mean little.', note=True)
    report.heading('Numbers')
    percent = '{:.1%}'.format
    report.table(['held-out emoji', 'measured', 'chance'],
                 [[f'image to text R@{k}, {retrieval["num_candidates"]} captions', percent(retrieval[f'image_to_text_R@{k}']),
                   percent(k * retrieval['chance_R@1'])] for k in (1, 5, 10)]
                 + [[f'text to image R@{k}, {retrieval["num_candidates"]} images', percent(retrieval[f'text_to_image_R@{k}']),
                     percent(k * retrieval['chance_R@1'])] for k in (1, 5, 10)]
                 + [['mean R@1', percent(retrieval['mean_R@1']), percent(retrieval['chance_R@1'])],
                    [f'zero-shot top-1, {zeroshot["num_classes"]} base concepts', percent(zeroshot['acc1']), percent(zeroshot['chance'])],
                    ['zero-shot top-5', percent(zeroshot['acc5']), percent(5 * zeroshot['chance'])]])
    report.heading('Drawn from held-out captions (left), and the true emoji (right)')
    report.pairs(prompts, drawn[:len(prompts)], true)
    report.heading('Drawn from captions of the training set')
    report.pairs(KINDS, drawn[len(prompts):], training_pictures(KINDS, pipe.config.image_size))
    report.heading('Captions found for held-out emoji')
    similarity = next(iter(embedded.e0.values())) @ pipe.embed_texts(embedded.captions).T
    best = (-similarity).argsort(1)[:, :5]
    report.retrieval([(image, embedded.captions[i], [embedded.captions[j] for j in best[i]])
                      for i, image in list(zip(rows, true))[::max(1, len(rows) // 12)]])
    report.heading('Training')
    report.curves({'autoencoder V, D': OUT / 'autoencoder/metrics.jsonl', 'CLIP, for T': OUT / 'clip/metrics.jsonl',
                   'DiffDis': OUT / 'diffdis/metrics.jsonl'})
    report.heading('What was run')
    report.text(f'Text query: {STEPS} DDIM steps, guidance weight {GUIDANCE_WEIGHT:g}. Pictures: {metrics["generation"]["steps"]} '
                f'{metrics["generation"]["sampler"].upper()} steps, guidance weight {metrics["generation"]["guidance_weight"]:g}. EMA weights. '
                'Configs: ascend_configs/demo_*.yaml.')
    report.table(['stage', 'seconds'], [[name, f'{seconds:.0f}'] for name, seconds in metrics['stages'].items()]
                 + [['all', f'{metrics["seconds"]:.0f}']])
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
    summary = json.loads((OUT / 'data/summary.json').read_text())
    metrics = {'seconds': round(time.monotonic() - clock.started, 1), 'stages': clock.stages, 'num_train': summary['num_train'],
               'num_held_out': summary['num_held_out'], 'skipped': summary['num_skipped'], **measured, 'model': str(OUT / 'model'),
               'fast': args.fast}
    (OUT / 'metrics.json').write_text(json.dumps(metrics, indent=1) + '\n')
    write_report(metrics, shown, args.fast)
    retrieval, zeroshot = metrics['retrieval'], metrics['zeroshot']
    print(f'{metrics["seconds"]:.0f} s. Mean R@1 among {retrieval["num_candidates"]} held-out emoji {retrieval["mean_R@1"]:.1%} '
          f'(chance {retrieval["chance_R@1"]:.2%}); zero-shot over {zeroshot["num_classes"]} concepts {zeroshot["acc1"]:.1%} '
          f'(chance {zeroshot["chance"]:.2%})')
    print(f'report:  {OUT / "report.html"}\nmetrics: {OUT / "metrics.json"}')


if __name__ == '__main__':
    run(main)

"""Evaluate a model: zero-shot classification, image-text retrieval and image generation."""

import argparse
import time

from diffdis_ms.data.benchmarks.prompt_templates import DATASET_TEMPLATES
from diffdis_ms.runtime.cli import run
from diffdis_ms.runtime.options import add_options, setup

EXAMPLES = """examples:
  python tools/evaluate.py zeroshot --model outputs/demo/model --dataset emoji --data-root outputs/demo/data \\
      --out zeroshot.json
  python tools/evaluate.py zeroshot --model DIR --dataset folder --data-root photos/ --templates photo --out folder.json
      photos/<class name>/<images>
  python tools/evaluate.py zeroshot --model DIR --dataset cifar10 --data-root data/ --steps 8 1 4 10 20 50 \\
      --guidance-weight 3 0 1 --seeds 10 --out c10.json
      images are read and encoded once; the first values give the result, all combinations are listed as a sweep
  python tools/evaluate.py retrieval --model DIR --dataset coco --data-root coco/ --out coco.json
      reads coco/dataset_coco.json (Karpathy's) and coco/val2014/; a missing image is an error, or with
      --allow-missing it is named in the result
  python tools/evaluate.py retrieval --model DIR --dataset captions --data-root 'flickr/*.tar' --out flickr.json
      any image-text pairs: webdataset tars, or a folder with a csv file with the columns dir,text
  python tools/evaluate.py generation --real DIR --fake pictures --inception pt_inception-2015-12-05-6726825d.pth \\
      --out fid.json
  python tools/evaluate.py generation --fake pictures --metrics clip_score --clip RN50 --out score.json
      pictures/ as tools/sample.py writes it, prompts.json included; RN50 made by `python -m ckpt_convert import`
  python tools/evaluate.py report *.json --out report.html
  msrun --worker_num=8 --local_worker_num=8 --join=True tools/evaluate.py zeroshot --model DIR --dataset cifar10 \\
      --data-root data/ --device Ascend --out c10.json
      eight processes share the work; any of these commands, started again after a crash, goes on where it was
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = parser.add_subparsers(
        dest='task', metavar='TASK', required=True, help='zeroshot, retrieval, generation or report'
    )
    for name, text, sets in (
        (
            'zeroshot',
            'zero-shot classification: acc1, acc5, mean_per_class_recall',
            'emoji, folder, webdataset, ' + ', '.join(DATASET_TEMPLATES),
        ),
        ('retrieval', 'image-text retrieval: R@1, R@5, R@10 in both directions', 'emoji, coco, flickr30k or captions'),
    ):
        task = tasks.add_parser(
            name, help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        task.add_argument('--model', required=True, metavar='DIR', help='model directory')
        task.add_argument('--dataset', required=True, metavar='NAME', help=sets)
        task.add_argument('--data-root', required=True, metavar='DIR', help='directory of the data set')
        task.add_argument(
            '--split',
            help={
                'zeroshot': 'split of a benchmark set: test (imagenet: also val, which is the same)',
                'retrieval': 'split of coco or flickr30k: test, val, train or restval (default: test)',
            }[name],
        )
        task.add_argument('--out', required=True, metavar='FILE.json', help='result file')
        several = {'nargs': '+'} if name == 'zeroshot' else {'nargs': 1}
        task.add_argument(
            '--steps', type=int, default=[8], **several, help='sampling steps of the text query (default: 8)'
        )
        task.add_argument(
            '--guidance-weight',
            type=float,
            default=[3.0],
            **several,
            help='w of classifier-free guidance; guidance_scale elsewhere is 1 + w (default: 3)',
        )
        task.add_argument('--batch-size', type=int, default=32, help='images at once (default: %(default)s)')
        task.add_argument('--limit', type=int, help='use only the first N samples')
        task.add_argument(
            '--allow-missing',
            action='store_true',
            help=(
                'leave out images that are missing or cannot be decoded, and name them in the result; '
                'without this option they are an error'
            ),
        )
        task.add_argument(
            '--seed', type=int, default=0, help='seed of the text query\'s initial noise (default: %(default)s)'
        )
        add_options(task)
        if name == 'zeroshot':
            task.add_argument(
                '--templates',
                help=(
                    'prompt templates: plain (the bare name), photo, openai, clip (those of CLIP\'s authors for the'
                    ' data set), a file, or a text with {} (default: clip for the 12 benchmark sets, as in the paper;'
                    ' plain for others)'
                ),
            )
            task.add_argument(
                '--seeds',
                type=int,
                default=1,
                help='number of seeds, starting at --seed; their spread is reported (default: %(default)s)',
            )
            task.add_argument(
                '--classnames',
                help=(
                    'class names instead of the data set\'s own: clip (CLIP\'s names for a benchmark set), or a file '
                    'with one name per line or JSON'
                ),
            )
    add_generation(tasks)
    text = 'one page (HTML or Markdown) of several result files, beside the paper\'s numbers'
    task = tasks.add_parser(
        'report', help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task.add_argument(
        'results', nargs='+', metavar='RESULT.json', help='files written by zeroshot, retrieval and generation'
    )
    task.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='a .html file with all images inside, or a .md file with its images in a folder beside it',
    )
    return parser.parse_args()


def add_generation(tasks):
    text = 'quality of generated images: FID, KID and CLIP-score'
    task = tasks.add_parser(
        'generation', help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task.add_argument(
        '--real', metavar='DIR', help='folder of real images (for fid and kid); their features are cached'
    )
    task.add_argument(
        '--fake',
        required=True,
        metavar='DIR',
        help='folder of generated images; if it has a prompts.json, only the images listed there',
    )
    task.add_argument('--out', required=True, metavar='FILE.json', help='result file')
    task.add_argument(
        '--metrics', default='fid,kid', metavar='LIST', help='any of fid, kid and clip_score (default: %(default)s)'
    )
    task.add_argument(
        '--inception',
        metavar='FILE',
        help='weights of FID\'s Inception (.pth), or a directory made by ckpt_convert import',
    )
    task.add_argument('--clip', metavar='DIR', help='CLIP for clip_score, a directory made by ckpt_convert import')
    task.add_argument(
        '--captions',
        metavar='FILE',
        help=(
            'captions, one per line in the order of the image names (numbers in names are ordered by value), or '
            'a prompts.json (default: the one in --fake)'
        ),
    )
    task.add_argument(
        '--clip-weight',
        type=float,
        default=100.0,
        metavar='W',
        help='clip_score is W * cosine; the CLIPScore paper has W = 2.5 (default: 100)',
    )
    task.add_argument(
        '--clip-at-zero', action='store_true', help='count negative cosines as 0, as in the CLIPScore paper'
    )
    task.add_argument(
        '--kid-subsets', type=int, default=100, metavar='N', help='number of subsets (default: %(default)s)'
    )
    task.add_argument(
        '--kid-subset-size', type=int, default=1000, metavar='N', help='images per subset (default: %(default)s)'
    )
    task.add_argument('--batch-size', type=int, default=32, help='images at once (default: %(default)s)')
    task.add_argument(
        '--cache-dir',
        metavar='DIR',
        help='directory for features of real images (default: ~/.cache/diffdis_ms/features)',
    )
    task.add_argument(
        '--seed', type=int, default=2020, help='seed of KID\'s subsets (default: %(default)s, as in torch-fidelity)'
    )
    add_options(task)


def generation(args):
    from diffdis_ms import runtime
    from diffdis_ms.evaluate.generation import evaluate_generation
    from diffdis_ms.evaluate.results import finish, generation_result

    started = time.monotonic()
    precision, device = setup(args)
    world = runtime.this_world()
    measured = evaluate_generation(
        args.real,
        args.fake,
        [m.strip() for m in args.metrics.split(',') if m.strip()],
        inception=args.inception,
        clip=args.clip,
        captions=args.captions,
        batch_size=args.batch_size,
        cache_dir=args.cache_dir,
        kid_subsets=args.kid_subsets,
        kid_subset_size=args.kid_subset_size,
        seed=args.seed,
        clip_at_zero=args.clip_at_zero,
        clip_weight=args.clip_weight,
        progress=True,
        out=args.out,
        world=world,
        precision=precision,
        device=device,
    )
    result = measured and generation_result(args.real, measured)
    finish(args.out, result, started, world)
    if not world.first:
        return print(f'process {world.rank} has done its share; process 0 writes {args.out}')
    print(
        f'{result["num_samples"]} pictures in {args.fake}: '
        + ', '.join(f'{name} {value:.6g}' for name, value in measured['metrics'].items())
    )


def report(args):
    from diffdis_ms.evaluate.report.html_report import write_report
    from diffdis_ms.evaluate.report.markdown import write_markdown
    from diffdis_ms.evaluate.report.result_files import read_results

    write = write_markdown if args.out.endswith('.md') else write_report
    write(read_results(args.results), args.out)
    print(args.out)


def zeroshot_or_retrieval(args):
    from diffdis_ms.data.benchmarks.class_names import choose_templates
    from diffdis_ms.evaluate.datasets import open_retrieval, open_zeroshot

    started, names = time.monotonic(), None
    if args.task == 'zeroshot':
        template_set, templates = choose_templates(args.templates, args.dataset)
        images, names = open_zeroshot(args.dataset, args.data_root, args.classnames, args.split, args.allow_missing)
    else:
        images = open_retrieval(args.dataset, args.data_root, args.split)

    from diffdis_ms import runtime
    from diffdis_ms.evaluate import results, tasks
    from diffdis_ms.evaluate.embedding import Sampling, embed_set
    from diffdis_ms.evaluate.models import open_model
    from diffdis_ms.evaluate.shared import Share, parts_directory

    precision, device = setup(args)
    world = runtime.this_world()
    model, encoder, about = open_model(args.model, args.batch_size, precision)
    samplings = [
        Sampling(steps, weight, args.seed + k)
        for steps in args.steps
        for weight in args.guidance_weight
        for k in range(getattr(args, 'seeds', 1))
    ]
    protocol = {**vars(samplings[0]), 'batch_size': args.batch_size, 'limit': args.limit, **about}
    protocol.update(precision=precision, device=device)
    parts = parts_directory(
        args.out,
        dataset=args.dataset,
        root=str(args.data_root),
        split=args.split,
        count=len(images),
        samplings=[vars(s) for s in samplings],
        allow_missing=args.allow_missing,
        **protocol,
    )
    embedded = embed_set(encoder, images, samplings, args.limit, Share(parts, world), allow_missing=args.allow_missing)
    if args.task == 'zeroshot':
        partial = args.allow_missing or args.limit is not None
        measured, matrix = tasks.zeroshot(model, embedded, names, templates, partial)
        protocol.update(
            template_set=template_set,
            templates=templates,
            num_classes=len(names),
            classnames=args.classnames or "the set's own",
        )
        if world.first:
            results.confusion_picture(matrix).save(f'{args.out}.confusion.png')
    else:
        measured = tasks.retrieval(model, embedded, images)
    result = results.task_result(args.task, args.dataset, images, embedded, measured, protocol)
    results.finish(args.out, result, started, world)
    results.say_missing(result)
    print(
        f'{args.dataset}, {len(embedded.keys)} samples ({len(embedded.skipped)} missing): '
        + ', '.join(f'{name} {100 * value:.2f} %' for name, value in measured['metrics'].items())
    )


def main():
    args = parse_args()
    {'generation': generation, 'report': report}.get(args.task, zeroshot_or_retrieval)(args)


if __name__ == '__main__':
    run(main)

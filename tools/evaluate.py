"""Measure a model: zero-shot classification and image-text retrieval."""
import argparse
import time

from diffdis_ms.cli import run

EXAMPLES = """examples:
  python tools/evaluate.py zeroshot --model outputs/demo/model --dataset emoji --data-root outputs/demo/data --out zeroshot.json
  python tools/evaluate.py zeroshot --model DIR --dataset folder --data-root photos/ --templates photo --out folder.json
      photos/<class name>/<images>
  python tools/evaluate.py retrieval --model DIR --dataset captions --data-root 'flickr/*.tar' --out flickr.json
      any set of pairs: webdataset tars, or a folder with a csv of the columns dir,text
"""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest='task', metavar='TASK', required=True, help='zeroshot or retrieval')
    for name, text, sets in (('zeroshot', 'zero-shot classification: acc1, acc5, mean_per_class_recall', 'emoji, folder or webdataset'),
                             ('retrieval', 'image-text retrieval: R@1, R@5, R@10 both ways', 'emoji or captions')):
        task = tasks.add_parser(name, help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
        task.add_argument('--model', required=True, metavar='DIR', help='model directory')
        task.add_argument('--dataset', required=True, metavar='NAME', help=sets)
        task.add_argument('--data-root', required=True, metavar='DIR', help='where the data set lies')
        task.add_argument('--out', required=True, metavar='FILE.json', help='result file')
        task.add_argument('--steps', type=int, default=8, help='sampling steps of the text query (default: %(default)s)')
        task.add_argument('--guidance-weight', type=float, default=3.0,
                          help='w of classifier-free guidance; guidance_scale elsewhere is 1 + w (default: %(default)s)')
        task.add_argument('--batch-size', type=int, default=32, help='images at once (default: %(default)s)')
        task.add_argument('--limit', type=int, help='only the first so many samples')
        task.add_argument('--seed', type=int, default=0, help='of the noise the text query starts from (default: %(default)s)')
        task.add_argument('--device', choices=['CPU', 'Ascend'], default='CPU')
        if name == 'zeroshot':
            task.add_argument('--templates', default='plain', help='plain, photo, openai, a file or one template with {} (default: %(default)s)')
            task.add_argument('--classnames', help='names, one a line or JSON, instead of the set\'s own')
    return parser.parse_args()


def main():
    args = parse_args()
    from diffdis_ms.data.class_names import read_templates
    from diffdis_ms.evaluate import tasks
    started = time.monotonic()
    if args.task == 'zeroshot':
        templates = read_templates(args.templates)
        images, names = tasks.open_zeroshot(args.dataset, args.data_root, args.classnames)
    else:
        images = tasks.open_retrieval(args.dataset, args.data_root)

    from diffdis_ms import DiffDisPipeline, runtime
    runtime.setup(args.device)
    pipe = DiffDisPipeline.from_pretrained(args.model, args.batch_size)
    embeddings = tasks.ImageEmbeddings(pipe, images, args.steps, args.guidance_weight, args.seed, args.limit)
    settings = {'steps': args.steps, 'guidance_weight': args.guidance_weight, 'seed': args.seed, 'batch_size': args.batch_size}
    if args.task == 'zeroshot':
        metrics = tasks.zeroshot(pipe, embeddings, names, templates)
        settings.update(templates=templates, num_classes=len(names))
    else:
        metrics = tasks.retrieval(pipe, embeddings)
    result = {'task': args.task, 'dataset': args.dataset, 'split': 'held_out' if args.dataset == 'emoji' else 'all',
              'num_samples': len(embeddings.e0), 'num_skipped': len(embeddings.samples.skipped), 'metrics': metrics,
              'protocol': tasks.protocol(pipe, args.model, **settings)}
    tasks.write_result(args.out, result, started)
    print(f'{args.dataset}, {len(embeddings.e0)} samples ({len(embeddings.samples.skipped)} skipped): '
          + ', '.join(f'{name} {100 * value:.2f} %' for name, value in metrics.items()))


if __name__ == '__main__':
    run(main)

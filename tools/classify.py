"""Zero-shot classification: which label fits each image best."""

import argparse
import json
from pathlib import Path

from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run
from diffdis_ms.runtime.options import add_options, setup

EXAMPLES = """examples:
  python tools/classify.py --model outputs/demo/model --labels 'grinning face,red apple,flag of France' picture.png
  python tools/classify.py --model DIR --labels labels.txt --template photo --json *.jpg
      labels.txt has one label per line; --template takes 'photo', 'openai', or a text like 'a sketch of a {}.'
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True, metavar='DIR', help='model directory')
    parser.add_argument('--labels', required=True, help='a,b,c or a file with one label per line')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
    parser.add_argument(
        '--template',
        default='plain',
        help='prompt template: plain, photo, openai, a file, or a text with {} (default: %(default)s)',
    )
    parser.add_argument('--steps', type=int, default=8, help='sampling steps of the text query (default: %(default)s)')
    parser.add_argument(
        '--guidance-weight',
        type=float,
        default=3.0,
        help='w of classifier-free guidance; guidance_scale elsewhere is 1 + w (default: %(default)s)',
    )
    parser.add_argument('--top', type=int, default=5, help='labels printed per image (default: %(default)s)')
    parser.add_argument('--json', action='store_true', help='print all probabilities as JSON instead')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    add_options(parser)
    return parser.parse_args()


def read_images(paths):
    """List of PIL images; ConfigError names the first file that cannot be decoded and counts the others."""
    from diffdis_ms.data.transforms import decode_image
    from diffdis_ms.errors import BadImage

    images, bad = [], []
    for path in paths:
        try:
            images.append(decode_image(Path(path)))
        except BadImage as e:
            bad.append(f'{path}: {e}')
    if bad:
        more = f' (and {len(bad) - 1} more of the {len(paths)} pictures cannot be used)' if len(bad) > 1 else ''
        raise ConfigError(bad[0] + more)
    return images


def main():
    args = parse_args()
    from diffdis_ms.data.benchmarks.class_names import read_labels, read_templates

    labels, templates = read_labels(args.labels), read_templates(args.template)
    images = read_images(args.images)

    precision, _ = setup(args)
    from diffdis_ms import DiffDisPipeline

    pipe = DiffDisPipeline.from_pretrained(args.model, min(32, len(images)), precision)
    probabilities = pipe.classify(images, labels, templates, args.steps, args.guidance_weight, args.seed, args.images)
    if args.json:
        print(
            json.dumps(
                {
                    path: dict(zip(labels, map(float, row), strict=True))
                    for path, row in zip(args.images, probabilities, strict=True)
                },
                indent=1,
            )
        )
        return
    for path, row in zip(args.images, probabilities, strict=True):
        best = sorted(zip(row, labels, strict=True), key=lambda pair: -pair[0])[: args.top]
        print(f'{path}: ' + ', '.join(f'{label} {100 * p:.1f} %' for p, label in best))


if __name__ == '__main__':
    run(main)

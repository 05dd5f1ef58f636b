"""Measure speed and memory beside comparable tools, in the same run."""

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from diffdis_ms.runtime.cli import run
from diffdis_ms.storage.files import whole_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
NAMES = {
    'convert': (
        'convert a 4.3 GB Stable Diffusion checkpoint to a model directory, beside a copy of the file and torch\'s'
        ' load-and-save'
    ),
    'data': 'images per second from tars to pixels and token ids, beside a plain Pillow loop and webdataset',
    'cache': 'time of a training step\'s inputs from a latent cache, beside computing them from images',
    'full_step': (
        'memory and time of a full-size training step on a CPU (it takes 23 GiB), beside the estimate of tools/train.py'
        ' --dry-run'
    ),
    'precision': 'what fp16 and bf16 change in the demo model\'s embeddings, metrics and pictures',
}

EXAMPLES = """examples:
  python tools/bench.py --list
  python tools/bench.py convert --out convert.json
  python tools/bench.py data --repeats 9
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', nargs='?', choices=NAMES, metavar='NAME', help='what to measure: ' + ', '.join(NAMES))
    parser.add_argument('--out', metavar='FILE', help='JSON file for the results')
    parser.add_argument('--list', action='store_true', help='list what can be measured')
    parser.add_argument(
        '--repeats', type=int, default=5, help='runs of each measurement; medians are compared (default: %(default)s)'
    )
    parser.add_argument(
        '--work',
        default='outputs/bench',
        metavar='DIR',
        help='directory for large temporary files, removed at the end (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random weights (default: %(default)s)')
    args = parser.parse_args()
    if args.name is None and not args.list:
        parser.error('NAME is missing; --list shows what can be measured')
    if args.repeats < 1:
        parser.error('--repeats must be at least 1')
    return args


def main():
    args = parse_args()
    if args.list:
        print('\n'.join(f'{name:10} {what}' for name, what in NAMES.items()))
        return
    module = importlib.import_module(f'tools.benchmarks.{args.name}')
    result = {
        'name': args.name,
        'machine': {'cores': os.cpu_count(), 'system': platform.platform(), 'python': platform.python_version()},
        **module.measure(Path(args.work), args.repeats, args.seed),
    }
    for line in module.lines(result):
        print(line)
    if args.out:
        with whole_file(args.out) as f:
            f.write((json.dumps(result, indent=1) + '\n').encode())


if __name__ == '__main__':
    run(main)

"""Train DiffDis, a CLIP or an autoencoder with the settings of one or more YAML files."""

import argparse
import re
import signal
import sys

from diffdis_ms.config import load
from diffdis_ms.runtime.cli import run

EPILOG = """examples:
  python tools/train.py --config ascend_configs/demo_diffdis.yaml output_dir=outputs/mine max_steps=500
  bash tools/launch.sh 8 tools/train.py --config ascend_configs/cc3m_diffdis_8p.yaml
  python tools/train.py --config ascend_configs/cc3m_diffdis_8p.yaml ascend_configs/tiny.yaml max_steps=5

A later file overrides the earlier ones, and key=value overrides all files. The last example is the 8-device run made
small enough for a CPU. The resulting config is written to output_dir/config.yaml.

Writes output_dir/{config.yaml, metrics.jsonl, checkpoints/step_N/, model/}. A run with the same output_dir continues
from the newest checkpoint (resume=none starts from scratch). On SIGTERM it saves a checkpoint and exits with code 143.
"""


class Stack(argparse.Action):
    """Sort arguments into files and overrides. Arguments after --config are files or key=value; all others are
    key=value. Both lists keep their order."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values or ():
            is_file = option_string and not re.match(r'[\w.]+=', value)
            (namespace.files if is_file else namespace.overrides).append(value)


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--config',
        dest='files',
        nargs='+',
        action=Stack,
        required=True,
        metavar='FILE',
        help='YAML files, for example those in ascend_configs/',
    )
    parser.add_argument('--device', choices=['CPU', 'Ascend'], help='the same as device=...')
    parser.add_argument('--seed', type=int, help='the same as seed=...')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help=(
            'build everything, show parameters, memory and the first batch, and stop; with '
            'runtime.compile_cache=true also compile the step'
        ),
    )
    parser.add_argument(
        'overrides',
        nargs='*',
        action=Stack,
        metavar='key=value',
        help='any config field, for example train.batch_size=64',
    )
    args = parser.parse_args(arguments, argparse.Namespace(files=[], overrides=[]))
    if not args.files:
        parser.error('--config: a YAML file is missing')
    return args


def main():
    args = parse_args()
    extra = [f'{key}={value}' for key, value in (('device', args.device), ('seed', args.seed)) if value is not None]
    config = load(args.files, args.overrides + extra)

    from diffdis_ms import runtime  # only once the config is checked: importing MindSpore takes seconds

    runtime.setup(config.device, config.runtime, config.train.precision)
    from diffdis_ms.train.job import assemble
    from diffdis_ms.train.loop import Terminated, train

    if args.dry_run:
        from diffdis_ms.train.dry_run import describe

        describe(assemble(config))
        return 0
    try:
        print(f'model: {train(config, draw=draw if config.objective == "diffdis" else None)}')
    except Terminated as e:
        print(e, file=sys.stderr)
        return 128 + signal.SIGTERM
    return 0


def draw(learner, captions):
    """Generate images of captions with the current weights, for the log: 20 steps, w = 3."""
    from diffdis_ms.pipeline import DiffDisPipeline

    networks = [learner.network(stem) for stem in ('unet', 'vae', 'text_encoder')]
    pipe = DiffDisPipeline(learner.features.config.model, *networks, learner.tokenizer, batch_size=len(captions))
    return pipe.generate(captions, steps=20, guidance_weight=3.0)


if __name__ == '__main__':
    run(main)

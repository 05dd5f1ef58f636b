"""Train DiffDis with the trainer of MindSpore Transformers (MindFormers), from a YAML file in its schema."""

import argparse
import os
from pathlib import Path

import yaml

from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run

EPILOG = """examples:
  bash tools/launch.sh 8 tools/mindformers_train.py --config ascend_configs/mindformers_diffdis.yaml --use_parallel True
  python tools/mindformers_train.py --config ascend_configs/mindformers_tiny.yaml --resume_training True \\
      --load_checkpoint DIR/checkpoint
  python tools/mindformers_train.py --config ascend_configs/mindformers_tiny.yaml optimizer.weight_decay=0.01

This command does what run_mindformer.py in MindFormers' repository does; MindFormers' wheel does not contain that
script. You can also use the script itself:
  bash scripts/msrun_launcher.sh "run_mindformer.py --config FILE --register_path DIR/diffdis_ms/formers \\
      --use_parallel True" 8
"""


def true_or_false(text):
    if text.lower() not in ('true', 'false'):
        raise argparse.ArgumentTypeError(f'{text!r} is neither True nor False')
    return text.lower() == 'true'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', required=True, help="YAML file in MindFormers' schema")
    parser.add_argument('--device', choices=['CPU', 'Ascend'], help='the same as context.device_target=...')
    parser.add_argument('--seed', type=int, help='the same as seed=...')
    parser.add_argument('--use_parallel', type=true_or_false, help='True under msrun (tools/launch.sh)')
    parser.add_argument('--output_dir', help='directory for checkpoints and the model directory')
    parser.add_argument('--load_checkpoint', help='checkpoint file, or the directory `checkpoint` of a run')
    parser.add_argument(
        '--resume_training',
        metavar='True|FILE',
        type=lambda text: true_or_false(text) if text.lower() in ('true', 'false') else text,
        help='continue from load_checkpoint (moments, step, data position): True for the newest, or a name',
    )
    parser.add_argument('overrides', nargs='*', metavar='section.key=value', help="any key of MindFormers' schema")
    args = parser.parse_args()
    if not Path(args.config).is_file() or Path(args.config).suffix not in ('.yaml', '.yml'):
        raise ConfigError(f'--config: {args.config} does not exist, or is not a YAML file')
    changes = {
        name: getattr(args, name)
        for name in ('seed', 'use_parallel', 'output_dir', 'load_checkpoint', 'resume_training')
    }
    changes['context.device_target'] = args.device
    changes = {key: value for key, value in changes.items() if value is not None}
    for item in args.overrides:
        key, equals, value = item.partition('=')
        if not equals:
            raise ConfigError(f'override {item!r} is not of the form section.key=value')
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as e:
            raise ConfigError(f'override {item!r} cannot be read: {str(e).splitlines()[0]}') from None

    os.environ.setdefault('REGISTER_PATH', str(Path(__file__).resolve().parent.parent / 'diffdis_ms/formers'))
    # for copies of register.py; the default is ./modules
    os.environ.setdefault('OM_MODULES_CACHE', str(Path.home() / '.cache/diffdis_ms/modules'))
    from mindformers import Trainer, build_context  # only once the arguments are checked: it takes seconds
    from mindformers.tools.register.config import MindFormerConfig
    from mindformers.utils.file_utils import set_output_path

    config = MindFormerConfig(args.config)
    config.merge_from_dict(changes)
    set_output_path(config.output_dir)
    build_context(config)
    Trainer(config).train()


if __name__ == '__main__':
    run(main)

"""Train DiffDis, a CLIP or an autoencoder from one YAML file."""
import argparse

from diffdis_ms.cli import run
from diffdis_ms.config import load


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Example:\n  python tools/train.py --config ascend_configs/demo_diffdis.yaml output_dir=outputs/mine max_steps=500\n\n'
               'Writes output_dir/{config.yaml, metrics.jsonl, checkpoints/step_N/, model/}. Started again with the same output_dir '
               'it\ncontinues from the newest checkpoint (resume=none starts anew).')
    parser.add_argument('--config', required=True, help='YAML file, see ascend_configs/')
    parser.add_argument('--device', choices=['CPU', 'Ascend'], help='the same as device=...')
    parser.add_argument('--seed', type=int, help='the same as seed=...')
    parser.add_argument('overrides', nargs='*', metavar='key=value', help='any config field, for example train.batch_size=64')
    args = parser.parse_args()
    extra = [f'{key}={value}' for key, value in (('device', args.device), ('seed', args.seed)) if value is not None]
    config = load(args.config, args.overrides + extra)

    from diffdis_ms import runtime               # after the config is known to be good: MindSpore takes seconds to import
    runtime.setup(config.device, config.runtime)
    from diffdis_ms.train.loop import train
    print(f'model: {train(config)}')


if __name__ == '__main__':
    run(main)

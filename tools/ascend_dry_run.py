"""Let MindSpore's own Ascend backend compile and plan graphs, or a training run, without an NPU and without CANN.

For each graph: accepted or refused, the kind of kernel chosen for every operator, collectives, the device memory that
MindSpore plans, and the seconds it took. What CANN does is not seen: whether it has the kernels, and how fast they are.
Needs an x86-64 machine with MindSpore's plugin for Ascend (it is in the wheel), and g++.
"""

import argparse
import json
from collections import Counter
from importlib.metadata import version

from diffdis_ms.ascend.coverage import find_graphs
from diffdis_ms.ascend.evidence import disagreements, read_table
from diffdis_ms.ascend.simulation import CHIPS, is_config, simulate, toolkit
from diffdis_ms.config import load
from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run
from diffdis_ms.storage.files import whole_file

GRAPHS = 'diffdis_ms.ascend.graphs'
KINDS = {  # of kernels, as MindSpore calls them
    'aclnn': 'compiled in CANN',
    'acl': 'compiled online, for each shape',
    'rt': 'copies and views',
    'hccl': 'between devices',
}
EXAMPLES = f"""examples:
  python tools/ascend_dry_run.py training mixed_precision
      graphs of {GRAPHS}; MODULE:FUNCTION names others. Every function yields (title, cell, inputs).
  python tools/ascend_dry_run.py ascend_configs/cc3m_diffdis_8p_bf16.yaml --ranks 8 --json plan.json
      two steps of tools/train.py as process 0 of 8, with random weights, made-up pictures and tokenizer. At full size
      this takes 10 to 20 minutes and 12 GB of memory.
  python tools/ascend_dry_run.py ascend_configs/cc3m_diffdis_8p.yaml --ranks 8 --chip ascend910 \\
      --set train.batch_size=8 train.accumulation_steps=4

kinds of kernels: {', '.join(f'{kind} ({what})' for kind, what in KINDS.items())}
The exit code is 1 if a graph is refused.
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'targets', nargs='+', metavar='GRAPHS|CONFIG', help=f'functions of {GRAPHS}, MODULE:FUNCTION, or YAML files'
    )
    parser.add_argument(
        '--chip',
        choices=CHIPS,
        default='ascend910b',
        help='910; 910B (Atlas A2); 910C (Atlas A3) (default: %(default)s)',
    )
    parser.add_argument('--ranks', type=int, default=1, metavar='N', help='as process 0 of N (default: 1)')
    parser.add_argument(
        '--set', dest='settings', nargs='+', default=[], metavar='KEY=VALUE', help='config fields, for CONFIG'
    )
    parser.add_argument('--json', metavar='FILE', help='also write all results, with the types of every kernel')
    parser.add_argument('--seed', type=int, help='has no effect: numbers are not computed')
    args = parser.parse_args()
    if args.ranks < 1:
        parser.error('--ranks must be at least 1')
    return args


def main():
    args = parse_args()
    for target in args.targets:
        if is_config(target):
            load([target], [*args.settings, 'device=Ascend'])  # mistakes show before anything is compiled
        elif args.settings:
            raise ConfigError(f'--set: {target} is no config, which alone has settings')
        else:
            find_graphs(full_name(target))
    results, table = [], read_table(version('mindspore'))
    with toolkit() as home:
        for target in args.targets:
            for result in simulate(home, full_name(target), args.chip, args.ranks, args.settings):
                results.append(result)
                print('\n'.join(lines(result, table)), flush=True)
    if args.json:
        made = {'chip': args.chip, 'ranks': args.ranks, 'settings': args.settings, 'results': results}
        with whole_file(args.json) as file:
            file.write(json.dumps(made, indent=1).encode() + b'\n')
    refused = sum(result['error'] is not None for result in results)
    print(f'\n{len(results)} graphs or runs, {refused} refused')
    return int(refused > 0)


def full_name(target):
    return target if is_config(target) or ':' in target else f'{GRAPHS}:{target}'


def lines(result, table):
    """Lines of text for a result of `simulate`, with what `evidence.read_table` says otherwise."""
    if result['error'] is not None:
        yield f'\n{result["title"]}: REFUSED ({result["seconds"]} s)'
        yield from (f'  {line}' for line in result['error'].splitlines()[:12])
        return
    yield f'\n{result["title"]}: accepted ({result["seconds"]} s), {_size(result["memory"])} on the device'
    named = {}
    for name, kind, _, _, count in result['kernels']:
        named.setdefault(kind, Counter())[name] += count
    for kind, operators in sorted(named.items()):
        shown = ', '.join(f'{name} {count}' for name, count in operators.most_common())
        yield f'  {kind} {sum(operators.values())}: {shown}'
    for name, kind, other in disagreements(result['kernels'], table):
        yield f'  {name}: {kind} here, {other} according to the table of registrations (ascend/evidence.py)'
    if result['collectives']:
        size = sum(row[1] for row in result['collectives'])
        yield f'  {len(result["collectives"])} collectives, {_size(size)}'


def _size(count):
    return f'{count / 2**30:.2f} GiB' if count >= 2**30 else f'{count / 2**20:.2f} MiB'


if __name__ == '__main__':
    run(main)

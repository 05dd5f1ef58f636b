"""Operator coverage: check that Ascend has an implementation for every primitive of a graph. No graph is executed, and
neither CANN nor an NPU is needed.

    python -m diffdis_ms.ascend.coverage MODULE:FUNCTION [--json]

FUNCTION() yields (title, cell, example inputs); diffdis_ms.ascend.graphs has those of this project. The exit code is 1
if no implementation is known for a primitive. Check primitives with "none" by hand: there are false alarms among scalar
and composite operators. The check does not see what a release of CANN really contains.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections import defaultdict

from diffdis_ms.ascend.evidence import evidence, read_table
from diffdis_ms.errors import ConfigError

# fmt: off
TYPES = {  # of MindIR
    1: 'fp32', 2: 'u8', 3: 'i8', 5: 'i16', 6: 'i32', 7: 'i64', 9: 'bool', 10: 'fp16', 11: 'fp64', 16: 'bf16',
}
# fmt: on


def primitives(cell, *inputs):
    """{primitive: [count, output types]} of a cell's front-end graph, including gradients and optimizer."""
    from mindspore.common.api import _cell_graph_executor
    from mindspore.train.mind_ir_pb2 import ModelProto

    cell.compile(*inputs)
    model = ModelProto()
    model.ParseFromString(
        _cell_graph_executor._graph_executor.get_func_graph_proto(cell.current_phase, 'mind_ir', False)
    )
    found = defaultdict(lambda: [0, set()])
    for graph in [model.graph, *model.functions]:
        made = {}
        for node in graph.node:
            name = node.op_type
            if name.startswith('REF::'):
                name = name.split('::')[1].rsplit(':', 1)[0]
            if ':' in name:  # a sub-graph of the control flow
                name = 'call'
            made[node.output[0]] = name
            found[name][0] += 1
            types = {
                TYPES.get(tensor.data_type, str(tensor.data_type))
                for attribute in node.attribute
                for tensor in attribute.tensors
            }
            found[name][1] |= types
            if name == 'TupleGetItem' and node.input[0] in made:  # several outputs have their types where they are read
                found[made[node.input[0]]][1] |= types
    return found


def check(graphs, table):
    """Yield one dict per graph: title, seconds, primitives [(name, count, types, kind, why)], missing [names]."""
    for title, cell, inputs in graphs:
        started = time.monotonic()
        rows = []
        for name, (count, types) in primitives(cell, *inputs).items():
            if name != 'Constant':
                rows.append((name, count, sorted(types), *evidence(name, types, table)))
        rows.sort(key=lambda row: (row[3], -row[1]))
        yield {
            'title': title,
            'seconds': round(time.monotonic() - started, 1),
            'primitives': rows,
            'missing': [row[0] for row in rows if row[3] == 'none'],
        }


def pretend_ascend():
    """Make MindSpore's Python code see Ascend as device target, so that it builds Ascend's graphs."""
    from mindspore import context

    real = context.get_context

    def get_context(key):
        return 'Ascend' if key == 'device_target' else real(key)

    for module in list(sys.modules.values()):
        if getattr(module, '__name__', '').startswith('mindspore') and getattr(module, 'get_context', None) is real:
            module.get_context = get_context


def find_graphs(name):
    """Get the function MODULE:FUNCTION; ConfigError if it does not exist."""
    module, _, function = name.partition(':')
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as e:
        if not module.startswith(e.name):
            raise
        raise ConfigError(f'{name}: there is no module {e.name}') from None
    except (ValueError, AttributeError):
        raise ConfigError(f'{name} does not name a function, as diffdis_ms.ascend.graphs:models does') from None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('graphs', metavar='MODULE:FUNCTION', help='for example diffdis_ms.ascend.graphs:models')
    parser.add_argument(
        '--json', action='store_true', help='print one JSON object per line: the table, then each graph'
    )
    args = parser.parse_args()
    os.environ['MS_DEV_PRECOMPILE_ONLY'] = '1'  # the front end only; read when MindSpore starts
    graphs = find_graphs(args.graphs)
    import mindspore as ms

    from diffdis_ms import runtime

    table = read_table(ms.__version__)
    counts = {key: len(table[key]) for key in ('aclnn', 'acl', 'aicpu')}
    if args.json:
        print(json.dumps({'mindspore': ms.__version__, **counts}), flush=True)
    else:
        kernels = '{aclnn} aclnn kernels, {acl} adapters, {aicpu} AI CPU kernels'.format(**counts)
        print(f'mindspore {ms.__version__}: {kernels} (read from its {table["wheel"]["platform"]} wheel)', flush=True)
    runtime.setup('CPU')
    pretend_ascend()
    missing = False
    for result in check(graphs(), table):
        missing |= bool(result['missing'])
        if args.json:
            print(json.dumps(result), flush=True)
            continue
        print(f'\n{result["title"]}: {len(result["primitives"])} primitives ({result["seconds"]} s)')
        for name, count, types, kind, why in result['primitives']:
            print(f'  {kind:10}{count:6}  {name:28}{",".join(types):20}{why}')
        print(f'  missing: {", ".join(result["missing"]) or "none"}', flush=True)
    return int(missing)


if __name__ == '__main__':
    from diffdis_ms.runtime.cli import run

    run(main)

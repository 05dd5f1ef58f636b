"""Operator coverage: does Ascend have an implementation for every primitive of a graph? Nothing is executed; no CANN,
no NPU needed.

    python -m diffdis_ms.ascend.coverage MODULE:FUNCTION [--json]

FUNCTION() yields (title, cell, example inputs). Ends with 1 where a primitive has no implementation that can be seen.
"none" means look
by hand: among scalar and composite operators there are false alarms, and what a release of CANN really has is not seen.
"""

import argparse
import importlib
import json
import os
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

FRAMEWORK = {
    'Load',
    'UpdateState',
    'Depend',
    'MakeTuple',
    'TupleGetItem',
    'Return',
    'Constant',
    'Parameter',
    'Switch',
    'Partial',
    'ListGetItem',
    'MakeList',
    'StopGradient',
    'ScalarToTensor',
    'TensorMove',
    'call',
    'Call',
    'getattr',
    'resolve',
    'Virtual',
    'VirtualAssignAdd',
}
HOST = re.compile(r'(Scalar|Sequence|Tuple|List|TensorTo(Scalar|Tuple|List)|Shape$|TensorShape$|Rank$|DType$)')
VIEWS = {'Reshape', 'ReshapeExt', 'ExpandDims', 'Squeeze', 'Flatten'}
TYPES = {
    1: 'fp32',
    2: 'u8',
    3: 'i8',
    5: 'i16',
    6: 'i32',
    7: 'i64',
    9: 'bool',
    10: 'fp16',
    11: 'fp64',
    16: 'bf16',
}  # of MindIR


def primitives(cell, *inputs):
    """{primitive: [count, output types]} of a cell's front-end graph, gradients and optimizer included."""
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


def evidence(name, types, registry, definitions):
    """(kind, why) of one primitive; kind is 'none' where Ascend has nothing, or not for these types."""
    from diffdis_ms.ascend.registry import COMMUNICATION

    dispatched, view = definitions.get(name)
    if name in FRAMEWORK:
        return 'framework', 'the graph itself'
    if name in COMMUNICATION:
        return 'hccl', 'communication'
    if name in registry.aclnn and (dispatched or name == 'AllFinite'):
        return 'aclnn', 'aclnn kernel'
    if name in VIEWS or view:
        return 'view', 'no kernel needed'
    if name in registry.acl:
        allowed = registry.types.get(registry.acl[name])
        refused = sorted(t for t in types if allowed and t not in allowed)
        return (
            ('none', f'{registry.acl[name]} does not take {", ".join(refused)}')
            if refused
            else ('acl', f'GE operator {registry.acl[name]}')
        )
    if name in registry.aicpu:
        return 'aicpu', 'kernel on the AI CPU'
    if name in registry.aclnn:
        return 'none', 'an aclnn kernel, but MindSpore does not dispatch to it'
    if HOST.match(name):
        return 'host', 'scalars and shapes, on every device'
    if name in registry.rewritten:
        return 'rewritten', f'backend pass {registry.rewritten[name]}'
    return 'none', 'nothing found'


def check(graphs, registry, definitions):
    """Yield one dict a graph: title, seconds, primitives [(name, count, types, kind, why)], missing [names]."""
    for title, cell, inputs in graphs:
        started = time.monotonic()
        rows = []
        for name, (count, types) in primitives(cell, *inputs).items():
            if name != 'Constant':
                rows.append((name, count, sorted(types), *evidence(name, types, registry, definitions)))
        rows.sort(key=lambda row: (row[3], -row[1]))
        yield {
            'title': title,
            'seconds': round(time.monotonic() - started, 1),
            'primitives': rows,
            'missing': [row[0] for row in rows if row[3] == 'none'],
        }


def pretend_ascend():
    """Python code of MindSpore that asks for the device target hears Ascend, and so builds Ascend's graphs."""
    from mindspore import context

    real = context.get_context

    def get_context(key):
        return 'Ascend' if key == 'device_target' else real(key)

    for module in list(sys.modules.values()):
        if getattr(module, '__name__', '').startswith('mindspore') and getattr(module, 'get_context', None) is real:
            module.get_context = get_context


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('graphs', metavar='MODULE:FUNCTION', help='for example tests.ascend.graphs:models')
    parser.add_argument('--json', action='store_true', help='one JSON object a line: the registry, then each graph')
    args = parser.parse_args()
    os.environ['MS_DEV_PRECOMPILE_ONLY'] = '1'  # the front end only; read when MindSpore starts
    import mindspore as ms

    from diffdis_ms import runtime
    from diffdis_ms.ascend.registry import Definitions, read_registry

    module, _, function = args.graphs.partition(':')
    graphs = getattr(importlib.import_module(module), function)
    root = Path(ms.__file__).parent
    registry, definitions = read_registry(root), Definitions(root)
    head = {
        'mindspore': ms.__version__,
        'aclnn': len(registry.aclnn),
        'acl': len(registry.acl),
        'aicpu': len(registry.aicpu),
    }
    print(
        (
            json.dumps(head)
            if args.json
            else (
                f'mindspore {head["mindspore"]}: {head["aclnn"]} aclnn kernels, {head["acl"]} adapters, '
                f'{head["aicpu"]} AI CPU kernels'
            )
        ),
        flush=True,
    )
    runtime.setup('CPU')
    pretend_ascend()
    missing = False
    for result in check(graphs(), registry, definitions):
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

"""Read what MindSpore's Ascend backend decided, from its log and the graphs it saves (`graph_build_*.ir`)."""

import math
import re
from collections import Counter

SILENT = {'Load', 'UpdateState', 'MakeTuple', 'Depend', 'Return', 'TupleGetItem'}  # nodes without a kernel
COLLECTIVES = {'AllReduce', 'AllGather', 'ReduceScatter', 'Broadcast'}
_BYTES = {'Float64': 8, 'Int64': 8, 'Float32': 4, 'Int32': 4, 'Float16': 2, 'BFloat16': 2}  # others: 1
_NODE = re.compile(r'^  (?:%\d+\(.*?\) = )?(\w+)\((.*)\n((?:      .*\n)*)', re.MULTILINE)
_CHOSEN = re.compile(r'kernel opname:(\S+), kernel type:(\w+)_kernel')
_TENSOR = re.compile(r'<(\w+?)x(\w+?)\[const vector\]\{([\d, ]*)\}')
_WORDS = {'opapi': 'aclnn'}  # of MindSpore's log -> CANN's


def kernels(graph, log):
    """Kernels of a graph.

    Args:
        graph: text of the saved graph. log: what MindSpore logged while it compiled it (GLOG_v=1).

    Returns:
        sorted list of [operator, kind of kernel, input types, output types, count]. The kind is 'aclnn', 'acl'
        (compiled online for each shape), 'rt' (copies and views), 'hccl', 'host', 'cpu', or '?' where MindSpore said
        nothing.
    """
    kinds, rows = dict(_CHOSEN.findall(log)), Counter()
    for name, attributes, *sides in _nodes(graph):
        kind = kinds.get(name, 'cpu' if 'primitive_target: "CPU"' in attributes else '?')
        taken, given = (','.join(_typed(dtype, layout) for dtype, layout, shape in side if shape) for side in sides)
        rows[name, _WORDS.get(kind, kind), taken, given] += 1
    return [[*row, count] for row, count in sorted(rows.items())]


def collectives(graph):
    """[operator, bytes] of each collective, in the graph's order. The bytes are those of its larger side."""
    return [
        [name, max(sum(_BYTES.get(dtype, 1) * _elements(shape) for dtype, _, shape in side) for side in sides)]
        for name, _, *sides in _nodes(graph)
        if name in COLLECTIVES
    ]


def _nodes(graph):
    """Yield (operator, its attributes, tensors it takes, tensors it gives) of the nodes that have a kernel. A tensor is
    (type, layout, shape)."""
    for name, attributes, rest in _NODE.findall(graph):
        name = name.replace('PrimFunc_', '')
        described = next((line for line in rest.split('\n') if re.search(r'<\w+x\w+\[const vector\]', line)), None)
        if name not in SILENT and described is not None:
            taken, _, given = described.partition(' -> ')
            yield name, attributes, _TENSOR.findall(taken), _TENSOR.findall(given)


def _elements(shape):
    return math.prod(int(n) for n in shape.split(',') if n)


def _typed(dtype, layout):
    return dtype if layout == 'DefaultFormat' else f'{dtype}:{layout}'

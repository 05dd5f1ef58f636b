"""Known implementations of Ascend's operators: the table of a MindSpore version, and its entry for a primitive."""

import re
from pathlib import Path

from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import read_json

# fmt: off
FRAMEWORK = {  # primitives of the graph itself
    'Load', 'UpdateState', 'Depend', 'MakeTuple', 'TupleGetItem', 'MakeList', 'ListGetItem', 'Return', 'Constant',
    'Parameter', 'Switch', 'Partial', 'StopGradient', 'ScalarToTensor', 'call', 'Call', 'getattr',
    'resolve', 'Virtual', 'VirtualAssignAdd',
}
COMMUNICATION = {
    'AllReduce', 'AllGather', 'ReduceScatter', 'Broadcast', 'AlltoAll', 'AllToAllv', 'Send', 'Receive', 'Barrier',
    'Reduce', 'CollectiveScatter', 'CollectiveGather',
}
# fmt: on
HOST = re.compile(r'(Scalar|Sequence|Tuple|List|TensorTo(Scalar|Tuple|List)|Shape$|TensorShape$|Rank$|DType$)')
VIEWS = {'Reshape', 'ReshapeExt', 'ExpandDims', 'Squeeze', 'Flatten'}  # in addition to those in the table
COPIES = {'Split', 'Slice'}  # views in the table, but graphs run them by kernels (tools/ascend_dry_run.py)
_SHORT = {
    'Float16': 'fp16', 'BFloat16': 'bf16', 'Float32': 'fp32', 'Float64': 'fp64', 'Int32': 'i32', 'Int64': 'i64',
    'Bool': 'bool', 'UInt8': 'u8', 'Int8': 'i8',
}  # fmt: skip


def read_table(version):
    """Read the table of a MindSpore version: its origin (`wheel`), and `aclnn`, `acl`, `types`, `aicpu`, `rewritten`
    and `views`, which tools/ascend/registrations.py describes.

    Raises:
        ConfigError: there is no table for this version.
    """
    paths = Path(__file__).parent.glob('mindspore_*.json')
    tables = {path.stem.removeprefix('mindspore_').replace('_', '.'): path for path in paths}
    if version not in tables:
        raise ConfigError(
            f'the Ascend operators of MindSpore {", ".join(sorted(tables))} are known, not those of {version};'
            ' tools/ascend_table.py reads them, on an x86-64 machine that has this version'
        )
    return read_json(tables[version])


def evidence(name, types, table):
    """(kind, why) of a primitive; kind is 'none' if Ascend has no implementation, or none for these types."""
    if name in FRAMEWORK:
        return 'framework', 'the graph itself'
    if name in COMMUNICATION:
        return 'hccl', 'communication'
    if table['aclnn'].get(name):
        return 'aclnn', 'aclnn kernel'
    if name in VIEWS or name in table['views'] and name not in COPIES:
        return 'view', 'no kernel needed'
    if name in table['acl']:
        operator = table['acl'][name]
        allowed = table['types'].get(operator, '').split()
        refused = sorted(types - set(allowed)) if allowed else []
        if refused:
            return 'none', f'{operator} does not take {", ".join(refused)}'
        return 'acl', f'GE operator {operator}'
    if name in table['aicpu']:
        return 'aicpu', 'kernel on the AI CPU'
    if name in table['aclnn']:
        return 'none', 'an aclnn kernel, but MindSpore does not dispatch to it'
    if HOST.match(name):
        return 'host', 'scalars and shapes, on every device'
    if name in table['rewritten']:
        return 'rewritten', f'backend pass {table["rewritten"][name]}'
    return 'none', 'nothing found'


def disagreements(kernels, table):
    """Operators of which the dry run says one thing and the table another.

    Args:
        kernels: rows of `kernels.kernels`. table: `read_table`.

    Returns:
        sorted list of (operator, kind in the dry run, kind in the table).
    """
    found = set()
    for name, kind, taken, given, _ in kernels:
        types = {_SHORT.get(word.partition(':')[0], word) for word in f'{taken},{given}'.split(',') if word}
        other = evidence(name, types, table)[0]
        if kind != other and not (kind == 'rt' and other in ('view', 'framework')):
            found.add((name, kind, other))
    return sorted(found)

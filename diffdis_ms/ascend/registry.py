"""What the installed MindSpore registers for Ascend, read from its own libraries (x86-64 wheel of 2.7.2).

Every registration is a static initialiser that loads the operator's name and calls an insert. No library is opened but
MindSpore's core, nothing runs on a device. What a release of CANN then really has, and what the backend rewrites, is
not seen.
"""

import ctypes
import re
import struct
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from diffdis_ms.ascend.elf import LOAD_ANY, Elf
from diffdis_ms.text_files import read_json

COMMUNICATION = {
    'AllReduce',
    'AllGather',
    'ReduceScatter',
    'Broadcast',
    'AlltoAll',
    'AllToAllv',
    'Send',
    'Receive',
    'Barrier',
    'Reduce',
    'CollectiveScatter',
    'CollectiveGather',
}
TYPES = {
    'DT_FLOAT': 'fp32',
    'DT_FLOAT32': 'fp32',
    'DT_FLOAT16': 'fp16',
    'DT_BF16': 'bf16',
    'DT_BFLOAT16': 'bf16',
    'DT_DOUBLE': 'fp64',
    'DT_BOOL': 'bool',
    'DT_INT8': 'i8',
    'DT_INT16': 'i16',
    'DT_INT32': 'i32',
    'DT_INT64': 'i64',
    'DT_UINT8': 'u8',
}
_NUMBERS = 'fp16 bf16 fp32 fp64 i8 i16 i32 i64 u8'
GROUPS = {
    'Number': _NUMBERS,
    'RealNumber': _NUMBERS,
    'Basic': _NUMBERS,
    'ALL': f'bool {_NUMBERS}',
    'Unary': 'fp16 bf16 fp32 fp64',
    'Floating': 'fp16 fp32 fp64',
    'IndexNumber': 'i32 i64',
    'Integer': 'i8 i16 i32 i64 u8',
}


@dataclass
class Registry:
    """aclnn, aicpu: operators with such a kernel. acl: {operator: its GE type}. types: {GE type: types its inputs and
    outputs take}.
    rewritten: {operator: pass of the Ascend backend named after it}."""

    aclnn: set[str]
    acl: dict[str, str]
    aicpu: set[str]
    types: dict[str, set[str]]
    rewritten: dict[str, str]


def read_registry(mindspore):
    """The `Registry` of the MindSpore package in this directory.

    Raises:
        ConfigError: its libraries are not for x86-64. OSError: the Ascend plugin is not there.
    """
    lib = Path(mindspore) / 'lib'
    operators = Elf(lib / 'plugin/libmindspore_ops_ascend.so')
    register = _register_function(operators, {'MatMulExt', 'SiLU', 'FlashAttentionScore', 'InplaceCopy', 'Softmax'})
    aclnn = {names[-1] for i, _ in operators.calls({register}) if (names := operators.names_loaded(i - 90, i))}
    manager = Elf(lib / 'plugin/ascend/libmindspore_ascend_res_manager.so')
    aicpu = read_json(lib / 'plugin/ascend/custom_aicpu_ops/op_impl/cpu/config/cust_aicpu_kernel.json')
    backend = b''.join(
        (lib / name).read_bytes() for name in ('plugin/libmindspore_ascend.so.2', 'libmindspore_backend_common.so')
    )
    passes = {
        match.decode() for match in re.findall(rb'N9mindspore3opt\d+([A-Za-z0-9]+?(?:Unify)?Mind[Ii][Rr])E', backend)
    }
    return Registry(
        aclnn,
        _adapters(manager, lib),
        set(aicpu) - {'All'},
        _prototypes(manager),
        {re.sub(r'(Unify)?Mind[Ii][Rr]$', '', name): name for name in passes},
    )


def _register_function(elf, known):
    """The address that is called right after the names of all `known` operators: of several, the one called for most
    names."""
    called = defaultdict(set)
    for i, text in elf.loads(rb'\x48\x8d\x35'):
        if re.fullmatch(r'[A-Z]\w+', text):
            for number, (_, address) in enumerate(elf.calls(None, i + 7, i + 90)):
                called[address].add(text)
                if number == 1:
                    break
    common = {'IndexError', 'KernelMode'}  # names that a logger is called with, too
    return max((a for a in called if known <= called[a]), key=lambda a: (-len(called[a] & common), len(called[a])))


def _adapters(elf, lib):
    """OpAdapterMap::get()[name] = description; the GE type is the literal before it."""
    getter = next(name for name in elf.names if name.endswith('OpAdapterMap3getEv'))
    targets = {a for a in (elf.stubs.get(getter), elf.symbols.get(getter)) if a}
    libraries = [ctypes.CDLL(str(lib / f'libmindspore_{name}.so')) for name in ('core', 'ops')]
    found = {}
    for i, _ in elf.calls(targets):
        after = elf.names_loaded(i + 5, i + 40)
        name = after[0] if after else _primitive_name(elf.symbol_read(i + 5, i + 20), libraries)
        if name:
            before = elf.names_loaded(i - 0x700, i)
            found[name] = before[-1] if before else name
    return found


def _primitive_name(symbol, libraries):
    """The name of the operator object behind a kPrim... symbol, read from the object itself where it is alive."""
    match = re.match(r'_ZN9mindspore4prim\d+kPrim(\w+)E$', symbol or '')
    if not match:
        return None
    for library in libraries:
        try:
            value = ctypes.c_void_p.in_dll(library, symbol).value
        except ValueError:
            continue
        if value:
            return ctypes.string_at(ctypes.c_void_p.from_address(value + 0x30).value).decode()
    return match[1]


def _prototypes(elf):
    """{GE type: types of its inputs and outputs}: the prototypes stand in the code as text, (type, name) after (type,
    name)."""
    texts = [text for _, text in elf.loads(LOAD_ANY) if re.match(r'[A-Za-z_"{]', text) and len(text) < 900]
    found = {}
    for k in range(len(texts) - 2):
        if not _is_type(texts[k]) and _is_type(texts[k + 1]) and re.fullmatch(r'[A-Z]\w+', texts[k]):
            taken, j = set(), k + 1
            while j + 1 < len(texts) and _is_type(texts[j]) and not _is_type(texts[j + 1]):
                taken |= {TYPES[word] for word in re.findall(r'DT_\w+', texts[j]) if word in TYPES}
                for group in re.findall(r'(\w+?)(?:DataType|Type)\(\)|\b(ALL)\(\)', texts[j]):
                    taken |= set(GROUPS.get(group[0] or group[1], '').split())
                j += 2
            found.setdefault(texts[k], taken)
    return found


def _is_type(text):
    return text.startswith(('TensorType', '"', 'ge::TensorType', '{DT_')) or text == 'ListInt'


class Definitions:
    """MindSpore's own definitions of its operators: does an operator go to its aclnn kernel, is it a view?"""

    def __init__(self, mindspore):
        core = ctypes.CDLL(str(Path(mindspore) / 'lib' / 'libmindspore_core.so'))
        self.find = core._ZN9mindspore3ops8GetOpDefERKSs  # const OpDef *GetOpDef(const std::string &)
        self.find.restype, self.find.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def get(self, name):
        """(dispatched, view), both False for what is not defined."""
        text = (
            struct.pack('<QQq', len(name), len(name), 1 << 20) + name.encode() + b'\0'
        )  # a string of the ABI before C++11
        buffer = ctypes.create_string_buffer(text, len(text))
        string = ctypes.c_void_p(ctypes.addressof(buffer) + 24)
        pointer = self.find(ctypes.addressof(string))
        if not pointer:
            return False, False
        flags = ctypes.string_at(pointer + 144, 4)
        return bool(flags[0]), bool(flags[1])

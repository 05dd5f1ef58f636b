"""Read MindSpore's registrations for Ascend from its own libraries (x86-64, checked with 2.7.2).

Every registration is a static initialiser that loads the operator's name and calls an insert function. Two core
libraries are loaded for the definitions of operators. Nothing runs on a device.
"""

import ctypes
import re
import struct
from collections import defaultdict

from diffdis_ms.text_files import read_json
from tools.ascend.elf import LOAD_ANY, LOAD_RSI, Library

OPERATORS = 'plugin/libmindspore_ops_ascend.so'
MANAGER = 'plugin/ascend/libmindspore_ascend_res_manager.so'
AICPU = 'plugin/ascend/custom_aicpu_ops/op_impl/cpu/config/cust_aicpu_kernel.json'
BACKEND = ('plugin/libmindspore_ascend.so.2', 'libmindspore_backend_common.so')
CORE = ('libmindspore_core.so', 'libmindspore_ops.so')
FILES = (OPERATORS, MANAGER, AICPU, *BACKEND, *CORE)  # all files that are read, below mindspore/lib

# fmt: off
TYPES = {
    'DT_FLOAT': 'fp32', 'DT_FLOAT32': 'fp32', 'DT_FLOAT16': 'fp16', 'DT_BF16': 'bf16', 'DT_BFLOAT16': 'bf16',
    'DT_DOUBLE': 'fp64', 'DT_BOOL': 'bool', 'DT_INT8': 'i8', 'DT_INT16': 'i16', 'DT_INT32': 'i32', 'DT_INT64': 'i64',
    'DT_UINT8': 'u8',
}
_NUMBERS = 'fp16 bf16 fp32 fp64 i8 i16 i32 i64 u8'
GROUPS = {
    'Number': _NUMBERS, 'RealNumber': _NUMBERS, 'Basic': _NUMBERS, 'ALL': f'bool {_NUMBERS}',
    'Unary': 'fp16 bf16 fp32 fp64', 'Floating': 'fp16 fp32 fp64', 'IndexNumber': 'i32 i64',
    'Integer': 'i8 i16 i32 i64 u8',
}
# fmt: on


def read_registrations(lib):
    """Read the libraries in a MindSpore package's directory `lib` (a Path).

    Returns:
        dict: `aclnn` {operator with an aclnn kernel: whether MindSpore dispatches to it}; `acl` {operator: its GE
        operator}; `types` {GE operator: types of its inputs and outputs, separated by spaces}, where they are stated;
        `aicpu` the set of operators with a kernel on the AI CPU; `rewritten` {operator: pass of the Ascend backend
        named after it}; `views` the set of operators that need no kernel.

    Raises:
        ConfigError: the libraries are not for x86-64. OSError: the Ascend plugin does not exist.
    """
    operators, manager = Library(lib / OPERATORS), Library(lib / MANAGER)
    libraries = [ctypes.CDLL(str(lib / name)) for name in CORE]
    definitions = Definitions(libraries[0])
    register = _register_function(operators, {'MatMulExt', 'SiLU', 'FlashAttentionScore', 'InplaceCopy', 'Softmax'})
    aclnn = {names[-1] for i, _ in operators.calls({register}) if (names := operators.names_loaded(i - 90, i))}
    acl, types = _adapters(manager, libraries), _prototypes(manager)
    backend = b''.join((lib / name).read_bytes() for name in BACKEND)
    passes = re.findall(rb'N9mindspore3opt\d+([A-Za-z0-9]+?(?:Unify)?Mind[Ii][Rr])E', backend)
    literals = re.findall(rb'(?<=\0)[A-Za-z_]\w*(?=\0)', (lib / CORE[1]).read_bytes())  # operators are among them
    return {
        'aclnn': {name: definitions.get(name)[0] for name in aclnn},
        'acl': acl,
        'types': {name: ' '.join(sorted(types[name])) for name in set(acl.values()) if types.get(name)},
        'aicpu': set(read_json(lib / AICPU)) - {'All'},
        'rewritten': {re.sub(r'(Unify)?Mind[Ii][Rr]$', '', name): name for name in map(bytes.decode, passes)},
        'views': {name for name in set(map(bytes.decode, literals)) if definitions.get(name)[1]},
    }


def _register_function(library, known):
    """The address that is called right after the names of all `known` operators are loaded.

    If there are several, it is the one called for most names.
    """
    called = defaultdict(set)
    for i, text in library.loads(LOAD_RSI):
        if re.fullmatch(r'[A-Z]\w+', text):
            for address in library.first_calls(2, i + 7, i + 90):
                called[address].add(text)
    common = {'IndexError', 'KernelMode'}  # names that loggers are also called with
    return max((a for a in called if known <= called[a]), key=lambda a: (-len(called[a] & common), len(called[a])))


def _adapters(library, core):
    """Find OpAdapterMap::get()[name] = description; the GE operator is the literal before it."""
    places = (library.stubs, library.symbols)
    targets = {place[name] for place in places for name in place if name.endswith('OpAdapterMap3getEv')}
    found = {}
    for i, _ in library.calls(targets):
        after = library.names_loaded(i + 5, i + 40)
        name = after[0] if after else _primitive_name(library.symbol_read(i + 5, i + 20), core)
        if name:
            before = library.names_loaded(i - 0x700, i)
            found[name] = before[-1] if before else name
    return found


def _primitive_name(symbol, core):
    """Name of the operator object of a kPrim... symbol, read from the live object."""
    match = re.match(r'_ZN9mindspore4prim\d+kPrim(\w+)E$', symbol or '')
    if not match:
        return None
    for library in core:
        try:
            value = ctypes.c_void_p.in_dll(library, symbol).value
        except ValueError:
            continue
        if value:
            return ctypes.string_at(ctypes.c_void_p.from_address(value + 0x30).value).decode()
    return match[1]


def _prototypes(library):
    """{GE operator: set of the types of its inputs and outputs}. The code has prototypes as text: (type, name) after
    (type, name)."""
    texts = [text for _, text in library.loads(LOAD_ANY) if re.match(r'[A-Za-z_"{]', text) and len(text) < 900]
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
    """MindSpore's own definitions of operators: whether one is dispatched to its aclnn kernel, and whether it is a
    view."""

    def __init__(self, core):
        self.find = core._ZN9mindspore3ops8GetOpDefERKSs  # const OpDef *GetOpDef(const std::string &)
        self.find.restype, self.find.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def get(self, name):
        """(dispatched, view), both False for an undefined operator."""
        # a string in the ABI before C++11
        text = struct.pack('<QQq', len(name), len(name), 1 << 20) + name.encode() + b'\0'
        buffer = ctypes.create_string_buffer(text, len(text))
        string = ctypes.c_void_p(ctypes.addressof(buffer) + 24)
        pointer = self.find(ctypes.addressof(string))
        if not pointer:
            return False, False
        dispatched, view = ctypes.string_at(pointer + 144, 2)
        return bool(dispatched), bool(view)

"""Read pickles without running them.

A pickle is a program. Here its opcodes, parsed by the standard library's pickletools, build only plain values: numbers,
strings, lists, tuples, dicts. Classes and functions are never imported; they are kept as a `Global` of two strings. A
call in the pickle becomes an `Inert` record of the call, unless `known` has our own function for that name.
"""

import io
import pickletools
import struct
from dataclasses import dataclass, field
from typing import Any

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import short

MAX_BYTES = 32 << 20  # of one pickle; Stable Diffusion's has less than one million
MAX_STEPS = 1_000_000  # opcodes; limits the memory, because each makes at most one small object
MAX_NAME = 4096  # characters of a name; comparing longer names a million times would take too long


@dataclass(frozen=True)
class Global:
    """A class or function named in the pickle, which is not imported."""

    module: str
    name: str


@dataclass(eq=False)
class Inert:
    """A record of an object that is not created: its class and arguments."""

    cls: Any
    args: Any = ()
    state: Any = None
    items: list = field(default_factory=list)


def unpickle(data, known, persistent=None, what='pickle', max_steps=MAX_STEPS):
    """Read the value of a pickle.

    Args:
        data: bytes that begin with the pickle (at most MAX_BYTES are read).
        known: {(module, name): function}; the functions get the pickle's arguments, check them and return plain values.
        persistent: function of a persistent id; None: persistent ids become Inert.
        what: name of the pickle, for messages. max_steps: largest number of opcodes.

    Returns:
        (value, length): length is the pickle's number of bytes.

    Raises:
        CheckpointError: the pickle is damaged, too large, or has contents that no checkpoint has.
    """
    machine, steps = _Machine(known, persistent), 0
    try:
        for opcode, arg, position in pickletools.genops(io.BytesIO(data[:MAX_BYTES])):
            steps += 1
            if steps > max_steps:
                raise CheckpointError(f'has more than {max_steps} steps: no checkpoint needs so many')
            if opcode.name == 'STOP':
                return machine.pop(), position + 1  # pyright: ignore[reportOptionalOperand]
            machine.step(opcode.name, arg)
    except CheckpointError as e:
        raise CheckpointError(f'{what}: {e}') from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError, struct.error, MemoryError) as e:
        reason = f'is longer than {MAX_BYTES >> 20} MB' if len(data) > MAX_BYTES else f'is damaged ({short(str(e))})'
        raise CheckpointError(f'{what} {reason}') from None
    raise CheckpointError(f'{what} has no end')


class _Machine:
    """The pickle protocol's machine: stack, marks and memo."""

    def __init__(self, known, persistent):
        self.known, self.persistent = known, persistent
        self.stack, self.marks, self.memo = [], [], {}

    def step(self, name, arg):
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(arg)
        else:
            handler = getattr(self, '_' + name.lower(), None)
            if handler is None:
                raise CheckpointError(f'opcode {name} does not occur in checkpoints')
            handler(arg)

    def pop(self):
        if not self.stack:
            raise CheckpointError('is damaged (empty stack)')
        return self.stack.pop()

    def pop_mark(self):
        items, self.stack = self.stack, self.marks.pop()
        return items

    def call(self, cls, args):
        """Handle a call by REDUCE, NEWOBJ or a similar opcode."""
        function = self.known.get((cls.module, cls.name)) if isinstance(cls, Global) else None
        if function is None or not isinstance(args, tuple):
            return Inert(cls, args)
        return function(*args)

    # containers
    def _mark(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def _pop_mark(self, _):
        self.pop_mark()

    def _pop(self, _):
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def _dup(self, _):
        self.stack.append(self.stack[-1])

    def _empty_list(self, _):
        self.stack.append([])

    _empty_set = _empty_list  # kept as a list, because members of a set would be hashed

    def _empty_dict(self, _):
        self.stack.append({})

    def _list(self, _):
        items = self.pop_mark()
        self.stack.append(items)

    def _tuple(self, _):
        items = self.pop_mark()
        self.stack.append(tuple(items))

    _frozenset = _tuple

    def _dict(self, _):
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def _tuple1(self, _, n=1):
        items = [self.pop() for _ in range(n)]
        self.stack.append(tuple(reversed(items)))

    def _tuple2(self, arg):
        self._tuple1(arg, 2)

    def _tuple3(self, arg):
        self._tuple1(arg, 3)

    def _append(self, _):
        self._extend([self.pop()])

    def _appends(self, _):
        self._extend(self.pop_mark())

    _additems = _appends

    def _setitem(self, _):
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def _setitems(self, _):
        self._set(self.pop_mark())

    def _extend(self, items):
        target = self.stack[-1]
        target = target.items if isinstance(target, Inert) else target
        if not isinstance(target, list):
            raise CheckpointError('is damaged (appends to what is no list)')
        target.extend(items)

    def _set(self, items):
        target = self.stack[-1]
        if not isinstance(target, (dict, Inert)):
            raise CheckpointError('is damaged (sets items of what is no dict)')
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(target, Inert):
                target.items.append((key, value))
            else:
                target[_key(key)] = value

    # memo
    def _put(self, index):
        if not 0 <= index < 1 << 32:  # larger ones can be chosen to have equal hashes
            raise CheckpointError(f'is damaged (memo index {short(index)})')
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index):
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    # classes and objects: named, never imported
    def _global(self, arg):
        self.stack.append(Global(*arg.split(' ', 1)))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError('is damaged (a class name that is no string)')
        self.stack.append(Global(module, name))

    def _ext1(self, code):
        self.stack.append(Global('copyreg', f'extension {code}'))

    _ext2 = _ext4 = _ext1

    def _reduce(self, _):
        args, cls = self.pop(), self.pop()
        self.stack.append(self.call(cls, args))

    _newobj = _reduce

    def _newobj_ex(self, _):
        kwargs, args, cls = self.pop(), self.pop(), self.pop()
        self.stack.append(Inert(cls, args, kwargs))

    def _inst(self, arg):
        args = tuple(self.pop_mark())
        self.stack.append(self.call(Global(*arg.split(' ', 1)), args))

    def _obj(self, _):
        items = self.pop_mark()
        self.stack.append(self.call(items[0], tuple(items[1:])))

    def _build(self, _):
        state = self.pop()
        if isinstance(self.stack[-1], Inert):  # the state of an OrderedDict or a tensor is not needed
            self.stack[-1].state = state

    def _binpersid(self, _):
        self._persid(self.pop())

    def _persid(self, pid):
        self.stack.append(self.persistent(pid) if self.persistent else Inert('persistent id', pid))

    def _proto(self, _):
        """Ignore the protocol number: the opcodes are sufficient."""

    _frame = _proto


def _key(key):
    """Check a dict's key. Only names and small numbers are hashed: nested tuples can take forever, and large numbers
    can be chosen to have equal hashes."""
    if isinstance(key, str) and len(key) > MAX_NAME:
        raise CheckpointError(f'a name of {len(key)} characters ({short(key)}) is not believed')
    return key if isinstance(key, str) or isinstance(key, int) and key.bit_length() <= 64 else Inert('key', key)


_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
# fmt: off
_LITERALS = frozenset([
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE',
    'BINUNICODE8', 'BYTEARRAY8',
])
# fmt: on

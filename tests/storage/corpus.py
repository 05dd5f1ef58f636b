"""Hostile and broken checkpoints, made by hand: without torch, and without the code that is tested.

REFUSED and INERT map a name to builder(directory) -> path. A file of REFUSED must raise CheckpointError. One of INERT
is odd but holds the sound tensor `weight` (WEIGHT), which must be read. Whatever is run or imported for a file makes a
file `canary` in its directory.
"""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
DATA = WEIGHT.tobytes()
PRIME = (1 << 61) - 1  # Python's hash of a whole number is the number modulo this
MB = 1 << 20


# pickles, opcode by opcode
def text(value):
    value = value.encode('utf-8', 'surrogatepass')
    return b'X' + struct.pack('<I', len(value)) + value


def number(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8b' + struct.pack('<i', len(data)) + data


def group(*items):
    return b'(' + b''.join(items) + b't'


def mapping(*pairs):
    return b'}(' + b''.join(text(key) + value for key, value in pairs) + b'u'


def named(module, name):
    return f'c{module}\n{name}\n'.encode()


def call(module, name, *args):
    return named(module, name) + group(*args) + b'R'


def sizes(values):
    return values if isinstance(values, bytes) else group(*(v if isinstance(v, bytes) else number(v) for v in values))


def storage(key=text('0'), count=number(6), cls=named('torch', 'FloatStorage')):
    return group(text('storage'), cls, key, text('cpu'), count) + b'Q'


def storage_of_legacy(key=text('0'), count=number(6), view=b'N', cls=named('torch', 'FloatStorage')):
    return group(text('storage'), cls, key, text('cpu'), count, view) + b'Q'


def tensor(offset=number(0), shape=(2, 3), strides=(3, 1), of=storage(), name='_rebuild_tensor_v2', last=()):
    return call('torch._utils', name, of, offset, sizes(shape), sizes(strides), b'\x89', b'N', *last)


def weight(*others, **how):
    """A state dict of the sound tensor (or one made with `how`) and others."""
    return b'\x80\x02' + mapping(('weight', tensor(**how)), *others) + b'.'


def evil(value, before=b''):
    return b'\x80\x02' + before + mapping(('weight', tensor()), ('evil', value)) + b'.'


def touch(d):
    return f'touch {d}/canary'


def shell(d):
    return call('os', 'system', text(touch(d)))


def code(d):
    return text(f'open({str(d / "canary")!r}, "w")')


def nested(d):
    """A pickle that runs code, as bytes in a pickle."""
    inner = b'\x80\x02' + shell(d) + b'.'
    return b'B' + struct.pack('<I', len(inner)) + inner


def laughs(n, one=b')'):
    """A tuple of tuples of tuples...: 2**n of them, were they all visited."""
    return one + b''.join(b'q\x07h\x07\x86' for _ in range(n))


def modules_in_modules(n):
    """Objects whose states hold the object below twice."""
    node = b'c__torch__\nM\n)\x81}b'
    for _ in range(n):
        node = node + b'q\x070' + b'c__torch__\nM\n)\x81' + mapping(('a', b'h\x07'), ('b', b'h\x07')) + b'b'
    return b'\x80\x02' + node + b'.'


# files
@dataclass
class Member:
    """One file in a zip archive; what is not None is written in place of the truth."""

    name: bytes
    data: bytes = b''
    method: int = 0
    flags: int = 0
    local_flags: int = None
    size: int = None
    packed: int = None
    local_name: bytes = None
    offset: int = None
    signature: bytes = b'PK\x03\x04'
    extra: bytes = b''


def archive(
    *members, count=None, directory_size=None, directory_start=None, after=b'', comment=b'', disk=0, prefix=b''
):
    body, directory = bytearray(prefix), bytearray()
    for m in members:
        name, packed = m.name if m.local_name is None else m.local_name, len(m.data) if m.packed is None else m.packed
        size, offset = packed if m.size is None else m.size, len(body) if m.offset is None else m.offset
        flags = m.flags if m.local_flags is None else m.local_flags
        body += (
            m.signature
            + struct.pack('<5H3I2H', 20, flags, m.method, 0, 33, 0, packed, size, len(name), 0)
            + name
            + m.data
        )
        # fmt: off
        directory += (
            b'PK\x01\x02'
            + struct.pack(
                '<6H3I5H2I', 20, 20, m.flags, m.method, 0, 33, 0, packed, size, len(m.name), len(m.extra), 0, 0, 0, 0,
                offset,
            )
            + m.name
            + m.extra
        )
        # fmt: on
    count = len(members) & 0xFFFF if count is None else count
    start = len(body) if directory_start is None else directory_start
    # fmt: off
    end = struct.pack(
        '<4H2IH', disk, disk, count, count, len(directory) if directory_size is None else directory_size, start,
        len(comment),
    )
    # fmt: on
    return bytes(body + directory) + after + b'PK\x05\x06' + end + comment


def members(data, name=b'a/', storages=None):
    return [
        Member(name + b'data.pkl', data),
        Member(name + b'byteorder', b'little'),
        *(Member(name + b'data/' + key, value) for key, value in (storages or {b'0': DATA}).items()),
    ]


def zipped(data, *others):
    return archive(*members(data), *others)


def zip64(**lies):
    """The sound archive with a zip64 end of directory that lies."""
    sound = zipped(weight())
    real = dict(zip(('size', 'start'), struct.unpack('<2I', sound[-10:-2]), strict=True), count=4)
    real.update(lies)
    end = b'PK\x06\x06' + struct.pack(
        '<Q2H2I4Q', 44, 45, 45, 0, 0, real['count'], real['count'], real['size'], real['start']
    )
    return sound[:-22] + end + b'PK\x06\x07' + struct.pack('<IQI', 0, len(sound) - 22, 1) + sound[-22:]


def bomb(gigabytes=4):
    """Deflated zeros; the same piece again and again, as each ends in a full flush."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(16 * MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * (gigabytes * 64) + b'\x03\x00'


def cut(data, at):
    """The first bytes; `at` may be a mark within, counted from which the cut is made, or a share of the file."""
    mark, plus = at if isinstance(at, tuple) else (None, at)
    return (
        data[: data.rindex(mark) + plus] if mark else data[: int(len(data) * plus) if isinstance(plus, float) else plus]
    )


MAGIC = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'


def system(little=True, more=b''):
    return (
        b'\x80\x02'
        + b'}('
        + text('protocol_version')
        + number(1001)
        + text('little_endian')
        + (b'\x88' if little else b'\x89')
        + more
        + b'u.'
    )


def legacy(
    data=None,
    keys=b'](X\x01\x00\x00\x000e.',
    count=6,
    numbers=DATA,
    magic=MAGIC,
    protocol=b'\x80\x02M\xe9\x03.',
    info=system(),
):
    data = b'\x80\x02' + mapping(('weight', tensor(of=storage_of_legacy()))) + b'.' if data is None else data
    return magic + protocol + info + data + b'\x80\x02' + keys + struct.pack('<q', count) + numbers


def old_weight(*others, **how):
    return b'\x80\x02' + mapping(('weight', tensor(**{'of': storage_of_legacy(), **how})), *others) + b'.'


def safe(header=None, data=DATA, length=None, **entry):
    if header is None:
        header = {'weight': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24], **entry}}
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(header) if length is None else length) + header + data


def entry(first, last, shape=None):
    return {'dtype': 'F32', 'shape': shape or [(last - first) // 4], 'data_offsets': [first, last]}


# code that would run, beside a sound tensor
CALLS = {
    'os.system': lambda d: shell(d),
    'posix.system': lambda d: call('posix', 'system', text(touch(d))),
    'eval': lambda d: call('builtins', 'eval', code(d)),
    'exec': lambda d: call('builtins', 'exec', code(d)),
    'python 2 eval': lambda d: call('__builtin__', 'eval', code(d)),
    'getattr': (
        lambda d: (
            call('builtins', 'getattr', call('builtins', '__import__', text('os')), text('system'))
            + group(text(touch(d)))
            + b'R'
        )
    ),
    'import': lambda d: call('builtins', '__import__', text('evil')),
    'class of a module that lies beside': (
        lambda d: (d / 'evil.py').write_text(f'open({str(d / "canary")!r}, "w")\n') and call('evil', 'Evil')
    ),
    'subprocess': lambda d: call('subprocess', 'check_call', b'](' + text('touch') + text(f'{d}/canary') + b'e'),
    'runpy': lambda d: call('runpy', 'run_path', text(str(d / 'evil.py'))),
    'open': lambda d: call('io', 'open', text(str(d / 'canary')), text('w')),
    'map': lambda d: call(
        'builtins', 'list', call('builtins', 'map', named('os', 'system'), b'](' + text(touch(d)) + b'e')
    ),
    'partial': lambda d: call('functools', 'partial', named('os', 'system'), text(touch(d))) + b')R',
    'torch.load': lambda d: call('torch', 'load', nested(d)),
    'torch.hub.load': lambda d: call('torch.hub', 'load', text('evil/evil'), text('evil')),
    'torch.storage._load_from_bytes': lambda d: call('torch.storage', '_load_from_bytes', nested(d)),
    'torch._utils._rebuild_tensor of a call': lambda d: call(
        'torch._utils', '_rebuild_tensor', shell(d), number(0), sizes((2, 3)), sizes((3, 1))
    ),
    'torch tensor of no storage': lambda d: tensor(of=text('evil')),
    'torch tensor of a tensor': lambda d: tensor(of=tensor()),
    'torch tensor with evil hooks': lambda d: call(
        'torch._utils', '_rebuild_tensor_v2', storage(), number(0), sizes((2,)), sizes((1,)), b'\x89', shell(d)
    ),
    'torch tensor of an evil type': lambda d: tensor(name='_rebuild_tensor_v3', last=(named('os', 'system'),)),
    'numpy.load': lambda d: call('numpy', 'load', text(str(d / 'evil.npy')), b'N', b'\x88'),
    'numpy.core.multiarray._reconstruct': lambda d: call(
        'numpy.core.multiarray', '_reconstruct', named('numpy', 'ndarray'), sizes((0,)), text('b')
    ),
    'pickle.loads': lambda d: call('_pickle', 'loads', nested(d)),
    'pickle in bytes': nested,
    'stack_global': lambda d: text('os') + text('system') + b'\x93' + group(text(touch(d))) + b'R',
    'stack_global, dotted': lambda d: text('shutil') + text('os.system') + b'\x93' + group(text(touch(d))) + b'R',
    'stack_global, attributes of attributes': (
        lambda d: (
            text('diffdis_ms.storage.reader')
            + text('json.__builtins__.__getitem__')
            + b'\x93'
            + group(text('eval'))
            + b'R'
            + group(code(d))
            + b'R'
        )
    ),
    'inst': lambda d: b'(' + text(touch(d)) + b'ios\nsystem\n',
    'obj': lambda d: b'(' + named('os', 'system') + text(touch(d)) + b'o',
    'newobj': lambda d: named('os', 'system') + group(text(touch(d))) + b'\x81',
    'newobj_ex': lambda d: named('os', 'system') + group(text(touch(d))) + b'}\x92',
    'reduce of what is no function': lambda d: text('os.system') + group(text(touch(d))) + b'R',
    'reduce with arguments that are no tuple': lambda d: named('os', 'system') + text(touch(d)) + b'R',
    'call of a call': lambda d: shell(d) + group(text(touch(d))) + b'R',
    'call of a dict': lambda d: mapping(('__call__', named('os', 'system'))) + group(text(touch(d))) + b'R',
    'build with __setstate__': (
        lambda d: (
            named('evil', 'E')
            + b')\x81'
            + mapping(('__setstate__', named('os', 'system')))
            + b'b'
            + text(touch(d))
            + b'b'
        )
    ),
    'build with __reduce__': (
        lambda d: (
            named('evil', 'E')
            + b')\x81'
            + mapping(('__reduce__', shell(d)), ('__class__', named('os', 'system')))
            + b'b'
        )
    ),
    'build with slots': (
        lambda d: named('evil', 'E') + b')\x81N' + mapping(('__dict__', named('os', 'system'))) + b'\x86b'
    ),
    'build of our own reader': (
        lambda d: (
            named('diffdis_ms.storage.reader', 'open_checkpoint')
            + mapping(('__code__', b'N'), ('__dict__', b'N'))
            + b'b'
        )
    ),
    'build of a dict': lambda d: b'}' + mapping(('__dict__', shell(d)), ('items', named('os', 'system'))) + b'b',
    'build of the tensor': (
        lambda d: (
            tensor() + mapping(('file', text('/etc/passwd')), ('start', number(-1)), ('__setstate__', shell(d))) + b'b'
        )
    ),
    'ext1': lambda d: b'\x82\x01' + group(text(touch(d))) + b'R',
    'ext2': lambda d: b'\x83\x01\x01' + group(text(touch(d))) + b'R',
    'ext4': lambda d: b'\x84\xff\xff\xff\x7f' + group(text(touch(d))) + b'R',
    'storage of an evil class': lambda d: tensor(of=storage(cls=named('os', 'system'))),
    'storage of an evil module': lambda d: tensor(of=storage(cls=named('evil', 'FloatStorage'))),
    'storage whose class is a call': lambda d: tensor(of=storage(cls=shell(d))),
    'persistent id that is a text': lambda d: text(touch(d)) + b'Q',
    'persistent id that is a list': lambda d: b'](' + text('storage') + shell(d) + b'eQ',
    'persistent id that is too short': lambda d: group(text('storage'), named('torch', 'FloatStorage')) + b'Q',
    'persistent id in a line': lambda d: b'Pevil\n',
    'call as a key': lambda d: b'}' + group(shell(d)) + b'Ns',
    'class as a key': lambda d: b'}' + named('os', 'system') + b'Ns',
    'members of a set': lambda d: b'\x8f(' + shell(d) + b']}\x90',
    'members of a frozenset': lambda d: b'(' + shell(d) + b']}\x91',
    'items of an unknown object': lambda d: named('evil', 'D') + b')R(' + text('a') + shell(d) + b'u',
}

# odd, and to be read in no time and little memory
ODD = {
    'protocol 99': lambda d: b'\x80\x63' + weight()[2:],
    'huge frame': lambda d: b'\x80\x04\x95' + b'\xff' * 8 + weight()[2:],
    'highest memo index': lambda d: evil(b'Nr\xff\xff\xff\xff0j\xff\xff\xff\xff'),
    'billion laughs': lambda d: evil(laughs(5000)),
    'billion laughs as a key': lambda d: evil(b'}' + laughs(5000) + b'Ns'),
    'billion laughs of lists': lambda d: evil(b']' + b''.join(b'q\x07](h\x07h\x07e' for _ in range(5000))),
    'billion laughs as a call': lambda d: evil(laughs(5000, shell(d))),
    'deep tuples': lambda d: evil(b')' + b'\x85' * 300_000),
    'deep lists': lambda d: evil(b']' * 300_000 + b'a' * 299_999),
    'deep calls': lambda d: evil(b'N' + b'Q' * 900_000),
    'deep keys': lambda d: evil(b'}' * 100_000 + b'Ns' * 99_999),
    'list that holds itself': lambda d: evil(b']q\x07h\x07a'),
    'dict that holds itself': (
        lambda d: (
            b'\x80\x02}q\x07(' + text('weight') + tensor() + text('state_dict') + b'h\x07' + text('model') + b'h\x07u.'
        )
    ),
    'list as a key': lambda d: evil(b'}]Ns'),
    'dict as a key': lambda d: evil(b'}}Ns'),
    'nan as a key': lambda d: evil(
        b'}(' + b''.join(b'G\x7f\xf8' + struct.pack('>I', i) + b'\x00\x00N' for i in range(100_000)) + b'u'
    ),
    'keys that hash alike': lambda d: evil(
        b'}(' + b''.join(number(PRIME * i) + b'N' for i in range(1, 100_000)) + b'u'
    ),
    'long number as a key, again and again': lambda d: evil(
        number(1 << 80 * MB) + b'q\x070(' + b'h\x07N' * 100_000 + b'd'
    ),
    'long bytes as a key': lambda d: evil(b'}' + b'B' + struct.pack('<I', 10 * MB) + bytes(10 * MB) + b'q\x07Ns'),
    'long number': lambda d: evil(number(1 << 80 * MB)),
    'text of surrogates': lambda d: evil(text('\ud800\udfff')),
    'name with a line break': lambda d: weight(('a\nb\x1b[31m\x00\u202e', b'N'), ('\ud800', b'K\x01')),
    'name with a path': lambda d: weight(('../../canary', tensor()), ('/etc/passwd', tensor())),
    'tensor without numbers, far away': lambda d: weight(
        ('empty', tensor(offset=number(1 << 61), shape=(0, 1 << 50), strides=(1 << 61, 1 << 61)))
    ),
    'tensor of ones with huge strides': lambda d: weight(
        ('one', tensor(shape=(1, 1), strides=((1 << 62) - 1, 1 << 61)))
    ),
    'tensor of 32 axes': lambda d: weight(('one', tensor(shape=(1,) * 32, strides=(1 << 61,) * 32))),
    'tensor that expands a little': lambda d: weight(('wide', tensor(shape=(1000, 1000), strides=(0, 0)))),
    'state dict of integers': lambda d: weight()[:-1] + b'K\x01Ns.',
    'same storage as bytes': lambda d: weight(
        ('bytes', tensor(shape=(24,), strides=(1,), of=storage(cls=named('torch', 'ByteStorage'), count=number(24))))
    ),
    'many marks': lambda d: evil(b'(' * 400_000 + b'1' * 400_000 + b'N'),
}

# pickles that make no sense
BROKEN = {
    'nothing': lambda d: b'',
    'only stop': lambda d: b'.',
    'only a protocol': lambda d: b'\x80\x02',
    'protocol cut': lambda d: b'\x80',
    'no stop': lambda d: weight()[:-1],
    'cut in a text': lambda d: weight()[:12],
    'unknown opcode': lambda d: b'\x80\x02\xff.',
    'mark on top': lambda d: b'\x80\x02N(.',
    'no mark': lambda d: b'\x80\x02Nt.',
    'no mark for items': lambda d: b'\x80\x02}u.',
    'pop of nothing': lambda d: b'0.',
    'dup of nothing': lambda d: b'2.',
    'memoize nothing': lambda d: b'\x80\x04\x94.',
    'build of nothing': lambda d: b'Nb.',
    'reduce of nothing': lambda d: b')R.',
    'persistent id of nothing': lambda d: b'Q.',
    'obj of nothing': lambda d: b'(o.',
    'inst without a mark': lambda d: b'ios\nsystem\n.',
    'global cut': lambda d: b'cos\nsystem',
    'global that is not ascii': lambda d: b'c\xff\n\xff\n.',
    'stack_global of numbers': lambda d: b'\x80\x04K\x01K\x02\x93.',
    'stack_global of calls': lambda d: b'\x80\x04' + shell(d) + shell(d) + b'\x93.',
    'odd items': lambda d: b'}(NNNu.',
    'items of a list': lambda d: b'](NNu.',
    'items of a tuple': lambda d: b')NNs.',
    'items of a text': lambda d: text('a') + b'NNs.',
    'append to a dict': lambda d: b'}Na.',
    'append to a tensor': lambda d: tensor() + b'Na.',
    'members of a number': lambda d: b'\x80\x04K\x01(N\x90.',
    'unset memo': lambda d: b'h\x01.',
    'unset highest memo': lambda d: b'j\xff\xff\xff\xff.',
    'negative memo': lambda d: b'Np-1\n.',
    'memo beyond 32 bits': lambda d: b'Np4294967296\n.',
    'memos that hash alike': lambda d: b'N' + b''.join(b'p%d\n' % (PRIME * i) for i in range(1, 100_000)) + b'.',
    'memo that is no number': lambda d: b'Npx\n.',
    'buffer': lambda d: b'\x80\x05\x97.',
    'read-only buffer': lambda d: b'\x80\x05N\x98.',
    'long4 of negative length': lambda d: b'\x8b\xff\xff\xff\xff.',
    'long4 that is too long': lambda d: b'\x8b\xff\xff\xff\x7f.',
    'binstring of negative length': lambda d: b'T\xff\xff\xff\xff.',
    'binunicode that is too long': lambda d: b'X\xff\xff\xff\xff.',
    'binunicode8 that is too long': lambda d: b'\x8d' + b'\xff' * 7 + b'\x7f.',
    'binunicode8 beyond all': lambda d: b'\x8d' + b'\xff' * 8 + b'.',
    'binbytes8 that is too long': lambda d: b'\x8e' + b'\xff' * 7 + b'\x7f.',
    'binbytes8 beyond all': lambda d: b'\x8e' + b'\xff' * 8 + b'.',
    'bytearray8 that is too long': lambda d: b'\x96' + b'\xff' * 7 + b'\x7f.',
    'text that is not utf-8': lambda d: b'X\x01\x00\x00\x00\xff.',
    'number of millions of digits': lambda d: b'I' + b'9' * 5_000_000 + b'\n.',
    'long of millions of digits': lambda d: b'L' + b'9' * 5_000_000 + b'L\n.',
    'float of no number': lambda d: b'Fx' + b'9' * 5_000_000 + b'\n.',
    'number without an end': lambda d: b'I' + b'9' * 5_000_000,
    'string without quotes': lambda d: b'S' + b'\xff' * (30 * MB) + b'\n.',
    'bad escape': lambda d: b"S'\\x'\n.",
    'more than a million steps': lambda d: b'N' + b'N0' * 1_000_000 + b'.',
    'a million marks': lambda d: b'(' * 1_100_000 + b'.',
    'more than is read': lambda d: b'B' + struct.pack('<I', 40 * MB) + bytes(40 * MB) + b'.',
    'text that grows in memory': (
        lambda d: b'\x80\x02' + text('a' * (31 * MB) + '\U0001f600') + b'N' + b'Q' * 900_000 + b'.'
    ),
    'root that is a list': lambda d: b'](' + tensor() + b'e.',
    'root that is a tensor': lambda d: tensor() + b'.',
    'root that is a number': lambda d: b'K\x01.',
    'root that is a call': lambda d: shell(d) + b'.',
    'root that is a class': lambda d: named('os', 'system') + b'.',
    'root that is text': lambda d: text(touch(d)) + b'.',
    'module in which a module lies again and again': lambda d: modules_in_modules(60),
    'module that holds itself': (
        lambda d: b'c__torch__\nM\n)\x81q\x07' + mapping(('a', b'h\x07'), ('b', b'h\x07')) + b'b.'
    ),
    'modules deeper than can be': (
        lambda d: b''.join(b'c__torch__\nM\n)\x81}' + text('a') for _ in range(5000)) + b'N' + b'sb' * 5000 + b'.'
    ),
    'modules of long names': (
        lambda d: (
            b''.join(b'c__torch__\nM\n)\x81}' + text('a' * 4096) for _ in range(50))
            + b'c__torch__\nM\n)\x81}('
            + b''.join(text(str(i)) + b'N' for i in range(200_000))
            + b'ub'
            + b'sb' * 50
            + b'.'
        )
    ),
    'long name': lambda d: weight(('a' * MB, b'N')),
    'long name, again and again': (
        lambda d: (
            b'}'
            + text('a' * 10 * MB)
            + b'q\x070'
            + text('a' * 10 * MB)
            + b'q\x080'
            + b'(h\x07N'
            + b'h\x08N' * 100_000
            + b'u.'
        )
    ),
}

# tensors that are none
TENSORS = {
    'negative offset': {'offset': number(-1)},
    'offset beyond': {'offset': number(1)},
    'offset far beyond': {'offset': number(1 << 61)},
    'offset beyond 64 bits': {'offset': number(1 << 70)},
    'offset that is a float': {'offset': b'G' + struct.pack('>d', 0)},
    'offset that is true': {'offset': b'\x88', 'shape': (1,), 'strides': (1,)},
    'offset that is a text': {'offset': text('0')},
    'negative shape': {'shape': (-2, -3)},
    'negative strides': {'offset': number(5), 'strides': (-3, -1)},
    'float shape': {'shape': (b'G' + struct.pack('>d', 2), 3)},
    'bool shape': {'shape': (b'\x88', 3)},
    'shape that is a list': {'shape': b'](K\x02K\x03e'},
    'shape that is a number': {'shape': b'K\x06'},
    'nested shape': {'shape': group(sizes((2, 3)), number(3))},
    'fewer strides than axes': {'strides': (1,)},
    'shape beyond the storage': {'shape': (2, 4), 'strides': (4, 1)},
    'strides beyond the storage': {'strides': (4, 1)},
    'stride that overflows': {'strides': (1 << 61, 1)},
    'stride that overflows to zero': {'shape': (3, 3), 'strides': (1 << 63, 1 << 63)},
    'shape of 2**80': {'shape': (1 << 40, 1 << 40), 'strides': (0, 0)},
    'shape that overflows to zero': {'shape': (1 << 32, 1 << 32), 'strides': (0, 0)},
    'axis of 30 MB': {'shape': (1 << 200 * MB, 1 << 10), 'strides': (0, 0)},
    'empty, but too long for NumPy': {'shape': (0, 1 << 61), 'strides': (1, 1)},
    'expansion of 6 numbers to 4 GB': {'shape': (1 << 30,), 'strides': (0,)},
    '33 axes': {'shape': (1,) * 33, 'strides': (1,) * 33},
    'a million axes': {'shape': (1,) * 100_000, 'strides': (1,) * 100_000},
    'no such storage': {'of': storage(key=text('1'))},
    'storage outside': {'of': storage(key=text('../../../etc/passwd'))},
    'storage whose name is a number': {'of': storage(key=number(0))},
    'storage of a long name': {'of': storage(key=text('0' * 10_000))},
    'storage of more numbers': {'of': storage(count=number(7))},
    'storage of fewer numbers': {'of': storage(count=number(5)), 'shape': (5,), 'strides': (1,)},
    'storage of negative size': {'of': storage(count=number(-6))},
    'storage of 2**70 numbers': {'of': storage(count=number(1 << 70))},
    'storage of a float size': {'of': storage(count=b'G' + struct.pack('>d', 6))},
    'storage of wider numbers': {'of': storage(cls=named('torch', 'DoubleStorage'))},
    'too many arguments': {'last': (b'N',) * 10},
    'v3 without a type': {'name': '_rebuild_tensor_v3'},
}

WRONG_CALLS = {
    'OrderedDict of a call': lambda d: call('collections', 'OrderedDict', shell(d)),
    'OrderedDict of a text': lambda d: call('collections', 'OrderedDict', text('ab')),
    'OrderedDict of laughs': lambda d: call('collections', 'OrderedDict', laughs(5000)),
    'OrderedDict of two': lambda d: call('collections', 'OrderedDict', b']', b']'),
    'tensor of nothing': lambda d: call('torch._utils', '_rebuild_tensor_v2'),
    'Parameter of nothing': lambda d: call('torch._utils', '_rebuild_parameter'),
}


def inner_zip(d):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('a/data.pkl', b'\x80\x02' + shell(d) + b'.')
    return buffer.getvalue()


def traversal(name):
    return lambda d: zipped(weight(), Member(name, b'evil'))


def changed(index, **change):
    """The sound archive with one member changed (0: data.pkl, 2: the storage)."""

    def make(d):
        all_members = members(weight())
        for key, value in change.items():
            setattr(all_members[index], key, value)
        return archive(*all_members)

    return make


def overlapping(d):
    """As in the 'better zip bomb': many members, one body."""
    keys = [str(i).encode() for i in range(1000)]
    pairs = [(f'w{i}', tensor(of=storage(key=text(str(i))))) for i in range(1000)]
    first, *rest = members(weight(*pairs), storages=dict.fromkeys(keys, b''))
    start = 30 + len(first.name) + len(first.data)
    for m in rest[1:]:
        m.offset, m.packed, m.local_name = start, 24, b'a/data/0'
    rest[1].data = DATA
    return archive(first, *rest)


def two_in_one(d):
    """Two storages whose numbers overlap, each below a header of its own."""
    inner = b'PK\x03\x04' + struct.pack('<5H3I2H', 20, 0, 0, 0, 33, 0, 24, 24, 8, 0) + b'a/data/1' + DATA
    first = Member(b'a/data.pkl', weight(('b', tensor(of=storage(key=text('1')))), of=storage(count=number(16))))
    second = Member(b'a/data/0', inner.ljust(64, b'\0'))
    start = 30 + len(first.name) + len(first.data) + 30 + len(second.name)
    return archive(first, second, Member(b'a/data/1', packed=24, offset=start))


# fmt: off
CUTS = (  # see `cut`
    4, 5, 20, 30, 35, 0.25, 0.5, (b'PK\x03\x04', 10), (b'PK\x03\x04', 45), (b'PK\x01\x02', 0),
    (b'PK\x01\x02', 20), (b'PK\x01\x02', 50), (b'PK\x05\x06', 0), (b'PK\x05\x06', 10), (b'PK\x05\x06', 21),
)
# fmt: on
ZIPS = {
    'no data.pkl': lambda d: archive(Member(b'a/version', b'3\n')),
    'no member': lambda d: b'PK\x03\x04' + archive(),
    'two data.pkl': lambda d: zipped(weight(), Member(b'b/data.pkl', weight())),
    'data.pkl too deep': lambda d: archive(*members(weight(), b'a/b/')),
    'data.pkl that is a zip': lambda d: zipped(inner_zip(d)),
    'checkpoint packed in a zip': lambda d: archive(Member(b'model.ckpt', zipped(weight()))),
    'big-endian': lambda d: archive(*members(weight())[:1], Member(b'a/byteorder', b'big'), Member(b'a/data/0', DATA)),
    'byteorder of 40 MB': lambda d: archive(
        *members(weight())[:1], Member(b'a/byteorder', b'\xff' * (40 * MB)), Member(b'a/data/0', DATA)
    ),
    'deflated data.pkl of 4 GB': lambda d: archive(
        Member(b'a/data.pkl', bomb(), method=8, size=(1 << 32) - 2), *members(b'')[1:]
    ),
    'deflated storage of 4 GB': lambda d: archive(
        *members(weight())[:2], Member(b'a/data/0', bomb(), method=8, size=(1 << 32) - 2)
    ),
    'deflated, but called stored': lambda d: changed(2, data=zlib.compress(DATA)[2:-4], size=24)(d),
    'stored, but sizes differ': changed(2, packed=24, size=1 << 31),
    'unknown compression': changed(0, method=99),
    'method differs in the header': (
        lambda d: changed(2)(d).replace(b'\x14\x00\x00\x00\x00\x00', b'\x14\x00\x00\x00\x08\x00', 1)
    ),
    'encrypted': changed(0, flags=1),
    'encrypted, says the header': changed(2, local_flags=1),
    'other name in the header': changed(2, local_name=b'a/data/1'),
    'longer name in the header': changed(0, local_name=b'a/data.pkl/../../../etc/passwd'),
    'no header': changed(2, signature=b'PK\x03\x05'),
    'header beyond the end': changed(2, offset=(1 << 32) - 2),
    'header at another member': changed(2, offset=0),
    'member beyond the end': changed(2, size=(1 << 32) - 2, packed=(1 << 32) - 2),
    'member with a lying zip64 size': changed(
        2, size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=struct.pack('<2H2Q', 1, 16, 1 << 63, 1 << 63)
    ),
    'member with a lying zip64 offset': changed(2, offset=0xFFFFFFFF, extra=struct.pack('<2HQ', 1, 8, (1 << 64) - 1)),
    'member with half a zip64 extra': changed(2, size=0xFFFFFFFF, extra=struct.pack('<2HI', 1, 4, 0)),
    'extra that is too long': changed(2, extra=b'\x99\x99\xff\xff'),
    'name that is not utf-8': changed(2, name=b'a/data/\xff', flags=0x800),
    'name in two encodings': changed(2, name='a/data/\u20ac'.encode(), flags=0x800, local_name=b'a/data/?'),
    'directory of 20 MB': lambda d: zipped(
        weight(), *(Member(b'a/%d' % i, extra=b'\x99\x99\xf0\xff' + bytes(65520)) for i in range(320))
    ),
    'directory of tiny extras': lambda d: archive(
        *(Member(b'a/%d' % i, extra=b'\x99\x99\0\0' * 16383) for i in range(250))
    ),
    '340,000 members': lambda d: archive(*(Member(b'%x' % i, signature=b'PK\x03\x04') for i in range(330_000))),
    'members of one name': lambda d: zipped(weight(), *(Member(b'a/x') for _ in range(1000))),
    'data.pkl twice': lambda d: archive(*members(weight()), *members(b'\x80\x02' + shell(d) + b'.')[:1]),
    'zip64 directory of 2**63 bytes': lambda d: zip64(size=1 << 63),
    'zip64 directory at 2**63': lambda d: zip64(start=1 << 63),
    'zip64 directory at zero': lambda d: zip64(size=0, start=0),
    'directory that is too long': lambda d: archive(*members(weight()), directory_size=(1 << 32) - 2),
    'directory that is too short': lambda d: archive(*members(weight()), directory_size=60),
    'directory before the file': lambda d: archive(*members(weight()), directory_start=(1 << 32) - 2),
    'comment with an end of its own': lambda d: archive(*members(weight()), comment=b'PK\x05\x06' + b'\xff' * 18),
    'overlapping members': overlapping,
    'overlapping storages': two_in_one,
    'parent folder': traversal(b'a/../../../canary'),
    'parent folder first': traversal(b'../canary'),
    'absolute': traversal(b'/tmp/canary'),
    'backslash': traversal(b'a\\..\\canary'),
    'NUL': traversal(b'a/data/1\x00.txt'),
    'data.pkl behind a NUL': lambda d: archive(Member(b'a/data.pkl\x00.txt', weight()), *members(b'')[1:]),
    'name of 65 kB': traversal(b'a/' + b'../' * 20_000),
    **{f'cut at {at}': lambda d, at=at: cut(zipped(weight()), at) for at in CUTS},
    'bytes missing in the middle': lambda d: zipped(weight())[:60] + zipped(weight())[80:],
}

SOUND_LEGACY = legacy()
LEGACY = {
    **{
        f'cut in the {what}': lambda d, at=at: SOUND_LEGACY[:at]
        for what, at in (
            ('protocol', 17),
            ('system information', 40),
            ('pickle', 120),
            ('storage header', -28),
            ('storage', -3),
            ('first number', -24),
            ('list of storages', -24 - 8 - 4),
            ('magic number, behind it', 15),
        )
    },
    'wrong protocol': lambda d: legacy(protocol=b'\x80\x02M\xea\x03.'),
    'protocol that is a long number': lambda d: legacy(protocol=b'\x80\x02' + number(1 << 100_000) + b'.'),
    'protocol that is a call': lambda d: legacy(protocol=shell(d) + b'.'),
    'other magic number': lambda d: legacy(magic=b'\x80\x02N0\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x190K\x01.'),
    'big-endian': lambda d: legacy(info=system(False)),
    'endless system information': lambda d: legacy(info=b'N' + b'N0' * 100_000 + b'.'),
    'deep system information': lambda d: legacy(info=b'N' + b'Q' * 900_000 + b'.'),
    'storage that is not listed': lambda d: legacy(keys=b'].'),
    'storage that is not used': lambda d: legacy(
        keys=b'](' + text('0') + text('1') + b'e.', numbers=DATA + struct.pack('<q', 6) + DATA
    ),
    'storage that is listed twice': lambda d: legacy(
        keys=b'](' + text('0') * 2 + b'e.', numbers=DATA + struct.pack('<q', 6) + DATA
    ),
    'list of storages that is a text': lambda d: legacy(keys=text('0') + b'.'),
    'list of storages of a call': lambda d: legacy(keys=b'](' + shell(d) + b'e.'),
    'list of storages of lists': lambda d: legacy(keys=b'](]e.'),
    'endless list of storages': lambda d: legacy(keys=b'N' + b'Q' * 900_000 + b'.'),
    'storage of other size': lambda d: legacy(count=5),
    'storage of negative size': lambda d: legacy(count=-6),
    'storage of huge size': lambda d: legacy(old_weight(of=storage_of_legacy(count=number(1 << 61))), count=1 << 61),
    'storage described twice': lambda d: legacy(
        old_weight(('b', tensor(of=storage_of_legacy(count=number(3)), shape=(1,), strides=(1,))))
    ),
    'storage with a view': lambda d: legacy(
        old_weight(of=storage_of_legacy(view=group(text('1'), number(0), number(6))))
    ),
    'storage with an evil view': lambda d: legacy(old_weight(of=storage_of_legacy(view=shell(d)))),
    'storage of a long name, again and again': lambda d: legacy(
        b'\x80\x02'
        + text('0' * 10 * MB)
        + b'q\x070'
        + text('0' * 10 * MB)
        + b'q\x080'
        + storage_of_legacy(b'h\x07')
        + storage_of_legacy(b'h\x08')
        + b'.'
    ),
    'offset beyond': lambda d: legacy(old_weight(offset=number(1))),
    'expansion': lambda d: legacy(old_weight(shape=(1 << 30,), strides=(0,))),
    'root that is a call': lambda d: legacy(shell(d) + b'.', b'].'),
}

SOUND_SAFE = safe()
SAFE = {
    'length cut': lambda d: SOUND_SAFE[:5],
    'only a length': lambda d: SOUND_SAFE[:8],
    'only a length and a brace': lambda d: SOUND_SAFE[:9],
    'header cut': lambda d: SOUND_SAFE[:40],
    'numbers cut': lambda d: SOUND_SAFE[:-1],
    'no numbers': lambda d: SOUND_SAFE[:-24],
    'length of 2**63': lambda d: safe(length=1 << 63),
    'length of 2**64 - 1': lambda d: safe(length=(1 << 64) - 1),
    'length of zero': lambda d: safe(length=0),
    'length that is too short': lambda d: safe(length=30),
    'length that is too long': lambda d: safe(length=90),
    'more bytes': lambda d: SOUND_SAFE + b'\0',
    'header that is no json': lambda d: safe(b'{weight: 1}'),
    'header that is a list': lambda d: safe(b'[1]'),
    'header that is two': lambda d: safe(b'{}{}', b''),
    'header that is not utf-8': lambda d: safe(b'{"\xff": 1}'),
    'header in utf-16': lambda d: safe('{"a": 1}'.encode('utf-16-le')),
    'header of huge numbers': lambda d: safe(b'{"a": ' + b'9' * 5_000_000 + b'}'),
    'header of empty lists': lambda d: safe(b'{"a": [' + b'{"":[]},' * 900_000 + b'0]}'),
    'header of 20 MB': lambda d: safe(b'{' + b' ' * (20 * MB) + b'}'),
    'deep header': lambda d: safe(b'{"a": ' * 100_000 + b'1' + b'}' * 100_000),
    'deep lists': lambda d: safe(b'{"a": ' + b'[' * 1_000_000),
    'name twice': lambda d: safe(SOUND_SAFE[8:-25] + b', ' + SOUND_SAFE[9:-24]),
    'key of an entry twice': lambda d: safe(SOUND_SAFE[8:-26] + b', "dtype": "F64"}}'),
    'entry that is a list': lambda d: safe({'weight': [1, 2, 3]}),
    'entry that is null': lambda d: safe({'weight': None}),
    'entry that is a text': lambda d: safe({'weight': 'F32'}),
    'entry without a type': lambda d: safe({'weight': {'shape': [6], 'data_offsets': [0, 24]}}),
    'entry without offsets': lambda d: safe({'weight': {'dtype': 'F32', 'shape': [6]}}),
    'unknown type': lambda d: safe(dtype='F4_E2M1'),
    'type that is a class': lambda d: safe(dtype='os.system\n'),
    'type that is a list': lambda d: safe(dtype=['F32']),
    'type of other size': lambda d: safe(dtype='F16'),
    'other shape': lambda d: safe(shape=[2, 4]),
    'float shape': lambda d: safe(shape=[2.0, 3]),
    'bool shape': lambda d: safe(shape=[True, 6]),
    'negative shape': lambda d: safe(shape=[-2, -3]),
    'shape of texts': lambda d: safe(shape=['2', '3']),
    'shape that is a number': lambda d: safe(shape=6),
    'shape that overflows': lambda d: safe(shape=[1 << 32, 1 << 32, 6]),
    'empty, but too long for NumPy': lambda d: safe(
        {'a': {'dtype': 'F32', 'shape': [0, 1 << 61], 'data_offsets': [0, 0]}}, b''
    ),
    'shape of 33 axes': lambda d: safe(shape=[1] * 32 + [6]),
    'shape of a million axes': lambda d: safe(shape=[1] * 1_000_000 + [6]),
    'three offsets': lambda d: safe(data_offsets=[0, 24, 24]),
    'one offset': lambda d: safe(data_offsets=[24]),
    'offsets that are texts': lambda d: safe(data_offsets='ab'),
    'float offsets': lambda d: safe(data_offsets=[0.0, 24.0]),
    'nan offsets': lambda d: safe(data_offsets=[float('nan'), float('inf')]),
    'negative offsets': lambda d: safe(data_offsets=[-24, 0]),
    'swapped offsets': lambda d: safe(data_offsets=[24, 0]),
    'offsets beyond the end': lambda d: safe(data_offsets=[4, 28]),
    'offsets far beyond the end': lambda d: safe(data_offsets=[1 << 61, (1 << 61) + 24]),
    'overlap': lambda d: safe({'a': entry(0, 16), 'b': entry(8, 24)}),
    'the same twice': lambda d: safe({'a': entry(0, 24), 'b': entry(0, 24)}),
    'gap': lambda d: safe({'a': entry(0, 8), 'b': entry(16, 24)}),
    'gap at the start': lambda d: safe({'a': entry(8, 24)}),
}

OTHER_FILES = {
    'empty.ckpt': b'',
    'one byte.ckpt': b'P',
    'zeros.ckpt': bytes(1000),
    'html.ckpt': b'<!DOCTYPE html>\n<html><body>404 Not Found</body></html>',
    'xml.safetensors': b'\n  <?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    'lfs.ckpt': b'version https://git-lfs.github.com/spec/v1\noid sha256:' + b'0' * 64 + b'\nsize 4265380512\n',
    'gzip.ckpt': gzip.compress(zipped(weight())),
    'plain pickle.ckpt': pickle.dumps({'weight': [1, 2, 3]}),
    'evil pickle.ckpt': b'\x80\x02cos\nsystem\n(X\x0b\x00\x00\x00touch canarytR.',
    'text.txt': 'Grüße\x1b[31m\n'.encode(),
    'tensors in json.json': b'{"weight": [1, 2, 3]}',
    'onnx.onnx': b'\x08\x07\x12\x07pytorch',
    'end of zip.zip': b'PK\x05\x06' + bytes(18),
    'numbers behind a zip magic.ckpt': b'PK\x03\x04' + bytes(range(256)) * 400,
}


def index(weight_map, write_shard=True, raw=None, name='m.bin.index.json'):
    """Builder of an index beside one sound shard `m.bin`; `raw` stands for the whole text."""

    def build(d):
        if write_shard:
            (d / 'm.bin').write_bytes(zipped(weight()))
        path = d / name
        path.write_bytes(json.dumps({'metadata': {}, 'weight_map': weight_map}).encode() if raw is None else raw)
        return path

    return build


def index_of_pipe(d):
    os.mkfifo(d / 'pipe.bin')
    return index({'weight': 'pipe.bin'})(d)


def index_of_outside(d):
    (d / 'inner').mkdir()
    index({})(d)
    return index({'weight': '../m.bin'}, False)(d / 'inner')


def pipe(name):
    def build(d):
        os.mkfifo(d / name)
        return d / name

    return build


def link(target, name):
    def build(d):
        (d / name).symlink_to(target)
        return d / name

    return build


def folder(name):
    def build(d):
        (d / name).mkdir()
        return d / name

    return build


PLACES = {
    'index: parent folder': index_of_outside,
    'index: absolute path': lambda d: index({'weight': str(d / 'm.bin')})(d),
    'index: backslash': index({'weight': '..\\m.bin'}),
    'index: dot': index({'weight': '.'}),
    'index: two dots': index({'weight': '..'}),
    'index: empty name': index({'weight': ''}),
    'index: NUL': index({'weight': 'm.bin\x00'}),
    'index: line break': index({'weight': 'm\n.bin\x1b[31m'}),
    'index: surrogate': index({'weight': 'm\ud800.bin'}),
    'index: long name': index({'weight': 'm' * 5000}),
    'index: long shard name in the file system': index({'weight': 'm' * 256}),
    'index: names itself': index({'weight': 'm.bin.index.json'}),
    'index: missing shard': index({'weight': 'm-00001-of-00002.bin'}),
    'index: tensor that is not in the shard': index({'weight': 'm.bin', 'b\n': 'm.bin'}),
    'index: tensor of the shard not listed': index({'bias': 'm.bin'}),
    'index: number for a file': index({'weight': 1}),
    'index: list for a file': index({'weight': ['m.bin']}),
    'index: empty map': index({}),
    'index: map that is a list': index(['m.bin']),
    'index: no map': index(None, raw=b'{}'),
    'index: a list': index(None, raw=b'[]'),
    'index: not json': index(None, raw=b'weight_map'),
    'index: empty': index(None, raw=b''),
    'index: not utf-8': index(None, raw=b'{"weight_map": "\xff"}'),
    'index: deep': index(None, raw=b'[' * 1_000_000),
    'index: of many numbers': index(None, raw=b'{"weight_map": [' + b'{"":[]},' * 900_000 + b'0]}'),
    'index: too large': index(None, raw=b'{"weight_map": {"' + b'a' * 20 * MB + b'": "m.bin"}}'),
    'index: shard is a pipe': index_of_pipe,
    'index: is a pipe': pipe('m.bin.index.json'),
    'index: is /dev/zero': link('/dev/zero', 'm.bin.index.json'),
    'index: is missing': lambda d: d / 'm.bin.index.json',
    'index: is a folder': folder('m.bin.index.json'),
    'missing file': lambda d: d / 'missing.ckpt',
    'missing folder': lambda d: d / 'missing' / 'missing.ckpt',
    'long path': lambda d: d / ('m' * 256),
    'folder': folder('model.ckpt'),
    'pipe': pipe('model.ckpt'),
    '/dev/zero': lambda d: Path('/dev/zero'),
    'link to /dev/zero': link('/dev/zero', 'model.safetensors'),
    'link to itself': link('model.ckpt', 'model.ckpt'),
    'link to nothing': link('nothing', 'model.ckpt'),
    'file below a file': lambda d: index({})(d) / 'model.ckpt',
}


def _file(make, name):
    def build(directory):
        path = directory / name
        path.write_bytes(make(directory))
        return path

    return build


def _packed(make, pack):
    return lambda d: pack(make(d))


REFUSED, INERT = dict(PLACES), {}
for _name, _make in CALLS.items():
    INERT[f'zip beside: {_name}'] = _file(_packed(_make, lambda value: zipped(evil(value))), 'model.ckpt')
    REFUSED[f'zip at the root: {_name}'] = _file(
        _packed(_make, lambda value: zipped(b'\x80\x02](' + value + b'e.')), 'model.ckpt'
    )
for _name in ('os.system', 'stack_global', 'torch.load', 'obj', 'ext1', 'build with __setstate__'):
    INERT[f'legacy beside: {_name}'] = _file(
        _packed(CALLS[_name], lambda value: legacy(old_weight(('evil', value)))), 'model.pth'
    )
    INERT[f'legacy system information: {_name}'] = _file(
        _packed(CALLS[_name], lambda value: legacy(info=system(True, text('evil') + value))), 'model.pth'
    )
for _name, _make in ODD.items():
    INERT[f'zip: {_name}'] = _file(_packed(_make, zipped), 'model.ckpt')
for _name, _make in BROKEN.items():
    REFUSED[f'pickle: {_name}'] = _file(_packed(_make, zipped), 'model.ckpt')
for _name, _how in TENSORS.items():
    REFUSED[f'tensor: {_name}'] = _file((lambda how: lambda d: zipped(weight(**how)))(_how), 'model.ckpt')
for _name, _make in WRONG_CALLS.items():
    REFUSED[f'call: {_name}'] = _file(_packed(_make, lambda value: zipped(evil(value))), 'model.ckpt')
for _kind, _table, _file_name in (
    ('zip', ZIPS, 'model.ckpt'),
    ('legacy', LEGACY, 'model.pth'),
    ('safetensors', SAFE, 'model.safetensors'),
):
    REFUSED.update({f'{_kind}: {_name}': _file(_make, _file_name) for _name, _make in _table.items()})
REFUSED.update(
    {f'file: {_name}': _file((lambda data: lambda d: data)(_data), _name) for _name, _data in OTHER_FILES.items()}
)
INERT.update(
    {
        'zip: sound': _file(lambda d: zipped(weight()), 'model.ckpt'),
        'zip: code of TorchScript': _file(
            lambda d: zipped(
                weight(), Member(b'a/code/__torch__.py', b'import evil'), Member(b'a/code/evil.pkl', nested(d))
            ),
            'model.pt',
        ),
        'zip: bytes behind and a comment': _file(
            lambda d: archive(*members(weight()), comment=b'hello\n' * 1000), 'model.ckpt'
        ),
        'zip: deflated member that is not read': _file(
            lambda d: zipped(weight(), Member(b'a/bomb', bomb(1), method=8, size=1 << 30)), 'model.ckpt'
        ),
        'legacy: sound': _file(lambda d: legacy(), 'model.pth'),
        'legacy: bytes behind': _file(lambda d: legacy() + bytes(1000), 'model.pth'),
        'safetensors: sound': _file(lambda d: safe(), 'model.safetensors'),
        'safetensors: odd names': _file(
            lambda d: safe(
                {
                    '__metadata__': {'a': '\n'},
                    '../../canary\n\x1b': entry(24, 28),
                    'weight': entry(0, 24, [2, 3]),
                    '': entry(28, 28),
                },
                DATA + bytes(4),
            ),
            'model.safetensors',
        ),
        'safetensors: metadata that are none': _file(
            lambda d: safe({'__metadata__': [1, None], 'weight': entry(0, 24, [2, 3])}), 'model.safetensors'
        ),
        'index: sound': index({'weight': 'm.bin'}),
    }
)

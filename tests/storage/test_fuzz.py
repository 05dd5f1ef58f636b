"""Random damage: a file is refused with CheckpointError, or all of its tensors can be read. Nothing else may be raised.

FUZZ_EXAMPLES=20000 in the environment makes the search longer, and a new one each time.
"""

import json
import os
import pickletools
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.reader import open_checkpoint
from tests.storage import corpus
from tests.storage.corpus import (
    Member,
    archive,
    legacy,
    mapping,
    members,
    named,
    number,
    safe,
    storage,
    tensor,
    text,
    weight,
    zipped,
)

EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', 0))
MAX_READ = 64 << 20  # bytes of tensors read from one file
STORAGES = {
    'DoubleStorage': 3,
    'FloatStorage': 6,
    'BFloat16Storage': 12,
    'LongStorage': 3,
    'ByteStorage': 24,
    'BoolStorage': 24,
}
SEEDS = {
    'zip': zipped(
        weight(
            *(
                (name, tensor(of=storage(cls=named('torch', name), count=number(n)), shape=(n,), strides=(1,)))
                for name, n in STORAGES.items()
            )
        )
    ),
    'TorchScript': zipped(
        b'\x80\x02'
        + named('__torch__', 'M')
        + b')\x81'
        + mapping(
            ('weight', tensor()),
            ('inner', named('__torch__', 'N') + b')\x81' + mapping(('bias', tensor(shape=(2,), strides=(3,)))) + b'b'),
        )
        + b'b.'
    ),
    'zip beside evil': zipped(corpus.evil(corpus.call('os', 'system', text('true')) + b'q\x01h\x01h\x01\x86b')),
    'zip64': corpus.zip64(),
    'legacy': legacy(),
    'safetensors': safe(),
    'safetensors of two': safe(
        {
            '__metadata__': {'a': 'b'},
            'a': corpus.entry(0, 8, [2, 1]),
            'b': {'dtype': 'BF16', 'shape': [8], 'data_offsets': [8, 24]},
        }
    ),
}
# fmt: off
ODD_NUMBERS = st.sampled_from([
    0, 1, 2, 3, 6, 7, 24, 255, 2**31, 2**32 - 1, 2**32, 2**59, 2**61, 2**62, 2**63 - 1, 2**63, 2**64, 2**80,
    -1, -6, -(2**63),
])
# fmt: on


def fuzz(examples):
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('fuzz')


def check(folder, data, name='model.ckpt'):
    path = folder / name
    path.write_bytes(data)
    try:
        tensors = open_checkpoint(path).tensors
    except CheckpointError as e:
        assert (
            type(e) is CheckpointError
            and str(path) in str(e)
            and str(e).isprintable()
            and len(str(e)) < 2 * len(str(path)) + 400
        ), e
        return
    read = 0
    for value in tensors.values():
        read += value.nbytes
        if read > MAX_READ:
            break
        array = value.numpy().copy()
        assert (array.shape, array.dtype) == (value.shape, value.dtype)


# places as shares of the data, so that they are valid in data of any length
PLACE = st.floats(0, 1, exclude_max=True)
CHANGE = st.one_of(
    st.tuples(st.just('flip'), PLACE, st.integers(0, 7)),
    st.tuples(
        st.just('set'),
        PLACE,
        st.one_of(st.binary(min_size=1, max_size=8), ODD_NUMBERS.map(lambda n: struct.pack('<q', n % 2**63))),
    ),
    st.tuples(st.just('insert'), PLACE, st.binary(max_size=8)),
    st.tuples(st.just('remove'), PLACE, st.integers(1, 40)),
    st.tuples(st.just('cut'), PLACE, st.none()),
    st.tuples(st.just('repeat'), PLACE, st.integers(1, 60)),
    st.tuples(st.just('swap'), PLACE, st.tuples(PLACE, st.integers(1, 40))),
    st.tuples(st.just('splice'), PLACE, st.tuples(PLACE, st.sampled_from(list(SEEDS)))),
)


def change(data, kind, place, how):
    at = int(place * len(data))
    if kind == 'flip' and data:
        return data[:at] + bytes([data[at] ^ 1 << how]) + data[at + 1 :]
    if kind == 'set':
        return data[:at] + how + data[at + len(how) :]
    if kind == 'insert':
        return data[:at] + how + data[at:]
    if kind == 'remove':
        return data[:at] + data[at + how :]
    if kind == 'cut':
        return data[:at]
    if kind == 'repeat':
        return data[:at] + data[at : at + how] * 2 + data[at + how :]
    if kind == 'swap':
        a, b = sorted((at, int(how[0] * len(data))))
        n = min(how[1], b - a)
        return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]
    if kind == 'splice':
        other = SEEDS[how[1]]
        return data[:at] + other[int(how[0] * len(other)) :]
    return data


@pytest.mark.parametrize('seed', SEEDS)
def test_damaged_files(seed, folder):
    @fuzz(300)
    @given(st.lists(CHANGE, min_size=1, max_size=5))
    def run(changes):
        data = SEEDS[seed]
        for one in changes:
            data = change(data, *one)
        check(folder, data)

    run()


@pytest.mark.parametrize('seed', ['zip', 'TorchScript'])
def test_damaged_pickles_in_sound_archives(seed, folder):
    data = SEEDS[seed][30 + len('a/data.pkl') : SEEDS[seed].index(b'PK\x03\x04', 4)]

    @fuzz(500)
    @given(st.lists(CHANGE, min_size=1, max_size=4))
    def run(changes):
        mutated = data
        for one in changes:
            mutated = change(mutated, *one)
        check(folder, zipped(mutated))

    run()


# fmt: off
NAMES = st.sampled_from([
    'weight', '0', '1', 'storage', 'cpu', 'torch', 'FloatStorage', 'state_dict', 'model', '_parameters', '_modules',
    '_buffers', 'system',
])
# fmt: on
CLASSES = st.sampled_from(
    [
        *(('torch._utils', n) for n in ('_rebuild_tensor_v2', '_rebuild_tensor_v3', '_rebuild_parameter')),
        ('os', 'system'),
        *(('torch', n) for n in ('FloatStorage', 'DoubleStorage', 'UntypedStorage', 'float16', 'Size')),
        ('collections', 'OrderedDict'),
        ('torch.jit._pickle', 'restore_type_tag'),
        ('__torch__', 'M'),
    ]
)
BARE = [op.code.encode('latin-1') for op in pickletools.opcodes if op.arg is None and op.name != 'STOP']
# fmt: off
WITH_ARGUMENT = [
    b'I01\n', b'I1\n', b'L2L\n', b'F1.5\n', b"S'0'\n", b'Vab\n', b'P0\n', b'g0\n', b'p0\n', b'G' + bytes(8), b'C\x01a',
    b'\x8c\x010', b'U\x010', b'\x82\x01', b'\x80\x04', b'\x95' + bytes(8), b'\x8e' + struct.pack('<Q', 1) + b'a',
    b'M\x06\x00', b'K\x02', b'J\x06\x00\x00\x00',
]
# fmt: on
NUMBER = st.one_of(st.integers(0, 7), ODD_NUMBERS)
SIZES = st.lists(NUMBER, max_size=4).map(corpus.sizes)
STORAGE = st.builds(
    lambda key, cls, n: storage(text(key), number(n), named('torch', cls)),
    st.sampled_from(['0', '0', '1', '../0']),
    st.sampled_from(list(STORAGES) + ['ComplexFloatStorage']),
    st.one_of(st.sampled_from([3, 6, 12, 24]), NUMBER),
)
PIECE = st.one_of(
    st.sampled_from(BARE),
    st.sampled_from(WITH_ARGUMENT),
    NAMES.map(text),
    NUMBER.map(number),
    CLASSES.map(lambda c: named(*c)),
    CLASSES.map(lambda c: text(c[0]) + text(c[1]) + b'\x93'),
    CLASSES.map(lambda c: f'i{c[0]}\n{c[1]}\n'.encode()),
    st.integers(0, 3).map(lambda i: bytes([0x71, i])),  # put
    st.integers(0, 3).map(lambda i: bytes([0x68, i])),  # get
    SIZES,
    STORAGE,
    st.builds(
        lambda of, offset, shape, strides: tensor(number(offset), shape, strides, of), STORAGE, NUMBER, SIZES, SIZES
    ),
    st.builds(
        lambda of, offset, n, stride: tensor(number(offset), (n,), (stride,), of), STORAGE, NUMBER, NUMBER, NUMBER
    ),
)


@fuzz(2000)
@given(pieces=st.lists(PIECE, max_size=40), wrap=st.booleans())
def test_random_pickles(folder, pieces, wrap):
    """Any opcodes in any order; where `wrap`, as a value of a state dict, so that tensors among them are found."""
    data = b''.join(pieces)
    check(folder, zipped(b'\x80\x02' + (b'}(' + text('a') + data + b'u.' if wrap else data + b'.')))


@fuzz(1000)
@given(
    of=STORAGE,
    offset=NUMBER,
    axes=st.lists(st.tuples(NUMBER, NUMBER), max_size=5),
    old=st.booleans(),
    dtype=st.none() | st.sampled_from(['float16', 'float64', 'bool', 'bfloat16', 'x']),
)
def test_random_tensors(folder, of, offset, axes, dtype, old):
    how = {} if dtype is None else {'name': '_rebuild_tensor_v3', 'last': (named('torch', dtype),)}
    data = weight(
        of=of[:-2] + b'Nt' + of[-1:] if old else of,
        offset=number(offset),
        shape=[a for a, _ in axes],
        strides=[b for _, b in axes],
        **how,
    )
    check(folder, legacy(data) if old else zipped(data))


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBER, st.floats(), st.text(max_size=5), st.sampled_from(['F32', 'BF16', 'U8'])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)
DTYPE = st.sampled_from(['F32', 'F16', 'BF16', 'BOOL', 'I64', 'F8_E4M3'])
ENTRY = JSON | st.fixed_dictionaries(
    {},
    optional={
        'dtype': DTYPE | JSON,
        'shape': st.lists(NUMBER, max_size=4) | JSON,
        'data_offsets': st.tuples(NUMBER, NUMBER) | JSON,
        'more': JSON,
    },
)
SOUND_ENTRY = st.builds(lambda at, n: corpus.entry(4 * at, 4 * (at + n), [n, 1]), st.integers(0, 6), st.integers(0, 6))


@fuzz(500)
@given(
    header=st.dictionaries(st.text(max_size=3) | st.just('__metadata__'), SOUND_ENTRY | ENTRY, max_size=4) | JSON,
    numbers=st.integers(0, 32),
)
def test_random_safetensors(folder, header, numbers):
    data = json.dumps(header).encode()
    check(folder, safe(b'{' + data[1:] if data[:1] in b'[' else data, bytes(numbers)), 'model.safetensors')


FILES = st.dictionaries(
    st.text(max_size=3) | st.just('weight'), st.sampled_from(['m.bin', 'no.bin']) | st.text(max_size=5), max_size=3
)


@fuzz(500)
@given(index=JSON | st.fixed_dictionaries({'weight_map': JSON | FILES}))
def test_random_index(folder, index):
    (folder / 'm.bin').write_bytes(zipped(weight()))
    path = folder / 'm.bin.index.json'
    path.write_text(json.dumps(index))
    try:
        assert set(open_checkpoint(path).tensors) == {'weight'}
    except CheckpointError as e:
        assert str(folder) in str(e) and str(e).isprintable()


FIELD = st.none() | st.sampled_from([0, 1, 8, 24, 30, 63, 2**31, 2**32 - 2, 2**32 - 1])
MEMBER = st.builds(
    lambda name, data, method, flags, local_flags, size, packed, local_name, offset, extra: Member(
        name.encode('utf-8', 'surrogatepass')[:100],
        data,
        method,
        flags,
        local_flags,
        size,
        packed,
        local_name,
        offset,
        extra=extra,
    ),
    st.sampled_from(['a/data.pkl', 'a/data/0', 'a/byteorder', 'a/data/1', 'b/data.pkl', 'data.pkl'])
    | st.text(max_size=5),
    st.sampled_from([weight(), corpus.DATA, b'little', b'']),
    st.sampled_from([0, 0, 0, 8, 99]),
    st.sampled_from([0, 0, 0x800, 8, 1]),
    st.sampled_from([None, None, 1]),
    FIELD,
    FIELD,
    st.none() | st.binary(max_size=5),
    FIELD,
    st.sampled_from([b'', b'', b'\x01\x00\x08\x00' + bytes(8), b'\x01\x00\x10\x00' + b'\xff' * 16, b'\x01\x00\xff\xff'])
    | st.binary(max_size=12),
)


CHANGED_FIELD = st.tuples(st.integers(0, 2), st.sampled_from(['size', 'packed', 'offset', 'method', 'flags']), FIELD)
END = st.fixed_dictionaries(
    {},
    optional={
        'count': st.integers(0, 65535),
        'directory_size': FIELD,
        'directory_start': FIELD,
        'disk': st.integers(0, 2),
        'comment': st.binary(max_size=30),
        'after': st.binary(max_size=30),
        'prefix': st.binary(max_size=3),
    },
)


@fuzz(500)
@given(others=st.lists(MEMBER, max_size=4), changes=st.lists(CHANGED_FIELD, max_size=2), end=END)
def test_random_archives(folder, others, changes, end):
    sound = members(weight())
    for i, field, value in changes:
        setattr(sound[i], field, (value or 0) % 2**16 if field in ('method', 'flags') else value)
    check(folder, archive(*sound, *others, **end))


def test_seeds_are_sound(folder):
    for name, data in SEEDS.items():
        path = folder / 'seed'
        path.write_bytes(data)
        assert open_checkpoint(path).tensors, name

"""ckpt_convert's reader gives bit for bit what torch saved, in each format that torch, safetensors and transformers
write."""

import collections
import importlib
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.reader import open_checkpoint

# fmt: off
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)
# fmt: on
STRANGER = '''
from pathlib import Path
(Path(__file__).parent / 'imported').touch()     # each time it is imported
class Callback:
    def __init__(self): self.best, self.table = 0.5, {1: [2, 3]}
    def __setstate__(self, state): (Path(__file__).parent / 'called').touch()
class Table(dict): pass
class Kind(str): pass
'''


def state_dict():
    """Tensors of each type and layout."""
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    state = {str(dtype).split('.')[1]: torch.randint(0, 256, (3, 2)).to(dtype) for dtype in DTYPES}
    # each number there is, NaNs too
    state['bits'] = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    state['half bits'] = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    state.update(
        {
            'base': base,
            'same': base,
            'transposed': base.t(),
            'rows': base[2:4],
            'strided': base[1:5:2, ::3],
            'axes': torch.randn(2, 3, 4).permute(2, 0, 1),
            'expanded': torch.randn(3, 1).expand(3, 4),
            'scalar': torch.tensor(3.5),
            'bfloat16 scalar': torch.tensor(1.25, dtype=torch.bfloat16),
            'element': base[3, 2],
            'empty': torch.zeros(0, 3),
            'nothing': torch.zeros(0),
            'one': torch.randn(1, 1)[:, 0],
            'diagonal': base.diagonal(),
            'bfloat16 strided': torch.randn(4, 4).bfloat16()[::2, 1::2],
            'bytes as floats': torch.arange(16, dtype=torch.uint8).view(torch.float32),
            'parameter': nn.Parameter(torch.randn(2, 2)),
            'frozen': nn.Parameter(torch.randn(2), requires_grad=False),
            'dots.and/\u00e9': torch.ones(2),
        }
    )
    return collections.OrderedDict(state)


def numbers(tensor):
    """NumPy's array of a tensor; bfloat16 becomes float32, whose upper bits it is."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return (
            tensor.view(torch.int16).numpy().view(np.uint16).astype(np.uint32).reshape(tensor.shape)
            * np.uint32(1 << 16)
        ).view(np.float32)
    return tensor.numpy()


def assert_same(path, expected, kind):
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == kind
    assert set(checkpoint.tensors) == set(expected)
    for name, tensor in expected.items():
        lazy, right = checkpoint.tensors[name], numbers(tensor)
        got = lazy.numpy()
        assert isinstance(got, np.ndarray) and got.flags.c_contiguous, name
        assert (got.shape, got.dtype, lazy.shape, lazy.dtype) == (right.shape, right.dtype) * 2, name
        assert got.tobytes() == right.tobytes(), name
        assert lazy.numpy().tobytes() == right.tobytes(), f'{name}, read again'
    return checkpoint


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.linear = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.randn(2, 2))
        self.register_buffer('buffer', torch.arange(3))
        self.register_buffer('nothing', None)

    def forward(self, x):
        return self.linear(x)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module whose classes stand in a checkpoint; it can be imported, which leaves a file."""
    (tmp_path / 'stranger_of_reader.py').write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module('stranger_of_reader')
    sys.modules.pop('stranger_of_reader', None)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('zipped', [True, False])
def test_torch_save(tmp_path, zipped, protocol):
    state, kind = state_dict(), 'zip' if zipped else 'legacy'
    if not zipped:
        state.pop('bytes as floats')  # torch refuses to save two types of one storage in the old format
    path = tmp_path / 'model.ckpt'
    how = {'pickle_protocol': protocol, '_use_new_zipfile_serialization': zipped}
    torch.save(dict(state), path, **how)
    checkpoint = assert_same(path, state, kind)
    assert checkpoint.other == [] and list(checkpoint.tensors) == list(state)
    state._metadata = {'': {'version': 1}}  # as of module.state_dict()
    for wrapper in ('state_dict', 'model_state_dict', 'model'):
        torch.save(
            {
                'epoch': 3,
                'optimizer': {'state': {0: {'step': torch.tensor(1.0)}}, 'param_groups': [{'lr': 0.1}]},
                wrapper: state,
            },
            path,
            **how,
        )
        assert_same(path, state, kind)
    torch.save(
        {**state, 'step': 7, 'rate': 0.5, 'name': 'x', 'list': [torch.ones(2)], 5: torch.ones(1), 'none': None},
        path,
        **how,
    )
    assert {'step', 'rate', 'name', 'list', '5'} <= set(assert_same(path, state, kind).other)


@pytest.mark.parametrize('zipped', [True, False])
def test_module(tmp_path, zipped):
    module = Block()
    module.tied = module.scale
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        module = module.to(dtype)
        torch.save(module, tmp_path / 'module.pt', _use_new_zipfile_serialization=zipped)
        checkpoint = open_checkpoint(tmp_path / 'module.pt')
        assert set(checkpoint.tensors) == set(module.state_dict())
        for name, tensor in module.state_dict().items():
            np.testing.assert_array_equal(checkpoint.tensors[name].numpy(), numbers(tensor), strict=True)


@pytest.mark.parametrize('how', ['script', 'trace', 'half', 'bfloat16'])
def test_torchscript(tmp_path, how):
    module = Block().eval()
    module = {'half': module.half, 'bfloat16': module.bfloat16}.get(how, module.float)()
    compiled = torch.jit.trace(module, torch.randn(1, 3)) if how == 'trace' else torch.jit.script(module)
    compiled.save(str(tmp_path / 'module.pt'))
    assert_same(tmp_path / 'module.pt', compiled.state_dict(), 'TorchScript')


@pytest.mark.parametrize('zipped', [True, False])
def test_classes_of_the_file_are_never_imported(tmp_path, stranger, zipped):
    state = {
        'weight': torch.randn(2, 3),
        'callback': stranger.Callback(),
        'table': stranger.Table(a=1),
        'kind': stranger.Kind('x'),
        'class': stranger.Callback,
        'random': np.random.RandomState(0).get_state(),
        'numpy': np.float64(3),
        'device': torch.device('cpu'),
        'type': torch.float32,
        'size': torch.Size([1, 2]),
        'path': tmp_path,
        'set': {1, 2},
        'bytes': b'x' * 300,
        'number': 1 << 70,
    }
    if zipped:  # in the old format, a storage of unknown type would hide what follows
        state['complex'] = torch.randn(2).cfloat()
    path = tmp_path / 'model.ckpt'
    torch.save(
        {'state_dict': state, 'callbacks': {stranger.Callback: stranger.Callback()}},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    del sys.modules['stranger_of_reader']
    (tmp_path / 'imported').unlink()
    before = set(sys.modules)
    checkpoint = assert_same(path, {'weight': state['weight']}, 'zip' if zipped else 'legacy')
    assert set(checkpoint.other) == set(state) - {'weight', 'callback'}  # it might be a module, but has no tensors
    assert {m for m in set(sys.modules) - before if not m.startswith('encodings.')} == set()
    assert not (tmp_path / 'imported').exists() and not (tmp_path / 'called').exists()


@pytest.mark.parametrize('zipped', [True, False])
def test_shared_storage(tmp_path, zipped):
    big = torch.randn(1000)
    state = {f'part {i}': big[i * 100 : i * 100 + 100].view(10, 10).t() for i in range(10)}
    torch.save(state, tmp_path / 'model.pt', _use_new_zipfile_serialization=zipped)
    assert_same(tmp_path / 'model.pt', state, 'zip' if zipped else 'legacy')


def test_safetensors(tmp_path):
    state = {name: tensor.detach().contiguous().clone() for name, tensor in state_dict().items()}
    save_file(state, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    assert_same(tmp_path / 'model.safetensors', state, 'safetensors')
    save_file({}, tmp_path / 'none.safetensors')
    assert open_checkpoint(tmp_path / 'none.safetensors').tensors == {}


@pytest.mark.parametrize('safe', [True, False])
def test_shards_of_transformers(tmp_path, safe):
    torch.manual_seed(0)
    model = CLIPTextModel(
        CLIPTextConfig(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    ).bfloat16()
    model.save_pretrained(tmp_path, max_shard_size='20KB', safe_serialization=safe)
    (index,) = tmp_path.glob('*.index.json')
    shards = set(json.loads(index.read_text())['weight_map'].values())
    assert len(shards) > 2
    checkpoint = assert_same(index, model.state_dict(), 'safetensors' if safe else 'zip')
    assert {p.name for p in checkpoint.paths} == shards | {index.name}
    (tmp_path / min(shards)).unlink()
    with pytest.raises(CheckpointError, match=min(shards)):
        open_checkpoint(index)


@pytest.mark.parametrize('share', [0.01, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize('kind', ['zip', 'legacy', 'TorchScript', 'safetensors'])
def test_cut_files_are_refused(tmp_path, kind, share):
    """A download that ended early."""
    path, module = tmp_path / 'model', Block()
    if kind == 'TorchScript':
        torch.jit.script(module).save(str(path))
    elif kind == 'safetensors':
        save_file({'a': torch.randn(100), 'b': torch.randn(7)}, path)
    else:
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=kind == 'zip')
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match='model'):
        open_checkpoint(path)

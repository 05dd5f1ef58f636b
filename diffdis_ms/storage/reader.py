"""Read any checkpoint file as {name: LazyTensor}. Nothing in the file is imported, called or changed."""

import re
from dataclasses import dataclass
from pathlib import Path

from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.safetensors_file import read_safetensors
from diffdis_ms.storage.tensors import LazyTensor, MappedFile, short
from diffdis_ms.storage.torch_file import LEGACY_BYTES, read_legacy, read_zip
from diffdis_ms.storage.unpickle import Inert
from diffdis_ms.text_files import decode, parse_json

WRAPPERS = ('state_dict', 'model_state_dict', 'model')  # keys under which trainers store the weights
MAX_DEPTH = 64  # levels of nested modules
MAX_NAMES = 1_000_000  # number of visited names; a long name counts several times
MAX_INDEX = 8 << 20  # bytes of an index.json
INDEX = re.compile(r'.*\.index(\.[\w-]+)?\.json$')  # also for variants: .index.fp16.json
HINTS = (
    (b'<', 'an HTML or XML page: the download went wrong'),
    (b'version https://git-lfs', 'a Git LFS pointer: run `git lfs pull`'),
    (b'\x1f\x8b', 'gzip-compressed: unpack it first'),
    (b'BZh', 'bzip2-compressed: unpack it first'),
    (b'\xfd7zXZ', 'xz-compressed: unpack it first'),
    (b'7z\xbc\xaf', 'a 7z archive: unpack it first'),
    (b'\x80', 'a pickle, but not one of torch.save'),
    (b'\x89HDF', 'an HDF5 file'),
)


@dataclass
class Checkpoint:
    """The content of a checkpoint file, or of all its shards.

    Attributes:
        paths: the files read. format: 'zip', 'TorchScript', 'legacy' or 'safetensors'. tensors: {name: LazyTensor}.
        other: names beside the tensors whose values are not tensors (numbers, texts, objects of unknown classes).
    """

    paths: list[Path]
    format: str
    tensors: dict[str, LazyTensor]
    other: list[str]


def open_checkpoint(path):
    """Read names and positions of all tensors of a file.

    Args:
        path: .ckpt, .pt, .pth, .bin (zip archive, TorchScript or the format before torch 1.6), .safetensors,
            .index.json or .index.fp16.json.

    Returns:
        Checkpoint; no tensor has been read yet.

    Raises:
        CheckpointError: the file is missing, damaged, malicious, or in another format.
    """
    path = Path(path)
    if INDEX.match(path.name):
        return _open_index(path)
    file = MappedFile(path)
    start = file.read(0, min(64, file.size))
    if start.startswith(b'PK\x03\x04'):
        root = read_zip(file)
        tensors, other = find_tensors(root, path)
        kind = (
            'TorchScript'
            if isinstance(root, Inert) and getattr(root.cls, 'module', '').startswith('__torch__')
            else 'zip'
        )
        return Checkpoint([path], kind, tensors, other)
    if LEGACY_BYTES in start[:32]:
        return Checkpoint([path], 'legacy', *find_tensors(read_legacy(file), path))
    if start[8:9] == b'{':
        return Checkpoint([path], 'safetensors', read_safetensors(file), [])
    hint = next(
        (text for magic, text in HINTS if start.lstrip().startswith(magic)), 'neither a PyTorch nor a safetensors file'
    )
    raise CheckpointError(f'{path} is {hint}')


def _open_index(path):
    """Open the shards of an index. Its `weight_map` names the file of each tensor, in the same folder."""
    file = MappedFile(path)
    if file.size > MAX_INDEX:
        raise CheckpointError(f'{path} is too large for an index')
    try:
        weight_map = parse_json(
            decode(file.read(0, file.size), path, CheckpointError), path, dict, CheckpointError
        ).get('weight_map')
    except CheckpointError as e:
        raise CheckpointError(f'{e}; an index of shards was expected') from None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise CheckpointError(f'{path}: weight_map is no mapping of tensors to files')
    for name in set(weight_map.values()):
        if name != Path(name).name or '\\' in name or len(name) > 255 or not name.isprintable() or INDEX.match(name):
            raise CheckpointError(f'{path} names {short(name)}, which is not a file beside it')
    tensors, paths, kind = {}, [path], ''
    for name in sorted(set(weight_map.values())):
        shard = open_checkpoint(path.parent / name)
        unlisted = next((t for t in shard.tensors if t not in weight_map), None)
        if unlisted is not None:  # checked per shard, so that shards do not accumulate
            raise CheckpointError(f'{path} does not list {short(unlisted)}, which {short(name)} contains')
        tensors.update({t: tensor for t, tensor in shard.tensors.items() if weight_map[t] == name})
        paths, kind = paths + shard.paths, kind or shard.format
    missing = next((t for t in weight_map if t not in tensors), None)
    if missing is not None:
        raise CheckpointError(f'{path}: {short(missing)} is not in {short(weight_map[missing])}')
    return Checkpoint(paths, kind, {t: tensors[t] for t in weight_map}, [])


def find_tensors(root, path):
    """Find the weights in the value of a pickle; returns (tensors by name, names of other values beside them).

    Weights are in a dict, perhaps under one of WRAPPERS, or in the attributes of a module (TorchScript, torch.save of a
    module).
    """
    for _ in range(3):
        inner = (
            next((root[k] for k in WRAPPERS if isinstance(root.get(k), (dict, Inert))), None)
            if isinstance(root, dict)
            else None
        )
        root = root if inner is None else inner
    finder = _Finder(path)
    finder.collect(root, '', 0)
    return finder.tensors, finder.other


class _Finder:
    """Walk nested modules. The number of names is limited, so modules that repeat endlessly ('billion laughs') end
    early."""

    def __init__(self, path):
        self.path, self.tensors, self.other, self.left = path, {}, [], MAX_NAMES

    def collect(self, node, prefix, depth):
        items = node if isinstance(node, dict) else node.state if isinstance(node, Inert) else None
        if not isinstance(items, dict):
            raise CheckpointError(f'{self.path} holds no dictionary of tensors')
        if depth > MAX_DEPTH:
            raise CheckpointError(f'{self.path}: modules are nested deeper than {MAX_DEPTH} levels')
        for key, value in items.items():
            name = prefix + (key if isinstance(key, str) else short(key))
            self.left -= 1 + len(name) // 64
            if self.left < 0:
                raise CheckpointError(f'{self.path} holds too many or too long names')
            if not isinstance(key, str):
                self.other.append(name)
            elif isinstance(value, LazyTensor):
                self.tensors[name] = value
            elif isinstance(node, Inert) and key in ('_parameters', '_buffers', '_modules') and isinstance(value, dict):
                self.collect(value, prefix, depth + 1)
            elif isinstance(value, Inert) and isinstance(value.state, dict):
                self.collect(value, f'{name}.', depth + 1)
            elif value is not None and not (isinstance(node, Inert) and not isinstance(value, Inert)):
                self.other.append(name)

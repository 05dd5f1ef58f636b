"""Open a checkpoint: find its networks and their layout, and the tensors that belong to none."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from ckpt_convert.configs.clip import read_configs
from ckpt_convert.configs.ldm import read_ldm_yaml
from ckpt_convert.configs.stable_diffusion import check_index
from ckpt_convert.configs.transformers_clip import transformers_text
from ckpt_convert.configs.values import MAX_JSON
from ckpt_convert.layouts import FLAT, KINDS, OPENAI, RULES, layout_of, own_names
from ckpt_convert.weights_file import weights_file
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.reader import open_checkpoint
from diffdis_ms.storage.tensors import LazyTensor, short
from diffdis_ms.text_files import read_json

SIDECAR = 'diffdis'  # folder of an export for parts that other tools have no place for
BPE = 'bpe_simple_vocab_16e6.txt.gz'  # OpenAI's vocabulary
TOKENIZER_FILES = (
    'vocab.json',
    'merges.txt',
    'tokenizer.json',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'added_tokens.json',
)


@dataclass
class Network:
    """The tensors of one network, by their names in `layout`.

    `json` is its config.json; `where` is the prefix of its names in the file.
    """

    tensors: dict[str, LazyTensor]
    layout: str
    where: str = ''
    json: dict = field(default_factory=dict)

    @property
    def shapes(self):
        """{tensor's name: shape}."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


@dataclass
class Source:
    """A checkpoint with its tensors sorted by network.

    Attributes:
        path: the given path. kind: 'sd', 'clip' or 'inception'. layout, format: names for messages.
        networks: {'unet' | 'vae' | 'text_encoder' | 'image_encoder' | 'inception' | 'diffdis': Network}.
        unused: {name: reason why it is not converted}. unknown: names that no rule covers.
        paths: all files read. tokenizer: directory or vocabulary in the checkpoint, or None. config: config of our own
            exports, else None.
        constants: tensors that go into the config (logit_scale, scale_factor, alphas_cumprod).
        json: {'model_index' | 'scheduler': content} for a diffusers directory, {'yaml': settings of the YAML beside it}
            for a CompVis file. folders: names of the directory's folders.
    """

    path: Path
    kind: str
    layout: str
    format: str
    networks: dict[str, Network]
    unused: dict[str, str]
    unknown: list[str]
    paths: list[Path]
    tokenizer: Path | None = None
    config: Path | None = None
    constants: dict[str, LazyTensor] = field(default_factory=dict)
    json: dict[str, dict] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def configs(self):
        """{file: content} of the JSON files in a diffusers directory."""
        networks = [network for network in self.networks.values() if network.where.rstrip('/') in self.folders]
        files = {
            'model_index.json': self.json.get('model_index'),
            'scheduler/scheduler_config.json': self.json.get('scheduler'),
            **{f'{network.where}config.json': network.json for network in networks},
        }
        return {name: content for name, content in files.items() if content}


def open_source(path, kind='auto', ema=False):
    """Open a file or directory and sort its tensors.

    Args:
        path: checkpoint file, diffusers or transformers directory, or an export of this package.
        kind: 'auto', or the required kind: 'sd', 'diffusers', 'clip', 'inception'.
        ema: use the EMA weights of a CompVis file's UNet (`model_ema.*`) instead of its last weights.

    Returns:
        Source.

    Raises:
        CheckpointError: the path is missing, unreadable, of unknown layout, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f'{path} does not exist')
    if path.is_dir() and ((path / 'unet').is_dir() or (path / 'model_index.json').is_file()):
        source = _open_diffusers(path)
    else:
        source = _open_file(path, ema)
    if ema and source.layout != 'ldm':
        raise CheckpointError(
            f'{path} is in {source.layout} layout: --ema is for CompVis checkpoints, which have both kinds of weights'
        )
    if (
        kind != 'auto'
        and source.kind != {'diffusers': 'sd'}.get(kind, kind)
        or kind == 'diffusers'
        and source.layout != 'diffusers'
    ):
        raise CheckpointError(
            f'{path} holds {source.kind} weights in {source.layout} layout, not what --kind {kind} says'
        )
    folder = path if path.is_dir() else path.parent
    source.tokenizer = next((p for p in (folder / 'tokenizer', folder) if _holds_tokenizer(p)), None)
    if source.tokenizer is None and (folder / BPE).is_file():
        source.tokenizer = folder / BPE
    if (folder / SIDECAR / 'config.yaml').is_file() and source.kind == 'sd':
        source.config = folder / SIDECAR / 'config.yaml'
        extra = open_checkpoint(folder / SIDECAR / f'{SIDECAR}.safetensors')
        source.networks['diffdis'] = Network(extra.tensors, 'diffdis', f'{SIDECAR}/')
        source.paths += [*extra.paths, source.config]
    return source


def _holds_tokenizer(folder):
    return (
        (folder / 'tokenizer.json').is_file() or (folder / 'vocab.json').is_file() and (folder / 'merges.txt').is_file()
    )


def _open_diffusers(path):
    source = Source(
        path, 'sd', 'diffusers', '', {}, {}, [], [], folders=sorted(p.name for p in path.iterdir() if p.is_dir())
    )
    source.json = {
        'model_index': _json(path / 'model_index.json'),
        'scheduler': _json(path / 'scheduler' / 'scheduler_config.json'),
    }
    if not {'unet', 'vae'} <= set(source.folders):
        check_index(source.json['model_index'])  # the error names the other model
    for name in ('unet', 'vae', 'text_encoder'):
        folder = path / name
        if not folder.is_dir():
            if name == 'text_encoder':  # --text-encoder may replace it
                continue
            raise CheckpointError(
                f'{path} lacks {name}/: expected a diffusers directory of Stable Diffusion v1 with unet/, vae/ and'
                ' text_encoder/'
            )
        checkpoint = open_checkpoint(weights_file(folder))
        source.format, source.paths = checkpoint.format, source.paths + checkpoint.paths
        if name == 'text_encoder':
            config = folder / 'config.json'
            said = transformers_text(_json(config), config) if config.is_file() else {}
            _sort(checkpoint.tensors, 'transformers', source, f'{name}/', {name: said})
        else:
            source.networks[name] = Network(checkpoint.tensors, 'diffusers', f'{name}/', _json(folder / 'config.json'))
    image = source.networks.pop('image_encoder', None)
    for name in image.tensors if image else ():
        source.unused[image.where + name] = 'image encoder of CLIP, which Stable Diffusion does not use'
    return source


def _open_file(path, ema):
    folder = path if path.is_dir() else path.parent
    file = weights_file(path) if path.is_dir() else path
    checkpoint = open_checkpoint(file)
    tensors = own_names(checkpoint.tensors)
    layout = layout_of(tensors)
    if layout is None:
        some = ', '.join(short(n) for n in list(tensors)[:3]) or 'none'
        raise CheckpointError(
            f'{file}: the layout is not known (first tensors: {some}); expected Stable Diffusion v1 (CompVis or a'
            ' diffusers directory), CLIP (OpenAI, Hugging Face, open_clip) or FID\'s Inception'
        )
    source = Source(path, KINDS[layout], layout, checkpoint.format, {}, {}, [], checkpoint.paths)
    _sort(
        tensors,
        layout,
        source,
        '',
        read_configs(folder, layout, set(tensors) >= OPENAI) if KINDS[layout] == 'clip' else {},
    )
    if layout == 'ldm' and file.with_suffix('.yaml').is_file():
        source.json['yaml'] = read_ldm_yaml(file.with_suffix('.yaml'))
    if ema:
        _take_ema(tensors, source)
    return source


def _sort(tensors, layout, source, where, configs):
    """Assign each tensor to its network by RULES; `configs` are the networks' config.json."""
    for name, tensor in tensors.items():
        rule = next((rule for rule in RULES[layout] if re.match(rule[0], name)), None)
        if rule is None:
            source.unknown.append(where + name)
        elif rule[1] is None:
            source.unused[where + name] = rule[3]
            if name in ('logit_scale', 'scale_factor', 'alphas_cumprod'):
                source.constants[name] = tensor
        else:
            if rule[1] == 'text_encoder' and re.match(FLAT, name[len(rule[2]) :]):
                name = f'{rule[2]}text_model.{name[len(rule[2]) :]}'
            network = source.networks.setdefault(
                rule[1],
                Network(
                    {},
                    'transformers' if layout == 'ldm' and rule[1] == 'text_encoder' else layout,
                    where + rule[2],
                    configs.get(rule[1], {}),
                ),
            )
            name = name[len(rule[2]) :]
            if name in network.tensors:
                raise CheckpointError(
                    f'{source.path} holds two text encoders: {short(name)} with and without text_model.'
                )
            network.tensors[name] = tensor


def _take_ema(tensors, source):
    """Replace the UNet's weights by their EMA. LitEma's names are those of the UNet without dots."""
    unet, where = source.networks['unet'], source.networks['unet'].where
    for name in list(unet.tensors):
        average = 'model_ema.diffusion_model' + name.replace('.', '')
        if average not in tensors:
            raise CheckpointError(f'{source.path} holds no EMA of {name} ({average}); convert it without --ema')
        unet.tensors[name] = tensors[average]
        source.unused.pop(average, None)
        source.unused[where + name] = 'last weights of the UNet: its EMA was asked for'
    for name in source.unused:
        if name.startswith('model_ema.'):
            source.unused[name] = 'state of the EMA'


def _json(path):
    """Read a config.json as dict; {} if there is none."""
    if not path.is_file():
        return {}
    return read_json(path, dict, CheckpointError, MAX_JSON)


def constant(source, name):
    """Read a constant among the weights, or None; CheckpointError if it is not finite."""
    tensor = source.constants.get(name)
    if tensor is None or tensor.size != 1:
        return None
    value = float(tensor.numpy().reshape(-1)[0])
    if not math.isfinite(value):
        raise CheckpointError(f'{source.path}: {name} = {value}')
    return value

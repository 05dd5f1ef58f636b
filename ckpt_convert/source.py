"""What a path holds: which networks, in which layout, and which tensors belong to none."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from ckpt_convert.configs.clip import read_configs
from ckpt_convert.configs.ldm import read_ldm_yaml
from ckpt_convert.configs.stable_diffusion import check_index
from ckpt_convert.configs.transformers_clip import transformers_text
from ckpt_convert.configs.values import MAX_JSON
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.reader import open_checkpoint
from diffdis_ms.storage.tensors import LazyTensor, short
from diffdis_ms.text_files import read_json

SIDECAR = 'diffdis'  # folder of an export with what other tools have no place for
BPE = 'bpe_simple_vocab_16e6.txt.gz'  # OpenAI's vocabulary
TOKENIZER_FILES = (
    'vocab.json',
    'merges.txt',
    'tokenizer.json',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'added_tokens.json',
)
WEIGHTS = ('{}.safetensors', '{}.safetensors.index.json', '{}.bin', '{}.bin.index.json')
VARIANTS = ('fp32', 'fp16', 'bf16')  # the same weights in other precisions, the best first; any other is other weights
STEMS = ('diffusion_pytorch_model', 'model', 'pytorch_model', 'open_clip_model', 'open_clip_pytorch_model')

OPENAI = {
    'input_resolution',
    'context_length',
    'vocab_size',
}  # constants that OpenAI's own files of CLIP hold, and no other's
SCHEDULE = 'noise schedule, computed from the config'
CONSTANT = 'a constant of the network'
COUNTER = 'counter of batch normalisation'
FLAT = (  # a CLIPTextModel without `text_model.`
    r'(embeddings\.(token|position)_embedding\.|encoder\.layers\.|final_layer_norm\.)'
)
# layout -> (pattern of the tensor's name, network it belongs to or None, what is cut off the name, why it is not
# converted)
RULES = {
    'ldm': [
        (r'model\.diffusion_model\.', 'unet', 'model.diffusion_model.', ''),
        (r'first_stage_model\.loss\.', None, '', 'training loss of the autoencoder'),
        (r'first_stage_model\.', 'vae', 'first_stage_model.', ''),
        (r'cond_stage_model\.transformer\.(text_model\.)?embeddings\.position_ids$', None, '', CONSTANT),
        (r'cond_stage_model\.transformer\.', 'text_encoder', 'cond_stage_model.transformer.', ''),
        (r'model_ema\.', None, '', 'EMA of the UNet; --ema converts it'),
        (
            r'(betas|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_\w+|lvlb_weights|logvar)$',
            None,
            '',
            SCHEDULE,
        ),
        (r'scale_factor$', None, '', 'scaling factor of the latents, kept in the config'),
    ],
    'openai': [
        (r'(.*\.)?(input_resolution|context_length|vocab_size|attn_mask)$', None, '', CONSTANT),
        (r'visual\..*num_batches_tracked$', None, '', COUNTER),
        (r'visual\.', 'image_encoder', '', ''),
        (
            r'(transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection$)',
            'text_encoder',
            '',
            '',
        ),
        (r'logit_scale$', None, '', 'logit scale, kept in the config'),
    ],
    'transformers': [
        (r'((text|vision)_model\.)?embeddings\.position_ids$', None, '', CONSTANT),
        (r'(text_model\.|text_projection\.)', 'text_encoder', '', ''),
        (FLAT, 'text_encoder', '', ''),
        (r'(vision_model\.|visual_projection\.)', 'image_encoder', '', ''),
        (r'logit_scale$', None, '', 'logit scale, kept in the config'),
    ],
    'inception': [
        (r'.*num_batches_tracked$', None, '', COUNTER),
        (r'AuxLogits\.', None, '', 'auxiliary classifier, used in training only'),
        (r'(Conv2d_|Mixed_|fc\.)', 'inception', '', ''),
    ],
}
KINDS = {'ldm': 'sd', 'openai': 'clip', 'transformers': 'clip', 'inception': 'inception'}


@dataclass
class Part:
    """One network's tensors, by their names in `layout`; `json` is its config.json, `where` what its names begin with
    in the file."""

    tensors: dict[str, LazyTensor]
    layout: str
    where: str = ''
    json: dict = field(default_factory=dict)


@dataclass
class Source:
    """A checkpoint, sorted.

    Attributes:
        path: what was given. kind: 'sd', 'clip' or 'inception'. layout, format: for people.
        parts: {'unet' | 'vae' | 'text_encoder' | 'image_encoder' | 'inception' | 'diffdis': Part}.
        unused: {name: why it is not converted}. unknown: names that no rule covers.
        paths: all files read. tokenizer: directory or vocabulary that came along, or None. config: of an export of
            ours, or None.
        constants: tensors that go into the config (logit_scale, scale_factor, alphas_cumprod).
        json: of a diffusers directory, {'model_index' | 'scheduler': content};
            of a CompVis file, {'yaml': what the YAML beside it says}. folders: the directory's own, by name.
    """

    path: Path
    kind: str
    layout: str
    format: str
    parts: dict[str, Part]
    unused: dict[str, str]
    unknown: list[str]
    paths: list[Path]
    tokenizer: Path | None = None
    config: Path | None = None
    constants: dict[str, LazyTensor] = field(default_factory=dict)
    json: dict[str, dict] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def configs(self):
        """{file: content} of the JSON files of a diffusers directory that were found."""
        parts = [part for part in self.parts.values() if part.where.rstrip('/') in self.folders]
        files = {
            'model_index.json': self.json.get('model_index'),
            'scheduler/scheduler_config.json': self.json.get('scheduler'),
            **{f'{part.where}config.json': part.json for part in parts},
        }
        return {name: content for name, content in files.items() if content}


def open_source(path, kind='auto', ema=False):
    """Open a file or directory and sort its tensors.

    Args:
        path: checkpoint file, diffusers or transformers directory, or an export of this package.
        kind: 'auto', or what it must be: 'sd', 'diffusers', 'clip', 'inception'.
        ema: of a CompVis file, take the EMA of the UNet (`model_ema.*`) instead of its last weights.

    Returns:
        Source.

    Raises:
        CheckpointError: missing, unreadable, of unknown layout, or of another kind.
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
            f'{path} is in {source.layout} layout: --ema is for CompVis checkpoints, which hold both kinds of weights'
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
        source.parts['diffdis'] = Part(extra.tensors, 'diffdis', f'{SIDECAR}/')
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
        check_index(source.json['model_index'])  # says what it is, where it is something else
    for name in ('unet', 'vae', 'text_encoder'):
        folder = path / name
        if not folder.is_dir():
            if name == 'text_encoder':  # --text-encoder may stand for it
                continue
            raise CheckpointError(
                f'{path} lacks {name}/: expected a diffusers directory of Stable Diffusion v1 with unet/, vae/ and'
                ' text_encoder/'
            )
        checkpoint = open_checkpoint(_weights_file(folder))
        source.format, source.paths = checkpoint.format, source.paths + checkpoint.paths
        if name == 'text_encoder':
            config = folder / 'config.json'
            said = transformers_text(_json(config), config) if config.is_file() else {}
            _sort(checkpoint.tensors, 'transformers', source, f'{name}/', {name: said})
        else:
            source.parts[name] = Part(checkpoint.tensors, 'diffusers', f'{name}/', _json(folder / 'config.json'))
    image = source.parts.pop('image_encoder', None)
    for name in image.tensors if image else ():
        source.unused[image.where + name] = 'image encoder of CLIP, which Stable Diffusion does not use'
    return source


def _open_file(path, ema):
    folder = path if path.is_dir() else path.parent
    file = _weights_file(path) if path.is_dir() else path
    checkpoint = open_checkpoint(file)
    tensors = _own_names(checkpoint.tensors)
    layout = _layout(tensors)
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


def _own_names(tensors):
    """Names without what a data-parallel training, torch.compile or open_clip's CustomTextCLIP puts before or into
    them."""
    names = {name: name.replace('_orig_mod.', '') for name in tensors}
    if names and all(name.startswith('module.') for name in names.values()):
        names = {name: own[len('module.') :] for name, own in names.items()}
    if {'text.token_embedding.weight', 'text.positional_embedding'} <= set(names.values()):
        names = {name: own[len('text.') :] if own.startswith('text.') else own for name, own in names.items()}
    return {names[name]: t for name, t in tensors.items()} if len(set(names.values())) == len(names) else tensors


def _layout(tensors):
    names = set(tensors)
    if any(n.startswith('model.diffusion_model.') for n in names):
        return 'ldm'
    if 'Conv2d_1a_3x3.conv.weight' in names:
        return 'inception'
    if {'token_embedding.weight', 'positional_embedding'} <= names:
        return 'openai'
    return (
        'transformers'
        if {'text_model.embeddings.token_embedding.weight', 'embeddings.token_embedding.weight'} & names
        else None
    )


def _sort(tensors, layout, source, where, configs):
    """Hand each tensor to its network by RULES; `configs` are the networks' config.json."""
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
            part = source.parts.setdefault(
                rule[1],
                Part(
                    {},
                    'transformers' if layout == 'ldm' and rule[1] == 'text_encoder' else layout,
                    where + rule[2],
                    configs.get(rule[1], {}),
                ),
            )
            name = name[len(rule[2]) :]
            if name in part.tensors:
                raise CheckpointError(
                    f'{source.path} holds two text encoders: {short(name)} with and without text_model.'
                )
            part.tensors[name] = tensor


def _take_ema(tensors, source):
    """LitEma's names are those of the UNet without their dots."""
    unet, where = source.parts['unet'], source.parts['unet'].where
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


def _weights_file(folder):
    for stem in STEMS:
        for pattern in WEIGHTS:
            if (folder / pattern.format(stem)).is_file():
                return folder / pattern.format(stem)
    return _variant_file(folder)


def _variant_file(folder):
    """The file of the best variant, where no plain one is there: `model.fp16.safetensors`,
    `model.safetensors.index.fp16.json` ..."""
    file_name = r'(%s)\.(?:(?P<a>[\w-]+)\.(safetensors|bin)|(safetensors|bin)\.index\.(?P<b>[\w-]+)\.json)'
    pattern = re.compile(file_name % '|'.join(STEMS))
    found = {}
    for file in sorted(folder.iterdir()):
        match = pattern.fullmatch(file.name)
        variant = match and (match['a'] or match['b'])
        if variant and not re.search(r'-\d{5}-of-\d{5}$', variant) and file.is_file():
            found.setdefault(variant, []).append(file)
    others = [variant for variant in found if variant not in VARIANTS]
    if len(found) > 1 and others:
        raise CheckpointError(
            f'{folder} holds the variants {", ".join(map(short, found))} and no plain file: they may be '
            'different weights; keep one of them there'
        )
    if not found:
        raise CheckpointError(
            f'{folder} holds no weights under a known name (such as {WEIGHTS[0].format(STEMS[0])},'
            f' {WEIGHTS[2].format(STEMS[2])})'
        )
    files = found[next((variant for variant in VARIANTS if variant in found), *others)]
    return min(
        files,
        key=lambda file: (
            '.safetensors' not in file.name,
            '.index.' in file.name,
            STEMS.index(file.name.partition('.')[0]),
        ),
    )


def _json(path):
    """A config.json as dict; {} where there is none."""
    if not path.is_file():
        return {}
    return read_json(path, dict, CheckpointError, MAX_JSON)


def constant(source, name):
    """A number that stands beside the weights, or None; CheckpointError where it is not finite."""
    tensor = source.constants.get(name)
    if tensor is None or tensor.size != 1:
        return None
    value = float(tensor.numpy().reshape(-1)[0])
    if not math.isfinite(value):
        raise CheckpointError(f'{source.path}: {name} = {value}')
    return value

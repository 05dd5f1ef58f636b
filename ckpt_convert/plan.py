"""What a conversion does, tensor by tensor."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

import numpy as np

from ckpt_convert import infer, name_map
from ckpt_convert.configs import clip as clip_configs
from ckpt_convert.configs import stable_diffusion as sd_configs
from ckpt_convert.source import constant
from diffdis_ms.config import ModelConfig, load
from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.errors import CheckpointError, ConfigError
from diffdis_ms.models.init import fresh
from diffdis_ms.models.names import copied_from, is_new_parameter
from diffdis_ms.storage.tensors import LazyTensor, short
from diffdis_ms.text_files import read_json

PROJECTION = 'text_projection.weight'
TABLE = Path(__file__).parent / 'stable_diffusion_v1.json'
NETWORKS = {
    'sd': ('unet', 'vae', 'text_encoder'),
    'clip': ('text_encoder', 'image_encoder'),
    'inception': ('inception',),
}
# largest difference, relative to the largest value, between two copies of a tower of which one may have been rounded
ROUNDING = {'F64': 1e-6, 'F32': 1e-6, 'F16': 1e-3, 'BF16': 1e-2}
FLOATS = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': np.float32}


@dataclass
class Converted:
    """A parameter of ours and where its value comes from; NumPy reads it when it is asked for.

    Attributes:
        name, shape, dtype: of our parameter. tensor: of the file, None where it is initialised. place: where it lies in
            it.
        label: the tensor's full name in its file. seed: of the initialisation.
    """

    name: str
    shape: tuple
    dtype: np.dtype
    tensor: LazyTensor | None = None
    place: name_map.Place | None = None
    label: str = ''
    seed: int = 0

    def __array__(self, dtype=None, copy=None):
        value = (
            fresh(self.name, self.shape, self.seed)
            if self.tensor is None
            else self.place.extract(self.tensor.numpy(), self.shape)
        )
        if value.dtype.itemsize <= self.dtype.itemsize:
            return np.ascontiguousarray(value, self.dtype)
        with np.errstate(over='ignore'):
            result = np.ascontiguousarray(value, self.dtype)
        if np.isinf(result).any() and not np.isinf(value).any():
            raise CheckpointError(
                f'{self.label or self.name} does not fit into {self.dtype}: convert with --dtype float32'
            )
        return result

    def pieces(self, buffers):
        """Bytes for `files.write_weights`, straight from the file where nothing has to be done to them."""
        if (
            self.tensor is not None
            and self.tensor.is_plain
            and self.tensor.dtype == self.dtype
            and self.place.third is None
            and not self.place.transposed
        ):
            return self.tensor.pieces(buffers)
        return iter([memoryview(np.asarray(self).reshape(-1).view(np.uint8))])

    @property
    def nbytes(self):
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass
class Plan:
    """What will be written and what becomes of each tensor of the source.

    Attributes:
        networks: {file stem: {our parameter's name: Converted}}. initialized: parameters that no source has.
        unused: {tensor: why it is not converted}. unmapped: tensors that have no place. problems: what is missing or of
            another shape.
    """

    config: ModelConfig | None
    networks: dict[str, dict[str, Converted]]
    unused: dict[str, str]
    unmapped: list[str]
    initialized: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def make_plan(source, text_source=None, overrides=(), dtype=None, seed=0):
    """Match a source with our networks.

    Args:
        source: Source. text_source: Source of kind clip, for the text projection that Stable Diffusion's files lack, or
            None.
        overrides: strings 'key=value' of ModelConfig. dtype: 'float32', 'float16', 'source', or None (float32; source
            for our own exports).
        seed: of the parts that are initialised.

    Returns:
        Plan.

    Raises:
        CheckpointError: what no plan can be made for. ConfigError: sizes that do not fit together.
    """
    dtype = dtype or ('source' if source.config else 'float32')
    config = model_config(source, text_source, overrides) if source.kind != 'inception' else None
    plan = Plan(config, {}, dict(source.unused), list(source.unknown))
    if source.kind == 'sd':
        _check_schedule(source, config)
    for stem in NETWORKS[source.kind]:
        if stem not in source.parts:
            hint = ''
            if (stem, source.kind) == ('text_encoder', 'sd'):
                hint = ' under a known name: give CLIP ViT-L/14 with --text-encoder'
            raise CheckpointError(f'{source.path} holds no {stem.replace("_", " ")}{hint}')
    for stem in NETWORKS[source.kind]:
        part = source.parts[stem]
        shapes = parameter_shapes(stem, config)
        plan.networks[stem] = _match(stem, part, _table(stem, part, config), shapes, source, plan, dtype, seed)
    if source.kind == 'sd':
        _project(plan, source, text_source, dtype)
    return plan


def model_config(source, text_source=None, overrides=()):
    """ModelConfig of a source: that of an export of ours, or sizes read off the shapes; overrides come last."""
    base = load(source.config, schema=ModelConfig) if source.config else ModelConfig()
    if source.kind == 'sd':
        _complete(source, text_source)
        _read_pipeline(source, base)
    if not source.config:
        shapes = {stem: {name: t.shape for name, t in part.tensors.items()} for stem, part in source.parts.items()}
        json = {stem: part.json for stem, part in source.parts.items()}
        for stem, infer_config in (
            ('unet', infer.unet_config),
            ('vae', infer.vae_config),
            ('text_encoder', infer.text_config),
            ('image_encoder', infer.image_config),
        ):
            if stem in shapes:
                setattr(base, stem, infer_config(shapes[stem], json[stem]))
                clip_configs.check_sizes(getattr(base, stem), json[stem], source.path)
        if source.kind == 'sd' and text_source is not None and 'text_encoder' in text_source.parts:
            part = text_source.parts['text_encoder']
            theirs = infer.text_config({name: t.shape for name, t in part.tensors.items()}, part.json)
            base.text_encoder.projection_dim = theirs.projection_dim
            for key in ('num_attention_heads', 'hidden_act', 'layer_norm_eps'):
                if not json.get('text_encoder'):  # a CompVis file has no config.json; the same tower there has
                    setattr(base.text_encoder, key, getattr(theirs, key))
                elif key in part.json and getattr(theirs, key) != getattr(base.text_encoder, key):
                    raise CheckpointError(
                        f'{source.path} says {key} = {getattr(base.text_encoder, key)} of its text encoder, but'
                        f' {text_source.path} says {getattr(theirs, key)}: it is another tower'
                    )
        if 'image_encoder' not in shapes:
            base.image_encoder.projection_dim = base.text_encoder.projection_dim
        if source.json.get('yaml'):
            said = source.json['yaml']
            base.image_diffusion, base.vae.scaling_factor = said['image_diffusion'], said['scaling_factor']
            base.unet.num_attention_heads = said['heads']
            base.dual_stream.image_condition_timestep = base.image_diffusion.num_train_timesteps
        base.vae.scaling_factor = constant(source, 'scale_factor') or base.vae.scaling_factor
        if source.kind == 'clip':
            clip_configs.require_known(base, json, overrides, source.path)
        if source.kind == 'clip' and constant(source, 'logit_scale') is not None:
            base.logit_scale = float(min(np.exp(constant(source, 'logit_scale')), base.max_logit_scale))
    return load(None, [*flat(base), *overrides], ModelConfig, 'clip' if source.kind == 'clip' else 'diffdis')


def _complete(source, text_source):
    """Refuse what is no Stable Diffusion v1; where it has no text encoder, take --text-encoder's, if the UNet reads its
    width."""
    sd_configs.refuse_other_models(source)
    if 'text_encoder' not in source.parts and text_source is not None and 'text_encoder' in text_source.parts:
        source.parts['text_encoder'] = text_source.parts['text_encoder']
    reads, writes = (
        width(source.parts[stem]) if stem in source.parts else None
        for stem, width in (('unet', sd_configs.context_width), ('text_encoder', sd_configs.text_width))
    )
    if reads is not None and writes is not None and reads != writes:
        raise CheckpointError(
            f'{source.path}: the UNet reads texts of width {reads}, the text encoder\'s are {writes} wide: '
            'they do not belong together'
        )


def _read_pipeline(source, base):
    """What model_index.json and scheduler_config.json say, into a ModelConfig; that of an export of ours must say the
    same."""
    index, scheduler = source.json.get('model_index'), source.json.get('scheduler')
    if index:
        sd_configs.check_index(index)
    for stem, infer_config in (('unet', infer.unet_config), ('vae', infer.vae_config)):
        part = source.parts.get(stem)
        if source.config is None or part is None or not part.json:
            continue
        if infer_config({name: t.shape for name, t in part.tensors.items()}, part.json) != getattr(base, stem):
            raise CheckpointError(f'{source.path}/{stem}/config.json says another thing than {stem} in {source.config}')
    if not scheduler:
        return
    diffusion = sd_configs.image_diffusion(scheduler, sd_configs.scheduler_class(index))
    if source.config is None:
        base.image_diffusion = diffusion
        if diffusion.num_train_timesteps != ModelConfig().image_diffusion.num_train_timesteps:
            base.dual_stream.image_condition_timestep = diffusion.num_train_timesteps  # behind the last, as before
    elif diffusion.target != base.image_diffusion.target or not np.array_equal(
        alphas_cumprod(diffusion), alphas_cumprod(base.image_diffusion)
    ):
        raise CheckpointError(
            f'{source.path}/scheduler/scheduler_config.json says another thing than image_diffusion in {source.config}'
        )


def flat(node, prefix=''):
    """A dataclass tree as 'key=value' strings, so that overrides go the way of every config."""
    items = []
    for f in fields(node):
        key, value = prefix + f.name, getattr(node, f.name)
        items += flat(value, key + '.') if is_dataclass(value) else [f'{key}={value}']
    return items


def parameter_shapes(stem, config):
    """{our parameter's name: shape} of a network; no memory is taken for the values.

    Stable Diffusion v1's are read from a table, which `python -m ckpt_convert.plan` writes and a test compares with the
    networks: importing MindSpore and building them would take a quarter of a conversion's time.
    """
    if (
        config is not None
        and stem in ('unet', 'vae', 'text_encoder')
        and all(
            getattr(config, part) == getattr(ModelConfig(), part)
            for part in ('unet', 'dual_stream', 'alignment', 'vae', 'text_encoder')
        )
    ):
        return {name: tuple(shape) for name, shape in read_json(TABLE)[stem].items()}
    return shapes_of_network(stem, config)


def shapes_of_network(stem, config):
    """{our parameter's name: shape}, from the MindSpore network itself."""
    from mindspore.nn.utils import no_init_parameters

    from diffdis_ms.models.autoencoder import AutoencoderKL
    from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
    from diffdis_ms.models.diffdis import DiffDisUNet
    from diffdis_ms.models.inception import InceptionV3

    with no_init_parameters():
        cell = {
            'unet': lambda: DiffDisUNet(config),
            'vae': lambda: AutoencoderKL(config.vae),
            'text_encoder': lambda: CLIPTextEncoder(config.text_encoder),
            'image_encoder': lambda: CLIPImageEncoder(config.image_encoder),
            'inception': InceptionV3,
        }[stem]()
    return {p.name: tuple(p.shape) for p in cell.get_parameters()}


def _table(stem, part, config):
    """The table of a part's layout; None where the names are the field's."""
    if stem == 'vae' and part.layout == 'diffusers' and 'encoder.mid_block.attentions.0.query.weight' in part.tensors:
        return name_map.vae_old(config.vae)
    makers = {
        ('unet', 'ldm'): name_map.unet_ldm,
        ('vae', 'ldm'): name_map.vae_ldm,
        ('text_encoder', 'openai'): name_map.clip_text_openai,
        ('image_encoder', 'openai'): name_map.clip_image_openai,
    }
    maker = makers.get((stem, part.layout))
    return maker(getattr(config, stem)) if maker else None


def _match(stem, part, table, shapes, source, plan, dtype, seed):
    """{our name: Converted} of one network; what does not fit goes into plan.problems."""
    result, used = {}, set()
    ours_only = source.parts.get('diffdis')
    for name, shape in shapes.items():
        if name == PROJECTION and stem == 'text_encoder' and source.kind == 'sd':
            used.add(name_map.place(name, shape, table).name)
            result[name] = None  # keeps its row; filled in by _project
            continue
        if stem == 'unet' and is_new_parameter(name):
            result[name] = _new_part(name, shape, shapes, ours_only, part, table, plan, dtype, seed)
            continue
        there = name_map.place(name, shape, table)
        used.add(there.name)
        tensor, label = part.tensors.get(there.name), part.where + there.name
        if tensor is None:
            plan.problems.append(f'{label} is missing')
        elif tensor.shape != there.shape:
            plan.problems.append(f'{label} has shape {short(str(tensor.shape))}, expected {there.shape}')
        else:
            result[name] = _converted(name, shape, tensor, there, label, dtype)
    if ours_only and stem == 'unet':
        plan.unmapped += [
            ours_only.where + n
            for n in ours_only.tensors
            if n != f'text_encoder.{PROJECTION}' and n.partition('.')[2] not in shapes
        ]
    plan.unmapped += [part.where + n for n in part.tensors if n not in used]
    return result


def _converted(name, shape, tensor, place, label, dtype):
    if tensor.kind not in FLOATS:
        raise CheckpointError(f'{label} holds numbers of type {tensor.kind}, expected floating point')
    return Converted(name, shape, np.dtype(FLOATS[tensor.kind] if dtype == 'source' else dtype), tensor, place, label)


def _new_part(name, shape, shapes, sidecar, part, table, plan, dtype, seed):
    """A parameter that Stable Diffusion lacks: from our own export, or initialised as `init.initialize` does."""
    if sidecar:
        tensor, label = sidecar.tensors.get(f'unet.{name}'), f'{sidecar.where}unet.{name}'
        if tensor is None or tensor.shape != shape:
            plan.problems.append(
                f'{label}'
                f' {"is missing" if tensor is None else "has shape " + str(tensor.shape) + ", expected " + str(shape)}'
            )
            return None
        return _converted(name, shape, tensor, name_map.Place(label, shape), label, dtype)
    plan.initialized.append(name)
    original = copied_from(name)
    if original in shapes:
        there = name_map.place(original, shape, table)
        tensor = part.tensors.get(there.name)
        if tensor is not None and tensor.shape == there.shape:
            return _converted(name, shape, tensor, there, part.where + there.name, dtype)
    return Converted(name, shape, np.dtype('float32' if dtype == 'source' else dtype), seed=seed)


def _project(plan, source, text_source, dtype):
    """Fill in the text projection: Stable Diffusion's files lack it, and the text query e needs it."""
    towers = [(source.parts['text_encoder'], PROJECTION)]
    if source.parts.get('diffdis'):
        towers.insert(0, (source.parts['diffdis'], f'text_encoder.{PROJECTION}'))
    text, rows = plan.config.text_encoder, plan.networks['text_encoder']
    shape = (text.projection_dim, text.hidden_size)
    for part, name in towers:
        if name in part.tensors and text_source is None:
            if part.tensors[name].shape != shape:
                raise CheckpointError(f'{part.where}{name} has shape {part.tensors[name].shape}, expected {shape}')
            rows[PROJECTION] = _converted(
                PROJECTION, shape, part.tensors[name], name_map.Place(name, shape), part.where + name, dtype
            )
            return
    if text_source is None:
        raise CheckpointError(
            f'{source.path} lacks CLIP\'s text_projection, as all files of Stable Diffusion do, and DiffDis\' text'
            ' query needs it: give CLIP ViT-L/14 with --text-encoder (OpenAI\'s ViT-L-14.pt, or the Hugging Face'
            ' directory clip-vit-large-patch14)'
        )
    rows[PROJECTION] = _from_clip(plan, rows, text_source, dtype)


def _from_clip(plan, rows, text_source, dtype):
    """The projection out of a CLIP, whose token-wise tower must be the one in the source."""
    part = text_source.parts.get('text_encoder')
    if part is None:
        raise CheckpointError(f'{text_source.path} holds no text encoder')
    table, found = _table('text_encoder', part, plan.config), {}
    for name, shape in parameter_shapes('text_encoder', plan.config).items():
        there = name_map.place(name, shape, table)
        tensor, label = part.tensors.get(there.name), f'{text_source.path}: {there.name}'
        if tensor is None and name == PROJECTION:
            raise CheckpointError(
                f'{text_source.path} lacks text_projection, too: give a whole CLIP (or CLIPTextModelWithProjection),'
                ' not a text model alone'
            )
        if tensor is None or tensor.shape != there.shape:
            raise CheckpointError(
                f'{label} is missing or of another shape: not the text encoder that belongs to this Stable Diffusion'
            )
        found[name] = _converted(name, shape, tensor, there, label, dtype)
    for name, converted in found.items():
        if rows.get(name) is not None and name != PROJECTION and not _same(rows[name], converted):
            raise CheckpointError(
                f'{converted.label} differs from {rows[name].label}: this CLIP is not the text encoder of the Stable'
                ' Diffusion file'
            )
    return found[PROJECTION]


def _same(a, b):
    x, y = (c.place.extract(c.tensor.numpy(), c.shape) for c in (a, b))
    if np.array_equal(x, y):
        return True
    tolerance = max(ROUNDING[c.tensor.kind] for c in (a, b)) * np.abs(x).max()
    return bool(np.abs(x.astype(np.float32) - y).max() <= tolerance)


def _check_schedule(source, config):
    tensor = source.constants.get('alphas_cumprod')
    expected = alphas_cumprod(config.image_diffusion)
    if tensor is not None and (
        tensor.shape != expected.shape
        or np.abs(tensor.numpy() - expected).max() > max(1e-4, ROUNDING.get(tensor.kind, 0))
    ):
        raise CheckpointError(
            f'{source.path}: alphas_cumprod is not the noise schedule of image_diffusion (Stable Diffusion v1\'s); '
            'describe its own with --set image_diffusion.beta_start=... image_diffusion.beta_end=...'
        )


def complaints(plan):
    """One line of what does not fit, the first few by name; '' where all does."""
    lines = plan.problems + [f'{short(name)} has no place' for name in plan.unmapped]
    return '; '.join(lines[:5]) + (f' (and {len(lines) - 5} more; `inspect` lists all)' if len(lines) > 5 else '')


def assumptions(source, overrides=()):
    """Lines that say what was assumed because no file of the source tells it."""
    if source.kind == 'clip':
        return clip_configs.assumed({stem: part.json for stem, part in source.parts.items()}, overrides)
    if source.kind != 'sd' or source.config:
        return []
    given = {item.partition('=')[0] for item in overrides}
    if source.layout == 'diffusers':
        untold = {
            'scheduler/scheduler_config.json': (
                source.json.get('scheduler'),
                'image_diffusion.target=noise image_diffusion.schedule=linear',
            ),
            'unet/config.json': (source.parts['unet'].json, 'unet.num_attention_heads=8'),
            'vae/config.json': (source.parts['vae'].json, f'vae.scaling_factor={ModelConfig().vae.scaling_factor}'),
        }
    else:
        untold = {
            'YAML file of the same name': (
                source.json.get('yaml'),
                'image_diffusion.target=noise unet.num_attention_heads=8',
            )
        }
    return [
        f'no {file} beside the weights; taken as Stable Diffusion v1 has it: {settings} (--set changes it)'
        for file, (found, settings) in untold.items()
        if not found and not {item.partition('=')[0] for item in settings.split()} <= given
    ]


def inspect_plan(source):
    """Lines that say what an import of this source alone would lack."""
    try:
        plan = make_plan(source)
    except ConfigError as e:
        return [f'  to be mended   {e}']
    lines = [f'  to be mended   {line}' for line in plan.problems] + [
        f'  no place       {short(name, 200)}' for name in plan.unmapped
    ]
    if source.kind == 'sd':
        diffusion = plan.config.image_diffusion
        lines.insert(
            0,
            f'  diffusion      the UNet predicts {diffusion.target}; {diffusion.num_train_timesteps} timesteps, '
            f'schedule {diffusion.schedule}, betas {diffusion.beta_start} to {diffusion.beta_end}',
        )
    whole = not plan.problems and not plan.unmapped
    if whole:
        count = sum(c.tensor is not None for n in plan.networks.values() for c in n.values())
        lines.append(f'  would convert  {count} parameters, nothing left over')
    return lines + [f'  assumed        {line}' for line in assumptions(source)]


def write_table():
    """Write TABLE anew; needed where a network's parameters change."""
    shapes = {stem: shapes_of_network(stem, ModelConfig()) for stem in NETWORKS['sd']}
    lines = [
        f' "{stem}": {{\n' + ',\n'.join(f'  "{name}": {list(shape)}' for name, shape in network.items()) + '\n }'
        for stem, network in shapes.items()
    ]
    TABLE.write_text('{\n' + ',\n'.join(lines) + '\n}\n', encoding='utf-8')


if __name__ == '__main__':
    write_table()

"""The plan of a conversion, tensor by tensor."""

from dataclasses import dataclass, field

import numpy as np

from ckpt_convert import name_map
from ckpt_convert.layouts import NETWORKS
from ckpt_convert.model_config import model_config
from ckpt_convert.shapes import parameter_shapes
from diffdis_ms.config import ModelConfig
from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.errors import CheckpointError
from diffdis_ms.models.init import fresh
from diffdis_ms.models.names import copied_from, is_new_parameter
from diffdis_ms.storage.tensors import LazyTensor, short

PROJECTION = 'text_projection.weight'
# largest difference, relative to the largest value, between two copies of a tower, one of which may be rounded
ROUNDING = {'F64': 1e-6, 'F32': 1e-6, 'F16': 1e-3, 'BF16': 1e-2}
FLOATS = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': np.float32}


@dataclass
class Converted:
    """Our parameter and the source of its value, which is read when NumPy converts it to an array.

    Attributes:
        name, shape, dtype: of our parameter. tensor: tensor of the file, None if the parameter is initialised. place:
            where the parameter is in the tensor.
        label: the tensor's full name in its file. seed: seed of the initialisation.
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
        """Yield the bytes for `files.write_weights`, directly from the file if they need no change."""
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
    """What will be written, and what happens to each tensor of the source.

    Attributes:
        config: config of the model directory, None for an Inception. dtype: 'float32', 'float16' or 'source'. seed:
            seed of new parameters.
        networks: {file stem: {our parameter's name: Converted}}. initialized: new parameters, which no source has.
        unused: {tensor: reason why it is not converted}. unmapped: tensors that the model has no place for. problems:
            messages about tensors that are missing or have another shape.
    """

    config: ModelConfig | None
    dtype: str
    seed: int
    networks: dict[str, dict[str, Converted]]
    unused: dict[str, str]
    unmapped: list[str]
    initialized: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def make_plan(source, text_source=None, overrides=(), dtype=None, seed=0):
    """Match the tensors of a source with our networks.

    Args:
        source: Source. text_source: Source of kind clip, for the text projection that Stable Diffusion's files lack, or
            None.
        overrides: strings 'key=value' for ModelConfig. dtype: 'float32', 'float16', 'source', or None (float32; source
            for our own exports).
        seed: seed of new parameters.

    Returns:
        Plan.

    Raises:
        CheckpointError: no plan can be made for the source. ConfigError: sizes do not fit together.
    """
    dtype = dtype or ('source' if source.config else 'float32')
    config = model_config(source, text_source, overrides) if source.kind != 'inception' else None
    plan = Plan(config, dtype, seed, {}, dict(source.unused), list(source.unknown))
    if source.kind == 'sd':
        _check_schedule(source, config)
    for stem in NETWORKS[source.kind]:
        if stem not in source.networks:
            hint = ''
            if (stem, source.kind) == ('text_encoder', 'sd'):
                hint = ' under a known name: give CLIP ViT-L/14 with --text-encoder'
            raise CheckpointError(f'{source.path} holds no {stem.replace("_", " ")}{hint}')
    for stem in NETWORKS[source.kind]:
        plan.networks[stem] = _match(stem, parameter_shapes(stem, config), source, plan)
    if source.kind == 'sd':
        _project(plan, source, text_source)
    return plan


def _table(stem, network, config):
    """The name table for a network's layout; None if the names are the same as ours."""
    if (
        stem == 'vae'
        and network.layout == 'diffusers'
        and 'encoder.mid_block.attentions.0.query.weight' in network.tensors
    ):
        return name_map.vae_old(config.vae)
    makers = {
        ('unet', 'ldm'): name_map.unet_ldm,
        ('vae', 'ldm'): name_map.vae_ldm,
        ('text_encoder', 'openai'): name_map.clip_text_openai,
        ('image_encoder', 'openai'): name_map.clip_image_openai,
    }
    maker = makers.get((stem, network.layout))
    return maker(getattr(config, stem)) if maker else None


def _match(stem, shapes, source, plan):
    """{our name: Converted} of one network; mismatches are added to plan.problems."""
    network, sidecar = source.networks[stem], source.networks.get('diffdis')
    table, result, used = _table(stem, network, plan.config), {}, set()
    for name, shape in shapes.items():
        if name == PROJECTION and stem == 'text_encoder' and source.kind == 'sd':
            used.add(name_map.place(name, shape, table).name)
            result[name] = None  # keeps its position; _project fills it in
            continue
        if stem == 'unet' and is_new_parameter(name):
            result[name] = _new_parameter(name, shapes, source, table, plan)
            continue
        there = name_map.place(name, shape, table)
        used.add(there.name)
        tensor, label = network.tensors.get(there.name), network.where + there.name
        if tensor is None:
            plan.problems.append(f'{label} is missing')
        elif tensor.shape != there.shape:
            plan.problems.append(f'{label} has shape {short(str(tensor.shape))}, expected {there.shape}')
        else:
            result[name] = _converted(name, shape, tensor, there, label, plan)
    if sidecar and stem == 'unet':
        plan.unmapped += [
            sidecar.where + n
            for n in sidecar.tensors
            if n != f'text_encoder.{PROJECTION}' and n.partition('.')[2] not in shapes
        ]
    plan.unmapped += [network.where + n for n in network.tensors if n not in used]
    return result


def _converted(name, shape, tensor, place, label, plan):
    if tensor.kind not in FLOATS:
        raise CheckpointError(f'{label} holds numbers of type {tensor.kind}, expected floating point')
    dtype = FLOATS[tensor.kind] if plan.dtype == 'source' else plan.dtype
    return Converted(name, shape, np.dtype(dtype), tensor, place, label)


def _new_parameter(name, shapes, source, table, plan):
    """A parameter that Stable Diffusion does not have: from our own export, or initialised like `init.initialize`."""
    shape, network, sidecar = shapes[name], source.networks['unet'], source.networks.get('diffdis')
    if sidecar:
        tensor, label = sidecar.tensors.get(f'unet.{name}'), f'{sidecar.where}unet.{name}'
        if tensor is None or tensor.shape != shape:
            plan.problems.append(
                f'{label}'
                f' {"is missing" if tensor is None else "has shape " + str(tensor.shape) + ", expected " + str(shape)}'
            )
            return None
        return _converted(name, shape, tensor, name_map.Place(label, shape), label, plan)
    plan.initialized.append(name)
    original = copied_from(name)
    if original in shapes:
        there = name_map.place(original, shape, table)
        tensor = network.tensors.get(there.name)
        if tensor is not None and tensor.shape == there.shape:
            return _converted(name, shape, tensor, there, network.where + there.name, plan)
    return Converted(name, shape, np.dtype('float32' if plan.dtype == 'source' else plan.dtype), seed=plan.seed)


def _project(plan, source, text_source):
    """Fill in the text projection, which Stable Diffusion's files lack and the text query e needs."""
    towers = [(source.networks['text_encoder'], PROJECTION)]
    if source.networks.get('diffdis'):
        towers.insert(0, (source.networks['diffdis'], f'text_encoder.{PROJECTION}'))
    text, rows = plan.config.text_encoder, plan.networks['text_encoder']
    shape = (text.projection_dim, text.hidden_size)
    for network, name in towers:
        if name in network.tensors and text_source is None:
            if network.tensors[name].shape != shape:
                raise CheckpointError(
                    f'{network.where}{name} has shape {network.tensors[name].shape}, expected {shape}'
                )
            rows[PROJECTION] = _converted(
                PROJECTION, shape, network.tensors[name], name_map.Place(name, shape), network.where + name, plan
            )
            return
    if text_source is None:
        raise CheckpointError(
            f'{source.path} lacks CLIP\'s text_projection, as all files of Stable Diffusion do, and DiffDis\' text'
            ' query needs it: give CLIP ViT-L/14 with --text-encoder (OpenAI\'s ViT-L-14.pt, or the Hugging Face'
            ' directory clip-vit-large-patch14)'
        )
    rows[PROJECTION] = _from_clip(plan, rows, text_source)


def _from_clip(plan, rows, text_source):
    """Get the projection from a CLIP, whose text tower must be the one in the source."""
    network = text_source.networks.get('text_encoder')
    if network is None:
        raise CheckpointError(f'{text_source.path} holds no text encoder')
    table, found = _table('text_encoder', network, plan.config), {}
    for name, shape in parameter_shapes('text_encoder', plan.config).items():
        there = name_map.place(name, shape, table)
        tensor, label = network.tensors.get(there.name), f'{text_source.path}: {there.name}'
        if tensor is None and name == PROJECTION:
            raise CheckpointError(
                f'{text_source.path} also lacks text_projection: give a whole CLIP (or CLIPTextModelWithProjection),'
                ' not only a text model'
            )
        if tensor is None or tensor.shape != there.shape:
            raise CheckpointError(
                f'{label} is missing or of another shape: not the text encoder that belongs to this Stable Diffusion'
            )
        found[name] = _converted(name, shape, tensor, there, label, plan)
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
            'give its schedule with --set image_diffusion.beta_start=... image_diffusion.beta_end=...'
        )

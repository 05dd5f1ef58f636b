"""Build an objective: its networks, with weights from model directories or random ones, its loss cell and inputs."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from mindspore import nn

from diffdis_ms.config import validate
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.encoders import Encoders
from diffdis_ms.models.init import copy_image_weights, initialize
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.models.precision import apply_precision
from diffdis_ms.models.recompute import apply_recompute
from diffdis_ms.storage.model_dir import load_weights, parameters_to_numpy, read_config, read_manifest
from diffdis_ms.train.features import AutoencoderFeatures, CachedFeatures, CLIPFeatures, DiffDisFeatures
from diffdis_ms.train.objective import AutoencoderObjective, CLIPObjective, DiffDisObjective
from diffdis_ms.world import World


@dataclass
class Learner:
    """Everything that training needs of an objective: loss cell, inputs from (batch, step), networks to save."""

    objective: Any
    features: Callable
    networks: dict[str, Any]  # file stem -> network, or a function that makes it on first use
    tokenizer: Any = None
    frozen: tuple[str, ...] = ()  # stems of networks that are not trained

    def network(self, stem):
        """Get a network by its file stem. A network that training does not need (its results are cached) is loaded
        now."""
        if not isinstance(self.networks[stem], nn.Cell):
            self.networks[stem] = self.networks[stem]()
        return self.networks[stem]

    def weights(self, averages):
        """{stem: {parameter: array}} of all networks, with the EMA weights `averages` for parameters that have them."""
        return {
            stem: {name: averages.get(name, array) for name, array in parameters_to_numpy(self.network(stem)).items()}
            for stem in self.networks
        }


def resolve_model(config):
    """Copy settings that belong to the weights of `config.init` from their model directories to `config.model`.

    These are the configs of V, T and the UNet, and the diffusion of z that the UNet was trained with. If the UNet's new
    parameters are trained, they are also the alignment transformer and the diffusion of e.

    Raises:
        ConfigError: a model directory is missing; the config states a different value (`config.load`); V is not the one
            that the UNet was trained with; or the networks do not fit together.
    """
    for stem in ('vae', 'text_encoder', 'unet'):
        directory = getattr(config.init, stem)
        if directory:
            theirs = read_config(directory)
            for key in _belongs_to_unet(directory) if stem == 'unet' else (stem,):
                _take_over(
                    config.model, theirs, key, 'model', getattr(config, 'stated', ()), f'init.{stem} = {directory}'
                )
            ours, expected = config.model.vae.scaling_factor, theirs.vae.scaling_factor
            if stem == 'unet' and config.init.vae and ours != expected:
                raise ConfigError(
                    f'init.vae: {config.init.vae} has vae.scaling_factor {ours}, but the UNet of {directory} was'
                    f' trained with {expected}: give the autoencoder that belongs to it'
                )
    if config.init.text_encoder and 'model.image_encoder.projection_dim' not in getattr(config, 'stated', ()):
        config.model.image_encoder.projection_dim = config.model.text_encoder.projection_dim  # the same e for both
    validate(config.model, config.objective)


def _belongs_to_unet(directory):
    """Keys of a ModelConfig that describe the UNet of a model directory and its training.

    In a converted directory (according to its manifest) the new parameters are untrained and suit any diffusion of e.
    """
    fresh = 'initialized' in read_manifest(directory)
    return ('unet', 'image_diffusion') + (
        () if fresh else ('alignment', 'text_diffusion', 'dual_stream.image_condition_timestep')
    )


def _take_over(ours, theirs, key, above, stated, source):
    """Set `key` (dotted) of a tree of dataclasses to the value in `theirs`; ConfigError if another value was stated."""
    first, _, rest = key.partition('.')
    name, mine, value = f'{above}.{first}', getattr(ours, first), getattr(theirs, first)
    if is_dataclass(value):
        for inner in [rest] if rest else [f.name for f in fields(value)]:
            _take_over(mine, value, inner, name, stated, source)
    elif name in stated and mine != value:
        raise ConfigError(
            f'{name}: {mine}, but the weights of {source} were made with {value}; leave {name} out, or choose another '
            'directory'
        )
    else:
        setattr(ours, first, value)


def build(config, captions, tokenizer=None, world=World(), cache=None):
    """Build the `Learner` of config.objective, with weights from `config.init` or random ones.

    Args:
        config: Config after `resolve_model`. captions: the training set, for features that are computed once; None with
            a cache.
        tokenizer: see `load_tokenizer`. world: World. cache: LatentCache instead of V and T, or None.

    Raises:
        ConfigError: weights are missing or do not fit.
    """
    model, init = config.model, config.init
    if config.objective == 'autoencoder':
        vae = _trained(AutoencoderKL(model.vae), 'vae', init.vae, config)
        return Learner(AutoencoderObjective(vae, config, world), AutoencoderFeatures(config, world), {'vae': vae})

    def make_text_encoder():
        return _network(CLIPTextEncoder(model.text_encoder), 'text_encoder', init.text_encoder, config)

    def make_vae():
        return _network(AutoencoderKL(model.vae), 'vae', init.vae, config)

    if config.objective == 'clip':
        image_encoder = _trained(CLIPImageEncoder(model.image_encoder), 'image_encoder', None, config)
        text_encoder = apply_precision(make_text_encoder(), config.train.precision)
        return Learner(
            CLIPObjective(image_encoder, text_encoder, config, world),
            CLIPFeatures(model.image_encoder),
            {'text_encoder': text_encoder, 'image_encoder': image_encoder},
            tokenizer,
        )
    unet = _trained(DiffDisUNet(model), 'unet', init.unet, config, may_be_missing=is_new_parameter)
    if config.train.recompute:
        apply_recompute(unet)
    if cache is not None:
        features = CachedFeatures(cache, config, world)
        objective = DiffDisObjective(unet, config, features.empty_context, features.zero_latent, None, world)
        return Learner(
            objective, features, {'unet': unet, 'vae': make_vae, 'text_encoder': make_text_encoder}, tokenizer
        )
    vae, text_encoder = make_vae(), make_text_encoder()
    frozen = {'vae': vae, **({'text_encoder': text_encoder} if config.train.freeze_text_encoder else {})}
    for network in frozen.values():
        for p in network.get_parameters():
            p.requires_grad = False
    encoders = Encoders(vae, text_encoder, tokenizer, model, min(64, config.train.batch_size))
    features = DiffDisFeatures(encoders, config, captions, world)
    if not config.train.freeze_text_encoder:
        apply_precision(text_encoder, config.train.precision)  # after the frozen features, which stay float32
    objective = DiffDisObjective(
        unet,
        config,
        features.empty_context,
        features.zero_latent,
        None if config.train.freeze_text_encoder else text_encoder,
        world,
        features.empty_ids,
    )
    return Learner(
        objective, features, {'unet': unet, 'vae': vae, 'text_encoder': text_encoder}, tokenizer, tuple(frozen)
    )


def _network(cell, stem, directory, config, may_be_missing=None):
    """Initialise a network, then load the weights of a model directory if one is given.

    Query parameters that the directory lacks start as copies of its other weights (`copied_from`).
    """
    initialize(cell, config.seed)
    if directory is not None:
        copy_image_weights(cell, keep=load_weights(cell, Path(directory) / f'{stem}.safetensors', may_be_missing))
    return cell


def _trained(cell, stem, directory, config, may_be_missing=None):
    """`_network` in the precision of training."""
    return apply_precision(_network(cell, stem, directory, config, may_be_missing), config.train.precision)


def load_tokenizer(config):
    """Load the tokenizer of a config after `resolve_model`; None for an autoencoder.

    Raises:
        ConfigError: there is no tokenizer, or it does not fit the text encoder.
    """
    if config.objective == 'autoencoder':
        return None
    init, text = config.init, config.model.text_encoder
    source = Path(init.text_encoder) / 'tokenizer' if init.text_encoder else init.tokenizer
    if not source:
        raise ConfigError(
            'init.tokenizer: a tokenizer directory is needed (or init.text_encoder, whose tokenizer is used)'
        )
    tokenizer = Tokenizer.load(source)
    if tokenizer.vocab_size != text.vocab_size:
        raise ConfigError(
            f'model.text_encoder.vocab_size: {text.vocab_size}, but the tokenizer {source} has {tokenizer.vocab_size}'
            ' tokens'
        )
    return tokenizer

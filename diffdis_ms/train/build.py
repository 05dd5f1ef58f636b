"""What an objective is made of: its networks, with weights from model directories or fresh, its loss cell and its inputs."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict

from diffdis_ms.config import ConfigError, validate
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.encoders import Encoders
from diffdis_ms.model_dir import load_weights, read_config
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.init import initialize
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.train.distributed import World
from diffdis_ms.train.features import AutoencoderFeatures, CLIPFeatures, DiffDisFeatures
from diffdis_ms.train.objective import AutoencoderObjective, CLIPObjective, DiffDisObjective
from diffdis_ms.train.precision import apply_precision


@dataclass
class Setup:
    """What training needs of an objective: its loss cell, its inputs from (batch, step), and the networks of its model directory."""
    objective: Any
    features: Callable
    networks: Dict[str, Any]                     # file stem -> network
    tokenizer: Any = None
    frozen: Dict[str, Any] = field(default_factory=dict)       # those of `networks` that do not train


def build(config, captions, world=World()):
    """The `Setup` of config.objective, with weights from `config.init` or fresh.

    A network that comes from a model directory brings its part of the config along (`config.model` is updated).

    Args:
        config: Config. captions: the training set, for features that are computed once. world: World.

    Raises:
        ConfigError: a model directory or tokenizer is missing or does not fit.
    """
    model, init = config.model, config.init
    for part in ('vae', 'text_encoder'):
        if getattr(init, part):
            setattr(model, part, getattr(read_config(getattr(init, part)), part))
    validate(model)
    if config.objective == 'autoencoder':
        vae = _trained(AutoencoderKL(model.vae), 'vae', init.vae, config)
        return Setup(AutoencoderObjective(vae, config, world), AutoencoderFeatures(config, world), {'vae': vae})
    text_encoder = _network(CLIPTextEncoder(model.text_encoder), 'text_encoder', init.text_encoder, config)
    tokenizer = _tokenizer(config)
    if config.objective == 'clip':
        image_encoder = _trained(CLIPImageEncoder(model.image_encoder), 'image_encoder', None, config)
        apply_precision(text_encoder, config.train.precision)
        return Setup(CLIPObjective(image_encoder, text_encoder, config, world), CLIPFeatures(tokenizer, config),
                     {'text_encoder': text_encoder, 'image_encoder': image_encoder}, tokenizer)
    vae = _network(AutoencoderKL(model.vae), 'vae', init.vae, config)
    unet = _trained(DiffDisUNet(model), 'unet', init.unet, config, may_be_missing=is_new_parameter)
    frozen = {'vae': vae, **({'text_encoder': text_encoder} if config.train.freeze_text_encoder else {})}
    for network in frozen.values():
        for p in network.get_parameters():
            p.requires_grad = False
    encoders = Encoders(vae, text_encoder, tokenizer, model, min(64, config.train.batch_size))
    features = DiffDisFeatures(encoders, config, captions, world)
    if not config.train.freeze_text_encoder:
        apply_precision(text_encoder, config.train.precision)                    # after the frozen features: those stay float32
    objective = DiffDisObjective(unet, config, features.empty_context, features.zero_latent,
                                 None if config.train.freeze_text_encoder else text_encoder, world)
    return Setup(objective, features, {'unet': unet, 'vae': vae, 'text_encoder': text_encoder}, tokenizer, frozen)


def _network(cell, stem, directory, config, may_be_missing=None):
    """Fresh weights, then those of a model directory where one is given."""
    initialize(cell, config.seed)
    if directory is not None:
        load_weights(cell, Path(directory) / f'{stem}.safetensors', may_be_missing)
    return cell


def _trained(cell, *args, **options):
    config = args[2]
    return apply_precision(_network(cell, *args, **options), config.train.precision)


def _tokenizer(config):
    init, text = config.init, config.model.text_encoder
    source = Path(init.text_encoder) / 'tokenizer' if init.text_encoder else init.tokenizer
    if not source:
        raise ConfigError('init.tokenizer: a tokenizer directory is needed (or init.text_encoder, whose tokenizer is used)')
    tokenizer = Tokenizer.load(source)
    if tokenizer.vocab_size != text.vocab_size:
        raise ConfigError(f'model.text_encoder.vocab_size: {text.vocab_size}, but the tokenizer {source} has {tokenizer.vocab_size} tokens')
    return tokenizer

"""The training loop: build, resume, step, log, save. One loop for all objectives."""
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict

import mindspore as ms
import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from diffdis_ms.config import ConfigError, to_yaml, validate
from diffdis_ms.data.folders import open_captions
from diffdis_ms.data.loader import Loader
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.encoders import Encoders
from diffdis_ms.model_dir import load_weights, parameters_to_numpy, read_config, save_model
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.models.init import initialize
from diffdis_ms.train.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from diffdis_ms.train.features import AutoencoderFeatures, CLIPFeatures, DiffDisFeatures
from diffdis_ms.train.objective import AutoencoderObjective, CLIPObjective, DiffDisObjective
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep


class TrainingError(ConfigError):
    """Training cannot go on; the message says at which step and why."""


@dataclass
class Setup:
    """What an objective needs: its loss cell, its inputs from (batch, step), and the networks of its model directory."""
    objective: Any
    features: Callable
    networks: Dict[str, Any]                     # file stem -> network
    tokenizer: Any = None


def train(config, report=print):
    """Run one experiment to its end, resuming where `config.resume` finds a checkpoint.

    Writes output_dir/{config.yaml, metrics.jsonl, checkpoints/step_N/, model/}; the model holds the EMA weights.

    Args:
        config: Config.
        report: called with each line meant for the user.

    Returns:
        Path of the model directory.

    Raises:
        ConfigError: data, model directories or checkpoint cannot be used. TrainingError: the loss is not finite.
    """
    output = Path(config.output_dir)
    checkpoint = find_checkpoint(config.resume, output / 'checkpoints')
    captions = open_captions(config.data.path)
    data = config.data
    loader = Loader(captions, config.train.batch_size, config.model.image_size, config.seed, data.num_workers,
                    data.cache_in_memory, data.random_flip, data.random_shift, min_side=data.min_side, check_directory=output,
                    workers=data.workers)
    setup = build(config, captions)
    units, optimizer, schedules = build_optimizer(config, list(setup.objective.trainable_params()))
    step_cell = TrainStep(setup.objective, units, optimizer, config)
    step_cell.set_train()
    trained = sum(p.size for p in units.parameters)
    report(f'{config.objective}: {len(captions)} samples, {trained / 1e6:.2f} M parameters to train')

    state = {'step': 0, 'seconds': 0.0}
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, step_cell)
        loader.restore(state['loader'])
        report(f'resumed from {checkpoint}')
    output.mkdir(parents=True, exist_ok=True)
    (output / 'config.yaml').write_text(to_yaml(config), encoding='utf-8')
    with MetricsLog(output / 'metrics.jsonl', config, schedules, state['step']) as log:
        state = _steps(config, setup, loader, step_cell, state, log, output / 'checkpoints')
    if loader.skipped:
        report(f'skipped {len(loader.skipped)} samples that cannot be used, for example {next(iter(loader.skipped.items()))}')
    save_trained(output / 'model', config, setup, step_cell, state)
    return output / 'model'


def _steps(config, setup, loader, step_cell, state, log, directory):
    """Steps until `max_steps` or `max_minutes`; returns the last state."""
    first, last = state['step'], config.train.max_steps
    limit = (config.train.max_minutes or math.inf) * 60
    seconds, started = state['seconds'], time.monotonic()
    with tqdm(total=last, initial=first, desc=config.objective, disable=None, unit='step') as bar:
        step, batches = first, iter(loader)
        while step < last and state['seconds'] < limit:
            batch = next(batches)
            outputs = [float(x.asnumpy()) for x in step_cell(*setup.features(batch, step))]
            step += 1
            if not math.isfinite(outputs[0]):
                raise TrainingError(f'step {step}: the loss is {outputs[0]} (samples {batch.indices[:8].tolist()}...); '
                                    f'lower the learning rate or resume from an earlier checkpoint')
            state = {'step': step, 'seconds': seconds + time.monotonic() - started, 'loader': loader.state()}
            bar.update()
            if step % config.train.log_every == 0 or step == last:
                bar.set_postfix(log.write(step, outputs, _scale(setup.objective)))
            if step % config.train.checkpoint_every == 0 and step < last:
                save_checkpoint(directory, step_cell, state, config.train.keep_checkpoints)
        batches.close()
    if step > first:
        save_checkpoint(directory, step_cell, state, config.train.keep_checkpoints)
    return state


def build(config, captions):
    """The `Setup` of config.objective, with weights from `config.init` or fresh.

    A network that comes from a model directory brings its part of the config along (`config.model` is updated).
    """
    model, init = config.model, config.init
    for part in ('vae', 'text_encoder'):
        if getattr(init, part):
            setattr(model, part, getattr(read_config(getattr(init, part)), part))
    validate(model)
    if config.objective == 'autoencoder':
        vae = _network(AutoencoderKL(model.vae), 'vae', init.vae, config)
        return Setup(AutoencoderObjective(vae, config), AutoencoderFeatures(config), {'vae': vae})
    text_encoder = _network(CLIPTextEncoder(model.text_encoder), 'text_encoder', init.text_encoder, config)
    tokenizer = _tokenizer(config)
    if config.objective == 'clip':
        image_encoder = _network(CLIPImageEncoder(model.image_encoder), 'image_encoder', None, config)
        return Setup(CLIPObjective(image_encoder, text_encoder, config), CLIPFeatures(tokenizer, config),
                     {'text_encoder': text_encoder, 'image_encoder': image_encoder}, tokenizer)
    vae = _network(AutoencoderKL(model.vae), 'vae', init.vae, config)
    unet = _network(DiffDisUNet(model), 'unet', init.unet, config, may_be_missing=is_new_parameter)
    for frozen in (vae, text_encoder) if config.train.freeze_text_encoder else (vae,):
        for p in frozen.get_parameters():
            p.requires_grad = False
    encoders = Encoders(vae, text_encoder, tokenizer, model, min(64, config.train.batch_size))
    features = DiffDisFeatures(encoders, config, captions)
    objective = DiffDisObjective(unet, config, features.empty_context, features.zero_latent,
                                 None if config.train.freeze_text_encoder else text_encoder)
    return Setup(objective, features, {'unet': unet, 'vae': vae, 'text_encoder': text_encoder}, tokenizer)


def _network(cell, stem, directory, config, may_be_missing=None):
    """Fresh weights, then those of a model directory where one is given."""
    initialize(cell, config.seed)
    if directory is not None:
        load_weights(cell, Path(directory) / f'{stem}.safetensors', may_be_missing)
    return cell


def _tokenizer(config):
    init, text = config.init, config.model.text_encoder
    source = Path(init.text_encoder) / 'tokenizer' if init.text_encoder else init.tokenizer
    if not source:
        raise ConfigError('init.tokenizer: a tokenizer directory is needed (or init.text_encoder, whose tokenizer is used)')
    tokenizer = Tokenizer.load(source)
    if tokenizer.vocab_size != text.vocab_size:
        raise ConfigError(f'model.text_encoder.vocab_size: {text.vocab_size}, but the tokenizer {source} has {tokenizer.vocab_size} tokens')
    return tokenizer


def save_trained(directory, config, setup, step_cell, state):
    """The model directory of a run: EMA weights where there are any, the trained logit scale in its config."""
    averages, networks = step_cell.averaged(), {}
    for stem, cell in setup.networks.items():
        networks[stem] = {name: averages.get(name, array) for name, array in parameters_to_numpy(cell).items()}
    model = config.model
    if hasattr(setup.objective, 'logit_scale'):
        model.logit_scale = _scale(setup.objective)
    if config.objective == 'autoencoder':
        model.vae.scaling_factor = latent_scale(setup, networks, config)
    save_model(directory, model, networks, setup.tokenizer, {'step': state['step'], 'objective': config.objective})


def latent_scale(setup, networks, config):
    """1 / standard deviation of the latents of the training images: what Stable Diffusion's 0.18215 was measured as."""
    vae = setup.networks['vae']
    for p in vae.get_parameters():
        p.set_data(Tensor(networks['vae'][p.name]))
    captions = open_captions(config.data.path)
    loader = Loader(captions, config.train.batch_size, config.model.image_size, config.seed, config.data.num_workers,
                    min_side=config.data.min_side, check_directory=config.output_dir)
    encoders = Encoders(vae, None, None, config.model, config.train.batch_size)
    batches = iter(loader)
    latents = [encoders.encode_images(next(batches).pixels) for _ in range(min(8, len(loader.good) // config.train.batch_size))]
    batches.close()
    return float(vae.scaling_factor / np.std(latents))


def _scale(objective):
    return float(np.exp(objective.logit_scale.weight.asnumpy())) if hasattr(objective, 'logit_scale') else None


class MetricsLog:
    """metrics.jsonl: one object a logged step. A resumed run drops what was logged after its checkpoint."""

    def __init__(self, path, config, schedules, step):
        self.config, self.schedules = config, schedules
        kept = [line for line in path.read_text().splitlines() if json.loads(line)['step'] <= step] if path.exists() and step else []
        temporary = path.with_name(path.name + '.tmp')
        temporary.write_text(''.join(line + '\n' for line in kept))
        os.replace(temporary, path)
        self.file = open(path, 'a', encoding='utf-8')
        self.mark = time.monotonic(), step

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, step, outputs, logit_scale):
        """Log one step; returns what the progress bar shows."""
        now = time.monotonic()
        rate = (step - self.mark[1]) * self.config.train.batch_size / max(now - self.mark[0], 1e-9)
        self.mark = now, step
        loss, loss_ig, loss_ita, norm = outputs
        at = Tensor(step - 1, ms.float32)
        lr, lr_new = (float(self.schedules[k](at).asnumpy()) for k in ('lr', 'lr_new'))
        row = {'step': step, 'loss': loss, 'loss_ig': loss_ig, 'loss_ita': loss_ita, 'lr': lr, 'lr_new': lr_new, 'grad_norm': norm,
               'loss_scale': 1.0, 'samples_per_second': rate, 'logit_scale': logit_scale}
        self.file.write(json.dumps(row) + '\n')
        self.file.flush()
        return {'loss': f'{loss:.4f}', 'ig': f'{loss_ig:.4f}', 'ita': f'{loss_ita:.4f}', 'samples/s': f'{rate:.0f}'}

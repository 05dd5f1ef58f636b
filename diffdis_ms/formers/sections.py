"""MindFormers' YAML sections and our config: who says what.

Numbers live in our config. A section of a MindFormers YAML may state one of them, as its users do; then it counts as an
override of ours, before anything is built. What the sections leave out is filled in from our config, so that
MindFormers' own builders find it there. MindFormers fills in defaults of its own when it reads a YAML (batch size 1, a
cosine of 5e-5 where `lr_schedule` is missing): what equals those counts as left out.
"""

from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.register.template import (
    GeneralConfig,
    LrScheduleConfig,
    OptimizerConfig,
    RunnerConfig,
    WrapperConfig,
)
from mindspore import get_context

from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.config import DiffDisConfig

SCHEDULES = {'ConstantWarmUpLR': 'constant', 'CosineWithWarmUpLR': 'cosine'}
NO_CLIPPING = 2.0**40  # MindFormers multiplies by it and divides: with a power of two nothing changes
_NUMBERS = {  # section -> its key -> ours
    'lr_schedule': {'learning_rate': 'optimizer.learning_rate', 'warmup_steps': 'optimizer.warmup_steps'},
    'optimizer': {'weight_decay': 'optimizer.weight_decay', 'eps': 'optimizer.eps'},
    'runner_wrapper': {'max_grad_norm': 'optimizer.max_grad_norm'},
    'scale_sense': {'loss_scale_value': 'train.loss_scale', 'scale_window': 'train.loss_scale_window'},
}
_DEFAULTS = {'lr_schedule': LrScheduleConfig, 'optimizer': OptimizerConfig, 'runner_wrapper': WrapperConfig}


def adopt(config):
    """Bring a MindFormers config and ours together; `config` is changed in place.

    Args:
        config: MindFormerConfig of a training YAML, as `Trainer` hands it on.

    Returns:
        our `Config`, with what the sections state.

    Raises:
        ConfigError: a section asks for what DiffDis's training does not do, or our config does not hold.
    """
    _refuse(config)
    given = config.model.model_config
    if given.get('experiment'):
        raise ConfigError(
            'model.model_config.experiment belongs to saved models; a training YAML names config_file and overrides'
        )
    given.overrides = [*(given.overrides or []), *_stated(config)]
    ours = DiffDisConfig(given.config_file, given.overrides).resolved()
    if ours.train.accumulation_steps != 1:
        raise ConfigError(
            'train.accumulation_steps: MindFormers would split the contrastive batch; use tools/train.py, which keeps'
            ' it whole'
        )
    _fill(config, ours)
    return ours


def _refuse(config):
    """What would be ignored, or be another training than DiffDis's."""
    runner, optimizer, schedule = config.runner_config, config.optimizer, config.lr_schedule
    for wrong, message in (
        (
            config.grouped_lr_schedule,
            (
                'grouped_lr_schedule: leave it out; the rate of the new parameters is optimizer.new_learning_rate '
                'in model.model_config.overrides'
            ),
        ),
        (
            runner.epochs != RunnerConfig.epochs,
            (
                f'runner_config.epochs: {runner.epochs}; leave it out: the steps are train.max_steps in '
                'model.model_config.overrides'
            ),
        ),
        (
            (runner.gradient_accumulation_steps or 1) != 1,
            (
                'runner_config.gradient_accumulation_steps: MindFormers would split the contrastive '
                'batch; use tools/train.py, which keeps it whole'
            ),
        ),
        (optimizer.type != 'AdamW', f'optimizer.type: {optimizer.type}; DiffDis trains with AdamW'),
        (schedule.type not in SCHEDULES, f'lr_schedule.type: {schedule.type} is none of {", ".join(SCHEDULES)}'),
    ):
        if wrong:
            raise ConfigError(message)


def _stated(config):
    """Overrides of our config, `key=value`, for all that the sections state."""
    sections = {
        name: {} if config[name] == default.apply(None) else config[name] for name, default in _DEFAULTS.items()
    }
    scale = sections['runner_wrapper'].get('scale_sense')
    sections['scale_sense'] = scale if isinstance(scale, dict) else {}
    found = [
        f'{ours}={_text(sections[name][key])}'
        for name, keys in _NUMBERS.items()
        for key, ours in keys.items()
        if sections[name].get(key) is not None
    ]
    if sections['lr_schedule']:
        found.append(f'optimizer.schedule={SCHEDULES[config.lr_schedule.type]}')
    if sections['optimizer'].get('betas'):
        beta1, beta2 = sections['optimizer']['betas']
        found += [f'optimizer.beta1={_text(beta1)}', f'optimizer.beta2={_text(beta2)}']
    if sections['runner_wrapper'].get('use_clip_grad') is False:
        found.append('optimizer.max_grad_norm=0')
    if config.runner_config.batch_size != RunnerConfig.batch_size:
        found.append(f'train.batch_size={config.runner_config.batch_size}')
    if config.seed not in (None, GeneralConfig.seed):
        found.append(f'seed={config.seed}')
    return [*found, f'output_dir={config.output_dir}', f'device={get_context("device_target")}']


def _text(value):
    """A number as it reads in `key=value`: YAML takes 1e-5 for a text, so does MindFormers."""
    return repr(float(value)) if isinstance(value, str) else repr(value)


def _fill(config, ours):
    """Our numbers into the sections."""
    options, train = ours.optimizer, ours.train
    # An epoch is the whole run. Between steps the logit scale is limited and the EMA moves, so steps are not sunk into
    # the device.
    config.runner_config.update(batch_size=train.batch_size, epochs=1, sink_mode=False, sink_size=1)
    schedule = {name: kind for kind, name in SCHEDULES.items()}[options.schedule]
    config.lr_schedule = MindFormerConfig(
        type=schedule,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        total_steps=max(train.max_steps, options.warmup_steps + 1),
    )
    config.optimizer.update(betas=[options.beta1, options.beta2], eps=options.eps, weight_decay=options.weight_decay)
    config.optimizer.pop('learning_rate', None)  # the schedule's
    wrapper = config.runner_wrapper
    if wrapper.get('use_clip_grad') is not False:  # with it the norm is known, logged and watched
        wrapper.use_clip_grad, wrapper.max_grad_norm = True, options.max_grad_norm or NO_CLIPPING
    wrapper.scale_sense = 1.0
    if train.precision == 'fp16':
        wrapper.scale_sense = MindFormerConfig(
            type='DynamicLossScaleUpdateCell',
            loss_scale_value=train.loss_scale,
            scale_factor=2,
            scale_window=train.loss_scale_window,
        )
    config.seed = ours.seed
    for callback in config.callbacks:
        if callback['type'] == 'MFLossMonitor':
            callback.setdefault('per_print_times', train.log_every)
        elif callback['type'] == 'CheckpointMonitor':
            callback.setdefault('save_checkpoint_steps', train.checkpoint_every)
            callback.setdefault('keep_checkpoint_max', train.keep_checkpoints)
            callback.setdefault('checkpoint_format', config.load_ckpt_format)
    config.train_dataset_task.dataset_config = config.train_dataset
    config.train_dataset.model_config = config.model.model_config

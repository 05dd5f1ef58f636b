"""Combine the sections of a MindFormers YAML with our config.

All settings are defined in our config. A section of the YAML may also state one of them, which then overrides ours
before anything is built. Settings that the sections leave out are filled in from our config, for MindFormers' own
builders. MindFormers adds its defaults when it reads a YAML (batch size 1, a cosine of 5e-5 without `lr_schedule`). So
a value equal to such a default counts as left out.
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

from diffdis_ms.config import Config
from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.config import DiffDisConfig

SCHEDULES = {'ConstantWarmUpLR': 'constant', 'CosineWithWarmUpLR': 'cosine'}
NO_CLIPPING = 2.0**40  # MindFormers multiplies and divides by it, which is exact for a power of two
_NUMBERS = {  # section -> its key -> ours
    'lr_schedule': {'learning_rate': 'optimizer.learning_rate', 'warmup_steps': 'optimizer.warmup_steps'},
    'optimizer': {'weight_decay': 'optimizer.weight_decay', 'eps': 'optimizer.eps'},
    'runner_wrapper': {'max_grad_norm': 'optimizer.max_grad_norm'},
    'scale_sense': {'loss_scale_value': 'train.loss_scale', 'scale_window': 'train.loss_scale_window'},
}
_OWN = {  # of our config: what MindFormers decides -> where it does
    'runtime.jit_level': 'context.jit_config',
    'runtime.overflow_mode': 'the variable MS_ASCEND_CHECK_OVERFLOW_MODE',
    'runtime.memory_limit_gb': 'context.max_device_memory',
    'runtime.hccl_connect_timeout': 'the variable HCCL_CONNECT_TIMEOUT',
    'runtime.hccl_exec_timeout': 'the variable HCCL_EXEC_TIMEOUT',
    'runtime.deterministic': 'context.deterministic',
    'runtime.compile_cache': 'context.enable_compile_cache',
    'train.shard_optimizer': 'parallel.enable_parallel_optimizer',
    'train.sample_every': 'nothing: this trainer draws no pictures',
}
_DEFAULTS = {'lr_schedule': LrScheduleConfig, 'optimizer': OptimizerConfig, 'runner_wrapper': WrapperConfig}


def adopt(config):
    """Combine a MindFormers config with ours; `config` is changed in place.

    Args:
        config: MindFormerConfig of a training YAML, as passed on by `Trainer`.

    Returns:
        Our `Config`, with the settings that the sections state.

    Raises:
        ConfigError: a section asks for something that DiffDis' training does not do, or our config is not valid.
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
    _refuse_own(ours)
    _fill(config, ours)
    return ours


def _refuse_own(ours):
    """Refuse settings of our config that MindFormers would not see."""
    usual = Config()
    for key, place in _OWN.items():
        section, name = key.split('.')
        value, default = (getattr(getattr(config, section), name) for config in (ours, usual))
        if value != default:
            raise ConfigError(
                f'{key}: {value} has no effect with MindFormers, where {place} decides; set it there, and add'
                f' {key}={"null" if default is None else str(default).lower()} to model.model_config.overrides'
            )


def _refuse(config):
    """Refuse settings that would be ignored, or that would not be DiffDis' training."""
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
    """Overrides of our config, as `key=value`, for all settings that the sections state."""
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
    """Format a number for `key=value`. YAML, and so MindFormers, reads 1e-5 as a string."""
    return repr(float(value)) if isinstance(value, str) else repr(value)


def _fill(config, ours):
    """Fill the sections with our settings."""
    options, train = ours.optimizer, ours.train
    # An epoch is the whole run. The logit scale is limited and the EMA updated between steps, so data sinking is off.
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
    if wrapper.get('use_clip_grad') is not False:  # so that the norm is computed, logged and checked
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

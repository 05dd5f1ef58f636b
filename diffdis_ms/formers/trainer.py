"""DiffDisTrainer: MindFormers' trainer for DiffDis."""

import os
from pathlib import Path

from mindformers.core.optim import build_optim
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.tools.register.config import MindFormerConfig
from mindformers.trainer.base_trainer import BaseTrainer
from mindspore import get_context

from diffdis_ms import runtime
from diffdis_ms.config import to_yaml
from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.dataset import this_world
from diffdis_ms.formers.sections import adopt
from diffdis_ms.formers.step import DiffDisCallback
from diffdis_ms.models.attention import use_flash
from diffdis_ms.train.build import resolve_model
from diffdis_ms.train.optim import group_parameters, group_settings


@MindFormerRegister.register(MindFormerModuleType.TRAINER)
class DiffDisTrainer(BaseTrainer):
    """The trainer for `trainer: {type: DiffDisTrainer}` in a YAML; `mindformers.Trainer(config).train()` calls `train`.

    It uses MindFormers' context, schedules, AdamW, one-step cell, loss scale, callbacks, checkpoints and resuming. Only
    the parameter groups are DiffDis': two learning rates, and no weight decay for the logit scale.
    """

    def __init__(self, model_name=None):
        super().__init__('general', model_name)
        self.ours = None

    def train(self, config=None, network=None, dataset=None, optimizer=None, callbacks=None, **kwargs):
        """Train to `train.max_steps`; writes MindFormers' checkpoints, metrics.jsonl and, at the end, model/ with the
        EMA weights below output_dir.

        Args:
            config: MindFormerConfig. The others: objects given to `Trainer` instead of those built from the config.

        Raises:
            ConfigError: see `sections.adopt`; msrun without use_parallel; the cache cannot be used.
        """
        if 'MS_ROLE' in os.environ and not config.use_parallel:
            raise ConfigError(
                'use_parallel: under msrun it must be True (run_mindformer.py --use_parallel True): each process would'
                ' train alone'
            )
        if get_context('device_target') == 'CPU':
            config.use_parallel = (
                False  # build_context has read it; later it only enables barriers, which the CPU does not have
            )
        self.ours = adopt(config)
        resolve_model(self.ours)
        world, output = this_world(), Path(self.ours.output_dir)
        flash = get_context('device_target') == 'Ascend' and runtime.ascend_chip() in runtime.FLASH_CHIPS
        use_flash(self.ours.runtime.flash_attention and flash)  # build_context has set everything else
        if world.first:
            output.mkdir(parents=True, exist_ok=True)
            (output / 'config.yaml').write_text(to_yaml(self.ours), encoding='utf-8')
        more = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks is not None else []
        after = DiffDisCallback(self.ours, output if world.first else None)
        self.training_process(
            config=config, network=network, dataset=dataset, optimizer=optimizer, callbacks=[*more, after], **kwargs
        )

    def evaluate(self, *args, **kwargs):
        """Raise ConfigError: DiffDis is evaluated from its model directory."""
        raise ConfigError(
            'run_mode: DiffDis is evaluated with tools/evaluate.py --model OUTPUT_DIR/model, not by MindFormers'
        )

    predict = evaluate

    @staticmethod
    def sort_callbacks(default_callbacks):
        """Sort callbacks as MindFormers does, but with `DiffDisCallback` first: the EMA must be updated before
        CheckpointMonitor saves a step."""
        return sorted(
            BaseTrainer.sort_callbacks(default_callbacks),
            key=lambda callback: not isinstance(callback, DiffDisCallback),
        )

    def create_network_without_param_init(self, default_args=None):
        """Make the network with its weights, which MindFormers would skip if it loads a checkpoint."""
        return self.create_network(default_args)

    def create_optimizer_scheduler_without_param_init(self, network, model_params):
        """As `create_optimizer_scheduler`."""
        return self.create_optimizer_scheduler(network, model_params)

    def create_optimizer_scheduler(self, network, model_params):
        """Build AdamW from the config's `optimizer` section, for the groups of `train.optim.build_optimizer`."""
        new = MindFormerConfig(**{**self.config.lr_schedule, 'learning_rate': self.ours.optimizer.new_learning_rate})
        self.lr_scheduler, new = self.create_lr_scheduler(self.config.lr_schedule), self.create_lr_scheduler(new)
        # in this order, because MFLossMonitor shows the learning rate of the last group
        groups = group_parameters(network.trainable_params(), self.ours)
        settings = group_settings(self.lr_scheduler, new, self.ours.optimizer.weight_decay)
        self.optimizer = build_optim(
            self.config.optimizer,
            default_args={
                'params': [{'params': groups[name], **settings[name]} for name in groups],
                'learning_rate': self.lr_scheduler,
            },
        )
        return self.optimizer

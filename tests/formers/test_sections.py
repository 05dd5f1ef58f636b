"""Which of MindFormers' sections and our config says what."""

import numpy as np
import pytest
from mindformers.core.clip_grad import ClipGradNorm
from mindformers.tools.register.config import MindFormerConfig
from mindspore import Tensor

from diffdis_ms.config import load
from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.sections import NO_CLIPPING, adopt
from tests.formers.workspace import mindformers_yaml
from tests.workspace import ROOT, make_workspace


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    directory = make_workspace(tmp_path_factory.mktemp('sections'))
    (directory / 'cached.yaml').write_text(
        'base: diffdis.yaml\noptimizer: {learning_rate: 0.002, beta2: 0.98, schedule: cosine, warmup_steps:'
        ' 7}\nseed: 5\n'
    )
    return directory


def read(directory, **sections):
    return MindFormerConfig(str(mindformers_yaml(directory, **sections)))


def test_what_is_left_out_comes_from_our_config(directory):
    config = read(directory, lr_schedule={'type': 'CosineWithWarmUpLR'})
    ours = adopt(config)
    assert (ours.seed, ours.train.batch_size, ours.optimizer.learning_rate, ours.output_dir) == (
        5,
        4,
        0.002,
        str(directory / 'formers'),
    )
    assert config.lr_schedule == {
        'type': 'CosineWithWarmUpLR',
        'learning_rate': 0.002,
        'warmup_steps': 7,
        'total_steps': 8,
    }
    assert config.optimizer == {'type': 'AdamW', 'betas': [0.9, 0.98], 'eps': 1e-8, 'weight_decay': 1e-4}
    assert (
        config.seed,
        config.runner_config.batch_size,
        config.runner_config.epochs,
        config.runner_wrapper.max_grad_norm,
    ) == (5, 4, 1, 1.0)
    assert config.runner_wrapper.scale_sense == 1.0
    assert [c.get('save_checkpoint_steps') for c in config.callbacks] == [None, 3]


def test_sections_that_are_missing_do_not_bring_mindformers_defaults(directory):
    config = read(directory)
    for name in ('lr_schedule', 'optimizer'):  # as MindFormers fills them in
        config[name] = MindFormerConfig(**MindFormerConfig(str(_without(directory, name)))[name])
    ours = adopt(config)
    assert (ours.optimizer.learning_rate, ours.optimizer.schedule, ours.optimizer.weight_decay) == (
        0.002,
        'cosine',
        1e-4,
    )
    assert config.lr_schedule.learning_rate == 0.002


def _without(directory, name):
    path = mindformers_yaml(directory, 'without.yaml')
    text = path.read_text()
    start = text.index(f'\n{name}:') + 1
    end = next(i for i in range(text.index('\n', start) + 1, len(text)) if text[i - 1] == '\n' and text[i] not in ' -')
    path.write_text(text[:start] + text[end:])
    assert f'\n{name}:' not in path.read_text()
    return path


def test_what_a_section_states_overrides_our_config(directory):
    config = read(
        directory,
        lr_schedule={'type': 'ConstantWarmUpLR', 'learning_rate': '5e-5', 'warmup_steps': 3},
        seed=9,
        optimizer={'type': 'AdamW', 'betas': [0.8, 0.9], 'weight_decay': 0.0},
        runner_wrapper={
            'type': 'PortableTrainOneStepCell',
            'use_clip_grad': False,
            'scale_sense': {'type': 'DynamicLossScaleUpdateCell', 'loss_scale_value': 512, 'scale_window': 20},
        },
    )
    config.runner_config.batch_size = 2
    config.model.model_config.overrides += [
        'train.precision=fp16',
        'train.batch_size=3',
        'optimizer.new_learning_rate=0.1',
    ]
    ours = adopt(config)
    options, train = ours.optimizer, ours.train
    assert (options.learning_rate, options.warmup_steps, options.schedule, options.beta1, options.beta2) == (
        5e-5,
        3,
        'constant',
        0.8,
        0.9,
    )
    assert (options.weight_decay, options.max_grad_norm, options.new_learning_rate) == (0.0, 0.0, 0.1)
    assert (train.batch_size, train.loss_scale, train.loss_scale_window, ours.seed) == (2, 512.0, 20, 9)
    assert config.runner_wrapper.scale_sense.loss_scale_value == 512 and config.runner_wrapper.use_clip_grad is False
    assert config.lr_schedule.learning_rate == 5e-5


@pytest.mark.parametrize(
    'sections, words',
    [
        ({'grouped_lr_schedule': {'default': {}}}, 'new_learning_rate'),
        ({'runner_config': {'epochs': 3}}, 'train.max_steps'),
        ({'runner_config': {'gradient_accumulation_steps': 2}}, 'contrastive batch'),
        ({'optimizer': {'type': 'Muon'}}, 'AdamW'),
        ({'lr_schedule': {'type': 'CosineAnnealingLR', 'base_lr': 0.1}}, 'ConstantWarmUpLR, CosineWithWarmUpLR'),
    ],
)
def test_what_would_be_another_training_is_refused(directory, sections, words):
    config = read(directory)
    for name, section in sections.items():
        config[name] = MindFormerConfig(**{**(config.get(name) or {}), **section})
    with pytest.raises(ConfigError, match=words):
        adopt(config)


def test_accumulation_that_splits_the_contrastive_batch_is_refused(directory):
    with pytest.raises(ConfigError, match='accumulation_steps'):
        config = read(directory)
        config.model.model_config.overrides = ['train.accumulation_steps=2']
        adopt(config)


@pytest.mark.parametrize(
    'override, words',
    [
        ('runtime.jit_level=O1', 'runtime.jit_level: O1 has no effect.*context.jit_config.*runtime.jit_level=null'),
        ('runtime.memory_limit_gb=30', 'context.max_device_memory'),
        ('runtime.deterministic=true', 'context.deterministic.*runtime.deterministic=false'),
        ('train.shard_optimizer=true', 'parallel.enable_parallel_optimizer'),
    ],
)
def test_what_mindformers_decides_is_refused_by_name(directory, override, words):
    config = read(directory)
    config.model.model_config.overrides.append(override)
    with pytest.raises(ConfigError, match=words):
        adopt(config)


def test_without_clipping_the_norm_is_still_computed(directory):
    config = read(directory)
    config.model.model_config.overrides.append('optimizer.max_grad_norm=0')
    assert adopt(config).optimizer.max_grad_norm == 0
    wrapper = config.runner_wrapper
    assert wrapper.use_clip_grad and wrapper.max_grad_norm == NO_CLIPPING
    gradient = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    clipped, norm = ClipGradNorm(wrapper.max_grad_norm)((Tensor(gradient),))
    assert np.array_equal(clipped[0].asnumpy(), gradient) and np.isclose(
        float(norm.asnumpy().item()), np.linalg.norm(gradient)
    )


def test_the_papers_run_reads_its_numbers_from_our_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = MindFormerConfig('ascend_configs/mindformers_diffdis.yaml')
    assert load(config.model.model_config.config_file).train.precision == 'bf16'
    config.model.model_config.overrides.append('train.precision=fp32')  # the CPU has no bf16
    ours = adopt(config)
    assert (ours.train.batch_size, ours.train.max_steps, ours.data.cache) == (
        32,
        77760,
        'cache/cc3m',
    )
    assert config.lr_schedule == {
        'type': 'ConstantWarmUpLR',
        'learning_rate': 1e-5,
        'warmup_steps': 1000,
        'total_steps': 77760,
    }
    assert config.runner_wrapper.scale_sense == 1.0 and config.runner_config.batch_size == 32
    assert [c.get('save_checkpoint_steps') for c in config.callbacks] == [None, 1000] and config.parallel.gradients_mean

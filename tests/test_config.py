"""Configs: what is read, and that a user's mistake is named with its key and, where there is one, the nearest valid
key."""

import typing
from dataclasses import fields, is_dataclass
from operator import attrgetter

import pytest

from diffdis_ms import config
from diffdis_ms.config import Config, ModelConfig, load
from diffdis_ms.errors import ConfigError
from tests.workspace import ROOT


@pytest.fixture
def write(tmp_path):
    """Write a YAML file and return its path."""

    def write_file(text, name='config.yaml'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding='utf-8')
        return path

    return write_file


def leaves(schema, prefix=''):
    """{dotted key: type} of all values of a dataclass."""
    found = {}
    for f in fields(schema):
        found |= leaves(f.type, f'{prefix}{f.name}.') if is_dataclass(f.type) else {prefix + f.name: f.type}
    return found


def message(*overrides, path=None, schema=Config):
    with pytest.raises(ConfigError) as error:
        load(path, overrides, schema)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_defaults_are_stable_diffusion_v1_and_the_paper():
    c = load()
    assert c == Config()
    unet, vae, text = c.model.unet, c.model.vae, c.model.text_encoder
    assert unet == config.UNetConfig(4, 4, [320, 640, 1280, 1280], [True, True, True, False], 2, 1, 8, 32)
    assert (vae.block_out_channels, vae.scaling_factor) == ([128, 256, 512, 512], 0.18215)
    assert (text.hidden_size, text.projection_dim, text.num_hidden_layers) == (768, 768, 12)
    assert (text.max_position_embeddings, text.hidden_act) == (77, 'quick_gelu')
    assert c.model.image_diffusion == config.ImageDiffusionConfig(1000, 'linear', 0.00085, 0.012, 'noise')
    # Eq. 5, Table 6, App. Tables 2 and 3
    assert c.model.text_diffusion == config.TextDiffusionConfig(1000, 'cosine', 0.00085, 0.012, 'data', 0.01)
    assert c.model.dual_stream == config.DualStreamConfig(True, True, True, 1000)
    assert c.model.alignment == config.AlignmentConfig(6, 768, 64)
    assert (c.model.logit_scale, c.model.learnable_logit_scale, c.model.max_logit_scale) == (1 / 0.07, True, 100)
    assert c.model.image_size == 256


def test_defaults_of_training_are_the_papers():
    """Sec. 4.1, Eq. 9, Sec. 3.4; cc3m_diffdis.yaml states nothing else."""
    for c in (load(), load(ROOT / 'ascend_configs/cc3m_diffdis.yaml')):
        train = c.train
        assert c.optimizer == config.OptimizerConfig(1e-5, 1e-4, 'constant', 1000, 1e-4, 0.9, 0.999, 1e-8, 0)
        assert (train.task, train.batch_size, train.accumulation_steps) == ('hybrid', 256, 1)
        assert (train.generation_batch_size, train.freeze_text_encoder) == (None, True)
        assert (train.lambda_ita, train.caption_dropout, train.image_dropout) == (1, 0.1, 0.1)
        assert (train.ema_decay, train.ema_ramp) == (0.9999, False)
        assert train.max_steps == 77760 and abs(train.max_steps * train.batch_size / 3.318e6 - 6) < 0.001  # epochs
        assert (c.data.random_flip, c.data.random_shift) == (False, 0)


def test_the_demo_and_the_small_configs_keep_what_short_runs_need():
    for names in (['demo_autoencoder'], ['demo_clip'], ['demo_diffdis'], ['cc3m_diffdis_8p', 'tiny']):
        c = load([ROOT / f'ascend_configs/{name}.yaml' for name in names])
        assert c.train.ema_ramp and c.optimizer.max_grad_norm == 1
        if names[0].startswith('demo'):
            assert c.optimizer.learning_rate == c.optimizer.new_learning_rate  # whatever counts as new


def test_stated_is_what_files_and_overrides_say(write):
    write('train: {batch_size: 8}\nmodel: {vae: {block_out_channels: [128, 256]}}\n', 'base.yaml')
    c = load(write('base: base.yaml\nseed: 0\n'), ['max_steps=30', 'model.image_size=256'])
    assert c.stated == {
        'train.batch_size',
        'model.vae.block_out_channels',
        'seed',
        'train.max_steps',
        'model.image_size',
    }
    assert load().stated == set()


def test_what_is_computed_once_is_not_augmented():
    for key, value in (('random_flip', 'true'), ('random_shift', '2')):
        text = message('data.cache_in_memory=true', f'data.{key}={value}')
        assert 'data.cache_in_memory' in text and f'data.{key}' in text
        for objective in ('clip', 'autoencoder'):  # where pixels are kept
            size = 'model.image_size=224'
            c = load(None, ['data.cache_in_memory=true', f'data.{key}={value}', f'objective={objective}', size])
            assert (c.data.cache_in_memory, getattr(c.data, key)) == (True, {'true': True, '2': 2}[value])


def test_weights_that_an_objective_does_not_use_are_refused():
    for objective, part in (
        ('clip', 'unet'),
        ('clip', 'vae'),
        ('autoencoder', 'unet'),
        ('autoencoder', 'text_encoder'),
    ):
        text = message(f'objective={objective}', f'init.{part}=models/sd', 'model.image_size=224')
        assert f'init.{part} = models/sd' in text and f'objective={objective}' in text
    c = load(None, ['objective=clip', 'init.text_encoder=models/sd', 'model.image_size=224'])
    assert c.init == config.InitConfig(text_encoder='models/sd')


def test_image_size_has_to_suit_the_networks_that_train():
    """The paper's CLIP baseline trains at 224, which the UNet cannot halve 6 times."""
    assert load(None, ['objective=clip', 'model.image_size=224']).model.image_size == 224
    assert load(None, ['objective=autoencoder', 'model.image_size=200']).model.image_size == 200
    text = message('objective=clip', 'model.image_size=256')
    assert 'model.image_size' in text and '256' in text and 'model.image_encoder.image_size is 224' in text
    assert 'the autoencoder halves it 3 times' in message('objective=autoencoder', 'model.image_size=100')
    assert 'image_size: 224 is not a multiple of 64' in message('model.image_size=224')


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(write):
    path = write('train:\n  batch_size: 8\n  max_steps: 20\noptimizer: {learning_rate: 1e-5}\n')
    c = load(path, ['train.max_steps=30', 'model.unet.block_out_channels=[64,64,128,128]', 'train.task=gen'])
    assert (c.train.batch_size, c.train.max_steps, c.train.task) == (8, 30, 'gen')
    assert c.model.unet.block_out_channels == [64, 64, 128, 128] and c.optimizer.learning_rate == 1e-5


def test_bare_keys_below_train():
    c = load(None, ['max_steps=3', 'resume=none', 'max_minutes=null'])
    assert c.train.max_steps == 3 and c.resume == 'none' and c.train.max_minutes is None


def test_runtime_fields():
    c = load(None, ['runtime.jit_level=O1', 'runtime.overflow_mode=infnan', 'recompute=true'])
    assert c.runtime == config.RuntimeConfig(jit_level='O1', overflow_mode='infnan') and c.train.recompute is True
    assert load(None, ['runtime.jit_level=null']) == Config()


def test_base_file(write):
    write('train: {batch_size: 8, max_steps: 5}\nseed: 3\n', 'base.yaml')
    middle = write('base: ../base.yaml\ntrain: {max_steps: 7}\n', 'rows/middle.yaml')
    assert middle.exists()
    top = write('base: rows/middle.yaml\ntrain: {log_every: 2}\n')
    c = load(top)
    assert (c.train.batch_size, c.train.max_steps, c.train.log_every, c.seed) == (8, 7, 2, 3)


def test_later_files_lie_on_top_of_earlier_ones(write):
    a = write(
        'seed: 3\ntrain: {batch_size: 8, max_steps: 5}\nmodel: {unet: {attention_levels: [true, true]}}\n', 'a.yaml'
    )
    b = write('train: {max_steps: 7, log_every: 2}\nmodel: {unet: {block_out_channels: [32, 64]}}\n', 'b.yaml')
    c = load([a, b], ['log_every=4'])
    assert (c.seed, c.train.batch_size, c.train.max_steps, c.train.log_every) == (3, 8, 7, 4)
    unet = c.model.unet
    assert (unet.block_out_channels, unet.attention_levels) == (
        [32, 64],
        [True, True],
    )  # no list is longer than it says
    keys = {'seed', 'train.batch_size', 'train.max_steps', 'train.log_every'}
    assert c.stated == keys | {'model.unet.attention_levels', 'model.unet.block_out_channels'}
    assert load([b, a]).train.max_steps == 5
    assert load([b, a]) == load((str(b), a), ['max_steps=5'])
    base = write('base: a.yaml\nseed: 4\n', 'c.yaml')  # a file lies on what it is based on, both on the file before
    c = load([b, base])
    assert (c.seed, c.train.max_steps, c.train.log_every) == (4, 5, 2)
    with pytest.raises(ConfigError, match='unet.attention_levels has 2 entries, unet.block_out_channels has 4'):
        load(a)


def test_what_comes_out_of_several_files_is_one_file(write):
    """The config.yaml of a run, which nothing needs but itself, goes below other files as well."""
    c = load([ROOT / 'ascend_configs/cc3m_scratch_dis.yaml', ROOT / 'ascend_configs/tiny.yaml'], ['seed=7'])
    text = config.to_yaml(c)
    assert 'base:' not in text and '${' not in text
    again = load(write(text, 'run.yaml'))
    assert again == c
    assert load([write(text, 'run.yaml'), write('seed: 8\n', 'more.yaml')]).seed == 8


@pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'ascend_configs').glob('cc3m_*.yaml')))
def test_a_cluster_config_made_small_keeps_all_else(name):
    """What neither tiny.yaml nor the command line states is as in the cluster's config."""
    precision = ['precision=fp32'] if name.endswith('bf16') else []  # the CPU has no bf16
    tiny = ROOT / 'ascend_configs/tiny.yaml'
    cluster, small, own = (
        load(ROOT / f'ascend_configs/{name}.yaml'),
        load([ROOT / f'ascend_configs/{name}.yaml', tiny], precision),
        load(tiny),
    )
    changed = own.stated | ({'train.precision'} if precision else set())
    for key in leaves(Config):
        of = own if key in own.stated - {'output_dir'} else cluster if key not in changed else small
        assert attrgetter(key)(small) == attrgetter(key)(of), key
    assert small.output_dir == f'outputs/tiny_{small.train.task}_{small.train.precision}'  # never the cluster's
    assert (small.device, small.init.unet, small.model.unet.block_out_channels) == ('CPU', None, [32, 64])


def test_model_directory_config_round_trips(write, tiny_config):
    path = write(config.to_yaml(tiny_config))
    assert load(path, schema=ModelConfig) == tiny_config


def test_empty_file_is_the_defaults(write):
    assert load(write('')) == Config()


@pytest.mark.parametrize(
    'override, key, nearest',
    [
        ('train.max_stps=3', 'train.max_stps', 'train.max_steps'),
        ('max_stps=3', 'max_stps', 'train.max_steps'),
        ('modl.unet.norm_num_groups=3', 'modl', 'model'),
        ('learning_rate=1', 'learning_rate', 'optimizer.learning_rate'),
        ('model.unet.attention_level=[true]', 'model.unet.attention_level', 'model.unet.attention_levels'),
        ('model.text_diffusion.gama=1', 'model.text_diffusion.gama', 'model.text_diffusion.gamma'),
    ],
)
def test_unknown_key_names_the_nearest(override, key, nearest):
    text = message(override)
    assert f"unknown key '{key}'" in text and f"did you mean '{nearest}'?" in text


def test_unknown_key_in_a_file_names_the_file(write):
    path = write('train: {batch_siz: 3}')
    text = message(path=path)
    assert str(path) in text and "'train.batch_siz'" in text and "'train.batch_size'" in text
    assert "'image_size'" in message(path=write('image_sise: 128'), schema=ModelConfig)


def test_of_several_files_the_one_with_the_mistake_is_named(write):
    good, bad = write('seed: 1', 'good.yaml'), write('train: {batch_siz: 3}', 'bad.yaml')
    top = write('base: bad.yaml', 'top.yaml')
    for paths in ([good, bad], [bad, good], [top]):
        assert message(path=paths).startswith(f"{bad}: unknown key 'train.batch_siz'; did you mean 'train.batch_size'?")
    assert message(path=[good, write('seed: x', 'bad.yaml')]).startswith(f'{bad}: seed: ')
    assert str(bad) in message(path=[good, write('train: [1', 'bad.yaml')])


def test_key_unlike_any_other_suggests_nothing():
    assert 'did you mean' not in message('xyzzy=3')


@pytest.mark.parametrize(
    'override, parts',
    [
        ('train.batch_size=many', ('train.batch_size', "'many'")),
        ('train.batch_size=1.5', ('train.batch_size', '1.5')),
        ('train.batch_size=null', ('train.batch_size', 'None')),
        ('train.ema_decay=true', ('train.ema_decay', 'bool')),
        ('model.dual_stream.fusion=maybe', ('model.dual_stream.fusion', "'maybe'")),
        ('model.unet.block_out_channels=3', ('model.unet.block_out_channels', 'list')),
        ('model.unet.block_out_channels=[32,wide]', ('model.unet.block_out_channels:', "'wide'")),
        ('train.task=both', ('train.task', "'both'", 'hybrid')),
        ('device=GPU', ('device', "'GPU'", 'Ascend')),
        ('runtime.jit_level=O3', ('runtime.jit_level', "'O3'", 'O2')),
        ('model.vae=null', ('model.vae',)),
        ('train=3', ('TrainConfig', '3')),
        ('seed', ("'seed'", 'key=value')),
        ('seed=[1', ("'seed=[1'", 'cannot be read')),
        ('seed=${nowhere}', ('nowhere',)),
    ],
)
def test_bad_value_names_its_key(override, parts):
    text = message(override)
    assert all(part in text for part in parts), text


def wrong_values(kind):
    """Values, as YAML, that a field of this type must not take."""
    if type(None) in typing.get_args(kind):
        (kind,) = (k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is list:
        return ['{a: 1}', '[x]']
    if typing.get_origin(kind) is typing.Literal:
        return ['no-such-word']
    return {int: ['many', '1.5'], float: ['much', '[1]'], bool: ['maybe'], str: ['[a]', '{a: 1}']}[kind]


@pytest.mark.parametrize('key, kind', leaves(Config).items())
def test_a_value_of_the_wrong_type_names_its_full_key(key, kind, write):
    for value in wrong_values(kind):
        assert message(f'{key}={value}').startswith(f'command line: {key}: ')
    *above, last = key.split('.')
    path = write(
        ''.join(f'{"  " * i}{name}:\n' for i, name in enumerate(above)) + f'{"  " * len(above)}{last}: {value}'
    )
    assert message(path=path).startswith(f'{path}: {key}: ')


@pytest.mark.parametrize(
    'text, parts',
    [
        ('- a\n- b\n', ('not a mapping',)),
        ('train: [1', ('cannot be read',)),
        ('base: nowhere.yaml\n', ('nowhere.yaml', 'does not exist')),
        ('base: config.yaml\n', ('config.yaml', 'its own base')),
        ('base: 3\n', ('base: 3', 'not a file name')),
    ],
)
def test_file_that_cannot_be_used(write, text, parts):
    found = message(path=write(text))
    assert all(part in found for part in parts), found


def test_missing_file_and_directory(tmp_path):
    assert 'does not exist' in message(path=tmp_path / 'none.yaml')
    assert 'cannot be read' in message(path=tmp_path)


MODEL_ERRORS = [
    (
        ['unet.block_out_channels=[320,640,1280,1000]'],
        'unet.block_out_channels: 1000 is not a multiple of unet.norm_num_groups = 32',
    ),
    (['vae.norm_num_groups=48'], 'vae.block_out_channels: 128 is not a multiple of vae.norm_num_groups = 48'),
    (['unet.attention_levels=[true,true]'], 'unet.attention_levels has 2 entries, unet.block_out_channels has 4'),
    (['unet.num_attention_heads=7'], 'unet.num_attention_heads: 7 does not divide 320'),
    (['text_encoder.num_attention_heads=11'], 'text_encoder.num_attention_heads: 11 does not divide 768'),
    (['image_encoder.num_attention_heads=11'], 'image_encoder.num_attention_heads: 11 does not divide 1024'),
    (['image_encoder.patch_size=15'], 'image_encoder.patch_size: 15 does not divide 224'),
    (
        ['image_encoder.architecture=resnet', 'image_encoder.resnet_layers=[3,4,6]'],
        'image_encoder.resnet_layers has 3 entries',
    ),
    (
        ['image_encoder.architecture=resnet', 'image_encoder.hidden_size=2080', 'image_encoder.num_attention_heads=32'],
        'image_encoder.hidden_size: 2080 is not a multiple of 64',
    ),
    (
        ['image_encoder.architecture=resnet', 'image_encoder.image_size=240'],
        'image_encoder.image_size: 240 is not a multiple of 32',
    ),
    (
        ['image_encoder.architecture=resnet', 'image_encoder.num_attention_heads=11'],
        'image_encoder.num_attention_heads: 11 does not divide 1024',
    ),
    (['alignment.head_dim=100'], 'alignment.head_dim: 100 does not divide 768'),
    (['image_size=100'], 'image_size: 100 is not a multiple of 64'),
    (['unet.in_channels=5'], 'unet.in_channels = 5 and unet.out_channels = 4 must equal vae.latent_channels = 4'),
    (['unet.out_channels=8'], 'unet.in_channels = 4 and unet.out_channels = 8 must equal vae.latent_channels = 4'),
    (
        ['image_encoder.projection_dim=512'],
        'image_encoder.projection_dim = 512 must equal text_encoder.projection_dim = 768',
    ),
    (['text_diffusion.gamma=0'], 'text_diffusion.gamma: 0.0 is not in (0, 1]'),
    (['text_diffusion.gamma=1.5'], 'text_diffusion.gamma: 1.5 is not in (0, 1]'),
    (['dual_stream.image_condition_timestep=1001'], 'dual_stream.image_condition_timestep: 1001 is not in 0..1000'),
    (['dual_stream.image_condition_timestep=-1'], 'dual_stream.image_condition_timestep: -1 is not in 0..1000'),
    (['logit_scale=0'], 'logit_scale: 0.0 is not above 0'),
    (['image_size=0'], 'image_size: 0 is below 1'),
    (['unet.norm_num_groups=0'], 'unet.norm_num_groups: 0 is below 1'),
    (['unet.layers_per_block=0'], 'unet.layers_per_block: 0 is below 1'),
    (['vae.block_out_channels=[0,32]'], 'vae.block_out_channels: 0 is below 1'),
    (['unet.block_out_channels=[]'], 'unet.block_out_channels is empty'),
    (['image_diffusion.num_train_timesteps=0'], 'image_diffusion.num_train_timesteps: 0 is below 1'),
]


@pytest.mark.parametrize('overrides, expected', MODEL_ERRORS)
def test_model_validation(overrides, expected):
    assert expected in message(*overrides, schema=ModelConfig)
    assert expected in message(*[f'model.{item}' for item in overrides])


def test_rn50_is_valid_whatever_the_patch_size():
    overrides = [
        f'image_encoder.{item}'
        for item in (
            'architecture=resnet',
            'hidden_size=2048',
            'num_attention_heads=32',
            'projection_dim=1024',
            'patch_size=15',
        )
    ]
    c = load(None, [*overrides, 'text_encoder.projection_dim=1024'], ModelConfig)
    assert c.image_encoder.resnet_layers == [3, 4, 6, 3]


@pytest.mark.parametrize('timestep', [0, 999, 1000])
def test_condition_timesteps_of_the_paper_are_valid(timestep):
    c = load(None, [f'model.dual_stream.image_condition_timestep={timestep}'])
    assert c.model.dual_stream == config.DualStreamConfig(True, True, True, timestep)


@pytest.mark.parametrize(
    'override, expected',
    [
        ('batch_size=0', 'train.batch_size: 0 is below 1'),
        ('max_steps=0', 'train.max_steps: 0 is below 1'),
        ('log_every=0', 'train.log_every: 0 is below 1'),
        ('checkpoint_every=0', 'train.checkpoint_every: 0 is below 1'),
        ('keep_checkpoints=0', 'train.keep_checkpoints: 0 is below 1'),
        ('data.num_workers=0', 'data.num_workers: 0 is below 1'),
        ('optimizer.warmup_steps=-1', 'optimizer.warmup_steps: -1 is below 0'),
        ('optimizer.learning_rate=-1', 'optimizer.learning_rate: -1.0 is below 0'),
        ('optimizer.new_learning_rate=-1', 'optimizer.new_learning_rate: -1.0 is below 0'),
        ('optimizer.max_grad_norm=-1', 'optimizer.max_grad_norm: -1.0 is below 0'),
        ('runtime.memory_limit_gb=0', 'runtime.memory_limit_gb: 0.0 is not above 0'),
        ('runtime.hccl_connect_timeout=-1', 'runtime.hccl_connect_timeout: -1 is not above 0'),
        ('caption_dropout=1', 'train.caption_dropout: 1.0 is not in [0, 1)'),
        ('image_dropout=-0.1', 'train.image_dropout: -0.1 is not in [0, 1)'),
        ('ema_decay=1', 'train.ema_decay: 1.0 is not in [0, 1)'),
        ('generation_batch_size=0', 'train.generation_batch_size: 0 is not in 1..train.batch_size = 256'),
        ('generation_batch_size=257', 'train.generation_batch_size: 257 is not in 1..train.batch_size = 256'),
    ],
)
def test_run_validation(override, expected):
    assert expected in message(override)


def test_cached_text_features_need_a_frozen_text_encoder():
    assert 'train.freeze_text_encoder' in message('data.cache_in_memory=true', 'train.freeze_text_encoder=false')


def test_data_workers_and_the_cache():
    assert load(overrides=['data.workers=processes']).data.workers == 'processes'
    for overrides, message in (
        (['data.workers=processes', 'data.cache_in_memory=true'], 'data.workers=threads'),
        (['data.workers=fibres'], 'data.workers'),
        (['data.min_side=4'], 'data.min_side: 4 is below 8'),
    ):
        with pytest.raises(ConfigError, match=message):
            load(overrides=overrides)

"""What a run is built from: weights and settings of model directories, what is copied, what counts as new."""

from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from diffdis_ms.config import load, to_yaml
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.clip_model import open_clip_directory
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.init import initialize
from diffdis_ms.models.names import copied_from, is_new_parameter
from diffdis_ms.storage.model_dir import parameters_to_numpy, save_model
from diffdis_ms.train.build import build, resolve_model
from diffdis_ms.train.optim import build_optimizer, group_parameters
from tests.helpers import make_tiny_config, randomize, tiny_run
from tests.workspace import ROOT, assert_one_line_error, command, make_workspace

CACHE = SimpleNamespace(
    zero_latent=np.zeros((1, 4, 8, 8), np.float32),
    empty_context=np.ones((1, 16, 32), np.float32),
    shapes={'z': (4, 8, 8)},
)


def save_unet(directory, model, keep=lambda name: True, **extra):
    """A model directory with a random UNet, of which `keep` picks parameters; returns {name: array}."""
    arrays = {
        name: array for name, array in parameters_to_numpy(randomize(DiffDisUNet(model), 5)).items() if keep(name)
    }
    save_model(directory, model, {'unet': arrays}, extra=extra)
    return arrays


def built(directory, **switches):
    config = tiny_run()
    config.init.unet = str(directory)
    for name, value in switches.items():
        setattr(config.model.dual_stream, name, value)
    resolve_model(config)
    return parameters_to_numpy(build(config, None, cache=CACHE).objective.unet)


def test_attention_of_the_query_starts_as_a_copy_of_the_files_image_attention(tmp_path):
    """Table 5's separate attention from a directory that was made with the shared one."""
    file = save_unet(tmp_path / 'model', make_tiny_config())
    found = built(tmp_path / 'model', share_attention=False)
    missing = [name for name in found if name not in file]
    assert missing and all('.attn1.' in name for name in missing)
    for name in missing:
        assert np.array_equal(found[name], file[copied_from(name)]), name
    assert all(
        np.array_equal(found[name], file[name]) for name in file
    )  # feed-forwards of the file are kept: they are trained


def test_new_parts_that_a_file_lacks_are_copies_of_its_weights_or_fresh(tmp_path):
    model = make_tiny_config()
    file = save_unet(tmp_path / 'model', model, lambda name: not is_new_parameter(name), initialized={'seed': 0})
    found, unet = built(tmp_path / 'model', share_attention=False), DiffDisUNet(model)
    initialize(unet, 0)
    fresh = parameters_to_numpy(unet)
    for name, value in found.items():
        expected = file.get(name, file.get(copied_from(name)))
        assert np.array_equal(value, fresh[name] if expected is None else expected), name


def resolved(tmp_path, *overrides, **init):
    config = load(None, [*(f'init.{key}={value}' for key, value in init.items()), 'model.image_size=64', *overrides])
    resolve_model(config)
    return config.model


@pytest.fixture
def directory(tmp_path):
    """A model directory with settings of its own for every network."""
    model = make_tiny_config()
    model.vae.scaling_factor, model.text_encoder.hidden_act = 0.5, 'gelu'
    model.image_diffusion.target, model.image_diffusion.beta_end, model.text_diffusion.gamma = 'data', 0.02, 0.5
    save_model(tmp_path / 'model', model, {})
    return tmp_path / 'model'


def test_what_belongs_to_weights_is_taken_over(directory, tmp_path):
    model = resolved(tmp_path, unet=directory, vae=directory, text_encoder=directory)
    assert (model.vae.scaling_factor, model.text_encoder.hidden_act, model.unet.num_attention_heads) == (0.5, 'gelu', 4)
    assert (model.image_diffusion.target, model.image_diffusion.beta_end, model.text_diffusion.gamma) == (
        'data',
        0.02,
        0.5,
    )
    assert model.alignment == make_tiny_config().alignment
    model = resolved(tmp_path, 'model.vae.scaling_factor=0.5', vae=directory)  # said again, not contradicted
    assert model.vae.scaling_factor == 0.5 and model.image_diffusion.target == 'noise'


@pytest.mark.parametrize(
    'stem, override',
    [
        ('vae', 'vae.scaling_factor=0.18215'),
        ('vae', 'vae.block_out_channels=[16,32,64]'),
        ('text_encoder', 'text_encoder.hidden_act=quick_gelu'),
        ('unet', 'unet.num_attention_heads=8'),
        ('unet', 'unet.norm_num_groups=16'),
        ('unet', 'image_diffusion.target=noise'),
        ('unet', 'image_diffusion.schedule=cosine'),
        ('unet', 'image_diffusion.beta_end=0.012'),
        ('unet', 'text_diffusion.target=noise'),
        ('unet', 'text_diffusion.gamma=0.01'),
        ('unet', 'alignment.head_dim=32'),
        ('unet', 'dual_stream.image_condition_timestep=0'),
    ],
)
def test_a_config_that_says_something_else_is_refused(directory, tmp_path, stem, override):
    with pytest.raises(ConfigError) as error:
        resolved(tmp_path, f'model.{override}', **{stem: directory})
    key, value = override.split('=')
    text = str(error.value)
    assert f'model.{key}: ' in text and f'init.{stem} = {directory}' in text and '\n' not in text
    assert value.replace(',', ', ') in text


def test_a_file_is_held_to_what_it_states_and_not_to_the_defaults(directory, tmp_path):
    (tmp_path / 'mine.yaml').write_text(f'init: {{vae: {directory}}}\nmodel: {{vae: {{scaling_factor: 0.18215}}}}\n')
    with pytest.raises(ConfigError, match='model.vae.scaling_factor: 0.18215'):
        resolve_model(load(tmp_path / 'mine.yaml'))
    (tmp_path / 'mine.yaml').write_text(f'init: {{vae: {directory}}}\ntrain: {{batch_size: 8}}\n')
    config = load(tmp_path / 'mine.yaml')
    assert config.stated == {'init.vae', 'train.batch_size'}
    resolve_model(config)
    again = tmp_path / 'again.yaml'
    again.write_text(to_yaml(config))  # a run's own config.yaml, which states everything, fits what it was made from
    resolve_model(load(again))


def test_fresh_new_parts_leave_the_diffusion_of_e_open(tmp_path):
    model = make_tiny_config()
    save_model(tmp_path / 'model', model, {}, extra={'initialized': {'seed': 0}})
    found = resolved(
        tmp_path,
        'model.text_diffusion.target=noise',
        'model.alignment.num_layers=3',
        unet=tmp_path / 'model',
        vae=tmp_path / 'model',
        text_encoder=tmp_path / 'model',
    )
    assert found.text_diffusion.target == 'noise' and found.alignment.num_layers == 3 and found.unet == model.unet


def test_an_autoencoder_of_another_scale_than_the_unet_was_trained_with_is_refused(directory, tmp_path):
    save_model(tmp_path / 'other', make_tiny_config(), {})
    with pytest.raises(ConfigError, match='vae.scaling_factor 0.18215.*trained with 0.5'):
        resolved(tmp_path, unet=directory, vae=tmp_path / 'other')


NAMES = ('conv_in.weight', 'alignment.predictor.weight', 'text_model.final_layer_norm.gamma', 'logit_scale')


def rates(config):
    """{parameter: rate after the warm-up} of `NAMES`."""
    parameters = [Parameter(np.zeros(3 if name != 'logit_scale' else (), np.float32), name=name) for name in NAMES]
    schedules, groups = build_optimizer(config, parameters)[2], group_parameters(parameters, config)
    found = {p.name: 'lr' if group == 'base' else 'lr_new' for group, members in groups.items() for p in members}
    return {name: float(f'{float(schedules[key](Tensor(10**6))):.3g}') for name, key in found.items()}


@pytest.mark.parametrize(
    'name, unet, text',
    [
        ('cc3m_diffdis', 1e-5, 1e-5),
        ('cc3m_scratch_dis', 1e-4, 1e-5),
        ('cc3m_scratch_gen', 1e-4, 1e-5),
        ('cc3m_scratch_hybrid', 1e-4, 1e-5),
    ],
)
def test_a_unet_from_scratch_trains_at_the_rate_of_the_new(name, unet, text):
    """Sec. 4.1 and Table 4."""
    config = load(ROOT / f'ascend_configs/{name}.yaml', ['precision=fp32'])
    assert rates(config) == dict(zip(NAMES, (unet, 1e-4, text, 1e-4), strict=True))


def test_rates_of_a_text_encoder_from_scratch_and_of_the_other_objectives():
    config = load(ROOT / 'ascend_configs/cc3m_diffdis.yaml', ['init.text_encoder=null'])
    assert rates(config) == dict(zip(NAMES, (1e-5, 1e-4, 1e-4, 1e-4), strict=True))
    config = load(None, ['objective=clip', 'model.image_size=224', 'optimizer.learning_rate=1e-3'])
    assert rates(config)['text_model.final_layer_norm.gamma'] == 1e-3


def test_a_clip_trains_at_a_size_that_the_unet_cannot_take(tmp_path):
    """As the paper's baselines at 224; its model directory can be read again."""
    directory = make_workspace(tmp_path)
    size = ('model.image_size=24', 'model.image_encoder.image_size=24')
    done = command('tools/train.py', '--config', directory / 'diffdis.yaml', 'objective=clip', 'max_steps=2', *size)
    assert done.returncode == 0, done.stderr
    config = open_clip_directory(directory / 'run/model').config
    assert (config.image_size, config.image_encoder.image_size) == (24, 24)
    done = command('tools/train.py', '--config', directory / 'diffdis.yaml', 'objective=clip', *size[:1])
    assert_one_line_error(done, 'model.image_size', '24', 'model.image_encoder.image_size', '32')

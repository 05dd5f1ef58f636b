"""Every setting in the JSON files of a diffusers pipeline is kept, without effect, or refused by name; other models are
named."""

import itertools
import json
import shutil

import numpy as np
import pytest

from ckpt_convert import name_map
from ckpt_convert.export import export
from ckpt_convert.model_config import model_config
from ckpt_convert.plan import PROJECTION, make_plan
from ckpt_convert.report import assumptions, complaints
from ckpt_convert.shapes import parameter_shapes
from ckpt_convert.source import open_source
from ckpt_convert.verify import verify
from diffdis_ms.config import ImageDiffusionConfig, to_yaml
from diffdis_ms.data.tokenizer import write_vocabulary
from diffdis_ms.errors import CheckpointError, ConfigError
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.storage.files import write_weights
from diffdis_ms.storage.model_dir import read_config, save_model
from diffdis_ms.storage.reader import open_checkpoint
from tests.helpers import make_tiny_config
from tests.workspace import command

SET = ('alignment.width=64', 'alignment.head_dim=16', 'alignment.num_layers=2', 'image_size=32')
HEADS = ('unet.num_attention_heads=4', 'unet.norm_num_groups=8', 'vae.norm_num_groups=8')
TEXT = ('text_encoder.num_attention_heads=4', 'text_encoder.hidden_act=quick_gelu')


class Vocabulary:
    def save(self, folder):
        write_vocabulary([], folder)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """(folder, {stem: {name: array}}): model/, a model directory, and sd/, its diffusers pipeline without what only
    DiffDis has."""
    folder, config, rng = tmp_path_factory.mktemp('sd'), make_tiny_config(), np.random.default_rng(0)
    config.text_encoder.vocab_size = 514
    networks = {
        stem: {
            name: rng.standard_normal(shape, dtype=np.float32) for name, shape in parameter_shapes(stem, config).items()
        }
        for stem in ('unet', 'vae', 'text_encoder')
    }
    save_model(folder / 'model', config, networks, Vocabulary(), {})
    export(folder / 'model', folder / 'sd', 'diffusers')
    shutil.rmtree(folder / 'sd/diffdis')
    text = {name_map.field_name(name): array for name, array in networks['text_encoder'].items()}
    # with the text projection: no --text-encoder is needed
    write_weights(folder / 'sd/text_encoder/model.safetensors', text)
    (folder / 'clip').mkdir()
    write_weights(folder / 'clip/model.safetensors', text)
    shutil.copy(folder / 'sd/text_encoder/config.json', folder / 'clip')
    return folder, networks


@pytest.fixture
def pipeline(made, tmp_path):
    shutil.copytree(made[0] / 'sd', tmp_path / 'sd')
    return tmp_path / 'sd'


def edit(path, **changed):
    """Set keys of a JSON file; what is `...` is taken out."""
    content = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def config_of(path, text_source=None, overrides=SET):
    return model_config(open_source(path), text_source, overrides)


SCHEDULER = 'scheduler/scheduler_config.json'
UNET = 'unet/config.json'
VAE = 'vae/config.json'
INDEX = 'model_index.json'


@pytest.mark.parametrize(
    'changed, expected',
    [
        ({}, {}),
        ({'prediction_type': ...}, {}),  # diffusers' default
        ({'prediction_type': 'v_prediction'}, {'target': 'velocity'}),
        ({'prediction_type': 'sample'}, {'target': 'data'}),
        ({'beta_start': 0.001, 'beta_end': 0.02}, {'beta_start': 0.001, 'beta_end': 0.02}),
        ({'beta_schedule': 'linear'}, {'schedule': 'linear_beta'}),
        ({'beta_schedule': 'squaredcos_cap_v2'}, {'schedule': 'cosine'}),
        (
            {'beta_schedule': ..., 'beta_start': ..., 'beta_end': ...},
            {'schedule': 'linear_beta', 'beta_start': 0.0001, 'beta_end': 0.02},
        ),
        ({'num_train_timesteps': 500}, {'num_train_timesteps': 500}),
        (
            {
                '_class_name': 'DDIMScheduler',
                'clip_sample': True,
                'set_alpha_to_one': True,
                'steps_offset': 0,
                'rescale_betas_zero_snr': False,
                'trained_betas': None,
            },
            {},
        ),
        (
            {
                '_class_name': 'DPMSolverMultistepScheduler',
                'solver_order': 3,
                'use_karras_sigmas': True,
                'timestep_spacing': 'linspace',
            },
            {},
        ),
    ],
)
def test_what_the_scheduler_says_is_kept(pipeline, changed, expected):
    edit(pipeline / SCHEDULER, **changed)
    config = config_of(pipeline)
    assert config.image_diffusion == ImageDiffusionConfig(**expected)
    assert config.dual_stream.image_condition_timestep == config.image_diffusion.num_train_timesteps
    assert complaints(make_plan(open_source(pipeline), None, SET)) == ''


def test_without_a_scheduler_it_is_stable_diffusions(pipeline):
    shutil.rmtree(pipeline / 'scheduler')
    assert config_of(pipeline).image_diffusion == ImageDiffusionConfig()


@pytest.mark.parametrize(
    'file, key, value',
    [
        *(
            (SCHEDULER, key, value)
            for key, value in (
                ('rescale_betas_zero_snr', True),
                ('trained_betas', [0.1, 0.2]),
                ('thresholding', True),
                ('timestep_spacing', 'trailing'),
                ('prediction_type', 'flow_prediction'),
                ('prediction_type', None),
                ('beta_schedule', 'sigmoid'),
                ('beta_schedule', ['linear']),
                ('beta_start', '0.1'),
                ('beta_end', 1.5),
                ('beta_end', None),
                ('beta_start', float('nan')),
                ('num_train_timesteps', 0),
                ('num_train_timesteps', True),
                ('num_train_timesteps', 10.5),
                ('use_flow_sigmas', True),
                ('timestep_type', 'continuous'),
                ('shift', 3.0),
                ('prediction_typ', 'sample'),
            )
        ),
        (SCHEDULER, '_class_name', 'FlowMatchEulerDiscreteScheduler'),
        (SCHEDULER, '_class_name', 'LCMScheduler'),
        (SCHEDULER, '_class_name', ['x']),
        *(
            (UNET, key, value)
            for key, value in (
                ('norm_eps', 1e-6),
                ('act_fn', 'gelu'),
                ('mid_block_scale_factor', 1.4),
                ('mid_block_type', 'UNetMidBlock2D'),
                ('downsample_padding', 0),
                ('time_cond_proj_dim', 256),
                ('center_input_sample', True),
                ('flip_sin_to_cos', False),
                ('freq_shift', 1),
                ('cross_attention_norm', 'layer_norm'),
                ('resnet_out_scale_factor', 1.4),
                ('timestep_post_act', 'silu'),
                ('time_embedding_act_fn', 'silu'),
                ('attention_type', 'gated'),
                ('cross_attention_dim', 64),
                ('block_out_channels', [32, 64, 128]),
                ('layers_per_block', 3),
                ('in_channels', 9),
                ('out_channels', 8),
                ('down_block_types', ['DownBlock2D'] * 3),
                ('down_block_types', ['SimpleCrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D']),
                ('up_block_types', ['UpBlock2D'] * 3),
                ('transformer_layers_per_block', 2),
                ('attention_head_dim', [4, 8, 8]),
                ('attention_head_dim', None),
                ('attention_head_dim', True),
                ('norm_num_groups', None),
                ('resnet_skip_time_act', True),
                ('num_class_embeds', 3),
                ('some_new_key', 1),
                ('class_embed_type', 'timestep'),
                ('_class_name', 'UNet2DModel'),
            )
        ),
        *(
            (VAE, key, value)
            for key, value in (
                ('shift_factor', 0.1159),
                ('latents_mean', [0.0] * 4),
                ('latents_std', [1.0] * 4),
                ('act_fn', 'relu'),
                ('use_quant_conv', False),
                ('use_post_quant_conv', False),
                ('mid_block_add_attention', False),
                ('scaling_factor', 0),
                ('scaling_factor', 'x'),
                ('scaling_factor', None),
                ('block_out_channels', [16, 32, 64]),
                ('latent_channels', 16),
                ('out_channels', 1),
                ('layers_per_block', 1),
                ('norm_num_groups', [8]),
                ('down_block_types', ['AttnDownEncoderBlock2D'] * 3),
                ('_class_name', 'AutoencoderTiny'),
                ('scaling', 1),
            )
        ),
        (INDEX, '_class_name', 'StableDiffusionXLPipeline'),
        (INDEX, '_class_name', 'LatentConsistencyModelPipeline'),
        (INDEX, '_class_name', ['my', 'Pipeline']),
        (INDEX, 'unet', ['diffusers', 'UNetMotionModel']),
        (INDEX, 'vae', ['diffusers', 'AutoencoderTiny']),
        (INDEX, 'text_encoder_2', ['transformers', 'X']),
        (INDEX, 'controlnet', ['diffusers', 'ControlNetModel']),
        (INDEX, 'scheduler', ['diffusers', 'LCMScheduler']),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(pipeline, file, key, value):
    edit(pipeline / file, **{key: value})
    with pytest.raises(ConfigError) as e:
        config_of(pipeline)
    word = {'_class_name': value if isinstance(value, str) else file, 'scheduler': 'LCMScheduler'}.get(key, key)
    assert word in str(e.value) and '\n' not in str(e.value) and len(str(e.value)) < 600, e.value


def test_what_has_no_effect_or_is_used(pipeline):
    edit(
        pipeline / UNET,
        sample_size=64,
        upcast_attention=True,
        dropout=0.0,
        attention_head_dim=[4, 4],
        layers_per_block=[1, 1],
        norm_num_groups=4,
        time_cond_proj_dim=None,
        resnet_out_scale_factor=1,
        mid_block_scale_factor=1.0,
        decay=0.9999,
        optimization_step=7,
    )
    edit(
        pipeline / VAE,
        scaling_factor=0.5,
        force_upcast=True,
        shift_factor=None,
        latents_mean=None,
        norm_num_groups=2,
        use_quant_conv=True,
    )
    edit(
        pipeline / INDEX,
        _class_name='StableDiffusionImg2ImgPipeline',
        safety_checker=['stable_diffusion', 'StableDiffusionSafetyChecker'],
        feature_extractor=['transformers', 'CLIPImageProcessor'],
        image_encoder=[None, None],
    )
    config = config_of(pipeline)
    assert (config.unet.norm_num_groups, config.unet.num_attention_heads, config.image_size) == (4, 4, 32)
    assert (config.vae.scaling_factor, config.vae.norm_num_groups) == (0.5, 2)


@pytest.mark.parametrize('name', [SCHEDULER, UNET, VAE, INDEX])
@pytest.mark.parametrize('data', [b'{"a": 1, "a": 2}', b'[]', b'{', '{"a": "é"}'.encode('latin-1'), b''])
def test_damaged_json_is_one_line(pipeline, name, data):
    (pipeline / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=name.rpartition('/')[2]):
        config_of(pipeline)


@pytest.mark.parametrize(
    'diffusion',
    [
        ImageDiffusionConfig(target='velocity'),
        ImageDiffusionConfig(target='data', schedule='linear_beta'),
        ImageDiffusionConfig(schedule='cosine'),
        ImageDiffusionConfig(beta_end=0.02),
    ],
)
def test_an_export_says_the_same(made, tmp_path, diffusion):
    shutil.copytree(made[0] / 'model', tmp_path / 'model')
    config = read_config(tmp_path / 'model')
    config.image_diffusion = diffusion
    (tmp_path / 'model/config.yaml').write_text(to_yaml(config))
    export(tmp_path / 'model', tmp_path / 'out', 'diffusers')
    assert config_of(tmp_path / 'out', overrides=()) == config
    edit(tmp_path / 'out' / SCHEDULER, num_train_timesteps=900)  # two files of one directory that contradict each other
    with pytest.raises(CheckpointError, match='scheduler_config.json contradicts'):
        config_of(tmp_path / 'out', overrides=())
    edit(tmp_path / 'out' / SCHEDULER, num_train_timesteps=1000)
    edit(tmp_path / 'out' / VAE, scaling_factor=0.3)
    with pytest.raises(CheckpointError, match='vae/config.json contradicts'):
        config_of(tmp_path / 'out', overrides=())
    with pytest.raises(CheckpointError, match='image_diffusion'):
        export(tmp_path / 'model', tmp_path / 'ldm', 'ldm')


# one file with CompVis' names, and what stands in the place of its text encoder


def compvis(networks, text='cond_stage_model.transformer.', unet=True, vae=True):
    config = make_tiny_config()
    state = {}
    for stem, prefix, table in (
        ('unet', 'model.diffusion_model.', name_map.unet_ldm(config.unet)),
        ('vae', 'first_stage_model.', name_map.vae_ldm(config.vae)),
        ('text_encoder', text, None),
    ):
        if prefix is None or stem == 'unet' and not unet or stem == 'vae' and not vae:
            continue
        for name, array in networks[stem].items():
            if not is_new_parameter(name) and name != PROJECTION:
                place = name_map.place(name, array.shape, table)
                state[prefix + place.name] = array.reshape(place.shape)
    return state


def flat(state):
    return {name.replace('text_model.', ''): array for name, array in state.items()}


def plan_of(path, text_source=None, overrides=(*SET, *HEADS, *TEXT)):
    plan = make_plan(open_source(path), text_source, overrides)
    assert complaints(plan) == ''
    return plan


def assert_text_encoder(plan, networks):
    for name, array in networks['text_encoder'].items():
        np.testing.assert_array_equal(np.asarray(plan.networks['text_encoder'][name]), array, err_msg=name)


def test_text_encoders_without_text_model_convert(made, pipeline, tmp_path):
    folder, networks = made
    file = pipeline / 'text_encoder/model.safetensors'
    state = flat({name: t.numpy() for name, t in open_checkpoint(file).tensors.items()})
    state['embeddings.position_ids'] = np.arange(16)[None]
    write_weights(file, state)
    assert_text_encoder(plan_of(pipeline), networks)
    write_weights(tmp_path / 'clip.safetensors', state)  # and as --text-encoder of a NovelAI-like file
    write_weights(tmp_path / 'sd.safetensors', flat(compvis(networks)))
    assert_text_encoder(plan_of(tmp_path / 'sd.safetensors', open_source(tmp_path / 'clip.safetensors')), networks)
    write_weights(tmp_path / 'both.safetensors', {**compvis(networks), **flat(compvis(networks))})
    with pytest.raises(CheckpointError, match='two text encoders'):
        open_source(tmp_path / 'both.safetensors')


def openai(networks):
    text, state = make_tiny_config().text_encoder, {}
    table = name_map.clip_text_openai(text)
    for name, array in networks['text_encoder'].items():
        place = name_map.place(name, array.shape, table)
        if place.third is None:
            state[place.name] = array.T.copy() if place.transposed else array
        else:
            state.setdefault(place.name, np.zeros(place.shape, np.float32))[
                place.third * array.shape[0] : (place.third + 1) * array.shape[0]
            ] = array
    return state


@pytest.mark.parametrize('layout', ['transformers', 'flat', 'openai'])
def test_a_checkpoint_without_a_text_encoder_takes_the_given_one(made, pipeline, tmp_path, layout):
    folder, networks = made
    clip = {name: t.numpy() for name, t in open_checkpoint(folder / 'clip/model.safetensors').tensors.items()}
    write_weights(
        tmp_path / 'clip.safetensors', {'transformers': clip, 'flat': flat(clip), 'openai': openai(networks)}[layout]
    )
    write_weights(tmp_path / 'sd.safetensors', compvis(networks, text=None))
    shutil.rmtree(pipeline / 'text_encoder')
    for path in (tmp_path / 'sd.safetensors', pipeline):
        with pytest.raises(CheckpointError, match='no text encoder.*--text-encoder'):
            plan_of(path)
        assert_text_encoder(plan_of(path, open_source(tmp_path / 'clip.safetensors')), networks)


V1_YAML = """model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: False
    unet_config:
      target: x
      params: {num_heads: 4, use_spatial_transformer: True, transformer_depth: 1, context_dim: 32, legacy: False}
    cond_stage_config: {target: ldm.modules.encoders.modules.FrozenCLIPEmbedder}
"""


@pytest.mark.parametrize(
    'old, new, expected',
    [
        ('', '', {}),
        ('use_ema: False', 'parameterization: v', {'target': 'velocity'}),
        ('use_ema: False', 'parameterization: x0', {'target': 'data'}),
        ('linear_end: 0.0120', 'linear_end: 2e-2', {'beta_end': 0.02}),
        ('use_ema: False', 'beta_schedule: sqrt_linear', {'schedule': 'linear_beta'}),
        ('use_ema: False', 'parameterization: flow', 'parameterization'),
        ('use_ema: False', 'given_betas: [1]', 'given_betas'),
        ('use_ema: False', 'surprise: 1', 'surprise'),
        ('num_heads: 4', 'num_head_channels: 64', 'num_head_channels'),
        ('FrozenCLIPEmbedder}', 'FrozenCLIPEmbedder, params: {layer: penultimate}}', 'layer'),
        ('timesteps: 1000', 'timesteps: [', 'cannot be read'),
        ('timesteps: 1000', 'timesteps: many', 'timesteps'),
        ('timesteps: 1000', 'x: &a [1]\n    y: *a', 'references'),
        ('scale_factor: 0.18215', 'scale_factor: 0', 'scale_factor'),
    ],
)
def test_the_yaml_beside_a_compvis_file(made, tmp_path, old, new, expected):
    write_weights(tmp_path / 'sd.safetensors', compvis(made[1]))
    (tmp_path / 'sd.yaml').write_text(V1_YAML.replace(old, new))
    overrides = (*SET, *TEXT, 'unet.norm_num_groups=8', 'vae.norm_num_groups=8')
    if isinstance(expected, str):
        with pytest.raises(CheckpointError, match=expected):
            config_of(tmp_path / 'sd.safetensors', overrides=overrides)
    else:
        config = config_of(tmp_path / 'sd.safetensors', overrides=overrides)
        assert config.image_diffusion == ImageDiffusionConfig(**expected)
        assert (config.unet.num_attention_heads, config.vae.scaling_factor) == (4, 0.18215)


def linear(state):
    return {
        name: array[..., 0, 0] if name.startswith('model.diffusion_model') and 'proj_in.weight' in name else array
        for name, array in state.items()
    }


def wider(state, name, width):
    return {**state, name: np.zeros((state[name].shape[0], width, *state[name].shape[2:]), np.float32)}


KEY = 'model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight'
CONV = 'model.diffusion_model.input_blocks.0.0.weight'
OTHERS = {
    'Stable Diffusion 2': [
        lambda n: {
            **compvis(n, text=None),
            'cond_stage_model.model.transformer.resblocks.0.ln_1.weight': np.zeros(8, np.float32),
        },
        lambda n: linear(compvis(n, text=None)),
        lambda n: wider(compvis(n, text=None), KEY, 1024),
    ],
    'Stable Diffusion XL': [
        lambda n: {
            **compvis(n, text=None),
            'conditioner.embedders.0.transformer.text_model.final_layer_norm.bias': np.zeros(8, np.float32),
        },
        lambda n: {**linear(compvis(n)), 'model.diffusion_model.label_emb.0.0.weight': np.zeros((8, 8), np.float32)},
        lambda n: wider(compvis(n, text=None), KEY, 2048),
    ],
    'inpainting': [lambda n: wider(compvis(n), CONV, 9)],
    'Pix2Pix': [lambda n: wider(compvis(n), CONV, 8)],
    'diffusion transformer': [lambda n: {'model.diffusion_model.joint_blocks.0.x.weight': np.zeros(8, np.float32)}],
    'of width 768': [lambda n: {**wider(compvis(n), KEY, 768)}],
}


@pytest.mark.parametrize('what', OTHERS)
def test_other_models_are_named(made, tmp_path, what):
    folder, networks = made
    for i, make in enumerate(OTHERS[what]):
        path = tmp_path / f'{i}.safetensors'
        write_weights(path, make(networks))
        for text_source in (None, open_source(folder / 'clip')):
            with pytest.raises(CheckpointError, match=what):
                plan_of(path, text_source)


@pytest.mark.parametrize(
    'changes, what',
    [
        ({UNET: {'use_linear_projection': True}}, 'Stable Diffusion 2'),
        ({UNET: {'addition_embed_type': 'text_time'}}, 'Stable Diffusion XL'),
        ({INDEX: {'_class_name': 'StableDiffusion3Pipeline'}}, 'StableDiffusion3Pipeline'),
    ],
)
def test_other_pipelines_are_named(pipeline, changes, what):
    for file, changed in changes.items():
        edit(pipeline / file, **changed)
    with pytest.raises(CheckpointError, match=what):
        plan_of(pipeline)


def test_a_pipeline_without_a_unet_is_named(pipeline):
    shutil.rmtree(pipeline / 'unet')
    edit(pipeline / INDEX, _class_name='FluxPipeline')
    with pytest.raises(CheckpointError, match='FluxPipeline'):
        open_source(pipeline)


def test_no_combination_of_parts_gives_a_stack_trace(made, tmp_path):
    """Networks missing, cut down to a few tensors, or of other names, with every kind of --text-encoder."""
    folder, networks = made
    (tmp_path / 'half').mkdir()
    write_weights(
        tmp_path / 'half/model.safetensors',
        {'text_model.embeddings.token_embedding.weight': np.zeros((4, 32), np.float32)},
    )
    write_weights(
        tmp_path / 'half.safetensors',
        {'token_embedding.weight': np.zeros(4, np.float32), 'positional_embedding': np.zeros((4, 4), np.float32)},
    )
    texts = [None, *(open_source(path) for path in (folder / 'clip', tmp_path / 'half', tmp_path / 'half.safetensors'))]
    prefixes = (None, 'cond_stage_model.transformer.', 'cond_stage_model.', 'cond_stage_model.transformer.text_model.')
    for i, (prefix, unet, vae, few) in enumerate(itertools.product(prefixes, (True, False), (True, False), (0, 3))):
        state = compvis(networks, prefix, unet, vae)
        state = dict(list(state.items())[:few]) if few else state
        write_weights(tmp_path / f'{i}.safetensors', state)
        for text in texts:
            try:
                make_plan(open_source(tmp_path / f'{i}.safetensors'), text, (*SET, *HEADS, *TEXT))
            except ConfigError as e:
                assert '\n' not in str(e)


def test_inspect_shows_what_the_configs_say(pipeline):
    edit(pipeline / SCHEDULER, prediction_type='v_prediction')
    done = command('-m', 'ckpt_convert', 'inspect', pipeline)
    assert done.returncode == 0, done.stderr
    for words in (
        'scheduler/scheduler_config.json: ',
        'prediction_type v_prediction',
        'unet/config.json: ',
        'vae/config.json: ',
        'predicts velocity',
        'nothing left over',
    ):
        assert words in done.stdout, done.stdout


@pytest.mark.parametrize(
    'manifest',
    [
        b'',
        b'[]',
        b'{',
        b'\xff',
        b'{}',
        b'{"converted_from": [], "initialized": {"seed": 0}, "files": {}, "unused": {}}',
        b'{"converted_from": {"sources": 1, "ema": false}, "initialized": {"seed": 0}, "files": {}, "unused": {}}',
        b'{"converted_from": {"sources": [], "ema": false}, "initialized": 3, "files": [], "unused": {}}',
    ],
)
def test_damaged_manifest_is_one_line(pipeline, tmp_path, manifest):
    (tmp_path / 'manifest.json').write_bytes(manifest)
    with pytest.raises(
        CheckpointError, match='was not written by|manifest.json (is damaged|is not UTF-8|holds list)'
    ) as error:
        verify(pipeline, tmp_path)
    assert '\n' not in str(error.value)


# which of several files


def variants(folder, *names):
    folder.mkdir()
    for i, name in enumerate(names):
        if '.index.' in name:
            shard = f'shard{i}.{"safetensors" if "safetensors" in name else "bin"}'
            (folder / name).write_text(
                json.dumps(
                    {'metadata': {}, 'weight_map': {'token_embedding.weight': shard, 'positional_embedding': shard}}
                )
            )
            name = shard
        write_weights(
            folder / name,
            {
                'token_embedding.weight': np.full((4, 4), i, np.float32),
                'positional_embedding': np.zeros((2, 4), np.float32),
            },
        )
    return folder


@pytest.mark.parametrize(
    'names, chosen',
    [
        (['model.safetensors.index.fp16.json'], 0),
        (['diffusion_pytorch_model.bin.index.fp16.json'], 0),
        (['model.fp16.safetensors', 'model.safetensors'], 1),
        (['model.fp16.safetensors', 'model.bin'], 1),
        (['model.bf16.safetensors', 'model.safetensors.index.fp16.json'], 1),
        (['model.non_ema.safetensors'], 0),
        (['model.fp16.bin', 'model.fp16.safetensors'], 1),
        (['model.safetensors.index.json', 'model.non_ema.safetensors'], 0),
        (['model.non_ema.safetensors', 'model.ema.safetensors'], None),
        (['model.non_ema.safetensors', 'model.fp16.safetensors'], None),
    ],
)
def test_the_file_that_is_read(tmp_path, names, chosen):
    folder = variants(tmp_path / 'clip', *names)
    if chosen is None:
        with pytest.raises(CheckpointError, match='variants'):
            open_source(folder)
    else:
        assert open_source(folder).networks['text_encoder'].tensors['token_embedding.weight'].numpy()[0, 0] == chosen


def test_what_no_file_tells_is_said(pipeline):
    assert not assumptions(open_source(pipeline))
    (pipeline / 'scheduler/scheduler_config.json').unlink()
    assert [line.split(' beside')[0] for line in assumptions(open_source(pipeline))] == [
        'no scheduler/scheduler_config.json'
    ]
    assert not assumptions(open_source(pipeline), ['image_diffusion.target=noise', 'image_diffusion.schedule=linear'])

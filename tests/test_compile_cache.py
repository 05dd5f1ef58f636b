"""The cache of compiled graphs: a warm start gives the numbers of a cold one, and nothing but the same graph is ever
read."""

import functools
import json
import os
import threading
from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn

import diffdis_ms.runtime.graph_key
from diffdis_ms import runtime
from diffdis_ms.config import Config
from diffdis_ms.models.attention import use_flash
from diffdis_ms.models.precision import apply_precision
from diffdis_ms.models.recompute import apply_recompute
from diffdis_ms.runtime.compile_cache import ENTRY, compile_cached, entries
from diffdis_ms.runtime.graph_key import PACKAGE, Unknown, build_id, graph_key
from diffdis_ms.train.accumulation import AccumulatedStep
from diffdis_ms.train.optim import build_optimizer
from diffdis_ms.train.step import TrainStep, Update
from diffdis_ms.world import World
from tests.helpers import make_objective, normal, tiny_run
from tests.workspace import command, msrun, python


def run(directory, *args):
    done = command('tests/cached_graphs.py', directory, *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition('RESULT ')[2])


def test_only_the_same_graph_is_read_whatever_the_order(tmp_path):
    """MindSpore's cache answers by the order of compilation alone: this is the trap."""
    assert run(tmp_path, 'cells', '1', 1) == [['cold', 6, 15]]
    assert run(tmp_path, 'cells', '1', 2) == [['cold', 12, 30]]
    assert run(tmp_path, 'cells', '0,1,0', 3, 2, 4) == [[None, 18, 45], ['warm', 12, 30], [None, 24, 60]]
    assert len(entries(tmp_path)) == 2 and not any(e['stale'] for e in entries(tmp_path))


def test_another_script_reads_the_same_graph(tmp_path):
    """And leaves it as it is. `command` starts scripts from tests/warm.py."""
    assert run(tmp_path, 'cells', '1', 1) == [['cold', 6, 15]]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    done = python('tests/cached_graphs.py', tmp_path, 'cells', '1', '1')
    assert done.returncode == 0 and '["warm", 6.0, 15.0]' in done.stdout, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before
    assert run(tmp_path, 'cells', '1', 1) == [['warm', 6, 15]]


def test_a_process_has_one_graph_in_the_cache(tmp_path):
    assert run(tmp_path, 'cells', '1,1', 1, 2) == [['cold', 6, 15], [None, 12, 30]]
    assert run(tmp_path, 'cells', '1,1', 1, 3) == [['warm', 6, 15], [None, 18, 45]]


def test_a_damaged_entry_is_made_anew(tmp_path):
    assert run(tmp_path, 'cells', '1', 1) == [['cold', 6, 15]]
    (path,) = tmp_path.rglob('*.mindir')
    path.write_bytes(path.read_bytes()[:-20])
    assert run(tmp_path, 'cells', '1', 1) == [['cold', 6, 15]]
    assert run(tmp_path, 'cells', '1', 1) == [['warm', 6, 15]]


def test_a_warm_training_step_is_the_cold_one_with_any_weights(tmp_path):
    """Losses, weights, optimizer and EMA, to the last bit: also with other weights than those the graph was stored
    with."""
    plain, cold, warm = run('off', 'step', 1), run(tmp_path, 'step', 1), run(tmp_path, 'step', 1)
    assert (plain[0], cold[0], warm[0]) == (None, 'cold', 'warm')
    assert plain[1:] == cold[1:] == warm[1:]
    other = run(tmp_path, 'step', 2)
    assert other[0] == 'warm' and other[1:] == run('off', 'step', 2)[1:] and other[2] != warm[2]


def test_ranks_have_graphs_of_their_own(tmp_path):
    expected = normal(0, 4).asnumpy() + normal(1, 4).asnumpy()
    for attempt, how in enumerate(('cold', 'warm')):
        logs = tmp_path / f'logs{attempt}'
        done = msrun(2, logs, 'tests/cached_graphs.py', tmp_path / 'cache', 'ranks')
        assert done.returncode == 0, done.stdout + done.stderr
        for rank in range(2):
            found = json.loads((logs / f'worker_{rank}.log').read_text().rpartition('RESULT ')[2].splitlines()[0])
            assert found[0] == how
            np.testing.assert_allclose(found[2], expected, rtol=1e-6)
    assert len(entries(tmp_path / 'cache')) == 2


class Part(nn.Cell):
    """A cell that holds `held`, whatever it is."""

    def __init__(self, held=None, weight=0.0, name='weight'):
        super().__init__()
        self.held = held
        self.weight = Parameter(Tensor(weight, ms.float32), name=name)
        self.norm = nn.LayerNorm((2,))

    def construct(self, x):
        return self.norm(x) + self.weight


def key(held=None, x=None, rank=0, size=2, **part):
    return graph_key(Part(held, **part), (normal(0, 2, 2) if x is None else x, None), World(rank, size))


@dataclass
class Settings:
    scale: float = 1.0


@ms.jit_class
class Scaling:
    def __init__(self, scale):
        self.scale = scale

    def apply(self, x):
        return x * self.scale


def times(k):
    return lambda x: x * k


def default(k):
    def apply(x, factor=k):
        return x * factor

    return apply


KINDS = {  # a kind of constant: how one is made of a number
    'number': lambda k: float(k),
    'switch': lambda k: k > 1,
    'text': lambda k: str(k),
    'whole number or not': lambda k: k if k > 1 else float(k + 1),
    'numpy number': lambda k: np.float32(k),
    'array': lambda k: np.array([0, k], np.float32),
    'type of an array': lambda k: np.zeros(2, np.float32 if k > 1 else np.int32),
    'tensor': lambda k: Tensor([0.0, k], ms.float32),
    'tensor in 16 bits': lambda k: Tensor([0.0, k], ms.bfloat16),
    'type of a tensor': lambda k: Tensor([0.0, 1.0], ms.float32 if k > 1 else ms.float16),
    'shape of a tensor': lambda k: ms.ops.zeros((k, 2)),
    'type': lambda k: ms.float32 if k > 1 else ms.float16,
    'list': lambda k: [1, [2, k]],
    'length of a list': lambda k: [0] * k,
    'dictionary': lambda k: {'a': {'b': (k,)}},
    'name in a dictionary': lambda k: {f'a{k}': 1},
    'set': lambda k: {7, k},
    'settings': lambda k: Settings(k),
    'object of a graph': lambda k: Scaling(k),
    'method': lambda k: Scaling(k).apply,
    'closure': times,
    'closure in a closure': lambda k: times(times(k)),
    'default of an argument': default,
    'function': lambda k: times if k > 1 else default,
    'partial function': lambda k: functools.partial(np.clip, 0, a_max=k),
    'class': lambda k: Scaling if k > 1 else Settings,
    'operator': lambda k: ms.ops.ReduceSum() if k > 1 else ms.ops.ReduceMean(),
    'attribute of an operator': lambda k: ms.ops.BatchMatMul(transpose_b=k > 1),
    'added attribute of an operator': lambda k: ms.ops.ReduceSum().add_prim_attr('k', k),
    'operator of old style': lambda k: ms.ops.AvgPool(k),
    'cell': lambda k: nn.LeakyReLU(k / 10),
    'epsilon of a norm': lambda k: nn.LayerNorm((2,), epsilon=k * 1e-5),
    'cell in a list': lambda k: [nn.LeakyReLU(k / 10)],
    'cell in a CellList': lambda k: nn.CellList([nn.LeakyReLU(k / 10)]),
    'cell in a closure': lambda k: times(nn.LeakyReLU(k / 10)),
    'gradient of a cell': lambda k: ms.value_and_grad(nn.LeakyReLU(k / 10)),
    'what a gradient is taken by': lambda k: ms.value_and_grad(nn.LeakyReLU(), k),
    'whether a gradient keeps what is beside': lambda k: ms.value_and_grad(nn.LeakyReLU(), has_aux=k > 1),
    'function behind jit': lambda k: ms.jit(times(k)),
    'shape of a parameter': lambda k: Parameter(np.zeros(k, np.float32), name='p'),
    'type of a parameter': lambda k: Parameter(Tensor(0, ms.float32 if k > 1 else ms.float16), name='p'),
    'whether a parameter trains': lambda k: Parameter(Tensor(0.0), name='p', requires_grad=k > 1),
    'order of parameters': lambda k: ParameterTuple(
        [Parameter(Tensor(0.0), name=n) for n in ('ab' if k > 1 else 'ba')]
    ),
    'the same object or an equal one': lambda k: [*[nn.ReLU()] * 2] if k > 1 else [nn.ReLU(), nn.ReLU()],
}


@pytest.mark.parametrize('kind', KINDS)
def test_a_constant_of_any_kind_and_place_is_in_the_key(kind):
    one, two = KINDS[kind](1), KINDS[kind](2)
    assert key(one) != key(two)
    assert key(KINDS[kind](1)) == key(one)  # and nothing else of the object is


def test_the_key_holds_what_lies_beside_the_constants(monkeypatch):
    inputs, recomputed = (normal(0, 2, 2), None), Part()
    recomputed.recompute()
    found = [
        key(),
        key(name='other'),
        key(x=normal(0, 3, 2)),
        key(x=normal(0, 2, 2).astype(ms.float16)),
        key(x=2.0),
        key(x=3.0),
        key(x=(normal(0, 2, 2), 3.0)),
        key(rank=1),
        key(size=4),
        graph_key(Part().to_float(ms.float16), inputs, World(0, 2)),
        graph_key(Part().set_train(), inputs, World(0, 2)),
        graph_key(Part().set_grad(), inputs, World(0, 2)),
        graph_key(recomputed, inputs, World(0, 2)),
    ]
    hooked = Part()
    hooked.register_forward_pre_hook(times(2))
    found.append(graph_key(hooked, inputs, World(0, 2)))
    declared = [normal(i, 2, 2) for i in (0, 1)]
    for x in declared:
        x.set_const_arg(True)
        found.append(key(x=x))
    before = use_flash(True)
    found.append(key())
    use_flash(before)
    monkeypatch.setenv('MS_DEV_SOMETHING', '1')
    found.append(key())
    monkeypatch.delenv('MS_DEV_SOMETHING')
    for setting, value, usual in (('max_call_depth', 2000, 1000), ('jit_syntax_level', ms.STRICT, ms.LAX)):
        ms.set_context(**{setting: value})
        found.append(key())
        ms.set_context(**{setting: usual})
    for name, value in (('ascend_chip', lambda: 'ascend910b'), ('build_id', dict)):
        with monkeypatch.context() as patch:
            patch.setattr(runtime.context if name == 'ascend_chip' else diffdis_ms.runtime.graph_key, name, value)
            found.append(key())
    assert len(set(found)) == len(found)
    assert key() == found[0]


def test_the_key_holds_neither_values_nor_where_and_when(monkeypatch):
    monkeypatch.setenv('MS_SCHED_PORT', '1234')
    ours, inputs = Part(), (normal(0, 2, 2), None)
    before = graph_key(ours, inputs, World(0, 2))
    assert before == key(weight=5.0) == key(x=normal(9, 2, 2))
    ours(*inputs[:1])
    assert graph_key(ours, inputs, World(0, 2)) == before  # also after it was compiled and called


def test_all_sources_count():
    found = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob('*.py')}
    assert {'models/attention.py', 'train/step.py', 'diffusion/losses.py', 'config/fields.py'} <= found


def test_what_cannot_be_read_is_not_kept(tmp_path):
    class Slots:
        __slots__ = ('k',)

    for held in (Slots(), iter([1]), threading.Lock()):
        with pytest.raises(Unknown):
            key(held)
    endless = []
    endless.append(endless)
    with pytest.raises(Unknown, match='contains itself'):
        key(endless)
    config = Config()
    config.runtime.compile_cache, config.runtime.compile_cache_dir = True, str(tmp_path)
    with pytest.warns(UserWarning, match='lock'):
        assert compile_cached(Part(threading.Lock()), (normal(0, 2, 2),), config) is None
    assert not list(tmp_path.iterdir())


BASE = {
    'objective': 'diffdis',
    'model.unet.block_out_channels': [32, 64],
    'model.unet.attention_levels': [True, True],
    'model.unet.layers_per_block': 1,
    'model.alignment.num_layers': 1,
    'model.text_encoder.num_hidden_layers': 1,
    'model.image_encoder.num_hidden_layers': 1,
    'model.vae.layers_per_block': 1,
    'train.precision': 'fp16',
    'train.batch_size': 4,
}
CHANGES = {  # what changes the graph of a training step: (other settings of the base, changed settings)
    'number of channels': ({}, {'model.unet.block_out_channels': [32, 96]}),
    'attention': ({}, {'model.unet.attention_levels': [False, True]}),
    'layers': ({}, {'model.unet.layers_per_block': 2}),
    'heads': ({}, {'model.unet.num_attention_heads': 8}),
    'groups of a norm': ({}, {'model.unet.norm_num_groups': 16}),
    'latent of the condition': ({}, {'model.dual_stream.image_condition_timestep': 500}),
    'shared attention': ({}, {'model.dual_stream.share_attention': False}),
    'feed-forward of the query': ({}, {'model.dual_stream.modality_ffn': False}),
    'fusion': ({}, {'model.dual_stream.fusion': False}),
    'width of a head': ({}, {'model.alignment.head_dim': 32}),
    'schedule of z': ({}, {'model.image_diffusion.schedule': 'cosine'}),
    'beta of z': ({}, {'model.image_diffusion.beta_end': 0.013}),
    'target of z': ({}, {'model.image_diffusion.target': 'velocity'}),
    'schedule of e': ({}, {'model.text_diffusion.schedule': 'linear'}),
    'target of e': ({}, {'model.text_diffusion.target': 'noise'}),
    'gamma': ({}, {'model.text_diffusion.gamma': 0.02}),
    'learnable logit scale': ({}, {'model.learnable_logit_scale': False}),
    'limit of the logit scale': ({}, {'model.max_logit_scale': 50.0}),
    'fresh UNet or not': ({}, {'init.unet': 'somewhere'}),
    'task': ({}, {'train.task': 'gen'}),
    'other task': ({}, {'train.task': 'dis'}),
    'batch': ({}, {'train.batch_size': 2}),
    'generation batch': ({}, {'train.generation_batch_size': 2}),
    'weight of the alignment': ({}, {'train.lambda_ita': 0.5}),
    'precision': ({}, {'train.precision': 'fp32'}),
    'bfloat16': ({}, {'train.precision': 'bf16'}),
    'window of the loss scale': ({}, {'train.loss_scale_window': 10}),
    'decay of the EMA': ({}, {'train.ema_decay': 0.99}),
    'ramp of the EMA': ({}, {'train.ema_ramp': False}),
    'recompute': ({}, {'train.recompute': True}),
    'clipping': ({}, {'optimizer.max_grad_norm': 2.0}),
    'no clipping': ({}, {'optimizer.max_grad_norm': 0.0}),
    'learning rate': ({'init.unet': 'somewhere'}, {'optimizer.learning_rate': 2e-5}),
    'learning rate of new parameters': ({}, {'optimizer.new_learning_rate': 2e-4}),
    'schedule of the learning rate': ({}, {'optimizer.schedule': 'cosine'}),
    'length of a cosine': ({'optimizer.schedule': 'cosine'}, {'train.max_steps': 99}),
    'warm-up': ({}, {'optimizer.warmup_steps': 3}),
    'weight decay': ({}, {'optimizer.weight_decay': 1e-3}),
    'beta1': ({}, {'optimizer.beta1': 0.8}),
    'beta2': ({}, {'optimizer.beta2': 0.99}),
    'epsilon': ({}, {'optimizer.eps': 1e-7}),
    'accumulation': ({}, {'train.accumulation_steps': 2}),
    'number of parts': ({'train.accumulation_steps': 2}, {'train.accumulation_steps': 3}),
    'activation of CLIP': ({'objective': 'clip'}, {'model.text_encoder.hidden_act': 'gelu'}),
    'epsilon of CLIP': ({'objective': 'clip'}, {'model.image_encoder.layer_norm_eps': 1e-6}),
    'weight of the divergence': ({'objective': 'autoencoder'}, {'train.kl_weight': 1e-5}),
    'weight of the colours': ({'objective': 'autoencoder'}, {'train.chroma_weight': 0.5}),
}
SAME = {  # what does not
    'output_dir': 'elsewhere',
    'resume': 'none',
    'seed': 5,
    'data.path': 'elsewhere',
    'data.num_workers': 7,
    'data.min_side': 32,
    'data.random_flip': True,
    'init.tokenizer': 'elsewhere',
    'init.vae': 'elsewhere',
    'model.logit_scale': 20.0,
    'optimizer.learning_rate': 1e-3,  # all that trains is new
    'train.max_steps': 99,
    'train.max_minutes': 5.0,
    'train.caption_dropout': 0.5,
    'train.loss_scale': 1024.0,
    'train.log_every': 3,
    'train.checkpoint_every': 7,
    'train.keep_checkpoints': 9,
    'train.tensorboard': False,
    'train.sample_every': 4,
    'runtime.compile_cache': True,
    'runtime.compile_cache_dir': 'elsewhere',
    'runtime.hccl_connect_timeout': 5,
}


def step_key(settings, world=World()):
    """The key of the main graph of training with these settings."""
    config = tiny_run()
    for name, value in {**BASE, **settings}.items():
        node, _, leaf = name.rpartition('.')
        setattr(functools.reduce(getattr, node.split('.'), config) if node else config, leaf, value)
    objective, inputs = make_objective(config, world=world)
    apply_precision(objective, config.train.precision)
    if config.train.recompute:
        apply_recompute(objective.unet)
    units, optimizer, _ = build_optimizer(config, list(objective.trainable_params()), world)
    update, parts = Update(objective, units, optimizer, config, world), config.train.accumulation_steps
    step = TrainStep(objective, update) if parts == 1 else AccumulatedStep(objective, update, parts)
    step.set_train()
    return graph_key(step if parts == 1 else step.accumulate, inputs, world)


@functools.cache
def base_key(settings):
    return step_key(dict(settings))


@pytest.mark.parametrize('change', CHANGES)
def test_every_setting_of_the_graph_changes_the_key(change):
    base, changed = CHANGES[change]
    assert step_key({**base, **changed}) != base_key(tuple(base.items()))


def test_sharding_and_the_number_of_processes_change_the_key():
    keys = [
        step_key({'train.shard_optimizer': shard}, world)
        for shard, world in ((False, World()), (False, World(0, 2)), (True, World(0, 2)), (True, World(1, 2)))
    ]
    assert len(set(keys)) == 4
    assert step_key({'train.shard_optimizer': True}) == keys[0]  # there is nobody to share with


def test_paths_logging_and_checkpoints_do_not_change_the_key():
    assert step_key(SAME) == base_key(())


@pytest.mark.parametrize(
    'damage, reason',
    [(lambda e: e.update(mindspore='1.0'), 'another mindspore'), (lambda e: e.update(sources='0'), 'another sources')],
)
def test_stale_entries_are_told(tmp_path, damage, reason):
    entry = dict(build_id())
    damage(entry)
    (tmp_path / 'abc').mkdir()
    (tmp_path / 'abc' / ENTRY).write_text(json.dumps(entry))
    (tmp_path / '.abc.host.1.tmp').mkdir()
    os.utime(tmp_path / 'abc', (1, 1))
    assert [(os.path.basename(e['path']), e['stale']) for e in entries(tmp_path)] == [
        ('.abc.host.1.tmp', 'not complete'),
        ('abc', f'made with {reason}'),
    ]

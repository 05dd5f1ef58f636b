"""DiffDis under MindFormers' registry: found by name, saved and read back with its weights, fed by our stream."""

from itertools import islice

import mindspore.common.dtype as mstype
import numpy as np
import pytest
from mindformers import AutoConfig, AutoModel
from mindformers.core.optim import AdamW
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindspore import Tensor, nn

from diffdis_ms.errors import ConfigError
from diffdis_ms.formers.dataset import COLUMNS, Steps
from diffdis_ms.formers.register import (
    DiffDisConfig,
    DiffDisDataset,
    DiffDisForTraining,
    DiffDisTrainer,
    PortableTrainOneStepCell,
)
from diffdis_ms.formers.step import _check, _tensor_not_finite
from diffdis_ms.train.job import assemble
from tests.formers.workspace import make_cached_workspace


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return make_cached_workspace(tmp_path_factory.mktemp('cached'))


@pytest.fixture
def config(directory):
    return DiffDisConfig(str(directory / 'cached.yaml'), ['train.max_steps=5'])


def test_all_parts_are_found_by_name():
    for kind, cls in (
        (MindFormerModuleType.CONFIG, DiffDisConfig),
        (MindFormerModuleType.MODELS, DiffDisForTraining),
        (MindFormerModuleType.DATASET, DiffDisDataset),
        (MindFormerModuleType.TRAINER, DiffDisTrainer),
        (MindFormerModuleType.WRAPPER, PortableTrainOneStepCell),
    ):
        assert MindFormerRegister.get_cls(kind, cls.__name__) is cls


def test_saved_models_come_back_with_their_weights(config, tmp_path):
    model = DiffDisForTraining(config)
    for p in model.get_parameters():
        p.set_data(p + 1)
    saved = {p.name: p.asnumpy() for p in model.get_parameters()}
    assert sum(name.startswith('ema.') for name in saved) == len(model.trainable_params()) > 50
    model.save_pretrained(str(tmp_path / 'saved'))
    again = DiffDisForTraining.from_pretrained(str(tmp_path / 'saved'))
    found = {p.name: p.asnumpy() for p in again.get_parameters()}
    assert found.keys() == saved.keys() and all(np.array_equal(found[name], saved[name]) for name in saved)
    assert again.config.resolved() == config.resolved()


def test_forms_that_lose_the_weights_are_refused(config, tmp_path):
    model = DiffDisForTraining(config)
    for wrong in (model, config):
        with pytest.raises(ConfigError, match='save_json'):
            wrong.save_pretrained(str(tmp_path / 'yaml'), save_json=False)
    model.save_pretrained_origin_mode(str(tmp_path / 'yaml'))  # MindFormers' own
    with pytest.raises(ConfigError, match='config.json'):
        DiffDisForTraining.from_pretrained(str(tmp_path / 'yaml'))


def test_autoconfig_and_automodel_know_it(config, tmp_path):
    config.save_pretrained(str(tmp_path))
    again = AutoConfig.from_pretrained(str(tmp_path))
    assert isinstance(again, DiffDisConfig) and again.resolved() == config.resolved()
    assert isinstance(AutoModel.from_config(again), DiffDisForTraining)


def test_rows_are_those_of_our_own_loop_from_any_step(config):
    job = assemble(config.resolved())
    ours = [
        [x for x in job.learner.features(batch, step) if x is not None]
        for step, batch in enumerate(islice(job.loader, 5))
    ]
    dataset = DiffDisDataset(_given(config))
    assert dataset.get_dataset_size() == 5 and dataset.get_col_names() == COLUMNS
    rows = list(dataset.create_tuple_iterator(output_numpy=True, num_epochs=1))
    assert all(
        np.array_equal(a, b) for row, other in zip(rows, ours, strict=True) for a, b in zip(row, other, strict=True)
    )
    dataset = DiffDisDataset(_given(config))
    dataset.set_init_step(3)  # what a resumed run does
    rest = list(dataset.create_tuple_iterator(output_numpy=True, num_epochs=1))
    assert len(rest) == 2 and all(
        np.array_equal(a, b) for row, other in zip(rest, ours[3:], strict=True) for a, b in zip(row, other, strict=True)
    )


def _given(config):
    return {'model_config': {'config_file': None, 'overrides': None, 'experiment': config.experiment}}


def test_a_resumed_stream_does_not_read_what_it_skips(config):
    job, seen = assemble(config.resolved()), []

    def features(batch, step):
        seen.append(step)
        return job.learner.features(batch, step)

    steps = Steps(job.loader, features, 100)
    there = steps[90]
    assert seen == [90] and all(np.array_equal(a, b) for a, b in zip(steps[90], there, strict=True))
    assert not np.array_equal(steps[91][0], there[0])


def test_without_a_cache_it_says_what_to_do(directory):
    with pytest.raises(ConfigError, match='tools/cache_latents.py'):
        DiffDisForTraining(DiffDisConfig(str(directory / 'diffdis.yaml')))
    with pytest.raises(ConfigError, match='tools/train.py'):
        DiffDisForTraining(DiffDisConfig(str(directory / 'diffdis.yaml'), ['objective=clip']))


def test_an_overflow_is_seen_on_the_cpu():
    values = [float(_tensor_not_finite(Tensor(x)).asnumpy()) for x in ([1.0, -2.0], [1.0, np.inf], [np.nan, 0.0])]
    assert values == [0.0, 1.0, 1.0]


def test_a_step_that_overflows_is_skipped_and_halves_the_scale():
    net = nn.WithLossCell(nn.Dense(3, 2), nn.MSELoss())
    scale = nn.DynamicLossScaleUpdateCell(loss_scale_value=64, scale_factor=2, scale_window=100)
    step = PortableTrainOneStepCell(
        net, AdamW(net.trainable_params(), learning_rate=0.1), use_clip_grad=True, scale_sense=scale
    ).set_train()
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    weights = [[p.asnumpy().copy() for p in net.trainable_params()]]
    for bad in (False, True, False):
        given = np.where(bad, np.inf, x)
        _, overflow, *_ = step(Tensor(given.astype(np.float32)), Tensor(y))
        assert bool(overflow.asnumpy()) == bad
        weights.append([p.asnumpy().copy() for p in net.trainable_params()])
    changed = [
        any(not np.array_equal(a, b) for a, b in zip(*pair, strict=True))
        for pair in zip(weights, weights[1:], strict=False)
    ]
    assert changed == [True, False, True] and float(step.scale_sense.asnumpy().item()) == 32


@pytest.mark.parametrize(
    'loss, norm, what',
    [(np.nan, 1.0, 'the loss is nan'), (1.0, np.inf, "the gradients' norm is inf"), (np.inf, None, 'the loss is inf')],
)
def test_a_step_that_is_not_finite_stops_before_it_is_saved(loss, norm, what):
    loss, norm = Tensor(loss, mstype.float32), norm and Tensor(norm, mstype.float32)
    with pytest.raises(ConfigError, match=f'step 7: {what}'):
        _check(7, loss, norm, 'fp32')
    _check(7, loss, norm, 'fp16')  # the step was skipped
    _check(7, Tensor(1.0, mstype.float32), Tensor(2.0, mstype.float32), 'fp32')

"""What the loss cell is fed, and the empty caption's context: the frozen T's once, that of a T which trains along at
every step."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from diffdis_ms.data.stream.loader import Batch
from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.train import build as module
from diffdis_ms.train.features import DiffDisFeatures
from diffdis_ms.train.objective import DiffDisObjective, draw_diffdis
from tests.helpers import tiny_run

LENGTH, WIDTH, QUERY = 16, 32, 48


class Tokens:
    """Ids that tell the text; those of the empty one are 7."""

    def encode(self, texts, length):
        return np.array([[7 + len(text)] * length for text in texts], np.int32)


class Encoders:
    """z, c and e that tell what they are of, without networks."""

    def __init__(self, *_):
        self.tokenizer = Tokens()

    def encode_images(self, pixels, progress=False):
        return np.full((len(pixels), 4, 8, 8), pixels.mean() + 1, np.float32)

    def zero_latent(self):
        return self.encode_images(np.zeros((1, 3, 32, 32), np.float32))

    def encode_ids(self, ids, progress=False):
        return np.repeat(ids[:, :, None], WIDTH, 2).astype(np.float32), np.ones((len(ids), 1, QUERY), np.float32)


def batch(texts=('a', 'bc', 'def', 'ghij')):
    return Batch(
        np.zeros((len(texts), 3, 32, 32), np.uint8), list(texts), np.arange(len(texts)), Tokens().encode(texts, LENGTH)
    )


def test_frozen_features_and_what_stands_for_dropped_ones():
    config = tiny_run()
    features = DiffDisFeatures(Encoders(), config, None)
    assert np.array_equal(features.empty_ids, np.full((1, LENGTH), 7)) and np.array_equal(
        features.empty_context, np.full((1, LENGTH, WIDTH), 7)
    )
    assert (features.zero_latent == 1).all() and features.zero_latent.shape == (1, 4, 8, 8)
    z, c, e, ids, *draws = features(batch(), 3)
    assert (
        ids is None
        and z.shape == (4, 4, 8, 8)
        and (c == 7 + np.arange(1, 5).reshape(4, 1, 1)).all()
        and e.shape == (4, 1, QUERY)
    )
    assert all(np.array_equal(a, b) for a, b in zip(draws, draw_diffdis(0, 3, config, (4, 8, 8)), strict=True))


@pytest.mark.parametrize('frozen', [True, False])
def test_build_hands_the_objective_what_its_dropped_inputs_become(monkeypatch, frozen):
    monkeypatch.setattr(module, 'Encoders', Encoders)
    learner = module.build(tiny_run(freeze_text_encoder=frozen), None, Tokens())
    objective = learner.objective
    assert (
        np.array_equal(objective.empty_context.asnumpy(), np.full((1, LENGTH, WIDTH), 7))
        and (objective.zero_latent.asnumpy() == 1).all()
    )
    if frozen:
        assert objective.text_encoder is None and learner.frozen == ('vae', 'text_encoder')
    else:
        assert np.array_equal(objective.empty_ids.asnumpy(), np.full((1, LENGTH), 7)) and learner.frozen == ('vae',)
        assert objective.text_encoder is learner.networks['text_encoder']


class Tower(nn.Cell):
    """T as a table: c is the rows of the ids, e their mean."""

    def __init__(self):
        super().__init__()
        table = np.random.default_rng(0).standard_normal((200, QUERY)).astype(np.float32)
        self.table = Parameter(table, name='text_model.table')

    def construct(self, ids):
        c = ops.gather(self.table, ids, 0)
        return c, c.mean(1, True)


class Net(nn.Cell):
    """A UNet whose noise is z_t times the mean of c."""

    def construct(self, z, t, c=None, e_t=None):
        if e_t is None:
            return z * c.mean((1, 2)).reshape(-1, 1, 1, 1)
        return e_t * z.mean((1, 2, 3)).reshape(-1, 1, 1)


def test_where_t_trains_dropped_captions_get_its_empty_context_of_that_step():
    config = tiny_run(freeze_text_encoder=False)
    tower, empty = Tower(), Tokens().encode([''], LENGTH)
    stale = np.full((1, LENGTH, QUERY), 99, np.float32)
    objective = DiffDisObjective(Net(), config, stale, np.zeros((1, 4, 8, 8), np.float32), tower, empty_ids=empty)
    z = np.random.default_rng(1).standard_normal((4, 4, 8, 8)).astype(np.float32)
    t_z, noise, _, *others = draw_diffdis(0, 0, config, (4, 8, 8))
    drop = np.array([True, False, True, False])
    ids = batch().token_ids
    inputs = [None if x is None else Tensor(x) for x in (z, None, None, ids, t_z, noise, drop, *others)]
    abar = alphas_cumprod(config.model.image_diffusion)[t_z].reshape(-1, 1, 1, 1)
    z_t = np.sqrt(abar) * z + np.sqrt(1 - abar) * noise
    (gradient,) = ms.grad(objective, None, [tower.table], has_aux=True)(*inputs)[0]
    assert np.abs(gradient.asnumpy()[7]).max() > 0  # the empty caption's row trains along
    for _ in range(2):
        table = tower.table.asnumpy()
        c = table[np.where(drop[:, None], empty, ids)]  # (4, L, D)
        expected = ((z_t * c.mean((1, 2)).reshape(-1, 1, 1, 1) - noise) ** 2).mean()
        assert np.isclose(float(objective(*inputs)[1]), expected, rtol=1e-4)
        tower.table.set_data(Tensor(table * 1.5 + 0.1))

"""The batch stream: order, resume, bad samples, augmentation."""
import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.config import ConfigError
from diffdis_ms.data.loader import Loader, read_all, shift
from diffdis_ms.data.webdataset import BadSample, Sample


class Numbers:
    """Sample i is an image of brightness i (left half black); those in `bad` cannot be read."""
    class_names = None

    def __init__(self, count, bad=(), size=8):
        self.count, self.bad, self.size, self.reads = count, set(bad), size, 0

    def __len__(self):
        return self.count

    def read(self, i):
        self.reads += 1
        if i in self.bad:
            raise BadSample(f'k{i}', 'broken')
        array = np.full((self.size, self.size, 3), i, np.uint8)
        array[:, :self.size // 2] = 0
        return Sample(f'k{i}', Image.fromarray(array), f'caption {i}', i % 4)


def take(loader, count):
    return [b.indices.tolist() for b in islice(loader, count)]


def test_batches_match_their_samples():
    loader = Loader(Numbers(10), 4, 8, seed=0)
    for batch in islice(loader, 5):
        assert batch.pixels.shape == (4, 3, 8, 8) and batch.pixels.dtype == np.uint8 and batch.indices.dtype == np.int64
        assert batch.captions == [f'caption {i}' for i in batch.indices]
        assert batch.pixels[:, 0, 0, -1].tolist() == batch.indices.tolist()


def test_each_epoch_is_another_permutation_without_its_last_incomplete_batch():
    epochs = np.array(take(Loader(Numbers(10), 3, 8, seed=0), 9)).reshape(3, 9)
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert not (epochs[0] == epochs[1]).all() and not (epochs[0] == epochs[2]).all()


def test_order_depends_on_the_seed_and_on_nothing_else():
    first = take(Loader(Numbers(20), 3, 8, seed=1), 15)
    assert take(Loader(Numbers(20), 3, 8, seed=1, num_workers=4, cache=True, random_flip=True), 15) == first
    assert take(Loader(Numbers(20), 3, 8, seed=2), 15) != first
    assert take(Loader(Numbers(6), 3, 8, seed=1, shuffle=False), 4) == [[0, 1, 2], [3, 4, 5]] * 2


@pytest.mark.parametrize('stop', [1, 2, 3, 4, 7])
def test_stream_continues_exactly_after_restore(stop):
    def make():
        return Loader(Numbers(11, bad={2, 5}), 2, 8, seed=3, random_flip=True, random_shift=2)
    whole = list(islice(make(), 12))
    first, second = make(), make()
    list(islice(first, stop))
    second.restore(json.loads(json.dumps(first.state())))
    for resumed, expected in zip(islice(second, 12 - stop), whole[stop:]):
        np.testing.assert_array_equal(resumed.indices, expected.indices)
        np.testing.assert_array_equal(resumed.pixels, expected.pixels)


def test_state_of_another_run_is_refused():
    state = Loader(Numbers(10), 2, 8, seed=0).state()
    with pytest.raises(ConfigError, match='seed'):
        Loader(Numbers(10), 2, 8, seed=1).restore(state)
    with pytest.raises(ConfigError, match='num_samples'):
        Loader(Numbers(11), 2, 8, seed=0).restore(state)


def test_bad_samples_are_left_out_and_recorded():
    loader = Loader(Numbers(10, bad={1, 4}), 4, 8, seed=0)
    epochs = np.array(take(loader, 4)).reshape(2, 8)
    for epoch in epochs:
        assert set(epoch) == set(range(10)) - {1, 4}
    assert loader.skipped == {'k1': 'broken', 'k4': 'broken'}


@pytest.mark.parametrize('bad', [range(10), range(8)])
def test_too_few_good_samples_end_with_counts(bad):
    with pytest.raises(ConfigError, match=f'{10 - len(bad)} good samples .{len(bad)} skipped'):
        next(iter(Loader(Numbers(10, bad=bad), 3, 8, seed=0)))


def test_fewer_samples_than_a_batch_and_bad_numbers_are_refused_at_once():
    with pytest.raises(ConfigError, match='2 good samples'):
        Loader(Numbers(2), 3, 8, seed=0)
    with pytest.raises(ConfigError, match='num_workers'):
        Loader(Numbers(9), 3, 8, seed=0, num_workers=0)
    with pytest.raises(ConfigError, match='seed'):
        Loader(Numbers(9), 3, 8, seed=-1)


def test_cache_reads_each_sample_once():
    numbers = Numbers(8)
    loader = Loader(numbers, 4, 8, seed=0, cache=True, num_workers=1)
    list(islice(loader, 12))
    assert numbers.reads == 8


def test_flip_and_shift_vary_by_epoch_and_sample_and_leave_the_cache_alone():
    loader = Loader(Numbers(64), 64, 8, seed=0, cache=True, random_flip=True)
    flipped = []
    for batch in islice(loader, 2):
        left = batch.pixels[:, 0, 0, 0] > 0
        flipped.append(left[np.argsort(batch.indices)])
    assert 16 < flipped[0].sum() < 48 and (flipped[0] != flipped[1]).any()
    for batch in islice(Loader(Numbers(64), 64, 8, seed=0, random_shift=3), 1):
        shifts = {(bool((p[0, 0] == 255).all()), bool((p[0, :, 0] == 255).all())) for p in batch.pixels}
        assert len(shifts) == 4


def test_shift_moves_and_fills_white():
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    moved = shift(pixels, 1, -1)
    np.testing.assert_array_equal(moved[:, 1:, :2], pixels[:, :2, 1:])
    assert (moved[:, 0] == 255).all() and (moved[:, :, 2] == 255).all()
    assert (shift(pixels, 5, 0) == 255).all()


def test_read_all_keeps_the_order_and_counts_the_bad():
    read = read_all(Numbers(9, bad={3}, size=20), 8, 3)
    good = [i for i in range(9) if i != 3]
    assert read.pixels.shape == (8, 3, 8, 8) and read.pixels.dtype == np.uint8
    assert read.captions == [f'caption {i}' for i in good] and read.labels == [i % 4 for i in good]
    assert read.keys == [f'k{i}' for i in good] and read.indices.tolist() == good
    assert read.skipped == {'k3': 'broken'}
    with pytest.raises(ConfigError, match='none of 2'):
        read_all(Numbers(2, bad={0, 1}), 8)

"""The batch stream: order, resume, bad samples, augmentation."""

import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.samples import Sample
from diffdis_ms.data.stream.loader import Loader, read_all, shift
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.world import World


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
        array[:, : self.size // 2] = 0
        return Sample(f'k{i}', Image.fromarray(array), f'caption {i}', i % 4)


def take(loader, count):
    return [b.indices.tolist() for b in islice(loader, count)]


def test_batches_match_their_samples():
    loader = Loader(Numbers(10), 4, 8, seed=0)
    for batch in islice(loader, 5):
        assert batch.pixels.shape == (4, 3, 8, 8) and batch.pixels.dtype == np.uint8 and batch.indices.dtype == np.int64
        assert batch.captions == [f'caption {i}' for i in batch.indices]
        assert batch.pixels[:, 0, 0, -1].tolist() == batch.indices.tolist()


@pytest.mark.parametrize('count, size', [(10, 3), (12, 4), (7, 4), (5, 4), (4, 4), (50, 7)])
def test_each_epoch_is_another_permutation_and_no_batch_holds_a_sample_twice(count, size):
    batches = take(Loader(Numbers(count), size, 8, seed=0), 6 * count)
    stream = [i for batch in batches for i in batch]
    epochs = [stream[e * count : (e + 1) * count] for e in range(6)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    assert all(len(set(batch)) == size for batch in batches)


@pytest.mark.parametrize('count, size', [(23, 6), (10, 6)])
def test_processes_together_see_the_batches_of_one(count, size):
    whole = list(islice(Loader(Numbers(count), size, 8, seed=4, random_shift=3), 12))
    for ranks in (2, 3):
        shares = [
            islice(Loader(Numbers(count), size, 8, seed=4, random_shift=3, world=World(r, ranks)), 12)
            for r in range(ranks)
        ]
        for expected, batches in zip(whole, zip(*shares, strict=True), strict=True):
            for rank, batch in enumerate(batches):
                np.testing.assert_array_equal(batch.indices, expected.indices[rank::ranks])
                np.testing.assert_array_equal(batch.pixels, expected.pixels[rank::ranks])
                assert batch.captions == expected.captions[rank::ranks]


def test_order_depends_on_the_seed_and_on_nothing_else():
    first = take(Loader(Numbers(20), 3, 8, seed=1), 15)
    assert take(Loader(Numbers(20), 3, 8, seed=1, num_workers=4, cache=True, random_flip=True), 15) == first
    assert take(Loader(Numbers(20), 3, 8, seed=2), 15) != first
    assert take(Loader(Numbers(6), 3, 8, seed=1, shuffle=False), 4) == [[0, 1, 2], [3, 4, 5]] * 2


@pytest.mark.parametrize('stop', [1, 2, 3, 4, 7])
@pytest.mark.parametrize('before, after', [(1, 1), (2, 1), (1, 4)])
def test_stream_continues_exactly_after_restore_whatever_the_number_of_processes(stop, before, after):
    def make(rank, size):
        return Loader(Numbers(11, bad={2, 5}), 4, 8, seed=3, random_flip=True, random_shift=2, world=World(rank, size))

    whole = list(islice(make(0, 1), 12))
    first = [make(rank, before) for rank in range(before)]
    for loader in first:
        list(islice(loader, stop))
    states = [json.loads(json.dumps(loader.state())) for loader in first]
    assert all(state == states[0] for state in states)
    for rank in range(after):
        second = make(rank, after)
        second.restore(states[0])
        for resumed, expected in zip(islice(second, 12 - stop), whole[stop:], strict=True):
            np.testing.assert_array_equal(resumed.indices, expected.indices[rank::after])
            np.testing.assert_array_equal(resumed.pixels, expected.pixels[rank::after])


def test_state_of_another_run_is_refused():
    state = Loader(Numbers(10), 2, 8, seed=0).state()
    with pytest.raises(ConfigError, match='seed'):
        Loader(Numbers(10), 2, 8, seed=1).restore(state)
    for other in (
        Loader(Numbers(11), 2, 8, seed=0),
        Loader(Numbers(10, bad={3}), 2, 8, seed=0),
        Loader(Numbers(10), 5, 8, seed=0),
    ):
        with pytest.raises(ConfigError, match='num_samples|num_good|batch_size'):
            other.restore(state)
    state = Loader(Numbers(10, bad={2}), 2, 8, seed=0).state()
    with pytest.raises(ConfigError, match='good_samples'):
        Loader(Numbers(10, bad={3}), 2, 8, seed=0).restore(state)


def test_bad_samples_are_left_out_and_recorded():
    loader = Loader(Numbers(10, bad={1, 4}), 4, 8, seed=0)
    epochs = np.array(take(loader, 4)).reshape(2, 8)
    for epoch in epochs:
        assert set(epoch) == set(range(10)) - {1, 4}
    assert loader.skipped == {'k1': 'broken', 'k4': 'broken'} and loader.good.tolist() == [0, 2, 3, 5, 6, 7, 8, 9]


def test_a_sample_that_breaks_after_the_check_is_named():
    numbers = Numbers(8)
    loader = Loader(numbers, 4, 8, seed=0)
    numbers.bad = {5}
    with pytest.raises(ConfigError, match='k5.*broken.*has changed'):
        list(islice(loader, 2))


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
    with pytest.raises(ConfigError, match='multiple of 2'):
        Loader(Numbers(9), 3, 8, seed=0, world=World(0, 2))
    with pytest.raises(ConfigError, match='rank'):
        Loader(Numbers(9), 4, 8, seed=0, world=World(2, 2))


def test_cache_reads_each_sample_once():
    numbers = Numbers(8)
    loader = Loader(numbers, 4, 8, seed=0, cache=True, num_workers=1)
    checked = numbers.reads
    list(islice(loader, 12))
    assert checked == 8 and numbers.reads == 16


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
    with pytest.raises(ConfigError, match='none of the 2'):
        read_all(Numbers(2, bad={0, 1}), 8)

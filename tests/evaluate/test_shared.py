"""The pass that evaluations share: its order, what is read when, what a continued run does again."""

import threading

import numpy as np
import pytest

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.shared import Share, parts_directory, read_ahead, shared_pass
from diffdis_ms.world import World


def squares(count, batch_size, share=Share(), computed=None, read=float):
    """The squares of 0..count-1, by a pass; `computed` collects the batches that were computed."""

    def compute(items, rows):
        if computed is not None:
            computed.append(list(items))
        return {'rows': np.square(rows)}

    return [int(x) for part in shared_pass(count, batch_size, read, compute, share) for x in part['rows']]


def test_batches_come_in_order_and_the_last_is_smaller():
    computed = []
    assert squares(7, 3, computed=computed) == [0, 1, 4, 9, 16, 25, 36] and computed == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_next_batch_is_read_while_one_is_computed():
    read = {k: threading.Event() for k in range(6)}
    for batch, rows in read_ahead(iter([0, 1, 2]), lambda k: [2 * k, 2 * k + 1], lambda item: read[item].set() or item):
        assert rows == [2 * batch, 2 * batch + 1]
        if batch < 2:  # only what is under way now can set these
            assert read[2 * batch + 2].wait(10) and read[2 * batch + 3].wait(10)
        assert not any(read[item].is_set() for item in range(2 * batch + 4, 6))


def test_what_reading_raises_arrives():
    def read(i):
        if i == 4:
            raise ConfigError('picture 4')
        return float(i)

    with pytest.raises(ConfigError, match='picture 4'):
        squares(7, 2, read=read)


def test_finished_batches_are_not_computed_again(tmp_path):
    expected, share = squares(7, 2), Share(tmp_path / 'parts')
    assert squares(7, 2, share) == expected
    (share.parts / '000001.npz').unlink()
    (share.parts / '000003.npz').write_bytes(b'damaged')
    computed = []
    assert squares(7, 2, share, computed) == expected and computed == [[2, 3], [6]]


def test_processes_take_turns_and_help(tmp_path):
    mine = []
    assert squares(10, 2, Share(tmp_path, World(1, 3)), mine) == squares(10, 2)
    assert mine == [[2, 3], [8, 9], [6, 7], [4, 5], [0, 1]]  # its own, then the others' from the end
    others = []
    assert squares(10, 2, Share(tmp_path, World(0, 3)), others) == squares(10, 2) and others == []


def test_parts_are_named_after_what_decides_them(tmp_path):
    a = parts_directory(tmp_path / 'r.json', steps=8, seed=0)
    assert a.parent == tmp_path and a == parts_directory(tmp_path / 'r.json', seed=0, steps=8) != parts_directory(
        tmp_path / 'r.json', seed=0, steps=9
    )

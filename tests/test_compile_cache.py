"""The cache of compiled graphs: a warm start gives the numbers of a cold one, and nothing but the same graph is ever
read."""

import json
import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from diffdis_ms.config import Config
from diffdis_ms.runtime.compile_cache import ENTRY, entries, graph_key
from diffdis_ms.world import World
from tests.helpers import normal
from tests.workspace import command, msrun


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
        done = msrun(2, 8231 + attempt, logs, 'tests/cached_graphs.py', tmp_path / 'cache', 'ranks')
        assert done.returncode == 0, done.stdout + done.stderr
        for rank in range(2):
            found = json.loads((logs / f'worker_{rank}.log').read_text().rpartition('RESULT ')[2].splitlines()[0])
            assert found[0] == how
            np.testing.assert_allclose(found[2], expected, rtol=1e-6)
    assert len(entries(tmp_path / 'cache')) == 2


class Part(nn.Cell):
    def __init__(self, k=1.0, table=(1.0, 2.0), weight=0.0, name='weight'):
        super().__init__()
        self.k, self.table = k, Tensor(np.array(table, np.float32))
        self.weight = Parameter(Tensor(weight, ms.float32), name=name)
        self.norm = nn.LayerNorm((2,))

    def construct(self, x):
        return self.norm(x * self.k + self.table) + self.weight


def key(x=(2, 2), config=None, rank=0, **part):
    return graph_key(Part(**part), (normal(0, *x), None), config or Config(), World(rank, 2))


def changed(**fields):
    config = Config()
    for name, value in fields.items():
        node, _, leaf = name.rpartition('__')
        setattr(getattr(config, node) if node else config, leaf, value)
    return config


def test_the_key_holds_what_a_graph_depends_on():
    inputs, recomputed = normal(0, 2, 2), Part()
    recomputed.recompute()
    others = [
        key(k=2.0),
        key(table=(1.0, 3.0)),
        key(name='other'),
        key(x=(3, 2)),
        key(rank=1),
        key(config=changed(optimizer__learning_rate=2e-5)),
        key(config=changed(seed=1)),
        graph_key(Part().to_float(ms.float16), (inputs, None), Config(), 0, 2),
        graph_key(Part().set_train(), (inputs, None), Config(), 0, 2),
        graph_key(recomputed, (inputs, None), Config(), 0, 2),
        graph_key(Part(), (inputs.astype(ms.float16), None), Config(), 0, 2),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_the_key_holds_nothing_else():
    assert key() == key(weight=5.0) == key(config=changed(output_dir='elsewhere', resume='none'))


@pytest.mark.parametrize(
    'damage, reason',
    [(lambda e: e.update(mindspore='1.0'), 'another mindspore'), (lambda e: e.update(sources='0'), 'another sources')],
)
def test_stale_entries_are_told(tmp_path, damage, reason):
    from diffdis_ms.runtime.compile_cache import build_id

    entry = build_id()
    damage(entry)
    (tmp_path / 'abc').mkdir()
    (tmp_path / 'abc' / ENTRY).write_text(json.dumps(entry))
    (tmp_path / '.abc.host.1.tmp').mkdir()
    os.utime(tmp_path / 'abc', (1, 1))
    assert [(os.path.basename(e['path']), e['stale']) for e in entries(tmp_path)] == [
        ('.abc.host.1.tmp', 'not complete'),
        ('abc', f'made with {reason}'),
    ]

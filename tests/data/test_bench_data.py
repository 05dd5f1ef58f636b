"""tools/bench.py data, small: all contenders give the same pictures, and the report names them; processes measured."""

import ast

import numpy as np
import pytest
import webdataset

from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.errors import ConfigError
from tests.workspace import python
from tools.benchmarks import data
from tools.benchmarks.processes import run_python


@pytest.fixture
def small(monkeypatch):
    for name, value in (('COUNT', 24), ('SHARD', 12), ('SIZE', 32), ('BATCH', 4)):
        monkeypatch.setattr(data, name, value)


def test_contenders_do_the_same_work(small, tmp_path):
    data.write_tars(tmp_path / 'tars', 0)
    (tmp_path / 'tars' / 'summary.json').write_text('{"num_kept": 24}')
    tokenizer = train_tokenizer(data.WORDS, 570, tmp_path / 'tokenizer')
    results = []
    for make in (
        lambda: data.ours(tmp_path / 'tars', tokenizer, 1, 'threads'),
        lambda: data.plain(tmp_path / 'tars', tokenizer),
        lambda: data.peer(webdataset, tmp_path / 'tars', tokenizer),
    ):
        rows, batches = set(), make()
        for _ in range(6):
            pixels, ids = next(batches)
            rows |= {p.tobytes() + np.asarray(i, np.int32).tobytes() for p, i in zip(pixels, ids, strict=True)}
        batches.close()
        results.append(rows)
    assert len(results[0]) == 24 and results[0] == results[1] == results[2]


def test_report(small, tmp_path, monkeypatch):
    monkeypatch.setattr(data.os, 'cpu_count', lambda: 1)
    result = data.measure(tmp_path, 1, 0)
    text = '\n'.join(data.lines(result))
    assert 'ours, 1 processes' in text and 'ours is' in text and 'MindRecord' in text and not list(tmp_path.iterdir())
    assert all(m['images_per_second'] > 0 for m in result['medians'].values())


def test_a_process_is_measured_and_a_failure_quoted():
    code = "import sys, time; x = b'x' * (300 << 20); time.sleep(0.3); print(sys.argv[1]); print(2)"
    measure = f'from tools.benchmarks.processes import run_python; print(run_python("-c", {code!r}, "one"))'
    done = python('-c', measure)  # from a small process: Linux counts the memory of the one that starts another
    printed, figures = ast.literal_eval(done.stdout)
    assert printed == 'one\n2' and figures['seconds'] >= 0.3 and 300 <= figures['peak_mb'] < 400
    with pytest.raises(ConfigError, match='^-m no.such.module 3 failed with code 1: .*No module named'):
        run_python('-m', 'no.such.module', 3)
    with pytest.raises(ConfigError, match='code -9: killed: not enough memory'):
        run_python('-c', 'import os; os.kill(os.getpid(), 9)')

"""Who may import whom (CONTRIBUTING.md), read from the source."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORDS = {'errors', 'text_files', 'config', 'world', 'pixels'}  # what every room may say
DATA = {'data', 'data.sources', 'data.stream', 'data.benchmarks'}
BELOW_TRAINING = {*WORDS, 'finite', 'storage', 'data', 'data.sources', 'data.stream', 'diffusion', 'models', 'runtime'}
# room -> the rooms it may import besides itself; a file beside the packages (errors.py) is a room as well, and so is
# a file of a package that the table names (ascend/graphs.py)
ALLOWED = {
    'errors': set(),
    'text_files': {'errors'},
    'config': {'errors', 'text_files'},
    'world': {'errors'},
    'pixels': set(),
    'finite': {'errors'},
    'storage': WORDS,
    'diffusion': {'errors', 'config'},
    'models': {'errors', 'config', 'finite', 'pixels'},
    'data': WORDS,
    'data.sources': {*WORDS, 'data'},
    'data.stream': {*WORDS, 'storage', 'data', 'data.sources'},
    'data.benchmarks': {*WORDS, 'storage', 'data', 'data.sources'},
    'data.make': {*WORDS, 'storage', 'data', 'data.sources', 'data.stream'},
    'runtime': {*WORDS, 'storage', 'models'},
    'train': BELOW_TRAINING,
    'pipeline': {*BELOW_TRAINING, 'data.benchmarks'},
    'evaluate.metrics': {'errors', 'finite'},
    'evaluate': {*BELOW_TRAINING, 'data.benchmarks', 'pipeline', 'evaluate.metrics'},
    'evaluate.report': {*WORDS, 'storage', 'data', 'data.benchmarks', 'evaluate', 'evaluate.metrics'},
    'formers': {*BELOW_TRAINING, 'train'},
    'ascend': {*WORDS, 'data', 'runtime'},
    'ascend.simulated': {*WORDS, 'runtime', 'train', 'ascend'},
    'ascend.graphs': {*BELOW_TRAINING, 'train', 'ascend'},
    'ckpt_convert.configs': {*WORDS, 'storage', 'data'},
    'ckpt_convert': {
        *WORDS,
        'storage',
        'diffusion',
        'models',
        'data',
        'runtime',
        'pipeline',
        'evaluate',
        'ckpt_convert.configs',
    },
}


def modules():
    """{dotted name of a module: its file} of both packages."""
    found = {}
    for path in (*ROOT.glob('diffdis_ms/**/*.py'), *ROOT.glob('ckpt_convert/**/*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


MODULES = modules()


def imports(path):
    """What import statements anywhere in a file name; of `from a import b` also a.b, which may be a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f'{path}:{node.lineno}: a relative import'
            found.add(node.module)
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def rooms(path):
    """Rooms that a file imports."""
    found = set()
    for name in imports(path):
        if name == 'diffdis_ms.DiffDisPipeline':
            found.add('pipeline')
        elif name in MODULES and name not in ('diffdis_ms', 'ckpt_convert'):
            found.add(room(name))
    return found


def room(name):
    """Where a module is: its package, or itself where the table names it or it lies beside the packages."""
    inner = name.removeprefix('diffdis_ms.')
    package, _, leaf = inner.rpartition('.')
    return inner if MODULES[name].name == '__init__.py' or not package or inner in ALLOWED else package


def test_every_room_is_in_the_table():
    assert {room(name) for name in MODULES if name not in ('diffdis_ms',)} == set(ALLOWED)


def test_the_table_has_no_cycle():
    assert list(TopologicalSorter(ALLOWED).static_order())


@pytest.mark.parametrize('name', sorted(MODULES))
def test_modules_import_only_what_their_room_may(name):
    if name == 'diffdis_ms':  # gives DiffDisPipeline out
        return
    used = rooms(MODULES[name]) - {room(name)}
    assert used <= ALLOWED[room(name)], f'{name}: {used - ALLOWED[room(name)]}'


def test_torch_stays_out_of_all_but_comparisons():
    """What imports torch: the parity tests, `verify --forward` (when asked for) and the benchmarks' peer (a process of
    its own)."""
    allowed = {('ckpt_convert', 'forward.py'), ('tools', 'benchmarks', 'torch_side.py')}
    torch_side = {'torch', 'diffusers', 'torchvision', 'open_clip', 'torch_fidelity'}
    for path in ROOT.glob('**/*.py'):
        parts = path.relative_to(ROOT).parts
        if (
            parts[0] in ('diffdis_ms', 'ckpt_convert', 'tools', 'tests')
            and parts[:2] != ('tests', 'parity')
            and parts not in allowed
        ):
            assert not {name.split('.')[0] for name in imports(path)} & torch_side, path


def test_conversion_imports_neither_torch_nor_mindspore():
    """Nor transformers: each takes seconds, and a conversion needs none."""
    modules = (
        'ckpt_convert.convert, ckpt_convert.plan, ckpt_convert.vocabulary, ckpt_convert.verify, ckpt_convert.export,'
        ' diffdis_ms.storage.model_dir'
    )
    code = f"import sys, {modules}\nassert not {{'torch', 'diffusers', 'mindspore', 'transformers'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Who may import whom (CONTRIBUTING.md), read from the source."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {                                      # package below diffdis_ms -> what of diffdis_ms it may import
    'diffusion': {'config', 'diffusion'},
    'data': {'config', 'data', 'files', 'text_files'},
    'models': {'config', 'models'},
    'ascend': {'config', 'text_files', 'runtime', 'cli', 'ascend'},
    'train': {'config', 'text_files', 'data', 'models', 'diffusion', 'encoders', 'files', 'model_dir', 'compile_cache', 'train'},
    'evaluate': {'config', 'text_files', 'data', 'models', 'diffusion', 'encoders', 'files', 'finite', 'model_dir', 'evaluate'},
    'formers': {'config', 'text_files', 'data', 'models', 'train', 'model_dir', 'runtime', 'formers'},
}


def imports(path):
    """Modules named in import statements anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize('package', ALLOWED)
def test_packages_import_only_what_they_may(package):
    files = list((ROOT / 'diffdis_ms' / package).glob('**/*.py'))
    assert files
    for path in files:
        used = {name.split('.')[1] for name in imports(path) if name.startswith('diffdis_ms.')}
        assert used <= ALLOWED[package], f'{path}: {used - ALLOWED[package]}'


def test_torch_stays_out_of_all_but_comparisons():
    """What imports torch: the parity tests, `verify --forward` (when asked for) and the benchmarks' peer (a process of its own)."""
    allowed = {('ckpt_convert', 'forward.py'), ('tools', 'benchmarks', 'torch_side.py')}
    torch_side = {'torch', 'diffusers', 'torchvision', 'open_clip', 'torch_fidelity'}
    for path in ROOT.glob('**/*.py'):
        parts = path.relative_to(ROOT).parts
        if parts[0] in ('diffdis_ms', 'ckpt_convert', 'tools', 'tests') and parts[:2] != ('tests', 'parity') and parts not in allowed:
            assert not {name.split('.')[0] for name in imports(path)} & torch_side, path


def test_conversion_imports_neither_torch_nor_mindspore():
    """Nor transformers: each takes seconds, and a conversion needs none."""
    modules = 'ckpt_convert.convert, ckpt_convert.plan, ckpt_convert.vocabulary, ckpt_convert.verify, ckpt_convert.export, diffdis_ms.model_dir'
    code = f"import sys, {modules}\nassert not {{'torch', 'diffusers', 'mindspore', 'transformers'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Write the table of MindSpore's operators for Ascend, from the libraries of the installed wheel (x86-64).

diffdis_ms.ascend.coverage and tools/doctor.py check graphs against the table of the installed version,
diffdis_ms/ascend/mindspore_VERSION.json. A table is made once per MindSpore version and is valid on all machines. It
does not cover the release of CANN or the backend's rewriting. Needs pyelftools (pip install -e .[dev]).
"""

import argparse
import importlib.util
import json
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run
from diffdis_ms.storage.files import sha256, whole_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
EXAMPLE = """example:
  python tools/ascend_table.py --out diffdis_ms/ascend/mindspore_2_7_2.json
"""
KNOWN = ('MatMulExt', 'SiLU', 'FlashAttentionScore', 'FlashAttentionScoreGrad')  # operators that have aclnn kernels


def installed_lib():
    """Find the directory of MindSpore's libraries, without importing MindSpore."""
    found = importlib.util.find_spec('mindspore')
    if found is None:
        raise ConfigError('MindSpore is not installed in this environment')
    return Path(found.submodule_search_locations[0]) / 'lib'


def make_table():
    """Make the table of the installed MindSpore: `wheel` (its origin), and the result of `read_registrations`.

    Raises:
        ConfigError: pyelftools or MindSpore is missing, or MindSpore's libraries differ in structure from those of
            2.7.2.
    """
    try:
        from tools.ascend.registrations import FILES, read_registrations
    except ModuleNotFoundError as e:
        if not e.name.startswith('elftools'):
            raise
        raise ConfigError('the libraries are read by pyelftools: pip install pyelftools') from None
    lib = installed_lib()
    found = read_registrations(lib)
    lost = [name for name in KNOWN if not found['aclnn'].get(name)]
    if lost:
        raise ConfigError(f'{lib}: {", ".join(lost)} cannot be found: its libraries differ from those of 2.7.2')
    source = {
        'name': 'mindspore',
        'version': metadata.version('mindspore'),
        'python': f'cp{sys.version_info.major}{sys.version_info.minor}',
        'platform': sysconfig.get_platform(),
        'sha256': {name: sha256(lib / name) for name in FILES},
    }
    return {
        'wheel': source,
        **{key: dict(sorted(v.items())) if isinstance(v, dict) else sorted(v) for key, v in found.items()},
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', required=True, type=Path, metavar='FILE', help='the JSON file to write')
    parser.add_argument('--seed', type=int, help='has no effect: nothing here is random')
    args = parser.parse_args()
    table = make_table()
    with whole_file(args.out) as file:
        file.write(json.dumps(table, indent=1).encode() + b'\n')
    counts = ', '.join(f'{len(table[key])} {key}' for key in table if key != 'wheel')
    print(f'{args.out}: mindspore {table["wheel"]["version"]}, {counts}')


if __name__ == '__main__':
    run(main)

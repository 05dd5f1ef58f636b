"""The map in CONTRIBUTING.md names every module of the packages, and nothing that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ('diffdis_ms', 'ckpt_convert')


def named(text):
    """Paths, as strings, of the map: the fenced block below the heading Map. Two blanks are one level."""
    block = re.search(r'^## Map\n.*?^```\n(.*?)^```$', text, re.M | re.S)[1]
    found, above = [], []
    for line in filter(str.strip, block.splitlines()):
        level, odd = divmod(len(line) - len(line.lstrip()), 2)
        name = line.split()[0]
        assert not odd and level <= len(above), f'indentation of {line!r}'
        assert len(line.split()) > 1 or name.endswith('/'), f'{line!r} does not say what it is for'
        above = [*above[:level], name.rstrip('/')]
        if not name.endswith('/'):
            above.pop()
            found.append('/'.join((*above, name)))
        else:
            found.append('/'.join(above) + '/')
    return found


def there():
    """Paths of the modules and tables in the packages, and of the folders that hold them. An __init__.py goes with
    its folder."""
    files = [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob('*')
        if path.suffix in ('.py', '.json', '.cc') and path.name != '__init__.py'
    ]
    return {f'{folder}/' for file in files for folder in file.parents if folder.name} | {str(file) for file in files}


def test_the_map_is_the_tree():
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    paths = named(text)
    assert len(paths) == len(set(paths)), 'a file is named twice'
    assert sorted(there() - set(paths)) == [], 'not in the map of CONTRIBUTING.md'
    assert sorted(set(paths) - there()) == [], 'in the map of CONTRIBUTING.md, but not there'


def test_paths_are_read_by_their_indentation():
    text = '## Map\nwords\n```\na/   what\n  b.py  what\n  c/\n    d.py what\ne.json what\n```\n'
    assert named(text) == ['a/', 'a/b.py', 'a/c/', 'a/c/d.py', 'e.json']


@pytest.mark.parametrize('line', ['b.py', '   b.py what', '        b.py what'])
def test_a_line_that_cannot_be_read_is_named(line):
    with pytest.raises(AssertionError, match='b.py'):
        named(f'## Map\n```\na/ what\n{line}\n```\n')

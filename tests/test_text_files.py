"""The one reader of text and JSON: encodings by their mark, newlines only, one clear line for what is damaged."""

import pytest

from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import lines_of, read_json, read_lines, read_text


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_encodings_are_told_by_their_mark(tmp_path, encoding):
    (tmp_path / 'a.txt').write_bytes('un café\nzwei\n'.encode(encoding))
    assert read_lines(tmp_path / 'a.txt') == ['un café', 'zwei']


def test_big_endian_utf16_with_a_mark(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xfe\xff' + 'café'.encode('utf-16-be'))
    assert read_text(tmp_path / 'a.txt') == 'café'


@pytest.mark.parametrize('data', ['café'.encode('latin-1'), 'cat'.encode('utf-16-le'), b'\x89PNG\r\n\x1a\n\0'])
def test_what_is_not_text_is_one_line_that_names_the_file(tmp_path, data):
    (tmp_path / 'a.txt').write_bytes(data)
    with pytest.raises(ConfigError, match='a.txt.*UTF-8') as error:
        read_text(tmp_path / 'a.txt')
    assert '\n' not in str(error.value)


def test_only_newlines_end_a_line():
    assert lines_of('a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\r\nh\ri\n\nj') == [
        'a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g',
        'h',
        'i',
        '',
        'j',
    ]
    assert lines_of('') == [] and lines_of('\n') == ['']


@pytest.mark.parametrize(
    'text, message',
    [('{"a": 1', 'damaged'), ('[1]', 'object'), ('{"a": 1, "a": 2}', 'twice'), ('[' * 100000, 'nested')],
)
def test_damaged_json_is_one_line(tmp_path, text, message):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ConfigError, match=f'a.json.*{message}'):
        read_json(tmp_path / 'a.json')


def test_missing_directory_and_too_large(tmp_path):
    with pytest.raises(ConfigError, match='none.json does not exist'):
        read_json(tmp_path / 'none.json')
    with pytest.raises(ConfigError, match='cannot be read'):
        read_json(tmp_path)
    (tmp_path / 'large.json').write_text('{"a": "' + 'x' * 100 + '"}')
    with pytest.raises(ConfigError, match='more than 50 bytes'):
        read_json(tmp_path / 'large.json', limit=50)

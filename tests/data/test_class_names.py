"""Labels and templates from text, lists and CLIP_benchmark's JSON."""
import json

import pytest

from diffdis_ms.config import ConfigError
from diffdis_ms.data.class_names import TEMPLATES, read_labels, read_templates


def test_labels_from_text_and_files(tmp_path):
    (tmp_path / 'a.txt').write_text('cat\n sea lion \n\n', encoding='utf-8')
    (tmp_path / 'a.json').write_text(json.dumps(['cat', 'sea lion']))
    (tmp_path / 'b.json').write_text(json.dumps({'pets': ['cat', 'sea lion'], 'other': ['x']}))
    for source, dataset in (('cat, sea lion', None), (tmp_path / 'a.txt', None), (str(tmp_path / 'a.json'), None),
                            (tmp_path / 'b.json', 'pets')):
        assert read_labels(source, dataset) == ['cat', 'sea lion']


def test_label_mistakes_are_named(tmp_path):
    (tmp_path / 'b.json').write_text(json.dumps({'pets': ['cat'], 'other': [3]}))
    (tmp_path / 'bad.json').write_text('[')
    (tmp_path / 'empty.txt').write_text('\n')
    for source, dataset, match in (('', None, 'no name'), ('cat,,dog', None, '2 of 3 is empty'),
                                   ('cat,dog,cat', None, "'cat' is given twice"),
                                   ('none.txt', None, 'does not exist'), (tmp_path / 'b.json', None, 'name one: other, pets'),
                                   (tmp_path / 'b.json', 'food', "'food'.*other, pets"), (tmp_path / 'b.json', 'other', 'list of strings'),
                                   (tmp_path / 'bad.json', None, 'cannot be read'), (tmp_path / 'empty.txt', None, 'no name')):
        with pytest.raises(ConfigError, match=match) as error:
            read_labels(source, dataset)
        assert '\n' not in str(error.value)


def test_templates(tmp_path):
    assert read_templates('plain') == ['{}'] and read_templates('photo') == ['a photo of a {}.']
    assert len(read_templates('openai')) == len(set(TEMPLATES['openai'])) == 80
    assert read_templates('an emoji of {}') == ['an emoji of {}']
    (tmp_path / 't.txt').write_text('a {}\nthe {}\n')
    (tmp_path / 't.json').write_text(json.dumps({'pets': ['a {c}', 'the {c}']}))
    assert read_templates(tmp_path / 't.txt') == read_templates(tmp_path / 't.json', 'pets') == ['a {}', 'the {}']
    for text, match in (('imagenet', 'plain, photo, openai'), ('a {name}', 'no other brace')):
        with pytest.raises(ConfigError, match=match):
            read_templates(text)
    (tmp_path / 't.txt').write_text('a {}\nthe thing\n')
    with pytest.raises(ConfigError, match="'the thing' needs"):
        read_templates(tmp_path / 't.txt')

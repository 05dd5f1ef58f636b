"""Tokenizer files that transformers reads, and ids in CLIP's layout."""

import json

import numpy as np
import pytest

from diffdis_ms.data import tokenizer as tokenizer_module
from diffdis_ms.data.tokenizer import LongTexts, Tokenizer, clean, train_tokenizer
from diffdis_ms.errors import ConfigError

ANIMALS = ['fox', 'walrus', 'otter', 'badger', 'heron', 'pelican', 'tortoise', 'salamander']
CAPTIONS = [
    f'a {tone} {animal} in the {place}'
    for tone in ('red', 'medium-dark', 'yellow')
    for animal in ANIMALS
    for place in ('garden', 'river', 'mountains')
]
FILES = {'vocab.json', 'merges.txt', 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer')
    train_tokenizer(CAPTIONS, 560, path)
    return path


def test_files_are_complete_and_the_same_whenever_trained(directory, tmp_path):
    train_tokenizer(reversed(CAPTIONS), 560, tmp_path)
    assert {p.name for p in directory.iterdir()} == FILES
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


def test_special_tokens_have_the_highest_ids(directory):
    vocab = json.loads((directory / 'vocab.json').read_text(encoding='utf-8'))
    assert sorted(vocab.values()) == list(range(560))
    assert vocab['<|startoftext|>'] == 558 and vocab['<|endoftext|>'] == 559
    assert Tokenizer.load(directory).vocab_size == 560


def test_both_of_transformers_tokenizers_give_our_ids(directory):
    from transformers import CLIPTokenizer, CLIPTokenizerFast

    texts = CAPTIONS[::7] + ['It\'s 12 o\'clock, SÃO TOMÉ!', '', '\U0001f98a  zebra\n\tquartz']
    ours = Tokenizer.load(directory).encode(texts, 77)
    for kind in (CLIPTokenizer, CLIPTokenizerFast):
        theirs = kind.from_pretrained(str(directory))(texts, padding='max_length', max_length=77, truncation=True)[
            'input_ids'
        ]
        np.testing.assert_array_equal(ours, theirs)


def test_rows_start_end_and_are_padded_with_the_end_token(directory):
    tokenizer = Tokenizer.load(directory)
    ids = tokenizer.encode(['', 'a fox', 'a fox ' * 50], 10)
    assert ids.dtype == np.int32 and ids.shape == (3, 10)
    assert (ids[:, 0] == 558).all() and (ids[:, -1] == 559).all()
    assert (ids[0, 1:] == 559).all()
    assert (ids[2, 1:-1] < 558).all()  # cut, with its end token kept
    assert ids[1].argmax() < 9 and tokenizer.encode([], 10).shape == (0, 10)


def test_letters_never_seen_still_have_ids(directory):
    tokenizer = Tokenizer.load(directory)
    a, b = tokenizer.encode(['ж', 'щ'], 8)
    assert (a != b).any() and a[1] != tokenizer.end_id


def test_saved_copy_gives_the_same_ids(directory, tmp_path):
    Tokenizer.load(directory).save(tmp_path)
    np.testing.assert_array_equal(
        Tokenizer.load(tmp_path).encode(CAPTIONS, 20), Tokenizer.load(directory).encode(CAPTIONS, 20)
    )


def test_vocab_and_merges_alone_suffice(directory, tmp_path):
    for name in ('vocab.json', 'merges.txt'):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    np.testing.assert_array_equal(
        Tokenizer.load(tmp_path).encode(CAPTIONS, 20), Tokenizer.load(directory).encode(CAPTIONS, 20)
    )


def test_mistakes_are_named(directory, tmp_path):
    with pytest.raises(ConfigError, match='does not exist'):
        Tokenizer.load(tmp_path / 'none')
    with pytest.raises(ConfigError, match='vocab.json'):
        Tokenizer.load(tmp_path)
    (tmp_path / 'vocab.json').write_text('{}')
    with pytest.raises(ConfigError, match='lacks merges.txt'):
        Tokenizer.load(tmp_path)
    (tmp_path / 'tokenizer.json').write_text('{"broken"')
    with pytest.raises(ConfigError, match='cannot be read'):
        Tokenizer.load(tmp_path)
    with pytest.raises(ConfigError, match='514'):
        train_tokenizer(CAPTIONS, 500, tmp_path / 'new')
    with pytest.raises(ConfigError, match='or less'):
        train_tokenizer(['a b'], 49408, tmp_path / 'new')
    with pytest.raises(ConfigError, match='length 1'):
        Tokenizer.load(directory).encode(['a'], 1)
    with pytest.raises(TypeError):
        Tokenizer.load(directory).encode('a fox', 10)


def test_padding_and_truncation_of_the_file_change_nothing(directory, tmp_path):
    expected = Tokenizer.load(directory).encode(['a fox', 'a red walrus in the garden', ''], 9)
    for k, (side, pad, cut) in enumerate((('Right', 0, False), ('Left', 5, True), ('Left', 0, True))):
        change = {
            'padding': {
                'strategy': {'Fixed': 20},
                'direction': side,
                'pad_to_multiple_of': None,
                'pad_id': pad,
                'pad_type_id': 0,
                'pad_token': '!',
            }
        }
        if cut:
            change['truncation'] = {'direction': side, 'max_length': 3, 'strategy': 'LongestFirst', 'stride': 0}
        folder = copy(directory, tmp_path / str(k))
        edit(folder / 'tokenizer.json', lambda c, change=change: c.update(change))
        np.testing.assert_array_equal(
            Tokenizer.load(folder).encode(['a fox', 'a red walrus in the garden', ''], 9), expected
        )


@pytest.mark.parametrize(
    'change, words',
    [
        (
            lambda c: c.update(
                normalizer={'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': 'StripAccents'}]}
            ),
            'normalizer .*StripAccents',
        ),
        (lambda c: c['pre_tokenizer']['pretokenizers'][0].update(pattern={'Regex': r'\S+'}), 'pre_tokenizer'),
        (
            lambda c: c['added_tokens'].append(
                {
                    'id': 560,
                    'content': '<cat-toy>',
                    'single_word': False,
                    'lstrip': False,
                    'rstrip': False,
                    'normalized': True,
                    'special': False,
                }
            ),
            "1 token was added.*'<cat-toy>'",
        ),
    ],
)
def test_other_rules_than_clips_are_refused(directory, tmp_path, change, words):
    folder = copy(directory, tmp_path / 'changed')
    edit(folder / 'tokenizer.json', change)
    with pytest.raises(ConfigError, match=words):
        Tokenizer.load(folder)


def copy(directory, folder):
    folder.mkdir()
    for file in directory.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def edit(path, change):
    content = json.loads(path.read_text(encoding='utf-8'))
    change(content)
    path.write_text(json.dumps(content), encoding='utf-8')


@pytest.mark.parametrize(
    'text, cleaned',
    [
        ('<b> Fish &amp; chips &lt; 5 &quot;x&quot;', '<b> fish & chips < 5 "x"'),
        ('a &amp;amp; b <c>', 'a & b <c>'),
        ('&amp;amp;lt;', '<'),
        ('caf&eacute;&nbsp; <3', 'café <3'),
        ('a <|endoftext|> &gt; b', 'a <|endoftext|> > b'),
        ('AT&T &copy', 'at&t ©'),
        ('', ''),
    ],
)
def test_cleaning_is_clips_own(text, cleaned):
    """html.unescape(html.unescape(ftfy.fix_text(text))): ftfy alone leaves entities where there is a `<`."""
    assert clean(text) == cleaned


def test_long_texts_are_counted_and_said_once(directory, monkeypatch, capsys):
    """At the end of the process, whatever the number of batches."""
    at_end = []
    monkeypatch.setattr(tokenizer_module, '_long_texts', LongTexts())
    monkeypatch.setattr(tokenizer_module.atexit, 'register', at_end.append)
    tokenizer = Tokenizer.load(directory)
    tokenizer.encode(['a'], 77)
    assert not at_end
    for batch in (['a fox ' * 9, 'a'], ['a ' * 9, ''], ['a', 'a fox ' * 9]):
        tokenizer.encode(batch, 10)
    assert capsys.readouterr().err == '' and len(at_end) == 1
    at_end[0]()
    assert capsys.readouterr().err == 'warning: 3 of 5 texts have more than 10 tokens and are truncated\n'

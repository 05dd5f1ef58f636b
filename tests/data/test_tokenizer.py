"""Tokenizer files that transformers reads, and ids in CLIP's layout."""
import json

import numpy as np
import pytest

from diffdis_ms.config import ConfigError
from diffdis_ms.data.tokenizer import Tokenizer, train_tokenizer

ANIMALS = ['fox', 'walrus', 'otter', 'badger', 'heron', 'pelican', 'tortoise', 'salamander']
CAPTIONS = [f'a {tone} {animal} in the {place}' for tone in ('red', 'medium-dark', 'yellow') for animal in ANIMALS
            for place in ('garden', 'river', 'mountains')]
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
        theirs = kind.from_pretrained(str(directory))(texts, padding='max_length', max_length=77, truncation=True)['input_ids']
        np.testing.assert_array_equal(ours, theirs)


def test_rows_start_end_and_are_padded_with_the_end_token(directory):
    tokenizer = Tokenizer.load(directory)
    ids = tokenizer.encode(['', 'a fox', 'a fox ' * 50], 10)
    assert ids.dtype == np.int32 and ids.shape == (3, 10)
    assert (ids[:, 0] == 558).all() and (ids[:, -1] == 559).all()
    assert (ids[0, 1:] == 559).all()
    assert (ids[2, 1:-1] < 558).all()            # cut, with its end token kept
    assert ids[1].argmax() < 9 and tokenizer.encode([], 10).shape == (0, 10)


def test_letters_never_seen_still_have_ids(directory):
    tokenizer = Tokenizer.load(directory)
    a, b = tokenizer.encode(['ж', 'щ'], 8)
    assert (a != b).any() and a[1] != tokenizer.end_id


def test_saved_copy_gives_the_same_ids(directory, tmp_path):
    Tokenizer.load(directory).save(tmp_path)
    np.testing.assert_array_equal(Tokenizer.load(tmp_path).encode(CAPTIONS, 20), Tokenizer.load(directory).encode(CAPTIONS, 20))


def test_vocab_and_merges_alone_suffice(directory, tmp_path):
    for name in ('vocab.json', 'merges.txt'):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    np.testing.assert_array_equal(Tokenizer.load(tmp_path).encode(CAPTIONS, 20), Tokenizer.load(directory).encode(CAPTIONS, 20))


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

"""A tokenizer that is not CLIP's, or not only CLIP's, is refused in true words when it is converted."""

import json

import pytest

from ckpt_convert.configs.tokenizer import check_tokenizer
from diffdis_ms.data.tokenizer import END, START, Tokenizer
from diffdis_ms.errors import CheckpointError
from tests.ckpt_convert.clips import WORDS, write, write_vocabulary

# what Hugging Face's copies of OpenAI's CLIP have
OPENAI = {
    'unk_token': {
        'content': END,
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': True,
        '__type': 'AddedToken',
    },
    'bos_token': {'content': START, '__type': 'AddedToken'},
    'eos_token': {'content': END},
    'pad_token': END,
    'add_prefix_space': False,
    'errors': 'replace',
    'do_lower_case': True,
    'name_or_path': './clip_ViT_L_14/',
    'model_max_length': 77,
    'tokenizer_class': 'CLIPTokenizer',
    'special_tokens_map_file': './special_tokens_map.json',
    'clean_up_tokenization_spaces': True,
    'padding_side': 'left',
    'truncation_side': 'left',
    'added_tokens_decoder': {str(WORDS - 1): {'content': END, 'special': True}},
}


@pytest.fixture()
def folder(tmp_path):
    write_vocabulary([(chr(97 + i), 'z') for i in range(WORDS - 514)], tmp_path)
    return tmp_path


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A tokenizer.json, as text."""
    folder = tmp_path_factory.mktemp('whole')
    write_vocabulary([(chr(97 + i), 'z') for i in range(WORDS - 514)], folder)
    Tokenizer.load(folder).save(folder)
    assert check_tokenizer(folder) == WORDS
    return (folder / 'tokenizer.json').read_text(encoding='utf-8')


def test_openai_files(folder):
    write(folder / 'tokenizer_config.json', OPENAI)
    write(
        folder / 'special_tokens_map.json',
        {key: OPENAI[key] for key in ('bos_token', 'eos_token', 'unk_token', 'pad_token')},
    )
    assert check_tokenizer(folder, pads_with_end=True) == WORDS


@pytest.mark.parametrize(
    'name, content, words',
    [
        ('added_tokens.json', {'<cat-toy>': WORDS}, "1 token was added.*'<cat-toy>'"),
        ('added_tokens.json', {'<a>': WORDS, '<b>': WORDS + 1, START: WORDS - 2}, '2 tokens were added'),
        (
            'tokenizer_config.json',
            {**OPENAI, 'added_tokens_decoder': {str(WORDS + k): {'content': f'<s{k}>'} for k in range(5)}},
            '5 tokens were added.*, ...',
        ),
        ('special_tokens_map.json', {'additional_special_tokens': ['<style>']}, "'<style>'"),
        ('special_tokens_map.json', {'pad_token': '[PAD]'}, r"\[PAD\]"),
        ('tokenizer_config.json', {**OPENAI, 'tokenizer_class': 'T5Tokenizer'}, 'tokenizer_class.*T5Tokenizer'),
        ('tokenizer_config.json', {**OPENAI, 'do_lower_case': False}, 'do_lower_case'),
        ('tokenizer_config.json', {**OPENAI, 'bos_token': '<s>'}, "bos_token = '<s>'"),
        ('tokenizer_config.json', {**OPENAI, 'surprise': 1}, 'surprise'),
        ('tokenizer_config.json', ['x'], 'tokenizer_config.json holds list'),
        ('vocab.json', {START: 1, END: 0}, 'has id 1'),
    ],
)
def test_others_are_named(folder, name, content, words):
    write(folder / name, content)
    with pytest.raises(CheckpointError, match=words):
        check_tokenizer(folder)


def test_padding_with_another_token_matters_to_c(folder):
    write(folder / 'tokenizer_config.json', {**OPENAI, 'pad_token': '!'})
    assert check_tokenizer(folder) == WORDS  # a CLIP's e does not see what follows the end token
    with pytest.raises(CheckpointError, match="pad_token = '!'"):
        check_tokenizer(folder, pads_with_end=True)


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda c: c['model'].update(dropout=0.1), 'dropout'),
        (lambda c: c['model'].update(type='WordPiece'), 'WordPiece'),
        (lambda c: c['model'].update(end_of_word_suffix=''), 'end_of_word_suffix'),
        (lambda c: c['model']['vocab'].pop('a'), 'different vocabularies'),
        (lambda c: c.update(normalizer={'type': 'BertNormalizer'}), 'BertNormalizer'),
        (lambda c: c.update(pre_tokenizer={'type': 'Whitespace'}), 'Whitespace'),
        (lambda c: c.update(model=None), 'no vocabulary'),
        (lambda c: c['added_tokens'].append({'id': WORDS, 'content': '<toy>'}), "1 token was added.*'<toy>'"),
    ],
)
def test_tokenizer_json(folder, whole, change, words):
    content = json.loads(whole)
    content['padding'] = {
        'strategy': 'BatchLongest',
        'direction': 'Left',
        'pad_id': 0,
        'pad_type_id': 0,
        'pad_token': '!',
    }
    write(folder / 'tokenizer.json', content)
    assert check_tokenizer(folder) == WORDS
    change(content)
    write(folder / 'tokenizer.json', content)
    with pytest.raises(CheckpointError, match=words):
        check_tokenizer(folder)

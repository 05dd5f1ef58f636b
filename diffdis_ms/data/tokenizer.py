"""CLIP's tokenizer: loaded from Hugging Face files, or trained on the captions at hand in the same file format."""

import atexit
import html
import json
import multiprocessing
import sys
import tempfile
import threading
from pathlib import Path

import ftfy
import numpy as np

from diffdis_ms.errors import ConfigError

START, END = '<|startoftext|>', '<|endoftext|>'
NUM_FIXED = 514  # 256 bytes, the same at a word's end, start and end token

_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_SPLITS = (_WORDS, r'<\|startoftext\|>|<\|endoftext\|>|' + _WORDS)  # both spellings that there are of CLIP's


class Tokenizer:
    """Texts to token ids. The end token has the highest id: CLIP's pooling finds it by argmax."""

    def __init__(self, fast):
        """`fast`: a transformers.CLIPTokenizerFast; see `load`."""
        self._fast = fast
        self.start_id, self.end_id = fast.bos_token_id, fast.eos_token_id
        if (fast.bos_token, fast.eos_token) != (START, END):
            raise ConfigError(
                f'tokenizer: its start and end tokens are {fast.bos_token} and {fast.eos_token}, CLIP\'s {START} and'
                f' {END}'
            )
        backend = fast.backend_tokenizer
        backend.no_padding()  # tokenizer.json may switch either on; `encode` does both, as CLIP does
        backend.no_truncation()
        steps = (backend.normalizer, backend.pre_tokenizer)
        normalizer, pre_tokenizer = (json.loads(step.__getstate__()) if step else None for step in steps)
        check_rules(normalizer, pre_tokenizer, 'tokenizer')
        added = [
            token for token, i in sorted(fast.get_added_vocab().items(), key=lambda item: item[1]) if i > self.end_id
        ]
        if added:
            raise ConfigError(added_tokens('tokenizer', added))
        if self.end_id != self.vocab_size - 1:
            raise ConfigError(
                f'tokenizer: {END} has id {self.end_id}, not the highest one ({self.vocab_size - 1}); CLIP needs that'
            )

    @classmethod
    def load(cls, directory):
        """Read a tokenizer directory; nothing is downloaded.

        Args:
            directory: holds `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Raises:
            ConfigError: directory or files missing (the one expected is named), or unreadable.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise ConfigError(f'tokenizer directory {directory} does not exist')
        if not (directory / 'tokenizer.json').is_file():
            for name in ('vocab.json', 'merges.txt'):
                if not (directory / name).is_file():
                    raise ConfigError(
                        f'tokenizer directory {directory} lacks {name} '
                        '(expected: tokenizer.json, or vocab.json and merges.txt)'
                    )
        from transformers import CLIPTokenizerFast

        try:
            fast = CLIPTokenizerFast.from_pretrained(str(directory), local_files_only=True)
        except Exception as e:  # the tokenizers library raises bare Exception for broken files
            raise ConfigError(f'tokenizer directory {directory} cannot be read: {" ".join(str(e).split())}') from None
        return cls(fast)

    @property
    def vocab_size(self):
        """Number of ids, start and end token included."""
        return len(self._fast)

    def encode(self, texts, length):
        """Token ids of a batch, those of transformers' CLIPTokenizer.

        Args:
            texts: list of N strings.
            length: tokens a row, start and end token included (CLIP: 77).

        Returns:
            int32 (N, length): start token, ids, end token, then end tokens as padding; a long text is cut before its
            end token, and how many were is said on stderr when the process ends.

        Raises:
            ConfigError: length below 2.
            TypeError: one string instead of a list.
        """
        if isinstance(texts, str):
            raise TypeError('texts must be a list of strings')
        if length < 2:
            raise ConfigError(f'token length {length} leaves no room for the start and the end token')
        ids = np.full((len(texts), length), self.end_id, np.int32)
        ids[:, 0] = self.start_id
        cut = 0
        for row, encoding in zip(
            ids,
            self._fast.backend_tokenizer.encode_batch([clean(t) for t in texts], add_special_tokens=False),
            strict=True,
        ):
            tokens = encoding.ids[: length - 2]
            row[1 : 1 + len(tokens)] = tokens
            cut += len(tokens) < len(encoding.ids)
        _long_texts.count(sum(map(bool, texts)), cut, length)
        return ids

    def save(self, directory):
        """Write the Hugging Face files (vocab.json, merges.txt, tokenizer.json and their two configs)."""
        self._fast.save_pretrained(str(directory))


class LongTexts:
    """Texts longer than a text encoder takes, counted in this process and said once, at its end."""

    def __init__(self):
        self.texts, self.cut, self._lock = {}, {}, threading.Lock()

    def count(self, texts, cut, length):
        """Another `texts` texts were made `length` ids long, `cut` of them by cutting."""
        with self._lock:
            first = cut and not self.cut
            self.texts[length] = self.texts.get(length, 0) + texts
            if cut:
                self.cut[length] = self.cut.get(length, 0) + cut
        if first and multiprocessing.parent_process() is None:
            atexit.register(self.say)
        elif first:  # a worker ends silently
            print(f'warning: some texts have more than {length} tokens; their end is cut off', file=sys.stderr)

    def say(self):
        """Print a line for each length: how many of how many texts were cut."""
        for length, cut in self.cut.items():
            print(
                f'warning: {cut:,} of {self.texts[length]:,} texts have more than {length} tokens; their end is'
                ' cut off',
                file=sys.stderr,
            )


_long_texts = LongTexts()


def check_rules(normalizer, pre_tokenizer, where):
    """ConfigError where a tokenizer.json cleans or splits texts in another way than CLIP.

    Args:
        normalizer, pre_tokenizer: of the file, as JSON. where: for the message.
    """
    steps = _steps(normalizer, 'normalizers')
    for step in steps:
        spaces = (
            step.get('type') == 'Replace' and step.get('pattern') == {'Regex': r'\s+'} and step.get('content') == ' '
        )
        if step.get('type') not in ('NFC', 'Lowercase') and not spaces:
            raise ConfigError(f'{where}: normalizer {json.dumps(step)[:120]} is not CLIP\'s')
    split, letters = [*_steps(pre_tokenizer, 'pretokenizers'), {}, {}][:2]
    if (
        len(_steps(pre_tokenizer, 'pretokenizers')) != 2
        or split.get('type') != 'Split'
        or letters.get('type') != 'ByteLevel'
        or split.get('pattern') not in [{'Regex': words} for words in _SPLITS]
        or str(split.get('behavior')).lower() != 'removed'
        or split.get('invert') is not True
        or letters.get('add_prefix_space', False)
    ):
        raise ConfigError(f'{where}: pre_tokenizer {json.dumps(pre_tokenizer)[:120]} is not CLIP\'s')


def _steps(node, name):
    """The steps of a section of tokenizer.json: those of a Sequence, the one that it is, or none."""
    if not isinstance(node, dict):
        return []
    return (
        [step for step in node.get(name) or [] if isinstance(step, dict)] if node.get('type') == 'Sequence' else [node]
    )


def added_tokens(where, tokens):
    """The message for tokens behind CLIP's own, a list of strings."""
    some = ', '.join(repr(token[:40]) for token in tokens[:3]) + (', ...' if len(tokens) > 3 else '')
    return (
        f'{where}: {len(tokens)} token{"s were" if len(tokens) > 1 else " was"} added to CLIP\'s vocabulary ({some}),'
        f' as textual inversion does; CLIP needs {END} to have the highest id, so that a model with added tokens cannot'
        ' be used'
    )


def clean(text):
    """CLIP's cleaning of a text: broken Unicode mended, HTML entities resolved (twice), white space joined, lower case.

    The fast tokenizer of transformers leaves out the first two, and Greek's final sigma; ftfy alone leaves entities
    where the text holds a `<`.
    """
    return ' '.join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


def write_vocabulary(merges, directory):
    """Write CLIP's tokenizer of a list of merges (left, right), most frequent first, as Hugging Face files: NUM_FIXED +
    len(merges) ids."""
    letters = _byte_letters()
    vocab = letters + [c + '</w>' for c in letters] + [a + b for a, b in merges] + [START, END]
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'vocab.json').write_text(
        json.dumps({token: i for i, token in enumerate(vocab)}, ensure_ascii=False), encoding='utf-8'
    )
    (directory / 'merges.txt').write_text(
        '\n'.join(['#version: 0.2'] + [f'{a} {b}' for a, b in merges]) + '\n', encoding='utf-8'
    )
    config = {
        'tokenizer_class': 'CLIPTokenizer',
        'model_max_length': 77,
        'bos_token': START,
        'eos_token': END,
        'unk_token': END,
        'pad_token': END,
    }
    (directory / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')


def train_tokenizer(captions, vocab_size, directory):
    """Train CLIP's byte-level BPE on captions and save it as Hugging Face files; the same captions give the same files.

    Args:
        captions: iterable of strings.
        vocab_size: number of ids, from 514 (no merges) up; the start token becomes vocab_size - 2, the end token
            vocab_size - 1.
        directory: written.

    Returns:
        Tokenizer.

    Raises:
        ConfigError: vocab_size too small, or larger than the captions have merges for.
    """
    if vocab_size < NUM_FIXED:
        raise ConfigError(f'vocab_size: {vocab_size} is below {NUM_FIXED}, the bytes and the two special tokens')
    num_merges = vocab_size - NUM_FIXED
    letters = _byte_letters()
    symbols = letters + [c + '</w>' for c in letters]
    merges = _merges(captions, symbols, vocab_size)[:num_merges]
    if len(merges) < num_merges:
        raise ConfigError(
            f'vocab_size: the captions give {len(merges)} merges, {vocab_size} needs {num_merges}; '
            f'use {NUM_FIXED + len(merges)} or less'
        )
    with tempfile.TemporaryDirectory() as temp:
        write_vocabulary(merges, temp)
        tokenizer = Tokenizer.load(temp)
    tokenizer.save(directory)
    return tokenizer


def _merges(captions, symbols, vocab_size):
    """BPE merges, most frequent pair first, as list of (left, right)."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE(end_of_word_suffix='</w>', continuing_subword_prefix=''))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), 'removed', invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # As special tokens the symbols get fixed ids; left to itself the trainer numbers those at a word's end in the
    # random order of its hash map, and ties between pairs are broken by these numbers.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        end_of_word_suffix='</w>',
        continuing_subword_prefix='',
        special_tokens=symbols,
        show_progress=False,
    )
    backend.train_from_iterator(map(clean, captions), trainer)
    merges = json.loads(backend.to_str())['model']['merges']
    return [tuple(m.split(' ')) if isinstance(m, str) else tuple(m) for m in merges]


def _byte_letters():
    """GPT-2's printable letter for each byte, in CLIP's order: printable bytes first, then the others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]

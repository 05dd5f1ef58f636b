"""CLIP's tokenizer: load it from Hugging Face files, or train one on captions in the same file format."""

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
NUM_FIXED = 514  # 256 bytes, 256 bytes at the end of a word, start and end token

_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_SPLITS = (_WORDS, r'<\|startoftext\|>|<\|endoftext\|>|' + _WORDS)  # the two spellings of CLIP's pattern


class Tokenizer:
    """Convert texts to token ids. The end token has the highest id, because CLIP's pooling finds it by argmax."""

    def __init__(self, fast):
        """Args: fast: a transformers.CLIPTokenizerFast; see `load`."""
        self._fast = fast
        self.start_id, self.end_id = fast.bos_token_id, fast.eos_token_id
        if (fast.bos_token, fast.eos_token) != (START, END):
            raise ConfigError(
                f'tokenizer: its start and end tokens are {fast.bos_token} and {fast.eos_token}, CLIP\'s {START} and'
                f' {END}'
            )
        backend = fast.backend_tokenizer
        backend.no_padding()  # tokenizer.json may enable padding or truncation; `encode` does both, as CLIP does
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
            directory: contains `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Raises:
            ConfigError: the directory or a file is missing (the message names the expected one) or unreadable.
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
        """Number of ids, including start and end token."""
        return len(self._fast)

    def encode(self, texts, length):
        """Encode a batch of texts; the ids are those of transformers' CLIPTokenizer.

        Args:
            texts: list of N strings.
            length: tokens per row, including start and end token (CLIP: 77).

        Returns:
            int32 (N, length): start token, ids, end token, then end tokens as padding. Long texts are truncated before
            the end token; their number is printed to stderr when the process ends.

        Raises:
            ConfigError: length is below 2.
            TypeError: `texts` is a string instead of a list.
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
    """Count texts that are too long for the text encoder, and report them once, at the end of the process."""

    def __init__(self):
        self.texts, self.cut, self._lock = {}, {}, threading.Lock()

    def count(self, texts, cut, length):
        """Count `texts` more texts of `length` ids, `cut` of them truncated."""
        with self._lock:
            first = cut and not self.cut
            self.texts[length] = self.texts.get(length, 0) + texts
            if cut:
                self.cut[length] = self.cut.get(length, 0) + cut
        if first and multiprocessing.parent_process() is None:
            atexit.register(self.say)
        elif first:  # a worker process prints nothing when it ends
            print(f'warning: some texts have more than {length} tokens and are truncated', file=sys.stderr)

    def say(self):
        """Print a line for each length: how many of how many texts were truncated."""
        for length, cut in self.cut.items():
            print(
                f'warning: {cut:,} of {self.texts[length]:,} texts have more than {length} tokens and are truncated',
                file=sys.stderr,
            )


_long_texts = LongTexts()


def check_rules(normalizer, pre_tokenizer, where):
    """Raise ConfigError if a tokenizer.json cleans or splits texts in another way than CLIP.

    Args:
        normalizer, pre_tokenizer: these sections of the file, as JSON. where: file name for the message.
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
    """List the steps of a section of tokenizer.json: those of a Sequence, a single step, or none."""
    if not isinstance(node, dict):
        return []
    return (
        [step for step in node.get(name) or [] if isinstance(step, dict)] if node.get('type') == 'Sequence' else [node]
    )


def added_tokens(where, tokens):
    """Make the message for `tokens` that were added after CLIP's own."""
    some = ', '.join(repr(token[:40]) for token in tokens[:3]) + (', ...' if len(tokens) > 3 else '')
    return (
        f'{where}: {len(tokens)} token{"s were" if len(tokens) > 1 else " was"} added to CLIP\'s vocabulary ({some}),'
        f' as textual inversion does; CLIP needs {END} to have the highest id, so that a model with added tokens cannot'
        ' be used'
    )


def clean(text):
    """Clean a text like CLIP: repair Unicode, resolve HTML entities (twice), join white space, lower case.

    The fast tokenizer of transformers skips the first two steps and Greek's final sigma. ftfy alone does not resolve
    entities if the text has a `<`.
    """
    return ' '.join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


def write_vocabulary(merges, directory):
    """Write a CLIP tokenizer as Hugging Face files, with NUM_FIXED + len(merges) ids.

    `merges` is a list of (left, right), most frequent first.
    """
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
        vocab_size: number of ids, at least 514 (no merges); the start token becomes vocab_size - 2, the end token
            vocab_size - 1.
        directory: output directory.

    Returns:
        Tokenizer.

    Raises:
        ConfigError: vocab_size is too small, or the captions do not have enough merges for it.
    """
    if vocab_size < NUM_FIXED:
        raise ConfigError(f'vocab_size: {vocab_size} is below {NUM_FIXED}, the number of byte and special tokens')
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
    """Compute BPE merges as a list of (left, right), most frequent pair first."""
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
    # As special tokens the symbols get fixed ids. Otherwise the trainer would number those at the end of words in the
    # random order of its hash map, and these numbers decide ties between pairs.
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
    """GPT-2's printable letter for each byte, in CLIP's order (printable bytes first, then the others)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]

"""The tokenizer of a model directory: copied from Hugging Face files, or converted from OpenAI's list of merges."""

import gzip
import shutil
import zlib
from pathlib import Path

from ckpt_convert.configs.tokenizer import check_tokenizer
from ckpt_convert.source import BPE, TOKENIZER_FILES
from diffdis_ms.data.tokenizer import NUM_FIXED, write_vocabulary
from diffdis_ms.errors import CheckpointError
from diffdis_ms.storage.tensors import short

MAX_TEXT = 64 << 20  # bytes of a list of merges, unpacked
WHERE = (
    f'give --vocab with {BPE} (github.com/openai/CLIP, folder clip/) or a Hugging Face tokenizer directory '
    '(vocab.json and merges.txt, for example of openai/clip-vit-large-patch14)'
)


class HuggingFaceFiles:
    """Tokenizer files in Hugging Face's format, which are copied unchanged."""

    def __init__(self, folder, pads_with_end=False):
        self.folder = Path(folder)
        if not any((self.folder / name).is_file() for name in ('vocab.json', 'tokenizer.json')):
            raise CheckpointError(f'{self.folder} is not a tokenizer directory; {WHERE}')
        self.vocab_size = check_tokenizer(self.folder, pads_with_end)

    def save(self, directory):
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, Path(directory) / name)


class Merges:
    """OpenAI's list of merges, which is written as Hugging Face files."""

    def __init__(self, path, vocab_size):
        self.merges, self.vocab_size = read_merges(path, vocab_size), vocab_size

    def save(self, directory):
        write_vocabulary(self.merges, directory)


def find_tokenizer(vocab, sources, vocab_size):
    """Find the tokenizer for a conversion.

    Args:
        vocab: path from the command line, or None. sources: Sources whose own tokenizer can be used, in this order.
        vocab_size: number of tokens of the text encoder.

    Returns:
        An object with `save(directory)`.

    Raises:
        CheckpointError: there is none (the message says where to get one), or it is unreadable or of another size.
    """
    path = vocab or next((s.tokenizer for s in sources if s is not None and s.tokenizer is not None), None)
    if path is None:
        raise CheckpointError(f'the checkpoint has no tokenizer: {WHERE}')
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f'{path} does not exist: {WHERE}')
    if path.is_dir():
        tokenizer = HuggingFaceFiles(
            path / 'tokenizer' if (path / 'tokenizer').is_dir() else path, sources != () and sources[0].kind == 'sd'
        )
    else:
        tokenizer = Merges(path, vocab_size)
    if tokenizer.vocab_size != vocab_size:
        raise CheckpointError(
            f'{path} has {tokenizer.vocab_size} tokens, the text encoder {vocab_size}: they do not belong together'
        )
    return tokenizer


def read_merges(path, vocab_size):
    """Read the first vocab_size - 514 merges of OpenAI's list, compressed or not.

    The list has a comment line, then one `left right` per line.
    """
    data = Path(path).read_bytes()
    try:
        if data[:2] == b'\x1f\x8b':
            with gzip.open(path) as f:
                data = f.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise ValueError(f'more than {MAX_TEXT >> 20} MB')
        lines = data.decode('utf-8').split('\n')[1 : 1 + vocab_size - NUM_FIXED]
        merges = [tuple(line.split()) for line in lines]
        if any(len(m) != 2 for m in merges) or len(merges) != vocab_size - NUM_FIXED:
            raise ValueError(f'not {vocab_size - NUM_FIXED} lines of two words')
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise CheckpointError(f'{path} is not a CLIP vocabulary ({short(str(e))}); {WHERE}') from None
    return merges

"""Files for runs whose results do not matter: a tokenizer of any size, pictures with captions."""

import csv

from PIL import Image

from diffdis_ms.data.tokenizer import NUM_FIXED, write_vocabulary


def write_tokenizer(folder, vocab_size):
    """Write a tokenizer of CLIP's kind; its merges are pairs of letters in a fixed order. Returns `folder`."""
    letters = (
        [chr(c) for c in range(0x21, 0x7F)]
        + [chr(c) for c in range(0xA1, 0x100) if c != 0xAD]
        + [chr(256 + i) for i in range(68)]
    )
    write_vocabulary([(a, b) for a in letters for b in letters][: vocab_size - NUM_FIXED], folder)
    return folder


def write_pairs(folder, count):
    """Write a data set of one grey picture, and its caption `count` times."""
    folder.mkdir(parents=True)
    Image.new('RGB', (64, 64), 'grey').save(folder / 'grey.png')
    with open(folder / 'pairs.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('dir', 'text'), *[('grey.png', 'a grey picture')] * count])

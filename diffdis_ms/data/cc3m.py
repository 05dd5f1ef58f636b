"""Conceptual Captions as it is published: a TSV `caption<TAB>url`, and a folder with what one of the usual tools has downloaded."""
import os
import re
import zlib
from pathlib import Path

import numpy as np

from diffdis_ms.config import ConfigError
from diffdis_ms.data.transforms import IMAGE_SUFFIXES
from diffdis_ms.data.samples import BadSample, Sample, checked_caption, read_image

DEPTH = 2                                        # folders below the image folder that are looked into
_NAME = re.compile(r'(\d{1,12})(?:_(\d{1,10}))?')


class Cc3mTsv:
    """Rows of a TSV with the images that have been downloaded for them; rows without one are no samples (links die), only counted.

    An image belongs to row N (from 0, the official file has no header; a first line `caption<TAB>url` is left out and not counted) if its
    name's number is N, in the folder or up to two folders below:
    - `00012/000123456.jpg`: img2dataset's `--output_format files` with its 10,000 images a folder;
    - `training/123456_2850374957`: DownloadConceptualCaptions; the second number is the crc32 of the url and must fit, so that validation
      and training images may lie in one place. Its files have no suffix;
    - `123456.jpg`, `00123456.jpg`: by row.

    Attributes:
        class_names: None. num_rows: lines of the TSV. files, folder: the TSV and the images, where the TSV lies.
    """
    class_names = None

    def __init__(self, path, images=None):
        """Args:
            path: the TSV, or a directory that holds one. images: folder of the images (None: that of the TSV).

        Raises:
            ConfigError: no TSV, or several; not lines of two columns; no such folder, or no image in it belongs to a row.
        """
        self.path = _find_tsv(Path(path))
        self.folder = self.path.absolute().parent
        self.images = Path(images) if images else self.folder
        if not self.images.is_dir():
            raise ConfigError(f'{self.images}: no such directory of images')
        self._text = np.memmap(self.path, np.uint8, 'r')
        ends = np.flatnonzero(self._text == 10)
        if self._text[-1] != 10:
            ends = np.append(ends, len(self._text))
        starts = np.concatenate([[0], ends[:-1] + 1])
        first = self._line(starts[0], ends[0])
        if b'\t' not in first:
            raise ConfigError(f'{self.path}: the first line is not caption<TAB>url')
        header = first.split(b'\t')[:2] == [b'caption', b'url']
        self._starts, self._ends = starts[header:], ends[header:]
        self.num_rows = len(self._starts)
        self._found = sorted(self._match().items())                              # [(row, path or None where there are several)]
        if not self._found:
            raise ConfigError(f'{self.images}: no image belongs to a row of {self.path.name}; expected names like 000000012.jpg (row 12, '
                              'counted from 0) or 12_CRC32-OF-URL')
        self.files = [self.path] + [Path(path) for _, path in self._found if path]

    def __len__(self):
        return len(self._found)

    def read(self, i):
        """Sample `i`; raises BadSample for a caption or image that cannot be used."""
        row, path = self._found[i]
        key = f'row {row}'
        caption, url = self._row(row)
        if path is None:
            raise BadSample(key, 'several images have its number')
        try:
            caption = checked_caption(key, caption.decode('utf-8'))
        except UnicodeDecodeError:
            raise BadSample(key, 'the caption is not UTF-8') from None
        path = Path(path)
        if not path.resolve().is_relative_to(self.images.resolve()):
            raise BadSample(key, 'the image is a link that leaves the folder')
        return Sample(key, read_image(path, key), caption, None, {'url': url.decode('utf-8', 'replace')})

    def _line(self, start, end):
        return self._text[start:end].tobytes().rstrip(b'\r')

    def _row(self, row):
        """(caption, url) as bytes; the url is b'' where there is none."""
        caption, _, url = self._line(self._starts[row], self._ends[row]).partition(b'\t')
        return caption, url.split(b'\t')[0].strip()

    def _match(self):
        """{row: path}; None where two images claim a row. One whose checksum fits goes before those without."""
        found, sure = {}, set()
        for path in _walk(self.images, DEPTH):
            stem, suffix = os.path.splitext(os.path.basename(path))
            match = _NAME.fullmatch(stem)
            if not match or suffix and suffix.lower() not in IMAGE_SUFFIXES or int(match[1]) >= self.num_rows:
                continue
            row, checksum = int(match[1]), match[2]
            if not suffix and not checksum:
                continue
            if checksum:
                if int(checksum) != zlib.crc32(self._row(row)[1]):
                    continue
                found[row] = None if row in sure else path
                sure.add(row)
            elif row not in sure:
                found[row] = None if row in found else path
        return found


def _find_tsv(path):
    files = sorted(path.glob('*.tsv')) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ConfigError(f'{path}: no tsv file there; expected lines caption<TAB>url')
    if len(files) > 1:
        raise ConfigError(f'{path} has several tsv files ({", ".join(f.name for f in files[:3])}); name one of them')
    if not files[0].stat().st_size:
        raise ConfigError(f'{files[0]} is empty; expected lines caption<TAB>url')
    return files[0]


def _walk(folder, depth):
    """Paths of files, sorted, as strings: there may be millions."""
    with os.scandir(folder) as entries:
        entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name[0] != '.')
    for name, is_folder in entries:
        if not is_folder:
            yield os.path.join(folder, name)
        elif depth:
            yield from _walk(os.path.join(folder, name), depth - 1)

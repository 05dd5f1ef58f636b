"""Conceptual Captions as published: a TSV `caption<TAB>url`, and a folder of images from a usual download tool."""

import os
import re
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffdis_ms.data.listing import is_hidden
from diffdis_ms.data.samples import Sample, checked_caption, read_image, visible_files
from diffdis_ms.data.sources.url_table import UrlTable
from diffdis_ms.data.transforms import IMAGE_SUFFIXES
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.text_files import parse_json, read_text

DEPTH = 2  # levels of folders below the image folder that are searched
_NAME = re.compile(r'(\d{1,12})(?:_(\d{1,10}))?')


class Cc3mTsv:
    """Rows of a TSV with their downloaded images. Rows without an image (dead links) are counted, but are no samples.

    Images are in the folder or up to two levels below. They are matched to rows as follows:
    - `00012/000123456.jpg` with a `.json` or `.txt` beside it (img2dataset's `--output_format files`): the row with
      this url, or with this caption. The number is not used, because it is the row's number only if a shard has 10,
      100, ... or 10,000 images.
    - `training/123456_2850374957` without suffix (DownloadConceptualCaptions): the row of the first number, counted
      from 0 without a header. The second number is the crc32 of the url and must match this row or one next to it. So
      validation and training images may be in the same folder.
    - `123456.jpg`, `00123456.jpg`: the row of this number. This is only a guess, so all such numbers must be row
      numbers.

    Attributes:
        class_names: None. num_rows: rows of the TSV. num_without_image: rows without an image. skipped: {image: reason
            why it has no row}.
        num_by_number: images that are matched only by their number. files: the TSV and the images. folder: the TSV's
            folder.
    """

    class_names = None

    def __init__(self, path, images=None, first_number=None):
        """Args:
            path: the TSV, or a directory with one. images: folder of the images (None: that of the TSV).
            first_number: number of the first row's image if image names are plain numbers, 0 or 1; None: 0, if all
                numbers agree with it.

        Raises:
            ConfigError: there is no TSV, or several; it is not a table of captions and urls; the image folder does not
                exist, or no image in it belongs to a row; image numbers are not row numbers; a file beside an image
                contradicts the TSV.
        """
        self.path = _find_tsv(Path(path))
        self.folder = self.path.absolute().parent
        self.images = Path(images) if images else self.folder
        if not self.images.is_dir():
            raise ConfigError(f'{self.images}: no such directory of images')
        self._table = UrlTable(self.path)
        self.num_rows, self.skipped, self.num_by_number = len(self._table), {}, 0
        # rows of urls and captions; an image whose sidecar file names another row than its number
        self._rows_of, self._other_number = {}, None
        # [(row, path, or None if there are several)]
        self._found = sorted(self._match(first_number).items())
        self._rows_of = {}
        if not self._found:
            why = ': '.join(next(iter(self.skipped.items()), ('it', 'has no image')))
            raise ConfigError(
                f'{self.images}: no image belongs to a row of {self.path.name} ({why}); expected names like '
                '000000012.jpg (row 12, '
                'counted from 0), 12_CRC32-OF-URL, or img2dataset\'s .json beside each image'
            )
        self.num_without_image = self.num_rows - len(self._found)
        self.files = [self.path] + [Path(path) for _, path in self._found if path]

    def __len__(self):
        return len(self._found)

    def read(self, i):
        """Read sample `i`; raises BadSample if its caption or image cannot be used."""
        row, path = self._found[i]
        key = f'row {row}'
        if path is None:
            raise BadSample(key, 'several images have its number')
        try:
            caption = checked_caption(key, self._table.caption(row).decode('utf-8'))
        except UnicodeDecodeError:
            raise BadSample(key, 'the caption is not UTF-8') from None
        path = Path(path)
        if not path.resolve().is_relative_to(self.images.resolve()):
            raise BadSample(key, 'the image is a link that leaves the folder')
        return Sample(
            key, read_image(path, key), caption, None, {'url': self._table.url(row).decode('utf-8', 'replace')}
        )

    def _match(self, first_number):
        """Match images to rows: {row: path}, with None if several images match a row.

        Sidecar files and checksums take precedence over plain numbers.
        """
        sure, guessed = {}, []
        for path, beside in tqdm(_walk(self.images, DEPTH), desc='images', disable=None, unit='', leave=False):
            stem, suffix = os.path.splitext(os.path.basename(path))
            match = _NAME.fullmatch(stem)
            if suffix and suffix.lower() not in IMAGE_SUFFIXES or not suffix and not (match and match[2]):
                continue
            sidecars = [f'{os.path.splitext(path)[0]}{s}' for s in ('.json', '.txt') if f'{stem}{s}' in beside]
            number: Any = int(match[1]) if match else None
            name = os.path.relpath(path, self.images)
            if sidecars:
                row = self._row_by_sidecars(name, sidecars, number, sure)
                if row is not None and number is not None and number != row:
                    self._other_number = name
            elif match and match[2]:
                # the tool counted a header, or numbered from 1
                near = (k for k in (number, number - 1, number + 1) if 0 <= k < self.num_rows)
                row = next((k for k in near if int(match[2]) == zlib.crc32(self._table.url(k))), None)
                if row is None:
                    self._skip(name, f'the checksum in its name does not match the url of row {number}')
            else:
                if match:
                    guessed.append((name, number, path))
                else:
                    self._skip(name, 'no number in its name and no .json or .txt beside it tells its row')
                continue
            if row is not None:
                sure[row] = None if row in sure else path
        found = self._by_number(guessed, first_number, sure)
        return {**found, **sure}

    def _by_number(self, guessed, first_number, sure):
        """Match images by their numbers: {row: path}; ConfigError if these cannot be row numbers."""
        if self._other_number and first_number is None:
            for name, _, _ in guessed:
                self._skip(
                    name,
                    f'its number does not tell its row: {self._other_number} belongs to a row of another number',
                )
            return {}
        first, found = first_number or 0, {}
        last = first + self.num_rows - 1
        beyond = [(name, number) for name, number, _ in guessed if not first <= number <= last]
        if beyond and first_number is None and len(beyond) < len(guessed):
            name, number = next((b for b in beyond if b[1] == self.num_rows), beyond[0])
            from_one = number == self.num_rows and all(1 <= n <= self.num_rows for _, n, _ in guessed)
            raise ConfigError(
                f'{self.images}: {name} has the number {number}, but {self.path.name} has the rows '
                f'0..{self.num_rows - 1}'
                + (
                    ': are the images numbered from 1? Then use --first-number 1'
                    if from_one
                    else (
                        ': image numbers are not row numbers here (img2dataset\'s keys are not); keep its '
                        '.json beside each '
                        'image, or use --first-number 0 if they are'
                    )
                )
                + '; with a wrong guess every image would get the caption of another'
            )
        for name, number, path in guessed:
            row = number - first
            if not 0 <= row < self.num_rows:
                self._skip(name, f'its number {number} is not a row of {self.path.name} ({first}..{last})')
            elif row not in sure:
                found[row] = None if row in found else path
                self.num_by_number += 1
            else:
                self._skip(name, f'row {row} has another image, which its .json, .txt or checksum confirms')
        if found and first_number is None and 0 not in found:
            print(
                f'warning: {self.images}: {len(found)} images are matched to rows only by their numbers, counted from '
                '0, and none has the number 0; '
                'if they are numbered from 1, use --first-number 1',
                file=sys.stderr,
            )
        return found

    def _row_by_sidecars(self, name, sidecars, number, taken):
        """Find the row whose url or caption is in a file beside an image; None if there is none (it is skipped)."""
        try:
            url, captions = _read_sidecars(name, sidecars)
        except BadSample as e:
            return self._skip(name, e.reason)
        if url is None and not captions:
            return self._skip(name, 'the file beside it has neither url nor caption')
        if len(set(captions)) > 1:
            raise ConfigError(
                f'{self.images / name}: the caption in its .txt is not that in its .json ({_cut(captions[0])} / '
                f'{_cut(captions[1])})'
            )
        caption = captions[0] if captions else None
        rows = self._rows('url', url) if url is not None else self._rows('caption', caption)
        if not rows:
            return self._skip(name, f'its {"url" if url is not None else "caption"} is in no row of {self.path.name}')
        same = [row for row in rows if caption is None or _plain(self._table.caption(row)) == caption]
        if not same:
            raise ConfigError(
                f'{self.images / name}: its .json or .txt has the caption {_cut(caption)}, but {self.path.name} '
                'gives its url the '
                f'caption {_cut(_plain(self._table.caption(rows[0])))}: do they belong to the same set?'
            )
        return number if number in same else next((row for row in same if row not in taken), same[0])

    def _rows(self, what, value):
        """Rows with a given url or caption."""
        if what not in self._rows_of:
            known = self._rows_of[what] = {}
            for row in range(self.num_rows):
                key = self._table.url(row) if what == 'url' else _plain(self._table.caption(row)).encode()
                known.setdefault(zlib.crc32(key), []).append(row)
        key = value.strip().encode() if what == 'url' else value.encode()
        rows = self._rows_of[what].get(zlib.crc32(key), ())
        return [
            row
            for row in rows
            if (self._table.url(row) if what == 'url' else _plain(self._table.caption(row)).encode()) == key
        ]

    def _skip(self, name, reason):
        self.skipped[name] = reason


def _read_sidecars(name, paths):
    """Read (url or None, list of captions) from the files beside an image; raises BadSample if one is unreadable."""
    url, captions = None, []
    for path in paths:
        text = read_text(path, partial(BadSample, name))
        if path.endswith('.txt'):
            captions.append(_plain(text))
            continue
        meta = parse_json(text, path, dict, partial(BadSample, name))
        url = meta['url'] if isinstance(meta.get('url'), str) else None
        captions += [_plain(meta[key]) for key in ('caption',) if isinstance(meta.get(key), str)]
    return url, [caption for caption in captions if caption]


def _plain(text):
    """Simplify a caption, str or bytes, for comparison: single spaces, no quotes.

    Some tools mistake quotes in captions for quotes of the table.
    """
    return ' '.join((text.decode('utf-8', 'replace') if isinstance(text, bytes) else text).replace('"', ' ').split())


def _cut(text):
    return repr(text if len(text) <= 60 else text[:60] + '...')


def _find_tsv(path):
    files = visible_files(path, '*.tsv') if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ConfigError(f'{path}: there is no tsv file; expected lines caption<TAB>url')
    if len(files) > 1:
        raise ConfigError(f'{path} has several tsv files ({", ".join(f.name for f in files[:3])}); name one of them')
    return files[0]


def _walk(folder, depth):
    """Yield (path, names beside it) for files, sorted, without hidden ones. Paths are strings to save memory."""
    with os.scandir(folder) as entries:
        entries = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if not is_hidden(entry.name)
        )
    beside = {name for name, is_folder in entries if not is_folder}
    for name, is_folder in entries:
        if not is_folder:
            yield os.path.join(folder, name), beside
        elif depth:
            yield from _walk(os.path.join(folder, name), depth - 1)

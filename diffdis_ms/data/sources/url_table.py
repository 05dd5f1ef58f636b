"""A text table of captions and urls (Conceptual Captions' TSV) with access by row. Rows stay on disk: there may be
millions."""

import csv
import io
import re
from typing import Any

import numpy as np

from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import MARKS

URL_NAMES = ('url', 'image_url', 'img_url', 'image url', 'imageurl', 'link', 'image')
CAPTION_NAMES = ('caption', 'text', 'txt', 'title', 'top_caption', 'alt', 'alt_text', 'description')
_URL = re.compile(rb'[A-Za-z][A-Za-z0-9+.-]*://\S+')
_NEWLINE, _QUOTE = 10, 34


class UrlTable:
    """Rows of a tab-separated file `caption<TAB>url`, without a header or with one in any spelling and order.

    Fields may be quoted as by pandas and csv ("a ""red"" fox", also with line breaks). Other quotes are part of the
    captions, as in the official file. Blank lines are not rows. The encoding is UTF-8, or UTF-16 with a byte order
    mark.

    Attributes:
        path: path of the file. header: list of the column names, or None.
    """

    def __init__(self, path):
        """Raises ConfigError if the file is empty, a row has no url in the url column, or the header does not name the
        columns."""
        self.path = path
        if not path.stat().st_size:
            raise ConfigError(f'{path} is empty; expected lines caption<TAB>url')
        self._text = np.memmap(path, np.uint8, 'r')
        mark, encoding = next(((m, e) for m, e in MARKS if bytes(self._text[:4]).startswith(m)), (b'', 'utf-8'))
        if encoding != 'utf-8':
            try:
                self._text = np.frombuffer(self._text.tobytes()[len(mark) :].decode(encoding).encode(), np.uint8)
            except UnicodeDecodeError:
                raise ConfigError(f'{path} is not {encoding.upper()} text; save it as UTF-8') from None
            mark = b''
        if (self._text[:65536] == 0).any():
            raise ConfigError(
                f'{path} holds NUL characters: it is binary, or UTF-16 without a byte order mark; save it as UTF-8'
            )
        self.quoted = False
        self._split(len(mark))
        self.quoted = self._is_quoted()
        if self.quoted:
            self._split(len(mark))
        if not len(self._starts):
            raise ConfigError(f'{path} has no row; expected lines caption<TAB>url')
        self._find_columns()
        content, column = self._text.tobytes(), self._url
        for row, (start, end) in enumerate(zip(self._starts.tolist(), self._ends.tolist(), strict=True)):
            fields = self._fields(content[start:end].rstrip(b'\r'))
            if len(fields) <= column or not _URL.fullmatch(fields[column].strip()):
                raise ConfigError(
                    f'{path}: row {row + 1} ({_shown(content[start:end])}) has no url in column {column + 1}: is a '
                    'caption with '
                    'a line break or a tab not quoted? Later rows would get wrong captions'
                )

    def __len__(self):
        return len(self._starts)

    def url(self, row):
        """Url of a row, as bytes; b'' if there is none."""
        fields = self._fields(self._record(row))
        return fields[self._url].strip() if len(fields) > self._url else b''

    def caption(self, row):
        """Caption of a row, as bytes, stripped."""
        fields = self._fields(self._record(row))
        return fields[self._caption].strip() if len(fields) > self._caption else b''

    def _split(self, first):
        """Find the start and end of each record: at every newline, or only at newlines outside quotes."""
        ends = np.flatnonzero(self._text == _NEWLINE)
        if self.quoted:
            quotes = np.flatnonzero(self._text == _QUOTE)
            ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        if not len(ends) or ends[-1] != len(self._text) - 1:
            ends = np.append(ends, len(self._text))
        starts = np.concatenate([[first], ends[:-1] + 1])
        blank = (ends <= starts) | ((ends == starts + 1) & (self._text[np.minimum(starts, len(self._text) - 1)] == 13))
        self._starts, self._ends = starts[~blank], ends[~blank]

    def _is_quoted(self):
        """Whether fields are quoted.

        This is the case if a field begins with a quote, and all fields that do also end with a quote and have no single
        quote inside.
        """
        count = np.count_nonzero(self._text == _QUOTE)
        if not count or count % 2:
            return False
        text = self._text.tobytes()
        opening = re.compile(rb'(?:^|(?<=[\t\n]))"[^"]*(?:""[^"]*)*"(?=[\t\r\n]|$)')
        rest = opening.sub(b'', text.lstrip(b'\xef\xbb\xbf'))
        return rest != text and not re.search(rb'(?:^|[\t\n])"', rest)

    def _record(self, row):
        return self._text[self._starts[row] : self._ends[row]].tobytes().rstrip(b'\r')

    def _fields(self, record):
        if not self.quoted or b'"' not in record:
            return record.split(b'\t')
        text = io.StringIO(record.decode('utf-8', 'surrogateescape'), newline='')
        return [field.encode('utf-8', 'surrogateescape') for field in next(csv.reader(text, delimiter='\t'), [])]

    def _find_columns(self):
        fields = self._fields(self._record(0))
        if len(fields) < 2:
            raise ConfigError(f'{self.path}: the first line is not caption<TAB>url')
        self.header, urls = None, [bool(_URL.fullmatch(field.strip())) for field in fields]
        if any(urls):  # the official files have no header
            self._url = 1 if urls[1] else urls.index(True)
            self._caption = 0 if self._url else 1
            return
        self.header = [field.decode('utf-8', 'replace').strip() for field in fields]
        names = [name.lower() for name in self.header]
        found: list[Any] = [
            next((names.index(name) for name in known if name in names), None) for known in (URL_NAMES, CAPTION_NAMES)
        ]
        if len(names) == 2 and None in found and found != [None, None]:
            one = found[0] if found[1] is None else found[1]
            found = [1 - one if column is None else column for column in found]
        if None in found or found[0] == found[1]:
            raise ConfigError(
                f'{self.path}: the first line is not caption<TAB>url, and as a header '
                f'({", ".join(self.header)[:80]}) it does not '
                'name the columns caption and url'
            )
        self._url, self._caption = found
        self._starts, self._ends = self._starts[1:], self._ends[1:]


def _shown(record):
    return ' '.join(record[:60].decode('utf-8', 'replace').split())

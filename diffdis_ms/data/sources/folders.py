"""Plain folders as caption sets: one folder a class, or a csv `dir,text` beside the images; and the choice of the
reader."""

import csv
import glob
import io
from pathlib import Path

from diffdis_ms.data.listing import folders_of, is_hidden, left_out, list_images
from diffdis_ms.data.samples import Sample, read_image, visible_files, warn_of
from diffdis_ms.data.sources.cc3m import Cc3mTsv
from diffdis_ms.data.sources.mindrecord import MindRecordSet
from diffdis_ms.data.sources.mindrecord_file import SUFFIX as MINDRECORD
from diffdis_ms.data.sources.webdataset import open_tars
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.text_files import lines_of, read_text

CSV_COLUMNS = ('dir', 'text')
MAX_CSV_BYTES = 4 << 30


class ImageFolder:
    """`root/<class name>/<image>`; the class name is the caption, its place the label.

    Classes are all folders but hidden ones (`listing.is_hidden`), also those without a picture that can be read, so
    that no label moves;
    in `listing.number_order`: 2 before 10.

    Attributes:
        class_names: list of the class folders' names. files, folder: the images, and the root.
        skipped: {what: reason} of folders without a picture, and of pictures that lie deeper, beside the folders, or
            in other formats.
    """

    def __init__(self, root):
        """Raises ConfigError: no such directory, or no images in folders below it. Warns of what is left out."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise ConfigError(f'{root} is not a directory; expected {root}/<class name>/<images>')
        folders = folders_of(self.root)
        self.class_names, self._samples, self.skipped = [folder.name for folder in folders], [], {}
        for label, folder in enumerate(folders):
            images, others = list_images(folder), left_out(folder)
            self._samples += [(path, label) for path in images]
            if not images and not others:
                others = {f'{folder.name}/': f'no picture in this class folder ({_suffixes(folder)})'}
            self.skipped.update(others)
        if not self._samples:
            what = ': '.join(next(iter(self.skipped.items()), ('', 'no folder')))
            raise ConfigError(f'{root} has no images in class folders; expected {root}/<class name>/<images> ({what})')
        self.skipped.update(
            {path.name: 'lies beside the class folders, in none of them' for path in list_images(self.root)}
        )
        warn_of(self.skipped, self.root)
        self.files, self.folder = [path for path, _ in self._samples], self.root

    def __len__(self):
        return len(self._samples)

    def read(self, i):
        """Sample `i`; raises BadSample for an image that cannot be used."""
        path, label = self._samples[i]
        key = f'{path.parent.name}/{path.name}'
        return Sample(key, read_image(path, key), self.class_names[label], label)


class CsvFolder:
    """The MindSpore Stable Diffusion examples' format: csv files with the header `dir,text`, image paths relative to
    the csv.

    As Python, pandas or Excel write it: commas, semicolons or tabs, any order and capitals of the header, quoted
        fields with line breaks,
    UTF-8 or UTF-16 with a byte order mark, backslashes in paths. Other columns are left alone.

    Attributes:
        class_names: None. files, folder: the csv files and the images that they name, and where the first lies.
    """

    class_names = None

    def __init__(self, path):
        """Args:
            path: a csv file, or a directory whose *.csv are read one after the other.

        Raises:
            ConfigError: no csv, wrong columns, no row, or not a csv in UTF-8.
        """
        path = Path(path)
        files = visible_files(path, '*.csv') if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise ConfigError(f'{path}: no csv file there; expected one with the columns {",".join(CSV_COLUMNS)}')
        self._rows = [(file.parent, *row) for file in files for row in _read_csv(file)]
        if not self._rows:
            raise ConfigError(f'{path}: no row below the header')
        self.files, self.folder = files + [folder / name for folder, name, _ in self._rows], files[0].absolute().parent

    def __len__(self):
        return len(self._rows)

    def read(self, i):
        """Sample `i`; raises BadSample for a blank caption, a path that leaves the csv's folder, or an image that
        cannot be used."""
        folder, name, caption = self._rows[i]
        key = name or f'row {i + 1}'
        if caption is None:
            raise BadSample(key, 'more fields than the header has columns: a caption with a comma in it must be quoted')
        if not name or not caption:
            raise BadSample(key, 'no caption' if name else 'no image path')
        try:
            path = folder / name
            path = (path if '\\' not in name or path.is_file() else folder / name.replace('\\', '/')).resolve()
            inside = path.is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):  # a name with a null byte, a loop of links
            raise BadSample(key, 'not a usable path') from None
        if not inside:
            raise BadSample(key, 'the path leaves the folder of the csv')
        return Sample(key, read_image(path, key), caption)


def open_captions(path):
    """The reader that fits a path.

    Args:
        path: tar, glob pattern of tars or directory with *.tar (CaptionSet, RetrievalSet); the same with *.mindrecord
            (MindRecordSet); csv or directory with *.csv (CsvFolder); tsv or directory with one *.tsv (Cc3mTsv);
            directory of class folders (ImageFolder).

    Returns:
        An object with `len()`, `.read(i) -> Sample` and `.class_names`.

    Raises:
        ConfigError: nothing fits.
    """
    root = Path(path)
    if root.is_dir():
        for pattern, reader in (
            ('*.tar', open_tars),
            (f'*{MINDRECORD}*', MindRecordSet),
            ('*.csv', CsvFolder),
            ('*.tsv', Cc3mTsv),
        ):
            if visible_files(root, pattern):
                return reader(root)
        firsts = [images[0] for images in map(list_images, folders_of(root)) if images]
        described = next(
            (path for path in firsts if any(path.with_suffix(s).is_file() for s in ('.txt', '.json', '.caption'))), None
        )
        if described:
            raise ConfigError(
                f'{described} has its caption in a file beside it, so that its folder is no class: pack the set as'
                ' tars, or give the tsv that its pictures were downloaded from'
            )
        if firsts:
            return ImageFolder(root)
        below = sorted(
            p.parent.name
            for pattern in ('*/*.tar', f'*/*{MINDRECORD}')
            for p in root.glob(pattern)
            if not is_hidden(p.name)
        )
        hint = f'; did you mean {root / below[0]}?' if below else ''
        raise ConfigError(f'{path} has neither *.tar, *{MINDRECORD}, *.csv, *.tsv nor folders of images{hint}')
    if root.is_file() and root.suffix.lower() in ('.csv', '.tsv'):
        return (CsvFolder if root.suffix.lower() == '.csv' else Cc3mTsv)(root)
    found = [str(root)] if root.is_file() else [] if root.exists() else glob.glob(str(path))
    if found and MINDRECORD in Path(found[0]).name:
        return MindRecordSet(path)
    if found and (found[0] != str(root) or root.suffix == '.tar'):
        return open_tars(path)
    raise ConfigError(f'{path} ' + ('is neither a tar, MindRecord, csv nor tsv' if root.exists() else 'does not exist'))


def _suffixes(folder):
    suffixes = sorted({path.suffix.lower() or path.name for path in folder.iterdir() if not is_hidden(path.name)})
    return f'it holds {", ".join(suffixes[:5])}' if suffixes else 'it is empty'


def _read_csv(path):
    """Rows (path of the picture, caption) of a csv; the caption is None where the row has more fields than the
    header."""
    text = read_text(path, limit=MAX_CSV_BYTES)
    header = lines_of(text[:10_000])[0] if text else ''
    delimiter = next((d for d in ',;\t|' if set(CSV_COLUMNS) <= set(_names(header.split(d)))), ',')
    try:
        rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
        names = _names(next(rows, ()))
        if any(names.count(column) != 1 for column in CSV_COLUMNS):
            raise ConfigError(
                f'{path}: the header must name the columns {",".join(CSV_COLUMNS)}, each once; it is '
                f'{",".join(names)[:80]!r}'
            )
        places = [names.index(column) for column in CSV_COLUMNS]
        return [_fields(row, places, len(names)) for row in rows if row]
    except csv.Error as e:
        raise ConfigError(
            f'{path}: line {rows.line_num} is not csv ({e}); a field with quotes in it is quoted itself, its quotes '
            'doubled'
        ) from None


def _names(fields):
    return [field.strip().strip('"').strip().lower() for field in fields]


def _fields(row, places, count):
    name, caption = (row[place].strip() if place < len(row) else '' for place in places)
    return name, caption if len(row) <= count else None

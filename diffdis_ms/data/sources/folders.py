"""Plain folders as caption sets (one folder per class, or a csv `dir,text`), and the choice of a path's reader."""

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
    """Images in `root/<class name>/<image>`. The caption is the class name, the label its index.

    All folders except hidden ones (`listing.is_hidden`) are classes, in `listing.number_order` (2 before 10). Folders
    without readable images are also classes, so that labels do not shift.

    Attributes:
        class_names: list of the class folders' names. files: the images. folder: the root.
        skipped: {what: reason} for folders without images, and for images that are deeper, beside the class folders, or
            in other formats.
    """

    def __init__(self, root):
        """Raises ConfigError if there is no such directory or no images in folders below it. Warns of skipped files."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise ConfigError(f'{root} is not a directory; expected {root}/<class name>/<images>')
        folders = folders_of(self.root)
        self.class_names, self._samples, self.skipped = [folder.name for folder in folders], [], {}
        for label, folder in enumerate(folders):
            images, others = list_images(folder), left_out(folder)
            self._samples += [(path, label) for path in images]
            if not images and not others:
                others = {f'{folder.name}/': f'no image in this class folder ({_suffixes(folder)})'}
            self.skipped.update(others)
        if not self._samples:
            what = ': '.join(next(iter(self.skipped.items()), ('', 'no folder')))
            raise ConfigError(f'{root} has no images in class folders; expected {root}/<class name>/<images> ({what})')
        self.skipped.update(
            {path.name: 'is beside the class folders, not in one of them' for path in list_images(self.root)}
        )
        warn_of(self.skipped, self.root)
        self.files, self.folder = [path for path, _ in self._samples], self.root

    def __len__(self):
        return len(self._samples)

    def read(self, i):
        """Read sample `i`; raises BadSample if its image cannot be used."""
        path, label = self._samples[i]
        key = f'{path.parent.name}/{path.name}'
        return Sample(key, read_image(path, key), self.class_names[label], label)


class CsvFolder:
    """The format of MindSpore's Stable Diffusion examples: csv with the header `dir,text`, image paths relative to it.

    Files by Python, pandas or Excel are accepted: commas, semicolons or tabs, any order and capitals in the header,
    quoted fields with line breaks, UTF-8 or UTF-16 with a byte order mark, backslashes in paths. Other columns are
    ignored.

    Attributes:
        class_names: None. files: the csv files and the images that they name. folder: folder of the first csv file.
    """

    class_names = None

    def __init__(self, path):
        """Args:
            path: a csv file, or a directory whose *.csv are all read, one after the other.

        Raises:
            ConfigError: there is no csv file, or one has wrong columns, no row, or is not csv text in UTF-8.
        """
        path = Path(path)
        files = visible_files(path, '*.csv') if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise ConfigError(f'{path}: there is no csv file; expected one with the columns {",".join(CSV_COLUMNS)}')
        self._rows = [(file.parent, *row) for file in files for row in _read_csv(file)]
        if not self._rows:
            raise ConfigError(f'{path}: no row below the header')
        self.files, self.folder = files + [folder / name for folder, name, _ in self._rows], files[0].absolute().parent

    def __len__(self):
        return len(self._rows)

    def read(self, i):
        """Read sample `i`.

        Raises:
            BadSample: the caption is blank, the path leaves the csv's folder, or the image cannot be used.
        """
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
    """Open the reader for a path.

    Args:
        path: tar, glob pattern of tars or directory with *.tar (CaptionSet, RetrievalSet); the same with *.mindrecord
            (MindRecordSet); csv or directory with *.csv (CsvFolder); tsv or directory with one *.tsv (Cc3mTsv);
            directory of class folders (ImageFolder).

    Returns:
        An object with `len()`, `.read(i) -> Sample` and `.class_names`.

    Raises:
        ConfigError: no reader fits.
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
                f'{described} has its caption in a file beside it, so its folder is not a class: pack the set as'
                ' tars, or give the tsv file that its images were downloaded from'
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
    return f'it contains {", ".join(suffixes[:5])}' if suffixes else 'it is empty'


def _read_csv(path):
    """Read rows (image path, caption) of a csv; the caption is None if the row has more fields than the header."""
    text = read_text(path, limit=MAX_CSV_BYTES)
    header = lines_of(text[:10_000])[0] if text else ''
    delimiter = next((d for d in ',;\t|' if set(CSV_COLUMNS) <= set(_names(header.split(d)))), ',')
    try:
        rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
        names = _names(next(rows, ()))
        if any(names.count(column) != 1 for column in CSV_COLUMNS):
            raise ConfigError(
                f'{path}: the header must contain the columns {",".join(CSV_COLUMNS)}, each once; it is '
                f'{",".join(names)[:80]!r}'
            )
        places = [names.index(column) for column in CSV_COLUMNS]
        return [_fields(row, places, len(names)) for row in rows if row]
    except csv.Error as e:
        raise ConfigError(
            f'{path}: line {rows.line_num} is not csv ({e}); a field that contains quotes must be quoted, its quotes '
            'doubled'
        ) from None


def _names(fields):
    return [field.strip().strip('"').strip().lower() for field in fields]


def _fields(row, places, count):
    name, caption = (row[place].strip() if place < len(row) else '' for place in places)
    return name, caption if len(row) <= count else None

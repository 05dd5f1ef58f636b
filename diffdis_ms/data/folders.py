"""Plain folders as caption sets: one folder a class, or a csv `dir,text` beside the images; and the choice of the reader."""
import csv
import glob
from pathlib import Path

from diffdis_ms.config import ConfigError
from diffdis_ms.data.cc3m import Cc3mTsv
from diffdis_ms.data.mindrecord import SUFFIX as MINDRECORD, MindRecordSet
from diffdis_ms.data.samples import BadSample, Sample, read_image
from diffdis_ms.data.transforms import IMAGE_SUFFIXES
from diffdis_ms.data.webdataset import CaptionSet

CSV_COLUMNS = ('dir', 'text')


class ImageFolder:
    """`root/<class name>/<image>`, both sorted; the class name is the caption, its place the label.

    Attributes:
        class_names: list of the class folders' names. files, folder: the images, and the root.
    """

    def __init__(self, root):
        """Raises ConfigError: no such directory, or no images in folders below it."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise ConfigError(f'{root} is not a directory; expected {root}/<class name>/<images>')
        folders = [(folder, list_images(folder)) for folder in sorted(self.root.iterdir()) if folder.is_dir()]
        folders = [(folder, images) for folder, images in folders if images]
        if not folders:
            raise ConfigError(f'{root} has no images in class folders; expected {root}/<class name>/<images>')
        self.class_names = [folder.name for folder, _ in folders]
        self._samples = [(path, label) for label, (_, images) in enumerate(folders) for path in images]
        self.files, self.folder = [path for path, _ in self._samples], self.root

    def __len__(self):
        return len(self._samples)

    def read(self, i):
        """Sample `i`; raises BadSample for an image that cannot be used."""
        path, label = self._samples[i]
        key = f'{path.parent.name}/{path.name}'
        return Sample(key, read_image(path, key), self.class_names[label], label)


class CsvFolder:
    """The MindSpore Stable Diffusion examples' format: csv files with the header `dir,text`, image paths relative to the csv.

    Attributes:
        class_names: None. files, folder: the csv files and the images that they name, and where the first lies.
    """
    class_names = None

    def __init__(self, path):
        """Args:
            path: a csv file, or a directory whose *.csv are read one after the other.

        Raises:
            ConfigError: no csv, wrong columns, no row, or not UTF-8 csv.
        """
        path = Path(path)
        files = sorted(path.glob('*.csv')) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise ConfigError(f'{path}: no csv file there; expected one with the columns {",".join(CSV_COLUMNS)}')
        self._rows = [(file.parent, *row) for file in files for row in _read_csv(file)]
        if not self._rows:
            raise ConfigError(f'{path}: no row below the header')
        self.files, self.folder = files + [folder / name for folder, name, _ in self._rows], files[0].absolute().parent

    def __len__(self):
        return len(self._rows)

    def read(self, i):
        """Sample `i`; raises BadSample for a blank caption, a path that leaves the csv's folder, or an image that cannot be used."""
        folder, name, caption = self._rows[i]
        key = name or f'row {i + 1}'
        if not name or not caption:
            raise BadSample(key, 'no caption' if name else 'no image path')
        try:
            path = (folder / name).resolve()
            inside = path.is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):      # a name with a null byte, a loop of links
            raise BadSample(key, 'not a usable path') from None
        if not inside:
            raise BadSample(key, 'the path leaves the folder of the csv')
        return Sample(key, read_image(path, key), caption)


def open_captions(path):
    """The reader that fits a path.

    Args:
        path: tar, glob pattern of tars or directory with *.tar (CaptionSet); the same with *.mindrecord (MindRecordSet); csv or directory
            with *.csv (CsvFolder); tsv or directory with one *.tsv (Cc3mTsv); directory of class folders (ImageFolder).

    Returns:
        An object with `len()`, `.read(i) -> Sample` and `.class_names`.

    Raises:
        ConfigError: nothing fits.
    """
    root = Path(path)
    if root.is_dir():
        for pattern, reader in (('*.tar', CaptionSet), (f'*{MINDRECORD}*', MindRecordSet), ('*.csv', CsvFolder), ('*.tsv', Cc3mTsv)):
            if any(root.glob(pattern)):
                return reader(root)
        if any(list_images(folder) for folder in root.iterdir() if folder.is_dir()):
            return ImageFolder(root)
        below = sorted(p.parent.name for pattern in ('*/*.tar', f'*/*{MINDRECORD}') for p in root.glob(pattern))
        hint = f'; did you mean {root / below[0]}?' if below else ''
        raise ConfigError(f'{path} has neither *.tar, *{MINDRECORD}, *.csv, *.tsv nor folders of images{hint}')
    if root.is_file() and root.suffix in ('.csv', '.tsv'):
        return (CsvFolder if root.suffix == '.csv' else Cc3mTsv)(root)
    found = [str(root)] if root.is_file() else [] if root.exists() else glob.glob(str(path))
    if found and MINDRECORD in Path(found[0]).name:
        return MindRecordSet(path)
    if found and (found[0] != str(root) or root.suffix == '.tar'):
        return CaptionSet(path)
    raise ConfigError(f'{path} ' + ('is neither a tar, MindRecord, csv nor tsv' if root.exists() else 'does not exist'))


def list_images(folder):
    """Paths of the images in a folder, sorted; hidden files are left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != '.' and p.is_file())


def _read_csv(path):
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            rows = csv.DictReader(file)
            if not set(CSV_COLUMNS) <= set(rows.fieldnames or ()):
                raise ConfigError(f'{path}: the header must name the columns {",".join(CSV_COLUMNS)}; '
                                  f'it is {",".join(rows.fieldnames or ())!r}')
            return [tuple((row[column] or '').strip() for column in CSV_COLUMNS) for row in rows]
    except (csv.Error, UnicodeDecodeError) as e:
        raise ConfigError(f'{path} is not a UTF-8 csv file: {e}') from None

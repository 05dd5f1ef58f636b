"""Plain folders and csv files as caption sets, and the choice of the reader."""

import pytest
from PIL import Image

from diffdis_ms.data.sources.cc3m import Cc3mTsv
from diffdis_ms.data.sources.folders import CsvFolder, ImageFolder, open_captions
from diffdis_ms.data.sources.mindrecord import MindRecordSet, MindRecordWriter
from diffdis_ms.data.sources.webdataset import CaptionSet, TarWriter
from diffdis_ms.errors import BadSample, ConfigError


def save(path, color='red'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (10, 10), color).save(path)


def csv_set(root, *rows, header='dir,text'):
    root.mkdir(parents=True, exist_ok=True)
    (root / 'img_txt.csv').write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
    return root


def test_image_folder_has_classes_as_labels_and_captions(tmp_path):
    for name in ('dog/2.png', 'dog/1.jpg', 'cat/9.PNG', 'empty/readme.txt', 'cat/.hidden.png'):
        path = tmp_path / name
        save(path) if path.suffix != '.txt' else (path.parent.mkdir(), path.write_text('x'))
    (tmp_path / 'dog' / '3.png').write_bytes(b'broken')
    folder = ImageFolder(tmp_path)
    assert folder.class_names == ['cat', 'dog', 'empty'] and len(folder) == 4
    assert folder.skipped == {'empty/': 'no image in this class folder (it contains .txt)'}
    samples = [folder.read(i) for i in range(3)]
    assert [(s.key, s.caption, s.label) for s in samples] == [
        ('cat/9.PNG', 'cat', 0),
        ('dog/1.jpg', 'dog', 1),
        ('dog/2.png', 'dog', 1),
    ]
    with pytest.raises(BadSample, match='dog/3.png'):
        folder.read(3)


def test_csv_rows_are_samples(tmp_path):
    save(tmp_path / 'images' / 'a.png')
    rows = CsvFolder(
        csv_set(tmp_path, 'images/a.png,"a fox, red"', 'images/none.png,x', 'images/a.png,  ', ',x', 'images/a.png')
    )
    assert len(rows) == 5 and rows.class_names is None
    sample = rows.read(0)
    assert (sample.key, sample.caption, sample.label) == ('images/a.png', 'a fox, red', None)
    for i, reason in ((1, 'no such'), (2, 'no caption'), (3, 'no image path|no caption'), (4, 'no caption')):
        with pytest.raises(BadSample, match=reason):
            rows.read(i)


def test_csv_paths_stay_in_their_folder(tmp_path):
    save(tmp_path / 'secret.png')
    root = csv_set(tmp_path / 'set', '../secret.png,x', f'{tmp_path}/secret.png,x', 'link.png,x')
    (root / 'link.png').symlink_to(tmp_path / 'secret.png')
    rows = CsvFolder(root / 'img_txt.csv')
    for i in range(3):
        with pytest.raises(BadSample, match='leaves the folder'):
            rows.read(i)
    csv_set(root, 'a\0b.png,x')
    with pytest.raises(ConfigError, match='NUL'):
        CsvFolder(root)


def test_csv_with_wrong_columns_is_refused(tmp_path):
    for header in ('path,caption', ''):
        with pytest.raises(ConfigError, match='dir,text') as error:
            CsvFolder(csv_set(tmp_path, header=header))
        assert '\n' not in str(error.value)
    with pytest.raises(ConfigError, match='no row'):
        CsvFolder(csv_set(tmp_path))
    (tmp_path / 'img_txt.csv').write_bytes(b'dir,text\na.png,\xff\xfe\n')
    with pytest.raises(ConfigError, match='UTF-8'):
        CsvFolder(tmp_path)
    assert len(CsvFolder(csv_set(tmp_path, 'a.png,x', header='\ufeffdir,text'))) == 1


def test_reader_is_picked_by_what_lies_there(tmp_path):
    with TarWriter(tmp_path / 'tars' / 'train') as writer:
        writer.write('a', Image.new('RGB', (10, 10)), 'x')
    csv_set(tmp_path / 'csv', 'a.png,x')
    save(tmp_path / 'classes' / 'cat' / '1.png')
    save(tmp_path / 'cc3m' / 'images' / '000000000.jpg')
    (tmp_path / 'cc3m' / 'a.tsv').write_text('a fox\thttp://x\n')
    with MindRecordWriter(tmp_path / 'records' / 'train') as writer:
        writer.write('a', Image.new('RGB', (10, 10)), 'x')
    for path, kind in (
        ('tars/train', CaptionSet),
        ('tars/train/00000.tar', CaptionSet),
        ('tars/train/*.tar', CaptionSet),
        ('csv', CsvFolder),
        ('csv/img_txt.csv', CsvFolder),
        ('classes', ImageFolder),
        ('cc3m', Cc3mTsv),
        ('cc3m/a.tsv', Cc3mTsv),
        ('records/train', MindRecordSet),
        ('records/train/*.mindrecord', MindRecordSet),
        ('records/train/00000.mindrecord', MindRecordSet),
    ):
        opened = open_captions(str(tmp_path / path))
        assert isinstance(opened, kind) and len(opened) == 1
    for path, match in (
        ('none', 'does not exist'),
        ('classes/cat', 'neither'),
        ('classes/cat/1.png', 'neither'),
        ('tars', 'did you mean .*train'),
        ('records', 'did you mean .*train'),
    ):
        with pytest.raises(ConfigError, match=match) as error:
            open_captions(tmp_path / path)
        assert '\n' not in str(error.value)

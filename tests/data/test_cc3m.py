"""Conceptual Captions' TSV with the images of the usual downloaders."""

import zlib

import pytest

from diffdis_ms.data.sources.cc3m import Cc3mTsv
from diffdis_ms.data.stream.check import good_samples
from diffdis_ms.errors import BadSample, ConfigError
from tests.data.test_webdataset import png

ROWS = [(f'caption {i}', f'http://x/{i}.jpg?a=1,2') for i in range(12)]


def tsv(folder, rows=ROWS, header='', end='\n', name='Train_GCC-training.tsv'):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(
        (header + '\n'.join('\t'.join(row) for row in rows) + end).encode('utf-8', 'surrogateescape')
    )
    return folder / name


def image(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png() if content is None else content)


NAMES = {
    'img2dataset': 'images/00000/{:09d}.jpg',
    'DownloadConceptualCaptions': 'training/{}_{}',
    'row': '{}.PNG',
    'padded row': '{:08d}.jpeg',
}


@pytest.mark.parametrize('name', NAMES.values(), ids=NAMES)
@pytest.mark.parametrize('header, end', [('', '\n'), ('caption\turl\n', ''), ('', '\r\n')])
def test_images_belong_to_their_rows(tmp_path, name, header, end):
    rows = [(c, u) for c, u in ROWS]
    path = tsv(tmp_path, rows, header, end)
    for i in (0, 3, 11):
        image(tmp_path / name.format(i, zlib.crc32(ROWS[i][1].encode())))
    captions = Cc3mTsv(path)
    assert len(captions) == 3 and captions.num_rows == 12 and captions.class_names is None
    assert [captions.read(k).caption for k in range(3)] == ['caption 0', 'caption 3', 'caption 11']
    assert [captions.read(k).key for k in range(3)] == ['row 0', 'row 3', 'row 11'] and captions.read(1).meta == {
        'url': ROWS[3][1]
    }
    assert len(Cc3mTsv(tmp_path, tmp_path)) == 3


def test_images_of_other_sets_and_other_files_are_left_alone(tmp_path):
    tsv(tmp_path)
    own = zlib.crc32(ROWS[5][1].encode())
    for name in (f'training/5_{own}', 'validation/5_12345', '99.jpg', 'training/6', '7.json', '.8.jpg', 'a/b/c/9.jpg'):
        image(tmp_path / name)
    captions = Cc3mTsv(tmp_path)
    assert [captions.read(k).key for k in range(len(captions))] == ['row 5']


def test_bad_rows_say_why(tmp_path):
    rows = [
        (caption, f'http://x/{i}')
        for i, caption in enumerate(('fine', ' ', 'not UTF-8 \udcff', 'twice', 'broken', 'link', 'alone'))
    ]
    tsv(tmp_path / 'set', rows)
    for i in range(5):
        image(tmp_path / f'set/{i}.jpg', b'broken' if i == 4 else None)
    image(tmp_path / 'set/more/0003.png')
    image(tmp_path / 'outside.png')
    (tmp_path / 'set/5.png').symlink_to(tmp_path / 'outside.png')
    image(tmp_path / 'set/6.png')
    captions = Cc3mTsv(tmp_path / 'set')
    assert captions.read(0).caption == 'fine' and captions.read(6).caption == 'alone'
    for i, reason in (
        (1, 'no caption'),
        (2, 'not UTF-8'),
        (3, 'several images'),
        (4, 'not an image'),
        (5, 'leaves the folder'),
    ):
        with pytest.raises(BadSample, match=f'row {i}: .*{reason}'):
            captions.read(i)
    assert good_samples(captions)[0].tolist() == [0, 6]


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'is empty'),
        (b'no tab\nx\ty\n', 'first line is not'),
        (b'a\tb\n', 'does not name the columns'),
        (b'a\thttp://b\n', 'no image belongs'),
        (b'a\thttp://b\nno url\tx\n', 'row 2 .* has no url'),
        (b'a\0\thttp://b\n', 'NUL'),
    ],
)
def test_what_is_no_set_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / 'a.tsv').write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Cc3mTsv(tmp_path)


def test_the_tsv_is_found_or_asked_for(tmp_path):
    with pytest.raises(ConfigError, match='no tsv'):
        Cc3mTsv(tmp_path)
    tsv(tmp_path)
    with pytest.raises(ConfigError, match='no such directory'):
        Cc3mTsv(tmp_path, tmp_path / 'none')
    tsv(tmp_path, name='Validation.tsv')
    with pytest.raises(ConfigError, match='several tsv'):
        Cc3mTsv(tmp_path)

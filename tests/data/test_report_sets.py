"""Data sets that made other tools silently wrong, with the right value of each: the colour of a picture tells its
caption or class."""

import csv
import json
import re
import zlib

import numpy as np
import pytest

from diffdis_ms.data.listing import number_order
from diffdis_ms.data.sources.cc3m import Cc3mTsv
from diffdis_ms.data.sources.folders import CsvFolder, ImageFolder, open_captions
from diffdis_ms.data.sources.mindrecord import MindRecordSet
from diffdis_ms.data.sources.webdataset import CaptionSet, RetrievalSet
from diffdis_ms.data.stream.check import good_samples
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.datasets import open_retrieval, open_zeroshot
from diffdis_ms.evaluate.metrics.retrieval import retrieval_metrics
from diffdis_ms.evaluate.tasks import retrieval
from tests.data import report_sets as made
from tests.data.report_sets import MASK, caption_of, encoded, number_of, save, tar
from tests.data.test_mindrecord import foreign
from tests.data.test_prepare_data import call


def pairs(reader):
    """[(number of the picture, caption)] of the good samples."""
    return [(number_of(s.image), s.caption) for s in map(reader.read, good_samples(reader)[0].tolist())]


def labels(reader):
    return [(number_of(s.image), s.label) for s in map(reader.read, range(len(reader)))]


def refused(opener, *args, **kwargs):
    with pytest.raises(ConfigError) as error:
        opener(*args, **kwargs)
    assert '\n' not in str(error.value)
    return str(error.value)


# class folders

# fmt: off
HIDDEN = (
    '.ipynb_checkpoints', '__MACOSX', '@eaDir', '.git', 'lost+found', '$RECYCLE.BIN', '#recycle', '.Trash-1000',
    '__pycache__', 'System Volume Information',
)
# fmt: on


def test_folders_of_systems_and_tools_are_no_classes(tmp_path, capfd):
    root = made.class_folders(tmp_path / 'set', 'abcd', hidden=HIDDEN)
    for name in ('Thumbs.db', 'desktop.ini', '.DS_Store', '._0.jpg'):
        (root / 'a' / name).write_bytes(encoded(MASK))
    (tmp_path / 'names.txt').write_text('apple\nbanana\ncherry\ndate\n')
    images, names = open_zeroshot('folder', root, tmp_path / 'names.txt')
    assert (
        images.class_names == list('abcd') and names == ['apple', 'banana', 'cherry', 'date'] and images.skipped == {}
    )
    assert (
        all(number == label for number, label in labels(images)) and len(images) == 8 and capfd.readouterr().err == ''
    )
    assert isinstance(open_captions(root), ImageFolder)


@pytest.mark.parametrize(
    'names',
    [
        [str(k) for k in range(12)],
        [f'{k:02d}' for k in range(12)],
        [f'class_{k}' for k in range(12)],
        [str(k) for k in range(95, 107)],
    ],
)
def test_numbered_folders_are_in_number_order(tmp_path, names):
    root = made.class_folders(tmp_path / 'set', names)
    (tmp_path / 'names.txt').write_text(''.join(f'class number {k}\n' for k in range(12)))
    images, given = open_zeroshot('folder', root, tmp_path / 'names.txt')
    assert (
        images.class_names == names
        and given[10] == 'class number 10'
        and all(number == label for number, label in labels(images))
    )


def test_number_order():
    for names in (
        ['1', '2', '10'],
        ['a1', 'a2', 'a10'],
        ['01', '1', '2', '010'],
        ['2', '10', 'background'],
        ['BAE 146-200', 'C-130', 'C-47', 'F-16'],
        ['n01440764', 'n02012849'],
        ['img2', 'img10'],
        ['b', 'd10', 'd2'],
        ['1.2', '1.10'],
        [''],
        ['1-cat', '2-dog', '10-ant'],
        ['class1_b', 'class2_a', 'class10_c'],
        ['1', '2-a', '10'],
        ['An-12', 'C-130', 'C-47'],
        ['1', '10', 'a1', 'a2', 'a10'],
        [],
    ):
        assert number_order(sorted(names)) == number_order(names[::-1]) == names


def test_class_folders_without_usable_pictures_keep_their_place_and_are_named(tmp_path, capfd):
    root = made.class_folders(tmp_path / 'set', 'abcde')
    for name in 'bcd':
        for path in (root / name).iterdir():
            path.unlink()
    save(root / 'c' / 'x.heic', 2)
    save(root / 'd' / 'more' / 'x.jpg', 3)
    save(root / 'a' / 'more' / 'y.png', 0)
    save(root / 'loose.jpg', 0)
    images = ImageFolder(root)
    assert images.class_names == list('abcde') and labels(images) == [(0, 0), (0, 0), (4, 4), (4, 4)]
    assert (
        images.skipped.keys() == {'b/', 'c/x.heic', 'd/more/', 'a/more/', 'loose.jpg'}
        and 'deeper' in images.skipped['d/more/']
    )
    warning = capfd.readouterr().err
    assert warning.count('\n') == 1 and all(name in warning for name in images.skipped)
    (tmp_path / 'names.txt').write_text('v\nw\nx\ny\nz\n')
    assert open_zeroshot('folder', root, tmp_path / 'names.txt')[1] == list('vwxyz')
    for names in ('v,z', 'u,v,w,x,y,z'):
        assert f'has {len(names.split(","))} names for the 5 folders (a, b, c, d, e)' in refused(
            open_zeroshot, 'folder', root, names
        )
    assert open_zeroshot('folder', root, 'e,d,c,b,a')[1] == list('abcde')
    assert 'class 2 of the data set' in refused(open_zeroshot, 'folder', root, 'b,v,w,x,y')


def test_pictures_that_all_lie_deeper_are_said(tmp_path):
    made.class_folders(tmp_path / 'train', 'ab')
    made.class_folders(tmp_path / 'val', 'ab')
    assert 'deeper' in refused(ImageFolder, tmp_path)


@pytest.mark.parametrize('suffix', ['.jfif', '.JFIF', '.jpe', '.JPEG', '.dib', '.pgm', '.pnm', '.tif'])
def test_suffixes_of_the_formats_that_are_read(tmp_path, suffix):
    kind = {'.dib': 'BMP', '.pgm': 'PPM', '.pnm': 'PPM', '.tif': 'TIFF'}.get(suffix, 'JPEG')
    for k, name in enumerate('ab'):
        (tmp_path / name).mkdir()
        (tmp_path / name / f'1{suffix}').write_bytes(encoded(k, kind))
    assert labels(ImageFolder(tmp_path)) == [(0, 0), (1, 1)]


# tars


@pytest.mark.parametrize('extension', ['txt', 'TXT', 'caption', 'cap'])
def test_retrieval_tars_have_all_their_captions(tmp_path, extension):
    root = made.retrieval(tmp_path / 'set', extension=extension)
    for dataset, path in (
        ('captions', root),
        ('webdataset', root),
        ('captions', root / 'test'),
        ('captions', root / 'test' / '0.tar'),
    ):
        images = open_retrieval(dataset, path)
        assert isinstance(images, RetrievalSet) and len(images) == 8
        for i in range(8):
            assert images.captions_of(i) == [f'caption {k} of picture {i}' for k in range(5)]
            assert number_of(images.read(i).image) == i and images.read(i).caption == f'caption 0 of picture {i}'


def test_retrieval_takes_every_caption_for_its_picture(tmp_path):
    images = open_retrieval(
        'captions',
        made.retrieval(tmp_path / 'set', lines=lambda i: '\n'.join(f'{i}' for _ in range(1 + i % 3)) + '\r\n\n'),
    )

    class Pipe:
        def embed_texts(self, texts):
            return np.eye(8, dtype=np.float32)[[int(text) for text in texts]]

    embedded = type(
        'E',
        (),
        {'indices': np.arange(8), 'captions': None, 'keys': list('abcdefgh'), 'e0': {0: np.eye(8, dtype=np.float32)}},
    )
    measured = retrieval(Pipe(), embedded, images)
    assert measured['num_captions'] == 1 + 2 + 3 + 1 + 2 + 3 + 1 + 2 and measured['metrics'] == retrieval_metrics(
        np.eye(8), np.eye(8), np.arange(8)
    )


def test_other_tars_have_one_caption(tmp_path):
    root = made.retrieval(tmp_path / 'set')
    (root / 'dataset_type.txt').write_text('zeroshot_classification\n')
    assert (
        type(open_captions(root / 'test')) is CaptionSet
        and open_captions(root / 'test').read(0).caption.count('\n') == 4
    )


@pytest.mark.parametrize(
    'members, number',
    [
        ([('jpg', 1), ('seg.png', MASK)], 1),
        ([('seg.png', MASK), ('jpg', 1)], 1),
        ([('png', MASK), ('jpg', 1)], 1),
        ([('gif', MASK), ('png', 2)], 2),
        ([('jpeg', MASK), ('png', 2)], 2),
        ([('webp', MASK), ('jpeg', 3)], 3),
        ([('bmp', MASK), ('webp', 4)], 4),
        ([('depth.png', MASK), ('PNG', 5)], 5),
        ([('img', 6)], 6),
        ([('img', MASK), ('jpg', 7)], 7),
        ([('mask.jpg', MASK), ('tiff', 8)], 8),
    ],
)
def test_of_several_pictures_the_documented_one_is_taken(tmp_path, members, number):
    kinds = {'png': 'PNG', 'gif': 'GIF', 'webp': 'WEBP', 'bmp': 'BMP', 'img': 'PNG', 'tiff': 'TIFF'}
    path = tar(
        tmp_path / '0.tar',
        [(f'000.{e}', encoded(i, kinds.get(e.lower().rpartition('.')[2], 'JPEG'))) for e, i in members]
        + [('000.txt', b'x')],
    )
    assert number_of(CaptionSet(path).read(0).image) == number


def test_a_mask_alone_is_no_picture(tmp_path):
    images = CaptionSet(
        tar(
            tmp_path / '0.tar',
            [('0.seg.png', encoded(MASK, 'PNG')), ('0.txt', b'x'), ('1.jpg', encoded(1)), ('1.txt', b'y')],
        )
    )
    assert pairs(images) == [(1, 'y')] and 'seg.png' in images.skipped['0']


def test_img_and_cap_and_tars_of_a_mac(tmp_path):
    tar(
        tmp_path / 'cap' / '0.tar',
        [
            (f'{i:06d}.{e}', b)
            for i in range(3)
            for e, b in (('img', encoded(i, 'PNG')), ('cap', f'photo {i}'.encode()))
        ],
    )
    assert pairs(open_captions(tmp_path / 'cap')) == [(i, f'photo {i}') for i in range(3)]
    made.mac_tar(tmp_path / 'mac' / '0.tar')
    (tmp_path / 'mac' / '._0.tar').write_bytes(b'\0\5\x16\7' + bytes(100))
    images = open_captions(tmp_path / 'mac')
    assert pairs(images) == [(i, f'photo {i} é') for i in range(3)] and images.skipped == {}
    assert images.read(0).key == 'set/pic0'


def test_captions_in_other_encodings(tmp_path):
    texts = [
        b'plain',
        '\ufeffbom caption'.encode(),
        'utf sixteen'.encode('utf-16'),
        'big'.encode('utf-16-be'),
        'caf\xe9'.encode('latin-1'),
        b'',
        b'   \n',
        b'\xfe\xff' + 'big é'.encode('utf-16-be'),
    ]
    images = CaptionSet(
        tar(
            tmp_path / '0.tar',
            [(f'{i:06d}.{e}', b) for i, text in enumerate(texts) for e, b in (('jpg', encoded(i)), ('txt', text))],
        )
    )
    good, skipped = good_samples(images)
    assert pairs(images) == [(0, 'plain'), (1, 'bom caption'), (2, 'utf sixteen'), (7, 'big é')] and len(good) == 4
    assert {key: reason.split(';')[0] for key, reason in skipped.items()} == {
        '000003': 'its .txt holds NUL characters: it is binary, or UTF-16 without a byte order mark',
        '000004': 'its .txt is not UTF-8 text (byte 3)',
        '000005': 'no caption',
        '000006': 'no caption',
    }


def test_captions_in_json(tmp_path):
    metas = [{'caption': 'one', 'text': 'other'}, {'text': 'two'}, {'caption': None, 'txt': 'three'}, {'title': 'four'}]
    images = CaptionSet(
        tar(
            tmp_path / '0.tar',
            [
                (f'{i}.{e}', b)
                for i, m in enumerate(metas)
                for e, b in (('jpg', encoded(i)), ('json', json.dumps(m).encode('utf-8-sig')))
            ],
        )
    )
    assert pairs(images) == [(0, 'one'), (1, 'two'), (2, 'three')]


@pytest.mark.parametrize(
    'row, schema, names',
    [
        (
            {'image': encoded(1), 'png': encoded(MASK), 'caption': 'x'},
            {'image': 'bytes', 'png': 'bytes', 'caption': 'string'},
            'image and png',
        ),
        (
            {'image': encoded(1), 'caption': 'x', 'text': 'y'},
            {'image': 'bytes', 'caption': 'string', 'text': 'string'},
            'caption and text',
        ),
        (
            {'image': encoded(1), 'mask': encoded(MASK), 'caption': 'x', 'ocr': 'y'},
            {'mask': 'bytes', 'image': 'bytes', 'ocr': 'string', 'caption': 'string'},
            None,
        ),
    ],
)
def test_mindrecord_with_several_pictures_or_captions(tmp_path, row, schema, names):
    foreign(tmp_path / 'a.mindrecord', [row], schema)
    if names:
        assert names in refused(MindRecordSet, tmp_path)
    else:
        assert pairs(MindRecordSet(tmp_path)) == [(1, 'x')]


# tables of captions and urls

RIGHT = [(row, caption_of(row)) for row in range(12)]


@pytest.mark.parametrize('per_shard', [10, 5, 7, 100])
@pytest.mark.parametrize('meta', [('txt', 'json'), ('json',), ('txt',)])
def test_what_stands_beside_a_picture_is_believed(tmp_path, per_shard, meta):
    images = Cc3mTsv(made.img2dataset(tmp_path / 'set', per_shard, meta=meta))
    assert (
        sorted(pairs(images)) == RIGHT
        and images.skipped == {}
        and images.num_by_number == 0
        and images.num_without_image == 0
    )


def test_keys_without_sidecars_are_no_row_numbers(tmp_path):
    assert sorted(pairs(Cc3mTsv(made.img2dataset(tmp_path / '10', 10, meta=())))) == RIGHT
    message = refused(Cc3mTsv, made.img2dataset(tmp_path / '5', 5, meta=()))
    assert 'are not row numbers' in message and 'has the rows 0..11' in message


def test_folders_of_pictures_with_captions_beside_them_are_no_classes(tmp_path):
    root = made.img2dataset(tmp_path / 'set', 5) / 'images'
    assert 'has its caption in a file beside it' in refused(open_captions, root)


def test_pictures_without_a_row_are_named_and_contradictions_are_errors(tmp_path):
    def elsewhere(row, about):
        if row == 3:
            about.update(url='http://y/3.jpg')

    images = Cc3mTsv(made.img2dataset(tmp_path / 'a', 5, change=elsewhere))
    assert sorted(pairs(images)) == [p for p in RIGHT if p[0] != 3] and images.num_without_image == 1
    assert list(images.skipped.values()) == ['its url is in no row of set.tsv'] and '000003.jpg' in next(
        iter(images.skipped)
    )

    for name, change in (('b', {'caption': 'another', 'txt': 'another'}), ('c', {'txt': 'another'})):
        message = refused(
            Cc3mTsv,
            made.img2dataset(
                tmp_path / name, 5, change=lambda row, about, change=change: about.update(change) if row == 4 else None
            ),
        )
        assert '000004.jpg' in message and 'another' in message
    root = made.img2dataset(tmp_path / 'd', 10, meta=('json',))
    (root / 'images' / '00000' / '000002.json').write_text('{"url": ')
    images = Cc3mTsv(root)
    assert (
        sorted(pairs(images)) == [p for p in RIGHT if p[0] != 2]
        and 'damaged' in images.skipped['images/00000/000002.jpg']
    )


def test_a_number_is_not_believed_where_others_are_seen_to_be_no_rows(tmp_path):
    root = made.img2dataset(tmp_path / 'set', 5)
    for suffix in ('.json', '.txt'):
        (root / 'images' / '00001' / f'000010{suffix}').unlink()  # of row 5; row 10 has another picture
    images = Cc3mTsv(root)
    assert sorted(pairs(images)) == [p for p in RIGHT if p[0] != 5] and list(images.skipped) == [
        'images/00001/000010.jpg'
    ]


def test_quotes_that_tools_take_for_those_of_the_table(tmp_path):
    text = made.table().replace('caption 4', '" caption " 4 "')
    assert '"' not in text.replace('" caption " 4 "', '') and text.count('"') == 3
    images = Cc3mTsv(
        made.img2dataset(
            tmp_path / 'set',
            5,
            text,
            change=lambda row, about: about.update(caption=caption_of(row), txt=caption_of(row)),
        )
    )
    assert sorted(pairs(images))[4] == (4, '" caption " 4 "') and len(images) == 12


def test_prepare_data_shows_what_belongs_to_no_row_and_what_has_no_picture(tmp_path):
    root = made.img2dataset(
        tmp_path / 'set', 5, change=lambda row, about: about.update(url='http://y/') if row == 3 else None
    )
    done = call('cc3m-tsv', '--src', root, '--out', tmp_path / 'out', '--size', 16)
    assert done.returncode == 0 and 'kept 11 (1 of 12 rows have no image), skipped 1' in done.stdout, done.stderr
    assert (
        tmp_path / 'out' / 'skipped.txt'
    ).read_text() == 'images/00000/000003.jpg\tits url is in no row of set.tsv\n'
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert [summary[name] for name in ('num_rows', 'num_without_image', 'num_by_number', 'num_kept')] == [12, 1, 0, 11]
    one = made.numbered(tmp_path / 'one', first=1)
    done = call('cc3m-tsv', '--src', one, '--out', tmp_path / 'out1', '--size', 16)
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and '--first-number 1' in done.stderr
    assert (
        'kept 12,'
        in call('cc3m-tsv', '--src', one, '--out', tmp_path / 'out1', '--size', 16, '--first-number', 1).stdout
    )
    done = call(
        'webdataset', '--src', made.retrieval(tmp_path / 'wds') / 'test', '--out', tmp_path / 'out2', '--size', 16
    )
    assert 'kept 8,' in done.stdout and 'the first one is used' in done.stderr


def test_checksums_are_believed_where_numbers_start_at_1(tmp_path):
    root = made.numbered(tmp_path / 'set', numbers=())
    for row in range(12):
        save(root / 'training' / f'{row + 1}_{zlib.crc32(f"http://x/{row}.jpg".encode())}', row)
    assert sorted(pairs(Cc3mTsv(root))) == RIGHT


def test_equal_captions_and_urls_of_several_rows(tmp_path):
    text = made.table(caption=lambda row: 'the same')
    root = made.img2dataset(
        tmp_path / 'set',
        5,
        text,
        change=lambda row, about: about.update(caption='the same', txt='the same'),
        meta=('txt',),
    )
    assert sorted(pairs(Cc3mTsv(root))) == [(row, 'the same') for row in range(12)]


def test_pictures_numbered_from_1_are_noticed(tmp_path):
    root = made.numbered(tmp_path / 'one', first=1)
    assert '--first-number 1' in refused(Cc3mTsv, root)
    assert sorted(pairs(Cc3mTsv(root, first_number=1))) == RIGHT
    assert sorted(pairs(Cc3mTsv(made.numbered(tmp_path / 'zero')))) == RIGHT
    both = made.numbered(tmp_path / 'both')
    save(both / '12.jpg', MASK)
    message = refused(Cc3mTsv, both)
    assert '12.jpg has the number 12' in message and '--first-number 1' not in message
    images = Cc3mTsv(both, first_number=0)
    assert sorted(pairs(images)) == RIGHT and '12.jpg' in images.skipped


def test_numbers_that_nothing_confirms_are_said(tmp_path, capfd):
    images = Cc3mTsv(made.numbered(tmp_path, first=0, numbers=(3, 4)))
    assert sorted(pairs(images)) == RIGHT[3:5] and images.num_by_number == 2 and images.num_without_image == 10
    assert 'only by their numbers' in capfd.readouterr().err


LONG = 'two "words"\nand a\ttab'
TABLES = {
    'bom': made.table().encode('utf-8-sig'),
    'no header': made.table(header='').encode(),
    'capitals': made.table(header='TEXT\tURL').encode(),
    'bom and capitals': made.table(header='TEXT\tURL').encode('utf-8-sig'),
    'crlf': made.table(end='\r\n').encode(),
    'bom without header': made.table(header='').encode('utf-8-sig'),
    'utf-16': made.table().encode('utf-16'),
    'utf-16 without header': made.table(header='').encode('utf-16'),
    'url first': made.table(header='url\tcaption', columns=('url', 'caption')).encode(),
    'Image_URL first': made.table(header='Image_URL\tTitle', columns=('url', 'caption')).encode(),
    'url first, no header': made.table(header='', columns=('url', 'caption')).encode(),
    'four columns': made.table(header='id\tURL\twidth\tTEXT', columns=('id', 'url', 'width', 'caption')).encode(),
    'spaces': made.table(header=' Caption \t Url ').encode(),
    'all quoted': made.table(header='"caption"\t"url"', quote=csv.QUOTE_ALL).encode(),
    'blank line at the end': (made.table() + '\n\n').encode(),
    'one name': made.table(header='sentence\turl').encode(),
}


@pytest.mark.parametrize('text', TABLES.values(), ids=TABLES)
def test_tables_are_read_as_tables(tmp_path, text):
    for name, write in (('numbers', made.numbered), ('sidecars', lambda root, text: made.img2dataset(root, 5, text))):
        images = Cc3mTsv(write(tmp_path / name, text=text))
        assert sorted(pairs(images)) == RIGHT and images.num_rows == 12


@pytest.mark.parametrize('header', ['caption\turl', ''])
def test_quoted_captions_with_line_breaks_and_official_ones_with_quotes(tmp_path, header):
    captions = {2: LONG, 3: '5" pipe', 4: '"quoted"', 7: 'a\n\nb'}
    text = made.table(header=header, caption=lambda row: captions.get(row, caption_of(row)))
    images = Cc3mTsv(made.numbered(tmp_path / 'quoted', text=text))
    assert sorted(pairs(images)) == [(row, captions.get(row, caption_of(row))) for row in range(12)]
    official = ['" i love you " says she', 'a 5" pipe', "don't", '"half', *map(caption_of, range(4, 12))]
    raw = ''.join(f'{caption}\thttp://x/{row}\n' for row, caption in enumerate(official))
    images = Cc3mTsv(made.numbered(tmp_path / 'raw', text=raw))
    assert [caption for _, caption in sorted(pairs(images))] == official


@pytest.mark.parametrize(
    'text, message',
    [
        (made.table().replace('caption 5', 'caption\n5'), 'row 6 .* has no url'),
        (made.table(header='a\tb'), 'does not name'),
        (made.table(columns=('caption', 'id')), 'row 1 .* has no url'),
        (made.table(header='id\turl\twidth', columns=('id', 'url', 'width')), 'does not name'),
    ],
)
def test_tables_in_which_rows_would_move_are_refused(tmp_path, text, message):
    assert re.search(message, refused(Cc3mTsv, made.numbered(tmp_path, text=text)))


# csv


@pytest.mark.parametrize(
    'text, encoding, pair',
    [
        ('dir;text\n0.jpg;a cat\n', 'utf-8', (0, 'a cat')),
        ('dir,text\n0.jpg,a cat\n', 'utf-8-sig', (0, 'a cat')),
        ('dir,text\nimg\\0.jpg,a cat\n', 'utf-8', (1, 'a cat')),
        ('dir,text\n0.jpg,a cat\n', 'utf-16', (0, 'a cat')),
        ('dir\ttext\n0.jpg\ta cat, red\n', 'utf-16', (0, 'a cat, red')),
        ('dir,text\n0.jpg,"a cat\nand a dog"\n', 'utf-8', (0, 'a cat\nand a dog')),
        ('TEXT,Dir\r\n"a ""cat""",0.jpg\r\n', 'utf-8', (0, 'a "cat"')),
        ('text;id;dir\n"a; b";7;0.jpg\n', 'utf-8-sig', (0, 'a; b')),
        ('"dir","text"\n"0.jpg","a cat"\n', 'utf-8', (0, 'a cat')),
        ('dir,text\n.\\img\\0.jpg,a\u2028cat\n', 'utf-8', (1, 'a\u2028cat')),
    ],
)
def test_csv_as_excel_and_pandas_write_it(tmp_path, text, encoding, pair):
    assert pairs(CsvFolder(made.excel(tmp_path, text, encoding))) == [pair]


def test_csv_that_cannot_be_read_right_is_refused(tmp_path):
    for text, encoding, message in (
        ('dir,text\n0.jpg,un caf\xe9\n', 'cp1252', 'not UTF-8'),
        ('dir,text\n0.jpg,"a cat\n0.jpg,b\n', 'utf-8', 'line 3 is not csv'),
        ('dir,text,text\n0.jpg,a,b\n', 'utf-8', 'each once'),
        ('dir,text\n0.jpg,"a" cat\n', 'utf-8', 'line 2 is not csv'),
    ):
        assert message in refused(CsvFolder, made.excel(tmp_path, text, encoding))
    images = CsvFolder(made.excel(tmp_path, 'dir,text\n0.jpg,a cat, red\n0.jpg,a dog\n'))
    assert pairs(images) == [(0, 'a dog')] and 'must be quoted' in good_samples(images)[1]['0.jpg']

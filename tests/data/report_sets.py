"""Data sets on disk as people reported them of other tools. A picture's colour says which caption or class is right:
`number_of`."""

import csv
import io
import json
import math
import tarfile

import numpy as np
from PIL import Image

COUNT = 24
COLOURS = np.array([np.random.default_rng(1000 + i).integers(0, 256, 3) for i in range(COUNT)] + [(128, 128, 128)])
MASK = COUNT  # the number of a picture that must not be taken


def picture(i, size=32):
    return Image.new('RGB', (size, size), tuple(int(v) for v in COLOURS[i]))


def number_of(image):
    """The number of the picture that was drawn."""
    return int(np.abs(COLOURS - np.asarray(image, float).mean((0, 1))).sum(1).argmin())


def encoded(i, kind='JPEG'):
    buffer = io.BytesIO()
    picture(i).save(
        buffer, kind, **({'quality': 95} if kind == 'JPEG' else {'lossless': True} if kind == 'WEBP' else {})
    )
    return buffer.getvalue()


def save(path, i):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(i, 'PNG' if path.suffix == '.png' else 'JPEG'))


def tar(path, members, **options):
    """Write a tar of [(name, bytes)]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w', **options) as out:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if options:
                info.pax_headers = {'LIBARCHIVE.xattr.com.apple.provenance': 'AQAA'}
            out.addfile(info, io.BytesIO(content))
    return path


def class_folders(root, names, pictures=2, hidden=()):
    """A folder a class, its pictures in the colour of its place in `names`; hidden folders with pictures of another
    class."""
    for k, name in enumerate(names):
        for j in range(pictures):
            save(root / name / f'{j}.jpg', k)
    for name in hidden:
        save(root / name / '0-checkpoint.jpg', MASK)
    return root


def retrieval(root, captions=5, extension='txt', lines=None):
    """CLIP_benchmark's export: root/test/0.tar, all captions of a picture in one text, one a line."""
    lines = lines or (lambda i: '\n'.join(f'caption {k} of picture {i}' for k in range(captions)))
    tar(
        root / 'test' / '0.tar',
        [
            (f's{i:07d}.{e}', content)
            for i in range(8)
            for e, content in (('webp', encoded(i, 'WEBP')), (extension, lines(i).encode()))
        ],
    )
    (root / 'dataset_type.txt').write_text('retrieval\n')
    (root / 'test' / 'nshards.txt').write_text('1\n')
    return root


def mac_tar(path):
    """As Finder and bsdtar write it: AppleDouble members, PAX headers, ./ before names, extensions in capitals."""
    members = []
    for i in range(3):
        for extension, content in (('JPG', encoded(i)), ('TXT', f'photo {i} é'.encode())):
            members += [
                (f'./set/._pic{i}.{extension}', b'\0\5\x16\7' + b'\0' * 100),
                (f'./set/pic{i}.{extension}', content),
                (f'__MACOSX/set/pic{i}.{extension}', content),
            ]
    return tar(path, members, format=tarfile.PAX_FORMAT)


def caption_of(row):
    return f'caption {row}'


def table(
    rows=12, header='caption\turl', end='\n', columns=('caption', 'url'), caption=caption_of, quote=csv.QUOTE_MINIMAL
):
    """A TSV as text, quoted where pandas quotes."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter='\t', lineterminator=end, quoting=quote)
    for row in range(rows):
        values = {'caption': caption(row), 'url': f'http://x/{row}.jpg', 'id': str(row), 'width': '32'}
        writer.writerow([values[column] for column in columns])
    return (header + end if header else '') + out.getvalue()


def img2dataset(root, per_shard, text=None, rows=12, meta=('txt', 'json'), change=None):
    """img2dataset's `files`: keys are shard * 10^ceil(log10(per_shard)) + place in the shard. `change(row, about)`
    alters what stands beside."""
    root.mkdir(parents=True, exist_ok=True)
    (root / 'set.tsv').write_bytes(text if isinstance(text, bytes) else (text or table(rows)).encode())
    digits = math.ceil(math.log10(per_shard))
    for row in range(rows):
        shard, place = divmod(row, per_shard)
        key = f'{10**digits * shard + place:0{digits + 5}d}'
        path = root / 'images' / f'{shard:05d}' / key
        save(path.with_suffix('.jpg'), row)
        about = {
            'url': f'http://x/{row}.jpg',
            'caption': caption_of(row),
            'key': key,
            'status': 'success',
            'txt': caption_of(row),
        }
        if change:
            change(row, about)
        if 'txt' in meta:
            path.with_suffix('.txt').write_text(about['txt'])
        if 'json' in meta:
            path.with_suffix('.json').write_text(json.dumps({k: v for k, v in about.items() if k != 'txt'}))
    return root


def numbered(root, first=0, rows=12, text=None, numbers=None):
    """Pictures named by a number alone; picture `first + row` is that of a row."""
    root.mkdir(parents=True, exist_ok=True)
    content = text or table(rows)
    (root / 'set.tsv').write_bytes(content if isinstance(content, bytes) else content.encode())
    for row in range(rows):
        if numbers is None or first + row in numbers:
            save(root / f'{first + row}.jpg', row)
    return root


def excel(root, text, encoding='utf-8'):
    """A csv beside 0.jpg and img/0.jpg."""
    save(root / '0.jpg', 0)
    save(root / 'img' / '0.jpg', 1)
    (root / 'a.csv').write_bytes(text.encode(encoding))
    return root

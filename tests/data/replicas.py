"""Small replicas of the official downloads of the 12 benchmark sets, in their real file formats. A picture's colour
tells its class."""

import json
import pickle
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.io import savemat

from tests.workspace import draw

# fmt: off
COLORS = [
    (220, 30, 30), (30, 200, 30), (40, 40, 230), (230, 220, 40), (30, 210, 220), (220, 40, 220), (250, 250, 250),
    (10, 10, 10), (140, 80, 20), (130, 130, 130),
]
# fmt: on


@dataclass
class Replica:
    """What was written: the official folder, and what a reader must find."""

    folder: str  # below the root; '' for a set that lies in the root itself
    names: list  # or None
    labels: list
    needed: list  # files and folders below the root, each of which is missed when it is gone


def color_of(image):
    """The class whose colour a picture has."""
    mean = np.asarray(image, float).mean((0, 1))
    return int(np.abs(np.array(COLORS) - mean).sum(1).argmin())


def picture(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (16, 12), COLORS[label]).save(path)


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


# CIFAR


def py2_pickle(value):
    """Protocol 2 as Python 2's cPickle wrote it: strings are bytes (U, T), arrays calls of
    numpy.core.multiarray._reconstruct."""
    return b'\x80\x02' + _py2(value) + b'.'


def _py2(value):
    if isinstance(value, dict):
        return b'}q\x01(' + b''.join(_py2(k) + _py2(v) for k, v in value.items()) + b'u'
    if isinstance(value, list):
        return b']q\x02(' + b''.join(map(_py2, value)) + b'e'
    if isinstance(value, np.ndarray):
        raw, shape = value.tobytes(), b''.join(b'M' + struct.pack('<H', n) for n in value.shape) + b'\x86'
        dtype = b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
        start = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R'
        return start + b'(K\x01' + shape + dtype + b'\x89T' + struct.pack('<i', len(raw)) + raw + b'tb'
    if isinstance(value, int):
        return b'K' + bytes([value]) if value < 256 else b'J' + struct.pack('<i', value)
    return b'U' + bytes([len(value)]) + value.encode()


def cifar_pixels(labels):
    """uint8 (N, 3072): all of red, then green, then blue; with one black corner, upper left, to see that rows are
    rows."""
    pixels = np.stack([np.repeat(np.array(COLORS[label], np.uint8), 1024) for label in labels])
    pixels.reshape(-1, 3, 32, 32)[:, :, :2, :6] = 0
    return pixels


def cifar(root, fine, write=py2_pickle):
    labels, names = [1, 0, 2, 2], ['aquarium_fish', 'cat', 'ship']
    folder = 'cifar-100-python' if fine else 'cifar-10-batches-py'
    path, meta = (root / folder / name for name in (('test', 'meta') if fine else ('test_batch', 'batches.meta')))
    path.parent.mkdir()
    batch = {
        'batch_label': 'testing batch 1 of 1',
        'data': cifar_pixels(labels),
        'filenames': [f'{i}.png' for i in range(4)],
    }
    batch.update({'coarse_labels': [9, 9, 9, 9], 'fine_labels': labels} if fine else {'labels': labels})
    path.write_bytes(write(batch))
    content = (
        {'fine_label_names': names, 'coarse_label_names': ['all']} if fine else {'num_vis': 3072, 'label_names': names}
    )
    meta.write_bytes(write(content))
    return Replica(folder, ['aquarium fish', 'cat', 'ship'], labels, [f'{folder}/{path.name}', f'{folder}/{meta.name}'])


def cifar_binary(root, fine):
    labels, names = [1, 0, 2, 2], ['aquarium_fish', 'cat', 'ship']
    folder = 'cifar-100-binary' if fine else 'cifar-10-batches-bin'
    path, meta = (
        root / folder / name
        for name in (('test.bin', 'fine_label_names.txt') if fine else ('test_batch.bin', 'batches.meta.txt'))
    )
    text(meta, names + [''])  # the official one ends with a blank line, too
    path.write_bytes(
        b''.join(
            (b'\x09' if fine else b'') + bytes([label]) + row.tobytes()
            for label, row in zip(labels, cifar_pixels(labels), strict=True)
        )
    )
    return Replica(folder, ['aquarium fish', 'cat', 'ship'], labels, [f'{folder}/{meta.name}'])


# folders


def caltech(root):
    folders = ['Faces', 'Faces_easy', 'accordion', 'yin_yang']
    for label, folder in enumerate(folders):
        for i in (1, 2):
            picture(root / '101_ObjectCategories' / folder / f'image_{i:04d}.jpg', label)
    picture(root / '101_ObjectCategories' / 'BACKGROUND_Google' / 'image_0001.jpg', 9)
    (root / '101_ObjectCategories' / 'BACKGROUND_Google' / 'tmp').write_text('')
    return Replica(
        '101_ObjectCategories',
        ['Faces', 'Faces easy', 'accordion', 'yin yang'],
        [0, 0, 1, 1, 2, 2, 3, 3],
        ['101_ObjectCategories/accordion', '101_ObjectCategories/accordion/*', '101_ObjectCategories/yin_yang/*'],
    )


def eurosat(root):
    # fmt: off
    folders = [
        'AnnualCrop', 'Forest', 'HerbaceousVegetation', 'Highway', 'Industrial', 'Pasture', 'PermanentCrop',
        'Residential', 'River', 'SeaLake',
    ]
    # fmt: on
    for label, folder in enumerate(folders):
        for i in (1, 2):
            picture(root / '2750' / folder / f'{folder}_{i}.jpg', label)
    # fmt: off
    names = [
        'Annual Crop', 'Forest', 'Herbaceous Vegetation', 'Highway', 'Industrial', 'Pasture', 'Permanent Crop',
        'Residential', 'River', 'Sea Lake',
    ]
    # fmt: on
    return Replica('2750', names, [i // 2 for i in range(20)], ['2750/Forest', '2750/SeaLake/*'])


# lists


def food(root):
    classes = ['apple_pie', 'baby_back_ribs', 'beef_carpaccio']
    base = root / 'food-101'
    text(base / 'meta' / 'classes.txt', classes)
    text(base / 'meta' / 'labels.txt', ['Apple pie', 'Baby back ribs', 'Beef carpaccio'])
    for split, start in (('train', 100), ('test', 200)):
        text(base / 'meta' / f'{split}.txt', [f'{c}/{start + i}' for c in classes for i in range(2)])
        for label, c in enumerate(classes):
            for i in range(2):
                picture(base / 'images' / c / f'{start + i}.jpg', label if split == 'test' else 9)
    return Replica(
        'food-101',
        ['Apple pie', 'Baby back ribs', 'Beef carpaccio'],
        [0, 0, 1, 1, 2, 2],
        [
            'food-101/meta/classes.txt',
            'food-101/meta/labels.txt',
            'food-101/meta/test.txt',
            'food-101/images/apple_pie/200.jpg',
        ],
    )


def sun(root):
    classes = ['/a/abbey', '/a/apartment_building/outdoor', '/z/zen_garden']
    base, partitions = root / 'SUN397', root / 'Partitions'
    text(base / 'ClassName.txt', classes)
    text(partitions / 'ClassName.txt', classes)
    files = [f'{c}/sun_a{i}bc.jpg' for c in classes for i in range(2)]
    text(partitions / 'Testing_01.txt', files)
    text(partitions / 'Testing_02.txt', [c + '/sun_other.jpg' for c in classes])
    for i, file in enumerate(files):
        picture(base / file[1:], i // 2)
    for c in classes:
        picture(base / c[1:] / 'sun_other.jpg', 9)
    return Replica(
        'SUN397',
        ['abbey', 'apartment building outdoor', 'zen garden'],
        [0, 0, 1, 1, 2, 2],
        ['SUN397/a/abbey/sun_a0bc.jpg', 'SUN397/z'],
    )


def dtd(root):
    classes = ['banded', 'chequered', 'polka-dotted']
    base = root / 'dtd'
    for split, number in (('train1', 1), ('val1', 2), ('test1', 3), ('test2', 1)):
        text(base / 'labels' / f'{split}.txt', [f'{c}/{c}_{number:04d}.jpg' for c in classes])
    for label, c in enumerate(classes):
        for number in (1, 2, 3):
            picture(base / 'images' / c / f'{c}_{number:04d}.jpg', label if number == 3 else 9)
    return Replica(
        'dtd', classes, [0, 1, 2], ['dtd/labels/test1.txt', 'dtd/images/banded/banded_0003.jpg', 'dtd/images']
    )


def aircraft(root, data='fgvc-aircraft-2013b/data'):
    variants = ['707-320', 'Boeing 717', 'F/A-18']
    base = root / data
    text(base / 'variants.txt', variants)
    for split, start in (('trainval', 34309), ('test', 1514522)):
        text(base / f'images_variant_{split}.txt', [f'{start + i:07d} {v}' for i, v in enumerate(variants)])
        for i in range(3):
            picture(base / 'images' / f'{start + i:07d}.jpg', i if split == 'test' else 9)
    return Replica(
        data,
        variants,
        [0, 1, 2],
        [f'{data}/variants.txt', f'{data}/images_variant_test.txt', f'{data}/images/1514522.jpg'],
    )


def pets(root):
    breeds = ['Abyssinian', 'american_pit_bull_terrier', 'Bengal']  # ids follow the alphabet, whatever the case
    base = root / 'oxford-iiit-pet'
    for split, start in (('trainval', 1), ('test', 200)):
        text(
            base / 'annotations' / f'{split}.txt',
            [f'{b}_{start + i} {label + 1} 1 1' for label, b in enumerate(breeds) for i in range(2)],
        )
        for label, b in enumerate(breeds):
            for i in range(2):
                picture(base / 'images' / f'{b}_{start + i}.jpg', label if split == 'test' else 9)
    return Replica(
        'oxford-iiit-pet',
        ['Abyssinian', 'american pit bull terrier', 'Bengal'],
        [0, 0, 1, 1, 2, 2],
        [
            'oxford-iiit-pet/annotations/test.txt',
            'oxford-iiit-pet/annotations',
            'oxford-iiit-pet/images/Abyssinian_200.jpg',
        ],
    )


# .mat


def cells(values):
    """A 1 x N cell array of strings."""
    array = np.empty((1, len(values)), object)
    array[0] = values
    return array


def structs(fields, rows, shape):
    """A struct array, as MATLAB's `s(i).field = value` makes it."""
    array = np.empty(len(rows), [(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[i] = row
    return array.reshape(shape)


def cars(root):
    names = ['AM General Hummer SUV 2000', 'Acura RL Sedan 2012', 'Ram C/V Cargo Van Minivan 2012']
    labels = [2, 0, 1, 0]
    (root / 'devkit').mkdir()
    savemat(root / 'devkit' / 'cars_meta.mat', {'class_names': cells(names)})
    fields = ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2', 'class', 'fname')
    rows = [
        (np.uint8(1), np.uint16(2), np.uint16(10), np.uint16(11), np.uint8(label + 1), f'{i + 1:05d}.jpg')
        for i, label in enumerate(labels)
    ]
    savemat(root / 'cars_test_annos_withlabels.mat', {'annotations': structs(fields, rows, (1, -1))})
    no_labels = structs(fields[:4] + fields[5:], [row[:4] + row[5:] for row in rows], (1, -1))
    savemat(root / 'devkit' / 'cars_test_annos.mat', {'annotations': no_labels})
    for i, label in enumerate(labels):
        picture(root / 'cars_test' / f'{i + 1:05d}.jpg', label)
    return Replica(
        '',
        names,
        labels,
        ['devkit/cars_meta.mat', 'cars_test_annos_withlabels.mat', 'cars_test/00001.jpg', 'cars_test'],
    )


def flowers(root):
    labels = [3, 1, 2, 1, 3]  # of image_00001 ...
    base = root / 'flowers-102'
    for i, label in enumerate(labels):
        picture(base / 'jpg' / f'image_{i + 1:05d}.jpg', label - 1)
    savemat(base / 'imagelabels.mat', {'labels': np.array([labels], np.uint8)})
    savemat(
        base / 'setid.mat',
        {
            'trnid': np.array([[3]], np.uint16),
            'valid': np.array([[2]], np.uint16),
            'tstid': np.array([[5, 1, 4]], np.uint16),
        },
    )
    return Replica(
        'flowers-102',
        None,
        [2, 2, 0],
        [f'flowers-102/{f}' for f in ('imagelabels.mat', 'setid.mat', 'jpg/image_00005.jpg', 'jpg')],
    )


WNIDS = ['n02012849', 'n01440764', 'n03126707']  # as the devkit numbers them: not sorted
WORDS = ['crane', 'tench, Tinca tinca', 'crane']


def imagenet_devkit(root, truth):
    data = root / 'ILSVRC2012_devkit_t12' / 'data'
    data.mkdir(parents=True)
    # fmt: off
    fields = (
        'ILSVRC2012_ID', 'WNID', 'words', 'gloss', 'num_children', 'children', 'wordnet_height', 'num_train_images',
    )
    # fmt: on
    rows = [
        (np.int16(i + 1), wnid, words, 'a gloss', np.uint8(0), np.zeros((1, 0)), np.uint8(0), np.uint16(1300))
        for i, (wnid, words) in enumerate(zip(WNIDS, WORDS, strict=True))
    ]
    # fmt: off
    rows.append((
        np.int16(4), 'n00001740', 'entity', 'all there is',
        np.uint8(3), np.array([[1, 2, 3]]), np.uint8(19), np.uint16(0),
    ))
    # fmt: on
    savemat(data / 'meta.mat', {'synsets': structs(fields, rows, (-1, 1))})
    text(data / 'ILSVRC2012_validation_ground_truth.txt', map(str, truth))
    return 'ILSVRC2012_devkit_t12/data/'


def imagenet_flat(root):
    data = imagenet_devkit(root, [3, 1, 2, 2])
    labels = [2, 1, 0, 0]  # places of the ids in order: n01440764, n02012849, n03126707
    for i, label in enumerate(labels):
        picture(root / 'val' / f'ILSVRC2012_val_{i + 1:08d}.JPEG', label)
    return Replica(
        'val',
        ['tench', 'crane', 'crane'],
        labels,
        ['val/ILSVRC2012_val_00000003.JPEG', data + 'meta.mat', data + 'ILSVRC2012_validation_ground_truth.txt'],
    )


def imagenet_folders(root):
    imagenet_devkit(root, [3, 1, 2, 2])
    for label, wnid in enumerate(sorted(WNIDS)):
        for i in range(2):
            picture(root / 'val' / wnid / f'ILSVRC2012_val_{2 * label + i + 1:08d}.JPEG', label)
    return Replica(
        'val', ['tench', 'crane', 'crane'], [0, 0, 1, 1, 2, 2], ['val/n01440764', 'val/n03126707', 'val/n03126707/*']
    )


# (data set, variant) -> function of the root that writes it
REPLICAS = {
    ('cifar10', 'python'): lambda root: cifar(root, False),
    ('cifar10', 'binary'): lambda root: cifar_binary(root, False),
    ('cifar10', 'python 3'): lambda root: cifar(root, False, lambda content: pickle.dumps(content, 4)),
    ('cifar100', 'python'): lambda root: cifar(root, True),
    ('cifar100', 'binary'): lambda root: cifar_binary(root, True),
    ('caltech101', ''): caltech,
    ('stanfordcars', ''): cars,
    ('flowers102', ''): flowers,
    ('food101', ''): food,
    ('sun397', ''): sun,
    ('dtd', ''): dtd,
    ('aircraft', ''): aircraft,
    ('aircraft', 'data'): lambda root: aircraft(root, 'data'),
    ('aircraft', 'no data'): lambda root: aircraft(root, 'fgvc-aircraft-2013b'),
    ('oxfordpets', ''): pets,
    ('eurosat', ''): eurosat,
    ('imagenet', 'flat'): imagenet_flat,
    ('imagenet', 'folders'): imagenet_folders,
}


def make_coco(root, splits=('test', 'train', 'test', 'restval')):
    """Karpathy's file and val2014/: a picture a split, with five or six captions."""
    (root / 'val2014').mkdir(parents=True)
    images = []
    for i, (split, colour) in enumerate(zip(splits, ('red', 'green', 'blue', 'black'), strict=True)):
        name = f'COCO_val2014_{i:012d}.jpg'
        draw(colour, 'square').save(root / 'val2014' / name)
        sentences = [
            {'tokens': ['a', colour], 'raw': f' A {colour} thing {k}.', 'imgid': i, 'sentid': 5 * i + k}
            for k in range(5 + i % 2)
        ]
        images.append(
            {
                'filepath': 'val2014',
                'filename': name,
                'imgid': i,
                'split': split,
                'cocoid': 100 + i,
                'sentids': [s['sentid'] for s in sentences],
                'sentences': sentences,
            }
        )
    (root / 'dataset_coco.json').write_text(json.dumps({'images': images, 'dataset': 'coco'}))

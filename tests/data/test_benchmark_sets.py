"""The 12 benchmark sets, read from small replicas of their official downloads."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from diffdis_ms.data.benchmarks.class_names import TEMPLATES, read_templates
from diffdis_ms.data.benchmarks.prompt_templates import DATASET_TEMPLATES
from diffdis_ms.data.benchmarks.sets import BENCHMARKS, open_benchmark
from diffdis_ms.data.sources.webdataset import TarWriter
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.evaluate.datasets import ZEROSHOT_SETS, open_zeroshot
from tests.data import replicas
from tests.data.replicas import REPLICAS

EACH = pytest.mark.parametrize('name, variant', REPLICAS, ids=lambda name: name.replace(' ', '-'))


def refused(name, root):
    """The one line with which a data set is refused."""
    with pytest.raises(ConfigError) as error:
        open_benchmark(name, root)
    message = str(error.value)
    assert '\n' not in message and message.startswith(f'{name}: ')
    return message


def read_all(name, root):
    reader = open_benchmark(name, root)
    return reader, [reader.read(i) for i in range(len(reader))]


def test_all_twelve_have_replicas_and_templates():
    assert len(BENCHMARKS) == 12 and {name for name, _ in REPLICAS} == set(BENCHMARKS) == set(DATASET_TEMPLATES)
    assert set(BENCHMARKS) < set(ZEROSHOT_SETS)


@EACH
def test_counts_labels_names_and_pictures(tmp_path, name, variant):
    replica = REPLICAS[name, variant](tmp_path)
    for root in {tmp_path, tmp_path / replica.folder}:
        reader, samples = read_all(name, root)
        assert reader.class_names == replica.names
        assert reader.num_classes == (len(replica.names) if replica.names else 3)
        assert [s.label for s in samples] == replica.labels == [replicas.color_of(s.image) for s in samples]
        assert [s.caption for s in samples] == [replica.names[i] if replica.names else '' for i in replica.labels]
        assert all(s.image.mode == 'RGB' for s in samples) and len({s.key for s in samples}) == len(samples)
        assert 'officially' in reader.split and str(BENCHMARKS[name][1]) in reader.split


@EACH
def test_every_missing_file_is_named(tmp_path, name, variant):
    replica = REPLICAS[name, variant](tmp_path)
    for path in replica.needed:
        shutil.copytree(tmp_path, copy := tmp_path.with_name('copy'))
        gone = copy / path
        for file in gone.parent.glob(gone.name):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        assert str(gone.parent if gone.name == '*' else gone) in refused(name, copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    'name, path',
    [
        ('cifar10', 'cifar-10-batches-py/test_batch'),
        ('cifar100', 'cifar-100-python/test'),
        ('caltech101', '101_ObjectCategories/accordion'),
        ('stanfordcars', 'stanford_cars/devkit/cars_meta.mat'),
        ('flowers102', 'flowers-102/imagelabels.mat'),
        ('dtd', 'dtd/labels/test1.txt'),
        ('food101', 'food-101/meta/classes.txt'),
        ('sun397', 'SUN397/ClassName.txt'),
        ('aircraft', 'fgvc-aircraft-2013b/data/variants.txt'),
        ('oxfordpets', 'oxford-iiit-pet/annotations/test.txt'),
        ('eurosat', '2750/AnnualCrop'),
        ('imagenet', 'val/ILSVRC2012_val_00000001.JPEG'),
    ],
)
def test_an_empty_folder_is_told_what_belongs_there(tmp_path, name, path):
    assert str(tmp_path / path) in refused(name, tmp_path)
    assert 'is not a directory' in refused(name, tmp_path / 'none')


def test_names_and_splits_that_do_not_exist(tmp_path):
    with pytest.raises(ConfigError, match='none of cifar10, '):
        open_benchmark('mnist', tmp_path)
    with pytest.raises(ConfigError, match="not on 'train'"):
        open_benchmark('dtd', tmp_path, 'train')
    replicas.imagenet_flat(tmp_path)
    for split in (None, 'test', 'val'):
        assert open_zeroshot('imagenet', tmp_path, split=split)[0].split.startswith('validation')
    with pytest.raises(ConfigError, match="not on 'train'"):
        open_zeroshot('imagenet', tmp_path, split='train')
    with pytest.raises(ConfigError, match='split: folder has no splits'):
        open_zeroshot('folder', tmp_path, split='test')


def test_pictures_that_cannot_be_used_are_bad_samples(tmp_path):
    replicas.dtd(tmp_path)
    (tmp_path / 'dtd/images/banded/banded_0003.jpg').write_bytes(b'no picture')
    reader = open_benchmark('dtd', tmp_path)
    with pytest.raises(BadSample, match='banded/banded_0003.jpg'):
        reader.read(0)
    assert reader.read(1).label == 1


def test_missing_pictures_are_counted(tmp_path):
    replicas.food(tmp_path)
    shutil.rmtree(tmp_path / 'food-101/images')
    assert '6 of the 6 images' in refused('food101', tmp_path)


# CIFAR


def test_cifar_rows_are_rows(tmp_path):
    replicas.cifar(tmp_path, False)
    image = np.asarray(open_benchmark('cifar10', tmp_path).read(0).image)
    assert not image[:2, :6].any() and image[2:].any(-1).all() and image[:, 6:].any(-1).all()


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize('as_bytes', [False, True])
def test_cifar_written_anew_by_python_3(tmp_path, protocol, as_bytes):
    def write(content):
        content = {k.encode(): v for k, v in content.items()} if as_bytes else content
        return pickle.dumps(content, protocol)

    replica = replicas.cifar(tmp_path, True, write)
    reader, samples = read_all('cifar100', tmp_path)
    assert reader.class_names == replica.names and [replicas.color_of(s.image) for s in samples] == replica.labels


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def test_a_hostile_cifar_pickle_does_nothing(tmp_path):
    replicas.cifar(tmp_path, False)
    proof = tmp_path / 'proof'
    evil = Evil(os.system, f'touch {proof}')
    path = tmp_path / 'cifar-10-batches-py' / 'test_batch'
    for content in (
        evil,
        {'data': evil, 'labels': [0]},
        {'data': replicas.cifar_pixels([0]), 'labels': evil},
        {'data': replicas.cifar_pixels([0]), 'labels': [evil]},
    ):
        path.write_bytes(pickle.dumps(content, 2))
        assert str(path) in refused('cifar10', tmp_path)
        assert not proof.exists()
    path.write_bytes(pickle.dumps({'x': evil, 'data': replicas.cifar_pixels([0]), 'labels': [1]}, 2))
    assert open_benchmark('cifar10', tmp_path).read(0).label == 1 and not proof.exists()
    pickle.loads(pickle.dumps(evil, 2))
    assert proof.exists()  # it would have


def test_damaged_cifar_files_are_refused(tmp_path):
    replicas.cifar(tmp_path, False)
    path, meta = (tmp_path / 'cifar-10-batches-py' / file for file in ('test_batch', 'batches.meta'))
    sound, pixels = path.read_bytes(), replicas.cifar_pixels([0, 1])
    contents = [b'', sound[:100], sound[:-1], sound[:5000], pickle.dumps([1]), pickle.dumps({'labels': [0]})]
    for data, labels in (
        (pixels, [0]),
        (pixels, [0, 3]),
        (pixels, [0, -1]),
        (pixels, [0, None]),
        (pixels, 'ab'),
        (pixels[:, :-1], [0, 1]),
        (pixels.astype(int), [0, 1]),
        (np.asfortranarray(pixels), [0, 1]),
        ('x', [0, 1]),
        (pixels[:0], []),
        (pixels.ravel(), [0, 1]),
    ):
        contents.append(pickle.dumps({'data': data, 'labels': labels}, 2))
    wrong_size = sound.replace(b'M\x04\x00M\x00\x0c\x86', b'M\x05\x00M\x00\x0c\x86')
    assert wrong_size != sound
    for content in contents + [wrong_size, sound.replace(b'U\x02u1', b'U\x02f8')]:
        path.write_bytes(content)
        assert str(path) in refused('cifar10', tmp_path)
    path.write_bytes(sound)
    for content in (
        {'label_names': 3},
        {'label_names': []},
        {'label_names': ['a', 3, 'c']},
        {'label_names': ['a', b'\xff', 'c']},
        {'other': []},
    ):
        meta.write_bytes(pickle.dumps(content, 2))
        assert str(meta) in refused('cifar10', tmp_path)


def test_damaged_binary_cifar_is_refused(tmp_path):
    replicas.cifar_binary(tmp_path, True)
    path = tmp_path / 'cifar-100-binary' / 'test.bin'
    sound = path.read_bytes()
    for content, reason in (
        (sound[:-1], 'it is truncated'),
        (b'', 'it is truncated'),
        (b'\0\x03' + sound[2:], "'3' is not a number in 0..2"),
    ):
        path.write_bytes(content)
        message = refused('cifar100', tmp_path)
        assert str(path) in message and reason in message
    path.unlink()
    assert 'cifar-100-python/test,' in refused('cifar100', tmp_path)


# malformed lists and .mat files


@pytest.mark.parametrize(
    'name, path, content',
    [
        ('food101', 'food-101/meta/test.txt', 'pizza/1'),
        ('food101', 'food-101/meta/test.txt', ''),
        ('food101', 'food-101/meta/test.txt', b'\xff\xfe'),
        ('food101', 'food-101/meta/test.txt', 'apple_pie/\0'),
        ('food101', 'food-101/meta/labels.txt', 'one'),
        ('food101', 'food-101/meta/classes.txt', 'a\na\nb'),
        ('sun397', 'Partitions/Testing_01.txt', '/b/bakery/sun_a.jpg'),
        ('sun397', 'Partitions/Testing_01.txt', 'x'),
        ('sun397', 'SUN397/ClassName.txt', '/a'),
        ('dtd', 'dtd/labels/test1.txt', 'banded'),
        ('dtd', 'dtd/labels/test1.txt', '../../secret.jpg'),
        ('dtd', 'dtd/labels/test1.txt', 'banded/../../secret.jpg'),
        ('aircraft', 'fgvc-aircraft-2013b/data/images_variant_test.txt', '1514522 747'),
        ('aircraft', 'fgvc-aircraft-2013b/data/images_variant_test.txt', '../../1514522 707-320'),
        ('oxfordpets', 'oxford-iiit-pet/annotations/test.txt', 'Abyssinian_200 1'),
        ('oxfordpets', 'oxford-iiit-pet/annotations/test.txt', 'Abyssinian_200 38 1 1'),
        ('oxfordpets', 'oxford-iiit-pet/annotations/test.txt', 'Abyssinian_200 x 1 1'),
        ('oxfordpets', 'oxford-iiit-pet/annotations/test.txt', 'Abyssinian_200 2 1 1'),
        ('oxfordpets', 'oxford-iiit-pet/annotations/test.txt', 'Abyssinian_200 1 1 1\nBengal_200 1 1 1'),
        ('imagenet', 'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt', '3\n1\n4\n2'),
        ('imagenet', 'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt', '3\n1\n2'),
        ('imagenet', 'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt', '3\n1\nx\n2'),
    ],
)
def test_malformed_lists_are_refused(tmp_path, name, path, content):
    next(write for (n, _), write in REPLICAS.items() if n == name)(tmp_path)
    replicas.picture(tmp_path / 'secret.png', 0)
    (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert os.path.basename(path) in refused(name, tmp_path)


@pytest.mark.parametrize(
    'name, path, contents',
    [
        ('stanfordcars', 'devkit/cars_meta.mat', [{'other': 1}, {'class_names': 3}, {'class_names': np.zeros((2, 2))}]),
        (
            'stanfordcars',
            'cars_test_annos_withlabels.mat',
            [
                {'annotations': 1},
                {'annotations': {'fname': 'a'}},
                {'annotations': {'fname': '00001.jpg', 'class': 4}},
                {'annotations': {'fname': '00001.jpg', 'class': 0}},
                {'annotations': {'fname': '../x.jpg', 'class': 1}},
                {'annotations': {'fname': 3, 'class': 1}},
                {'annotations': {'fname': '00001.jpg', 'class': 'x'}},
            ],
        ),
        (
            'flowers102',
            'flowers-102/imagelabels.mat',
            [{'labels': [103]}, {'labels': [0.5, 1]}, {'labels': []}, {'labels': [[1, 2], [1, 2]]}],
        ),
        ('flowers102', 'flowers-102/setid.mat', [{'trnid': [1]}, {'tstid': [6]}, {'tstid': [0]}, {'tstid': [np.nan]}]),
        (
            'imagenet',
            'ILSVRC2012_devkit_t12/data/meta.mat',
            [
                {'synsets': 1},
                {'synsets': {'ILSVRC2012_ID': 1, 'WNID': 'n1', 'words': 'x'}},
                {'synsets': {'ILSVRC2012_ID': 1, 'WNID': 'n1', 'words': 'x', 'num_children': 1}},
                {'synsets': {'ILSVRC2012_ID': 1, 'WNID': 7, 'words': 'x', 'num_children': 0}},
            ],
        ),
    ],
)
def test_malformed_mat_files_are_refused(tmp_path, name, path, contents):
    next(write for (n, _), write in REPLICAS.items() if n == name)(tmp_path)
    path = tmp_path / path
    sound = path.read_bytes()
    for content in (
        b'',
        b'no mat',
        sound[:150],
        sound[:-20],
        b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM' + bytes(400),
    ):
        path.write_bytes(content)
        assert str(path) in refused(name, tmp_path)
    for content in contents:
        savemat(path, content)
        assert str(path) in refused(name, tmp_path)


def test_imagenet_folders_without_devkit_have_no_names(tmp_path):
    replicas.imagenet_folders(tmp_path)
    shutil.rmtree(tmp_path / 'ILSVRC2012_devkit_t12')
    reader, samples = read_all('imagenet', tmp_path / 'val')
    assert reader.class_names is None and reader.num_classes == 3
    assert [s.label for s in samples] == [replicas.color_of(s.image) for s in samples]
    replicas.picture(tmp_path / 'val' / 'ILSVRC2012_val_00000009.JPEG', 0)
    assert 'both' in refused('imagenet', tmp_path)


def test_imagenet_folder_that_is_no_class(tmp_path):
    replicas.imagenet_folders(tmp_path)
    replicas.picture(tmp_path / 'val' / 'n99999999' / 'ILSVRC2012_val_00000009.JPEG', 0)
    assert str(tmp_path / 'val' / 'n99999999') in refused('imagenet', tmp_path)


def test_lists_may_lie_elsewhere(tmp_path):
    replica = replicas.sun(tmp_path)
    for file in ('ClassName.txt', 'Testing_01.txt'):
        os.replace(tmp_path / 'Partitions' / file, tmp_path / 'SUN397' / file)
    assert [s.label for s in read_all('sun397', tmp_path)[1]] == replica.labels
    (tmp_path / 'SUN397' / 'Testing_01.txt').unlink()
    assert 'Testing_01.txt' in refused('sun397', tmp_path)
    replica = replicas.cars(tmp_path)
    os.replace(tmp_path / 'cars_test_annos_withlabels.mat', tmp_path / 'devkit' / 'cars_test_annos_withlabels.mat')
    assert [s.label for s in read_all('stanfordcars', tmp_path)[1]] == replica.labels


# open_zeroshot and templates


def test_open_zeroshot_takes_names_of_the_set_or_given_ones(tmp_path):
    replicas.dtd(tmp_path)
    assert open_zeroshot('dtd', tmp_path)[1] == ['banded', 'chequered', 'polka-dotted']
    assert open_zeroshot('dtd', tmp_path, 'stripes,squares,dots')[1] == ['stripes', 'squares', 'dots']
    with pytest.raises(ConfigError, match='2 names for the 3 classes'):
        open_zeroshot('dtd', tmp_path, 'stripes,squares')
    replicas.flowers(tmp_path)
    with pytest.raises(ConfigError, match='no class names.*--classnames'):
        open_zeroshot('flowers102', tmp_path)
    names = tmp_path / 'names.json'
    names.write_text(
        json.dumps(
            {
                'flowers': ['pink primrose', 'orchid', 'canterbury bells'],
                'imagenet1k': ['sunglasses', 'fish', 'sunglasses'],
                'caltech101': ['background', 'face', 'easy face', 'accordion', 'yin and yang'],
            }
        )
    )
    assert open_zeroshot('flowers102', tmp_path, names)[1][0] == 'pink primrose'
    replicas.imagenet_flat(tmp_path)
    # CLIP's list has it twice
    assert open_zeroshot('imagenet', tmp_path, names)[1] == ['sunglasses', 'fish', 'sunglasses']
    replicas.caltech(tmp_path)
    assert open_zeroshot('caltech101', tmp_path, names)[1] == ['face', 'easy face', 'accordion', 'yin and yang']


def test_clip_benchmarks_webdataset_layout(tmp_path):
    with TarWriter(tmp_path / 'test', samples_per_shard=2) as writer:
        for i in range(3):
            writer.write(f's{i:07d}', Image.new('RGB', (9, 9), replicas.COLORS[i]), '', label=i)
    for i in range(2):
        os.replace(tmp_path / 'test' / f'{i:05d}.tar', tmp_path / 'test' / f'{i}.tar')
    (tmp_path / 'test' / 'nshards.txt').write_text('2')
    (tmp_path / 'classnames.txt').write_text('red fish\ngreen fish\nblue fish\n')
    templates = tmp_path / 'zeroshot_classification_templates.txt'
    templates.write_text('a photo of a {c}.\na {c}, a type of pet.\n')
    for root in (tmp_path, str(tmp_path / 'test')):
        images, names = open_zeroshot('webdataset', root)
        assert names == ['red fish', 'green fish', 'blue fish']
        samples = [images.read(i) for i in range(len(images))]
        assert [s.label for s in samples] == [0, 1, 2] == [replicas.color_of(s.image) for s in samples]
    assert read_templates(templates) == ['a photo of a {}.', 'a {}, a type of pet.']
    (tmp_path / 'classnames.txt').unlink()
    with pytest.raises(ConfigError, match='--classnames'):
        open_zeroshot('webdataset', tmp_path)


def test_clips_templates_by_data_set():
    # fmt: off
    sizes = {
        'cifar10': 18, 'cifar100': 18, 'caltech101': 34, 'stanfordcars': 8, 'flowers102': 1, 'food101': 1, 'sun397': 2,
        'dtd': 8, 'aircraft': 2, 'oxfordpets': 1, 'eurosat': 3, 'imagenet': 80,
    }
    # fmt: on
    for name, size in sizes.items():
        templates = read_templates('clip', name)
        assert len(templates) == len(set(templates)) == size and all(t.count('{}') == 1 for t in templates)
    assert read_templates('clip', 'imagenet') == TEMPLATES['openai'] and read_templates('photo', 'dtd') == [
        'a photo of a {}.'
    ]
    for name in (None, 'emoji'):
        with pytest.raises(ConfigError, match='cifar10') as error:
            read_templates('clip', name)
        assert '\n' not in str(error.value)

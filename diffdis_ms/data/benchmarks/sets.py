"""The paper's 12 zero-shot classification sets, read from their extracted official downloads.

The root may be the official folder or its parent. This table lists what is read, and how other tools differ:

| set | images | classes and their names |
| --- | --- | --- |
| cifar10, cifar100 | test split | the set's own; fine labels |
| caltech101 | all (no official split) | 101 folders: without BACKGROUND_Google, with Faces and Faces_easy |
| stanfordcars | test | cars_meta.mat |
| flowers102 | `tstid`: 6149 images, as in torchvision (some papers swap it with `trnid`) | none: use --classnames |
| food101 | test | meta/labels.txt |
| sun397 | test half of partition 01 of 10 (torchvision: all 108,754) | ClassName.txt: 'a/apse/indoor': 'apse indoor' |
| dtd | partition 1 of 10, test | folders |
| aircraft | test, by variant; with the 20-pixel copyright banner, as in CLIP and torchvision | variants.txt |
| oxfordpets | test | from the names of the images |
| eurosat | all 27,000 (no official split) | folders, words separated: 'AnnualCrop' is 'Annual Crop' |
| imagenet | validation | first synonym, ordered by WordNet id |

Caltech101's background class is not an object. CLIP's and CLIP_benchmark's lists have it as a 102nd class, so their
numbers differ slightly. Underscores in names become spaces; upper and lower case are kept. A missing file or image is
an error, because a metric over part of a split is not comparable. If a set's number of images is not the official one,
its `split` says so (this happens for sets without a list of images).
"""

import re
from pathlib import Path

from diffdis_ms.data.benchmarks.cifar import open_cifar
from diffdis_ms.data.benchmarks.files import (
    FileSet,
    as_integers,
    find_base,
    first_existing,
    images_of,
    listed,
    malformed,
    read_class_lines,
    read_lines,
    refuse_missing,
    required,
    spaced,
)
from diffdis_ms.data.benchmarks.mat import open_cars, open_flowers, open_imagenet
from diffdis_ms.data.listing import folders_of
from diffdis_ms.errors import ConfigError

# fmt: off
EUROSAT = (
    'AnnualCrop', 'Forest', 'HerbaceousVegetation', 'Highway', 'Industrial', 'Pasture', 'PermanentCrop', 'Residential',
    'River', 'SeaLake',
)
# fmt: on
NUM_PETS = 37


def open_benchmark(name, root, split='test', allow_missing=False):
    """Open a benchmark set.

    Args:
        name: one of BENCHMARKS. root: the official folder or its parent.
        split: 'test', which for imagenet is the validation split ('val').
        allow_missing: accept a set with missing images; its `missing` names them.

    Returns:
        An object with `len()`, `.read(i) -> Sample` (raises BadSample), `.class_names` (list or None), `.num_classes`
        and `.split`.

    Raises:
        ConfigError: the set or split is unknown, or a file is missing, truncated or malformed (the message names it).
    """
    if name not in BENCHMARKS:
        raise ConfigError(f'dataset: {name!r} is none of {", ".join(BENCHMARKS)}')
    if split != 'test' and (name, split) != ('imagenet', 'val'):
        raise ConfigError(f'split: {name} is evaluated on its test split, not on {split!r}')
    root = Path(root).absolute()
    if not root.is_dir():
        raise ConfigError(f'{name}: {root} is not a directory')
    opener, size = BENCHMARKS[name]
    try:
        reader = opener(name, root)
    except OSError as e:
        raise ConfigError(f'{name}: {e.filename or root} cannot be read: {e.strerror or e}') from None
    if not allow_missing and hasattr(reader, 'missing'):
        refuse_missing(name, reader)
    if len(reader) != size:
        reader.split += f'; {len(reader)} images, officially {size}'
    return reader


def _open_caltech(name, root):
    below = '101_ObjectCategories'
    base = find_base(root, (below, f'caltech-101/{below}', f'caltech101/{below}'), ('accordion', 'Faces', 'yin_yang'))
    required(name, base / 'accordion')
    folders = [f.name for f in folders_of(base) if f.name != 'BACKGROUND_Google']
    rows = [
        (f'{folder}/{image}', label) for label, folder in enumerate(folders) for image in images_of(name, base / folder)
    ]
    return FileSet(
        base, rows, [spaced(folder) for folder in folders], 'all images (no official split), without BACKGROUND_Google'
    )


def _open_food(name, root):
    base = find_base(root, ('food-101',), ('meta', 'images'))
    meta = base / 'meta'
    classes, names = read_class_lines(name, meta / 'classes.txt'), read_class_lines(name, meta / 'labels.txt')
    if len(classes) != len(names):
        raise ConfigError(f'{name}: {meta}/labels.txt has {len(names)} lines, classes.txt {len(classes)}')
    rows = _by_class(name, meta / 'test.txt', {c: i for i, c in enumerate(classes)}, '<class>/<number>', suffix='.jpg')
    return listed(name, base / 'images', rows, meta / 'test.txt', [spaced(n) for n in names], 'test')


def _open_sun(name, root):
    base = find_base(root, ('SUN397', 'SUN397/SUN397'), ('a', 'b'))
    lists = [base, base / 'Partitions', base.parent / 'Partitions', base.parent, root / 'Partitions']
    classes_path = first_existing([folder / 'ClassName.txt' for folder in lists])
    classes = [line.strip('/') for line in read_class_lines(name, classes_path)]
    names = [spaced(' '.join(c.split('/')[1:])) for c in classes]  # the first part is only the initial letter
    if not all(names):
        raise malformed(name, classes_path, classes[names.index('')], '/a/<class>')
    path = first_existing([folder / 'Testing_01.txt' for folder in lists])
    rows = _by_class(name, path, {c: i for i, c in enumerate(classes)}, '/a/<class>/<file>')
    return listed(name, base, rows, path, names, 'test, partition 01 of 10')


def _open_dtd(name, root):
    base = find_base(root, ('dtd', 'dtd/dtd'), ('labels', 'images'))
    path = base / 'labels' / 'test1.txt'
    classes = sorted({line.rpartition('/')[0] for line in read_lines(name, path)})
    rows = _by_class(name, path, {c: i for i, c in enumerate(classes) if c}, '<class>/<file>')
    return listed(name, base / 'images', rows, path, [spaced(c) for c in classes], 'test, partition 1 of 10')


def _open_aircraft(name, root):
    base = find_base(
        root,
        ('fgvc-aircraft-2013b/data', 'data', 'fgvc-aircraft-2013b'),
        ('images_variant_test.txt', 'variants.txt', 'images'),
    )
    names = read_class_lines(name, base / 'variants.txt')
    label_of = {n: i for i, n in enumerate(names)}
    path, rows = base / 'images_variant_test.txt', []
    for line in read_lines(name, path):
        number, _, variant = line.partition(' ')
        if variant not in label_of:
            raise malformed(name, path, line, '<number> <variant of variants.txt>')
        rows.append((f'{number}.jpg', label_of[variant]))
    return listed(name, base / 'images', rows, path, [spaced(n) for n in names], 'test, variants')


def _open_pets(name, root):
    base = find_base(root, ('oxford-iiit-pet',), ('annotations', 'images'))
    path = base / 'annotations' / 'test.txt'
    rows, names = [], {}
    for line in read_lines(name, path):
        image, *numbers = line.split()
        if len(numbers) != 3 or not image.rpartition('_')[0]:
            raise malformed(name, path, line, '<class>_<number> <class id> <species> <breed>')
        label = as_integers(name, path, numbers[:1], 1, NUM_PETS)[0] - 1
        cls = image.rpartition('_')[0]
        if names.setdefault(label, cls) != cls:
            raise malformed(name, path, line, f'class id {label + 1} only for {names[label]}')
        rows.append((f'{image}.jpg', label))
    if len(names) != max(names) + 1:
        raise ConfigError(f'{name}: {path} has no image of class id {min(set(range(max(names))) - set(names)) + 1}')
    return listed(name, base / 'images', rows, path, [spaced(names[i]) for i in range(len(names))], 'test')


def _open_eurosat(name, root):
    base = find_base(root, ('2750', 'EuroSAT/2750', 'eurosat/2750', 'EuroSAT_RGB', 'EuroSAT'), EUROSAT)
    rows = [
        (f'{folder}/{image}', label) for label, folder in enumerate(EUROSAT) for image in images_of(name, base / folder)
    ]
    names = [re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', folder) for folder in EUROSAT]
    return FileSet(base, rows, names, 'all images (no official split)')


def _by_class(name, path, label_of, expected, suffix=''):
    """List [(path, label)] from a list of `<class>/<file>`."""
    rows = []
    for line in read_lines(name, path):
        image = line.lstrip('/')
        label = label_of.get(image.rpartition('/')[0])
        if label is None:
            raise malformed(name, path, line, f'{expected} of a class of the set')
        rows.append((image + suffix, label))
    return rows


# name -> (reader, official number of images)
BENCHMARKS = {
    'cifar10': (open_cifar, 10_000),
    'cifar100': (open_cifar, 10_000),
    'caltech101': (_open_caltech, 8_677),
    'stanfordcars': (open_cars, 8_041),
    'flowers102': (open_flowers, 6_149),
    'food101': (_open_food, 25_250),
    'sun397': (_open_sun, 19_850),
    'dtd': (_open_dtd, 1_880),
    'aircraft': (_open_aircraft, 3_333),
    'oxfordpets': (_open_pets, 3_669),
    'eurosat': (_open_eurosat, 27_000),
    'imagenet': (open_imagenet, 50_000),
}

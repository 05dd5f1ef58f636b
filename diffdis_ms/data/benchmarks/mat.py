"""Benchmark sets with labels in .mat files (Stanford Cars, Flowers-102, ImageNet)."""

import os
import re

from diffdis_ms.data.benchmarks.files import (
    FileSet,
    as_integers,
    as_strings,
    find_base,
    first_existing,
    images_of,
    listed,
    load_mat,
    read_lines,
    required,
)
from diffdis_ms.errors import ConfigError

NUM_FLOWERS = 102
DEVKIT = 'ILSVRC2012_devkit_t12'

_WNID = re.compile(r'n\d{8}')
_VAL = 'ILSVRC2012_val_{:08d}.JPEG'
_VAL_NAME = re.compile(r'ILSVRC2012_val_\d{8}\.JPEG')


def open_cars(name, root):
    """Open Stanford Cars, with the class names of cars_meta.mat. The test labels are a separate download."""
    base = find_base(root, ('stanford_cars',), ('devkit', 'cars_test', 'cars_test_annos_withlabels.mat'))
    meta = base / 'devkit' / 'cars_meta.mat'
    names = as_strings(name, meta, load_mat(name, meta, 'class_names'))
    path = first_existing([base / 'cars_test_annos_withlabels.mat', base / 'devkit' / 'cars_test_annos_withlabels.mat'])
    annotations = load_mat(name, path, 'annotations', ('class', 'fname'))
    labels = as_integers(name, path, annotations['class'], 1, len(names))
    rows = [(file, label - 1) for file, label in zip(as_strings(name, path, annotations['fname']), labels, strict=True)]
    return listed(name, base / 'cars_test', rows, path, names, 'test')


def open_flowers(name, root):
    """Open Flowers-102: `tstid` of setid.mat, in its order.

    The files have no class names. They must be given, in the order of the labels.
    """
    base = find_base(root, ('flowers-102', '102flowers', 'flowers102'), ('imagelabels.mat', 'setid.mat', 'jpg'))
    labels_path, ids_path = base / 'imagelabels.mat', base / 'setid.mat'
    labels = load_mat(name, labels_path, 'labels')
    labels = as_integers(name, labels_path, labels, 1, NUM_FLOWERS)
    ids = as_integers(name, ids_path, load_mat(name, ids_path, 'tstid'), 1, len(labels))
    rows = [(f'image_{i:05d}.jpg', labels[i - 1] - 1) for i in ids]
    return listed(
        name,
        base / 'jpg',
        rows,
        ids_path,
        None,
        'test (tstid)',
        num_classes=max(labels),
        class_ids=list(range(1, max(labels) + 1)),
    )


def open_imagenet(name, root):
    """Open ImageNet's validation split, in folders by WordNet id, or flat with the devkit.

    Classes are ordered by WordNet id, as in torchvision. The name of a class is its first synonym; 'crane' and
    'maillot' are names of two classes each. Without the devkit, classes have no names.
    """
    val = next(
        (folder for folder in (root / 'val', root / 'ILSVRC2012_img_val', root) if _holds_val(folder)), root / 'val'
    )
    entries = sorted(os.listdir(val)) if val.is_dir() else []
    folders = [e for e in entries if _WNID.fullmatch(e)]
    flat = [e for e in entries if _VAL_NAME.fullmatch(e)]
    if folders and flat:
        raise ConfigError(
            f'{name}: {val} has both class folders and loose images like {flat[0]}: sort all of them into folders, or'
            ' none'
        )
    if not folders and not flat:
        raise ConfigError(
            f'{name}: expected {val / _VAL.format(1)} (or folders like {val}/n01440764), which does not exist; '
            'extract ILSVRC2012_img_val.tar there'
        )
    above = val.parent if val == root else root
    data = first_existing([folder / 'data' for folder in (above / DEVKIT, above, root / DEVKIT)])
    if folders:
        return _sorted_val(name, val, folders, data / 'meta.mat')
    return _flat_val(name, val, len(flat), data)


def _holds_val(folder):
    return folder.is_dir() and any(_WNID.fullmatch(e) or _VAL_NAME.fullmatch(e) for e in os.listdir(folder))


def _sorted_val(name, val, folders, meta):
    names, wnids = None, folders
    if meta.exists():
        synonyms = {wnid: word for _, wnid, word in _leaves(name, meta)}
        wnids = sorted(synonyms)
        names = [synonyms[wnid] for wnid in wnids]
        for wnid in wnids:
            required(name, val / wnid)
        unknown = set(folders) - set(wnids)
        if unknown:
            raise ConfigError(f'{name}: {val / min(unknown)} is no class in {meta}')
    rows = [(f'{wnid}/{image}', label) for label, wnid in enumerate(wnids) for image in images_of(name, val / wnid)]
    return FileSet(val, rows, names, 'validation', num_classes=len(wnids), class_ids=wnids)


def _flat_val(name, val, num_images, data):
    meta, truth = data / 'meta.mat', data / 'ILSVRC2012_validation_ground_truth.txt'
    lines = read_lines(name, truth)
    leaves = _leaves(name, meta)
    order = sorted(leaves, key=lambda leaf: leaf[1])
    label_of = {number: label for label, (number, _, _) in enumerate(order)}
    numbers = as_integers(name, truth, lines, 1, max(label_of))
    rows = [(_VAL.format(i + 1), label_of.get(number)) for i, number in enumerate(numbers)]
    for (_, label), number in zip(rows, numbers, strict=True):
        if label is None:
            raise ConfigError(f'{name}: {truth}: {number} is no class in {meta}')
    if num_images > len(rows):
        raise ConfigError(
            f'{name}: {truth} has {len(rows)} lines for the {num_images} images in {val}; extract it again'
        )
    return listed(
        name, val, rows, truth, [word for _, _, word in order], 'validation', class_ids=[wnid for _, wnid, _ in order]
    )


def _leaves(name, path):
    """List the classes as [(ILSVRC2012_ID, WordNet id, first synonym)]. They are the synsets without children."""
    synsets = load_mat(name, path, 'synsets', ('ILSVRC2012_ID', 'WNID', 'words', 'num_children'))
    synsets = synsets[[n == 0 for n in as_integers(name, path, synsets['num_children'], 0, len(synsets))]]
    numbers = as_integers(name, path, synsets['ILSVRC2012_ID'], 1, 1 << 20)
    wnids, words = as_strings(name, path, synsets['WNID']), as_strings(name, path, synsets['words'])
    if not numbers or len(set(numbers)) < len(numbers) or len(set(wnids)) < len(wnids):
        raise ConfigError(f'{name}: {path}: there is no class among the synsets, or one occurs twice')
    return [
        (number, wnid, word.split(',')[0].strip()) for number, wnid, word in zip(numbers, wnids, words, strict=True)
    ]

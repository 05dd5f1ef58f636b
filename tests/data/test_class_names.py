"""Labels and templates from text, lists and CLIP_benchmark's JSON."""

import json
from hashlib import sha256
from types import SimpleNamespace

import pytest

from diffdis_ms.data.benchmarks.class_names import (
    CLIP_NAMES,
    TEMPLATES,
    clip_names,
    read_labels,
    read_templates,
    resolve_names,
)
from diffdis_ms.data.benchmarks.prompt_templates import DATASET_TEMPLATES
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.datasets import open_zeroshot
from tests.data import replicas

# sha256 (its first 16 digits) of CLIP's own templates, a line each, in their order, and of its class names, sorted,
# without Caltech's
# 'background': taken from openai/CLIP data/prompts.md and notebooks/Prompt_Engineering_for_ImageNet.ipynb
CLIPS = {
    'cifar10': ('9bbf912e1144ca4c', 'bb3914949cecedee'),
    'cifar100': ('9bbf912e1144ca4c', '60ae3a3ac1355fcf'),
    'caltech101': ('90561580b7ea5dba', '3520afa60d95a0b9'),
    'stanfordcars': ('255ecc632c41182c', 'b47b58c71c5c86e9'),
    'flowers102': ('bfcd4bbb214d5015', '09b12e48ab3b5ecd'),
    'food101': ('77a79bac7d9cf25b', '9c0eeb5a368baacb'),
    'sun397': ('c97a3d1ad5819800', 'dd1277b1cfcf09ba'),
    'dtd': ('1f6888d2130f62a4', '681d23b9cd3c2ede'),
    'aircraft': ('91522de75ad44711', 'e1c9e72060e63d52'),
    'oxfordpets': ('16a0790f0e45e97e', 'c6f4365ced9dc96f'),
    'eurosat': ('9bc85d9f1798d03b', '500da061f92084fb'),
    'imagenet': ('4f976686fb651bb5', '5a175c305e125474'),
}
# fmt: off
EUROSAT = [
    'annual crop land', 'forest', 'brushland or shrubland', 'highway or road',
    'industrial buildings or commercial buildings', 'pasture land', 'permanent crop land',
    'residential buildings or homes or apartments', 'river', 'lake or sea',
]
# fmt: on


def digest(lines):
    return sha256('\n'.join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize('dataset', DATASET_TEMPLATES)
def test_templates_and_names_are_clips_to_the_letter(dataset):
    names = json.loads(CLIP_NAMES.read_text(encoding='utf-8'))[dataset]
    assert (digest(DATASET_TEMPLATES[dataset]), digest(sorted(names.values()))) == CLIPS[dataset]
    assert DATASET_TEMPLATES['imagenet'] == TEMPLATES['openai'] and 'a origami {}.' in TEMPLATES['openai']
    assert TEMPLATES['plain'] == ['{}'] and TEMPLATES['photo'] == ['a photo of a {}.']


def test_clips_names_are_found_by_what_a_set_calls_its_classes(tmp_path):
    for write in (
        replicas.eurosat,
        replicas.imagenet_flat,
        replicas.flowers,
        replicas.caltech,
        replicas.sun,
        replicas.food,
    ):
        (tmp_path / write.__name__).mkdir()
        write(tmp_path / write.__name__)
    for dataset, folder, names in (
        ('eurosat', 'eurosat', EUROSAT),
        ('imagenet', 'imagenet_flat', ['tench', 'crane bird', 'construction crane']),
        ('flowers102', 'flowers', ['pink primrose', 'hard-leaved pocket orchid', 'canterbury bells']),
        ('caltech101', 'caltech', ['off-center face', 'centered face', 'accordion', 'yin and yang symbol']),
        ('food101', 'food', ['apple pie', 'baby back ribs', 'beef carpaccio']),
    ):
        assert open_zeroshot(dataset, tmp_path / folder, 'clip')[1] == names
    with pytest.raises(ConfigError, match="no class 'zen garden'"):  # the replica's, not the official set's
        open_zeroshot('sun397', tmp_path / 'sun', 'clip')
    assert clip_names('cifar100', ['maple_tree', 'Lawn mower']) == ['maple tree', 'lawn mower']
    with pytest.raises(ConfigError, match='no list for folder'):
        clip_names('folder', ['a'])
    with pytest.raises(ConfigError, match="no class 'a_dog'"):
        clip_names('cifar10', ['cat', 'a_dog'])


def test_order_of_names_given_never_permutes_labels(tmp_path):
    replicas.eurosat(tmp_path)
    clips_order = [EUROSAT[i] for i in (1, 6, 7, 8, 5, 9, 2, 0, 4, 3)]  # as prompts.md has them
    (tmp_path / 'names.txt').write_text('\n'.join(clips_order))
    assert open_zeroshot('eurosat', tmp_path, tmp_path / 'names.txt')[1] == EUROSAT
    own = open_zeroshot('eurosat', tmp_path)[1]
    assert open_zeroshot('eurosat', tmp_path, ','.join(reversed(own)))[1] == own
    # names of one's own: by their place
    assert open_zeroshot('eurosat', tmp_path, ','.join('abcdefghij'))[1] == list('abcdefghij')
    for names in ([*clips_order[:-1], 'roads'], ['a', 'b', 'Forest', *'defghij']):
        with pytest.raises(ConfigError, match='is class .* of the data set, which gets') as error:
            open_zeroshot('eurosat', tmp_path, ','.join(names))
        assert '\n' not in str(error.value)


def test_names_that_marks_alone_tell_apart():
    images = SimpleNamespace(class_names=['C', 'C++', 'C#'])
    assert resolve_names('C#,C,C++', 'folder', images) == ['C', 'C++', 'C#']
    assert resolve_names(None, 'folder', images) == images.class_names
    # 'missile' and 'sunglasses' twice
    clips = list(json.loads(CLIP_NAMES.read_text(encoding='utf-8'))['imagenet'].values())
    many = SimpleNamespace(class_names=[str(k) for k in range(1000)])
    assert resolve_names(','.join(clips), 'folder', many) == clips
    with pytest.raises(ConfigError, match="'a' is given twice"):
        resolve_names('a,b,a', 'folder', images)
    for names in ('C,C++', 'a,b,c,d'):
        with pytest.raises(ConfigError, match='names for the 3 folders'):
            resolve_names(names, 'folder', images)


def test_labels_from_text_and_files(tmp_path):
    (tmp_path / 'a.txt').write_text('cat\n sea lion \n\n', encoding='utf-8')
    (tmp_path / 'a.json').write_text(json.dumps(['cat', 'sea lion']))
    (tmp_path / 'b.json').write_text(json.dumps({'pets': ['cat', 'sea lion'], 'other': ['x']}))
    for source, dataset in (
        ('cat, sea lion', None),
        (tmp_path / 'a.txt', None),
        (str(tmp_path / 'a.json'), None),
        (tmp_path / 'b.json', 'pets'),
    ):
        assert read_labels(source, dataset) == ['cat', 'sea lion']


def test_label_mistakes_are_named(tmp_path):
    (tmp_path / 'b.json').write_text(json.dumps({'pets': ['cat'], 'other': [3]}))
    (tmp_path / 'bad.json').write_text('[')
    (tmp_path / 'empty.txt').write_text('\n')
    for source, dataset, match in (
        ('', None, 'no name'),
        ('cat,,dog', None, '2 of 3 is empty'),
        ('cat,dog,cat', None, "'cat' is given twice"),
        ('none.txt', None, 'does not exist'),
        (tmp_path / 'b.json', None, 'name one: other, pets'),
        (tmp_path / 'b.json', 'food', "'food'.*other, pets"),
        (tmp_path / 'b.json', 'other', 'list of strings'),
        (tmp_path / 'bad.json', None, 'damaged or not JSON'),
        (tmp_path / 'empty.txt', None, 'no name'),
    ):
        with pytest.raises(ConfigError, match=match) as error:
            read_labels(source, dataset)
        assert '\n' not in str(error.value)


def test_templates(tmp_path):
    assert read_templates('plain') == ['{}'] and read_templates('photo') == ['a photo of a {}.']
    assert len(read_templates('openai')) == len(set(TEMPLATES['openai'])) == 80
    assert read_templates('an emoji of {}') == ['an emoji of {}']
    (tmp_path / 't.txt').write_text('a {}\nthe {}\n')
    (tmp_path / 't.json').write_text(json.dumps({'pets': ['a {c}', 'the {c}']}))
    assert read_templates(tmp_path / 't.txt') == read_templates(tmp_path / 't.json', 'pets') == ['a {}', 'the {}']
    for text, match in (('imagenet', 'plain, photo, openai'), ('a {name}', 'no other brace')):
        with pytest.raises(ConfigError, match=match):
            read_templates(text)
    (tmp_path / 't.txt').write_text('a {}\nthe thing\n')
    with pytest.raises(ConfigError, match="'the thing' needs"):
        read_templates(tmp_path / 't.txt')

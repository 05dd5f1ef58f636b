"""Karpathy's split files for MSCOCO and Flickr30k, as they lie on disk."""

import json

import pytest

from diffdis_ms.data.benchmarks.karpathy import KarpathySet
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.datasets import open_retrieval
from tests.data.replicas import make_coco
from tests.workspace import draw


def make_flickr(root, folder='flickr30k-images'):
    (root / folder).mkdir(parents=True, exist_ok=True)
    draw('red', 'bar').save(root / folder / '1000092795.jpg')
    image = {
        'filename': '1000092795.jpg',
        'imgid': 0,
        'split': 'test',
        'sentences': [{'raw': f'text {k}'} for k in range(5)],
    }
    (root / 'dataset_flickr30k.json').write_text(json.dumps({'images': [image], 'dataset': 'flickr30k'}))


def test_coco_keeps_all_captions_of_the_test_split(tmp_path):
    make_coco(tmp_path)
    images = open_retrieval('coco', tmp_path)
    assert len(images) == 2 and images.split == 'Karpathy test' and len(images.captions_of(0)) == 5
    assert images.captions_of(1)[4] == 'A blue thing 4.'
    sample = images.read(1)
    assert sample.caption == 'A blue thing 0.' and sample.image.resize((1, 1)).getpixel((0, 0))[2] > 100


@pytest.mark.parametrize(
    'split, found',
    [(None, ['A red thing 0.', 'A blue thing 0.']), ('train', ['A green thing 0.']), ('restval', ['A black thing 0.'])],
)
def test_other_splits_can_be_chosen(tmp_path, split, found):
    make_coco(tmp_path)
    images = open_retrieval('coco', tmp_path, split)
    assert [
        images.read(i).caption for i in range(len(images))
    ] == found and images.split == f'Karpathy {split or "test"}'


def test_splits_that_do_not_exist(tmp_path):
    make_coco(tmp_path)
    with pytest.raises(ConfigError, match="no image in split 'val'"):  # this replica has none
        open_retrieval('coco', tmp_path, 'val')
    for dataset in ('captions', 'emoji'):
        with pytest.raises(ConfigError, match=f'split: {dataset} has no splits.*--data-root'):
            open_retrieval(dataset, tmp_path, 'test')


@pytest.mark.parametrize('folder', ['flickr30k-images', 'flickr30k_images', 'images', '.'])
def test_flickr(tmp_path, folder):
    make_flickr(tmp_path, folder)
    images = KarpathySet('flickr30k', tmp_path)
    assert len(images) == 1 and images.captions_of(0)[4] == 'text 4' and images.read(0).image.size == (40, 40)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match='dataset_coco.json does not exist'):
        open_retrieval('coco', tmp_path)
    make_coco(tmp_path)
    (tmp_path / 'val2014').rename(tmp_path / 'elsewhere')
    with pytest.raises(ConfigError, match='val2014/COCO_val2014_000000000000.jpg does not exist'):
        open_retrieval('coco', tmp_path)


@pytest.mark.parametrize(
    'content',
    [
        '',
        '[]',
        '{"images": 3}',
        '{"images": [{}]}',
        '{"images": []}',
        '[' * 100000,
        '{"images": [{"split": "test", "filename": "/etc/passwd", "sentences": [{"raw": "x"}]}]}',
        '{"images": [{"split": "test", "filename": "../x.jpg", "sentences": [{"raw": "x"}]}]}',
        '{"images": [{"split": "test", "filename": "x.jpg", "sentences": []}]}',
    ],
)
def test_damaged_files(tmp_path, content):
    (tmp_path / 'dataset_coco.json').write_text(content)
    with pytest.raises(ConfigError, match='dataset_coco.json') as e:
        open_retrieval('coco', tmp_path)
    assert '\n' not in str(e.value) and len(str(e.value)) < 400

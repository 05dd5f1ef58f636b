"""A metric over part of a set is an error, or the result names the part that is missing. The encoder is a stand-in: no
network runs."""

import json

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.benchmarks.class_names import choose_templates
from diffdis_ms.data.transforms import resize_center_crop
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate import tasks
from diffdis_ms.evaluate.datasets import open_retrieval, open_zeroshot
from diffdis_ms.evaluate.embedding import Sampling, embed_set
from diffdis_ms.evaluate.results import task_result
from diffdis_ms.evaluate.shared import Share
from tests.data import replicas

SAMPLINGS = [Sampling()]


class Colours:
    """Embeds a picture as its mean colour, and a text as the colour it names."""

    image_size, batch_size, resize = 8, 2, staticmethod(resize_center_crop)
    NAMES = {'red': (1, 0, 0), 'green': (0, 1, 0), 'blue': (0, 0, 1)}

    def __call__(self, pixels, indices, samplings):
        e0 = pixels.mean((2, 3)).astype(np.float32) + 1e-3
        return [e0 / np.linalg.norm(e0, axis=1, keepdims=True)] * len(samplings)

    def embed_texts(self, texts):
        return np.array([next(c for name, c in self.NAMES.items() if name in text) for text in texts], np.float32)

    def embed_labels(self, labels, templates):
        return self.embed_texts(labels)


def make_folder(root):
    for name in Colours.NAMES:
        (root / name).mkdir(parents=True)
        for k in range(2):
            Image.new('RGB', (16, 16), name).save(root / name / f'{k}.png')
    return root


def make_flickr(root, count=3):
    """Flickr30k's files with so many pictures, red, green and blue."""
    (root / 'flickr30k-images').mkdir(parents=True)
    images = []
    for k, name in zip(range(count), Colours.NAMES, strict=True):
        Image.new('RGB', (16, 16), name).save(root / f'flickr30k-images/{k}.jpg')
        images.append(
            {'filename': f'{k}.jpg', 'split': 'test', 'sentences': [{'raw': f'{name} {n}'} for n in range(5)]}
        )
    (root / 'dataset_flickr30k.json').write_text(json.dumps({'images': images}))
    return root


@pytest.mark.parametrize('missing', [[0], [1, 2]])
def test_missing_pictures_of_a_split(tmp_path, missing):
    make_flickr(tmp_path)
    for k in missing:
        (tmp_path / f'flickr30k-images/{k}.jpg').unlink()
    reader = open_retrieval('flickr30k', tmp_path)
    with pytest.raises(ConfigError, match=f'{missing[0]}.jpg: no such image file.*--allow-missing') as e:
        embed_set(Colours(), reader, SAMPLINGS)
    assert ('1 more, for example 2.jpg' in str(e.value)) == (len(missing) == 2)
    embedded = embed_set(Colours(), reader, SAMPLINGS, allow_missing=True)
    result = task_result('retrieval', 'flickr30k', reader, embedded, tasks.retrieval(Colours(), embedded, reader), {})
    assert result['missing']['names'] == [f'{k}.jpg' for k in missing] and result['missing']['count'] == len(missing)
    assert result['num_samples'] == 3 - len(missing) and result['num_captions'] == 5 * result['num_samples']


def test_a_whole_set_has_nothing_missing(tmp_path):
    reader = open_retrieval('flickr30k', make_flickr(tmp_path))
    embedded = embed_set(Colours(), reader, SAMPLINGS)
    result = task_result('retrieval', 'flickr30k', reader, embedded, tasks.retrieval(Colours(), embedded, reader), {})
    assert 'missing' not in result and result['metrics']['mean_R@1'] == 1
    with pytest.raises(ConfigError, match='0.jpg does not exist'):
        for k in range(3):
            (tmp_path / f'flickr30k-images/{k}.jpg').unlink()
        open_retrieval('flickr30k', tmp_path)


def test_a_picture_that_cannot_be_decoded_is_read_again_once_it_is_mended(tmp_path):
    """The finished batches of a run that ended with an error do not remember it."""
    images, names = open_zeroshot('folder', make_folder(tmp_path / 'set'))
    good = (tmp_path / 'set/green/1.png').read_bytes()
    (tmp_path / 'set/green/1.png').write_bytes(good[:40])
    with pytest.raises(ConfigError, match='green/1.png: .*cannot be compared'):
        embed_set(Colours(), images, SAMPLINGS, share=Share(tmp_path / 'parts'))
    embedded = embed_set(Colours(), images, SAMPLINGS, allow_missing=True)
    assert list(embedded.skipped) == ['green/1.png'] and len(embedded.keys) == 5
    (tmp_path / 'set/green/1.png').write_bytes(good)
    embedded = embed_set(Colours(), images, SAMPLINGS, share=Share(tmp_path / 'parts'))
    assert len(embedded.keys) == 6 and tasks.zeroshot(Colours(), embedded, names, ['{}'])[0]['metrics']['acc1'] == 1


def test_a_limit_asks_for_its_own_pictures_only(tmp_path):
    reader = open_retrieval('flickr30k', make_flickr(tmp_path))
    (tmp_path / 'flickr30k-images/2.jpg').unlink()
    assert len(embed_set(Colours(), reader, SAMPLINGS, limit=2).keys) == 2
    with pytest.raises(ConfigError, match='2.jpg'):
        embed_set(Colours(), reader, SAMPLINGS, limit=3)


def test_classes_without_pictures(tmp_path):
    images, names = open_zeroshot('folder', make_folder(tmp_path / 'set'))
    for k in range(2):
        (tmp_path / f'set/green/{k}.png').write_bytes(b'junk')
    embedded = embed_set(Colours(), images, SAMPLINGS, allow_missing=True)
    with pytest.raises(ConfigError, match="1 of the 3 classes have no image, the first: 'green'.*--allow-missing"):
        tasks.zeroshot(Colours(), embedded, names, ['{}'])
    measured, _ = tasks.zeroshot(Colours(), embedded, names, ['{}'], partial=True)
    missing = task_result('zeroshot', 'folder', images, embedded, measured, {})['missing']
    assert missing['count'] == 2 and missing['classes'] == {'count': 1, 'names': ['green']}


def test_missing_pictures_of_a_benchmark_set(tmp_path):
    replicas.dtd(tmp_path)
    (tmp_path / 'dtd/images/banded/banded_0003.jpg').unlink()
    with pytest.raises(ConfigError, match='banded_0003.jpg, which does not exist.*--allow-missing'):
        open_zeroshot('dtd', tmp_path)
    images, _ = open_zeroshot('dtd', tmp_path, allow_missing=True)
    embedded = embed_set(Colours(), images, SAMPLINGS, allow_missing=True)
    assert list(embedded.skipped) == ['banded/banded_0003.jpg'] and len(embedded.keys) == len(images) - 1


def test_an_embedding_that_is_not_finite_is_named(tmp_path):
    class Broken(Colours):
        def __call__(self, pixels, indices, samplings):
            (e0,) = super().__call__(pixels, indices, samplings)
            e0[indices == 3] = np.nan
            return [e0]

    images, _ = open_zeroshot('folder', make_folder(tmp_path))
    with pytest.raises(ConfigError, match="1 of the 2 images .*not finite.*'green/1.png'"):
        embed_set(Broken(), images, SAMPLINGS)


def test_templates_are_the_data_sets_own_where_it_is_known():
    name, templates = choose_templates(None, 'cifar10')
    assert name == 'clip' and len(templates) == 18
    assert choose_templates(None, 'folder') == ('plain', ['{}']) and choose_templates('photo', 'dtd')[0] == 'photo'

"""The examples in result files, and what becomes of them, hostile ones included, on a page and in Markdown."""

import base64
import html.parser
import io
import json

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.examples import (
    MAX_CAPTION,
    generation_examples,
    read_thumbnail,
    retrieval_examples,
    spread_rows,
    thumbnail,
)
from diffdis_ms.evaluate.inception import build_inception, is_published, open_inception, write_random_inception
from diffdis_ms.evaluate.pictures import list_images
from diffdis_ms.evaluate.report.html_report import write_report
from diffdis_ms.evaluate.report.markdown import write_markdown
from diffdis_ms.evaluate.report.result_files import read_results
from diffdis_ms.evaluate.report.tables import tables
from tests.evaluate.results import HOSTILE, write_results
from tests.workspace import make_pictures

COLOURS = ['red', 'green', 'blue', 'yellow']


def solid(colour, size=(40, 40)):
    return Image.new('RGB', size, colour)


def colour_of(text):
    """Which of COLOURS a thumbnail shows."""
    pixel = np.asarray(read_thumbnail(text)).mean((0, 1))
    return min(COLOURS, key=lambda c: np.abs(pixel - solid(c).getpixel((0, 0))).sum())


def test_thumbnails_are_small_and_whatever_else_is_refused():
    for size, side in (((640, 480), 96), ((24, 30), 24), ((1000, 10), 10)):
        assert read_thumbnail(thumbnail(solid('red', size))).size == (side, side)
    assert len(thumbnail(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)))) < 20_000
    large = io.BytesIO()
    solid('red', (600, 600)).save(large, 'PNG')
    for text in ('', '"><script>', 'AAAA', None, 5, base64.b64encode(large.getvalue()).decode()):
        with pytest.raises(ConfigError, match='thumbnail'):
            read_thumbnail(text)


def test_rows_are_spread_over_the_set():
    assert spread_rows(100, 4) == [0, 33, 66, 99] and spread_rows(3, 8) == [0, 1, 2] and spread_rows(5, 1) == [0]


def test_retrieval_examples_by_hand():
    e0 = np.eye(4, dtype=np.float32)
    # two texts of image 1
    e = np.array([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
    texts = ['red', 'green', 'x' * 1000, 'blue', 'yellow']
    found = retrieval_examples(e0, e, [0, 1, 1, 2, 3], texts, COLOURS, lambda row: solid(COLOURS[row]))
    first, second = found['image_to_text'][:2]
    assert first['captions'] == ['red'] and [f['right'] for f in first['found']] == [True, False, False, False, False]
    assert first['found'][1]['caption'] == 'x' * MAX_CAPTION + '…' and second['captions'] == [
        'green',
        first['found'][1]['caption'],
    ]
    assert [f['right'] for f in second['found']][:2] == [True, True] and colour_of(second['image']) == 'green'
    second = found['text_to_image'][1]
    assert second['caption'] == 'green' and [colour_of(f['image']) for f in second['found']] == [
        'green',
        'red',
        'blue',
        'yellow',
    ]
    assert [f['right'] for f in second['found']] == [True, False, False, False] and [
        x['caption'] for x in found['text_to_image']
    ][2:] == ['blue', 'yellow']


def test_real_pictures_stand_beside_where_their_caption_is_the_same(tmp_path):
    for name in ('fake', 'real'):
        make_pictures(tmp_path / name, 3)
    assert [
        (x['caption'], x['real']) for x in generation_examples(list_images(tmp_path / 'fake'), tmp_path / 'real')
    ] == [(None, None)] * 3
    prompts = {f'{i:05d}.png': f'caption {i}' for i in range(3)}
    (tmp_path / 'fake/prompts.json').write_text(json.dumps({'prompts': prompts}))
    # equal names alone say nothing
    assert not any(x['real'] for x in generation_examples(list_images(tmp_path / 'fake'), tmp_path / 'real'))
    (tmp_path / 'real/prompts.json').write_text(json.dumps({'prompts': {**prompts, '00001.png': 'another'}}))
    found = generation_examples(list_images(tmp_path / 'fake'), tmp_path / 'real')
    assert [x['caption'] for x in found] == list(prompts.values()) and [x['real'] is not None for x in found] == [
        True,
        False,
        True,
    ]
    assert len(generation_examples(list_images(tmp_path / 'fake'), None, count=2)) == 2


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ''
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_all_pictures_and_nothing_of_a_caption_acts(tmp_path):
    write_report(read_results(write_results(tmp_path)), tmp_path / 'report.html')
    page = Page((tmp_path / 'report.html').read_text())
    images = [attributes for tag, attributes in page.tags if tag == 'img']
    assert len(images) == 6 and all(a['src'].startswith('data:image/png;base64,') for a in images)
    assert 'script' not in {tag for tag, _ in page.tags} and not any(
        name.startswith('on') for _, a in page.tags for name in a
    )
    assert not {'a', 'link', 'iframe'} & {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) >= 7 and [a.get('class') for a in images].count('right') == 1
    assert [a.get('class') for tag, a in page.tags if tag == 'li'] == [None, 'hit']


def test_markdown_has_its_pictures_beside_it_and_captions_as_they_are(tmp_path):
    paths = write_results(tmp_path)
    write_markdown(read_results(paths), tmp_path / 'report.md')
    text = (tmp_path / 'report.md').read_text()
    assert '<script' not in text and '<img' not in text and '](javascript' not in text.replace('\\](javascript', '')
    assert '![c]' not in text.replace('\\!\\[c\\]', '') and all(
        line.startswith(('|', '**', '>')) for line in text.splitlines() if line
    )
    assert text.count('<b>') == 1 and len(list((tmp_path / 'report_files').iterdir())) == 5 == text.count(
        '](report_files/'
    )
    columns = {
        line.replace('\\|', '').count('|')
        for line in text.splitlines()
        if 'script' in line and line.startswith('|') and 'report_files' in line
    }
    assert columns == {4}
    solid('red').save(tmp_path / 'report_files/mine.png')
    write_markdown(read_results(paths[:1]), tmp_path / 'report.md')
    assert [p.name for p in (tmp_path / 'report_files').iterdir()] == ['mine.png']  # nothing of the report before


@pytest.mark.parametrize(
    'change',
    [
        lambda r: r['examples'][0].update(fake='"><script>'),
        lambda r: r['examples'][0].update(caption=[1]),
        lambda r: r.update(examples=[{}]),
        lambda r: r['metrics'].update(fid='<b>'),
        lambda r: r.update(protocol=[]),
        lambda r: r.update(missing=[1]),
        lambda r: r.update(missing={'classes': 'x'}),
        lambda r: r['protocol'].update(pictures={'real': {'sizes': {}}}),
        lambda r: r['protocol'].update(drawn_with=[1]),
    ],
)
def test_results_with_other_content_are_refused(tmp_path, change):
    path = write_results(tmp_path)[2]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match='g.json'):
        read_results([path])


def test_figures_of_other_weights_do_not_stand_beside_the_papers(tmp_path):
    pictures = {
        name: {'sizes': {'256x256': 30000}, 'num_sizes': 1, 'not_square': {'count': 0, 'names': []}}
        for name in ('real', 'fake')
    }

    def shown(protocol):
        (tmp_path / 'g.json').write_text(
            json.dumps(
                {
                    'task': 'generation',
                    'dataset': 'real',
                    'split': 'all',
                    'num_samples': 30000,
                    'metrics': {'fid': 1.0},
                    'protocol': {'num_real': 30000, 'num_fake': 30000, 'pictures': pictures, **protocol},
                }
            )
        )
        ((_, _, rows, notes),) = tables(read_results([tmp_path / 'g.json']))
        return [row[0] for row in rows], notes

    assert shown({'inception_published': True}) == (['real', 'Stable Diffusion (paper)', 'DiffDis (paper)'], [])
    rows, notes = shown({'inception_published': False, 'inception_sha256': 'abcdef0123'})
    assert (
        rows == ['real']
        and len(notes) == 2
        and 'not the published ones (sha256 abcdef01' in notes[0]
        and 'not shown beside the paper' in notes[1]
    )
    for protocol, words in (
        ({'num_fake': 5000}, '5000 generated'),
        ({'drawn_with': {'steps': 20, 'sampler': 'pndm'}}, 'generated with steps 20, not 50'),
        ({'pictures': {}}, '256 x 256'),
        ({'inception_published': None}, 'Inception'),
    ):
        rows, notes = shown({'inception_published': True, **protocol})
        assert rows == ['real'] and words in notes[-1]
    odd = {'sizes': {'640x480': 2}, 'num_sizes': 1, 'not_square': {'count': 2, 'names': ['a.jpg', 'b.jpg']}}
    rows, notes = shown({'inception_published': True, 'pictures': {**pictures, 'real': odd}})
    assert (
        rows == ['real']
        and '2 real images are not square (a.jpg, b.jpg)' in notes[0]
        and 'real images that are not all' in notes[1]
    )


def test_published_weights_are_known_by_their_hash_or_by_what_they_were_made_of(tmp_path):
    path, published = tmp_path / 'inception.safetensors', '6726825d' + '0' * 56
    assert is_published(path, published) and not is_published(path, 'a' * 64)
    manifest = {'files': {path.name: 'a' * 64}, 'converted_from': {'sources': [{'path': 'x', 'sha256': published}]}}
    (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
    assert is_published(path, 'a' * 64) and not is_published(path, 'b' * 64)  # changed since
    (tmp_path / 'manifest.json').write_text('[]')
    assert not is_published(path, 'a' * 64)


def test_random_inception_is_one_and_keeps_the_size_of_its_input(tmp_path):
    from mindspore import Tensor

    write_random_inception(tmp_path / 'a.safetensors')
    write_random_inception(tmp_path / 'b.safetensors')
    assert (tmp_path / 'a.safetensors').read_bytes() == (tmp_path / 'b.safetensors').read_bytes()
    pixels = np.random.default_rng(0).standard_normal((2, 3, 299, 299)).astype(np.float32)
    features = build_inception(*open_inception(tmp_path / 'a.safetensors'))(Tensor(pixels)).asnumpy()
    assert 0.1 < features.std() < 10 and np.abs(features[0] - features[1]).max() > 1e-3

"""`evaluate.py report`: result files, a CLIP's beside DiffDis', become one page or Markdown."""

import json

import pytest

from diffdis_ms.data.benchmarks.prompt_templates import DATASET_TEMPLATES
from diffdis_ms.data.benchmarks.sets import BENCHMARKS
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.report import paper
from diffdis_ms.evaluate.report.markdown import markdown
from diffdis_ms.evaluate.report.page import read_metrics
from diffdis_ms.evaluate.report.paper import RETRIEVAL_SIZES
from diffdis_ms.evaluate.report.result_files import read_results
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.init import initialize
from diffdis_ms.storage.model_dir import parameters_to_numpy, read_config, save_model
from tests.workspace import assert_one_line_error, command

ACCURACY = {'acc1': 0.5, 'acc5': 0.75, 'mean_per_class_recall': 0.25}
RECALL = {
    **{f'{way}_R@{k}': k / 100 for way in ('image_to_text', 'text_to_image') for k in (1, 5, 10)},
    'mean_R@1': 0.01,
}


def result(tmp_path, name, protocol=(), **content):
    """A file of a run by the paper's protocol."""
    path, dataset = tmp_path / name, content.get('dataset')
    protocol = {
        'steps': 8,
        'guidance_weight': 3.0,
        'limit': None,
        'weights_sha256': 'a',
        'templates': DATASET_TEMPLATES.get(dataset),
        **dict(protocol),
    }
    size = BENCHMARKS[dataset][1] if dataset in BENCHMARKS else RETRIEVAL_SIZES.get(dataset, 100)
    path.write_text(
        json.dumps(
            {
                'split': 'test' if content['task'] == 'zeroshot' else 'Karpathy test',
                'num_samples': size,
                'protocol': protocol,
                **content,
            }
        )
    )
    return path


def test_tables_beside_the_paper(tmp_path):
    paths = [
        result(tmp_path, 'c10.json', task='zeroshot', dataset='cifar10', metrics=ACCURACY),
        result(tmp_path, 'coco.json', task='retrieval', dataset='coco', metrics=RECALL),
        result(
            tmp_path,
            'fid.json',
            task='generation',
            dataset='real',
            metrics={'fid': 12.25, 'kid_mean': 0.003, 'kid_std': 0.0001},
        ),
    ]
    text = markdown(read_results(paths))
    assert '| cifar10 | test | 10000 | clip | 50.00 | 75.00 | 25.00 | 63.0 | 57.2 | 57.5 | 57.1 |' in text
    assert (
        '| DiffDis (paper) | 26.3 | 50.9 | 62.8 | 19.5 | 42.2 | 54.2 | 22.9 |' in text
        and '| real | 100 | 12.25 | 0.003 | 0.0001 |  |' in text
    )
    assert 'mean of the 12' not in text and 'over MSCOCO and Flickr30k' not in text


@pytest.mark.parametrize(
    'content, words',
    [
        ({'protocol': {'templates': ['{}'], 'template_set': 'plain'}}, 'templates plain'),
        ({'protocol': {'templates': None}}, 'templates unknown'),
        ({'protocol': {'steps': 4}}, '4 steps, not 8'),
        ({'protocol': {'guidance_weight': 0.0}}, 'w = 0.0, not 3'),
        ({'protocol': {'limit': 100}}, 'only the first 100'),
        ({'num_samples': 9999}, '9999 images, not 10000'),
        (
            {'missing': {'count': 2, 'names': ['a', 'b'], 'reasons': {}}, 'num_samples': 9998},
            '2 images and 0 classes are missing',
        ),
    ],
)
def test_other_protocols_are_not_set_beside_the_paper(tmp_path, content, words):
    text = markdown(
        read_results([result(tmp_path, 'c10.json', task='zeroshot', dataset='cifar10', metrics=ACCURACY, **content)])
    )
    assert (
        '(paper)' not in text
        and 'Table 1' not in text
        and f'c10.json: not shown beside the paper\'s numbers: {words}' in text
    )
    assert ('2 images of the set are missing (a, b)' in text) == ('missing' in content)


def test_retrieval_of_another_split_is_not_set_beside_the_paper(tmp_path):
    for content, words in (
        ({'split': 'Karpathy val'}, 'split Karpathy val'),
        ({'num_samples': 4990}, '4990 images'),
        ({'protocol': {'steps': 1}}, '1 steps'),
    ):
        text = markdown(
            read_results([result(tmp_path, 'r.json', task='retrieval', dataset='coco', metrics=RECALL, **content)])
        )
        assert '(paper)' not in text and words in text


def test_a_clip_has_no_steps_to_differ_in(tmp_path):
    protocol = {'model': 'CLIP', 'steps': 1, 'guidance_weight': 0.0}
    assert '(paper)' in markdown(
        read_results([result(tmp_path, 'r.json', protocol, task='retrieval', dataset='coco', metrics=RECALL)])
    )


def test_mean_over_both_retrieval_sets_is_the_papers(tmp_path):
    figures = paper.RETRIEVAL
    assert [
        f'{paper.mean_retrieval(name):.1f}' for name in ('CLIP-ViT-B/32', 'CLIP-ViT-B/16', 'CLIP-ViT-L/14', 'DiffDis')
    ] == ['12.1', '18.6', '19.1', '33.6']
    paths = [
        result(
            tmp_path,
            f'{name}.json',
            task='retrieval',
            dataset=name,
            metrics={**RECALL, 'mean_R@1': (figures[name]['DiffDis'][0] + figures[name]['DiffDis'][3]) / 200},
        )
        for name in figures
    ]
    text = markdown(read_results(paths))
    assert (
        'over MSCOCO and Flickr30k' in text and '| measured | 33.60 |' in text and '| DiffDis (paper) | 33.6 |' in text
    )
    result(tmp_path, 'coco.json', {'weights_sha256': 'b'}, task='retrieval', dataset='coco', metrics=RECALL)
    assert 'over MSCOCO and Flickr30k' not in markdown(read_results(paths))  # two models


def test_mean_of_the_twelve_sets_is_the_papers(tmp_path):
    paths = [
        result(
            tmp_path,
            f'{name}.json',
            task='zeroshot',
            dataset=name,
            metrics={'acc1': value / 100, 'acc5': 1, 'mean_per_class_recall': 1},
        )
        for name, value in zip(BENCHMARKS, paper.ZEROSHOT['DiffDis'], strict=True)
    ]
    row = next(line for line in markdown(read_results(paths)).splitlines() if 'mean of the 12' in line)
    assert row.count('27.4') + row.count('27.47') >= 1 and '20.8' in row and '22.7' in row  # as printed under Table 1
    assert 'mean of the 12' not in markdown(read_results(paths[1:]))
    result(tmp_path, 'dtd.json', {'limit': 5}, task='zeroshot', dataset='dtd', metrics=ACCURACY)
    row = next(line for line in markdown(read_results(paths)).splitlines() if 'mean of the 12' in line)
    assert '20.8' not in row  # the mean of what was measured, alone


def test_damaged_metrics_are_one_line(tmp_path):
    row = json.dumps({'step': 1, 'loss': 2.0, 'loss_ig': 1.0, 'loss_ita': 1.0})
    for content, words in (
        (f'{row}\n{row[:20]}', 'line 2, is damaged'),
        (f'{row}\n[]\n', 'line 2, holds list'),
        ('{"step": 1}\n', 'line 1, lacks'),
        (b'\xff\x00', 'text'),
    ):
        (tmp_path / 'metrics.jsonl').write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ConfigError, match=f'metrics.jsonl.*{words}') as e:
            read_metrics(tmp_path / 'metrics.jsonl')
        assert '\n' not in str(e.value)
    (tmp_path / 'metrics.jsonl').write_text(f'{row}\n{row}\n')
    assert len(read_metrics(tmp_path / 'metrics.jsonl')) == 2


@pytest.mark.parametrize(
    'content', ['', '[]', '{"task": "zeroshot"}', '{"task": "other", "metrics": {}}', '[' * 100000]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(ConfigError, match='x.json'):
        read_results([tmp_path / 'x.json'])


def test_clip_beside_diffdis(trained, tmp_path):
    directory = trained[0] / 'run/model'
    config = read_config(directory)
    text, image = CLIPTextEncoder(config.text_encoder), CLIPImageEncoder(config.image_encoder)
    initialize(text, 0), initialize(image, 0)
    save_model(
        tmp_path / 'clip',
        config,
        {'text_encoder': parameters_to_numpy(text), 'image_encoder': parameters_to_numpy(image)},
        Tokenizer.load(directory / 'tokenizer'),
    )
    common = ('--dataset', 'webdataset', '--data-root', trained[0] / 'data')
    for name, model, more in (
        ('clip', tmp_path / 'clip', ()),
        ('diffdis', directory, ('--steps', '2', '1', '--seeds', '2')),
    ):
        done = command(
            'tools/evaluate.py', 'zeroshot', '--model', model, *common, *more, '--out', tmp_path / f'{name}.json'
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / f'{name}.json').read_text())['num_samples'] == 15
    assert json.loads((tmp_path / 'clip.json').read_text())['protocol']['model'] == 'CLIP'
    done = command(
        'tools/evaluate.py',
        'report',
        tmp_path / 'clip.json',
        tmp_path / 'diffdis.json',
        '--out',
        tmp_path / 'report.html',
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'report.html').read_text()
    # a sweep and two matrices
    assert page.count('<img') == 3 and 'square' in page and 'http' not in page.replace('http://www.w3.org', '')
    done = command('tools/evaluate.py', 'report', tmp_path / 'clip.json', '--out', tmp_path / 'report.md')
    assert done.returncode == 0 and '| webdataset |' in (tmp_path / 'report.md').read_text()
    assert_one_line_error(
        command('tools/evaluate.py', 'report', tmp_path / 'none.json', '--out', tmp_path / 'x.html'),
        'none.json',
        'does not exist',
    )

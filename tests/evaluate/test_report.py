"""`evaluate.py report`: result files, a CLIP's beside DiffDis', become one page or Markdown."""
import json

import pytest

from diffdis_ms.config import ConfigError
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.evaluate.markdown import markdown
from diffdis_ms.evaluate.result_files import read_results
from diffdis_ms.model_dir import parameters_to_numpy, read_config, save_model
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.init import initialize
from tests.workspace import assert_one_line_error, command


def result(tmp_path, name, **content):
    path = tmp_path / name
    path.write_text(json.dumps({'split': 'test', 'num_samples': 10000, 'protocol': {'steps': 8}, **content}))
    return path


def test_tables_beside_the_paper(tmp_path):
    accuracy = {'acc1': 0.5, 'acc5': 0.75, 'mean_per_class_recall': 0.25}
    recalls = {f'{way}_R@{k}': k / 100 for way in ('image_to_text', 'text_to_image') for k in (1, 5, 10)}
    paths = [result(tmp_path, 'c10.json', task='zeroshot', dataset='cifar10', metrics=accuracy),
             result(tmp_path, 'coco.json', task='retrieval', dataset='coco', metrics={**recalls, 'mean_R@1': 0.01}),
             result(tmp_path, 'fid.json', task='generation', dataset='real', metrics={'fid': 12.25, 'kid_mean': 0.003, 'kid_std': 0.0001})]
    text = markdown(read_results(paths))
    assert '| cifar10 | test | 10000 | 50.00 | 75.00 | 25.00 | 63.0 | 57.2 | 57.5 | 57.1 |' in text
    assert '| DiffDis (paper) | 26.3 | 50.9 | 62.8 | 19.5 | 42.2 | 54.2 | 22.9 |' in text and '| real | 10000 | 12.25 | 0.003 | 0.0001 |  |' in text
    assert 'mean of the 12' not in text


def test_mean_of_the_twelve_sets_is_the_papers(tmp_path):
    from diffdis_ms.evaluate.summary import BENCHMARKS, PAPER_ZEROSHOT
    paths = [result(tmp_path, f'{name}.json', task='zeroshot', dataset=name, metrics={'acc1': value / 100, 'acc5': 1, 'mean_per_class_recall': 1})
             for name, value in zip(BENCHMARKS, PAPER_ZEROSHOT['DiffDis'])]
    row = next(line for line in markdown(read_results(paths)).splitlines() if 'mean of the 12' in line)
    assert row.count('27.4') + row.count('27.47') >= 1 and '20.8' in row and '22.7' in row       # as printed under Table 1


@pytest.mark.parametrize('content', ['', '[]', '{"task": "zeroshot"}', '{"task": "other", "metrics": {}}', '[' * 100000])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(ConfigError, match='x.json'):
        read_results([tmp_path / 'x.json'])


def test_clip_beside_diffdis(trained, tmp_path):
    directory = trained[0] / 'run/model'
    config = read_config(directory)
    text, image = CLIPTextEncoder(config.text_encoder), CLIPImageEncoder(config.image_encoder)
    initialize(text, 0), initialize(image, 0)
    save_model(tmp_path / 'clip', config, {'text_encoder': parameters_to_numpy(text), 'image_encoder': parameters_to_numpy(image)},
               Tokenizer.load(directory / 'tokenizer'))
    common = ('--dataset', 'webdataset', '--data-root', trained[0] / 'data')
    for name, model, more in (('clip', tmp_path / 'clip', ()), ('diffdis', directory, ('--steps', '2', '1', '--seeds', '2'))):
        done = command('tools/evaluate.py', 'zeroshot', '--model', model, *common, *more, '--out', tmp_path / f'{name}.json')
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / f'{name}.json').read_text())['num_samples'] == 15
    assert json.loads((tmp_path / 'clip.json').read_text())['protocol']['model'] == 'CLIP'
    done = command('tools/evaluate.py', 'report', tmp_path / 'clip.json', tmp_path / 'diffdis.json', '--out', tmp_path / 'report.html')
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<img') == 3 and 'square' in page and 'http' not in page.replace('http://www.w3.org', '')   # a sweep and two matrices
    done = command('tools/evaluate.py', 'report', tmp_path / 'clip.json', '--out', tmp_path / 'report.md')
    assert done.returncode == 0 and '| webdataset |' in (tmp_path / 'report.md').read_text()
    assert_one_line_error(command('tools/evaluate.py', 'report', tmp_path / 'none.json', '--out', tmp_path / 'x.html'), 'none.json', 'does not exist')

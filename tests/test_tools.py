"""The commands: what they write, and how they refuse bad input."""
import json
import shutil

import pytest

from tests.data.replicas import make_coco
from tests.workspace import assert_one_line_error, command, draw, make_data

TOOLS = ['train.py', 'prepare_data.py', 'sample.py', 'classify.py', 'evaluate.py', 'demo.py']


@pytest.fixture(scope='module')
def model(trained):
    return trained[0] / 'run/model'


@pytest.mark.parametrize('tool', TOOLS)
def test_help_teaches(tool):
    done = command(f'tools/{tool}', '--help')
    assert done.returncode == 0 and len(done.stdout) > 200


def test_sample_writes_pictures_and_a_grid(model, tmp_path):
    done = command('tools/sample.py', '--model', model, '--prompt', 'red square', 'blue bar', '--steps', 2, '--grid', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['00000.png', '00001.png', 'grid.png', 'prompts.json']
    assert json.loads((tmp_path / 'out/prompts.json').read_text())['prompts']['00001.png'] == 'blue bar'


def test_classify_prints_probabilities(model, tmp_path):
    draw('red', 'square').save(tmp_path / 'a.png')
    done = command('tools/classify.py', '--model', model, '--labels', 'square,bar', '--json', tmp_path / 'a.png')
    assert done.returncode == 0, done.stderr
    assert abs(sum(json.loads(done.stdout)[str(tmp_path / 'a.png')].values()) - 1) < 1e-5


def test_evaluate_zeroshot_and_retrieval(model, trained, tmp_path):
    data = trained[0] / 'data'
    done = command('tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'webdataset', '--data-root', data, '--out', tmp_path / 'z.json',
                   '--limit', 10)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'z.json').read_text())
    assert result['num_samples'] == 10 and set(result['metrics']) == {'acc1', 'acc5', 'mean_per_class_recall'}
    assert result['metrics']['acc5'] == 1.0 and result['protocol']['steps'] == 8 and len(result['protocol']['weights_sha256']) == 64
    done = command('tools/evaluate.py', 'retrieval', '--model', model, '--dataset', 'captions', '--data-root', data, '--out', tmp_path / 'r.json')
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'r.json').read_text())
    assert result['num_samples'] == 15 and {'image_to_text_R@1', 'text_to_image_R@10', 'mean_R@1'} <= set(result['metrics'])
    assert {'task', 'dataset', 'split', 'num_samples', 'metrics', 'protocol', 'seconds'} <= set(result)
    done = command('tools/evaluate.py', 'report', tmp_path / 'r.json', '--out', tmp_path / 'pages/r.html')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'pages/r.html').read_text().count('<img') == 8 + 8 * 5 and (tmp_path / 'r.json').stat().st_size < 300_000


def test_split_of_a_retrieval_set(model, tmp_path):
    make_coco(tmp_path)
    common = ('tools/evaluate.py', 'retrieval', '--model', model, '--data-root', tmp_path, '--out', tmp_path / 'r.json', '--dataset')
    done = command(*common, 'coco', '--split', 'restval')
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'r.json').read_text())
    assert (result['split'], result['num_samples'], result['num_captions']) == ('Karpathy restval', 1, 6)
    assert_one_line_error(command(*common, 'coco', '--split', 'dev'), "no image in split 'dev'")
    assert_one_line_error(command(*common, 'captions', '--split', 'test'), 'captions has no splits')


def test_image_folder_zeroshot(model, tmp_path):
    for shape in ('square', 'bar'):
        (tmp_path / 'set' / shape).mkdir(parents=True)
        for colour in ('red', 'blue'):
            draw(colour, shape).save(tmp_path / 'set' / shape / f'{colour}.png')
    (tmp_path / 'set/bar/broken.png').write_bytes(b'not a picture')
    args = ('tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'folder', '--data-root', tmp_path / 'set', '--out', tmp_path / 'f.json')
    assert_one_line_error(command(*args), 'bar/broken.png: not an image', '--allow-missing')
    assert not (tmp_path / 'f.json').exists()
    done = command(*args, '--allow-missing')
    assert done.returncode == 0 and 'missing: 1 pictures (bar/broken.png)' in done.stderr, done.stderr
    result = json.loads((tmp_path / 'f.json').read_text())
    assert result['num_samples'] == 4 and result['num_skipped'] == 1
    assert result['missing'] == {'count': 1, 'names': ['bar/broken.png'], 'reasons': {'bar/broken.png': 'not an image of a known format'}}
    assert result['protocol']['template_set'] == 'plain' and len(result['protocol']['files_sha256']['vae.safetensors']) == 64


def evaluate(model, root, *more):
    return command('tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'webdataset', '--data-root', root, '--out', root / 'x.json', *more)


def test_wrong_model_directory(tmp_path):
    make_data(tmp_path)
    assert_one_line_error(evaluate(tmp_path / 'none', tmp_path), 'none', 'does not exist')
    assert_one_line_error(evaluate(tmp_path, tmp_path), 'not a model directory')
    assert not (tmp_path / 'x.json').exists()


def test_truncated_safetensors(model, tmp_path):
    make_data(tmp_path)
    shutil.copytree(model, tmp_path / 'model')
    whole = (tmp_path / 'model/unet.safetensors').read_bytes()
    (tmp_path / 'model/unet.safetensors').write_bytes(whole[:len(whole) // 2])
    assert_one_line_error(evaluate(tmp_path / 'model', tmp_path), 'unet.safetensors', 'damaged')
    (tmp_path / 'model/unet.safetensors').unlink()
    assert_one_line_error(evaluate(tmp_path / 'model', tmp_path), 'unet.safetensors', 'does not exist')


def test_unknown_label_list_and_empty_data(model, trained, tmp_path):
    data = trained[0] / 'data'
    assert_one_line_error(command('tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'webdataset', '--data-root', data, '--out',
                                  tmp_path / 'x.json', '--classnames', tmp_path / 'names.txt'), 'names.txt')
    (tmp_path / 'empty').mkdir()
    assert_one_line_error(evaluate(model, tmp_path / 'empty'), 'empty')
    assert_one_line_error(command('tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'cifar11', '--data-root', data, '--out',
                                  tmp_path / 'x.json'), 'cifar11')
    assert_one_line_error(command('tools/train.py', '--config', trained[0] / 'diffdis.yaml', f'data.path={tmp_path / "empty"}'), 'empty')


def test_config_typo_names_the_nearest_key(trained):
    assert_one_line_error(command('tools/train.py', '--config', trained[0] / 'diffdis.yaml', 'train.batch_sise=3'), 'batch_sise', 'train.batch_size')
    assert_one_line_error(command('tools/train.py', '--config', 'nowhere.yaml'), 'nowhere.yaml')


def test_unreadable_and_captionless_samples_are_skipped_and_counted(trained, tmp_path):
    import tarfile
    shutil.copytree(trained[0] / 'data', tmp_path / 'data')
    with tarfile.open(tmp_path / 'data/00001.tar', 'w') as tar:
        for name, data in (('bad1.png', b'junk'), ('bad1.txt', b'red square'), ('bad2.png', (tmp_path / 'p.png'))):
            if not isinstance(data, bytes):
                draw('red', 'bar').save(data)
                data = data.read_bytes()
            file = tmp_path / 'member'
            file.write_bytes(data)
            tar.add(file, name)
    done = command('tools/train.py', '--config', trained[0] / 'diffdis.yaml', f'data.path={tmp_path / "data"}', f'output_dir={tmp_path / "run"}',
                   'max_steps=5', 'data.cache_in_memory=true')
    assert done.returncode == 0, done.stderr
    assert 'skipped 2' in done.stdout


def test_classify_refuses_a_file_that_is_no_image(model, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'junk')
    assert_one_line_error(command('tools/classify.py', '--model', model, '--labels', 'a,b', tmp_path / 'a.png'))

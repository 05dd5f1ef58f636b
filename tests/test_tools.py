"""The commands: what they write, and how they refuse bad input."""

import argparse
import json
import re
import runpy
import shutil
from argparse import Namespace

import pytest
from safetensors.numpy import load_file, save_file

from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.model_dir import read_config
from diffdis_ms.world import World
from tests.data.replicas import make_coco
from tests.test_docs import check_block
from tests.workspace import ROOT, assert_one_line_error, command, draw, make_data
from tools import sample, train

TOOLS = [*sorted((ROOT / 'tools').glob('*.py')), ROOT / 'ckpt_convert/__main__.py']


@pytest.fixture(scope='module')
def model(trained):
    return trained[0] / 'run/model'


class Parsing(BaseException):
    """A tool is about to read its command line."""


def parsers_of(tool, monkeypatch):
    """The parser of a tool, and those of its subcommands."""

    def stop(parser, *args, **kwargs):
        raise Parsing(parser)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.syspath_prepend(tool.parent)  # as `python FILE` does
    with pytest.raises(Parsing) as caught:
        runpy.run_path(str(tool))['main']()
    monkeypatch.undo()
    return with_subcommands(caught.value.args[0])


def with_subcommands(parser):
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for choice in action.choices.values() for inner in with_subcommands(choice)]
    return found


def what_help_lacks(parser):
    """What a reader of `--help` is not told."""
    assert parser.format_help()  # raises where a help text is no format string
    lacking = [] if parser.description else ['description']
    for action in parser._actions:
        name = (action.option_strings or [action.metavar or action.dest])[-1]
        if action.help == argparse.SUPPRESS or not (action.help or action.choices):  # choices speak for themselves
            lacking.append(name)
    return [f'{parser.prog}: no {name}' for name in lacking]


def examples(text):
    """Command lines in a help text, one over several lines as one."""
    return re.findall(r'^(?: {2,}|#   )(?:then: )?((?:nice|python|bash|msrun) .*)$', text.replace('\\\n', ' '), re.M)


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_teaches(tool, monkeypatch, tmp_path):
    """Of every tool and subcommand: what it is for, what each argument is, and examples that it takes."""
    parsers = parsers_of(tool, monkeypatch)
    assert [line for parser in parsers for line in what_help_lacks(parser)] == []
    lines = {line for parser in parsers for line in examples(parser.epilog or '')}
    needs = [a for parser in parsers for a in parser._actions if a.required]
    assert lines or not needs, f'{tool} has to be given {needs}, and no example shows how'
    monkeypatch.chdir(ROOT)
    for line in lines:
        check_block('bash', line, tmp_path)
        for path in re.findall(r'(?<= )(?:diffdis_ms|ckpt_convert|tests|tools|ascend_configs)/[\w/.]+', line):
            assert (ROOT / path).exists(), line
    for number, parser in enumerate(parsers[1:]):
        name = parser.prog.split()[-1]
        assert any(f' {name} ' in line for line in lines), f'{tool}: no example of {name}, subcommand {number}'


def test_examples_of_the_shell_scripts_parse(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for script in ('demo.sh', 'test.sh', 'launch.sh'):
        lines = examples((ROOT / 'tools' / script).read_text())
        assert lines, script
        for line in lines:
            check_block('bash', re.split('  ', line)[0], tmp_path)


def test_a_help_that_does_not_teach_is_found():
    parser = argparse.ArgumentParser('tool')
    parser.add_argument('name')
    parser.add_argument('--steps', help='how many')
    parser.add_subparsers(help='what to do').add_parser('draw', description='Draws.').add_argument('--size')
    found = [line for each in with_subcommands(parser) for line in what_help_lacks(each)]
    assert found == ['tool: no description', 'tool: no name', 'tool name draw: no --size']
    assert examples('examples:\n  python a.py \\\n      --b\n      explained\n') == ['python a.py        --b']


@pytest.mark.parametrize(
    'line, files, overrides',
    [
        ('--config a.yaml', ['a.yaml'], []),
        ('--config a.yaml b.yaml seed=1 max_steps=3', ['a.yaml', 'b.yaml'], ['seed=1', 'max_steps=3']),
        ('--config a.yaml --config b.yaml', ['a.yaml', 'b.yaml'], []),
        ('seed=1 --config a.yaml b.yaml seed=2', ['a.yaml', 'b.yaml'], ['seed=1', 'seed=2']),
        ('--config a.yaml seed=2 --dry-run seed=3', ['a.yaml'], ['seed=2', 'seed=3']),
        ('--dry-run --config a.yaml init.vae=v.yaml', ['a.yaml'], ['init.vae=v.yaml']),
        ('--config runs/lr=1/config.yaml ./seed=1.yaml', ['runs/lr=1/config.yaml', './seed=1.yaml'], []),
        ('--config a.yaml --seed 3 b.yaml', ['a.yaml'], ['b.yaml']),  # which `load` refuses
    ],
)
def test_train_tells_files_from_overrides_and_keeps_their_order(line, files, overrides):
    args = train.parse_args(line.split())
    assert (args.files, args.overrides) == (files, overrides)


@pytest.mark.parametrize('line', ['', 'seed=1', '--config', '--config seed=1', '--dry-run'])
def test_train_needs_a_file(line, capsys):
    with pytest.raises(SystemExit, match='2'):
        train.parse_args(line.split())
    assert '--config' in capsys.readouterr().err.splitlines()[-1]


def test_sample_writes_pictures_and_a_grid(model, tmp_path):
    # fmt: off
    done = command(
        'tools/sample.py', '--model', model, '--prompt', 'red square', 'blue bar', '--steps', 2, '--grid',
        '--out', tmp_path / 'out',
    )
    # fmt: on
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        '00000.png',
        '00001.png',
        'grid.png',
        'prompts.json',
    ]
    assert json.loads((tmp_path / 'out/prompts.json').read_text())['prompts']['00001.png'] == 'blue bar'


def test_classify_prints_probabilities(model, tmp_path):
    draw('red', 'square').save(tmp_path / 'a.png')
    done = command('tools/classify.py', '--model', model, '--labels', 'square,bar', '--json', tmp_path / 'a.png')
    assert done.returncode == 0, done.stderr
    assert abs(sum(json.loads(done.stdout)[str(tmp_path / 'a.png')].values()) - 1) < 1e-5


def test_evaluate_zeroshot_and_retrieval(model, trained, tmp_path):
    data = trained[0] / 'data'
    # fmt: off
    done = command(
        'tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'webdataset', '--data-root', data,
        '--out', tmp_path / 'z.json', '--limit', 10,
    )
    # fmt: on
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'z.json').read_text())
    assert result['num_samples'] == 10 and set(result['metrics']) == {'acc1', 'acc5', 'mean_per_class_recall'}
    assert (
        result['metrics']['acc5'] == 1.0
        and result['protocol']['steps'] == 8
        and len(result['protocol']['weights_sha256']) == 64
    )
    # fmt: off
    done = command(
        'tools/evaluate.py', 'retrieval', '--model', model, '--dataset', 'captions', '--data-root', data,
        '--out', tmp_path / 'r.json',
    )
    # fmt: on
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'r.json').read_text())
    assert result['num_samples'] == 15 and {'image_to_text_R@1', 'text_to_image_R@10', 'mean_R@1'} <= set(
        result['metrics']
    )
    assert {'task', 'dataset', 'split', 'num_samples', 'metrics', 'protocol', 'seconds'} <= set(result)
    done = command('tools/evaluate.py', 'report', tmp_path / 'r.json', '--out', tmp_path / 'pages/r.html')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'pages/r.html').read_text().count('<img') == 8 + 8 * 5 and (
        tmp_path / 'r.json'
    ).stat().st_size < 300_000


def test_split_of_a_retrieval_set(model, tmp_path):
    make_coco(tmp_path)
    # fmt: off
    common = (
        'tools/evaluate.py', 'retrieval', '--model', model, '--data-root', tmp_path, '--out', tmp_path / 'r.json',
        '--dataset',
    )
    # fmt: on
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
    # fmt: off
    args = (
        'tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'folder', '--data-root', tmp_path / 'set',
        '--out', tmp_path / 'f.json',
    )
    # fmt: on
    assert_one_line_error(command(*args), 'bar/broken.png: not an image', '--allow-missing')
    assert not (tmp_path / 'f.json').exists()
    done = command(*args, '--allow-missing')
    assert done.returncode == 0 and 'missing: 1 pictures (bar/broken.png)' in done.stderr, done.stderr
    result = json.loads((tmp_path / 'f.json').read_text())
    assert result['num_samples'] == 4 and result['num_skipped'] == 1
    assert result['missing'] == {
        'count': 1,
        'names': ['bar/broken.png'],
        'reasons': {'bar/broken.png': 'not an image of a known format'},
    }
    assert (
        result['protocol']['template_set'] == 'plain'
        and len(result['protocol']['files_sha256']['vae.safetensors']) == 64
    )


def evaluate(model, root, *more):
    # fmt: off
    return command(
        'tools/evaluate.py', 'zeroshot', '--model', model, '--dataset', 'webdataset', '--data-root', root,
        '--out', root / 'x.json', *more,
    )
    # fmt: on


def test_wrong_model_directory(tmp_path):
    make_data(tmp_path)
    assert_one_line_error(evaluate(tmp_path / 'none', tmp_path), 'none', 'does not exist')
    assert_one_line_error(evaluate(tmp_path, tmp_path), 'not a model directory')
    assert not (tmp_path / 'x.json').exists()


def test_truncated_safetensors(model, tmp_path):
    make_data(tmp_path)
    shutil.copytree(model, tmp_path / 'model')
    whole = (tmp_path / 'model/unet.safetensors').read_bytes()
    (tmp_path / 'model/unet.safetensors').write_bytes(whole[: len(whole) // 2])
    assert_one_line_error(evaluate(tmp_path / 'model', tmp_path), 'unet.safetensors', 'damaged')
    (tmp_path / 'model/unet.safetensors').unlink()
    assert_one_line_error(evaluate(tmp_path / 'model', tmp_path), 'unet.safetensors', 'does not exist')


def test_unknown_label_list_and_empty_data(model, trained, tmp_path):
    data = trained[0] / 'data'
    assert_one_line_error(evaluate(model, data, '--classnames', tmp_path / 'names.txt'), 'names.txt')
    (tmp_path / 'empty').mkdir()
    assert_one_line_error(evaluate(model, tmp_path / 'empty'), 'empty')
    assert_one_line_error(evaluate(model, data, '--dataset', 'cifar11'), 'cifar11')
    assert_one_line_error(
        command('tools/train.py', '--config', trained[0] / 'diffdis.yaml', f'data.path={tmp_path / "empty"}'), 'empty'
    )


def test_config_typo_names_the_nearest_key(trained):
    assert_one_line_error(
        command('tools/train.py', '--config', trained[0] / 'diffdis.yaml', 'train.batch_sise=3'),
        'batch_sise',
        'train.batch_size',
    )
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
    # fmt: off
    done = command(
        'tools/train.py', '--config', trained[0] / 'diffdis.yaml', f'data.path={tmp_path / "data"}',
        f'output_dir={tmp_path / "run"}', 'max_steps=5', 'data.cache_in_memory=true',
    )
    # fmt: on
    assert done.returncode == 0, done.stderr
    assert 'skipped 2' in done.stdout


def test_classify_names_the_file_that_is_no_image(model, tmp_path):
    for name in 'abc':
        draw('red', 'square').save(tmp_path / f'{name}.png')
    (tmp_path / 'b.png').write_bytes(b'junk')
    args = ('tools/classify.py', '--model', model, '--labels', 'a,b', *(tmp_path / f'{name}.png' for name in 'abc'))
    assert_one_line_error(command(*args), 'b.png: not an image')
    (tmp_path / 'c.png').unlink()
    assert_one_line_error(command(*args), 'b.png: not an image', '1 more of the 3')


# sample.py: which texts, and which run the pictures are of


def texts(tmp_path, content, name='p.txt', prompt=()):
    (tmp_path / name).write_bytes(content)
    return list(sample.read_prompts(Namespace(prompt=prompt, prompts=str(tmp_path / name))).items())


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_prompts_by_line_in_any_marked_encoding(tmp_path, capsys, encoding):
    found = texts(tmp_path, 'a\x0cb\x85c\u2028d\r\nzwei Bären\r\n'.encode(encoding))
    assert found == [('00000.png', 'a\x0cb\x85c\u2028d'), ('00001.png', 'zwei Bären')] and not capsys.readouterr().err


def test_blank_lines_are_counted_and_said(tmp_path, capsys):
    assert [text for _, text in texts(tmp_path, b'a\n\n \nb\n')] == ['a', 'b']
    assert 'p.txt: 2 of 4 lines are blank, the first is line 2' in capsys.readouterr().err


def test_prompts_with_names_keep_them(tmp_path):
    assert texts(tmp_path, b'{"prompts": {"000042.png": "a cat", "7.jpg": "a dog"}}', 'p.json') == [
        ('000042.png', 'a cat'),
        ('7.jpg', 'a dog'),
    ]


@pytest.mark.parametrize(
    'name, content, words',
    [
        ('p.txt', 'caf\xe9'.encode('latin-1'), 'UTF-8'),
        ('p.json', b'{"prompts"', 'damaged'),
        ('p.json', b'["a"]', 'object'),
        ('p.txt', b'\n\n', 'no text'),
        ('p.json', b'{"prompts": {"../a.png": "x"}}', 'name of an image'),
        ('p.json', b'{"prompts": {"grid.png": "x"}}', 'grid.png'),
        ('p.json', b'{"prompts": {"a.png": "x", "a.png": "y"}}', 'twice'),
        ('p.json', b'{"prompts": {"a.png": " "}}', 'blank'),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, name, content, words):
    with pytest.raises(ConfigError, match=words):
        texts(tmp_path, content, name)


def test_a_run_is_known_by_its_weights(tmp_path):
    settings = {'model': 'a', 'files_sha256': {'unet.safetensors': '1'}, 'steps': 50, 'seed': 0}
    sample.settle(tmp_path / 'out', {'00000.png': 'a cat'}, settings, World())
    file = tmp_path / 'out/prompts.json'
    sample.settle(tmp_path / 'out', {'00000.png': 'a cat'}, {**settings, 'model': 'moved'}, World())
    for changed, words in (
        ({'files_sha256': {'unet.safetensors': '2'}}, 'other model files'),
        ({'steps': 20}, 'other steps'),
        ({'seed': 1}, 'other seed'),
    ):
        with pytest.raises(ConfigError, match=f'{words}.*--out'):
            sample.settle(tmp_path / 'out', {'00000.png': 'a cat'}, {**settings, **changed}, World())
    with pytest.raises(ConfigError, match='other texts'):
        sample.settle(tmp_path / 'out', {'00000.png': 'a dog'}, settings, World())
    content = json.loads(file.read_text())
    del content['files_sha256']
    for damaged, words in ((json.dumps(content), 'earlier version.*--out'), ('{"model"', 'damaged')):
        file.write_text(damaged)
        with pytest.raises(ConfigError, match=words):
            sample.settle(tmp_path / 'out', {'00000.png': 'a cat'}, settings, World())
    file.unlink()
    draw('red', 'bar').save(tmp_path / 'out/00000.png')
    with pytest.raises(ConfigError, match='00000.png exists already'):
        sample.settle(tmp_path / 'out', {'00000.png': 'a cat'}, settings, World())


def test_retrained_weights_at_the_same_path_do_not_keep_old_pictures(model, tmp_path):
    shutil.copytree(model, tmp_path / 'model')
    # fmt: off
    args = (
        'tools/sample.py', '--model', tmp_path / 'model', '--prompt', 'red square', '--steps', 1, '--sampler', 'ddim',
        '--out', tmp_path / 'out',
    )
    # fmt: on
    assert command(*args).returncode == 0
    weights = dict(load_file(tmp_path / 'model/unet.safetensors'))
    name = next(name for name, array in weights.items() if array.ndim > 1)
    save_file({**weights, name: weights[name] + 1}, tmp_path / 'model/unet.safetensors')
    assert_one_line_error(command(*args), 'prompts.json', 'other model files', '--out')


@pytest.mark.parametrize('damage', ['{"files"', '[]', '{"files": []}', b'\xff\x00\x01'])
def test_damaged_manifest_is_one_line(tmp_path, damage):
    (tmp_path / 'config.yaml').write_text('image_size: 32\n')
    (tmp_path / 'manifest.json').write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    with pytest.raises(ConfigError, match='manifest.json') as e:
        read_config(tmp_path)
    assert '\n' not in str(e.value)

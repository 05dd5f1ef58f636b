"""What the documents say holds: commands are parsed by their own tools, configs load, links lead somewhere, and both
READMEs say the same. No command is executed."""

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import MagicMock, create_autospec, patch

import pytest
import yaml

import diffdis_ms
from diffdis_ms.config import Config, load
from diffdis_ms.errors import ConfigError

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / name for name in ('README.md', 'README_CN.md', 'CONTRIBUTING.md', 'CHANGELOG.md')]
DOCUMENTS += sorted((ROOT / 'docs').glob('*.md'))
FENCE = re.compile(r'^( *)(```+|~~~+) *(\w*)[^\n]*\n(.*?)^ *\2 *$', re.M | re.S)
LINK = re.compile(r'\]\(([^)\s]+)\)')
CODE = re.compile(r'(?<!`)`([^`\n]+)`(?!`)')
NUMBER = re.compile(r'\d+(?:[.,]\d+)*')
COMMAND = re.compile(r'^\s*(?:[A-Z_]+=\S* )*(?:\S*/)?(?:python[\d.]*|bash|msrun|pip|sbatch|kubectl) ')
SHELL = ('bash', 'sh', 'shell')
TOP = ('diffdis_ms/', 'ckpt_convert/', 'tools/', 'tests/', 'ascend_configs/', 'docs/')
OPTIONS = [*(ROOT / 'tools').glob('*.py'), *(ROOT / 'diffdis_ms').rglob('*.py'), *(ROOT / 'ckpt_convert').glob('*.py')]


class Wrong(AssertionError):
    """Something in a document does not hold."""


class Parsed(BaseException):
    """Ends a tool once it has read its command line; `args[0]` is the namespace, or None."""


def require(condition, message):
    if not condition:
        raise Wrong(message)


def fences(text):
    """[(language, code)] of the fenced blocks, indentation removed."""
    found = []
    for indent, _, language, code in FENCE.findall(text):
        found.append((language, re.sub(f'^{indent}', '', code, flags=re.M)))
    return found


def prose(text):
    return FENCE.sub('', text)


# ---------------------------------------------------------------------------------------------------- command lines


def commands(code):
    """Token lists of the commands in a shell block: comments, assignments and redirections removed, pipelines split."""
    found = []
    for line in code.replace('\\\n', ' ').splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words, skip = [[]], False
        for token in lexer:
            if set(token) <= set('&|;'):
                words.append([])
            elif set(token) <= set('<>'):
                skip = True
                if words[-1] and words[-1][-1] in ('1', '2'):
                    words[-1].pop()
            elif skip:
                skip = False
            else:
                words[-1].append(token)
        found += [w for w in words if w]
    return found


def check_command(words):
    """Raise Wrong unless the command is of a known kind and its program takes it."""
    while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
        words = words[1:]
    if not words:
        return
    name, arguments = words[0].rpartition('/')[2], words[1:]
    if name == 'nice':
        return check_command(arguments[2:] if arguments[:1] == ['-n'] else arguments)
    if re.fullmatch(r'python(3(\.\d+)?)?', name):
        return check_python(arguments)
    check = {'bash': check_bash, 'msrun': check_msrun, 'pip': check_pip, 'sbatch': check_sbatch}.get(name)
    if check:
        return check(arguments)
    if name == 'kubectl':
        require(arguments[:2] == ['apply', '-f'] and len(arguments) == 3, f'unknown kind of command: {words}')
        return require((ROOT / arguments[2]).is_file(), f'{arguments[2]} does not exist')
    # nothing of this project to check
    require(name in ('cd', 'source', 'export', 'tail', 'git', 'tensorboard'), f'unknown kind of command: {words}')


def check_python(arguments):
    if arguments[:1] != ['-m']:
        return check_tool(arguments[0], arguments[1:])
    module, rest = arguments[1], arguments[2:]
    if module == 'pytest':
        return check_pytest(rest)
    if module == 'pip':
        return check_pip(rest)
    if module == 'ruff':
        return require(rest[0] in ('check', 'format'), f'unknown: ruff {rest}')
    if module == 'venv':
        return require(len(rest) == 1, f'unknown: venv {rest}')
    require(module.split('.')[0] in ('ckpt_convert', 'diffdis_ms'), f'unknown kind of command: python -m {module}')
    path = ROOT / module.replace('.', '/')
    path = path / '__main__.py' if path.is_dir() else path.with_suffix('.py')
    options = parse(path, rest)
    if module == 'diffdis_ms.ascend.coverage':
        check_function(options.graphs)


def check_function(name):
    """MODULE:FUNCTION of this repository."""
    module, _, function = name.partition(':')
    path = ROOT / f'{module.replace(".", "/")}.py'
    require(path.is_file() and f'def {function}(' in path.read_text(encoding='utf-8'), f'there is no {name}')


def check_bash(arguments):
    script, rest = arguments[0], arguments[1:]
    if script == 'scripts/msrun_launcher.sh':  # of MindFormers' repository
        inner = shlex.split(rest[0])
        require(inner[0] == 'run_mindformer.py', f'unknown kind of command: {rest[0]}')
        options = dict(zip(inner[1::2], inner[2::2], strict=True))
        if options['--config'] != 'FILE':
            check_mindformers_config(options['--config'])
        return require(
            options['--register_path'].endswith('diffdis_ms/formers'), f'--register_path {options["--register_path"]}'
        )
    require((ROOT / script).is_file(), f'{script} does not exist')
    if script == 'tools/demo.sh':
        return check_tool('tools/demo.py', rest)
    if script == 'tools/launch.sh':
        return check_tool('tools/launch.py', rest)
    if script == 'tools/test.sh':
        return check_pytest(rest)
    raise Wrong(f'unknown kind of command: bash {script}')


def check_msrun(arguments):
    known = Path(importlib.util.find_spec('mindspore').submodule_search_locations[0], 'parallel/cluster/run.py')
    known = set(re.findall(r'"(--\w+)"', known.read_text(encoding='utf-8')))
    at = next((i for i, word in enumerate(arguments) if word.endswith('.py')), None)
    require(at is not None, 'msrun without a script')
    for word in arguments[:at]:
        require(word.partition('=')[0] in known and '=' in word, f'msrun has no option {word}')
    check_tool(arguments[at], arguments[at + 1 :])


def check_pip(arguments):
    require(arguments[:1] == ['install'] and len(arguments) > 1, f'unknown: pip {arguments}')
    project = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    for word in arguments[1:]:
        for extra in re.findall(r'[\w-]+', word.partition('[')[2]) if word.startswith('.') else ():
            require(f'{extra} = [' in project, f'pyproject.toml has no extra {extra}')


def check_pytest(arguments):
    parser = argparse.ArgumentParser(prog='pytest', add_help=False)
    for option in ('-m', '-k', '-n', '-r', '--durations'):
        parser.add_argument(option)
    for option in ('-q', '-x', '-v', '-s', '--lf', '--pdb', '--noconftest'):
        parser.add_argument(option, action='store_true')
    parser.add_argument('paths', nargs='*')
    with patch.object(argparse.ArgumentParser, 'error', refuse):
        options = parser.parse_args(arguments)
    for path in options.paths:
        file, _, test = path.partition('::')
        require((ROOT / file).exists(), f'{file} does not exist')
        require(not test or f'def {test}(' in (ROOT / file).read_text(encoding='utf-8'), f'{file} has no {test}')


def check_sbatch(arguments):
    scripts = [i for i, word in enumerate(arguments) if word.endswith('.sh')]
    require(scripts and (ROOT / arguments[scripts[0]]).is_file(), f'unknown kind of command: sbatch {arguments}')
    text = (ROOT / arguments[scripts[0]]).read_text(encoding='utf-8')
    configs = re.findall(r'--config (\S+)', text)
    check_tool('tools/train.py', ['--config', *configs, *arguments[scripts[0] + 1 :]])


def check_tool(script, arguments):
    """A tool of this repository: its parser takes the arguments, and what they name exists."""
    path = ROOT / script
    require(script.startswith('tools/') and path.is_file(), f'{script} is no tool of this repository')
    stands_for = {'tools/train.py': 'cc3m_diffdis.yaml', 'tools/mindformers_train.py': 'mindformers_diffdis.yaml'}
    if script in stands_for:  # FILE is any config: the overrides after it are tried on this one
        arguments = [f'ascend_configs/{stands_for[script]}' if word == 'FILE' else word for word in arguments]
    options = parse(path, arguments)
    if script == 'tools/launch.py':
        check_tool(options.script, options.arguments)
    if script == 'tools/mindformers_train.py':
        sections = check_mindformers_config(options.config)
        for item in options.overrides:
            require('=' in item and item.partition('.')[0] in sections, f'{options.config} has no section for {item}')


def check_mindformers_config(name):
    require((ROOT / name).is_file(), f'{name} does not exist')
    sections = yaml.safe_load((ROOT / name).read_text(encoding='utf-8'))
    require('trainer' in sections, f'{name} is not in the schema of MindFormers')
    return sections


def refuse(parser, message):
    raise Wrong(f'{parser.prog}: {message}')


def parse(path, arguments):
    """The namespace that a program's own parser makes of its arguments; nothing else of the program runs.

    tools/train.py goes one step further: it loads its config, and then ends (None is returned).
    """
    name = 'documented_' + '_'.join(path.relative_to(ROOT).with_suffix('').parts)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as `python FILE` does
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    trains = path == ROOT / 'tools/train.py'

    def stop_at(method):
        def stop(self, *args, **kwargs):
            namespace = method(self, *args, **kwargs)
            if trains:
                return namespace
            raise Parsed(namespace)

        return stop

    def load_and_stop(*args, **kwargs):
        load(*args, **kwargs)
        raise Parsed(None)

    parser = argparse.ArgumentParser
    with ExitStack() as changes:
        changes.enter_context(patch.object(sys, 'argv', [str(path), *arguments]))
        changes.enter_context(patch.object(parser, 'error', refuse))
        for method in ('parse_args', 'parse_intermixed_args'):
            changes.enter_context(patch.object(parser, method, stop_at(getattr(parser, method))))
        if trains:
            changes.enter_context(patch.object(module, 'load', load_and_stop))
        try:
            module.main()
        except Parsed as e:
            return e.args[0]
        except ConfigError as e:
            raise Wrong(str(e)) from None
    raise Wrong(f'{path} did not read its command line')


# ------------------------------------------------------------------------------------------------ other fenced blocks


def check_block(language, code, directory):
    if language in SHELL:
        for words in commands(code):
            check_command(words)
    elif language == 'python':
        check_python_block(code, directory)
    elif language in ('yaml', 'yml'):
        check_yaml_block(code, directory)
    elif language == 'json':
        json.loads(code)
    else:
        require(language in ('', 'text'), f'unknown kind of block: {language}')
        for line in code.replace('\\\n', ' ').splitlines():
            if COMMAND.match(line):  # among other lines, as in a session's transcript
                check_block('bash', line, directory)


def check_python_block(code, directory):
    """Compile; resolve what is imported from this project; run what uses a pipeline, on one that checks each call."""
    tree = ast.parse(code)
    if 'DiffDisPipeline' not in code:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] in ('diffdis_ms', 'ckpt_convert'):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    require(hasattr(module, alias.name), f'{node.module} has no {alias.name}')
        return
    from diffdis_ms.pipeline import DiffDisPipeline

    double, pipe = create_autospec(DiffDisPipeline), create_autospec(DiffDisPipeline, instance=True)
    for name in ('config', 'unet', 'vae', 'text_encoder', 'tokenizer'):
        setattr(pipe, name, MagicMock())
    double.return_value = double.from_pretrained.return_value = double.from_config.return_value = pipe
    with patch('diffdis_ms.pipeline.DiffDisPipeline', double), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(directory)
        try:
            exec(compile(tree, '<document>', 'exec'), {})
        except Exception as e:
            raise Wrong(f'{type(e).__name__}: {e}') from e


def check_yaml_block(code, directory):
    """Valid YAML; a training config loads."""
    content = yaml.safe_load(code)
    if not isinstance(content, dict) or not content.keys() <= {*Config.__dataclass_fields__, 'base'}:
        return
    bases = content.pop('base', [])
    content['base'] = [str(ROOT / 'ascend_configs' / b) for b in ([bases] if isinstance(bases, str) else bases)]
    path = Path(directory, 'block.yaml')
    path.write_text(yaml.safe_dump(content), encoding='utf-8')
    try:
        load(path)
    except ConfigError as e:
        raise Wrong(str(e)) from None


# ------------------------------------------------------------------------------------------------------ links, paths


def anchors(text):
    """The anchors GitHub gives the headings of a document."""
    found, times = set(), {}
    for title in re.findall(r'^#+ +(.+?) *#*$', prose(text), re.M):
        title = LINK.sub(']', title)
        slug = re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')
        times[slug] = times.get(slug, -1) + 1
        found.add(f'{slug}-{times[slug]}' if times[slug] else slug)
    return found


def check_link(target, text, path):
    """The target of a link in a document, text, that lies at path."""
    if re.match(r'https?://', target):
        return
    name, _, anchor = target.partition('#')
    file = path.parent / name if name else path
    require(file.exists(), f'{target}: there is no {file}')
    if anchor:
        content = text if file == path else file.read_text(encoding='utf-8')
        require(anchor in anchors(content), f'{target}: there is no such heading')


def check_span(span):
    """Files in a code span exist and hold the names said to be in them; options belong to a tool."""
    for word in span.split():
        if word.startswith(TOP) and not re.search(r'[*{<$]|[A-Z]{3}|\.\.\.', word):
            file, _, name = word.strip('()').partition(':')
            require((ROOT / file).exists(), f'`{span}`: there is no {file}')
            check_names(ROOT / file, [name] if name else re.findall(r'^[^ ]+: ([\w.]+)$', span))
    if re.search(r'tools/\w+\.|-m ckpt_convert', span) and 'test.sh' not in span:
        for option in re.findall(r'(?<=[ [|])--[a-z][\w-]+', span):
            known = any(f"'{option}'" in source.read_text(encoding='utf-8') for source in OPTIONS)
            require(known, f'`{span}`: no tool has {option}')


def check_names(file, names):
    for name in names:
        for part in name.split('.'):
            content = file.read_text(encoding='utf-8')
            require(re.search(rf'\b{part}\b', content), f'{file} has no {part}')


def check_paper_table(text):
    """The table from the paper to the code: its files lie below diffdis_ms/ and tests/ and hold the names."""
    rows = [row for row in tables(prose(text)) if row and row[0][1:3] in (['code', 'test'], ['代码', '测试'])]
    require(rows, 'there is no table from the paper to the code')
    for row in rows[0][1:]:
        for cell, below in ((row[1], 'diffdis_ms'), (row[2], 'tests')):
            file = None
            for span in CODE.findall(cell):
                name = span
                if '.py' in span:
                    path, _, name = span.partition(': ')
                    file = ROOT / below / path
                    require(file.is_file(), f'`{span}`: there is no {file}')
                require(file is not None, f'`{span}` follows no file')
                check_names(file, [name] if name else [])


def problems(text, path, directory):
    """Yield what does not hold in a document, text, that lies at path."""
    checks = [(check_link, target, text, path) for target in LINK.findall(prose(text))]
    checks += [(check_span, span) for span in CODE.findall(prose(text))]
    for language, code in fences(text):
        if language in SHELL:
            checks += [(check_command, words) for words in commands(code)]
        else:
            checks.append((check_block, language, code, directory))
    for check, *arguments in checks:
        try:
            check(*arguments)
        except Wrong as e:
            yield str(e)


# ----------------------------------------------------------------------------------------------- the two languages


def tables(text):
    """List of tables, each a list of rows, each a list of cells; the rule below the head is left out."""
    found, before = [], ''
    for line in text.splitlines():
        if line.startswith('|'):
            if not before.startswith('|'):
                found.append([])
            if not re.fullmatch(r'[|\s:-]+', line):
                found[-1].append([cell.strip() for cell in line.strip('|').split('|')])
        before = line
    return found


def commands_and_code(text):
    """Blocks without their comments."""
    return [
        (
            language,
            commands(code) if language == 'bash' else ast.dump(ast.parse(code)) if language == 'python' else code,
        )
        for language, code in fences(text)
    ]


def sections(text):
    """[(level of the heading, numbers, code spans, links)], the sorted contents of each section's prose."""
    found = []
    for part in re.split(r'^(?=#+ )', prose(text), flags=re.M):
        links = [link.replace('README_CN.md', 'README.md') for link in LINK.findall(part)]
        plain = LINK.sub(']', part)
        level = len(part) - len(part.lstrip('#'))
        found.append((level, sorted(NUMBER.findall(plain)), sorted(CODE.findall(plain)), sorted(links)))
    return found


def figures(text):
    return [[[(NUMBER.findall(cell), CODE.findall(cell)) for cell in row] for row in t] for t in tables(prose(text))]


def check_same(one, other):
    for what, view in (('sections', sections), ('tables', figures), ('blocks', commands_and_code)):
        a, b = view(one), view(other)
        for x, y in zip(a, b, strict=False):
            require(x == y, f'{what} differ: {x} and {y}')
        require(len(a) == len(b), f'{len(a)} {what} and {len(b)}')


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_a_document_holds(path, tmp_path):
    wrong = list(problems(path.read_text(encoding='utf-8'), path, tmp_path))
    assert not wrong, '\n'.join(wrong)


def test_the_launch_commands_in_the_configs_hold():
    found = 0
    for path in sorted((ROOT / 'ascend_configs').glob('*.yaml')):
        head = re.sub(r'\\\n#\s*', '', path.read_text(encoding='utf-8'))  # one command over several lines
        for line in re.findall(r'^# +((?:python|bash|msrun) .*)$', head, re.M):
            for words in commands(line.replace('--node-rank R ', '--node-rank 0 ')):  # R: the number of the machine
                check_command(words)
                found += 1
    assert found >= 5


def test_the_two_languages_say_the_same():
    one, other = ((ROOT / name).read_text(encoding='utf-8') for name in ('README.md', 'README_CN.md'))
    assert one.count('```bash') >= 8 and len(tables(prose(one))) == 3
    check_same(one, other)
    for text in (one, other):
        check_paper_table(text)
        assert '(docs/ascend.md)' in ''.join(text.splitlines()[:10])  # the state of the Ascend side comes first


def check_changelog(text):
    titles = re.findall(r'^## (.+)$', text, re.M)
    require(titles[:1] == ['[Unreleased]'], 'the first section is not [Unreleased]')
    for title in titles[1:]:
        require(re.fullmatch(r'\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d', title), f'{title} is no version and date')
    require(titles[1].startswith(f'[{diffdis_ms.__version__}] - '), f'the newest version is {titles[1]}')
    kinds = set(re.findall(r'^### (.+)$', text, re.M))
    require(kinds <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}, f'unknown among {kinds}')


def check_citation(text):
    citation = yaml.safe_load(text)
    for key in ('cff-version', 'message', 'type', 'title', 'authors', 'version', 'license', 'preferred-citation'):
        require(citation.get(key), f'{key} is missing')
    require(citation['version'] == diffdis_ms.__version__, f'version {citation["version"]}')
    paper = citation['preferred-citation']
    for key in ('type', 'title', 'authors', 'collection-title', 'year', 'start', 'end', 'url'):
        require(paper.get(key), f'preferred-citation.{key} is missing')
    for author in paper['authors']:
        require(author.keys() == {'family-names', 'given-names'}, f'{author} is no name')


def test_the_changelog_ends_at_the_version_of_the_package():
    text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    check_changelog(text)
    for old, new in (
        ('[Unreleased]', '[Next]'),
        (f'[{diffdis_ms.__version__}]', '[99.0.0]'),
        ('### Fixed', '### Mended'),
        (' - 2', ' - in 2'),
    ):
        with pytest.raises(Wrong):
            check_changelog(text.replace(old, new))


def test_the_citation_is_of_this_version_and_of_the_paper():
    text = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    check_citation(text)
    for old, new in (
        (f'version: {diffdis_ms.__version__}', 'version: 99.0.0'),
        ('license: Apache-2.0', ''),
        ('year: 2023', ''),
        ('given-names', 'given'),
    ):
        assert old in text
        with pytest.raises(Wrong):
            check_citation(text.replace(old, new))


TRAIN = 'python tools/train.py --config ascend_configs/cc3m_diffdis.yaml'
WRONG_COMMANDS = [
    ('python tools/no_such_tool.py --help', 'is no tool'),
    ('python tools/train.py --config ascend_configs/no_such.yaml', 'no_such.yaml'),
    (f'{TRAIN} max_stepz=3', 'max_steps'),
    (f'{TRAIN} max_steps=many', 'max_steps'),
    (f'{TRAIN} --fast', '--fast'),
    ('python tools/classify.py --model DIR picture.png', '--labels'),
    (
        'python tools/evaluate.py zeroshot --model DIR --dataset cifar10 --data-root DIR --out a.json --step 1 two',
        'two',
    ),
    ('python tools/evaluate.py drawing --out a.json', 'drawing'),
    ('python -m ckpt_convert import --src sd.ckpt', '--dst'),
    ('python -m ckpt_convert export --src DIR --dst DIR \\\n --format onnx', 'onnx'),
    ('python -m http.server', 'unknown kind'),
    ('python -m diffdis_ms.ascend.coverage diffdis_ms.ascend.graphs:no_such_graph', 'no_such_graph'),
    ('bash tools/demo.sh --quick', '--quick'),
    ('bash tools/venv.sh', 'unknown kind'),
    ('bash tools/test.sh tests/no_such_folder', 'no_such_folder'),
    ('bash tools/launch.sh eight tools/train.py', 'eight'),
    ('bash tools/launch.sh 8 --nodez 2 tools/train.py', '--nodez'),
    ('bash tools/launch.sh 2 tools/train.py --config ascend_configs/cc3m_diffdis.yaml max_stepz=3', 'max_steps'),
    ('msrun --workers=8 tools/sample.py --model DIR --prompt a --out DIR', '--workers'),
    ('msrun --worker_num=8 tools/sample.py --model DIR --prompt a', '--out'),
    ('python tools/mindformers_train.py --config ascend_configs/mindformers_tiny.yaml optimiser.lr=1', 'optimiser'),
    ('pip install .[demon]', 'demon'),
    ('sbatch ascend_configs/slurm.sh max_stepz=5', 'max_steps'),
    ('kubectl apply -f ascend_configs/no_such.yaml', 'no_such'),
    ('VENV=DIR python tools/bench.py no_such_benchmark', 'no_such_benchmark'),
    ('cd somewhere && frobnicate --all', 'unknown kind'),
]


@pytest.mark.parametrize('command, named', WRONG_COMMANDS)
def test_a_wrong_command_is_found(command, named, tmp_path):
    with pytest.raises(Wrong, match=re.escape(named)):
        check_block('bash', command, tmp_path)


WRONG_BLOCKS = [
    ('python', "from diffdis_ms import DiffDisPipeline\nDiffDisPipeline.from_pretrained('m').draw('a')", 'draw'),
    (
        'python',
        "from diffdis_ms import DiffDisPipeline\nDiffDisPipeline.from_pretrained('m').generate([], step=5)",
        'step',
    ),
    ('python', 'from diffdis_ms.config import no_such_name', 'no_such_name'),
    ('yaml', 'base: cc3m_diffdis.yaml\ntrain: {max_stepz: 3}', 'max_steps'),
    ('', 'some text\n  python tools/no_such_tool.py', 'no_such_tool'),
    ('fish', 'ls', 'unknown kind of block'),
]


@pytest.mark.parametrize('language, code, named', WRONG_BLOCKS)
def test_a_wrong_block_is_found(language, code, named, tmp_path):
    with pytest.raises(Wrong, match=named):
        check_block(language, code, tmp_path)


@pytest.mark.parametrize(
    'text, named',
    [
        ('[a](docs/no_such.md)', 'no_such'),
        ('# Title\n[a](#other-title)', 'other-title'),
        ('[a](CONTRIBUTING.md#no-such-heading)', 'no-such-heading'),
        ('see `diffdis_ms/no_such.py`', 'no_such'),
        ('see `diffdis_ms/config/fields.py: no_such_name`', 'no_such_name'),
        ('`python tools/train.py --no-such-option`', '--no-such-option'),
    ],
)
def test_a_wrong_link_or_path_is_found(text, named, tmp_path):
    (wrong,) = problems(text, ROOT / 'README.md', tmp_path)
    assert named in wrong
    right = '# A title, twice\n# A title, twice\n[a](#a-title-twice-1) [b](docs/mutation.md#figures)'
    assert not list(problems(right, ROOT / 'README.md', tmp_path))


@pytest.mark.parametrize(
    'old, new',
    [
        ('--steps 20', '--steps 25'),  # a command
        ('guidance_weight=3.0', 'guidance_weight=7.5'),  # Python
        ('39.3%', '39.4%'),  # a figure in a table
        ('3,904', '3,905'),  # a figure in a sentence
        ('(docs/data.md)', '(docs/training.md)'),
        ('`predict_noise`', '`predict_query`'),
        ('### ', '## '),
        ('| **49.9%** | 0.2% |\n', '| **49.9%** | 0.2% |\n| one | more | row |\n'),
    ],
)
def test_a_difference_between_the_languages_is_found(old, new):
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert old in text
    check_same(text, text)
    with pytest.raises(Wrong):
        check_same(text, text.replace(old, new, 1))


@pytest.mark.parametrize(
    'old, new', [('models/unet.py', 'models/no_such.py'), ('`pndm`', '`no_such_name`'), ('| paper |', '| article |')]
)
def test_a_wrong_row_of_the_paper_is_found(old, new):
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    changed = text.replace(old, new) if old[0] != '|' else text.replace('| code | test |', '| source | test |')
    with pytest.raises(Wrong):
        check_paper_table(changed)

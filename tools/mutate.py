"""Mutation testing: change the source in one small place at a time and see whether the tests notice.

Each mutant (an operator, a constant, a condition, a dropped statement, swapped arguments ...) is written into a copy of
the project. The target's test files run on it, one after the other, until one fails. If none fails, the mutant
survives and is printed as a diff. The checkout itself is never changed. A mutant takes 2 to 60 s.
"""

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run
from diffdis_ms.storage.files import whole_file
from diffdis_ms.text_files import read_json, read_text

ROOT = Path(__file__).resolve().parent.parent
PROCESS, SAMPLERS = 'tests/diffusion/test_process.py --noconftest', 'tests/diffusion/test_samplers.py --noconftest'
GUIDANCE = 'tests/test_pipeline_guidance.py'
TESTS = {  # target -> its test files with options for pytest, the fastest first
    'diffdis_ms/diffusion/schedule.py': [PROCESS, 'tests/parity/test_samplers.py'],
    'diffdis_ms/diffusion/process.py': [PROCESS, SAMPLERS],
    'diffdis_ms/diffusion/losses.py': ['tests/diffusion/test_losses.py'],
    'diffdis_ms/diffusion/samplers.py': [SAMPLERS, GUIDANCE, 'tests/parity/test_samplers.py'],
    'diffdis_ms/evaluate/metrics/retrieval.py': [
        'tests/evaluate/test_mutants_metrics.py --noconftest',
        'tests/evaluate/test_metrics.py --noconftest',
    ],
    'diffdis_ms/evaluate/metrics/zeroshot.py': [
        'tests/evaluate/test_metrics.py --noconftest',
        'tests/evaluate/test_missing.py',
    ],
    'diffdis_ms/evaluate/metrics/fid.py': ['tests/evaluate/test_generation.py -k "fid or kid"'],
    'diffdis_ms/pipeline.py': [GUIDANCE, 'tests/test_pipeline.py'],
    'diffdis_ms/train/features.py': ['tests/train/test_features.py', 'tests/train/test_cache.py'],
    'diffdis_ms/train/objective.py': ['tests/train/test_objective.py', 'tests/train/test_step.py'],
    'diffdis_ms/train/optim.py': ['tests/train/test_step.py'],
    'diffdis_ms/train/step.py': ['tests/train/test_step.py', 'tests/train/test_precision.py'],
}
# fmt: off
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}
# fmt: on
LEFT_OUT = ('.*', '__pycache__', 'outputs', 'output', 'build', 'kernel_meta', 'rank_*', '*.egg-info')
UNSEEN = {'tqdm', 'bar.update', 'bar.close', 'print', 'ConfigError'}  # calls that only show something
SYMMETRIC = {'min', 'max', 'isinstance'}  # swapping their arguments changes nothing
STOPPED = 120  # s beyond 3 times the warm-up: then a mutant counts as killed

EXAMPLES = """examples:
  python tools/mutate.py --list
  nice -n 15 python tools/mutate.py diffdis_ms/diffusion/samplers.py --json samplers.json
  nice -n 15 python tools/mutate.py diffdis_ms/pipeline.py --limit 20 --seed 1 --json pipeline.json
  python tools/mutate.py diffdis_ms/runtime/context.py --tests tests/test_runtime.py

With --json, a run that was stopped goes on where it was, and after a change of the tests only the survivors are tried
again. Not every survivor is a gap in the tests: some mutants compute the same. docs/mutation.md discusses those found.
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('target', nargs='*', metavar='TARGET', help='source file, relative to the project')
    parser.add_argument(
        '--tests', nargs='+', metavar='FILE', help='test files, instead of those --list names for the target'
    )
    parser.add_argument('--limit', type=int, metavar='N', help='only N mutants of a target, drawn at random')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (default: %(default)s)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the results to this file, and continue from them'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        metavar='S',
        help=f'time limit for a test file on a mutant (default: {STOPPED} s plus 3 times that of the source)',
    )
    parser.add_argument(
        '--list', action='store_true', help='list the targets, their tests and the number of their mutants'
    )
    parser.add_argument('--root', type=Path, default=ROOT, metavar='DIR', help='the project (default: this one)')
    args = parser.parse_args()
    if not (args.target or args.list):
        parser.error('TARGET is missing; --list names those with tests')
    if args.limit is not None and args.limit < 1:
        parser.error('--limit must be at least 1')
    return args


def mutants(source):
    """All mutants of a Python source: list of {line, kind, old, new, source}; `source` is the whole mutated text."""
    tree, lines, found, seen = ast.parse(source), source.encode().splitlines(keepends=True), [], {source}

    def add(kind, node, new):
        text = new if isinstance(new, str) else ast.unparse(new)
        if isinstance(node, ast.expr) and not isinstance(new, (str, ast.Constant, ast.Name)):
            text = f'({text})'
        before, after = lines[node.lineno - 1][: node.col_offset], lines[node.end_lineno - 1][node.end_col_offset :]
        mutated = b''.join(
            [*lines[: node.lineno - 1], before, text.encode(), after, *lines[node.end_lineno :]]
        ).decode()
        if mutated not in seen:
            seen.add(mutated)
            old, new = b''.join(lines[node.lineno - 1 : node.end_lineno]), before + text.encode() + after
            found.append(
                {
                    'line': node.lineno,
                    'kind': kind,
                    'old': old.decode().rstrip('\n'),
                    'new': new.decode().rstrip('\n'),
                    'source': mutated,
                }
            )

    for node in _visible(tree):
        for kind, new in _changes(node):
            add(kind, node, new)
    return sorted(found, key=lambda m: m['line'])


def _visible(node):
    """Nodes whose change a test should notice: no texts, annotations or calls that only show something."""
    for child in ast.iter_child_nodes(node):
        called = child.value if isinstance(child, ast.Expr) else child
        if (
            isinstance(child, (ast.JoinedStr, ast.Import, ast.ImportFrom))
            or isinstance(called, ast.Call)
            and ast.unparse(called.func) in UNSEEN
        ):
            continue
        yield child
        if not isinstance(child, ast.Raise):
            yield from _visible(child)


def _changes(node):
    """(kind, new node or text) for one node."""

    def changed(**fields):
        twin = copy.copy(node)
        for name, value in fields.items():
            setattr(twin, name, value)
        return twin

    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in OPERATORS:
        yield 'operator', changed(op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield 'comparison', changed(ops=[*node.ops[:i], OPERATORS[type(op)](), *node.ops[i + 1 :]])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield 'operator', node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        other = {bool: lambda x: not x, int: lambda x: {0: 1, 1: 0}.get(x, x + 1), float: lambda x: 2 * x or 1.0}
        yield 'constant', repr(other[type(node.value)](node.value))
    if isinstance(node, ast.IfExp):
        yield 'condition', changed(body=node.orelse, orelse=node.body)
    if (
        isinstance(node, ast.Call)
        and len(node.args) > 1
        and ast.unparse(node.func) not in SYMMETRIC
        and not any(isinstance(a, ast.Starred) for a in node.args[:2])
    ):
        yield 'arguments swapped', changed(args=[node.args[1], node.args[0], *node.args[2:]])
    if isinstance(node, (ast.Return, ast.Assign)) and isinstance(node.value, ast.Call) and node.value.args:
        yield 'call left out', changed(value=node.value.args[0])
    if (
        isinstance(node, (ast.AugAssign, ast.Raise, ast.Break, ast.Continue))
        or isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        or isinstance(node, ast.Assign)
        and _may_be_dropped(node)
    ):
        yield 'statement dropped', 'pass'
    if (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, (ast.Call, ast.BinOp))
    ):
        yield 'value times 0', changed(value=ast.BinOp(ast.Constant(0), ast.Mult(), node.value))


def _may_be_dropped(node):
    """Whether an assignment can be left out, because its targets may exist before it.

    These are names that it reads itself, attributes and elements.
    """
    target = node.targets[0]
    read = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return not isinstance(target, ast.Name) or target.id in read


class Copy:
    """A copy of the project in a temporary directory, where the tests run."""

    def __init__(self, root, directory):
        self.root, self.directory = Path(root), Path(directory) / 'project'
        shutil.copytree(root, self.directory, ignore=shutil.ignore_patterns(*LEFT_OUT))

    def passes(self, test, timeout=None):
        """(whether a test file passes, the end of its output, seconds); a test that is stopped does not pass."""
        env = {
            **os.environ,
            'PYTHONPATH': str(self.directory),
            'PYTHONDONTWRITEBYTECODE': '1',
            'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',
        }
        arguments = [sys.executable, '-m', 'pytest', '-xq', '-p', 'no:cacheprovider', '-m', 'not slow']
        start = time.monotonic()
        with tempfile.TemporaryFile('w+', errors='replace') as output:
            process = subprocess.Popen(
                arguments + shlex.split(test),
                cwd=self.directory,
                env=env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = 'stopped by its timeout'
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # its own processes too
                    process.wait()
            output.seek(0)
            return code == 0, output.read()[-2000:] or str(code), time.monotonic() - start


def digest(what):
    return hashlib.sha256(what.encode() if isinstance(what, str) else what.read_bytes()).hexdigest()[:16]


def run_target(project, target, tests, args, known):
    """Try the mutants of one target; yields (results so far, mutant just tried).

    Args:
        project: Copy. tests: paths of test files, perhaps with options. known: results of an earlier run, {} for none.
            Results for the same source are kept; survivors only if the tests are also the same.
    """
    source = read_text(project.directory / target)
    possible = mutants(source)
    count = min(args.limit or len(possible), len(possible))
    chosen = possible if count == len(possible) else random.Random(args.seed).sample(possible, count)
    result = {
        'source': digest(project.directory / target),
        'possible': len(possible),
        'tests': {test: digest(project.directory / test.split()[0]) for test in tests},
    }
    earlier = known.get('mutants', {}) if known.get('source') == result['source'] else {}
    same_tests, names = known.get('tests') == result['tests'], {digest(m['source']) for m in possible}
    result['mutants'] = {n: m for n, m in earlier.items() if n in names and (m['killed_by'] or same_tests)}
    limits = {}
    for test in tests:
        passed, said, seconds = project.passes(test)
        if not passed:
            raise ConfigError(
                f'{test} does not pass on the unchanged {target}, so it cannot judge a mutant: {said.strip()[-300:]}'
            )
        limits[test] = args.timeout or 3 * seconds + STOPPED
    for mutant in tqdm(chosen, desc=target, unit='mutants', disable=None):
        name = digest(mutant['source'])
        if name in result['mutants']:
            continue
        (project.directory / target).write_bytes(mutant['source'].encode())
        try:
            killer = next((t for t in tests if not project.passes(t, limits[t])[0]), None)
        finally:
            (project.directory / target).write_bytes(source.encode())
        result['mutants'][name] = {**{k: mutant[k] for k in ('line', 'kind', 'old', 'new')}, 'killed_by': killer}
        result['mutants'] = dict(sorted(result['mutants'].items(), key=lambda item: item[1]['line']))
        yield result, result['mutants'][name]
    yield result, None


def as_difference(target, mutant):
    """A mutant as one hunk of a unified diff."""
    lines = [sign + line for sign, key in (('-', 'old'), ('+', 'new')) for line in mutant[key].split('\n')]
    return '\n'.join([f'@@ {target}:{mutant["line"]} {mutant["kind"]} @@', *lines])


def table(results):
    lines = ['| file | mutants | tried | killed | survived |', '| --- | --- | --- | --- | --- |']
    for target, result in results.items():
        tried, killed = len(result['mutants']), sum(bool(m['killed_by']) for m in result['mutants'].values())
        lines.append(f'| {target} | {result["possible"]} | {tried} | {killed} | {tried - killed} |')
    return '\n'.join(lines)


def main():
    args = parse_args()
    if args.list:
        for target, tests in TESTS.items():
            print(f'{target} ({len(mutants(read_text(ROOT / target)))} mutants):', *tests)
        return
    for path in (*args.target, *(args.tests or ())):
        if not (args.root / path).is_file():
            raise ConfigError(f'{path}: no such file in {args.root}')
    for target in args.target:
        if not args.tests and target not in TESTS:
            raise ConfigError(f'{target}has no tests in the list; name some with --tests, or see --list')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy is removed and its tests end
    results = read_json(args.json) if args.json and args.json.exists() else {}
    with tempfile.TemporaryDirectory(prefix='mutate-') as directory:
        project = Copy(args.root, directory)
        for target in args.target:
            tests = args.tests or TESTS[target]
            for result, tried in run_target(project, target, tests, args, results.get(target, {})):
                if tried and not tried['killed_by']:
                    tqdm.write(as_difference(target, tried))
                if args.json:
                    with whole_file(args.json) as file:
                        file.write(json.dumps({**results, target: result}, indent=1).encode())
            results[target] = result
    survivors = [as_difference(t, m) for t in args.target for m in results[t]['mutants'].values() if not m['killed_by']]
    print('', *(survivors and ['Survivors:', *survivors]), table({t: results[t] for t in args.target}), sep='\n')


if __name__ == '__main__':
    run(main)

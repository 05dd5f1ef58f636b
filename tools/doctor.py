"""Check this machine: versions, device, CANN, operator coverage, compile cache. Says what is wrong and how to fix it.

It starts with nothing but Python, so that it can report missing packages. The exit code is 1 if DiffDis cannot run.
"""

import argparse
import ast
import glob
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OK, NOTE, WARNING, PROBLEM = 'ok', 'note', 'warning', 'problem'
GRAPHS = 'diffdis_ms.ascend.graphs:doctor'
PROBE = """
import json, mindspore as ms, numpy as np
from mindspore._c_expression import MSContext
ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device('CPU')
a, b = ms.Tensor(np.ones((2, 3), np.float32)), ms.Tensor(np.ones((3, 2), np.float32))
value = float(ms.ops.matmul(a, b).sum().asnumpy())
ascend, chip = ms.device_context.ascend.is_available(), MSContext.get_instance().get_ascend_soc_version()
print('PROBE', json.dumps({'value': value, 'version': ms.__version__, 'ascend': ascend, 'chip': chip}))
"""


def row(name, status, found, advice=''):
    return {'name': name, 'status': status, 'found': found, 'advice': advice}


def judged(name, good, found, advice, otherwise=PROBLEM):
    """Make a row that is ok, or has another status and says what to do."""
    return row(name, OK, found) if good else row(name, otherwise, found, advice)


def check_python():
    good = (3, 10) <= sys.version_info[:2] <= (3, 11)
    found = f'{platform.python_version()} ({sys.executable}), {platform.machine()}'
    advice = 'DiffDis is for Python 3.10 and 3.11: PYTHON=python3.11 bash tools/venv.sh makes an environment'
    yield judged('python', good, found, advice)


def requirements():
    """The dependencies in pyproject.toml, read as text (Python 3.10 has no TOML reader)."""
    text = (ROOT / 'pyproject.toml').read_text()
    return ast.literal_eval(re.search(r'^dependencies = (\[.*?^\])', text, re.MULTILINE | re.DOTALL)[1])


def version_tuple(text):
    return tuple(int(part) for part in re.findall(r'\d+', text.split('+')[0])[:3])


def fits(version, specifiers):
    """Whether a version meets '>=1.26,<2' (the operators pyproject.toml uses: ==, >=, <)."""
    for operator, wanted in re.findall(r'(==|>=|<)\s*([\d.]+)', specifiers):
        ours, theirs = version_tuple(version), version_tuple(wanted)
        ours, theirs = (t + (0,) * (3 - len(t)) for t in (ours, theirs))
        if not {'==': ours == theirs, '>=': ours >= theirs, '<': ours < theirs}[operator]:
            return False
    return True


def check_packages():
    for requirement in requirements():
        name, specifiers = re.fullmatch(r'([A-Za-z0-9_-]+)(.*)', requirement).groups()
        install = f"pip install '{requirement}'"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            advice = f'{install} (or bash tools/venv.sh, which makes an environment)'
            yield row(name, PROBLEM, 'not installed', advice)
        else:
            yield judged(name, fits(version, specifiers), version, f'needs {specifiers}: {install}')


def check_torchvision():
    """Check that torchvision can be imported. Its wheel from PyPI fails with a CPU build of torch, and then so does
    transformers."""
    try:
        version = metadata.version('torchvision')
    except metadata.PackageNotFoundError:
        return
    done = subprocess.run([sys.executable, '-c', 'import torchvision'], capture_output=True, text=True)
    if done.returncode:
        found = f'{version}, cannot be imported: {last_line(done.stderr)}'
        advice = 'pip uninstall torchvision (transformers tries to import it; nothing here needs it)'
        yield row('torchvision', PROBLEM, found, advice)


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if re.search(r'\w', line)]
    return lines[-1][:200] if lines else 'no message'


def check_mindspore(probe):
    """Import MindSpore and run a graph, in a separate process because a failure may end the process."""
    name, command, env = 'MindSpore runs', [sys.executable, '-c', PROBE], {**os.environ, 'GLOG_v': '3'}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    except subprocess.TimeoutExpired:
        yield row(name, PROBLEM, 'no answer in 300 s', 'is the machine overloaded, or its memory full?')
        return
    if done.returncode or 'PROBE ' not in done.stdout:
        advice = 'make a fresh environment: VENV=.venv bash tools/venv.sh'
        yield row(name, PROBLEM, f'no: {last_line(done.stderr)}', advice)
        return
    probe.update(json.loads(done.stdout.rpartition('PROBE ')[2].splitlines()[0]))
    good = probe['value'] == 12.0
    found = 'a graph on the CPU, right result' if good else f'2 x 3 ones times 3 x 2 ones is {probe["value"]}'
    yield judged(name, good, found, 'this build of MindSpore computes wrong numbers: reinstall it')


def check_ascend(probe):
    devices = [p for p in glob.glob('/dev/davinci*') if re.fullmatch(r'/dev/davinci\d+', p)]
    toolkit = '/usr/local/Ascend/ascend-toolkit'
    homes = (os.environ.get('ASCEND_HOME_PATH'), os.environ.get('ASCEND_TOOLKIT_HOME'), f'{toolkit}/latest')
    home = next((Path(p) for p in homes if p and Path(p).is_dir()), None)
    if not devices and not home:
        yield row('Ascend', NOTE, 'no NPU, no CANN: only device=CPU runs here')
        return
    found = f'{len(devices)} ({probe.get("chip") or "MindSpore does not know the chip"})'
    advice = (
        'CANN is installed, but there is no /dev/davinci*: is the driver loaded, is the device passed to the container?'
    )
    yield judged('Ascend devices', devices, found, advice, WARNING)
    driver = Path('/usr/local/Ascend/driver/version.info')
    advice = 'install the NPU driver, or mount /usr/local/Ascend/driver into the container'
    yield judged('driver', driver.exists() or not devices, first_version(driver), advice, WARNING)
    if home is None:
        advice = f'install the CANN toolkit required by MindSpore 2.7.2, then: source {toolkit}/set_env.sh'
        yield row('CANN', PROBLEM, 'not found', advice)
        return
    patterns = ('version.cfg', '*-linux/ascend_toolkit_install.info', 'opp/version.info')
    file = next((path for pattern in patterns for path in home.glob(pattern)), None)
    yield row('CANN', OK, f'{first_version(file) if file else "version unknown"} ({home})')
    if devices and probe and not probe['ascend']:
        advice = f'source {toolkit}/set_env.sh in this shell; npu-smi info must list the chips'
        yield row('MindSpore on Ascend', PROBLEM, 'MindSpore does not see the devices', advice)


def first_version(path):
    """The first line with a number in a version file."""
    try:
        lines = path.read_text(errors='replace').splitlines()
    except OSError:
        return 'not found'
    return next((line.strip()[:80] for line in lines if re.search(r'\d', line)), 'version unknown')


def check_msrun():
    """Check msrun, whose workers run the `python` of the PATH."""
    python, msrun = shutil.which('python'), shutil.which('msrun')
    activate = f'activate the environment: . {Path(sys.executable).parent}/activate'
    if python is None or msrun is None:
        yield row('msrun', WARNING, f'no {"python" if python is None else "msrun"} on the PATH', activate)
        return
    done = subprocess.run([python, '-c', 'import sys; print(sys.prefix)'], capture_output=True, text=True)
    same = done.stdout.strip() == sys.prefix
    found = msrun if same else f"msrun's workers would be {python}, not {sys.executable}"
    yield judged('msrun', same, found, activate, WARNING)


def check_room():
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        total, free = (int(lines[key].split()[0]) / 2**20 for key in ('MemTotal', 'MemAvailable'))
        found = f'{free:.1f} of {total:.1f} GB free, {os.cpu_count()} cores'
        advice = 'the demo needs about 4 GB, a full-size training step on a CPU about 24 GB'
        yield judged('memory', free >= 4, found, advice, WARNING)
    except (OSError, KeyError, ValueError):
        yield row('memory', NOTE, f'unknown, {os.cpu_count()} cores')
    outputs = ROOT / 'outputs' if (ROOT / 'outputs').exists() else ROOT
    try:
        with tempfile.TemporaryFile(dir=outputs):
            pass
    except OSError as e:
        advice = 'make it a directory you may write to, or give output_dir=... to each command'
        yield row('disk', PROBLEM, f'cannot write to {outputs}: {e.strerror}', advice)
        return
    free = shutil.disk_usage(outputs).free / 2**30
    advice = 'a full-size model takes 5 GB, a checkpoint with optimizer state 14 GB'
    yield judged('disk', free >= 10, f'{free:.1f} GB free for {outputs}', advice, WARNING if free >= 1 else PROBLEM)


def check_environment():
    if os.environ.get('MS_COMPILER_CACHE_ENABLE') == '1':
        advice = (
            "unset it: MindSpore's compile cache gives one graph's results for another; use runtime.compile_cache=true"
        )
        yield row('MS_COMPILER_CACHE_ENABLE', PROBLEM, '1', advice)
    if 'GLOG_v' not in os.environ:
        yield row('GLOG_v', NOTE, 'not set', "export GLOG_v=3 hides MindSpore's warnings (they are harmless)")


def check_compile_cache():
    """Check the compile cache. Packages that may be missing are not imported; errors are reported."""
    name = 'compile cache'
    try:
        sys.path.insert(0, str(ROOT))
        from diffdis_ms.runtime.compile_cache import default_directory, entries

        directory = default_directory()
        found = entries(directory)
    except (ImportError, OSError) as e:
        advice = 'set XDG_CACHE_HOME to a directory you may write to'
        yield row(name, WARNING, f'cannot be read: {last_line(str(e))}', advice)
        return
    stale = sum(bool(entry['stale']) for entry in found)
    size = sum(entry['bytes'] for entry in found) / 2**20
    above = next((p for p in (directory, *directory.parents) if p.exists()), None)
    state = f'{directory}: {len(found)} graphs, {size:.1f} MB, {stale} stale'
    if above is None or not above.is_dir() or not os.access(above, os.W_OK):
        advice = 'set XDG_CACHE_HOME, or runtime.compile_cache_dir, to a directory you may write to'
        yield row(name, WARNING, f'{state}, not writable', advice)
        return
    advice = f'rm -r {directory} clears it; a stale graph is never read' if found else ''
    yield row(name, NOTE if stale else OK, state, advice)


def check_coverage(probe):
    """Run diffdis_ms.ascend.coverage on GRAPHS, in a separate process because it stops MindSpore early."""
    name = 'operator coverage'
    if not probe:
        yield row(name, NOTE, 'not checked: MindSpore must run first')
        return
    try:
        from tqdm import tqdm

        sys.path.insert(0, str(ROOT))
        from diffdis_ms.ascend.evidence import read_table
        from diffdis_ms.errors import ConfigError
    except ImportError:
        return  # check_packages has reported it
    try:
        read_table(probe['version'])
    except ConfigError as e:
        yield row(name, NOTE, f'not checked: {e}')
        return
    command = [sys.executable, '-m', 'diffdis_ms.ascend.coverage', GRAPHS, '--json']
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'GLOG_v': '3'}
    with tempfile.TemporaryFile('w+') as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
        graphs = []
        with tqdm(desc=name, unit='graph', disable=None) as bar:
            for line in process.stdout:
                found = json.loads(line)
                if 'title' in found:
                    graphs.append(found)
                    bar.update()
        code = process.wait()
        errors.seek(0)
        if code not in (0, 1) or not graphs:
            advice = f'python -m diffdis_ms.ascend.coverage {GRAPHS} shows more'
            yield row(name, WARNING, f'the check failed: {last_line(errors.read())}', advice)
            return
    looked_at = (
        f'{len({name for graph in graphs for name, *_ in graph["primitives"]})} primitives of {len(graphs)} graphs'
    )
    missing = sorted({name for graph in graphs for name in graph['missing']})
    if not missing:
        yield row(name, OK, f'{looked_at}, all with an Ascend implementation')
        return
    advice = f'python -m diffdis_ms.ascend.coverage {GRAPHS} lists them; check by hand, because there are false alarms'
    status = PROBLEM if probe['ascend'] else WARNING
    yield row(name, status, f'{looked_at}, without Ascend implementation: {", ".join(missing)}', advice)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--quick', action='store_true', help='skip operator coverage, which compiles graphs for about a minute'
    )
    parser.add_argument(
        '--json', action='store_true', help='print {"ok": ..., "checks": [{"name", "status", "found", "advice"}, ...]}'
    )
    parser.add_argument('--seed', type=int, help='has no effect: nothing here is random')
    args = parser.parse_args()
    probe, rows = {}, []
    checks = [check_python(), check_packages(), check_torchvision(), check_mindspore(probe), check_ascend(probe)]
    checks += [check_msrun(), check_room(), check_environment(), check_compile_cache()]
    checks += [] if args.quick else [check_coverage(probe)]
    for found in itertools.chain.from_iterable(checks):
        rows.append(found)
        if not args.json:
            print(f'{found["status"]:8} {found["name"]:24} {found["found"]}', flush=True)
            if found['advice']:
                print(f'{"":33} -> {found["advice"]}', flush=True)
    problems = [found['name'] for found in rows if found['status'] == PROBLEM]
    if args.json:
        print(json.dumps({'ok': not problems, 'checks': rows}, indent=1))
    elif problems:
        print(f'\n{len(problems)} to fix before DiffDis runs: {", ".join(problems)}')
    else:
        print('\nDiffDis can run here.')
    return int(bool(problems))


if __name__ == '__main__':
    sys.exit(main())

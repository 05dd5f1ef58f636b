"""Look at this machine: versions, device, CANN, operator coverage, compile cache; what is wrong and how to mend it.

It needs nothing but Python to start, so that it can say what is missing. Ends with 1 where something keeps DiffDis from
running.
"""

import argparse
import ast
import glob
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


def check_python():
    good = (3, 10) <= sys.version_info[:2] <= (3, 11)
    yield row(
        'python',
        OK if good else PROBLEM,
        f'{platform.python_version()} ({sys.executable}), {platform.machine()}',
        (
            ''
            if good
            else 'DiffDis is for Python 3.10 and 3.11: PYTHON=python3.11 bash tools/venv.sh makes an environment'
        ),
    )


def requirements():
    """The dependencies of pyproject.toml, as they stand there (Python 3.10 has no reader of TOML)."""
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
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield row(
                name,
                PROBLEM,
                'not installed',
                f"pip install '{requirement}' (or bash tools/venv.sh, which makes an environment)",
            )
            continue
        good = fits(version, specifiers)
        yield row(
            name, OK if good else PROBLEM, version, '' if good else f"needs {specifiers}: pip install '{requirement}'"
        )


def check_torchvision():
    """Its wheel on PyPI fails beside a CPU build of torch and takes transformers with it."""
    try:
        version = metadata.version('torchvision')
    except metadata.PackageNotFoundError:
        return
    done = subprocess.run([sys.executable, '-c', 'import torchvision'], capture_output=True, text=True)
    if done.returncode:
        yield row(
            'torchvision',
            PROBLEM,
            f'{version}, cannot be imported: {last_line(done.stderr)}',
            'pip uninstall torchvision (transformers tries to import it; nothing here needs it)',
        )


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else 'no message'


def check_mindspore(probe):
    """MindSpore imported and a graph run, in a process of its own: it may end the process it fails in."""
    try:
        done = subprocess.run(
            [sys.executable, '-c', PROBE],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, 'GLOG_v': '3'},
        )
    except subprocess.TimeoutExpired:
        yield row('MindSpore runs', PROBLEM, 'no answer in 300 s', 'is the machine overloaded, or its memory full?')
        return
    if done.returncode or 'PROBE ' not in done.stdout:
        yield row(
            'MindSpore runs',
            PROBLEM,
            f'no: {last_line(done.stderr)}',
            'make a fresh environment: VENV=.venv bash tools/venv.sh',
        )
        return
    probe.update(json.loads(done.stdout.rpartition('PROBE ')[2].splitlines()[0]))
    good = probe['value'] == 12.0
    yield row(
        'MindSpore runs',
        OK if good else PROBLEM,
        'a graph on the CPU, right result' if good else f'2 x 3 ones times 3 x 2 ones is {probe["value"]}',
        '' if good else 'this build of MindSpore computes wrong numbers: reinstall it',
    )


def check_ascend(probe):
    devices = [p for p in glob.glob('/dev/davinci*') if re.fullmatch(r'/dev/davinci\d+', p)]
    home = next(
        (
            Path(p)
            for p in (
                os.environ.get('ASCEND_HOME_PATH'),
                os.environ.get('ASCEND_TOOLKIT_HOME'),
                '/usr/local/Ascend/ascend-toolkit/latest',
            )
            if p and Path(p).is_dir()
        ),
        None,
    )
    driver = Path('/usr/local/Ascend/driver/version.info')
    if not devices and not home:
        yield row('Ascend', NOTE, 'no NPU, no CANN: device=CPU is what runs here')
        return
    yield row(
        'Ascend devices',
        OK if devices else WARNING,
        f'{len(devices)} ({probe.get("chip") or "MindSpore does not know the chip"})',
        (
            ''
            if devices
            else (
                'CANN is installed, but there is no /dev/davinci*: is the driver loaded, is the device passed to the'
                ' container?'
            )
        ),
    )
    yield row(
        'driver',
        OK if driver.exists() or not devices else WARNING,
        first_version(driver),
        (
            ''
            if driver.exists() or not devices
            else 'install the NPU driver, or mount /usr/local/Ascend/driver into the container'
        ),
    )
    if home is None:
        yield row(
            'CANN',
            PROBLEM,
            'not found',
            'install the CANN toolkit that MindSpore 2.7.2 names, then: source'
            ' /usr/local/Ascend/ascend-toolkit/set_env.sh',
        )
        return
    files = [
        *home.glob('version.cfg'),
        *home.glob('*-linux/ascend_toolkit_install.info'),
        *home.glob('opp/version.info'),
    ]
    yield row('CANN', OK, f'{first_version(files[0]) if files else "version unknown"} ({home})')
    if devices and probe and not probe['ascend']:
        yield row(
            'MindSpore on Ascend',
            PROBLEM,
            'MindSpore does not see the devices',
            'source /usr/local/Ascend/ascend-toolkit/set_env.sh in this shell; npu-smi info must list the chips',
        )


def first_version(path):
    """The first line of a version file that has a number."""
    try:
        return next(
            (line.strip()[:80] for line in path.read_text(errors='replace').splitlines() if re.search(r'\d', line)),
            'version unknown',
        )
    except OSError:
        return 'not found'


def check_msrun():
    """Its workers are the `python` of the PATH."""
    python, msrun = shutil.which('python'), shutil.which('msrun')
    activate = f'activate the environment: . {Path(sys.executable).parent}/activate'
    if python is None or msrun is None:
        yield row('msrun', WARNING, f'no {"python" if python is None else "msrun"} on the PATH', activate)
        return
    prefix = subprocess.run(
        [python, '-c', 'import sys; print(sys.prefix)'], capture_output=True, text=True
    ).stdout.strip()
    same = prefix == sys.prefix
    yield row(
        'msrun',
        OK if same else WARNING,
        msrun if same else f"msrun's workers would be {python}, not {sys.executable}",
        '' if same else activate,
    )


def check_room():
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        total, free = (int(lines[key].split()[0]) / 2**20 for key in ('MemTotal', 'MemAvailable'))
        yield row(
            'memory',
            OK if free >= 4 else WARNING,
            f'{free:.1f} of {total:.1f} GB free, {os.cpu_count()} cores',
            '' if free >= 4 else 'the demo needs some 4 GB; a full-size training step on the CPU about 24 GB',
        )
    except (OSError, KeyError, ValueError):
        yield row('memory', NOTE, f'unknown, {os.cpu_count()} cores')
    outputs = ROOT / 'outputs' if (ROOT / 'outputs').exists() else ROOT
    try:
        with tempfile.TemporaryFile(dir=outputs):
            pass
    except OSError as e:
        yield row(
            'disk',
            PROBLEM,
            f'cannot write to {outputs}: {e.strerror}',
            'make it a directory you may write to, or give output_dir=... to each command',
        )
        return
    free = shutil.disk_usage(outputs).free / 2**30
    status = OK if free >= 10 else WARNING if free >= 1 else PROBLEM
    yield row(
        'disk',
        status,
        f'{free:.1f} GB free for {outputs}',
        '' if status == OK else 'a full-size model takes 5 GB, a checkpoint with optimizer state 14 GB',
    )


def check_environment():
    if os.environ.get('MS_COMPILER_CACHE_ENABLE') == '1':
        yield row(
            'MS_COMPILER_CACHE_ENABLE',
            PROBLEM,
            '1',
            "unset it: MindSpore's compile cache gives one graph's results for another; use runtime.compile_cache=true",
        )
    if 'GLOG_v' not in os.environ:
        yield row('GLOG_v', NOTE, 'not set', "export GLOG_v=3 hides MindSpore's warnings (they mean no harm)")


def check_compile_cache():
    """Imports nothing that may be missing: what cannot be looked at is said."""
    try:
        sys.path.insert(0, str(ROOT))
        from diffdis_ms.runtime.compile_cache import default_directory, entries

        directory = default_directory()
        found = entries(directory)
    except (ImportError, OSError) as e:
        yield row(
            'compile cache',
            WARNING,
            f'cannot be looked at: {last_line(str(e))}',
            'set XDG_CACHE_HOME to a directory you may write to',
        )
        return
    stale = [entry for entry in found if entry['stale']]
    size = sum(entry['bytes'] for entry in found) / 2**20
    above = next((p for p in (directory, *directory.parents) if p.exists()), None)
    writable = above is not None and above.is_dir() and os.access(above, os.W_OK)
    yield row(
        'compile cache',
        OK if writable and not stale else NOTE if writable else WARNING,
        f'{directory}: {len(found)} graphs, {size:.1f} MB, {len(stale)} stale' + ('' if writable else ', not writable'),
        (
            'set XDG_CACHE_HOME, or runtime.compile_cache_dir, to a directory you may write to'
            if not writable
            else f'rm -r {directory} clears it; a stale graph is never read'
            if found
            else ''
        ),
    )


def check_coverage(probe):
    """diffdis_ms.ascend.coverage over GRAPHS, in a process of its own: it stops MindSpore behind the front end."""
    name = 'operator coverage'
    if not probe:
        yield row(name, NOTE, 'not looked at: MindSpore must run first')
        return
    try:
        from tqdm import tqdm

        sys.path.insert(0, str(ROOT))
        from diffdis_ms.ascend.evidence import read_table
        from diffdis_ms.errors import ConfigError
    except ImportError:
        return  # check_packages has said so
    try:
        read_table(probe['version'])
    except ConfigError as e:
        yield row(name, NOTE, f'not looked at: {e}')
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
    advice = f'python -m diffdis_ms.ascend.coverage {GRAPHS} lists them; look by hand, there are false alarms'
    status = PROBLEM if probe['ascend'] else WARNING
    yield row(name, status, f'{looked_at}, without Ascend implementation: {", ".join(missing)}', advice)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--quick', action='store_true', help='without operator coverage, which compiles graphs for about a minute'
    )
    parser.add_argument(
        '--json', action='store_true', help='{"ok": ..., "checks": [{"name", "status", "found", "advice"}, ...]}'
    )
    parser.add_argument('--seed', type=int, help='nothing here is random; taken as every command takes it')
    args = parser.parse_args()
    probe, rows = {}, []
    for check in (
        check_python(),
        check_packages(),
        check_torchvision(),
        check_mindspore(probe),
        check_ascend(probe),
        check_msrun(),
        check_room(),
        check_environment(),
        check_compile_cache(),
        [] if args.quick else check_coverage(probe),
    ):
        for found in check:
            rows.append(found)
            if not args.json:
                print(
                    f'{found["status"]:8} {found["name"]:24} {found["found"]}'
                    + (f'\n{"":33} -> {found["advice"]}' if found['advice'] else ''),
                    flush=True,
                )
    problems = [found['name'] for found in rows if found['status'] == PROBLEM]
    if args.json:
        print(json.dumps({'ok': not problems, 'checks': rows}, indent=1))
    else:
        to_mend = f'{len(problems)} to mend before DiffDis runs: {", ".join(problems)}'
        print(f'\n{to_mend if problems else "DiffDis can run here."}')
    return int(bool(problems))


if __name__ == '__main__':
    sys.exit(main())

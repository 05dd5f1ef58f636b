"""Let MindSpore's own Ascend backend compile and plan graphs, on a machine without an NPU and without CANN.

MindSpore has a dry run (MS_SIMULATION_LEVEL=1): it selects kernels, runs Ascend's passes and its own type checks,
places collectives and plans device memory, but executes nothing. CANN's libraries, which it needs to start, are
replaced by stubs (`stubs.py`). Each target runs in a process of its own (`simulated.py`), prepared here.

The dry run does not see what CANN does: whether it has a kernel for these types and shapes, numbers, speed, workspaces.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from diffdis_ms.ascend.stubs import make_stubs
from diffdis_ms.errors import ConfigError

CHIPS = {'ascend910': 'Ascend910A', 'ascend910b': 'Ascend910B2', 'ascend910_93': 'Ascend910_9391'}  # name -> product
ROOT = Path(__file__).resolve().parent.parent.parent
LOG, RESULTS, GRAPHS, PAIRS, TOKENIZER = 'log', 'results', 'graphs', 'pairs', 'tokenizer'  # in the folder of a run


def is_config(target):
    """Whether a target is the path of a config, and not MODULE:FUNCTION."""
    return str(target).endswith(('.yaml', '.yml'))


@contextmanager
def toolkit():
    """A directory that MindSpore takes for CANN's, as long as the context lasts; see `make_stubs`."""
    with tempfile.TemporaryDirectory(prefix='ascend_dry_run_') as temporary:
        home = Path(temporary) / 'ascend-toolkit/latest'
        home.mkdir(parents=True)
        make_stubs(home)
        yield home


def simulate(home, target, chip='ascend910b', ranks=1, overrides=()):
    """Run one target in a process of its own; yields a dict for each graph or run, see `simulated.py`.

    Args:
        home: what `toolkit` gives. target: MODULE:FUNCTION, or the path of a config. chip: one of CHIPS.
        ranks: as rank 0 of so many. overrides: key=value, for a config.

    Raises:
        ConfigError: an override is one of those that a dry run needs itself; the process ended without a result (the
            message has its last lines).
    """
    with tempfile.TemporaryDirectory(dir=home, prefix='run_') as run:
        run = Path(run)
        request = {
            'target': str(Path(target).resolve()) if is_config(target) else target,
            'chip': chip,
            'product': CHIPS[chip],
            'ranks': ranks,
            'overrides': _overrides(overrides, run) if is_config(target) else [],
        }
        (run / RESULTS).touch()
        with open(run / LOG, 'w') as log:
            process = subprocess.Popen(
                [sys.executable, '-m', 'diffdis_ms.ascend.simulated', json.dumps(request)],
                cwd=run,  # MindSpore makes folders where it is started
                env=_environment(home, run, ranks),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            with open(run / RESULTS) as results:
                ended, rest = False, ''
                while not ended:
                    ended = _wait(process)
                    *lines, rest = (rest + results.read()).split('\n')  # the last one may be half-written
                    yield from map(json.loads, lines)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise ConfigError(f'{target}: the dry run ended with code {process.returncode}: {last_words(run / LOG)}')


def _overrides(given, run):
    """The overrides of a run: those given, then those that a dry run needs.

    Weights are random, pictures and tokenizer made up in `run`, so that it needs no files but the config.
    """
    needed = {
        'device': 'Ascend',
        'output_dir': run / 'output',
        'resume': 'none',
        'data.path': run / PAIRS,
        'data.cache': 'null',
        'init.unet': 'null',
        'init.vae': 'null',
        'init.text_encoder': 'null',
        'init.tokenizer': run / TOKENIZER,
        'train.max_steps': 2,
        'train.log_every': 1,
        'train.sample_every': 0,
        'train.tensorboard': 'false',
        'runtime.compile_cache': 'false',
        'runtime.jit_level': 'O0',  # O2, the default of a 910, needs CANN's graph compiler
    }
    for item in given:
        key = item.partition('=')[0]
        if key in needed or f'train.{key}' in needed:
            raise ConfigError(f'{item}: a dry run sets {key} itself; leave it out')
    return [*given, *(f'{key}={value}' for key, value in needed.items())]


def _wait(process):
    try:
        process.wait(0.2)
        return True
    except subprocess.TimeoutExpired:
        return False


def _environment(home, run, ranks):
    tbe = home / 'opp/built-in/op_impl/ai_core/tbe'
    paths = [str(ROOT), str(tbe), os.getcwd(), os.environ.get('PYTHONPATH', '')]
    return {
        **os.environ,
        'MS_SIMULATION_LEVEL': '1',
        'MS_DISABLE_KERNEL_BACKOFF': '1',  # otherwise operators without a kernel go to the CPU without a word
        'RANK_SIZE': str(ranks),
        'RANK_ID': '0',
        'DEVICE_ID': '0',
        'ASCEND_HOME_PATH': str(home),
        'ASCEND_OPP_PATH': str(home / 'opp'),
        'LD_LIBRARY_PATH': str(home / 'lib64'),
        'PYTHONPATH': os.pathsep.join(p for p in paths if p),
        'GLOG_v': '3',
        'MS_SUBMODULE_LOG_v': '{DEVICE:1}',  # says which kind of kernel was chosen
        'MS_DEV_SAVE_GRAPHS': '1',
        'MS_DEV_SAVE_GRAPHS_PATH': str(run / GRAPHS),
        'MS_DEV_DUMP_IR_PASSES': 'graph_build',
    }


def last_words(log):
    """The last lines of a process' output that are not MindSpore's log."""
    lines = [line for line in log.read_text(errors='replace').splitlines() if line.strip() and not line.startswith('[')]
    if lines and lines[-1].startswith('error: '):  # of `runtime.cli.run`
        return lines[-1].removeprefix('error: ')
    return ' | '.join(lines[-6:]) or 'it said nothing'

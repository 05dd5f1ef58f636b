"""Measure whole processes from outside: wall-clock seconds, and peak memory as counted by the system."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffdis_ms.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent


def run_python(*args):
    """Run `python *args` from the repository's root.

    Returns:
        What it prints (str), and its figures {'seconds', 'peak_mb'}.

    Raises:
        ConfigError: the process failed; its last line is quoted.
    """
    words, env = list(map(str, args)), {**os.environ, 'PYTHONPATH': str(ROOT)}
    start = time.perf_counter()
    with tempfile.TemporaryFile('w+') as stdout, tempfile.TemporaryFile('w+') as stderr:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, stdout=stdout, stderr=stderr)
        # unlike process.wait(), wait4 returns the peak memory of this child
        _, status, usage = os.wait4(process.pid, 0)
        figures = {'seconds': time.perf_counter() - start, 'peak_mb': usage.ru_maxrss / 1024}
        process.returncode = os.waitstatus_to_exitcode(status)
        printed, said = (stream.seek(0) or stream.read().strip() for stream in (stdout, stderr))
    if process.returncode:
        last = (said.splitlines() or ['killed: not enough memory?'])[-1]
        raise ConfigError(f'{" ".join(words[:3])} failed with code {process.returncode}: {last}')
    return printed, figures


def median(runs, key):
    """Median of one figure over runs."""
    return statistics.median(run[key] for run in runs)

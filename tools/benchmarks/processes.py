"""Measure whole processes from outside: wall-clock seconds, and peak memory as counted by the system."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from diffdis_ms.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent


def run_python(*args):
    """Run `python -m ...` from the repository's root; returns {'seconds', 'peak_mb'}.

    Raises:
        ConfigError: the process failed; its last line is quoted.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, args)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    stderr = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ConfigError(
            f'{" ".join(map(str, args[:3]))} failed: {(stderr.strip().splitlines() or ["no message"])[-1]}'
        )
    return {'seconds': time.perf_counter() - start, 'peak_mb': usage.ru_maxrss / 1024}


def median(runs, key):
    """Median of one figure over runs."""
    return statistics.median(run[key] for run in runs)

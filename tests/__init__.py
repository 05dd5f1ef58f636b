"""Tests. What each of their processes asks of the operating system, before anything counts cores or takes memory."""

import ctypes
import os


def keep_to_own_cores():
    """Each process of pytest-xdist, with all that it starts, keeps to cores of its own: two processes that share two
    cores wait for each other's threads, and take half as long again."""
    worker = os.environ.get('PYTEST_XDIST_WORKER')  # gw0, gw1 ...
    if worker and hasattr(os, 'sched_setaffinity'):
        cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
        os.sched_setaffinity(0, cores[int(worker[2:]) :: workers] or cores)


def keep_freed_memory():
    """With glibc, freed memory stays with the process, for its next network. A virtual machine can need 10 seconds for
    each GB that it gave back and takes again: a third of the time of full-size networks."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        trim_threshold, mmap_max = -1, -4  # names in malloc.h, M_...
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


keep_to_own_cores()
keep_freed_memory()

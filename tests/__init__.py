"""Tests. Each process of pytest-xdist, with all that it starts, keeps to cores of its own, from before anything counts
them: two processes that share two cores wait for each other's threads, and take half as long again."""

import os


def keep_to_own_cores():
    worker = os.environ.get('PYTEST_XDIST_WORKER')  # gw0, gw1 ...
    if worker and hasattr(os, 'sched_setaffinity'):
        cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
        os.sched_setaffinity(0, cores[int(worker[2:]) :: workers] or cores)


keep_to_own_cores()

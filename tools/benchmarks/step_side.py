"""The process that `full_step.py` measures: python step_side.py CONFIG STEPS [key=value ...].

Its last line of output is JSON. With 0 steps it compiles and ends. It is a separate file because MindSpore's compile
cache finds a graph only for the script that compiled it.
"""

import json
import os
import resource
import statistics
import sys
import threading
import time

import psutil

from diffdis_ms import runtime
from diffdis_ms.config import load
from diffdis_ms.runtime.compile_cache import compile_cached, give_back_memory

RESERVE = 64 << 20  # bytes


def watch():
    """End this process before the machine runs out of memory."""
    while psutil.virtual_memory().available > RESERVE:
        time.sleep(0.02)
    print(
        f'this machine has too little memory: the step has reached {held() / 2**30:.2f} GiB',
        file=sys.stderr,
        flush=True,
    )
    os._exit(3)


def held():
    """Memory that this process has now, in bytes."""
    return psutil.Process().memory_info().rss


def main():
    threading.Thread(target=watch, daemon=True).start()
    config, steps = load(sys.argv[1], sys.argv[3:]), int(sys.argv[2])
    runtime.setup('CPU')
    from diffdis_ms.train.dry_run import memory
    from diffdis_ms.train.job import assemble

    program = held()
    job = assemble(config)
    assembled = held()
    batches, seconds, losses = iter(job.loader), [], []
    inputs = job.learner.features(next(batches), 0)
    compile_cached(*job.step.main_graph(inputs), config)
    compiled = held()
    if steps == 0:
        return
    for step in range(steps):
        begun = time.perf_counter()
        losses.append(float(job.step.run(inputs)[0]))
        seconds.append(time.perf_counter() - begun)
        if step == 0:
            give_back_memory()  # as the training loop does
        inputs = job.learner.features(next(batches), step + 1)
    measured = {
        'program': program,
        'assembled': assembled,
        'compiled': compiled,
        'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(
        json.dumps(
            {
                'estimate': memory(job),
                'measured': measured,
                'first_step': seconds[0],
                'seconds': statistics.median(seconds[1:]),
                'losses': losses,
                'parameters': sum(p.size for p in job.update.units.parameters),
            }
        )
    )


if __name__ == '__main__':
    main()

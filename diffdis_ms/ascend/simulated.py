"""The process of a dry run (`simulation.py` starts it): compile graphs, or run tools/train.py, for a pretended chip.

    python -m diffdis_ms.ascend.simulated REQUEST

It runs in a folder of its own, and appends lines of JSON to the file of results there, one for each graph, or one for
the run:

    title, error (None: accepted), seconds, kernels and collectives (see kernels.py), memory (bytes of device memory as
    planned, at its highest), host_memory (the same of this process)
"""

import ctypes
import json
import os
import resource
import runpy
import sys
import time
from pathlib import Path

import mindspore as ms

from diffdis_ms.ascend.coverage import find_graphs
from diffdis_ms.ascend.kernels import collectives, kernels
from diffdis_ms.ascend.made_up import write_pairs, write_tokenizer
from diffdis_ms.ascend.simulation import GRAPHS, LOG, PAIRS, RESULTS, ROOT, TOKENIZER, is_config, last_words
from diffdis_ms.config import RuntimeConfig, load
from diffdis_ms.runtime.cli import run

MSRUN = {'MS_ROLE': 'MS_WORKER', 'MS_NODE_ID': '0'}  # what the project asks msrun's workers for


def pretend(chip, product, ranks):
    """Give the chip its name as soon as MindSpore starts Ascend, and let rank 0 look as if msrun had started it."""
    set_device, init = ms.set_device, ms.communication.init

    def set_named_device(target, *args, **options):
        set_device(target, *args, **options)
        if target == 'Ascend':
            core = Path(ms.__file__).parent / 'lib/libmindspore_core.so'
            stub = ctypes.CDLL(os.environ['ASCEND_HOME_PATH'] + '/lib64/libstub.so')
            if code := stub.name_chip(str(core).encode(), product.encode(), chip.encode()):
                raise SystemExit(f'the chip cannot be named ({code}): this MindSpore differs from 2.7.2')

    def init_without_msrun(*args, **options):
        for name in MSRUN:  # the dry run has its own way to tell ranks, and would look for msrun's scheduler
            os.environ.pop(name, None)
        init(*args, **options)
        os.environ.update(MSRUN)

    ms.set_device = set_named_device
    if ranks > 1:
        ms.communication.init = init_without_msrun
        os.environ.update(MSRUN, MS_WORKER_NUM=str(ranks))
    # On few cores MindSpore turns its executor of sub-graphs off, and then refuses every graph with control flow.
    ms.runtime.dispatch_threads_num(5)


class Watch:
    """What MindSpore logs, saves and plans from now on."""

    def __init__(self):
        self.started = time.monotonic()
        self.start, self.before = Path(LOG).stat().st_size, self._saved()
        ms.runtime.reset_peak_memory_stats()
        self.allocated = ms.runtime.memory_allocated()  # by graphs before this one

    def _saved(self):
        return set(Path(GRAPHS).rglob('graph_build_*.ir'))

    def result(self, title, error):
        with open(LOG, errors='replace') as log:
            log.seek(self.start)
            logged = log.read()
        graph = ''.join(path.read_text() for path in sorted(self._saved() - self.before))
        return {
            'title': title,
            'error': error,
            'seconds': round(time.monotonic() - self.started, 1),
            'kernels': kernels(graph, logged),
            'collectives': collectives(graph),
            'memory': ms.runtime.max_memory_allocated() - self.allocated,
            'host_memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def compile_graphs(request):
    """Yield the result of each graph of a function as in `graphs.py`."""
    from diffdis_ms import runtime

    runtime.setup('Ascend', RuntimeConfig(jit_level='O0'))
    if request['ranks'] > 1:
        ms.communication.init()
    graphs = find_graphs(request['target'])()
    while True:
        watch = Watch()
        try:
            title, cell, inputs = next(graphs)
        except StopIteration:
            return
        error = None
        try:
            cell(*inputs)
        except Exception as e:  # MindSpore refuses graphs with many types
            error = str(e).strip() or repr(e)
        yield watch.result(title, error)


def train(request):
    """Run two steps of tools/train.py with a config; yields its result.

    Nothing is saved, because no numbers are computed.
    """
    from diffdis_ms.train import loop

    overrides = request['overrides']
    config = load([request['target']], overrides)
    write_tokenizer(Path(TOKENIZER), config.model.text_encoder.vocab_size)
    write_pairs(Path(PAIRS), 2 * config.train.batch_size * config.train.accumulation_steps * request['ranks'])
    loop._save = loop.save_trained = lambda *args: None
    watch = Watch()
    sys.argv = [str(ROOT / 'tools/train.py'), '--config', request['target'], *overrides]
    error = None
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as e:  # its message is in the log
        error = last_words(Path(LOG)) if e.code else None
    except Exception as e:  # MindSpore refuses a graph
        error = str(e).strip() or repr(e)
    yield watch.result(f'tools/train.py --config {request["target"]}', error)


def main():
    request = json.loads(sys.argv[1])
    pretend(request['chip'], request['product'], request['ranks'])
    produce = train if is_config(request['target']) else compile_graphs
    with open(RESULTS, 'a') as results:
        for result in produce(request):
            print(json.dumps(result), file=results, flush=True)


if __name__ == '__main__':
    run(main)

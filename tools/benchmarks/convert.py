"""Time `ckpt_convert import` of a full-size Stable Diffusion checkpoint, beside a file copy and torch's load and save.

Each round runs all three, so that a busy moment of the machine affects them equally. All three flush their output to
the disk, and the output of the previous run is removed before each run.
"""

import os
import shutil
import time

from tqdm import tqdm

from diffdis_ms.data.tokenizer import write_vocabulary
from tools.benchmarks.processes import median, run_python


def measure(work, repeats, seed):
    """Returns {'file_gb', 'runs': {what: [{'seconds', 'peak_mb'}]}, medians, ratios}."""
    work = work.resolve() / 'convert'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        source, clip, target = work / 'sd.ckpt', work / 'clip.pt', work / 'target'
        run_python('-m', 'tools.benchmarks.torch_side', 'make-stable-diffusion', source, clip, seed)
        write_tokenizer(work / 'tokenizer')
        model, saved = target / 'model', target / 'saved.ckpt'
        options = ('--src', source, '--text-encoder', clip, '--vocab', work / 'tokenizer', '--dst', model)
        contenders = {
            'copy': lambda: copy(source, target / 'copy'),
            'ckpt_convert': lambda: run_python('-m', 'ckpt_convert', 'import', *options)[1],
            'torch': lambda: run_python('-m', 'tools.benchmarks.torch_side', 'load-and-save', source, saved)[1],
        }
        runs = {what: [] for what in contenders}
        for _ in tqdm(range(repeats), desc='rounds', disable=None):
            for what, contender in contenders.items():
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                runs[what].append(contender())
        result = {
            'file_gb': source.stat().st_size / 1e9,
            'runs': runs,
            'seconds': {what: median(r, 'seconds') for what, r in runs.items()},
            'peak_mb': {what: max(x['peak_mb'] for x in r) for what, r in runs.items() if what != 'copy'},
        }
        result['times_copy'] = result['seconds']['ckpt_convert'] / result['seconds']['copy']
        return result
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_tokenizer(folder):
    """Write tokenizer files with a vocabulary of CLIP's size."""
    letters = [chr(c) for c in range(0x21, 0x7F)] + [chr(256 + i) for i in range(160)]
    write_vocabulary([(a, b) for a in letters for b in letters][: 49408 - 514], folder)


def copy(source, target):
    """Copy a file as `cp` does, then wait for the disk."""
    start = time.perf_counter()
    shutil.copyfile(source, target)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return {'seconds': time.perf_counter() - start}


def lines(result):
    """For people."""
    seconds, peak = result['seconds'], result['peak_mb']
    yield f'checkpoint of {result["file_gb"]:.2f} GB, medians of {len(result["runs"]["copy"])} rounds, peak memory'
    yield f'  copy                   {seconds["copy"]:6.2f} s'
    yield (
        f'  ckpt_convert import    {seconds["ckpt_convert"]:6.2f} s   {peak["ckpt_convert"]:7,.0f} MB  '
        f' {result["times_copy"]:.2f} x the copy'
    )
    yield (
        f'  torch load and save    {seconds["torch"]:6.2f} s   {peak["torch"]:7,.0f} MB  '
        f' {seconds["torch"] / seconds["copy"]:.2f} x the copy'
    )

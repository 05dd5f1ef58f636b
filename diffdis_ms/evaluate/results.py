"""Make and write result files, with what is missing from a set."""

import glob
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from diffdis_ms.storage.files import whole_file
from diffdis_ms.world import World

MAX_NAMED = 100  # missing samples or classes named in a result file


def task_result(task, dataset, images, embedded, measured, protocol):
    """Content of the result file of an embedded set, with `measured` from `zeroshot` or `retrieval`.

    It has an entry `missing` if part of the set is missing.
    """
    split = getattr(images, 'split', 'held_out' if dataset == 'emoji' else 'all')
    empty = [row['class'] for row in measured.get('per_class', ()) if not row['count']]
    missing = name_missing(embedded.skipped, empty)
    return {
        'task': task,
        'dataset': dataset,
        'split': split,
        'num_samples': len(embedded.keys),
        'num_skipped': len(embedded.skipped),
        **({'missing': missing} if missing else {}),
        **measured,
        'protocol': protocol,
    }


def generation_result(real, measured):
    """Content of the result file of `generation.evaluate_generation`."""
    return {
        'task': 'generation',
        'dataset': str(real) if real else None,
        'split': 'all',
        'num_samples': measured['protocol']['num_fake'],
        **measured,
    }


def name_missing(skipped, empty_classes=()):
    """Describe what is missing from a set; {} if nothing is.

    Args:
        skipped: {key: reason} of images that could not be used. empty_classes: names of classes without images.

    Returns:
        dict count, names, reasons (of the first MAX_NAMED images) and classes {count, names}.
    """
    missing = {}
    if skipped:
        named = dict(list(skipped.items())[:MAX_NAMED])
        missing.update(count=len(skipped), names=list(named), reasons=named)
    if empty_classes:
        missing['classes'] = {'count': len(empty_classes), 'names': list(empty_classes)[:MAX_NAMED]}
    return missing


def say_missing(result):
    """Print one line to stderr if part of a result's set is missing."""
    missing = result.get('missing', {})
    lines = [
        f'{gap["count"]} {what} ({", ".join(gap["names"][:3])}{" ..." if gap["count"] > 3 else ""})'
        for what, gap in (('pictures', missing), ('classes', missing.get('classes', {})))
        if 'count' in gap
    ]
    if lines:
        print(f'part of the set is missing: {" and ".join(lines)}; named in the result', file=sys.stderr)


def write_result(path, result, started):
    """Write a result file, completely or not at all; `seconds` is the time since `started` (time.monotonic)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as f:
        f.write((json.dumps({**result, 'seconds': time.monotonic() - started}, indent=1) + '\n').encode())


def finish(path, result, started, world=World()):
    """Write the result in the first process, and delete its finished batches and those of earlier unfinished runs."""
    path = Path(path)
    if world.first:
        write_result(path, result, started)
    if world.first or path.is_file() and time.time() - path.stat().st_mtime < time.monotonic() - started:
        for parts in path.parent.glob(f'.{glob.escape(path.name)}.*.parts'):
            shutil.rmtree(parts, ignore_errors=True)


def confusion_picture(matrix, side=640):
    """Draw a confusion matrix: rows are true classes, columns are predicted classes, dark means often."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = Image.fromarray((255 * (1 - share)).astype(np.uint8))
    scale = max(1, side // len(matrix))
    return image.resize((scale * len(matrix),) * 2, Image.Resampling.NEAREST)

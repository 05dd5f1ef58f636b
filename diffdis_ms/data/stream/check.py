"""Check which samples of a set can be used. This happens before training, so that all processes know the same ones.

Sets written by `tools/prepare_data.py` need no check. For all others, every sample is read and decoded once. The result
is stored in a file whose name depends on the names, sizes and times of the source files, so that it is used again until
one of them changes.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffdis_ms.data.samples import add_skipped, check_side
from diffdis_ms.data.transforms import MIN_SIDE
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.storage.files import whole_file
from diffdis_ms.text_files import decode, parse_json
from diffdis_ms.world import World

VERSION = 2  # of the checks: results of other versions are not used
PART = 1000  # samples that a process checks before it stores the result


def good_samples(caption_set, min_side=MIN_SIDE, directory=None, num_workers=2, world=World(), progress=True):
    """Check a set, or load the result of an earlier check.

    Args:
        caption_set: has `len()` and `read(i) -> Sample`. If it has `files`, the result is stored beside the data if
            that is writable, else in `directory`. If it has `checked`, all of it is good.
        min_side: images with a shorter side are bad. At least 8, because smaller images are never decoded.
        directory: for the result; it need not exist. num_workers: threads.
        world: World. Each process checks its share of the parts, then helps with those that others have not finished.
        progress: show a bar (only if stderr is a terminal).

    Returns:
        good: int64 (N,), ascending. skipped: {key: reason} of all others, including those that the reader itself
            skipped.
    """
    count, skipped = len(caption_set), dict(getattr(caption_set, 'skipped', {}))
    if getattr(caption_set, 'checked', False):
        return np.arange(count), skipped
    bad = _check(caption_set, _Files(caption_set, min_side, directory), count, min_side, num_workers, world, progress)
    for i, key, reason in bad:
        add_skipped(skipped, key, reason, i)
    good = np.ones(count, bool)
    good[[i for i, _, _ in bad]] = False
    return np.flatnonzero(good), skipped


def fingerprint(caption_set, min_side):
    """Hash, as 16 hex digits, of the names, sizes and times of a set's files and of the check's settings.

    None if the set has no files.
    """
    files = getattr(caption_set, 'files', None)
    if files is None:
        return None
    options = {name: getattr(caption_set, name, None) for name in ('require_caption', 'max_member_bytes')}
    digest = hashlib.sha256(
        json.dumps([VERSION, type(caption_set).__name__, len(caption_set), min_side, options]).encode()
    )
    for path in files:
        try:
            about = os.stat(path)
            digest.update(
                f'{path.parent.name}/{path.name}\0{about.st_size}\0{about.st_mtime_ns}\0'.encode(
                    'utf-8', 'surrogateescape'
                )
            )
        except (OSError, ValueError):
            digest.update(b'?')  # a csv may name files that do not exist
    return digest.hexdigest()[:16]


def check_sample(caption_set, i, min_side):
    """None if sample `i` is good, else (key, reason)."""
    try:
        check_side(caption_set.read(i), min_side)
    except BadSample as e:
        return e.key, e.reason
    return None


def write_skipped(path, skipped):
    """Write a line `key<TAB>reason` for each of {key: reason}; characters that would break a line are escaped."""
    with whole_file(path) as f:
        for key, reason in skipped.items():
            f.write(f'{one_line(key)}\t{one_line(reason)}\n'.encode())


def one_line(text):
    """Escape control characters and lone surrogates in a text (names in a tar may have both)."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def _check(caption_set, files, count, min_side, num_workers, world, progress):
    """List the bad samples as [(i, key, reason)], ascending."""
    starts = range(0, count, PART)
    order = world.order(len(starts)) if files.places else range(len(starts))
    found = files.load('all', 0, count)
    if found is not None:
        return found
    parts = {}
    with (
        ThreadPoolExecutor(num_workers) as pool,
        tqdm(total=count, desc='checking samples', disable=None if progress else True, unit='') as bar,
    ):
        for k in order:
            found = files.load('all', 0, count)  # another process has finished the check
            if found is not None:
                return found
            rows = range(starts[k], min(starts[k] + PART, count))
            parts[k] = files.load(k, rows.start, rows.stop)
            if parts[k] is None:
                verdicts = pool.map(lambda i: check_sample(caption_set, i, min_side), rows)
                parts[k] = [(i, *verdict) for i, verdict in zip(rows, verdicts, strict=True) if verdict]
                files.save(k, parts[k])
            bar.update(len(rows))
    bad = [row for k in sorted(parts) for row in parts[k]]
    files.finish(bad)
    return bad


class _Files:
    """The files with the results: one for the whole set, and one per part until that exists."""

    def __init__(self, caption_set, min_side, directory):
        self.places, digest = [], fingerprint(caption_set, min_side)
        if digest is None:
            return
        self.name = f'.checked-{digest}'
        places = [Path(caption_set.folder)] + ([Path(directory)] if directory else [])
        self.places = [p for p in places if _writable(p) or (p / f'{self.name}.json').is_file()]

    def load(self, part, start, stop):
        """Load [(i, key, reason)] from a file; None if there is no valid file."""
        for place in self.places:
            try:
                path = self._path(place, part)
                rows = parse_json(decode(path.read_bytes(), path), path, list)
                if all(
                    start <= i < stop and isinstance(key, str) and isinstance(reason, str) for i, key, reason in rows
                ):
                    return [tuple(row) for row in rows]
            except (OSError, ConfigError, ValueError, TypeError):
                pass
        return None

    def save(self, part, rows):
        """Write to the first writable directory. Without one, the samples are simply checked again next time."""
        for place in self.places:
            try:
                path = self._path(place, part)
                if part != 'all' and self._path(place, 'all').exists():
                    return  # another process has finished and cleaned up
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as f:
                    f.write(json.dumps(rows).encode())
                return
            except OSError:
                pass

    def finish(self, rows):
        """Write the result of the whole set and delete its parts."""
        self.save('all', rows)
        for place in self.places:
            shutil.rmtree(self._path(place, 0).parent, ignore_errors=True)

    def _path(self, place, part):
        return place / f'{self.name}.json' if part == 'all' else place / f'{self.name}.parts' / f'{part:06d}.json'


def _writable(folder):
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)

"""Which samples of a set can be used, known before training starts: so all processes agree on it without a word.

What `tools/prepare_data.py` wrote is good by construction. Of anything else every sample is read and decoded once. The
verdict is kept in a file named after the source's files, their sizes and times, so that it is found again as long as
nothing has changed.
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

VERSION = 2  # of what is checked: another one makes old verdicts void
PART = 1000  # samples a process checks before it writes down what it found


def good_samples(caption_set, min_side=MIN_SIDE, directory=None, num_workers=2, world=World(), progress=True):
    """Check a set, or find the verdict of an earlier check.

    Args:
        caption_set: has `len()` and `read(i) -> Sample`. Where it names its `files`, the verdict is kept: beside the
            data if that can be written, else in `directory`. `checked` says that all of it is good.
        min_side: a picture with a shorter side is bad. At least 8: smaller ones are never decoded.
        directory: for the verdict, may be absent. num_workers: threads.
        world: World. Each process checks its share of the parts, then helps with what the others have not finished.
        progress: show a bar (never where stderr is no terminal).

    Returns:
        good: int64 (N,), ascending. skipped: {key: reason} of all others, those included that the reader itself had
            lost.
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
    """16 hex digits of which samples there are and how they are checked: names, sizes and times of the files. None
    where there are no files."""
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
            digest.update(b'?')  # a csv may name what is not there
    return digest.hexdigest()[:16]


def check_sample(caption_set, i, min_side):
    """None where sample `i` is good, else (key, reason)."""
    try:
        check_side(caption_set.read(i), min_side)
    except BadSample as e:
        return e.key, e.reason
    return None


def write_skipped(path, skipped):
    """Write a line `key<TAB>reason` for each of {key: reason}; what would break a line is escaped."""
    with whole_file(path) as f:
        for key, reason in skipped.items():
            f.write(f'{one_line(key)}\t{one_line(reason)}\n'.encode())


def one_line(text):
    """Text without control characters and halves of characters (names in a tar may have both)."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def _check(caption_set, files, count, min_side, num_workers, world, progress):
    """[(i, key, reason)] of the bad samples, ascending."""
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
            found = files.load('all', 0, count)  # another process has put it together
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
    """Where verdicts are written: one of the whole set, and until it is there one of each part."""

    def __init__(self, caption_set, min_side, directory):
        self.places, digest = [], fingerprint(caption_set, min_side)
        if digest is None:
            return
        self.name = f'.checked-{digest}'
        places = [Path(caption_set.folder)] + ([Path(directory)] if directory else [])
        self.places = [p for p in places if _writable(p) or (p / f'{self.name}.json').is_file()]

    def load(self, part, start, stop):
        """[(i, key, reason)] of a file, or None where there is none that makes sense."""
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
        """Into the first place that can be written. What cannot be kept is only checked again next time."""
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
        """Write the verdict of the whole set; its parts go."""
        self.save('all', rows)
        for place in self.places:
            shutil.rmtree(self._path(place, 0).parent, ignore_errors=True)

    def _path(self, place, part):
        return place / f'{self.name}.json' if part == 'all' else place / f'{self.name}.parts' / f'{part:06d}.json'


def _writable(folder):
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)

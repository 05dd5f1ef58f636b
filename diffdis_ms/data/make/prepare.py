"""Write prepared data sets: a directory of tars or MindRecord files with a summary, which appears when complete."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffdis_ms.data.samples import SUMMARY, add_skipped, check_side
from diffdis_ms.data.sources.webdataset import TarWriter
from diffdis_ms.data.stream.check import write_skipped
from diffdis_ms.data.stream.workers import ordered_map
from diffdis_ms.data.transforms import MIN_SIDE, resize_center_crop
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.storage.files import whole_directory


@contextlib.contextmanager
def staged(out, overwrite=False):
    """Yield a new directory beside `out`, which replaces `out` when the block ends without an error.

    Args:
        out: may be absent, empty or an earlier result (with summary.json); anything else is refused.
        overwrite: replace `out` even if it is something else.

    Raises:
        ConfigError: `out` exists and is something else, or is a directory that must not be replaced.
    """
    check_out(out, overwrite)
    with whole_directory(out, flushed=False) as temporary:
        yield temporary


def check_out(out, overwrite=False):
    """Raise ConfigError if `staged` may not write to `out`."""
    here, place = Path.cwd(), Path(out).resolve()
    if place in (here, *here.parents, Path.home()):
        raise ConfigError(
            f'{out} cannot be the output directory, because all its contents would be replaced; name a new one'
        )
    if overwrite or not place.exists() or (place / SUMMARY).is_file() or (place.is_dir() and not any(place.iterdir())):
        return
    raise ConfigError(
        f'{out} exists and is not an earlier result (no {SUMMARY}); name another directory or add --overwrite'
    )


def write_summary(directory, summary):
    """Write summary.json, and skipped.txt with a line `key<TAB>reason` for each entry of `summary['skipped']`."""
    directory = Path(directory)
    write_skipped(directory / 'skipped.txt', summary['skipped'])
    text = json.dumps(summary, ensure_ascii=False, indent=1)
    # names in a tar may contain any bytes
    (directory / SUMMARY).write_text(text + '\n', encoding='utf-8', errors='backslashreplace')


def rewrite(
    caption_set,
    out,
    size,
    source,
    *,
    seed=0,
    num_workers=2,
    overwrite=False,
    progress=True,
    writer=TarWriter,
    min_side=MIN_SIDE,
):
    """Write the good samples of a caption set as JPEGs in tars or MindRecord, resized and centre-cropped.

    Args:
        caption_set: see `open_captions`.
        out: directory; see `staged`.
        size: pixels.
        source: kind of the source, for the summary.
        seed: decides the order in which samples are written, so that each tar is a random part of the set.
        num_workers: threads that read and decode.
        overwrite: see `staged`.
        progress: show a bar (only if stderr is a terminal).
        writer: TarWriter or MindRecordWriter. min_side: images with a shorter side are skipped.

    Returns:
        dict, as in summary.json: source, size, seed, num_kept, num_skipped, skipped (key -> reason); for a TSV also
        num_rows, num_without_image and num_by_number (see `Cc3mTsv`).

    Raises:
        ConfigError: `out` is refused, size or seed is out of range, or no sample can be used.
    """
    if size < 1 or seed < 0 or num_workers < 1:
        raise ConfigError(f'size {size} and workers {num_workers} must be above 0, seed {seed} not below')
    skipped = dict(getattr(caption_set, 'skipped', {}))

    def load(i):
        try:
            sample = caption_set.read(i)
            check_side(sample, min_side)
        except BadSample as e:
            return e
        sample.image = resize_center_crop(sample.image, size)
        return sample

    order = np.random.Generator(np.random.Philox(seed)).permutation(len(caption_set)).tolist()
    with (
        staged(out, overwrite) as temp,
        ThreadPoolExecutor(num_workers) as pool,
        writer(temp, image_format='JPEG') as out_set,
    ):
        stream = ordered_map(pool, load, order, 16 * num_workers)
        for i, sample in tqdm(stream, total=len(order), desc='samples', disable=None if progress else True):
            if isinstance(sample, BadSample):
                add_skipped(skipped, sample.key, sample.reason, i)
            else:
                meta = {**sample.meta, 'source_key': sample.key}
                out_set.write(f'{out_set.num_samples:08d}', sample.image, sample.caption, sample.label, meta)
        if not out_set.num_samples:
            raise ConfigError(
                f'none of the {len(order)} samples can be used; the first: {": ".join(next(iter(skipped.items())))}'
            )
        if caption_set.class_names:
            (temp / 'classnames.txt').write_text('\n'.join(caption_set.class_names) + '\n', encoding='utf-8')
        summary = {
            'source': source,
            'size': size,
            'seed': seed,
            'num_kept': out_set.num_samples,
            'num_skipped': len(skipped),
            **{
                name: getattr(caption_set, name)
                for name in ('num_rows', 'num_without_image', 'num_by_number')
                if hasattr(caption_set, name)
            },
            'skipped': skipped,
        }
        write_summary(temp, summary)
    return summary

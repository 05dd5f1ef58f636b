"""Time reading, decoding and tokenising 2,000 JPEGs from tars, beside a plain Pillow loop and webdataset's own reader.

All of them make batches of 64 images (uint8, 3 x 256 x 256) with token ids and resize with Pillow's bicubic filter.
First, each runs on one thread and is measured in images per second of processor time, which does not depend on what
else the machine does. Then threads and processes are measured by wall-clock time. Each round runs all of them, so that
a busy moment of the machine affects them equally.
"""

import io
import os
import shutil
import statistics
import tarfile
import time
from itertools import islice

import numpy as np
from PIL import Image
from tqdm import tqdm

from diffdis_ms.data.sources.folders import open_captions
from diffdis_ms.data.sources.mindrecord import MindRecordWriter
from diffdis_ms.data.stream.loader import Loader
from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.data.transforms import resize_center_crop
from diffdis_ms.errors import ConfigError

COUNT, SHARD, SIZE, BATCH, LENGTH = 2000, 500, 256, 64, 77
# fmt: off
WORDS = [
    'a', 'photo', 'of', 'the', 'red', 'green', 'small', 'large', 'old', 'dog', 'cat',
    'house', 'river', 'street', 'man', 'woman', 'standing', 'running', 'beside', 'under', 'two', 'three',
]
# fmt: on


def measure(work, repeats, seed):
    """Returns {'runs': {what: [{'images_per_cpu_second', 'images_per_second', 'start'}]}, medians, ratios}."""
    try:
        import webdataset
    except ImportError:
        raise ConfigError('the benchmark data needs the package webdataset: pip install -e .[dev]') from None
    work = work.resolve() / 'data'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        tokenizer = train_tokenizer(WORDS, 570, work / 'tokenizer')
        mean_kb = write_tars(work / 'tars', seed)
        with MindRecordWriter(work / 'records') as writer:
            copy_encoded(work / 'tars', writer)
        for folder in ('tars', 'records'):  # as if prepare_data.py had written it: the samples are not checked first
            (work / folder / 'summary.json').write_text(f'{{"num_kept": {COUNT}}}')
        cores = os.cpu_count()
        contenders = {
            'ours': lambda: ours(work / 'tars', tokenizer, 1, 'threads'),
            'plain Pillow loop': lambda: plain(work / 'tars', tokenizer),
            'webdataset': lambda: peer(webdataset, work / 'tars', tokenizer),
            'ours, MindRecord': lambda: ours(work / 'records', tokenizer, 1, 'threads'),
            f'ours, {cores} threads': lambda: ours(work / 'tars', tokenizer, cores, 'threads'),
            f'ours, {cores} processes': lambda: ours(work / 'tars', tokenizer, cores, 'processes'),
        }
        runs = {what: [] for what in contenders}
        for _ in tqdm(range(repeats), desc='rounds', disable=None):
            for what, make in contenders.items():
                runs[what].append(take(make()))
        medians = {
            what: {key: statistics.median(r[key] for r in some) for key in some[0]} for what, some in runs.items()
        }
        mine = medians['ours']['images_per_cpu_second']
        return {
            'mean_kb': mean_kb,
            'size': SIZE,
            'count': COUNT,
            'runs': runs,
            'medians': medians,
            'times': {
                what: mine / medians[what]['images_per_cpu_second'] for what in ('plain Pillow loop', 'webdataset')
            },
        }
    finally:
        shutil.rmtree(work, ignore_errors=True)


def take(batches):
    """Rates over an epoch without its first batch; `start` is the time until the first batch, in seconds."""
    begun = time.perf_counter()
    pixels, ids = next(batches)
    if pixels.shape != (BATCH, 3, SIZE, SIZE) or ids.shape != (BATCH, LENGTH):
        raise RuntimeError(f'a batch of {pixels.shape}, {ids.shape}')
    wall, cpu, number = time.perf_counter(), time.process_time(), 0
    start = wall - begun
    for _ in islice(batches, COUNT // BATCH - 1):
        number += BATCH
    wall = time.perf_counter() - wall
    own = time.process_time() - cpu  # of this process alone; with worker processes it means nothing and is not shown
    batches.close()
    return {'images_per_cpu_second': number / own, 'images_per_second': number / wall, 'start': start}


def ours(folder, tokenizer, num_workers, workers):
    """Shuffled batches of the training loader."""
    batches = iter(
        Loader(
            open_captions(folder),
            BATCH,
            SIZE,
            seed=0,
            num_workers=num_workers,
            workers=workers,
            tokenizer=tokenizer,
            token_length=LENGTH,
        )
    )
    try:
        for batch in batches:
            yield batch.pixels, batch.token_ids
    finally:
        batches.close()


def plain(folder, tokenizer):
    """Batches from a loop as in a notebook: tarfile, Pillow and NumPy, in file order."""
    rows = []
    for path in sorted(folder.glob('*.tar')):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith('.jpg'):
                    pixels = np.asarray(
                        resize_center_crop(Image.open(io.BytesIO(content)).convert('RGB'), SIZE)
                    ).transpose(2, 0, 1)
                else:
                    rows.append((pixels, tokenizer.encode([content.decode()], LENGTH)[0]))
                if len(rows) == BATCH:
                    yield tuple(map(np.stack, zip(*rows, strict=True)))
                    rows = []


def peer(webdataset, folder, tokenizer):
    """Batches from webdataset, used as in its README: shuffle buffer, decode('pil'), to_tuple, map_tuple, batched."""
    shards = [str(path) for path in sorted(folder.glob('*.tar'))]
    pipeline = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .shuffle(200)
        .decode('pil')
        .to_tuple('jpg', 'txt')
        .map_tuple(
            lambda image: np.asarray(resize_center_crop(image, SIZE)).transpose(2, 0, 1),
            lambda text: tokenizer.encode([text], LENGTH)[0],
        )
        .batched(BATCH)
    )
    for pixels, ids in pipeline:
        yield np.asarray(pixels), np.asarray(ids)


def write_tars(folder, seed):
    """Write JPEGs of 256 to 512 pixels, smooth shapes with a little noise, as large as photographs' files.

    Returns:
        The mean file size in kilobytes.
    """
    folder.mkdir()
    rng, total = np.random.default_rng(seed), 0
    pictures = []
    for _ in range(100):  # each is written 20 times: drawing all 2,000 would take longer than the benchmark
        width, height = rng.integers(256, 513, 2).tolist()
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (k, k, 3), np.uint8)).resize(
                    (width, height), Image.Resampling.BICUBIC
                ),
                np.float32,
            )
            for k in (4, 16, 64)
        ]
        pixels = 0.6 * layers[0] + 0.3 * layers[1] + 0.1 * layers[2] + rng.normal(0, 4, (height, width, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, 'JPEG', quality=90)
        pictures.append(buffer.getvalue())
    for shard in range(COUNT // SHARD):
        with tarfile.open(folder / f'{shard:05d}.tar', 'w') as tar:
            for i in range(shard * SHARD, (shard + 1) * SHARD):
                for extension, content in (
                    ('jpg', pictures[i % len(pictures)]),
                    ('txt', ' '.join(rng.choice(WORDS, 10)).encode()),
                ):
                    info = tarfile.TarInfo(f'{i:06d}.{extension}')
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                    total += len(content)
    return total / COUNT / 1000


class _Encoded:
    """An image that `save` writes as its encoded bytes, unchanged."""

    width = height = 512

    def __init__(self, content):
        self.content = content

    def save(self, file, *_, **__):
        """As Pillow's."""
        file.write(self.content)


def copy_encoded(folder, writer):
    """Write the tars' samples to another container, with the encoded images unchanged."""
    for path in sorted(folder.glob('*.tar')):
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        for name in members:
            if name.endswith('.jpg'):
                writer.write(name[:-4], _Encoded(members[name]), members[f'{name[:-4]}.txt'].decode())


def lines(result):
    """For people."""
    medians = result['medians']
    yield (
        f'{result["count"]} JPEGs of 256 to 512 pixels, {result["mean_kb"]:.0f} kB each, to {result["size"]} x'
        f' {result["size"]} and token ids; medians of {len(result["runs"]["ours"])} rounds'
    )
    yield '                           images/s/core     images/s   first batch'
    for what, m in medians.items():
        cpu = f'{m["images_per_cpu_second"]:15.0f}' if 'process' not in what else ' ' * 15
        against = f'   ours is {result["times"][what]:.2f} x' if what in result['times'] else ''
        yield f'  {what:22} {cpu} {m["images_per_second"]:12.0f} {m["start"]:11.2f} s{against}'

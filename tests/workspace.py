"""A small data set, tokenizer and model on disk, and the commands run on them as a user would."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from diffdis_ms.config import to_yaml
from diffdis_ms.data.sources.webdataset import TarWriter
from diffdis_ms.data.tokenizer import train_tokenizer
from tests import warm
from tests.helpers import make_smaller, tiny_run

ROOT = Path(__file__).parent.parent
COLOURS = {
    'red': (230, 20, 20),
    'green': (20, 200, 20),
    'blue': (20, 20, 230),
    'yellow': (240, 220, 20),
    'black': (10, 10, 10),
}
SHAPES = ('square', 'bar', 'frame')
VOCAB = 520
LOGGED = 'diffdis_ms.train.log:MetricsLog.write'  # for tests/paused.py: a step of training is done
GRAPHS = 'DIFFDIS_TEST_GRAPHS'  # directory of the compile cache that all tests of a run share (conftest.py)


def draw(colour, shape, size=40):
    pixels = np.full((size, size, 3), 255, np.uint8)
    rows, columns = {
        'square': (slice(8, 32), slice(8, 32)),
        'bar': (slice(16, 24), slice(2, 38)),
        'frame': (slice(4, 36), slice(4, 36)),
    }[shape]
    pixels[rows, columns] = COLOURS[colour]
    if shape == 'frame':
        pixels[10:30, 10:30] = 255
    return Image.fromarray(pixels)


def make_data(directory):
    """15 pictures with captions like 'red square', as one tar; labels are the shapes."""
    with TarWriter(directory) as writer:
        for i, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
            writer.write(f'{i:04d}', draw(colour, shape), f'{colour} {shape}', label=SHAPES.index(shape))
    (Path(directory) / 'classnames.txt').write_text('\n'.join(SHAPES) + '\n')


def make_pictures(folder, count, seed=0, size=24):
    """Noise as 00000.png, 00001.png ..."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size + i, 3), np.uint8)).save(folder / f'{i:05d}.png')
    return folder


def make_workspace(directory):
    """data/, tokenizer/ and diffdis.yaml for a run of the tiny DiffDis."""
    directory = Path(directory)
    make_data(directory / 'data')
    train_tokenizer([f'{c} {s}' for c in COLOURS for s in SHAPES], VOCAB, directory / 'tokenizer')
    config = tiny_run('diffdis', batch_size=4, max_steps=8, log_every=1, checkpoint_every=3, ema_decay=0.9)
    config.model.text_encoder.vocab_size = VOCAB
    make_smaller(config.model)
    config.init.tokenizer, config.data.path = str(directory / 'tokenizer'), str(directory / 'data')
    config.output_dir, config.train.tensorboard = str(directory / 'run'), False
    config.runtime.compile_cache_dir = os.environ.get(GRAPHS)
    config.runtime.compile_cache = GRAPHS in os.environ
    (directory / 'diffdis.yaml').write_text(to_yaml(config))
    return directory


def python(*args):
    """Run Python in a process that has imported nothing yet; returns the finished process (text)."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, args)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200
    )


def command(*args):
    """Run one of the tools in a fork (see warm.py); returns the finished process (text)."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = (Path(folder) / name for name in ('output', 'errors'))
        process = warm.Process(args, output, errors)
        process.wait()
        return subprocess.CompletedProcess(
            process.args, process.returncode, *(file.read_text(encoding='utf-8') for file in (output, errors))
        )


def wait_until_paused(process, file):
    """Wait until a process that runs a tool through tests/paused.py, or starts others that do, has paused."""
    while not file.exists():
        assert process.poll() is None, f'it ended before it paused: {process.communicate()}'
        time.sleep(0.01)


def start_paused(place, count, file, *args):
    """Start one of the tools by tests/paused.py, and wait until it has paused; returns the process."""
    process = warm.Process(['tests/paused.py', place, count, file, *args])
    wait_until_paused(process, file)
    return process


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def msrun(processes, logs, *args):
    """Run one of the tools in several processes (see warm.py); returns the finished msrun. Should another program have
    taken the port in the meantime, it is run again on another one."""
    for _ in range(3):
        done = command(
            '-m',
            warm.MSRUN,
            f'--worker_num={processes}',
            f'--local_worker_num={processes}',
            f'--master_port={free_port()}',
            '--join=True',
            f'--log_dir={logs}',
            '--cluster_time_out=120',
            *args,
        )
        if done.returncode == 0 or not port_was_taken(logs):
            break
    return done


def port_was_taken(logs):
    """Whether a job of msrun failed because another program held its port."""
    return any('Address already in use' in log.read_text(errors='replace') for log in Path(logs).rglob('scheduler.log'))


def assert_one_line_error(done, *words):
    """A user's mistake: one clear line, non-zero exit, no stack trace."""
    assert done.returncode != 0, done.stdout
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith('error: '), done.stderr
    for word in words:
        assert word in lines[0], lines[0]

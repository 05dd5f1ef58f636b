"""A conversion that is killed, or runs out of disk, leaves nothing or a whole model at its destination."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ckpt_convert import name_map
from ckpt_convert.shapes import parameter_shapes
from diffdis_ms.data.tokenizer import write_vocabulary
from diffdis_ms.models.names import is_new_parameter
from diffdis_ms.storage.files import write_weights
from diffdis_ms.storage.model_dir import read_config
from tests.helpers import make_larger, make_tiny_config
from tests.workspace import ROOT, assert_one_line_error

SET = (
    'unet.num_attention_heads=4',
    'unet.norm_num_groups=8',
    'vae.norm_num_groups=8',
    'text_encoder.num_attention_heads=4',
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Arguments of an import that writes 190 MB: the alignment transformer has its real size."""
    folder, config = tmp_path_factory.mktemp('checkpoint'), make_tiny_config()
    config.text_encoder.vocab_size = 514
    make_larger(config)
    state, clip, rng = {}, {}, np.random.default_rng(0)
    for stem, prefix, table in (
        ('unet', 'model.diffusion_model.', name_map.unet_ldm(config.unet)),
        ('vae', 'first_stage_model.', name_map.vae_ldm(config.vae)),
        ('text_encoder', 'cond_stage_model.transformer.', None),
    ):
        for name, shape in parameter_shapes(stem, config).items():
            if not is_new_parameter(name):
                place = name_map.place(name, shape, table)
                array = rng.standard_normal(place.shape, dtype=np.float32)
                if stem == 'text_encoder':
                    clip[place.name] = array
                if name != 'text_projection.weight':
                    state[prefix + place.name] = array
    write_weights(folder / 'sd.safetensors', state)
    write_weights(folder / 'clip.safetensors', clip)
    write_vocabulary([], folder / 'tokenizer')
    # fmt: off
    return [
        '-m', 'ckpt_convert', 'import', '--src', folder / 'sd.safetensors',
        '--text-encoder', folder / 'clip.safetensors', '--set', *SET,
    ]
    # fmt: on


def start(checkpoint, dst, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, checkpoint), '--dst', str(dst)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def written(folder):
    """Bytes of weights below a folder, those under temporary names included."""
    total = 0
    for parent, _, names in os.walk(folder):  # which does not mind a directory that is renamed meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size if name.endswith('.safetensors') else 0
    return total


def test_kill_while_writing(checkpoint, tmp_path):
    killed_midway = 0
    for threshold in (1, 20 << 20, 60 << 20, 100 << 20, 140 << 20, 180 << 20):
        folder = tmp_path / str(threshold)
        folder.mkdir()
        process = start(checkpoint, folder / 'model')
        while process.poll() is None and written(folder) < threshold:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (folder / 'model').exists():
            read_config(folder / 'model')
            assert written(folder / 'model') > 170 << 20
        else:
            killed_midway += written(folder) > 0
    assert killed_midway >= 3  # else this test has shown nothing
    folder = tmp_path / str(60 << 20)
    assert not (folder / 'model').exists()
    assert start(checkpoint, folder / 'model').wait() == 0  # beside the remains of a killed one, which go
    assert [p.name for p in folder.iterdir()] == ['model']


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50 << 20, 50 << 20))


def test_no_room_for_the_weights(checkpoint, tmp_path):
    process = start(checkpoint, tmp_path / 'model', preexec_fn=limit_file_size)
    out, err = process.communicate()
    assert_one_line_error(subprocess.CompletedProcess([], process.returncode, out, err), 'too large')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason='only root may mount a small file system')
def test_full_disk(checkpoint, tmp_path):
    """On a file system of 100 MB; where this machine lets nobody mount one, the limit above stands for it."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=100m', 'tmpfs', disk], capture_output=True).returncode:
        pytest.skip('mounting is not allowed here')
    try:
        process = start(checkpoint, disk / 'model')
        out, err = process.communicate()
        assert_one_line_error(subprocess.CompletedProcess([], process.returncode, out, err), 'No space left')
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(['umount', disk], check=True)

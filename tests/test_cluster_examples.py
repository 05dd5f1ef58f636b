"""The Slurm and Kubernetes examples: their command lines are what tools/launch.sh takes."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from diffdis_ms.config import load
from tests.workspace import ROOT

NODES = 4


def launch_options(monkeypatch, arguments):
    """tools/launch.py's reading of its arguments."""
    spec = importlib.util.spec_from_file_location('launch', ROOT / 'tools/launch.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['launch.py', *arguments])
    return module.parse_args()


def check(options, rank):
    assert (options.processes, options.nodes, options.node_rank, options.address, options.script) == (
        8,
        NODES,
        rank,
        '10.0.0.7',
        'tools/train.py',
    )
    config = load(options.arguments[options.arguments.index('--config') + 1])
    assert config.train.batch_size * 8 * NODES == 256 and config.device == 'Ascend'


def program(path, text):
    path.write_text(f'#!/usr/bin/env bash\n{text}\n')
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
    """A directory with a tools/launch.sh that writes its arguments down, and what the examples ask of a cluster: its
    environment."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'bin').mkdir()
    program(
        tmp_path / 'tools/launch.sh',
        'trap "exit 143" TERM\nprintf "%s\\n" "$@" > "arguments_${SLURM_NODEID:-$VC_TASK_INDEX}"\n'
        'for i in $(seq ${TENTHS:-0}); do sleep 0.1; done',
    )
    program(tmp_path / 'bin/scontrol', '[ "$*" = "show hostnames machine[1-4]" ] && printf "machine%s\\n" 1 2 3 4')
    program(tmp_path / 'bin/getent', '[ "$1" = ahostsv4 ] && echo "10.0.0.7 STREAM $2" && echo "10.0.0.7 DGRAM"')
    program(
        tmp_path / 'bin/srun',
        'shift\nfor i in 3 2 1; do SLURM_NODEID=$i "$@" & done\nSLURM_NODEID=0 "$@" & first=$!\nwait $first; code=$?\n'
        '[ $code = 0 ] && wait || kill $(jobs -p) 2> /dev/null\nexit $code',
    )
    return tmp_path, {
        **os.environ,
        'PATH': f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'SLURM_SUBMIT_DIR': str(tmp_path),
        'SLURM_JOB_ID': '17',
        'SLURM_JOB_NODELIST': 'machine[1-4]',
        'SLURM_NNODES': str(NODES),
    }


def test_slurm_starts_one_launcher_a_machine(cluster, monkeypatch):
    directory, env = cluster
    done = subprocess.run(
        ['bash', ROOT / 'ascend_configs/slurm.sh', 'max_steps=5'], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for rank in range(NODES):
        options = launch_options(monkeypatch, (directory / f'arguments_{rank}').read_text().splitlines())
        check(options, rank)
        assert options.arguments[-1] == 'max_steps=5' and options.max_restarts == 3


def test_slurm_hands_its_signal_to_the_first_launcher_and_waits(cluster):
    directory, env = cluster
    job = subprocess.Popen(['bash', ROOT / 'ascend_configs/slurm.sh'], env={**env, 'TENTHS': '600'})
    deadline = time.monotonic() + 30
    while not (directory / 'arguments_0').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 143


def test_volcano_starts_one_launcher_a_pod(cluster, monkeypatch):
    directory, env = cluster
    job = yaml.safe_load((ROOT / 'ascend_configs/volcano.yaml').read_text())
    task = job['spec']['tasks'][0]
    assert job['spec']['minAvailable'] == task['replicas'] == NODES and {'svc', 'env'} <= job['spec']['plugins'].keys()
    container = task['template']['spec']['containers'][0]
    assert container['resources']['limits']['huawei.com/Ascend910'] == 8
    for rank in range(NODES):
        done = subprocess.run(
            [*container['command'], *container['args']],
            cwd=directory,
            env={**env, 'VC_TASK_INDEX': str(rank)},
            timeout=60,
        )
        assert done.returncode == 0
        check(launch_options(monkeypatch, (directory / f'arguments_{rank}').read_text().splitlines()), rank)
    host = (  # pods are named so by the svc plugin
        f'{job["metadata"]["name"]}-{task["name"]}-0.{job["metadata"]["name"]}'
    )
    assert f'ahostsv4 {host} ' in container['args'][0]

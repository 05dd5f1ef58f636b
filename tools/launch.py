"""Run one of the tools on several devices of one or more machines with MindSpore's msrun; restart it if it dies."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run

EXAMPLES = """examples:
  bash tools/launch.sh 8 tools/train.py --config ascend_configs/cc3m_diffdis_8p.yaml
      8 processes on this machine, one per device; logs in logs/attempt_0/worker_N.log
  bash tools/launch.sh 8 --nodes 4 --node-rank 0 --address 10.0.0.1 --max-restarts 3 tools/train.py \\
      --config ascend_configs/cc3m_diffdis_32p.yaml
      4 machines with 8 devices each: the same command on all of them, with --node-rank 0, 1, 2 and 3. 10.0.0.1 is the
      address of the first one. They need a shared output_dir, and the same data under the same path
  bash tools/launch.sh 2 tools/evaluate.py zeroshot --model DIR --dataset cifar10 --data-root DIR --out FILE.json

No rank table is needed; --rank-table FILE is accepted. When a process dies, the job ends with the error of the first
process that failed. With --max-restarts N it is started again, up to N times; training continues from its last complete
checkpoint. A user's mistake (a line `error: ...`) is not tried again. SIGTERM is passed on: training saves a checkpoint
and exits with code 143.
"""
FAILED = re.compile(r'Worker process (\d+) exit with exception. Error code: (-?\d+)')
GRACE = 5.0  # seconds for the scheduler to end by itself after all workers


def parse_args():
    parser = argparse.ArgumentParser(
        prog='launch.sh', description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('processes', type=int, help='number of processes on this machine, one per device')
    parser.add_argument('--nodes', type=int, default=1, metavar='N', help='number of machines (default: %(default)s)')
    text = 'index of this machine; 0 is the machine of --address'
    parser.add_argument('--node-rank', type=int, default=0, metavar='R', help=text)
    parser.add_argument('--address', default='127.0.0.1', help='address of the first machine (default: %(default)s)')
    parser.add_argument(
        '--port', type=int, default=8118, help='a free port on the first machine (default: %(default)s)'
    )
    parser.add_argument('--rank-table', metavar='FILE', help='HCCL rank table; not needed')
    text = 'directory for DIR/attempt_K/ with one log per process (default: %(default)s)'
    parser.add_argument('--logs', default='logs', metavar='DIR', help=text)
    text = 'start again after a failure, up to N times (default: %(default)s)'
    parser.add_argument('--max-restarts', type=int, default=0, metavar='N', help=text)
    text = 'time until all machines must have joined (default: %(default)s)'
    parser.add_argument('--timeout', type=int, default=600, metavar='SECONDS', help=text)
    parser.add_argument('script', metavar='tools/TOOL.py', help='the tool to run')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='arguments of the tool')
    args = parser.parse_args()
    for name, low in (('processes', 1), ('nodes', 1), ('node_rank', 0), ('max_restarts', 0), ('timeout', 1)):
        if getattr(args, name) < low:
            raise ConfigError(f'--{name.replace("_", "-")}: {getattr(args, name)} is below {low}')
    if args.node_rank >= args.nodes:
        raise ConfigError(f'--node-rank: {args.node_rank}, but --nodes {args.nodes} are numbered from 0')
    if args.nodes > 1 and args.address in ('127.0.0.1', 'localhost'):
        raise ConfigError('--address: several machines need the address of the first one, which all of them can reach')
    for path in (args.script, args.rank_table):
        if path and not Path(path).is_file():
            raise ConfigError(f'{path} does not exist')
    return args


class Attempt:
    """One run of msrun, and its observation.

    Attributes:
        failed: (rank, exit code) of the first process of this machine that failed, or None.
    """

    def __init__(self, args, logs):
        self.logs, self.ranks, self.failed, self.asked_to_stop = logs, {}, None, False
        logs.mkdir(parents=True, exist_ok=True)
        folder = Path(sys.executable).parent
        command = [
            shutil.which('msrun', path=f'{folder}{os.pathsep}{os.environ["PATH"]}') or 'msrun',
            f'--worker_num={args.processes * args.nodes}',
            f'--local_worker_num={args.processes}',
            f'--master_addr={args.address}',
            f'--master_port={args.port}',
            f'--node_rank={args.node_rank}',
            f'--log_dir={logs}',
            f'--cluster_time_out={args.timeout}',
            '--join=True',
            f'--tail_worker_log={args.processes * args.node_rank}',
        ]
        command += [f'--rank_table_file={args.rank_table}'] if args.rank_table else []
        # msrun's workers run the `python` of the PATH
        env = {**os.environ, 'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}', 'PYTHONUNBUFFERED': '1'}
        try:
            self.process = subprocess.Popen(
                [*command, args.script, *args.arguments], env=env, stderr=subprocess.PIPE, text=True, errors='replace'
            )
        except FileNotFoundError:
            raise ConfigError(
                'msrun does not exist: is MindSpore installed in this environment (python tools/doctor.py)?'
            ) from None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def wait(self):
        """Wait until all processes have ended; returns the exit code of msrun."""
        gone_since = None
        while self.process.poll() is None:
            workers, others = self._children()
            if workers or not self.ranks or self.failed is None:
                gone_since = None
            elif gone_since is None:
                gone_since = time.monotonic()
            elif time.monotonic() - gone_since > GRACE:
                for other in others:  # the scheduler waits half a minute for dead workers
                    other.kill()
            time.sleep(0.2)
        self.reader.join(timeout=5)
        return self.process.returncode

    def terminate(self, *_):
        """Pass SIGTERM on to the workers."""
        self.asked_to_stop = True
        for worker in self._children()[0]:
            worker.send_signal(signal.SIGTERM)

    def _children(self):
        """List msrun's living children as (workers, others), and record the ranks of workers."""
        workers, others = [], []
        try:
            for child in psutil.Process(self.process.pid).children():
                if child.status() == psutil.STATUS_ZOMBIE:
                    continue
                # msrun gives each worker a process group of its own
                if child.pid not in self.ranks and os.getpgid(child.pid) == child.pid:
                    self.ranks[child.pid] = int(child.environ().get('RANK_ID', -1))
                (workers if child.pid in self.ranks else others).append(child)
        except (psutil.Error, ProcessLookupError):
            pass  # a process ended meanwhile
        return workers, others

    def _read(self):
        """Read msrun's messages to find the process that failed first."""
        with open(self.logs / 'msrun.log', 'w', encoding='utf-8') as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                found = FAILED.search(line)
                if found and self.failed is None:
                    self.failed = self.ranks.get(int(found[1]), -1), int(found[2])

    def explain(self):
        """Explain a failure; returns (what went wrong, whether it was a user's mistake)."""
        if self.failed is None:
            return f'the job failed outside this machine\'s processes; see {self.logs}', False
        rank, code = self.failed
        log = self.logs / f'worker_{rank}.log'
        lines = log.read_text(encoding='utf-8', errors='replace').splitlines() if log.is_file() else []
        mistakes = [line for line in lines if line.startswith('error: ')]
        how = f'was killed by signal {-code} ({signal.Signals(-code).name})' if code < 0 else f'ended with code {code}'
        text = mistakes[-1] if mistakes else '\n'.join(lines[-15:])
        return f'process {rank} {how}; {log} ends with:\n{text}', bool(mistakes)


def main():
    args = parse_args()
    stopped, current = threading.Event(), []

    def stop(*_):
        stopped.set()
        if current:
            current[-1].terminate()

    signal.signal(signal.SIGTERM, stop)
    for number in range(args.max_restarts + 1):
        current.append(Attempt(args, Path(args.logs) / f'attempt_{number}'))
        if stopped.is_set():
            current[-1].terminate()
        code = current[-1].wait()
        if stopped.is_set():
            print('stopped by SIGTERM', file=sys.stderr)
            return 128 + signal.SIGTERM
        if code == 0:
            return 0
        text, mistake = current[-1].explain()
        print(text, file=sys.stderr)
        if mistake:
            break
        if number < args.max_restarts:
            print(f'restart {number + 1} of {args.max_restarts}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    run(main)

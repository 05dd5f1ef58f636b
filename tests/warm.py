"""Run the tools in forks of a process that has already imported what they import, which takes 8 seconds.

A fork is a process of its own with its own directory, environment, arguments and output, and ends as a Python process
does. `Server` is the side of the tests; `python tests/warm.py` is the process that forks. They exchange lines of JSON.
A launcher's own processes, msrun's scheduler and workers, are forks as well (`Forking`).
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

MODULES = (
    'diffdis_ms.train.job',
    'diffdis_ms.train.loop',
    'diffdis_ms.pipeline',
    'diffdis_ms.evaluate.generation',
    'diffdis_ms.evaluate.models',
    'diffdis_ms.evaluate.tasks',
    'diffdis_ms.runtime.context',
    'transformers.models.clip.tokenization_clip',
)
MSRUN = 'mindspore.parallel.cluster.run'
LAUNCHERS = (['tools/launch.py'], ['-m', MSRUN])  # how arguments begin that start several processes
POPEN = subprocess.Popen


class Server:
    """A process that forks, and the way to talk to it. It ends with this one."""

    def __init__(self):
        root = Path(__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=root,
            env={**os.environ, 'PYTHONPATH': str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@functools.cache
def server():
    """The one server of this process."""
    found = Server()
    atexit.register(found.process.kill)
    return found


class Process:
    """A fork that runs `args` as `python args...` would; has what tests use of subprocess.Popen.

    Args:
        args: path of a tool and its arguments, or '-m', a module and its arguments.
        output: file that gets stdout; errors: file that gets stderr.
    """

    def __init__(self, args, output=os.devnull, errors=os.devnull):
        self.args, self.returncode = [str(a) for a in args], None
        request = {'args': self.args, 'env': dict(os.environ), 'output': str(output), 'errors': str(errors)}
        self.pid = server().ask(**request)

    def poll(self):
        if self.returncode is None:
            self.returncode = server().ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout=1200):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode

    def communicate(self):
        """Wait; its output goes to the files."""
        self.wait()
        return None, None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def fork_on_request():
    """Fork for each request, in the order of lines. Returns the request in a fork, and None when there are no more."""
    ended, replies = {}, os.fdopen(os.dup(1), 'w')
    for line in sys.stdin:
        request = json.loads(line)
        if 'poll' in request:
            pid = request['poll']
            if pid not in ended and (found := os.waitpid(pid, os.WNOHANG)) != (0, 0):
                ended[pid] = os.waitstatus_to_exitcode(found[1])
            print(json.dumps(ended.get(pid)), file=replies, flush=True)
        elif pid := os.fork():
            print(pid, file=replies, flush=True)
        else:
            replies.close()
            return request
    return None


def become(env, output, errors):
    """Take over an environment and two open files (-1: keep what there is)."""
    os.environ.clear()
    os.environ.update(env)
    for number, opened in ((1, output), (2, errors)):
        if opened != -1:
            os.dup2(opened, number)


class Forking(subprocess.Popen):
    """A Popen for launchers: what it would run as `msrun` or `python` becomes a fork of this process."""

    def _execute_child(self, args, executable, preexec_fn, *rest):
        program, *arguments = map(str, args)
        if Path(program).name not in ('msrun', 'python'):
            super()._execute_child(args, executable, preexec_fn, *rest)
            return
        env, pipes = rest[3], rest[7:13]  # p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        sys.stdout.flush(), sys.stderr.flush()  # or the fork writes it, too
        self.pid = os.fork()
        if self.pid:
            self._child_created = True
            self._close_pipe_fds(*pipes)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL), signal.signal(signal.SIGINT, signal.default_int_handler)
        if preexec_fn:
            preexec_fn()
        become(dict(os.environ) if env is None else env, pipes[3], pipes[5])
        run_and_end(arguments if Path(program).name == 'python' else ['-m', MSRUN, *arguments])


def run_and_end(args):
    """Run `python args...`, and end this process without a way back into the launcher's code that forked it."""
    code = 0
    try:
        run(args)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def run(args):
    """Run `python args...` in this process."""
    launches = any(args[: len(start)] == start for start in LAUNCHERS)
    subprocess.Popen = Forking if launches else POPEN
    sys.argv = args
    if sys.argv[0] == '-m':
        del sys.argv[0]
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name='__main__')


def main():
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # forks share this memory, and need not look through it
    request = fork_on_request()
    if request is not None:
        with (
            open(os.devnull) as nothing,
            open(request['output'], 'wb') as output,
            open(request['errors'], 'wb') as errors,
        ):
            os.dup2(nothing.fileno(), 0)
            become(request['env'], output.fileno(), errors.fileno())
        run(request['args'])


if __name__ == '__main__':
    main()

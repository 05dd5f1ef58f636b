"""Run one of the tools so that it pauses at a known place, to be killed or stopped there whatever the machine's speed.

paused.py MODULE:FUNCTION N FILE tools/train.py ...

After the N-th call of the function FILE is made and the process waits, until it is killed or gets SIGTERM, which it
then handles as it would have. A process that finds FILE when it starts does not pause: it is the next attempt. Under
msrun each process has a file of its own, FILE and its rank.
"""

import functools
import importlib
import os
import runpy
import signal
import sys
import time
from pathlib import Path

LONGEST = 900  # seconds


def pause(file):
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *args: asked.append(args))
    file.touch()
    deadline = time.monotonic() + LONGEST
    while not asked:
        if time.monotonic() > deadline:
            raise TimeoutError(f'nobody ended this process, which paused at {file}')
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, before)
    before(*asked[0])


def pause_after(place, count, file):
    """Replace a function by one that pauses once, when its `count`-th call is done."""
    module, _, name = place.partition(':')
    *path, name = name.split('.')
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    function, calls = getattr(owner, name), []

    @functools.wraps(function)
    def counted(*args, **kwargs):
        result = function(*args, **kwargs)
        calls.append(None)
        if len(calls) == count:
            pause(file)
        return result

    setattr(owner, name, counted)


def main():
    place, count, file, *command = sys.argv[1:]
    file = Path(file + os.environ.get('RANK_ID', ''))
    if not file.exists():
        pause_after(place, int(count), file)
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name='__main__')


if __name__ == '__main__':
    main()

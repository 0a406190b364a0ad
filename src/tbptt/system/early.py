"""Ctrl-C while a command's own imports run: nothing has begun, so that there is nothing to close.

Until :class:`tbptt.system.runtime.StopSignals` takes the signals over, Python would answer with a traceback from
wherever the imports are. This module, and the package that it is in, import nothing that takes time.
"""

import os
import signal
import sys
from types import FrameType


def is_the_command() -> bool:
    """Whether this process was started as ``python SCRIPT``, the script that runs now: not a notebook, a profiler, or a
    program that imports it, which have signals of their own. (``python -i SCRIPT`` is not, either.)"""
    return sys.orig_argv[1:2] == sys.argv[:1]


def end_quietly() -> None:
    """From now on SIGINT and SIGTERM end the process at once, with exit status 130 and 143, where this is the command.
    A signal that is ignored, as a shell's background jobs ignore SIGINT, stays so."""
    if not is_the_command():
        return
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _end)


def _end(signum: int, frame: FrameType | None) -> None:
    os.write(2, f"stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)

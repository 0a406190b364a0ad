"""Ctrl-C during a command's imports. Nothing has begun by then, so there is nothing to close.

Until :class:`tbptt.system.runtime.StopSignals` handles the signals, Python would print a traceback from the middle of
an import. This module and its package import nothing that takes time.
"""

import os
import signal
import sys
from types import FrameType


def is_the_command() -> bool:
    """Whether this process was started as ``python SCRIPT`` and runs that script, or as ``python -m tbptt``. The
    installed command ``tbptt`` is such a script too. False in a notebook, a profiler or a program that imports the
    script: these handle signals themselves. False for ``python -i SCRIPT`` too."""
    return sys.orig_argv[1:2] == sys.argv[:1] or is_the_module()


def is_the_module() -> bool:
    """Whether this process was started as ``python -m tbptt``."""
    return sys.orig_argv[1:3] == ["-m", "tbptt"]


def end_quietly() -> None:
    """If :func:`is_the_command`, have SIGINT and SIGTERM end the process at once, with exit status 130 and 143.

    A signal that is ignored stays ignored, such as SIGINT in a shell's background job.
    """
    if not is_the_command():
        return
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _end)


def _end(signum: int, frame: FrameType | None) -> None:
    os.write(2, f"stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)

"""How a command ends: the line about what failed, the line that opens the UI, the exit itself."""

import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from tbptt import compat
from tbptt.system.devices import GpuTrouble
from tbptt.system.early import is_the_command
from tbptt.system.secrets import hide
from tbptt.system.stores import absolute_uri
from tbptt.system.trouble import disk_trouble


class SweepFailed(Exception):
    """Trials of a sweep failed. The message has a line for each reason."""


def leave(status: int) -> NoReturn:
    """End the process with an exit status.

    A normal exit takes one to two seconds, while Python takes down what torch and MLflow have built. So if the process
    is ours alone, this runs the functions registered with atexit and ends it at once. In a notebook, a profiler or a
    script that goes on, it raises SystemExit instead.
    """
    if not _is_ours_alone():
        sys.exit(status)
    compat.run_exit_functions()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_ours_alone() -> bool:
    """Whether this process was started as ``python train.py`` or as a worker, and nothing traces or inspects it."""
    if not is_the_command() and sys.orig_argv[1:3] != ["-m", "tbptt.studies.worker_process"]:
        return False
    if sys.flags.interactive or os.environ.get("PYTHONINSPECT"):
        return False
    monitoring = getattr(
        sys, "monitoring", None
    )  # from Python 3.12 on; a debugger, profiler or coverage has one of six
    traced = monitoring is not None and any(monitoring.get_tool(i) for i in range(6))
    return not traced and sys.gettrace() is None and sys.getprofile() is None


def ui_line(uri: str) -> str:
    """The line that says how to open MLflow's UI. A relative path stays relative, unless MLflow would misread it."""
    if uri.startswith("http"):  # a server has a UI of its own
        return hide(f"compare runs: {uri}")
    absolute = absolute_uri(uri)
    shown = absolute if absolute.startswith("sqlite+") else uri
    return hide(f"compare runs: mlflow ui --backend-store-uri {shlex.quote(shown)}")


def ui_lines(uri: str, page: str) -> list[str]:
    """The lines that say how to open a page of MLflow's UI (:mod:`tbptt.system.mlflow_links`)."""
    if uri.startswith("http"):
        return [hide(f"compare runs: {page}")]
    return [ui_line(uri), f"then open: {page}"]


def failure_line(error: BaseException) -> str:
    """What went wrong, and where in this package, in one line."""
    what = hide(" ".join(str(error).split())) or "no message"
    if isinstance(error, ValueError | GpuTrouble):  # its message was written for the user
        return what
    if trouble := disk_trouble(error):
        return hide(str(trouble))
    if isinstance(error, MemoryError) or "can't allocate memory" in what or "out of memory" in what:
        what = f"out of memory: {what}"
    package = str(Path(__file__).parents[1])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(package)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {what}{where}"

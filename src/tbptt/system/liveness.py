"""Which process works on a trial or a run, and whether it is still there: by a lock on the disk that its fellows share,
else by process and boot; not by clock."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from tbptt.system.claims import NoLocks, is_claimed, of_this_process

ALIVE = ".alive"  # the folder of the files that are held
LOCK = "lock"


def identity() -> dict[str, Any]:
    """This process, so that it can be told from a later one with the same number."""
    here = {"host": socket.gethostname(), "boot": boot_id(), "numbers": _numbers()}
    return {**here, "pid": os.getpid(), "started": started_at(os.getpid())}


def holding(folder: Path) -> dict[str, Any]:
    """This process, which from now on holds a file in ``folder`` for its life: :func:`is_alive` looks at that."""
    try:
        return {**identity(), LOCK: of_this_process(folder / ALIVE)}
    except NoLocks:
        return identity()


def is_process(who: object) -> TypeGuard[dict[str, Any]]:
    """Whether what was read describes a process as :func:`identity` does: anything may stand in a file."""
    return isinstance(who, dict) and {"host", "boot", "pid", "started"} <= who.keys()


def is_alive(who: Mapping[str, Any] | None, folder: Path | None = None) -> bool:
    """Whether the process that ``identity`` or ``holding`` described still runs.

    Args:
        folder: the one that it may hold a file in. Where it holds none it is told by its number, and one on another
            machine is taken to run.
    """
    if not is_process(who):
        return False
    if folder is not None and LOCK in who:
        with suppress(NoLocks):  # where another machine sees the same disk with locks
            return is_claimed(folder / ALIVE / Path(who[LOCK]).name)
    if who["host"] != socket.gethostname():
        return True
    return bool(who["boot"] == boot_id() and who["started"] is not None and who["started"] == started_at(who["pid"]))


def is_seen_to_be_gone(who: Mapping[str, Any] | None) -> bool:
    """Whether no process ``identity`` described, or one that could be seen from here and is not there any more.

    Where machines share a study, two may have the same name, so a name says nothing here.
    """
    if not is_process(who):
        return True
    if not boot_id():  # a system that does not tell one start of it from another, as macOS
        return bool(who["host"] == socket.gethostname() and not is_alive(who))
    return bool(
        who["boot"] == boot_id() and who.get("numbers") == _numbers() and who["started"] != started_at(who["pid"])
    )


def _numbers() -> str:
    """Which numbering of processes this is; each container has its own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def boot_id() -> str:
    """Which start of this machine it is; empty on a system that does not tell."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def started_at(pid: int) -> str | None:
    """When a process began, in ticks since boot; None where there is none, or only its remains.

    Not psutil's ``create_time``: it adds the time of boot, which moves when the clock is set, on Linux in what every
    process reads, on macOS in what those read that began before.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return _without_proc(pid) if not Path("/proc/self").exists() else None
    return None if fields[0] in "ZX" else fields[19]


def _without_proc(pid: int) -> str | None:
    """The same as a date in words, on a system without /proc, as macOS."""
    import subprocess

    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    state, _, began = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition(" ")
    return None if state.startswith("Z") else began.strip() or None

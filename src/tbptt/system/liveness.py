"""Which process works on a trial or a run, and whether it still runs. A lock on the shared disk tells, or, on a disk
without locks, the process's number, its start time and the machine's boot. Clocks are not compared."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from tbptt.system.claims import NoLocks, is_claimed, of_this_process

ALIVE = ".alive"  # the folder of the lock files, one per process
LOCK = "lock"


def identity() -> dict[str, Any]:
    """A description of this process, which tells it from a later process with the same number."""
    here = {"host": socket.gethostname(), "boot": boot_id(), "numbers": _numbers()}
    return {**here, "pid": os.getpid(), "started": started_at(os.getpid())}


def holding(folder: Path) -> dict[str, Any]:
    """The same, and from now on this process holds a file in ``folder`` until it ends. :func:`is_alive` looks at the
    file's lock."""
    try:
        return {**identity(), LOCK: of_this_process(folder / ALIVE)}
    except NoLocks:
        return identity()


def is_process(who: object) -> TypeGuard[dict[str, Any]]:
    """Whether something read from a file describes a process as :func:`identity` does. A file may hold anything."""
    return isinstance(who, dict) and {"host", "boot", "pid", "started"} <= who.keys()


def is_alive(who: Mapping[str, Any] | None, folder: Path | None = None) -> bool:
    """Whether the process that ``identity`` or ``holding`` described still runs.

    Args:
        folder: where the process may hold a file. If it holds none, its number and start time decide. Then a process on
            another machine counts as running.
    """
    if not is_process(who):
        return False
    if folder is not None and LOCK in who:
        with suppress(NoLocks):  # another machine may have locks on the same disk, and this one none
            return is_claimed(folder / ALIVE / Path(who[LOCK]).name)
    if who["host"] != socket.gethostname():
        return True
    return bool(who["boot"] == boot_id() and who["started"] is not None and who["started"] == started_at(who["pid"]))


def is_seen_to_be_gone(who: Mapping[str, Any] | None) -> bool:
    """Whether a process has certainly ended: it ran where this process would see it, and it does not run there now.
    True too if ``who`` describes no process.

    Host names are not compared, unless there is no boot id: machines that share a study may have the same name.
    """
    if not is_process(who):
        return True
    if not boot_id():  # a system without boot ids, such as macOS
        return bool(who["host"] == socket.gethostname() and not is_alive(who))
    return bool(
        who["boot"] == boot_id() and who.get("numbers") == _numbers() and who["started"] != started_at(who["pid"])
    )


def _numbers() -> str:
    """The id of this process's PID namespace (each container numbers its processes itself); empty if unknown."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def boot_id() -> str:
    """An id that is new at each start of this machine; empty on a system that has none."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def started_at(pid: int) -> str | None:
    """When a process began, in ticks since boot; None if there is no such process, or only a zombie.

    psutil's ``create_time`` would not do: it adds the time of boot, and that changes when the clock is set (on Linux
    for every reader, on macOS for processes that began before).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return _without_proc(pid) if not Path("/proc/self").exists() else None
    return None if fields[0] in "ZX" else fields[19]


def _without_proc(pid: int) -> str | None:
    """The same as a date in words, on a system without /proc, such as macOS."""
    import subprocess

    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    state, _, began = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition(" ")
    return None if state.startswith("Z") else began.strip() or None

"""``pending/RUN`` beside a store: the data of a run that its store does not have yet, and the process that owns it."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tbptt.system.claims import NoLocks, claim, is_held_here, release
from tbptt.system.files import make_folder
from tbptt.system.liveness import LOCK, identity, is_alive, is_process
from tbptt.system.retry import retry

JOURNAL, OUTCOME = "curves.jsonl", "outcome.json"
OWNER = "owner.json"  # the process that trains the run, or was the last to train it
CLAIM = ".claim"  # held while the run is trained
SYSTEM = "system.jsonl"  # what system_metrics.py measured, a line for each point in time
OF_ITS_OWN = (JOURNAL, OUTCOME, OWNER, CLAIM, SYSTEM)  # files that are no artifacts


def pending_folder(store: Path, run_id: str) -> Path:
    """The folder of a run. ``store`` is the store's folder; for a store elsewhere, the local folder in its place."""
    return store / "pending" / run_id


class RunTaken(Exception):
    """Another process that shares the disk trains the run, or delivers what was left of it."""


def claim_run(folder: Path, wait: float = 0.0, check: Callable[[], None] = lambda: None) -> None:
    """Claim a run for this process alone, until :func:`let_go` or the end of the process.

    Args:
        folder: the run's folder.
        wait: seconds to wait for another process.
        check: called while waiting; may raise to stop.

    Raises RunTaken if another process holds the run.
    """
    make_folder(folder, folder.parent)

    def once() -> None:
        if not _claimed(folder):
            raise RunTaken(f"run {folder.name} is being trained by another process")

    retry(once, lambda error: isinstance(error, RunTaken), wait, check, longest_wait=0.2)


def claim_left_run(folder: Path) -> None:
    """:func:`claim_run` for a run that no process trains any more. Raises RunTaken if one still does."""
    if has_living_owner(folder):
        raise RunTaken(f"run {folder.name} is being trained by another process")
    claim_run(folder)


def _claimed(folder: Path) -> bool:
    try:
        return claim(folder / CLAIM)
    except NoLocks:
        return not has_living_owner(folder, claims=False)


def let_go(folder: Path) -> None:
    """Undo :func:`claim_run`; an empty folder is removed, too."""
    release(folder / CLAIM)
    with contextlib.suppress(OSError):
        for each in (folder, folder.parent, folder.parent.parent):
            each.rmdir()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A context in which a run is this process's alone, by :func:`claim_left_run`."""
    before = is_held_here(folder / CLAIM)
    claim_left_run(folder)
    try:
        yield
    finally:
        if not before:
            release(folder / CLAIM)


def this_owner() -> dict[str, Any]:
    """This process, as the owner of a run that it holds."""
    return {**identity(), LOCK: CLAIM}


def has_living_owner(folder: Path, claims: bool = True) -> bool:
    """Whether the process that owns a run, according to the run's folder, is still alive, judged by its process id.

    This serves runs of a version without claims, and disks without locks (``claims`` is False). For all other runs only
    the claim tells, and the result is False.
    """
    if (folder / OUTCOME).exists():
        return False
    try:
        who = json.loads((folder / OWNER).read_text())
    except (FileNotFoundError, ValueError):  # no file, or one cut short because its process was killed
        return False
    if not is_process(who):
        return False
    return not (claims and LOCK in who) and who.get("pid") != os.getpid() and is_alive(who)


def as_tag(owner: Path) -> str:
    """A process, as a tag's value."""
    who = json.loads(owner.read_text())
    return f"{who['host']} {who['pid']} {who['started']}"

"""``pending/RUN`` beside a store: what a run has that its store does not have yet, and whose run it is."""

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
OWNER = "owner.json"  # the process that trains it, or did last
CLAIM = ".claim"  # held while it is trained
OF_ITS_OWN = (JOURNAL, OUTCOME, OWNER, CLAIM)  # what is no artifact


def pending_folder(store: Path, run_id: str) -> Path:
    """``store`` is the folder of the store, or where it is elsewhere the one that stands for it."""
    return store / "pending" / run_id


class RunTaken(Exception):
    """Another process, of those that share the disk, is at a run: it trains it, or delivers what was left of it."""


def claim_run(folder: Path, wait: float = 0.0, check: Callable[[], None] = lambda: None) -> None:
    """Have a run for this process alone until :func:`let_go`, or its end.

    Args:
        folder: the run's.
        wait: seconds to wait for another process; ``check`` is called meanwhile, and may raise to stop.

    Raises RunTaken where another process is at it.
    """
    make_folder(folder, folder.parent)

    def once() -> None:
        if not _claimed(folder):
            raise RunTaken(f"run {folder.name} is being trained by another process")

    retry(once, lambda error: isinstance(error, RunTaken), wait, check, longest_wait=0.2)


def claim_left_run(folder: Path) -> None:
    """:func:`claim_run` of a run that a process has left. Raises RunTaken where it has not."""
    if has_living_owner(folder):
        raise RunTaken(f"run {folder.name} is being trained by another process")
    claim_run(folder)


def _claimed(folder: Path) -> bool:
    try:
        return claim(folder / CLAIM)
    except NoLocks:
        return not has_living_owner(folder, claims=False)


def let_go(folder: Path) -> None:
    """The way back from :func:`claim_run`; a folder with nothing in it goes, too."""
    release(folder / CLAIM)
    with contextlib.suppress(OSError):
        for each in (folder, folder.parent, folder.parent.parent):
            each.rmdir()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within, a run is this process's alone, as :func:`claim_left_run` has it."""
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
    """Whether the process that a run's folder names still runs, by its number: of a run that a version without claims
    trains, or on a disk without locks (``claims`` is False). Of others the claim alone tells."""
    if (folder / OUTCOME).exists():
        return False
    try:
        who = json.loads((folder / OWNER).read_text())
    except (FileNotFoundError, ValueError):  # none, or one that was cut, as its process was killed at it
        return False
    if not is_process(who):
        return False
    return not (claims and LOCK in who) and who.get("pid") != os.getpid() and is_alive(who)

"""``pending/RUN`` beside a store: what a run has that its store does not have yet, and whose run it is."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from tbptt.claims import NoLocks, claim, is_held_here, release
from tbptt.files import make_folder
from tbptt.liveness import identity, is_alive

JOURNAL, OUTCOME = "curves.jsonl", "outcome.json"
OWNER = "owner.json"  # the process that trains it, or did last
CLAIM = ".claim"  # held while it is trained
OF_ITS_OWN = (JOURNAL, OUTCOME, OWNER, CLAIM)  # what is no artifact


def pending_folder(store: Path, run_id: str) -> Path:
    """``store`` is the folder of the store, or where it is elsewhere the one that stands for it."""
    return store / "pending" / run_id


def claim_run(folder: Path) -> None:
    """Have a run for this process alone until :func:`let_go`, or its end; ``folder`` is the run's.

    Raises ValueError where another process, of those that share the disk, is at it.
    """
    make_folder(folder, folder.parent)
    has_claim = (folder / CLAIM).exists()
    try:
        is_ours = claim(folder / CLAIM)
    except NoLocks:
        is_ours, has_claim = True, False
    if is_ours and not has_claim and _has_living_owner(folder):
        release(folder / CLAIM)
        is_ours = False
    if not is_ours:
        raise ValueError(f"run {folder.name} is being trained by another process")


def let_go(folder: Path) -> None:
    """The way back from :func:`claim_run`; a folder with nothing in it goes, too."""
    release(folder / CLAIM)
    with contextlib.suppress(OSError):
        for each in (folder, folder.parent, folder.parent.parent):
            each.rmdir()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within, a run is this process's alone, as :func:`claim_run` has it."""
    before = is_held_here(folder / CLAIM)
    claim_run(folder)
    try:
        yield
    finally:
        if not before:
            release(folder / CLAIM)


def _has_living_owner(folder: Path) -> bool:
    """By its process's number: of a run that a version without claims began, or on a disk without locks."""
    owner = folder / OWNER
    if (folder / OUTCOME).exists() or not owner.exists():
        return False
    who = json.loads(owner.read_text())
    return who != identity() and is_alive(who)

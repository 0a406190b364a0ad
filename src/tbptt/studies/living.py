"""Whether a study lives: which of its trials a process runs, and whether its sweep runs on this machine."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from tbptt.compat import trial_id
from tbptt.runs.pending import CLAIM, RunTaken, claim_run, let_go, pending_folder
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.records import TrialRecord
from tbptt.system.claims import is_claimed, is_held_here
from tbptt.system.liveness import is_alive, is_seen_to_be_gone

if TYPE_CHECKING:  # MLflow takes seconds to import, and who lists studies does not need it
    from tbptt.runs.tracking import Run, Store


def parted(
    trials: Iterable[FrozenTrial], storage: Any, study: int, path: Path | None
) -> tuple[list[FrozenTrial], list[FrozenTrial], set[int]]:
    """The running trials among some, parted into those that a process runs, and those whose process is gone. Also the
    ids of trials whose worker has been silent for too long, by a server's clock.

    Args:
        study: Optuna's id of the study.
        path: the study's SQLite file; None for a server.
    """
    running = [t for t in trials if t.state == TrialState.RUNNING]
    silent: set[int] = storage.stale(study) if isinstance(storage, ServerStorage) else set()

    def is_gone(trial: FrozenTrial) -> bool:
        who = TrialRecord.of(trial).worker
        if isinstance(storage, ServerStorage):
            return trial_id(trial) in silent or is_seen_to_be_gone(who)
        assert path is not None
        return not is_alive(who, path.parent)

    gone = [t for t in running if is_gone(t)]
    return [t for t in running if t not in gone], gone, silent


def workers_of(trials: Sequence[FrozenTrial]) -> list[str]:
    """The workers that run some trials, in words."""
    found: dict[str, None] = {}
    for t in trials:
        who = TrialRecord.of(t).worker or {}
        found[f"{who.get('host', '?')}, process {who.get('pid', '?')}"] = None
    return list(found)


@contextmanager
def swept(store: "Store", parent: "Run") -> Iterator[None]:
    """A context in which other processes see that the study's sweep runs, also before its first trial and while its
    report is written: the parent run is claimed. If another terminal has claimed it, this one joins without."""
    folder = pending_folder(store.folder, parent.id)
    is_ours = False
    if store.is_local and not is_held_here(folder / CLAIM):
        with suppress(RunTaken, OSError):  # a disk that is full, or has no locks: the sweep itself meets what matters
            claim_run(folder)
            is_ours = True
    try:
        yield
    finally:
        if is_ours:
            let_go(folder)


def is_swept(folder: Path, parent: str) -> bool:
    """Whether a sweep runs whose parent run this is.

    Args:
        folder: that of the store of runs.
    """
    return is_claimed(pending_folder(folder, parent) / CLAIM)

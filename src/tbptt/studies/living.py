"""Which trials of a study a living process runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tbptt.compat import trial_id
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.records import TrialRecord
from tbptt.system.liveness import is_alive, is_seen_to_be_gone


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

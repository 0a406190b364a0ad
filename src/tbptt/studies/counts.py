"""How many of a study's trials are in which state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from tbptt.studies.records import TrialRecord

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Counts:
    """The number of a study's trials in each state. ``failed`` leaves out trials that were put back into the queue."""

    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int

    @property
    def used(self) -> int:
        return self.complete + self.pruned + self.failed + self.running


def counts_of(trials: Sequence[FrozenTrial], forgiven: int) -> Counts:
    """The counts of some trials; ``forgiven`` is the study's."""
    states = [t.state for t in trials]
    return Counts(
        states.count(TrialState.COMPLETE),
        states.count(TrialState.PRUNED),
        len(failed_for_good(trials, forgiven)),
        states.count(TrialState.RUNNING),
        states.count(TrialState.WAITING),
    )


def failed_for_good(trials: Iterable[FrozenTrial], forgiven: int) -> list[FrozenTrial]:
    """The trials among these that failed and will not run again.

    Args:
        forgiven: failed trials below this number do not count.
    """
    failed = [t for t in trials if t.state == TrialState.FAIL and not TrialRecord.of(t).requeued]
    return [t for t in failed if t.number >= forgiven]

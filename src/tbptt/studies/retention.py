"""``tracking.keep``: which checkpoints and models a study keeps.

``all`` keeps those of every run. ``last`` leaves each run its last checkpoint, from which it can go on, and ``best``
leaves none, except for the best trial; with several objectives, for the trials on the Pareto front. Only trials that
have ended, complete or pruned, and are beaten lose any. What others may still need stays: runs of trials that run,
wait, failed or go on elsewhere, and all that runs/removing.py calls a run in use.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from tbptt.config.schema import TrackingConfig
from tbptt.runs.removing import CannotRemove, InUse, drop_checkpoints, runs_tagged, said
from tbptt.runs.tracking import Store
from tbptt.studies.counts import DONE
from tbptt.studies.ranking import best_trial, pareto_front
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.endings import failure_line
from tbptt.system.runtime import Interrupted
from tbptt.system.trouble import disk_trouble

log = logging.getLogger("tbptt")


@dataclass
class Cleaned:
    """What a clean-up did: the runs that lost checkpoints, the bytes that were freed, why some others kept theirs."""

    runs: int = 0
    freed: int = 0
    left: list[str] = field(default_factory=list)


def winners(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> list[FrozenTrial]:
    """The trials that keep all: the best one, or those on the Pareto front."""
    if len(objectives) > 1:
        return pareto_front(trials, objectives)
    best = best_trial(trials, *objectives)
    return [] if best is None else [best]


def beaten_runs(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> dict[int, list[str]]:
    """By trial, the runs that may lose checkpoints. There are none before a trial is complete: only that beats
    others."""
    keep = {t.number for t in winners(trials, objectives)}
    if not keep:
        return {}
    again = {TrialRecord.of(t).retry_of for t in trials}
    needed: set[str] = set()
    for t in trials:
        # A failed trial that was given out again counts as the one that goes on with it.
        if t.number in keep or (t.state not in DONE and t.number not in again):
            record = TrialRecord.of(t)
            needed |= {*record.run_ids, *record.resume}
    ended = (t for t in trials if t.state in DONE and t.number not in keep)
    return {t.number: [run for run in TrialRecord.of(t).run_ids if run not in needed] for t in ended}


class Retention:
    """Removes the checkpoints of one worker's trials as soon as they are beaten. A worker looks at its own trials only,
    so several workers do not do the same work; the sweep's end looks at all of them.

    Args:
        check: called while a server is away; may raise to stop.
    """

    def __init__(self, study: Study, tracking: TrackingConfig, check: Callable[[], None] = lambda: None):
        self.study, self.tracking, self.check = study, tracking, check
        self._own: set[int] = set()
        self._store: Store | None = None

    def ended(self, number: int) -> None:
        """Take note that a trial of this worker has ended, and remove what no trial of it needs any more. Errors are
        logged: the sweep's end tries again."""
        keep = self.tracking.keep
        if keep == "all":
            return
        self._own.add(number)
        try:
            beaten = beaten_runs(self.study.trials(), self.study.objectives)
            for lost in sorted(self._own & beaten.keys()):
                self._own.discard(lost)
                if beaten[lost]:
                    self._store = self._store or Store(self.tracking, check=self.check)
                    drop_all(self._store, beaten[lost], keep)
        except Interrupted:
            raise
        except Exception as error:
            log.warning(
                "trial %d: tracking.keep=%s: %s; the sweep's end tries again", number, keep, failure_line(error)
            )


def drop_all(store: Store, runs: Sequence[str], keep: str) -> Cleaned:
    """Remove the checkpoints of runs, but of none that is in use."""
    done = Cleaned()
    for run in runs:
        try:
            done.freed += store.retry(lambda run=run: drop_checkpoints(store, run, keep))  # type: ignore[misc]
            done.runs += 1
        except InUse as why:
            done.left.append(str(why))
        except CannotRemove as why:  # then no other can be removed either
            done.left.append(f"{why}; remove them on the server")
            return done
    return done


def clean(study: Study, store: Store, keep: str) -> Cleaned:
    """Remove the checkpoints of all beaten trials of a study."""
    if keep == "all":
        return Cleaned()
    names = said("best"), said(keep)
    todo = {
        each.run.id for each in runs_tagged(store, study.name) if not each.run.is_deleted and each.kept not in names
    }
    beaten = beaten_runs(study.trials(), study.objectives)
    runs = dict.fromkeys(run for its in beaten.values() for run in its if run in todo)
    return drop_all(store, list(runs), keep)


def clean_at_the_end(study: Study, store: Store, keep: str) -> None:
    """:func:`clean` at a sweep's end. What could not be removed is said once; it does not make the sweep fail."""
    try:
        done = clean(study, store, keep)
    except Exception as error:
        if isinstance(error, Interrupted) or disk_trouble(error):
            raise
        done = Cleaned(left=[failure_line(error)])
    if done.left:
        more = f" (and {len(done.left) - 1} more)" if len(done.left) > 1 else ""
        log.warning("tracking.keep=%s: some checkpoints stay: %s%s", keep, done.left[0], more)

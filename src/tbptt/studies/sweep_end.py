"""How a sweep ends: what it leaves in the stores, whatever ended it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from optuna.trial import TrialState

from tbptt.config.names import SWEEPS
from tbptt.runs import progress
from tbptt.runs.logged import show_models
from tbptt.runs.tracking import Run, Store
from tbptt.studies.chosen import judge_chosen
from tbptt.studies.parent_run import describe_end
from tbptt.studies.plan import Plan
from tbptt.studies.ranking import best_trial
from tbptt.studies.records import TrialRecord
from tbptt.studies.retention import clean_at_the_end
from tbptt.studies.study import Counts, Study
from tbptt.system.runtime import Interrupted, StopSignals
from tbptt.system.trouble import DiskTrouble, disk_trouble, fullest

# Writes a study's report and returns the files that its parent run keeps too.
Report = Callable[[Study, Store], Sequence[Path]]


HOW_TO_GO_ON = "give the same command again to go on"


@contextmanager
def settled(
    study: Study, plan: Plan, store: Store, parent: Run, signals: StopSignals, report: Report
) -> Iterator[None]:
    """Run the sweep within this context. At its end, whatever ended it, :func:`settle` runs.

    Raises:
        Interrupted: a signal stopped the sweep, or came during :func:`settle`.
        DiskTrouble: the disk stopped the sweep; the error says what to do.
    """
    try:
        try:
            yield
        except BaseException as error:
            settle(study, plan, store, parent, signals, report, error)
            raise
        if signum := settle(study, plan, store, parent, signals, report):
            raise Interrupted(signum, f"; {HOW_TO_GO_ON}")
    except Exception as error:
        if trouble := disk_trouble(error):
            where = trouble.where or fullest([SWEEPS, store.folder])
            raise DiskTrouble(trouble.number, where, f"; when that is mended, {HOW_TO_GO_ON}") from error
        raise


def settle(
    study: Study,
    plan: Plan,
    store: Store,
    parent: Run,
    signals: StopSignals,
    report: Report,
    error: BaseException | None = None,
) -> int | None:
    """Leave the stores true, whatever ended the sweep: no run of a dead process is RUNNING, the parent run has its own
    status.

    Args:
        report: writes the study's report.
        error: what ended the sweep before its trials were done.

    Returns:
        The signal that stopped the sweep, or that came during this call; None if none came.
    """
    study.reap(plan.settings.retries)
    if not store.is_local and any((store.folder / "pending").glob("*/*")):  # what dead workers could not send
        from tbptt.runs.journal import deliver_pending  # with torch, which takes seconds to import

        deliver_pending(store, plan.cfg.tracking.update_points)
    store.retry(lambda: _close_orphans(study, store, parent))
    counts = study.counts()
    if error is None and signals.signum is None and _is_done(study, counts):
        store.retry(lambda: judge_chosen(study, store, parent))
    progress.now("writing the report")
    for path in store.retry(lambda: report(study, store)):
        store.retry(partial(parent.keep, path))
    store.retry(lambda: _note_best(study, store, parent))
    store.retry(lambda: describe_end(parent, study))
    if error is None and signals.signum is None and plan.cfg.tracking.keep != "all":
        clean_at_the_end(study, store, plan.cfg.tracking.keep)  # after the report, which copies the best checkpoint
    # Read the signal only once: the parent's status and the command's must agree.
    signum = signals.signum if error is None or isinstance(error, Interrupted) else None
    reason = "interrupted" if signum is not None else "error" if error else None
    status = "KILLED" if signum is not None else "FAILED" if error or counts.failed else "FINISHED"
    if not counts.running:  # else another terminal still runs the study, and will close the parent
        store.retry(lambda: parent.finish(status, reason))
    if signum is None:
        signals.too_late()
    return signum


def _is_done(study: Study, counts: Counts) -> bool:
    """Whether a study has had all of its trials, so that its best one can be chosen. A placebo study chooses none."""
    total = study.record.n_trials
    if study.record.placebo_of:
        return False
    return not counts.running and not counts.waiting and (total is None or counts.used >= total)


def _note_best(study: Study, store: Store, parent: Run) -> None:
    """Give the parent run the best trial's values, so that MLflow's table can compare studies. The metrics ``best/*``
    are means over the trial's runs; the tag ``best.trial`` is its number."""

    best = best_trial(study.trials(), *study.objectives)
    if best is None:
        return
    ids = TrialRecord.of(best).run_ids
    if any(store.run(run_id) is None for run_id in ids):  # `mlflow gc` removed one
        return
    runs = [store.client.get_run(run_id).data.metrics for run_id in ids]
    names = [name for name in (runs[0] if runs else {}) if name.startswith("best/") and all(name in r for r in runs)]
    means = [(name, math.fsum(r[name] for r in runs) / len(runs), 0) for name in names]
    parent.log_points(means, int(time.time() * 1000))
    parent.set_tags({"best.trial": best.number})
    show_models(store, parent, ids)


def _close_orphans(study: Study, store: Store, parent: Run) -> None:
    """Mark runs that a killed process left RUNNING as KILLED, as the next start of the runs' store would do."""
    running = {str(t.number) for t in study.trials() if t.state == TrialState.RUNNING}
    for info in store.children(parent.id, "RUNNING"):
        if info.data.tags.get("trial.number") not in running:
            store.client.set_tag(info.info.run_id, "stop.reason", "interrupted")
            store.client.set_terminated(info.info.run_id, "KILLED")

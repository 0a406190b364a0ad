"""What ``tbptt studies list`` and ``status`` say of studies. Nothing is changed, not even trials whose process died."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from tbptt.config.names import SWEEPS
from tbptt.options.values import short_value, shown
from tbptt.runs.local_files import folder_of
from tbptt.runs.removing import is_run_id, size_of
from tbptt.studies import found
from tbptt.studies.living import workers_of
from tbptt.studies.ranking import best_trial, rerun_command, use_best_command
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Counts, Study, state_of
from tbptt.system.command import command
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path, without_password

HEAD = ("study", "state", "trials", "best", "last", "size")


@dataclass(frozen=True)
class Facts:
    """What is said of a study.

    Attributes:
        state: ``running``, ``finished`` or ``stopped``.
        workers: those that run a trial now, in words.
        bytes: of its folder and, with a store on this machine, of its runs' files.
    """

    study: Study
    trials: list[FrozenTrial]
    counts: Counts
    workers: list[str]
    state: str
    best: FrozenTrial | None
    bytes: int


def facts_of(study: Study, tracking_uri: str | None) -> Facts:
    """The facts of a study; ``tracking_uri`` is where its runs are, if the user said so."""
    trials, counts = study.trials(), study.counts()
    workers = workers_of(study.living())
    state = "running" if workers else "finished" if is_finished(study, counts) else "stopped"
    best = best_trial(trials, *study.objectives)
    return Facts(study, trials, counts, workers, state, best, _bytes_of(study, trials, tracking_uri))


def is_finished(study: Study, counts: Counts) -> bool:
    """Whether the study has had all of its trials."""
    total = study.record.n_trials
    return not counts.running and not counts.waiting and (total is None or counts.used >= total)


def _bytes_of(study: Study, trials: Sequence[FrozenTrial], tracking_uri: str | None) -> int:
    path, folder = None, found.folder_of(study.name)
    with suppress(ValueError):  # on a server, and the user does not name it
        path = sqlite_path(found.uri_of_runs(study, tracking_uri))
    count = size_of(folder) if folder else 0
    if path is not None:
        runs = {run for t in trials for run in TrialRecord.of(t).run_ids}
        runs |= {study.record.parent_run} if study.record.parent_run else set()
        count += sum(size_of(folder_of(path, run)) for run in runs if is_run_id(run))
    return count


def row_of(facts: Facts) -> tuple[str, ...]:
    """A study's cells below :data:`HEAD`."""
    state = facts.state
    if facts.workers:
        state += f", {len(facts.workers)} worker{'s' if len(facts.workers) > 1 else ''}"
    best = "" if facts.best is None else shown(facts.best.values[0])
    return facts.study.name, state, in_states(facts), best, _last(facts.trials), in_bytes(facts.bytes)


def in_states(facts: Facts) -> str:
    """How many trials are in which state, and how many there are to be."""
    states = [state_of(t) for t in facts.trials]
    counted = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(["complete", *states]))
    total = facts.study.record.n_trials
    return f"{counted}, of {total}" if total else counted


def _last(trials: Sequence[FrozenTrial]) -> str:
    """When a trial last began or ended, in local time."""
    times = [when for t in trials for when in (t.datetime_complete or t.datetime_start,) if when]
    return max(times).strftime("%Y-%m-%d %H:%M") if times else ""


def in_bytes(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def status_lines(facts: Facts) -> Iterator[str]:
    """All that is said of one study, a line each."""
    study, record, counts = facts.study, facts.study.record, facts.counts
    yield f"study {study.name}: {row_of(facts)[1]}"
    yield f"  trials: {in_states(facts)}"
    if record.n_trials:
        left = max(0, record.n_trials - counts.used)
        yield f"  budget: {record.n_trials} trials, {left} still to begin"
    for worker in facts.workers:
        yield f"  worker: {worker}"
    if facts.best is not None:
        values = "  ".join(f"{o} {shown(v)}" for o, v in zip(study.objectives, facts.best.values, strict=True))
        point = " ".join(f"{name}={short_value(value)}" for name, value in facts.best.params.items())
        yield f"  best: trial {facts.best.number}  {values}  {point}"
        yield f"  train it again: {rerun_command(study)}"
        yield f"  use it: {use_best_command(study)}"
    if record.ended_by:
        yield f"  ended by: {record.ended_by}"
    yield f"  last: {_last(facts.trials) or 'nothing has run yet'}"
    yield f"  size: {in_bytes(facts.bytes)}, without the databases"
    report, quoted = SWEEPS / study.name / "report.html", shlex.quote(study.name)
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.stat().st_mtime)) if report.exists() else ""
    yield f"  report: {report}, of {written}" if written else f"  report: {command('report')} {quoted} writes it"
    yield f"  runs: {without_password(hide(record.tracking_uri or '')) or 'none yet'}"
    if facts.state == "stopped":
        yield "  to go on: give the command that began it again"
    elif facts.state == "finished":
        yield "  to go on: give the command that began it again, with a larger study.n_trials if it searches"

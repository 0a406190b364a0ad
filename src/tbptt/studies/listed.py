"""What ``tbptt studies`` and ``tbptt studies status`` say of studies. Nothing is changed, not even trials whose process
died."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState
from rich.cells import cell_len

from tbptt.compat import study_id
from tbptt.config.names import SWEEPS
from tbptt.options.values import short_value, shown
from tbptt.runs.local_files import folder_of, is_run_id, size_of
from tbptt.runs.progress import in_the_middle
from tbptt.studies import found, next_steps
from tbptt.studies.counts import Counts, counts_of
from tbptt.studies.living import parted, workers_of
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.ranking import best_trial, rerun_command, use_best_command
from tbptt.studies.reading import read_trials
from tbptt.studies.records import StudyRecord, TrialRecord
from tbptt.studies.study import Study, state_of
from tbptt.studies.sweep_progress import how_far
from tbptt.system.command import command
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path, without_password

HEAD = ("study", "state", "trials", "best", "workers", "last sign of life", "size")
SHORTEST = 8  # letters of a name that is shortened


@dataclass(frozen=True)
class Facts:
    """What is said of a study.

    Attributes:
        state: ``running``, ``finished`` or ``stopped``.
        workers: those that run a trial now, in words, each with its trials.
        seen: the last sign of life, in seconds since 1970: a trial began or ended, or its worker noted how far it is,
            or was heard by a server. None if nothing has run yet.
        bytes: of its folder and, with a store on this machine, of its runs' files.
    """

    study: Study
    record: StudyRecord
    trials: list[FrozenTrial]
    counts: Counts
    workers: Mapping[str, Sequence[FrozenTrial]]
    state: str
    best: FrozenTrial | None
    seen: float | None
    bytes: int


def facts_of(study: Study, tracking_uri: str | None) -> Facts:
    """The facts of a study; ``tracking_uri`` is where its runs are, if the user said so."""
    record, number = study.record, study_id(study.optuna)
    every = read_trials(study.storage, number, curves=False)
    trials = [t for t in every if TrialRecord.of(t).same_as is None]  # a copy of an earlier trial was not run
    counts = counts_of(trials, record.forgiven)
    workers: dict[str, list[FrozenTrial]] = {}
    for t in parted(trials, study.storage, number, study.path)[0]:
        (worker,) = workers_of([t])
        workers.setdefault(worker, []).append(t)
    state = "running" if workers else "finished" if is_finished(record, counts) else "stopped"
    best = best_trial(trials, *study.objectives)
    size = _bytes_of(study, record, trials, tracking_uri)
    return Facts(study, record, trials, counts, workers, state, best, _seen(study, trials), size)


def newest_first(facts: Sequence[Facts]) -> list[Facts]:
    """Running studies first, each kind by its last sign of life, the newest first."""
    return sorted(facts, key=lambda f: (not f.workers, -(f.seen or 0), f.study.name))


def is_finished(record: StudyRecord, counts: Counts) -> bool:
    """Whether a study has had all of its trials."""
    total = record.n_trials
    return not counts.running and not counts.waiting and (total is None or counts.used >= total)


def _seen(study: Study, trials: Sequence[FrozenTrial]) -> float | None:
    changes = [when for t in trials if (when := t.datetime_complete or t.datetime_start)]
    signs = [max(changes).timestamp()] if changes else []
    running = [t for t in trials if t.state == TrialState.RUNNING]
    signs += [at.at for t in running if (at := TrialRecord.of(t).progress) and at.at is not None]
    if running and isinstance(study.storage, ServerStorage):
        silence = study.storage.silence(study_id(study.optuna))
        signs += [] if silence is None else [time.time() - silence]
    return max(signs, default=None)


def _bytes_of(study: Study, record: StudyRecord, trials: Sequence[FrozenTrial], tracking_uri: str | None) -> int:
    path, folder = None, found.folder_of(study.name)
    with suppress(ValueError):  # on a server, and the user does not name it
        path = sqlite_path(found.uri_of_runs(study, tracking_uri))
    count = size_of(folder) if folder else 0
    if path is not None:
        runs = {run for t in trials for run in TrialRecord.of(t).run_ids}
        runs |= {record.parent_run} if record.parent_run else set()
        count += sum(size_of(folder_of(path, run)) for run in runs if is_run_id(run))
    return count


def row_of(facts: Facts, now: float) -> tuple[str, ...]:
    """A study's cells below :data:`HEAD`, at a time in seconds since 1970."""
    counts, total = facts.counts, facts.record.n_trials
    done = f"{counts.complete + counts.pruned}{f'/{total}' if total else ''}"
    done += f", {counts.failed} failed" if counts.failed else ""
    best = "" if facts.best is None else shown(facts.best.values[0])
    workers = str(len(facts.workers)) if facts.workers else ""
    seen = "" if facts.seen is None else ago(facts.seen, now)
    return facts.study.name, facts.state, done, best, workers, seen, in_bytes(facts.bytes)


def in_states(facts: Facts) -> str:
    """How many trials are in which state, and how many there are to be."""
    states = [state_of(t) for t in facts.trials]
    counted = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(["complete", *states]))
    total = facts.record.n_trials
    return f"{counted}, of {total}" if total else counted


def ago(when: float, now: float) -> str:
    """How long ago a moment was, or the local date and time if that is more than a day. Both are in seconds since
    1970. Clocks of several machines differ: a moment less than a minute ahead is now."""
    age = now - when
    if not -60 < age < 24 * 3600:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
    if age < 60:
        return f"{max(age, 0):.0f} s ago"
    return f"{age // 60:.0f} min ago" if age < 3600 else f"{age // 3600:.0f} h ago"


def in_bytes(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def table(rows: Sequence[Sequence[str]], width: int | None = None) -> Iterator[str]:
    """Rows as lines, each column as wide as its widest cell.

    Args:
        width: letters of the terminal that shows them. Where the rows are wider, the first cells lose their middle.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        over = sum(widths) + 2 * (len(widths) - 1) - width
        widths[0] = max(widths[0] - max(over, 0), min(SHORTEST, widths[0]))
    for first, *others in rows:
        cells = [in_the_middle(first, widths[0]), *others]
        padded = (cell + " " * (wide - cell_len(cell)) for cell, wide in zip(cells, widths, strict=True))
        yield "  ".join(padded).rstrip()


def status_lines(facts: Facts, now: float) -> Iterator[str]:
    """All that is said of one study, a line each, at a time in seconds since 1970."""
    study, record, counts = facts.study, facts.record, facts.counts
    said = dict(zip(HEAD, row_of(facts, now), strict=True))
    workers = f", {said['workers']} worker{'s' if len(facts.workers) > 1 else ''}" if facts.workers else ""
    yield f"study {study.name}: {facts.state}{workers}"
    yield f"  trials: {in_states(facts)}"
    if record.n_trials:
        left = max(0, record.n_trials - counts.used)
        yield f"  budget: {record.n_trials} trials, {left} still to begin"
    yield from _worker_lines(facts, now)
    yield f"  last sign of life: {said['last sign of life'] or 'nothing has run yet'}"
    if facts.best is not None:
        values = "  ".join(f"{o} {shown(v)}" for o, v in zip(study.objectives, facts.best.values, strict=True))
        point = " ".join(f"{name}={short_value(value)}" for name, value in facts.best.params.items())
        yield f"  best: trial {facts.best.number}  {values}  {point}"
        yield f"  train it again: {rerun_command(study)}"
        yield f"  use it: {use_best_command(study)}"
    if record.ended_by:
        yield f"  ended by: {record.ended_by}"
    yield f"  size: {said['size']}, without the databases"
    report, quoted = SWEEPS / study.name / "report.html", shlex.quote(study.name)
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.stat().st_mtime)) if report.exists() else ""
    yield f"  report: {report}, of {written}" if written else f"  report: {command('report')} {quoted} writes it"
    yield f"  runs: {without_password(hide(record.tracking_uri or '')) or 'none yet'}"
    if facts.state != "running":
        yield from _to_go_on(facts)


def _worker_lines(facts: Facts, now: float) -> Iterator[str]:
    for worker, trials in facts.workers.items():
        yield f"  worker: {worker}"
        for t in trials:
            at = TrialRecord.of(t).progress
            noted = f"  (noted {ago(at.at, now)})" if at and at.at is not None else ""
            yield f"    trial {t.number}: {how_far(t)}{noted}"


def _to_go_on(facts: Facts) -> Iterator[str]:
    more = ", with a larger study.n_trials if it searches" if facts.state == "finished" else ""
    known = next_steps.study_again(facts.record)
    yield f"  to go on: give the command that began it again{more}" + (":" if known else "")
    if known:
        yield f"    {known}"

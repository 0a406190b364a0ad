"""The curves of a study's runs as the page's scripts draw them: plain JSON, rounded, and bounded in size."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial

from tbptt.options.metrics import CHUNKS, LOSSES, METRICS, sign
from tbptt.options.values import shortened, text_of
from tbptt.reports.frames import runs_of, seed_and_fold
from tbptt.reports.tables import params_of
from tbptt.reports.thinning import best_and_even, said
from tbptt.studies.ranking import best_first
from tbptt.studies.records import TrialRecord, is_number
from tbptt.studies.study import Study, state_of
from tbptt.system.endings import failure_line
from tbptt.system.runtime import Interrupted

if TYPE_CHECKING:
    from tbptt.runs.curves import Found

log = logging.getLogger("tbptt")

MOST_POINTS = 200  # of a curve: a page has about a thousand pixels for it
MOST_NUMBERS = 1_500_000  # in all: about 5 MB of the page
LONGEST = 200  # letters of a value
ALSO = (CHUNKS, "grad/norm_mean", "grad/norm_max", "lr")  # drawn here, though they are no curve of a trial's record
DIGITS = 5

Run = dict[str, Any]  # seed, fold, curves by metric, epochs if it is thinned


def metrics_of(study: Study) -> list[str]:
    """The metrics whose curves the page offers: objectives, then those that are drawn or that only this task has, then
    what training did. The order is also that in which they are kept if there are too many numbers."""
    task = study.record.config.get("task.name")
    of_task = [m.name for m in METRICS.values() if (m.drawn or m.task) and (task is None or m.task in (None, task))]
    return list(dict.fromkeys([*study.objectives, *of_task, *ALSO]))


def curves(
    study: Study, trials: Sequence[FrozenTrial], store: Any | None, seconds: float | None, found: "Found | None" = None
) -> dict[str, Any]:
    """What the page's scripts draw of a study.

    Args:
        store: where its runs are; None for what the trials themselves keep: the curves of their first run.
        seconds: how long to wait for a server; a database is not limited.
        found: what was read of the store already; then it is not asked again.

    Returns:
        ``metrics`` (each with ``name``, ``label``, ``is_loss``), ``keys`` that are searched, the leading ``objective``
        and whether ``small_is_good``, the loss of predicting the ``mean`` (None if it differs), a ``note`` on what is
        not drawn, and ``trials``, the best first, as :func:`trials_of` gives them.
    """
    drawn = drawn_of(study, trials)
    if found is None:
        found = read(study, drawn, store, seconds)
    told = [t for t in trials_of(study, drawn, found) if t["runs"]]
    there = head(study, trials, drawn)
    note = there["note"] + _said_of_missing(told, drawn, store, found) + bounded(told, study)
    if any("epochs" in run for t in told for run in t["runs"]):
        note += f" Long curves are thinned to {MOST_POINTS} epochs."
    return {**there, "note": note.strip(), "trials": told}


def head(study: Study, trials: Sequence[FrozenTrial], drawn: Sequence[FrozenTrial]) -> dict[str, Any]:
    """What :func:`curves` gives but for the trials."""
    known = {m.name: m.label for m in METRICS.values()}
    return {
        "metrics": [{"name": n, "label": known.get(n, n), "is_loss": n in LOSSES} for n in metrics_of(study)],
        "keys": params_of(trials) or list(study.record.space),
        "objective": study.objectives[0],
        "small_is_good": sign(study.objectives[0]) == 1,
        "mean": _baseline(drawn),
        "note": said(drawn, _begun(study, trials), "trials"),
    }


def drawn_of(study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials whose curves are drawn, the best first."""
    return best_and_even(_begun(study, trials))


def _begun(study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in best_first(trials, *study.objectives) if t.datetime_start]


def trials_of(study: Study, trials: Sequence[FrozenTrial], found: "Found | None") -> list[dict[str, Any]]:
    """Trials with their curves, in the order given: ``number``, ``state``, ``point`` (values as they are typed) and
    ``runs``, each with ``seed`` and ``fold`` (None if not known, or without folds), ``curves`` by metric (a number or
    None for each epoch, with five digits) and, if it is thinned, its ``epochs`` (from 1).

    A trial of which ``found`` has no run has the curves that it keeps itself, those of its first run; while it runs,
    what it has reported of its objective.
    """
    names, record = metrics_of(study), study.record  # each look at the record asks the storage
    runs: dict[int, list[Run]] = {}
    if found is not None:
        of_run, own = runs_of(trials), next(iter(record.own_seed), None)
        told = dict(_runs(found, names))
        for run, place in of_run.items():
            if run in told:
                seed, fold = seed_and_fold(found.params.get(run, {}), own)
                runs.setdefault(place, []).append({"seed": seed, "fold": fold, **told[run]})
    first_seed = next(iter([*record.seeds, *record.own_seed]), None)
    return [
        {
            "number": t.number,
            "state": state_of(t),
            "point": {key: shortened(text_of(value), LONGEST) for key, value in t.params.items()},
            "runs": runs.get(i) or _kept(t, names, study.objectives[0], first_seed),
        }
        for i, t in enumerate(trials)
    ]


# --- from the store -------------------------------------------------------------------------------------------------


def read(study: Study, trials: Sequence[FrozenTrial], store: Any | None, seconds: float | None) -> "Found | None":
    """The curves of trials. None without a store, or if it cannot be read: a warning says why."""
    runs = list(runs_of(trials))
    if store is None or not runs:
        return None
    from tbptt.runs.curves import curves_of

    try:
        return curves_of(store, runs, metrics_of(study), seconds)
    except Interrupted:
        raise
    except Exception as error:
        log.warning("study %s: the curves of its runs: %s", study.name, failure_line(error))
        return None


def _runs(found: "Found", names: Sequence[str]) -> Iterator[tuple[str, Run]]:
    """Each run that has points, with its curves."""
    points = found.points[found.points["metric"].isin(names)]
    run, metric = (points[name].cat.codes.to_numpy() for name in ("run", "metric"))
    step, value = points["step"].to_numpy(), points["value"].to_numpy()
    known = {name: list(points[name].cat.categories) for name in ("run", "metric")}
    order = np.lexsort((step, metric, run))
    run, metric, step, value = run[order], metric[order], step[order], value[order]
    ends = np.flatnonzero(np.diff(run)) + 1
    for a, b in zip([0, *ends], [*ends, len(run)], strict=True):
        if a < b:
            of = {
                known["metric"][code]: (step[a:b][here], value[a:b][here])
                for code in np.unique(metric[a:b])
                for here in [metric[a:b] == code]
            }
            yield known["run"][run[a]], _run({n: of[n] for n in names if n in of})


def _run(of: Mapping[str, tuple[Any, Any]]) -> Run:
    """A run's curves, from the steps (from 0) and the values of each metric."""
    length = 1 + max((int(steps.max()) for steps, _ in of.values() if len(steps)), default=-1)
    epochs = kept_epochs(length)
    dense = {}
    for name, (steps, values) in of.items():
        curve = np.full(length, np.nan)
        curve[steps] = values
        dense[name] = [rounded(v) for v in (curve if len(epochs) == length else _newest(curve, epochs))]
    return {"curves": dense, **({"epochs": epochs.tolist()} if len(epochs) < length else {})}


def kept_epochs(length: int) -> Any:
    """The epochs (from 1) of a curve that are drawn: every k-th from the first on, and the last."""
    k = max(1, -(-(length - 1) // (MOST_POINTS - 1)))
    return np.unique(np.append(np.arange(1, length + 1, k), length)) if length else np.arange(0)


def _newest(curve: Any, epochs: Any) -> Any:
    """A curve at some epochs. A metric that is measured more rarely has its newest value since the last of them, else
    all of its values might fall between two."""
    last = np.maximum.accumulate(np.where(np.isnan(curve), -1, np.arange(len(curve))))[epochs - 1]
    since = np.append(0, epochs[:-1])
    return np.where(last >= since, curve[last], np.nan)


def rounded(value: Any) -> float | None:
    """A number with five digits; None if it is not finite: MLflow's infinity, the largest float, rounds to it."""
    short = float(f"{value:.{DIGITS}g}")
    return short if math.isfinite(short) else None


# --- what trials keep, and what is said -----------------------------------------------------------------------------


def _kept(trial: FrozenTrial, names: Sequence[str], objective: str, seed: int | None) -> list[Run]:
    """The first run of a trial, as far as the trial keeps it."""
    record = TrialRecord.of(trial)
    of = {name: record.curve(name) for name in names}
    if record.curves is None and trial.intermediate_values:
        reported = trial.intermediate_values
        of = {objective: [reported.get(i) for i in range(max(reported) + 1)]}
    numbers = {
        name: (np.arange(len(curve)), np.array([v if is_number(v) else math.nan for v in curve], float))
        for name, curve in of.items()
        if any(is_number(v) and math.isfinite(v) for v in curve)
    }
    if not numbers:
        return []
    return [{"seed": seed, "fold": 1 if record.folds > 1 else None, **_run(numbers)}]


def _said_of_missing(
    told: Sequence[Mapping[str, Any]], trials: Sequence[FrozenTrial], store: Any | None, found: "Found | None"
) -> str:
    """A sentence on trials of which only the first run is there, though they had several."""
    if found is not None and not found.missing:
        return ""
    had = {t.number: len(TrialRecord.of(t).run_ids) for t in trials}
    short = [t for t in told if len(t["runs"]) < had[t["number"]]]
    if not short:
        return ""
    why = "The store did not give all runs" if store is not None else "Without the store of the runs"
    of = "all trials" if len(short) == len(told) else f"{len(short)} of {len(told)} trials"
    return f" {why}: drawn of {of} is what the study keeps itself, or the runs that came."


def bounded(told: Sequence[dict[str, Any]], study: Study) -> str:
    """Keep the numbers below ``MOST_NUMBERS``, and say what was left out: runs other than the first of the worse
    trials, then metrics from the last on, but never an objective."""
    sizes = [[sum(map(len, run["curves"].values())) for run in t["runs"]] for t in told]
    total = sum(map(sum, sizes))
    cut = len(told)
    while total > MOST_NUMBERS and cut > 1:
        cut -= 1
        total -= sum(sizes[cut][1:])
        del told[cut]["runs"][1:]
    note = f" Of the trials behind the best {cut}, the first run is drawn." if cut < len(told) else ""
    by_metric = Counter[str]()
    for curves in (run["curves"] for t in told for run in t["runs"]):
        by_metric.update({name: len(curve) for name, curve in curves.items()})
    left = []
    for name in reversed(metrics_of(study)):
        if total > MOST_NUMBERS and name not in study.objectives and by_metric[name]:
            total -= by_metric[name]
            left.append(name)
            for t in told:
                for run in t["runs"]:
                    run["curves"].pop(name, None)
    return note + (f" Left out, as there are too many numbers: {', '.join(left)}." if left else "")


def _baseline(trials: Sequence[FrozenTrial]) -> float | None:
    """The loss of predicting the mean, if it is the same for all trials. It is not if the data are searched too."""
    means = {mean for t in trials if (mean := TrialRecord.of(t).baseline) is not None}
    return means.pop() if len(means) == 1 and all(map(math.isfinite, means)) else None

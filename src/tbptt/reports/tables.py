"""A study's tables, ``trials.csv`` and ``explained.csv``."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from optuna.trial import FrozenTrial

from tbptt.options.metrics import METRICS
from tbptt.options.values import text_of
from tbptt.reports.explained import explained
from tbptt.studies.ranking import epochs_run
from tbptt.studies.records import ChosenTrial, TrialRecord
from tbptt.system.files import replaced

SAID_BETTER = {"val/mae": "val/skill", "val/right_side": "val/value", "val/turnover": "val/value"}
NOBODY: Mapping[int, bool] = MappingProxyType({})
MISSING = object()  # in place of the value of a key that a trial does not have


def params_of(trials: Sequence[FrozenTrial]) -> list[str]:
    """The keys that were searched, in the order in which trials have them."""
    return list(dict.fromkeys(name for t in trials for name in t.params))


def metrics_of(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> list[str]:
    """The metrics of trials that are no objectives, in the order of the table of metrics."""
    found = {name for t in trials for name in TrialRecord.of(t).metrics}
    ordered = [*(name for name in METRICS if name in found), *sorted(found - set(METRICS))]
    return [name for name in ordered if name not in objectives]


def shown_metrics(metrics: Sequence[str], objectives: Sequence[str]) -> list[str]:
    """The metrics for which the page's table has room. A metric is left out if another column says the same better."""
    there = {*metrics, *objectives}
    return [name for name in metrics if SAID_BETTER.get(name) not in there]


def rows_of(
    trials: Sequence[FrozenTrial],
    objectives: Sequence[str],
    chosen: Sequence[ChosenTrial],
    in_confidence_set: Mapping[int, bool] = NOBODY,
) -> tuple[list[str], list[list[Any]]]:
    """The columns of ``trials.csv`` and a row for each trial, in plain types; None where a trial has no value, and
    MISSING if it does not have the key. Epochs count from 1.

    For a study of another study's best points, two columns give the trial that had the point there, and its value. For
    a study in folds, a column gives the objective of each run, all folds of the first seed first. ``in_confidence_set``
    is true if a trial cannot be told from the best on val, and None if it was not compared.
    """
    params, metrics = params_of(trials), metrics_of(trials, objectives)
    before = ("chosen_trial", "chosen_value") if chosen else ()
    in_folds = any(TrialRecord.of(t).folds > 1 for t in trials)
    by_fold = ("by_fold",) if in_folds else ()
    also = (*before, "stop_reason", "best_epoch", "epochs_run", "by_seed", *by_fold, "seconds", "runs", "reason")
    rows = []
    for t in trials:
        record = TrialRecord.of(t)
        there = next(([c["trial"], c["value"]] for c in chosen if c["point"] == t.params), [None, None])
        rows.append(
            [
                t.number,
                t.state.name,
                *(t.values or [None] * len(objectives)),
                *(record.metrics.get(name) for name in metrics),
                *(t.params.get(name, MISSING) for name in params),
                *(there if chosen else ()),
                record.stop_reason,
                [e if e is None else e + 1 for e in record.best_epochs],
                epochs_run(t),
                record.by_seed(0),
                *([record.by_run(0)] if in_folds else ()),
                t.duration.total_seconds() if t.duration else None,
                list(record.run_ids),
                record.reason,
                in_confidence_set.get(t.number),
            ]
        )
    return ["trial", "state", *objectives, *metrics, *params, *also, "in_confidence_set"], rows


def write_table(
    path: Path,
    trials: Sequence[FrozenTrial],
    objectives: list[str],
    chosen: Sequence[ChosenTrial],
    in_confidence_set: Mapping[int, bool] = NOBODY,
) -> None:
    """Write ``trials.csv``: what :func:`rows_of` gives, numbers in full, values as they are typed on a command line,
    empty if a trial has none."""
    columns, rows = rows_of(trials, objectives, chosen, in_confidence_set)
    params = set(params_of(trials))
    with replaced(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(columns)
        for row in rows:
            out.writerow([_cell(name, value, name in params) for name, value in zip(columns, row, strict=True)])


def _cell(column: str, value: Any, is_param: bool) -> Any:
    if value is MISSING:
        return ""
    if is_param:
        return text_of(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    if column == "seconds" and value is not None:
        return f"{value:.3f}"
    return {None: "", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else value


def write_explained(path: Path, trials: Sequence[FrozenTrial], objectives: list[str]) -> None:
    """Write ``explained.csv``: how much of the differences in each objective each key explains, as in the report's
    figure."""
    with replaced(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["objective", "key", "trials", "share", "low", "high", "chance"])
        for i, objective in enumerate(objectives):
            for e in explained(trials, i, objective):
                numbers = ["" if v is None else f"{v:.4f}" for v in (e.share, e.low, e.high, e.chance)]
                out.writerow([objective, e.key, e.trials, *numbers])

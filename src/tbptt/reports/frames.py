"""A study's trials and curves as pandas tables, and its curves as ``curves.csv``."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from optuna.trial import FrozenTrial

from tbptt.options.metrics import METRICS
from tbptt.options.similar import did_you_mean
from tbptt.options.values import text_of
from tbptt.reports.tables import MISSING, params_of, rows_of
from tbptt.studies.found import opened as open_study
from tbptt.studies.ranking import best_first
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.files import replaced

if TYPE_CHECKING:
    from tbptt.runs.curves import Found
    from tbptt.runs.tracking import Store

log = logging.getLogger("tbptt")

SECONDS = 20.0  # that a report waits for a server's curves
MOST_ROWS = 250_000  # of curves.csv, one for each epoch of each run: about 90 MB
WHOLE = ("trial", "epochs_run")
TEXTS = ("state", "stop_reason", "reason")
LISTS = ("best_epoch", "by_seed", "by_fold", "runs")


# --- trials ---------------------------------------------------------------------------------------------------------


def trials(study: str | Path, *, tracking_uri: str | None = None, storage: str | None = None) -> pd.DataFrame:
    """The trials of a study: the table that its folder has as ``trials.csv``.

    Args:
        study: its name, or its folder, such as ``sweeps/NAME``.
        tracking_uri: the store of its runs; the default is the command's.
        storage: where the study is kept; the default is the command's.

    Returns:
        A row for each trial, in the order of their numbers, with the columns of ``trials.csv``. Objectives, metrics and
        ``seconds`` are floats; a searched key is a number if all of its values are, and otherwise text as it is typed.
        ``best_epoch`` (from 1), ``by_seed``, ``by_fold`` and ``runs`` are lists with an item for each run, or seed.
        ``in_confidence_set`` is a nullable boolean.

    Raises:
        ValueError: there is no such study or store.
    """
    from tbptt.reports.evidence import tried

    opened, store = open_study(study, tracking_uri, storage)
    found = opened.read()
    columns, rows = rows_of(found, opened.objectives, opened.record.chosen, tried(opened, found, store).inside)
    opened.close()
    params = params_of(found)
    table = {
        name: _typed(name, list(values), name in params)
        for name, values in zip(columns, zip(*rows, strict=True) if rows else ([],) * len(columns), strict=True)
    }
    return pd.DataFrame(table)


def _typed(column: str, values: list[Any], is_param: bool) -> "pd.Series[Any]":
    """A column with a type that fits what it is about."""
    if is_param:
        return _param(values)
    if column in LISTS:
        return pd.Series(values, dtype=object)
    if column in TEXTS:
        return pd.Series(values, dtype="str")
    kinds = {"chosen_trial": "Int64", "in_confidence_set": "boolean"} | dict.fromkeys(WHOLE, "int64")
    return pd.Series(values, dtype=kinds.get(column, "float64"))


def _param(values: Sequence[Any]) -> "pd.Series[Any]":
    """The values of a searched key: numbers if all are, null and a key that a trial does not have being missing; else
    texts as they are typed."""
    there = [value for value in values if value is not MISSING and value is not None]
    if there and all(isinstance(value, int | float) and not isinstance(value, bool) for value in there):
        is_whole = len(there) == len(values) and all(isinstance(value, int) for value in there)
        numbers = [None if value is MISSING else value for value in values]
        return pd.Series(numbers, dtype="int64" if is_whole else "float64")
    return pd.Series([None if value is MISSING else text_of(value) for value in values], dtype="str")


# --- curves ---------------------------------------------------------------------------------------------------------


def curves(
    study: str | Path,
    *,
    metric: str | Sequence[str] | None = None,
    tracking_uri: str | None = None,
    storage: str | None = None,
) -> pd.DataFrame:
    """The curves of all runs of a study: of all trials, complete or not, with all seeds and folds.

    Args:
        study: its name, or its folder, such as ``sweeps/NAME``.
        metric: a metric or several; None for all that are measured by epoch. Those by update (``train/chunk_loss``,
            ``grad/norm``) come only if they are asked for: of them MLflow has ``tracking.update_points`` an epoch.
        tracking_uri: the store of its runs; the default is the command's.
        storage: where the study is kept; the default is the command's.

    Returns:
        A row for each point, sorted by trial, run, metric and epoch: ``study``, ``trial``, ``run`` (MLflow's id),
        ``seed``, ``fold`` (from 1; missing without folds), ``metric``, ``epoch`` (from 1; with a metric by update it is
        ``step``, which counts updates from 0), ``value``, ``state`` (Optuna's, of the trial), then the
        searched keys, each with the name and type that :func:`trials` gives it. Numbers are as MLflow has them.

    Raises:
        ValueError: there is no such study or store, or no run of the study has such a metric.
    """
    from tbptt.runs.curves import BY_UPDATE, curves_of

    opened, store = open_study(study, tracking_uri, storage)
    found, record = opened.read(), opened.record
    opened.close()
    names = [metric] if isinstance(metric, str) else metric
    runs = runs_of(found)
    read = curves_of(store, list(runs), names)
    if read.missing:
        log.warning("study %s: the curves of %d of %d runs did not come", opened.name, len(read.missing), len(runs))
    _see_that_they_are_there(store, list(runs), names or (), read)
    table = _joined(opened.name, found, runs, read, list(record.own_seed))
    return table if any(name in BY_UPDATE for name in names or ()) else _by_epoch(table)


def _see_that_they_are_there(store: "Store", runs: list[str], names: Sequence[str], read: "Found") -> None:
    """Raise ValueError if a metric that was asked for is one that no run of the study has."""
    from tbptt.runs.curves import names_of

    absent = [name for name in names if name not in set(read.points["metric"])]
    if absent and (known := names_of(store, runs)):
        hint = did_you_mean(absent[0], known)
        raise ValueError(f"metric: got {absent[0]!r}; takes one that the study's runs have: {', '.join(known)}{hint}")


def _by_epoch(table: pd.DataFrame) -> pd.DataFrame:
    """A table with epochs from 1, as a person counts them, in place of MLflow's steps from 0."""
    return table.assign(step=table["step"] + 1).rename(columns={"step": "epoch"})


def runs_of(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """The runs of trials, in order, each with its trial's place among them. A run that a later trial went on with is
    that trial's."""
    last = {run: i for i, t in enumerate(trials) for run in TrialRecord.of(t).run_ids}
    return {run: i for i, t in enumerate(trials) for run in TrialRecord.of(t).run_ids if last[run] == i}


def _joined(
    name: str, trials: Sequence[FrozenTrial], runs: dict[str, int], read: "Found", own_seed: Sequence[int]
) -> pd.DataFrame:
    """The points, with what their runs are beside them. The step is called ``step``."""
    own = own_seed[0] if own_seed else None
    told = [read.params.get(run, {}) for run in runs]
    of_run = pd.DataFrame(
        {
            "study": pd.Categorical([name] * len(runs), categories=[name]),
            "trial": pd.Series([trials[i].number for i in runs.values()], dtype="int64"),
            "run": pd.Categorical(list(runs), categories=list(runs)),
            "seed": pd.Series([seed_and_fold(params, own)[0] for params in told], dtype="Int64"),
            "fold": pd.Series([seed_and_fold(params, own)[1] for params in told], dtype="Int64"),
            "state": pd.Categorical([trials[i].state.name for i in runs.values()]),
        }
    )
    metrics = read.points["metric"].cat.categories
    ordered = sorted(metrics, key=lambda n: (list(METRICS).index(n) if n in METRICS else len(METRICS), n))
    its = read.points[read.points["run"].isin(list(runs))]
    points = its.assign(run=its["run"].cat.set_categories(list(runs)), metric=its["metric"].cat.set_categories(ordered))
    points = points.sort_values(["run", "metric", "step"], kind="stable", ignore_index=True)
    at = points["run"].cat.codes.to_numpy()
    table = of_run[["study", "trial", "run", "seed", "fold"]].take(at).reset_index(drop=True)
    table = table.assign(metric=points["metric"], step=points["step"], value=points["value"])
    table["state"] = of_run["state"].take(at).array
    for key in params_of(trials):
        values = _param([trials[i].params.get(key, MISSING) for i in runs.values()])
        table[key] = (values.astype("category") if values.dtype == "str" else values).take(at).array
    return table


def seed_and_fold(params: Mapping[str, str], own_seed: int | None) -> tuple[int | None, int | None]:
    """The seed and the fold (from 1) of a run, from its params. None if not known, or without folds."""
    return _whole(params.get("seed"), own_seed), _whole(params.get("data.fold", "").split("/")[0])


def _whole(text: str | None, otherwise: int | None = None) -> int | None:
    return int(text) if text and text.isdecimal() else otherwise


# --- curves.csv -----------------------------------------------------------------------------------------------------


def write_curves(
    path: Path, study: Study, trials: Sequence[FrozenTrial], store: "Store", also: Sequence[FrozenTrial] = ()
) -> "Found":
    """Write ``curves.csv``: what :func:`curves` gives of the metrics by epoch, with a column for each metric.

    So a study of 1,000 trials, 50 epochs and 13 metrics has 50,000 rows (18 MB) and not 650,000 (88 MB), and no number
    is rounded. Of a study that is too large only the best trials are written, and of a server's runs only those that
    come in time: a warning says so. If none comes, an earlier file stays.

    Args:
        also: trials whose curves are read as well, in the same query, though they may not be in the file.

    Returns:
        What was read.
    """
    from tbptt.runs.curves import curves_of

    written = _that_fit(study, trials)
    runs = runs_of([t for t in trials if t.number in written])
    read_too = {t.number for t in also} | written
    read = curves_of(store, list(runs_of([t for t in trials if t.number in read_too])), None, SECONDS)
    missing = set(read.missing) & set(runs)
    if missing:
        log.warning(
            "study %s: the store did not give the curves of %d of %d runs in time; curves.csv lacks them",
            study.name,
            len(missing),
            len(runs),
        )
    if not runs or len(missing) < len(runs):
        some = [t for t in trials if t.number in written]
        table = wide(_by_epoch(_joined(study.name, some, runs, read, list(study.record.own_seed))))
        with replaced(path) as beside:
            table.to_csv(beside, index=False, lineterminator="\n")
    return read


def _that_fit(study: Study, trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of the trials that the file has room for, the best ones; a warning says how many if not all."""
    rows = 0
    chosen: set[int] = set()
    for t in best_first(trials, *study.objectives):
        record = TrialRecord.of(t)
        rows += len(record.run_ids) * max((len(c) for c in (record.curves or {}).values()), default=1)
        if rows > MOST_ROWS:
            log.warning("study %s: curves.csv has its best %d trials only", study.name, len(chosen))
            break
        chosen.add(t.number)
    return chosen


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """What :func:`curves` gives, with a row for each run and epoch and a column for each metric, which is missing where
    it was not measured."""
    values = table.pivot(index=["run", "epoch"], columns="metric", values="value")
    values.columns = values.columns.astype(str)
    of_run = table.drop(columns=["metric", "epoch", "value"]).drop_duplicates("run").set_index("run")
    keys = [name for name in of_run.columns if name not in ("study", "trial", "seed", "fold", "state")]
    beside = of_run.loc[values.index.get_level_values("run")].reset_index()
    flat = values.reset_index().drop(columns="run")
    parts = [beside[["study", "trial", "run", "seed", "fold"]], flat[["epoch"]], beside[["state"]]]
    return pd.concat([*parts, flat.drop(columns="epoch"), beside[keys]], axis=1)

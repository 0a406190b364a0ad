"""Predictions of a trained network as a table: tbptt.predict, and what predict.py shows."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.borders import in_microseconds
from tbptt.data.prices import any_number_of_prices
from tbptt.serving import state_file, steps, table
from tbptt.serving.given import Given, given
from tbptt.serving.predictor import Predictor
from tbptt.serving.source import Source, find
from tbptt.serving.trained import Trained, trained

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Result:
    """Predictions.

    Attributes:
        table: :func:`tbptt.serving.table.table_of`.
        metrics: by part, the task's metrics: :func:`tbptt.serving.table.metrics_of`.
        given: what was predicted on.
        trained: the network.
        notes: lines for the user.
        new: how many prices were new.
        keep: writes the state, if one is kept. It is called last, when the answer is where it is to be: a row of a
            state has been answered.
    """

    table: "pd.DataFrame"
    metrics: dict[str, dict[str, float]]
    given: Given
    trained: Trained
    notes: tuple[str, ...]
    new: int = 0
    keep: Callable[[], None] = lambda: None


def predict(
    what: str | Path,
    data: Any = None,
    *,
    tracking_uri: str | None = None,
    storage: str | None = None,
    which: str = "best",
    state: str | Path | None = None,
) -> "pd.DataFrame":
    """The predictions of a trained network.

    Args:
        what: a run's id, a study's name or folder (its best trial), the path of a checkpoint, or a registered model,
            ``models:/NAME@ALIAS``.
        data: the path of a file, which is read as the run's was; a DataFrame, read as a file of its rows would be;
            arrays by name; an array (B, N) in the run's order of series; a panel (:func:`tbptt.panel`); or None for
            the run's own data, read again.
        tracking_uri, storage: the stores of runs and of studies, by default those of the command.
        which: ``best`` (the epoch with the best objective) or ``last``.
        state: a file that keeps how far the network has predicted. If it is there, rows up to then are left out, and
            the network goes on as if it had seen all in one go; it is written at the end.

    Returns:
        One row for each series and step, in the order of time: ``time`` (or ``row``, from 1), ``series``, ``part``
        (train, val, test or new), ``price``; the predictions, in the units of the task's targets (``buy`` and ``sell``;
        ``h1``, ``h10``; the ``output_names`` of your own task); the same with ``true_`` before it, NaN where the truth
        is not known yet;
        and for a task that decides, ``side`` (1 long, -1 short) and ``profit`` of the step, after costs. The first W
        prices of a series have no row: the network only looks back to them.

    Raises:
        ValueError: one line; there is no such network, or the data cannot be used.
    """
    source = find(what, tracking_uri, which, storage)
    result = predicted(source, data, state=None if state is None else Path(state))
    result.keep()
    return result.table


def predicted(
    source: Source,
    data: Any = None,
    changes: Mapping[str, Any] | None = None,
    state: Path | None = None,
    device: str = "cpu",
) -> Result:
    """:func:`predict` of a network that is found already, with what a command shows beside the table.

    Args:
        changes: keys of ``data`` with another value than in the run.
        device: ``cuda`` to compute on a GPU.
    """
    network = trained(source)
    with nullcontext() if state is None else any_number_of_prices():
        on = given(network, data, changes, in_parts=state is None)
    if state is None and on.at is not None:
        return _result(network, on, steps.in_parts(network, on, device), ())
    names = list(on.panel.series)
    predictor = Predictor(network, len(names), device)
    until = state_file.read(state, predictor, names)
    until.refuse_other_rows(on.panel.times is not None, on.source)
    firsts = {name: _first_new(on, name, until) for name in names}
    found = steps.in_one_go(predictor, on.panel, firsts)
    notes = _skipped(on, firsts, until) if state is not None else ()
    result = _result(network, on, found, notes)
    if state is None:
        return result
    return replace(result, keep=partial(state_file.write, state, predictor, _after(on, until)))


def _result(network: Trained, on: Given, found: Mapping[str, steps.Steps], notes: tuple[str, ...]) -> Result:
    whole = table.table_of(network, on, found)
    metrics = table.metrics_of(network, on, found)
    known = any(column.startswith("true_") for column in whole.columns)
    if not known:
        notes = (*notes, "truth: left out, as the deviation of the run's changes, on which targets depend, is unknown")
    new = sum(len(each.prices) - found[name].first for name, each in on.panel.series.items())
    return Result(whole, metrics, on, network, (*on.notes, *notes), new)


def _first_new(on: Given, name: str, until: state_file.Until) -> int:
    """The first price of a series that is not in the state yet: by its time, or without times by its row."""
    rows = on.panel.series[name].rows
    if until.rows == 0:
        return 0
    if until.time is not None and on.panel.times is not None:
        return int(np.searchsorted(in_microseconds(on.panel.times[rows]), until.time, side="right"))
    return int(np.searchsorted(rows, until.rows))


def _skipped(on: Given, firsts: Mapping[str, int], until: state_file.Until) -> tuple[str, ...]:
    if not until.rows:
        return ()
    skipped = sum(firsts.values())
    new = sum(len(each.prices) for each in on.panel.series.values()) - skipped
    when = "" if until.time is None else f", up to {str(np.datetime64(until.time, 'us')).removesuffix('.000000')}"
    lines = [f"state: {until.rows:,} rows were predicted before{when}; {skipped:,} prices skipped, {new:,} are new"]
    rows = max((int(each.rows[-1]) + 1 for each in on.panel.series.values() if len(each.rows)), default=0)
    if until.time is None and rows < until.rows:
        lines.append(
            f"{on.source} has {rows:,} rows: without times, the next row is told by its place, after all before"
        )
    hole = None if skipped else until.hole_before(_new_times(on, until))
    return (*lines, hole) if hole else tuple(lines)


def _new_times(on: Given, until: state_file.Until) -> state_file.Times:
    """Of the rows that are new and have a price, in microseconds."""
    rows = [each.rows for each in on.panel.series.values()]
    if on.panel.times is None or not rows:
        return np.empty(0, np.int64)
    times = in_microseconds(on.panel.times[np.unique(np.concatenate(rows))])
    return times if until.time is None else times[times > until.time]


def _after(on: Given, until: state_file.Until) -> state_file.Until:
    """Where a state is after these data."""
    panel = on.panel
    ends = [int(each.rows[-1]) for each in panel.series.values() if len(each.rows)]
    last = until.last.clone()
    for row, series in zip(last, panel.series.values(), strict=True):
        if len(series.prices):
            row[0] = float(series.prices[-1])
    if panel.times is None or not ends:
        rows = max(max(ends, default=-1) + 1, until.rows)
        return replace(until, rows=rows, last=last)
    after = replace(until, last=last)
    after.seen(_new_times(on, replace(until, time=None)))
    times = in_microseconds(panel.times[: max(ends) + 1])
    new = len(times) if until.time is None else int((times > until.time).sum())
    time = int(times[-1]) if until.time is None else max(int(times[-1]), until.time)
    return replace(after, time=time, rows=until.rows + new)

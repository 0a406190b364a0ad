"""Predictions of a trained network as a table: tbptt.predict, and what predict.py shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.borders import in_microseconds
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
    """

    table: "pd.DataFrame"
    metrics: dict[str, dict[str, float]]
    given: Given
    trained: Trained
    notes: tuple[str, ...]


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
        data: the path of a file, which is read as the run's was; a DataFrame; arrays by name; a panel
            (:func:`tbptt.panel`); or None for the run's own data, read again.
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
    return predicted(source, data, state=None if state is None else Path(state)).table


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
    on = given(network, data, changes, in_parts=state is None)
    if state is None and on.at is not None:
        return _result(network, on, steps.in_parts(network, on, device), ())
    names = list(on.panel.series)
    predictor = Predictor(network, len(names), device)
    until = state_file.read(state, predictor, names)
    firsts = {name: _first_new(on, name, until) for name in names}
    found = steps.in_one_go(predictor, on.panel, firsts)
    notes = _skipped(on, firsts, until) if state is not None else ()
    if state is not None:
        state_file.write(state, predictor, _after(on, until))
    return _result(network, on, found, notes)


def _result(network: Trained, on: Given, found: Mapping[str, steps.Steps], notes: tuple[str, ...]) -> Result:
    whole = table.table_of(network, on, found)
    metrics = table.metrics_of(network, on, found)
    known = any(column.startswith("true_") for column in whole.columns)
    if not known:
        notes = (*notes, "truth: left out, as the deviation of the run's changes, on which targets depend, is unknown")
    return Result(whole, metrics, on, network, (*on.notes, *notes))


def _first_new(on: Given, name: str, until: state_file.Until) -> int:
    """The first price of a series that is not in the state yet: by its time, or without times by its row."""
    rows = on.panel.series[name].rows
    if until.rows == 0:
        return 0
    if (until.time is None) != (on.panel.times is None):
        one, other = ("none", "times") if until.time is None else ("times", "none")
        raise ValueError(f"the rows of the state have {one}, those of {on.source} {other}: which are new is not known")
    if until.time is not None and on.panel.times is not None:
        return int(np.searchsorted(in_microseconds(on.panel.times[rows]), until.time, side="right"))
    return int(np.searchsorted(rows, until.rows))


def _skipped(on: Given, firsts: Mapping[str, int], until: state_file.Until) -> tuple[str, ...]:
    if not until.rows:
        return ()
    skipped = sum(firsts.values())
    new = sum(len(each.prices) for each in on.panel.series.values()) - skipped
    when = "" if until.time is None else f", up to {str(np.datetime64(until.time, 'us')).removesuffix('.000000')}"
    return (f"state: {until.rows:,} rows were predicted before{when}; {skipped:,} prices skipped, {new:,} are new",)


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
        return state_file.Until(until.names, until.inputs, until.time, rows, last)
    times = in_microseconds(panel.times[: max(ends) + 1])
    new = len(times) if until.time is None else int((times > until.time).sum())
    time = int(times[-1]) if until.time is None else max(int(times[-1]), until.time)
    return state_file.Until(until.names, until.inputs, time, until.rows + new, last)

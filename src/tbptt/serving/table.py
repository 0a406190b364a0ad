"""The table of predictions, and what they are worth where the truth is known."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tbptt.data.borders import NEW, TEST, UNKNOWN, VAL, WORDS, Labels
from tbptt.options.metrics import measured
from tbptt.serving.given import Given
from tbptt.serving.steps import Steps, fees
from tbptt.serving.trained import Trained
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.try_out import targets_of

if TYPE_CHECKING:
    import pandas as pd

Numbers = NDArray[np.float64]
Times = NDArray[np.datetime64]
SCORED = (VAL, TEST, NEW, UNKNOWN)


def table_of(trained: Trained, given: Given, steps: Mapping[str, Steps]) -> "pd.DataFrame":
    """The predictions in long form: one row for each series and step, in the order of time.

    Columns: ``time``, or ``row`` from 1 if there are no times; ``series``; ``part`` (train, val, test: the run's parts;
    new; empty if it is not known); ``price``; a column for each output, in the units of the task's targets; ``true_…``,
    the same of the truth, NaN where it is not known yet. If the task decides: ``side``, 1 long or -1 short, and
    ``profit`` of the step until the next price, after the cost of changing to this side; NaN without a next price.
    """
    import pandas as pd

    names, frames, rows = trained.task.output_names, [], []
    for i, (name, series) in enumerate(given.panel.series.items()):
        found, there = steps[name], steps[name].there
        columns: dict[str, Any] = {"series": np.full(int(there.sum()), i), "part": given.parts[name][there]}
        columns["price"] = series.prices[there]
        columns |= {of: found.values[there, j] for j, of in enumerate(names)}
        truth = _truth(trained, given, i, series.prices, found.first)
        if truth is not None:
            columns |= {f"true_{of}": truth[there, j] for j, of in enumerate(names)}
        if trained.task.decides:
            columns["side"] = found.side[there]
            columns["profit"] = _profit(trained, i, series.prices, found)[there]
        frames.append(pd.DataFrame(columns))
        rows.append(series.rows[there])
    whole, at = pd.concat(frames, ignore_index=True), np.concatenate(rows)
    order = np.argsort(at, kind="stable")  # at one row, in the order of the series
    whole, at = whole.iloc[order].reset_index(drop=True), at[order]
    series_names = np.array(list(given.panel.series), dtype=object)
    whole["series"] = series_names[whole["series"].to_numpy()]
    whole["part"] = whole["part"].map(WORDS)
    return _with_times(whole, at, given)


def _with_times(table: "pd.DataFrame", rows: NDArray[np.int64], given: Given) -> "pd.DataFrame":
    import pandas as pd

    panel = given.panel
    if panel.times is None:
        table.insert(0, "row", rows + 1)
        return table
    times = pd.DatetimeIndex(panel.times[rows])
    if panel.zone is not None:
        try:
            times = times.tz_localize("UTC").tz_convert(panel.zone)
        except (KeyError, ValueError, TypeError):  # a name that this machine has no table for
            times = pd.DatetimeIndex(panel.times[rows]).tz_localize("UTC")
    table.insert(0, "time", times)
    return table


def _truth(trained: Trained, given: Given, i: int, prices: Numbers, first: int) -> Numbers | None:
    """(N, O) the targets of a series' prices, NaN where they are not known; None if they cannot be known."""
    task, std = trained.task, _of_series(given.change_std, i)
    if std is None and _depends_on_std(task):
        return None
    found = np.full((len(prices), task.outputs), np.nan)
    if (length := len(prices) - first - task.ahead) > 0:
        std = np.ones(1) if std is None else std
        found[first : first + length] = targets_of(task, prices[None, first:], std, length)[0]
    return found


def _of_series(values: Numbers | None, i: int) -> Numbers | None:
    """The (1,) value of one series, of (S,) values."""
    return None if values is None else values[i : i + 1] if len(values) > 1 else values


def _depends_on_std(task: TaskConfig) -> bool:
    """Whether a task's targets depend on the deviation of the changes."""
    prices = np.random.default_rng(0).standard_normal((1, task.ahead + 8)).cumsum(1)
    one, other = (targets_of(task, prices, np.array([std]), 8) for std in (1.0, 2.0))
    return not np.array_equal(one, other)


def _profit(trained: Trained, i: int, prices: Numbers, steps: Steps) -> Numbers:
    """(N,) of each step until the next price, after costs."""
    fee = fees(trained)
    cost = 2 * float(fee[i if len(fee) > 1 else 0])
    there = steps.there.nonzero()[0]
    found = np.full(len(prices), np.nan)
    side = steps.side[there].astype(np.float64)
    before = np.concatenate(([steps.held], side[:-1]))
    before[np.isin(there, steps.free)] = 0
    change = np.append(np.diff(prices), np.nan)[there]
    found[there] = side * change - cost * (side * before < 0)
    return found


# --- metrics --------------------------------------------------------------------------------------------------------


def metrics_of(trained: Trained, given: Given, steps: Mapping[str, Steps]) -> dict[str, dict[str, float]]:
    """The task's metrics of the rows that the run was not trained on, by part: ``val`` (which epochs and trials were
    chosen by), ``test``, ``new``, and ``unknown`` for rows of which the part is not known. ``loss`` comes first. As
    in training, the last rows of a part, whose truth lies beyond it, do not count; and ``steps`` says how many do."""
    found = {}
    for part in SCORED:
        spans = {name: span for name in given.panel.series if (span := _span(trained, given, steps[name], name, part))}
        if spans:
            found[WORDS[part] or "unknown"] = _measured(trained, given, steps, spans)
    return found


def _span(trained: Trained, given: Given, steps: Steps, name: str, part: int) -> tuple[int, int] | None:
    """The last run of prices of a part, from its first step to its end; None if it has no step whose truth is known."""
    begins = [(a, b) for a, b, label in _runs(given.parts[name]) if label == part]
    if not begins:
        return None
    begin, end = begins[-1]
    there = steps.there[begin:end]
    begin += int(there.argmax()) if there.any() else end - begin
    return (begin, end) if end - begin > trained.task.ahead else None


def _runs(parts: Labels) -> Iterator[tuple[int, int, int]]:
    """Where each run of equal labels begins and ends, and the label."""
    ends = [*(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
    begin = 0
    for end in ends if len(parts) else ():
        yield begin, end, int(parts[begin])
        begin = end


def _measured(
    trained: Trained, given: Given, steps: Mapping[str, Steps], spans: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
    from tbptt.evaluation.losses import measure_predicted
    from tbptt.tasks.prepare import constant_loss, of_rows

    series, window, task = given.panel.series, trained.window, trained.task
    places = [list(series).index(name) for name in spans]
    prices, inputs = {}, {}
    for name, (begin, end) in spans.items():
        of, each = steps[name], series[name]
        at = slice(begin - of.first, end - of.first + window)  # of the prices from W before the first on
        prices[name] = np.concatenate([of.past, each.prices[of.first :]])[at]
        inputs[name] = np.concatenate([of.beside, each.inputs[of.first :]])[at]
    std = given.change_std
    std = std[places] if std is not None and len(std) > 1 else std
    scaler = trained.scaler.of_series(torch.tensor(places))
    sequences = of_rows(prices, inputs if given.panel.inputs else {}, scaler, std, given.data, task)
    every = torch.zeros_like(sequences.targets)
    for row, (name, (begin, _)), count in zip(every, spans.items(), sequences.steps, strict=True):
        row[:count] = torch.from_numpy(steps[name].scaled[begin : begin + count])
    metrics = [each for each in measured(task.name) if std is not None or each.at_once is None]
    if given.constant is None:
        metrics = [each for each in metrics if each.name != "val/skill"]
    else:
        sequences.baseline = constant_loss(given.constant, sequences)
    found = measure_predicted(every, sequences, metrics)
    said = {name.removeprefix("val/"): float(value) for name, value in found.items()}
    return {**said, "steps": sequences.valid_steps}

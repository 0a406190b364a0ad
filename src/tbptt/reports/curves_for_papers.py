"""The curves of a study for a paper: means over runs, and bands that say how far runs differ."""

import html
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from tbptt.options.metrics import LOSSES, METRICS
from tbptt.options.values import short_value
from tbptt.reports.drawable import numbers_first
from tbptt.reports.figures import BEST, GREY, axis_type, cut, name_of, safe
from tbptt.reports.frames import SECONDS, runs_of
from tbptt.reports.paper_style import COLOURS, DASHES, INCH, LINE, styled
from tbptt.reports.tables import params_of
from tbptt.reports.thinning import MOST_DRAWN, at_random
from tbptt.studies.ranking import best_first, complete
from tbptt.studies.records import TrialRecord, is_number
from tbptt.system.endings import failure_line
from tbptt.system.runtime import Interrupted

log = logging.getLogger("tbptt")

MOST_TRIALS = 10  # in the figure of the best
MOST_VALUES = 8  # of a key: as many as can be told apart in a figure

Curves = Mapping[
    str, pd.DataFrame
]  # by metric: a row for each run, named by its trial's number; a column for each epoch


# --- the numbers ----------------------------------------------------------------------------------------------------


def curves(trials: Sequence[FrozenTrial], objectives: Sequence[str], store: Any | None) -> Curves:
    """The curves of a study's complete trials, of all seeds and folds, by metric. Metrics are those that reports draw,
    and the objectives. Epochs count from 1; what was not measured, or is no finite number, is missing.

    A trial whose runs the store does not give has the curve of its first run, which the study keeps; a warning says
    so. Of very many trials, the best and a random sample of all are read.
    """
    ranked = best_first(complete(trials), *objectives)
    sampled = {t.number for t in (*ranked[:MOST_TRIALS], *at_random(ranked, MOST_DRAWN))}
    some = [t for t in ranked if t.number in sampled]
    names = dict.fromkeys([*objectives, *(m.name for m in METRICS.values() if m.drawn)])
    rows = _from_store(some, list(names), store)
    away = [t for t in some if t.number not in set(rows["trial"])]
    kept = [
        (t.number, f"of {t.number}", metric, step, float(value))
        for t in away
        for metric in names
        for step, value in enumerate(TrialRecord.of(t).curve(metric))
        if is_number(value)
    ]
    if away:
        of = f"{len(away)} of {len(some)} trials"
        log.warning("curves: the store does not have the runs of %s; drawn is the first run of each", of)
    rows = pd.concat([part for part in (rows, pd.DataFrame(kept, columns=list(rows.columns))) if len(part)] or [rows])
    rows = rows[np.isfinite(rows["value"].astype(float))]
    return {metric: _wide(its) for metric in names if len(its := rows[rows["metric"] == metric])}


def _from_store(trials: Sequence[FrozenTrial], metrics: Sequence[str], store: Any | None) -> pd.DataFrame:
    """A row for each point: trial, run, metric, step, value. Empty if the store is away."""
    nothing = pd.DataFrame(columns=["trial", "run", "metric", "step", "value"])
    runs = runs_of(trials)
    if store is None or not runs:
        return nothing
    from tbptt.runs.curves import curves_of

    try:
        points = curves_of(store, list(runs), metrics, SECONDS).points
    except Interrupted:
        raise
    except Exception as error:
        log.warning("curves: %s", failure_line(error))
        return nothing
    points = points.astype({"run": "str", "metric": "str"})
    numbers = points["run"].map({run: trials[i].number for run, i in runs.items()})
    return points.assign(trial=numbers)[list(nothing.columns)]


def _wide(points: pd.DataFrame) -> pd.DataFrame:
    table = points.pivot(index=["trial", "run"], columns="step", values="value").astype(float)
    table.columns = table.columns.astype(int) + 1
    return table.droplevel("run").sort_index(axis=1)


def summary(runs: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """By epoch: the ``mean`` over the trials' means over their runs, and the runs' quantiles ``low`` and ``high``.

    An epoch that fewer than half of the runs have is left out: where most have ended, the mean would be that of a few.

    Args:
        runs: (runs, epochs), each row named by its trial.
    """
    there = runs.loc[:, 2 * runs.notna().sum() >= max(len(runs), 1)]
    means = there.groupby(level=0).mean().mean()
    return pd.DataFrame({"mean": means, "low": there.quantile(low), "high": there.quantile(high)})


# --- the figures ----------------------------------------------------------------------------------------------------


def figures(trials: Sequence[FrozenTrial], objectives: Sequence[str], of: Curves) -> dict[tuple[str, ...], go.Figure]:
    """The figures of each metric, by the words of their names: of the best trials, and for each key that was searched
    and has few values, of its values."""
    made: dict[tuple[str, ...], go.Figure] = {}
    for metric, runs in of.items():
        what = "loss curves" if metric in LOSSES else "curves"
        made[(what, metric)] = _finished(best_trials(trials, objectives, runs), metric, trials)
        there = [t for t in trials if t.number in runs.index]
        for key in params_of(there):
            groups = by_value(there, key)
            if len(groups) > 1:
                made[(what, metric, "by", key)] = _finished(_of_key(key, groups, runs), metric, trials)
    return made


def best_trials(trials: Sequence[FrozenTrial], objectives: Sequence[str], runs: pd.DataFrame) -> go.Figure:
    """The best trials, each as the mean over its runs with a band from the smallest run to the largest; the best of all
    on top, in colour."""
    ranked = [t for t in best_first(complete(trials), *objectives) if t.number in runs.index][:MOST_TRIALS]
    figure = go.Figure()
    several = len(runs.loc[[ranked[0].number]]) > 1
    for i, t in reversed(list(enumerate(ranked))):
        said = summary(runs.loc[[t.number]], 0.0, 1.0)
        if several:
            name = "range of its runs" if i == 0 else None
            _add_band(figure, said, BEST if i == 0 else GREY, 0.25 if i == 0 else 0.08, name)
        line = {"color": BEST, "width": 3 * LINE} if i == 0 else {"color": "#767676", "width": LINE, "dash": "dot"}
        rest = f"the next {len(ranked) - 1}" if len(ranked) > 2 else "the next"
        name = f"trial {t.number}, the best" if i == 0 else rest
        _add_line(figure, said["mean"], line, name, i < 2, legendrank=1 + 2 * i)
    return figure


def by_value(trials: Sequence[FrozenTrial], key: str) -> dict[str, list[FrozenTrial]]:
    """The trials that have each value of a key, by the value's text, in the values' order; empty if there are too many
    values, or if each trial has one of its own, taken from a range."""
    groups: dict[str, tuple[Any, list[FrozenTrial]]] = {}
    having = [t for t in trials if key in t.params]
    for t in having:
        groups.setdefault(repr(t.params[key]), (t.params[key], []))[1].append(t)
    is_listed = all(isinstance(t.distributions[key], CategoricalDistribution) for t in having)
    if len(groups) > MOST_VALUES or (len(groups) == len(having) and not is_listed):
        return {}
    ordered = sorted(groups.values(), key=lambda group: numbers_first(short_value(group[0])))
    texts = [cut(short_value(value), 24) for value, _ in ordered]
    return {
        text if texts.count(text) == 1 else f"{text} ({i + 1})": its
        for i, (text, (_, its)) in enumerate(zip(texts, ordered, strict=True))
    }


def _of_key(key: str, groups: Mapping[str, Sequence[FrozenTrial]], runs: pd.DataFrame) -> go.Figure:
    """For each value of a key the mean over its trials, with a band of the middle half of their runs."""
    figure = go.Figure()
    said = {text: summary(runs.loc[[t.number for t in its]], 0.25, 0.75) for text, its in groups.items()}
    for (text, its), colour in zip(said.items(), COLOURS, strict=False):
        if sum(len(runs.loc[[t.number]]) for t in groups[text]) > 1:
            _add_band(figure, its, colour, 0.18, None)
    for (text, its), colour, dash in zip(said.items(), COLOURS, DASHES, strict=False):
        _add_line(figure, its["mean"], {"color": colour, "width": 2 * LINE, "dash": dash}, text)
    return figure.update_layout(legend_title={"text": name_of(key, 40), "side": "top"})


def _add_band(figure: go.Figure, said: pd.DataFrame, colour: str, opacity: float, name: str | None) -> None:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=[*said.index, *said.index[::-1]],
        y=[*said["high"], *said["low"][::-1]],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},{opacity})",
        name=name,
        showlegend=name is not None,
        legendrank=2,
    )


def _add_line(
    figure: go.Figure,
    mean: "pd.Series[Any]",
    line: dict[str, Any],
    name: str,
    showlegend: bool = True,
    legendrank: int = 1000,
) -> None:
    figure.add_scatter(
        x=list(mean.index),
        y=list(mean),
        mode="lines" if len(mean) > 1 else "markers",
        line=line,
        marker={"color": line["color"], "size": 8},
        name=name,
        showlegend=showlegend,
        legendrank=legendrank,
    )


def _finished(figure: go.Figure, metric: str, trials: Sequence[FrozenTrial]) -> go.Figure:
    """With its axes and, of a loss, the loss of predicting the mean."""
    xs = [x for trace in figure.data for x in trace.x]
    first, last = (min(xs), max(xs)) if xs else (1, 1)
    baselines = {mean for t in trials if (mean := TrialRecord.of(t).baseline) is not None}
    if metric in LOSSES and len(baselines) == 1 and math.isfinite(mean := baselines.pop()):
        ends = pd.Series([mean, mean], index=[first, max(last, first + 1)])
        _add_line(figure, ends, {"color": "black", "width": LINE, "dash": "dash"}, "predicting the mean")
    known = METRICS.get(metric)
    lines = [safe(text) for text in (metric, known.label if known else "") if text]
    values = [y for trace in figure.data for y in trace.y]
    figure.update_layout(
        xaxis={
            "title": {"text": "epoch"},
            "range": [first - 0.02 * (last - first) - 0.1, last + 0.02 * (last - first) + 0.1],
            "dtick": 1 if last - first < 8 else None,
        },
        yaxis={"title": {"text": "<br>".join(lines)}, "type": axis_type(values)},
    )
    names = [html.unescape(trace.name) for trace in figure.data if trace.showlegend]
    rows = len(names) if max(map(len, names)) > 20 else -(-len(names) // 2)  # of the legend
    heading = figure.layout.legend.title.text
    rows += heading.count("<br>") + 1 if heading else 0
    return styled(figure, wide=False, height=2.1 * INCH + 15 * rows)

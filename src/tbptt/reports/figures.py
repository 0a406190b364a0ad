"""The report's own figures, as Plotly draws them: the loss curves and the timeline.

Plotly reads a little HTML in every text, so a study's names and values are escaped here. Everything that can be clicked
names its trial: a point in its ``customdata``, a trace in ``trial`` of its ``meta``. From this number the page fills in
the trace's ``text``, which is the trial's ``label``. The page holds each label only once.
"""

import datetime
import html
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.colors import sample_colorscale

from tbptt.options.metrics import CHUNKS, METRICS, TRAIN_EVAL_LOSS, TRAIN_LOSS, VAL_LOSS
from tbptt.options.values import Value, short_value, shortened
from tbptt.reports.thinning import MOST_DRAWN
from tbptt.studies.ranking import is_complete
from tbptt.studies.records import TrialRecord, is_number
from tbptt.studies.study import state_of

MOST_OWN = 60  # trials whose curve is a trace of its own; the others share one, which draws as fast as a single curve
MOST_POINTS = 100_000  # of the shared trace: what a browser still moves smoothly
MOST_NAMED = 12  # keys of a point that fit in a hover box
LOG_FROM = 5  # if largest loss / smallest loss is above this, a linear axis hides the small ones

# Okabe and Ito's colours, which colour-blind people tell apart.
BEST = "#d55e00"
STATES = {"COMPLETE": "#0072b2", "PRUNED": "#e69f00", "FAIL": "#cc79a7", "RUNNING": "#56b4e9"}
NAMES = {"COMPLETE": "complete", "PRUNED": "pruned or diverged", "FAIL": "failed or interrupted", "RUNNING": "running"}
GREY = "#94a3b8"
INK = "#334155"
LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}

# How each of the losses is drawn: its name in the menu, what a trace's name ends with, its line.
STYLES = {
    VAL_LOSS: ("held-out, weights frozen", "", "solid"),
    TRAIN_LOSS: ("training, online", ", online", "dot"),
    TRAIN_EVAL_LOSS: ("training, weights frozen", ", training frozen", "dash"),
}


def styles() -> dict[str, tuple[str, str, str]]:
    """The styles of all curves that are drawn. Those of other metrics come after the losses."""
    others = [m for m in METRICS.values() if m.drawn and m.name not in STYLES]
    return {**STYLES, **{m.name: (m.label, f", {m.label}", "dashdot") for m in others}}


Lines = Sequence[tuple[FrozenTrial, dict[int, float]]]  # trials and their curves, by epoch from 1


def label(trial: FrozenTrial) -> str:
    """A trial and its point, as the lines of a hover box."""
    lines = [f"{safe(name)} = {safe(short_value(value))}" for name, value in trial.params.items()]
    more = [f"and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else []
    return "<br>".join([f"<b>trial {trial.number}</b>", *lines[:MOST_NAMED], *more])


def safe(text: Value) -> str:
    """A text that Plotly shows as it stands, cut if it would not fit."""
    return html.escape(shortened(str(text), 60), quote=False)


def wrapped(text: str, width: int) -> str:
    """A tick's text, escaped already or not, on at most three short lines."""
    lines = textwrap.wrap(html.unescape(text), width, max_lines=3, placeholder=" …") or [""]
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def cut(text: str, width: int) -> str:
    return html.escape(shortened(html.unescape(text), width), quote=False)


def name_of(text: str, width: int) -> str:
    """A key or a metric. Its lines may also break after a dot, a slash or an underscore."""
    return re.sub(r"([./_]) ", r"\1", wrapped(re.sub(r"([./_])", r"\1 ", html.unescape(text)), width))


def curve_points(trial: FrozenTrial, metric: str, objective: str | None = None) -> dict[int, float]:
    """A curve by epoch, from 1. A running trial has no curves yet, but it has reported its ``objective``."""
    return {step + 1: float(f"{y:.5g}") for step, y in _finite(trial, metric, objective)}


def _finite(trial: FrozenTrial, metric: str, objective: str | None) -> Iterator[tuple[int, float]]:
    record = TrialRecord.of(trial)
    curve: Iterable[tuple[int, Any]] = enumerate(record.curve(metric))
    if metric == objective and record.curves is None:
        curve = sorted(trial.intermediate_values.items())
    return ((step, y) for step, y in curve if is_number(y) and math.isfinite(y))


# --- loss curves ----------------------------------------------------------------------------------------------------


def with_curves(trials: Sequence[FrozenTrial], objective: str) -> list[FrozenTrial]:
    """The trials that have a curve to draw."""
    return [t for t in trials if any(any(True for _ in _finite(t, metric, objective)) for metric in styles())]


def thinned(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The first ``MOST_OWN`` trials, and an even choice of the others: as many curves as a browser still draws
    smoothly."""
    rest = trials[MOST_OWN:]
    total = sum(len(TrialRecord.of(t).curve(VAL_LOSS)) for t in rest)
    step = max(1, -(-total // MOST_POINTS), -(-len(rest) // MOST_DRAWN))
    return [*trials[:MOST_OWN], *rest[::step]]


def curves(trials: Sequence[FrozenTrial], objective: str) -> go.Figure:
    """Loss by epoch of every trial, given best first. The best trial is on top, and incomplete ones are dimmed. A
    diamond marks where a stage of the schedule begins."""
    traces: list[dict[str, Any]] = []
    kinds = styles()
    if objective not in STYLES:  # an objective that is no loss is shown first
        kinds = dict(sorted(kinds.items(), key=lambda kind: kind[0] != objective))
    for metric, (_, ending, dash) in kinds.items():
        lines = [(t, xy) for t in trials if (xy := curve_points(t, metric, objective))]
        shown = not traces
        for trace in _traces(lines, ending, dash) if lines else ():
            traces.append({**trace, "visible": shown, "meta": {**trace.get("meta", {}), "loss": metric}})
    metric_of = [trace["meta"]["loss"] for trace in traces]
    last = max((max(trace["x"]) for trace in traces if len(trace["x"])), default=1)
    if (mean := _common_baseline(trials)) is not None:
        line, box = {"color": INK, "dash": "dash", "width": 1}, "predicting the mean: <b>%{y:.4g}</b><extra></extra>"
        traces.append({**_line({1: mean, last: mean}, "lines"), "line": line, "hovertemplate": box})
        traces[-1]["name"] = "predicting the mean"
        metric_of.append(None)
    axis = axis_type(y for trace in traces for y in trace["y"])
    layout = {
        "xaxis": {
            "title": {"text": "epoch"},
            "range": [0.8 - 0.02 * last, 1.02 * last + 0.2],
            "dtick": 1 if last < 10 else None,
        },
        "yaxis": {"title": {"text": "loss"}, "type": axis},
        "hovermode": "closest",
        "height": 560,
        "updatemenus": [_metric_menu(metric_of), _axis_menu(axis)],
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "margin": {"t": 70},
    }
    return go.Figure(traces, layout)


def _traces(lines: Lines, ending: str, dash: str) -> Iterator[dict[str, Any]]:
    """The traces of one loss: the shared ones below, each trial's own curve above them, the highlighted curve on
    top."""
    own = lines[:MOST_OWN]
    yield from _shared(lines[MOST_OWN:], ending)
    complete = sum(is_complete(t) for t, _ in own)  # complete trials come first, so that i is their rank
    groups = [("complete, dark is good" if i < complete else _unfinished(t)) + ending for i, (t, _) in enumerate(own)]
    shades = sample_colorscale("Viridis", [0.9 * i / max(complete - 1, 1) for i in range(complete)])
    for i, (t, xy) in reversed(list(enumerate(own))):
        yield {
            **_line(xy, "lines" if len(xy) > 1 else "markers"),
            "line": {"color": shades[i] if i < complete else _dimmed(t), "width": 1.5, "dash": dash},
            "opacity": 0.9 if i < complete else 0.55,
            "name": groups[i],
            "legendgroup": groups[i],
            "showlegend": groups.index(groups[i]) == i,
            "meta": {"trial": t.number},
            "hovertemplate": "%{text}<br>epoch %{x}: <b>%{y:.4g}</b><extra></extra>",
        }
    yield _stages(own, ending)
    best = lines[0] if complete else None
    yield {  # the page moves it to the trial that is clicked
        **_line(best[1] if best else {}, "lines"),
        "line": {"color": BEST, "width": 3.5, "dash": dash},
        "name": (f"trial {best[0].number}" if best else "no trial highlighted") + ending,
        "meta": {"highlight": True},
        "hoverinfo": "skip",
    }


def _line(xy: dict[int, float], mode: str) -> dict[str, Any]:
    return {"x": list(xy), "y": list(xy.values()), "mode": mode}


def _unfinished(trial: FrozenTrial) -> str:
    return "running" if trial.state == TrialState.RUNNING else "pruned, diverged or failed"


def _dimmed(trial: FrozenTrial) -> str:
    return STATES["RUNNING"] if trial.state == TrialState.RUNNING else GREY


def _shared(lines: Lines, ending: str) -> Iterator[dict[str, Any]]:
    """Many curves as one trace, with gaps between them. Curves of a single epoch have no line, so they form a second
    trace."""
    for mode, some in (
        ("lines", [line for line in lines if len(line[1]) > 1]),
        ("markers", [line for line in lines if len(line[1]) == 1]),
    ):
        if some:
            yield {
                "x": _whole(x for _, xy in some for x in (*xy, 0)),
                "y": np.array([y for _, xy in some for y in (*xy.values(), math.nan)], np.float32),
                "customdata": _whole(t.number for t, xy in some for _ in range(len(xy) + 1)),
                "mode": mode,
                "line": {"color": GREY, "width": 1},
                "marker": {"size": 3},
                "opacity": 0.35,
                "name": "the other trials" + ending,
                "legendgroup": "others" + ending,
                "showlegend": mode == "lines",
                "hovertemplate": "%{text}<br>epoch %{x}: <b>%{y:.4g}</b><extra></extra>",
            }


def _whole(numbers: Iterable[int]) -> "np.ndarray[Any, Any]":
    """An array of the smallest integer type that holds the numbers, because its bytes are part of the page."""
    values = list(numbers)
    return np.array(values, np.min_scalar_type(max(values)))


def _stages(lines: Lines, ending: str) -> dict[str, Any]:
    """Where the schedule moves on to its next stage."""
    marks = []
    for t, xy in lines:
        chunks = TrialRecord.of(t).curve(CHUNKS)
        marks += [
            (x, y, f"{chunks[x - 2]:g} → {chunks[x - 1]:g} chunks", t.number)
            for x, y in xy.items()
            if 1 < x <= len(chunks) and chunks[x - 1] != chunks[x - 2] and all(map(is_number, chunks[x - 2 : x]))
        ]
    x, y, moves, numbers = map(list, zip(*marks, strict=True)) if marks else ([], [], [], [])
    return {
        "x": x,
        "y": y,
        "hovertext": moves,
        "customdata": numbers,
        "mode": "markers",
        "marker": {
            "symbol": "diamond",
            "size": 7 if len(lines) <= MOST_NAMED else 5,
            "color": "white",
            "line": {"color": INK, "width": 1},
        },
        "meta": {"marks": True},
        "name": "a stage begins" + ending,
        "hovertemplate": "%{text}<br>epoch %{x}: <b>%{hovertext}</b><extra></extra>",
    }


def _common_baseline(trials: Iterable[FrozenTrial]) -> float | None:
    """The loss of predicting the mean, if it is the same for all trials. It is not if the data are searched too: then
    None."""
    found = {mean for t in trials if (mean := TrialRecord.of(t).baseline) is not None}
    return found.pop() if len(found) == 1 else None


def axis_type(values: Iterable[float]) -> str:
    """``log`` if the values are so far apart that a linear axis would hide how the small ones differ."""
    finite = [v for v in values if math.isfinite(v)]
    return "log" if finite and min(finite) > 0 and max(finite) > LOG_FROM * min(finite) else "linear"


def _metric_menu(metric_of: Sequence[str | None]) -> dict[str, Any]:
    """The menu that chooses the curves. The loss of predicting the mean belongs to no metric, and is shown with the
    losses."""
    kinds, drawn = styles(), dict.fromkeys(metric for metric in metric_of if metric)
    choices = {kinds[metric][0]: {metric} for metric in drawn}
    if {VAL_LOSS, TRAIN_LOSS} <= set(metric_of):
        choices["held-out and online"] = {VAL_LOSS, TRAIN_LOSS}
    buttons = [
        {
            "label": name,
            "method": "restyle",
            "args": ["visible", [m in shown or (m is None and bool(shown & set(STYLES))) for m in metric_of]],
        }
        for name, shown in choices.items()
    ]
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}


def _axis_menu(now: str) -> dict[str, Any]:
    other = "linear" if now == "log" else "log"
    buttons = [
        {"label": f"{kind} axis", "method": "relayout", "args": [{"yaxis.type": kind, "yaxis.autorange": True}]}
        for kind in (now, other)
    ]
    return {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}


# --- timeline -------------------------------------------------------------------------------------------------------


def timeline(trials: Sequence[FrozenTrial]) -> go.Figure | None:
    """Which worker ran which trial at which time, and how it ended. None if no trial was begun."""
    begun = sorted((t for t in trials if t.datetime_start), key=lambda t: (t.datetime_start, t.number))
    if not begun:
        return None
    workers = list(dict.fromkeys(map(_worker, begun)))
    first = min(map(_start, begun))
    unit, seconds = _unit(max((_end(t) - first).total_seconds() for t in begun))
    figure = go.Figure()
    for state, colour in STATES.items():
        shown = [t for t in begun if t.state.name == state]
        if shown:
            figure.add_bar(
                orientation="h",
                width=0.8,
                y=[workers.index(_worker(t)) + 1 for t in shown],
                base=[(_start(t) - first).total_seconds() / seconds for t in shown],
                x=[(_end(t) - _start(t)).total_seconds() / seconds for t in shown],
                marker={
                    "color": colour,
                    "line": {"color": "white", "width": 0.5 if len(begun) <= 200 else 0},
                    "pattern": {"shape": "x" if state == "FAIL" else "", "fgcolor": INK, "solidity": 0.2},
                },
                name=NAMES[state],
                text=[t.number for t in shown],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                customdata=[t.number for t in shown],
                hovertext=[_bar_text(t) for t in shown],
                hovertemplate="%{hovertext}<extra></extra>",
            )
    figure.update_layout(
        barmode="overlay",
        xaxis_title=f"{unit} since the study began",
        yaxis={
            "autorange": "reversed",
            "tickvals": list(range(1, len(workers) + 1)),
            "ticktext": [f"worker {i + 1}" for i in range(len(workers))],
        },
        uniformtext={"minsize": 9, "mode": "hide"},  # hides a number that does not fit in its bar
        showlegend=True,
        legend=LEGEND_ABOVE,
        height=min(150 + 34 * len(workers), 900),
    )
    return figure


def _worker(trial: FrozenTrial) -> tuple[str, ...]:
    who = TrialRecord.of(trial).worker or {}
    return tuple(str(who.get(name)) for name in ("host", "pid", "started"))


def _start(trial: FrozenTrial) -> datetime.datetime:
    assert trial.datetime_start is not None
    return trial.datetime_start


def _end(trial: FrozenTrial) -> datetime.datetime:
    """When a trial ended; for a running trial, now."""
    return trial.datetime_complete or max(datetime.datetime.now(), _start(trial))


def _unit(seconds: float) -> tuple[str, int]:
    if seconds < 300:
        return "seconds", 1
    return ("minutes", 60) if seconds < 3 * 3600 else ("hours", 3600)


def _bar_text(trial: FrozenTrial) -> str:
    host, pid, _ = _worker(trial)
    seconds = (_end(trial) - _start(trial)).total_seconds()
    return f"{label(trial)}<br>{state_of(trial)}, {seconds:,.0f} s<br>{safe(host)}, process {safe(pid)}"

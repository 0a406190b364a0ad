"""The report's own figures, as Plotly draws them: the frame of the loss curves, and the timeline.

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

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from tbptt.options.values import Value, short_value, shortened
from tbptt.studies.records import TrialRecord, is_number
from tbptt.studies.study import state_of

MOST_NAMED = 12  # keys of a point that fit in a hover box
LOG_FROM = 5  # if largest loss / smallest loss is above this, a linear axis hides the small ones

# Okabe and Ito's colours, which colour-blind people tell apart.
BEST = "#d55e00"
STATES = {"COMPLETE": "#0072b2", "PRUNED": "#e69f00", "FAIL": "#cc79a7", "RUNNING": "#56b4e9"}
NAMES = {"COMPLETE": "complete", "PRUNED": "pruned or diverged", "FAIL": "failed or interrupted", "RUNNING": "running"}
GREY = "#94a3b8"
INK = "#334155"
LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


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


def curves_frame() -> go.Figure:
    """The figure in which the page's scripts draw the curves (``templates/curves.js``): its axes, and no curve yet."""
    layout = {
        "xaxis": {"title": {"text": "epoch"}},
        "yaxis": {"title": {"text": "loss"}},
        "hovermode": "closest",
        "height": 560,
        "legend": {"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top"},
        "margin": {"t": 20},
    }
    return go.Figure(layout=layout)


def axis_type(values: Iterable[float]) -> str:
    """``log`` if the values are so far apart that a linear axis would hide how the small ones differ."""
    finite = [v for v in values if math.isfinite(v)]
    return "log" if finite and min(finite) > 0 and max(finite) > LOG_FROM * min(finite) else "linear"


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

"""The one figure of how much each key explains, its bars grouped by objective."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from tbptt.reports.explained import SEED, Explained, judged
from tbptt.reports.figures import BEST, INK, LEGEND_ABOVE, STATES, cut
from tbptt.reports.thinning import said

COLOURS = (STATES["COMPLETE"], "#009e73", STATES["FAIL"], STATES["RUNNING"])  # of the objectives, in their order
BOX = "<b>%{customdata[0]}</b>, %{customdata[1]} trials<br>%{customdata[2]}"


def what_explains(trials: Sequence[FrozenTrial], found: Mapping[str, Sequence[Explained]]) -> tuple[str, go.Figure]:
    """How to read the figure, and the figure: a bar for each key and objective, with its interval and the mark that
    chance stays below.

    Args:
        trials: those of the study.
        found: by objective, what :func:`tbptt.reports.explained.explained` found. One of them is not empty.
    """
    keys = _keys(found)
    rows = {key: len(keys) - 1 - i for i, key in enumerate(keys)}  # the topmost row has the largest number
    step, traces = 0.8 / len(found), []
    for i, (objective, its) in enumerate(found.items()):
        places = [rows[e.key] + step * ((len(found) - 1) / 2 - i) for e in its]
        traces += [_bars(its, places, objective, i, step, len(found)), _marks(its, places, i, step)]
    note = (
        "Each key on its own, among the trials that have it: how much of the differences in rank it explains "
        "beyond chance. A pruned trial is worse than any complete one. Left of its mark, nothing was found."
    )
    note += said(*judged(trials), "trials", is_random=True).replace("Drawn", "Reckoned from")
    if SEED in rows:
        note += " The seed's share is what no key can explain."
    of = f" in {html.escape(next(iter(found)), quote=False)}" if len(found) == 1 else ""
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": f"share of the differences{of}", "range": [0, 1]},
        "yaxis": {"tickvals": list(rows.values()), "ticktext": [_text(key, found) for key in rows]},
        "legend": LEGEND_ABOVE,
        "height": 130 + (18 + 18 * len(found)) * len(rows),
    }
    return note, go.Figure(traces, layout)


def _keys(found: Mapping[str, Sequence[Explained]]) -> list[str]:
    """Every key, the one with the largest share first, and the seed last."""
    largest: dict[str, float] = {}
    for e in (e for its in found.values() for e in its):
        largest[e.key] = max(e.share, largest.get(e.key, e.share))
    return sorted(largest, key=lambda key: (key == SEED, -largest[key]))


def _text(key: str, found: Mapping[str, Sequence[Explained]]) -> str:
    shares = [next((f"{e.share:.2f}" for e in its if e.key == key), "-") for its in found.values()]
    return f"{_name(key)}  {' | '.join(shares)}"


def _name(key: str) -> str:
    return cut(html.escape(key, quote=False), 28)


def _bars(
    its: Sequence[Explained], places: Sequence[float], objective: str, i: int, step: float, objectives: int
) -> go.Bar:
    objective = html.escape(objective, quote=False)
    error: dict[str, Any] = {
        "array": [e.high - e.share for e in its],
        "arrayminus": [e.share - e.low for e in its],
        "color": INK,
        "thickness": 1.5,
        "width": 4,
    }
    return go.Bar(
        x=[e.share for e in its],
        y=places,
        width=0.9 * step if objectives > 1 else None,
        orientation="h",
        name="explained, and its 95 % interval" if objectives == 1 else objective,
        marker={"color": COLOURS[i % len(COLOURS)]},
        error_x=error,
        customdata=[(_name(e.key), e.trials, e.said) for e in its],
        hovertemplate=BOX + (f"<br>of {objective}" if objectives > 1 else "") + "<extra></extra>",
    )


def _marks(its: Sequence[Explained], places: Sequence[float], i: int, step: float) -> go.Scatter:
    return go.Scatter(
        x=[e.chance for e in its],
        y=places,
        mode="markers",
        name="what chance stays below in 19 of 20",
        legendgroup="chance",
        legendrank=2000,
        showlegend=not i,
        marker={"symbol": "line-ns", "size": max(8, 27 * step), "line": {"color": BEST, "width": 2}},
        hovertemplate="by chance up to %{x:.2f}<extra></extra>",
    )

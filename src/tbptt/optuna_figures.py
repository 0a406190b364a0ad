"""Optuna's own figures of a study, drawn from a copy that is made to be drawn, then given our labels.

The copy has rounded numbers, escaped names, values as they are typed, one objective at a time (with a function as
target Optuna takes every objective to be minimized), and none of the curves, which Optuna would write into its figures.
"""

import ast
import contextlib
import html
import logging
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from tbptt.config import OBJECTIVES, sign
from tbptt.explained import FEWEST, SEED, Explained, explained
from tbptt.figures import BEST, INK, LEGEND_ABOVE, STATES, axis_type
from tbptt.space import Value, short_value

MOST_LINES = 150  # trials in parallel coordinates, each a trace there, and in a contour, each a row and column
MOST_AXES = 8  # keys in parallel coordinates and with a slice; the most important ones
AXIS_WIDTH = 70  # pixels that an axis' labels need: on a narrow screen many axes can be scrolled sideways
MOST_CONTOURS = 3
EXPLAINED = "What explains the differences"
GOOD = 5  # trials that PED-ANOVA has to have among what it takes for good, else its result is chance

log = logging.getLogger("tbptt")


class Section(NamedTuple):
    """A part of the report: what it shows, how to read it, its figures side by side."""

    title: str
    note: str
    figures: list[go.Figure]


def sections(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> tuple[list[Section], list[str]]:
    """Optuna's figures of a study, and a line for each that its trials do not suffice for."""
    found: list[Section] = []
    missing: list[str] = []

    def add(what: str, make: Callable[[], Section]) -> None:
        try:
            found.append(make())
        except Exception as error:  # a plot must not cost a finished study its report
            log.warning("report: %s: %s: %s", what, type(error).__name__, error)
            missing.append(f"{what}: could not be drawn ({type(error).__name__}: {error}).")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials: the sections' own notes say it
        for i, objective in enumerate(objectives):
            view = View(trials, objective, i, f" of {objective}" if len(objectives) > 1 else "")
            if view.complete:
                add("History" + view.of, view.history)
            if view.explained:
                add(EXPLAINED + view.of, view.what_explains)
            else:
                missing.append(f"{EXPLAINED}{view.of}: needs {FEWEST} trials, and for a key two of each value.")
            if not view.complete:
                missing.append("History, importances, parallel coordinates, slices, contour: no trial is complete.")
                break
            if view.why_no_keys:
                missing.append(f"Importances, parallel coordinates, slices, contour{view.of}: {view.why_no_keys}.")
                continue
            add("Importances" + view.of, view.importances)
            if len(view.keys) > 1:
                add("Parallel coordinates" + view.of, view.parallel)
            add("Slices" + view.of, view.slices)
            if view.pairs:
                add("Contour" + view.of, view.contours)
            else:
                missing.append(f"Contour{view.of}: needs two keys that vary together.")
    return found, missing


@dataclass(frozen=True, eq=False)
class View:
    """A study as one of its objectives sees it.

    Attributes:
        i: which of the study's objectives it is.
        of: ends a title, where there are several.
    """

    trials: Sequence[FrozenTrial]
    objective: str
    i: int
    of: str

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        return [t for t in self.trials if t.state == TrialState.COMPLETE]

    @cached_property
    def study(self) -> optuna.Study:
        return drawable(self.complete, [self.objective], self.i)

    @property
    def good(self) -> int:
        """How many of the complete trials PED-ANOVA takes for good: a tenth, more where those are few."""
        n = len(self.complete)
        return math.ceil(n * min(0.5, max(0.1, GOOD / n)))

    @cached_property
    def evaluator(self) -> PedAnovaImportanceEvaluator:
        return PedAnovaImportanceEvaluator(target_quantile=self.good / len(self.complete))

    @cached_property
    def varied(self) -> list[str]:
        names = dict.fromkeys(name for t in self.complete for name in t.params)
        return [name for name in names if _varies(self.complete, name)]

    @cached_property
    def explained(self) -> list[Explained]:
        return explained(self.trials, self.i, self.objective)

    @cached_property
    def why_no_keys(self) -> str:
        if len(self.complete) < 2 or not self.varied:
            return "needs two complete trials at different points"
        if len({t.values[self.i] for t in self.complete}) == 1:
            return f"all complete trials have the same {self.objective}"
        return ""

    @cached_property
    def keys(self) -> list[str]:
        """The keys that vary, the most important first."""
        shares = get_param_importances(
            self.study, evaluator=self.evaluator, params=[html.escape(name, quote=False) for name in self.varied]
        )
        return [html.unescape(name) for name in shares]

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Clip and the keys of the schedule, where they are searched; else the two most important keys."""
        clips = [k for k in self.keys if k.split("@")[0] == "clip"]
        schedules = [k for k in self.keys if k.startswith("schedule.")] or [k for k in self.keys if k == "schedule"]
        wanted = [(a, b) for a in clips for b in schedules] or list(zip(self.keys[:1], self.keys[1:2], strict=False))
        return [pair for pair in wanted if all(_varies(_with(self.complete, pair), k) for k in pair)][:MOST_CONTOURS]

    def choice(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """As many trials as a figure stays quick with, by number: the best half, and an even choice of the others."""
        ranked = sorted(trials, key=lambda t: sign(self.objective) * t.values[self.i])
        half = MOST_LINES // 2
        if len(ranked) > MOST_LINES:
            ranked = [*ranked[:half], *ranked[half :: -(-(len(ranked) - half) // half)]]
        return sorted(ranked, key=lambda t: t.number)

    # --- the figures -----------------------------------------------------------------------------------------

    def history(self) -> Section:
        figure = visualization.plot_optimization_history(self.study, target_name=self.objective)
        dots, best = figure.data[:2]
        self._name_dots(dots, dots.x, "%{y:.4g}")
        dots.update(name="a complete trial", marker={"color": STATES["COMPLETE"], "size": 7})
        best.update(name="the best so far", line={"color": BEST, "shape": "hv"}, hoverinfo="skip")
        kind = axis_type(t.values[self.i] for t in self.complete)
        figure.update_layout(xaxis_title="trial", yaxis_type=kind, legend=LEGEND_ABOVE, height=400)
        return Section(f"History{self.of}", "", [figure])

    def what_explains(self) -> Section:
        found = self.explained[::-1]  # the topmost bar is the last
        names = [_cut(html.escape(e.key, quote=False), 28) for e in found]
        rows = list(range(len(found)))
        box = "<b>%{customdata[0]}</b>, %{customdata[1]} trials<br>%{customdata[2]}<extra></extra>"
        bars = go.Bar(
            x=[e.share for e in found],
            y=rows,
            orientation="h",
            name="explained, and its 95 % interval",
            marker={"color": STATES["COMPLETE"]},
            error_x={
                "array": [e.high - e.share for e in found],
                "arrayminus": [e.share - e.low for e in found],
                "color": INK,
                "thickness": 1.5,
                "width": 4,
            },
            customdata=[(name, e.trials, e.said) for name, e in zip(names, found, strict=True)],
            hovertemplate=box,
        )
        marks = go.Scatter(
            x=[e.chance for e in found],
            y=rows,
            mode="markers",
            name="what chance stays below in 19 of 20",
            marker={"symbol": "line-ns", "size": 22, "line": {"color": BEST, "width": 2}},
            hovertemplate="by chance up to %{x:.2f}<extra></extra>",
        )
        texts = [f"{name}  {e.share:.2f}" for name, e in zip(names, found, strict=True)]
        layout = {
            "xaxis": {"title": f"share of the differences in {html.escape(self.objective)}", "range": [0, 1]},
            "yaxis": {"tickvals": rows, "ticktext": texts},
            "legend": LEGEND_ABOVE,
            "height": 130 + 36 * len(found),
        }
        note = (
            "Each key on its own, among the trials that have it: how much of the differences in rank it explains "
            "beyond chance. A pruned trial is worse than any complete one. Left of its mark, nothing was found."
        )
        if found[0].key == SEED:
            note += " The seed's share is what no key can explain."
        return Section(EXPLAINED + self.of, note, [go.Figure([bars, marks], layout)])

    def importances(self) -> Section:
        figure = visualization.plot_param_importances(
            self.study, evaluator=self.evaluator, params=_escaped(self.keys), target_name=self.objective
        )
        bars = figure.data[0]
        bars.update(hovertemplate="%{y}: %{x:.2f}<extra></extra>", marker={"color": STATES["COMPLETE"]})
        figure.update_layout(
            xaxis={"title": "share of what makes a trial good", "range": [0, 1.1]},
            yaxis={"title": None, "tickvals": bars.y, "ticktext": [_cut(text, 28) for text in bars.y]},
            height=110 + 36 * len(self.keys),
        )
        note = f"PED-ANOVA: in which keys the best {self.good} of the {len(self.complete)} complete trials differ."
        note += " The shares add up to one, also where nothing matters."
        few = " With so few it is a hint, no more." if len(self.complete) < 10 * GOOD else ""
        return Section(f"Importances{self.of}", note + few, [figure])

    def parallel(self) -> Section:
        drawn, keys = self.choice(self.complete), _escaped(self.keys[:MOST_AXES])
        study = drawable(drawn, [self.objective], self.i)
        figure = visualization.plot_parallel_coordinate(study, params=keys, target_name=self.objective)
        axes = [self.objective, *sorted(keys)]
        number = self._number_by_height(drawn)
        for line in figure.data[:-1]:  # the last one is the colour bar's
            line.update(line={"width": 1.5}, opacity=0.7, meta={"trial": number.get(round(line.y[0], 9))})
            line.hovertemplate = "%{text}<br>%{customdata[0]}: %{customdata[1]}<extra></extra>"
        figure.layout.annotations = _apart(figure.layout.annotations)
        for annotation in figure.layout.annotations:
            annotation.update(text=_wrapped(annotation.text, 14), align="right", bgcolor="rgba(255,255,255,0.75)")
        figure.data[-1].marker.colorbar = _bar(self.objective)
        figure.update_layout(
            xaxis={"ticktext": [_name(text, 14) for text in axes], "tickangle": 0, "range": [-0.5, len(axes) - 0.8]},
            height=480,
            meta={"min_width": AXIS_WIDTH * len(axes)},
        )
        note = "A line is a trial, a dark one is good." + _said(drawn, self.complete)
        return Section(f"Parallel coordinates{self.of}", note, [figure])

    def slices(self) -> Section:
        note = "The objective along each key, the most important first; a dark dot is a late trial."
        return Section(f"Slices{self.of}", note, [self._slice(key) for key in self.keys[:MOST_AXES]])

    def _slice(self, key: str) -> go.Figure:
        figure = visualization.plot_slice(self.study, params=_escaped([key]), target_name=self.objective)
        dots, axis = figure.data[0], figure.layout.xaxis
        self._name_dots(dots, dots.marker.color, "%{y:.4g}")
        dots.marker.update(showscale=False, size=6, colorscale="Cividis", reversescale=True)
        if axis.type == "category":  # Optuna names a category by the repr of its value
            texts, upright = [str(ast.literal_eval(value)) for value in axis.categoryarray], len(axis.categoryarray) < 5
            ticks = [_wrapped(text, 12) if upright else _cut(text, 18) for text in texts]
            axis.update(tickvals=axis.categoryarray, ticktext=ticks, tickangle=0 if upright else -50)
            axis.range = [-0.5, len(texts) - 0.5]
        _space_ticks(axis, dots.x)
        axis.title = _name(key, 40)
        figure.update_layout(
            yaxis_type=axis_type(dots.y),
            height=320 if axis.tickangle is None or axis.tickangle == 0 else 380,
            margin_t=30,
        )
        return figure

    def contours(self) -> Section:
        (a, b), others = self.pairs[0], [pair[1] for pair in self.pairs[1:]]
        title = f"Contour{self.of}: {a} against {', '.join([b, *others])}"
        note = "A dot is a trial; between the dots the colour is interpolated, so trust it only near them."
        return Section(title, note, [self._contour(pair) for pair in self.pairs])

    def _contour(self, pair: tuple[str, str]) -> go.Figure:
        drawn = self.choice(_with(self.complete, pair))
        study = drawable(drawn, [self.objective], self.i)
        figure = visualization.plot_contour(study, params=_escaped(pair), target_name=self.objective)
        colours, dots = figure.data[:2]
        colours.update(colorbar=_bar(self.objective), line={"width": 0.5})
        self._name_dots(dots, [t.number for t in drawn], "%{hovertext}")
        dots.hovertext = [f"{t.values[self.i]:.4g}" for t in drawn]
        dots.update(marker={"size": 6, "color": "black", "line": {"width": 1, "color": "white"}})
        for axis, values in ((figure.layout.xaxis, colours.x), (figure.layout.yaxis, colours.y)):
            if axis.type == "category":
                axis.update(tickvals=values, ticktext=[_wrapped(text, 12) for text in values], tickangle=0)
            axis.title = _name(axis.title.text, 30)
            _space_ticks(axis, values)
        figure.update_layout(height=430)
        return figure

    def _name_dots(self, dots: go.Scatter, numbers: Sequence[int], value: str) -> None:
        """``value`` is the objective in the form of Plotly's templates."""
        template = f"%{{text}}<br>{self.objective} <b>{value}</b><extra></extra>"
        dots.update(customdata=list(numbers), hovertemplate=template)

    def _number_by_height(self, trials: Sequence[FrozenTrial]) -> dict[float, int]:
        """Optuna does not say which line of parallel coordinates is which trial; its height on the first axis does,
        unless two trials share it."""
        values = [_rounded(t.values[self.i], 6) for t in trials]
        low, high = min(values), max(values)
        heights = [round((v - low) / (high - low), 9) if high > low else 0.5 for v in values]
        return {h: t.number for h, t in zip(heights, trials, strict=True) if heights.count(h) == 1}


def pareto(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> Section | None:
    """The Pareto front of two or three objectives."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    if not complete or len(objectives) not in (2, 3):
        return None
    study = drawable(complete, objectives, *range(len(objectives)))
    figure = visualization.plot_pareto_front(study, target_names=list(objectives))
    values = "<br>".join(f"{o} <b>%{{{axis}:.4g}}</b>" for o, axis in zip(objectives, "xyz", strict=False))
    for dots, name, colour in zip(figure.data, ("dominated", "on the front"), ("#94a3b8", BEST), strict=True):
        numbers = list(dots.marker.color or ())
        dots.marker = {"color": colour, "size": 9 if len(objectives) == 2 else 4, "line": {"width": 0.5}}
        dots.update(name=name, showlegend=True, text=None, customdata=numbers)
        dots.hovertemplate = f"%{{text}}<br>{values}<extra></extra>"
    if len(objectives) == 2:
        kinds = [axis_type(t.values[i] for t in complete) for i in range(2)]
        figure.update_layout(xaxis_type=kinds[0], yaxis_type=kinds[1])
    figure.update_layout(legend=LEGEND_ABOVE, height=480)
    return Section("Pareto front", "No other trial is at least as good in every objective and better in one.", [figure])


# --- the copy -------------------------------------------------------------------------------------------------------


def drawable(trials: Sequence[FrozenTrial], objectives: Sequence[str], *which: int) -> optuna.Study:
    """A study in memory of complete trials and some of their values; numbers stay, other trials' places are blank."""
    study = optuna.create_study(directions=[cast(Any, OBJECTIVES[o]) for o in objectives])
    by_number = {t.number: t for t in trials}
    for number in range(max(by_number, default=-1) + 1):
        t = by_number.get(number)
        study.add_trial(_drawable(t, which) if t else create_trial(state=TrialState.FAIL))
    return study


def _drawable(trial: FrozenTrial, which: Sequence[int]) -> FrozenTrial:
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for name, value in trial.params.items():
        key, given = html.escape(name, quote=False), trial.distributions[name]
        if isinstance(given, CategoricalDistribution):
            texts = _category_texts(given.choices)
            params[key] = texts[int(given.to_internal_repr(value))]
            distributions[key] = CategoricalDistribution(sorted(set(texts), key=_numbers_first))
        elif isinstance(given, FloatDistribution):
            params[key] = min(max(_rounded(value, 4), given.low), given.high)
            distributions[key] = FloatDistribution(given.low, given.high, log=given.log)
        else:
            params[key], distributions[key] = value, given
    values = [_rounded(trial.values[i], 6) for i in which]
    return create_trial(state=TrialState.COMPLETE, params=params, distributions=distributions, values=values)


def _category_texts(choices: Sequence[Value]) -> list[Any]:
    """Numbers stay numbers, and so in their order; others are as they are typed."""
    if all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
        return [_rounded(c, 6) if isinstance(c, float) else c for c in choices]
    return [html.escape(short_value(c), quote=False) for c in choices]


def _numbers_first(text: Any) -> tuple[bool, float, str]:
    with contextlib.suppress(ValueError):
        return False, float(text), ""
    return True, 0.0, text


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _varies(trials: Sequence[FrozenTrial], name: str) -> bool:
    return len({str(t.params[name]) for t in trials if name in t.params}) > 1


def _with(trials: Sequence[FrozenTrial], names: Sequence[str]) -> list[FrozenTrial]:
    return [t for t in trials if all(name in t.params for name in names)]


def _escaped(names: Sequence[str]) -> list[str]:
    return [html.escape(name, quote=False) for name in names]


# --- labels ---------------------------------------------------------------------------------------------------------


def _wrapped(text: str, width: int) -> str:
    """A tick's text, escaped already or not, on at most three short lines."""
    lines = textwrap.wrap(html.unescape(text), width, max_lines=3, placeholder=" …") or [""]
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def _cut(text: str, width: int) -> str:
    text = html.unescape(text)
    return html.escape(text if len(text) <= width else text[: width - 1] + "…", quote=False)


def _apart(ticks: Sequence[Any]) -> list[Any]:
    """The texts along the axes of parallel coordinates without those that lie over one at an axis' end."""
    ends = {
        tick.x: (min(heights), max(heights)) for tick in ticks if (heights := [t.y for t in ticks if t.x == tick.x])
    }
    return [t for t in ticks if t.y in ends[t.x] or all(abs(t.y - end) > 0.05 for end in ends[t.x])]


def _space_ticks(axis: Any, values: Sequence[float]) -> None:
    """Of a log axis: at 1, 2 and 5, or at powers of ten, where Plotly writes many digits over each other."""
    if axis.type == "log":
        axis.dtick = "D2" if max(values) < 300 * min(values) else 1


def _name(text: str, width: int) -> str:
    """A key or a metric, which may also go on behind a mark."""
    return re.sub(r"([./_]) ", r"\1", _wrapped(re.sub(r"([./_])", r"\1 ", html.unescape(text)), width))


def _bar(objective: str) -> dict[str, Any]:
    """A colour bar that leaves a narrow screen to the plot."""
    title = {"text": objective, "side": "top"}
    place = {"x": 0.5, "xanchor": "center", "y": 1.0, "yanchor": "bottom", "len": 0.7}
    return {"orientation": "h", "thickness": 10, "title": title, "tickformat": ".3~g", **place}


def _said(drawn: Sequence[FrozenTrial], of: Sequence[FrozenTrial]) -> str:
    if len(drawn) == len(of):
        return ""
    return f" Drawn: {len(drawn)} of {len(of)} complete trials, the best and an even choice of the others."

"""Optuna's own figures of a study, with our labels, and two kinds that Optuna lacks: what explains the differences, and
medians of two keys if one of them has no order."""

import ast
import html
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import FrozenTrial

from tbptt.options.metrics import sign
from tbptt.options.values import short_value
from tbptt.reports import thinning
from tbptt.reports.drawable import drawable, numbers_first, rounded
from tbptt.reports.explained import FEWEST, Explained, explained, grouped
from tbptt.reports.explained_figure import what_explains
from tbptt.reports.figures import BEST, LEGEND_ABOVE, STATES, axis_type, cut, name_of, wrapped
from tbptt.reports.thinning import said
from tbptt.studies.ranking import best_first_by, complete, cost
from tbptt.studies.records import is_number

MOST_LINES = 150  # trials in parallel coordinates (a trace each) and in a contour (a row and a column each)
MOST_AXES = 8  # keys in parallel coordinates and with a slice: those that explain most
AXIS_WIDTH = 70  # pixels for an axis' labels: on a narrow screen, many axes can be scrolled sideways
MOST_PAIRS = 3  # of keys that are drawn together
EXPLAINED = "What explains the differences"

log = logging.getLogger("tbptt")


class Section(NamedTuple):
    """A part of the report: what it shows, how to read it, its figures side by side."""

    title: str
    note: str
    figures: list[go.Figure]


def sections(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> tuple[list[Section], list[str]]:
    """Optuna's figures of a study, and a line for each figure for which there are too few trials."""
    found: list[Section] = []
    missing: list[str] = []

    def add(what: str, make: Callable[[], Section]) -> None:
        try:
            found.append(make())
        except Exception as error:  # a plot must not cost a finished study its report
            log.warning("report: %s: %s: %s", what, type(error).__name__, error)
            missing.append(f"{what}: could not be drawn ({type(error).__name__}: {error}).")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of too few trials: the sections' own notes say it
        ofs = [f" of {objective}" if len(objectives) > 1 else "" for objective in objectives]
        views = [View(trials, objective, i, ofs[i]) for i, objective in enumerate(objectives)]
        for view in views:
            if view.complete:
                add("History" + view.of, view.history)
            if view is views[0]:  # one figure for all objectives
                explains = {each.objective: each.explained for each in views if each.explained}
                if explains:
                    add(EXPLAINED, partial(_what_explains, trials, explains))
                else:
                    missing.append(f"{EXPLAINED}: needs {FEWEST} trials, and for a key two of each value.")
            if not view.complete:
                missing.append("History, parallel coordinates, slices, two keys together: no trial is complete.")
                break
            if view.why_no_keys:
                missing.append(f"Parallel coordinates, slices, two keys together{view.of}: {view.why_no_keys}.")
                continue
            if len(view.keys) > 1:
                add("Parallel coordinates" + view.of, view.parallel)
            add("Slices" + view.of, view.slices)
            if view.pairs:
                add("Two keys together" + view.of, view.together)
            else:
                missing.append(f"Two keys together{view.of}: needs two keys that vary together.")
    return found, missing


def _what_explains(trials: Sequence[FrozenTrial], found: Mapping[str, Sequence[Explained]]) -> Section:
    note, figure = what_explains(trials, found)
    return Section(EXPLAINED, note, [figure])


@dataclass(frozen=True, eq=False)
class View:
    """A study as one of its objectives sees it.

    Attributes:
        i: the index of the objective in the study.
        of: the end of a title, if there are several objectives.
    """

    trials: Sequence[FrozenTrial]
    objective: str
    i: int
    of: str

    @cached_property
    def every(self) -> list[FrozenTrial]:
        return complete(self.trials)

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """The complete trials that are drawn one by one."""
        return self.choice(self.every, thinning.MOST_DRAWN)

    @cached_property
    def study(self) -> optuna.Study:
        return drawable(self.complete, [self.objective], self.i)

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
        """The keys that vary. Those with a known share come first, the largest first; then the others, as they were
        typed."""
        ranked = [e.key for e in self.explained if e.key in self.varied]
        return [*ranked, *(name for name in self.varied if name not in ranked)]

    @property
    def order(self) -> str:
        """How :attr:`keys` are ordered, in words."""
        return "the one that explains most first" if self.explained else "in the order in which they were typed"

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of clip and a key of the schedule, if both are searched; else the first two keys."""
        clips = [k for k in self.keys if k.split("@")[0] == "clip"]
        schedules = [k for k in self.keys if k.startswith("schedule.")] or [k for k in self.keys if k == "schedule"]
        wanted = [(a, b) for a in clips for b in schedules] or list(zip(self.keys[:1], self.keys[1:2], strict=False))
        return [pair for pair in wanted if all(_varies(_with(self.complete, pair), k) for k in pair)][:MOST_PAIRS]

    def choice(self, trials: Sequence[FrozenTrial], most: int = MOST_LINES) -> list[FrozenTrial]:
        """As many trials as a figure draws quickly, by number: the best ones as one half, an even choice of the others
        as the other."""
        ranked = best_first_by(trials, self.i, self.objective)
        return sorted(thinning.best_and_even(ranked, most), key=lambda t: t.number)

    # --- the figures -----------------------------------------------------------------------------------------

    def history(self) -> Section:
        numbers, (x, y) = [t.number for t in self.complete], self._best_so_far()
        dots = go.Scatter(x=numbers, y=[rounded(t.values[self.i], 6) for t in self.complete], mode="markers")
        self._name_dots(dots, numbers, "%{y:.4g}")
        dots.update(name="a complete trial", marker={"color": STATES["COMPLETE"], "size": 7})
        best = {"mode": "lines", "name": "the best so far", "line": {"color": BEST, "shape": "hv"}, "hoverinfo": "skip"}
        figure = go.Figure([dots, go.Scatter(x=x, y=y, **best)], {"yaxis_title": self.objective})
        kind = axis_type(t.values[self.i] for t in self.every)
        figure.update_layout(xaxis_title="trial", yaxis_type=kind, legend=LEGEND_ABOVE, height=400)
        _space_ticks(figure.layout.yaxis, [t.values[self.i] for t in self.every])
        return Section(f"History{self.of}", said(self.complete, self.every).strip(), [figure])

    def _best_so_far(self) -> tuple[list[int], list[float]]:
        """The best value so far, at each trial that improved it and at the last one. Of few trials, it is given at
        every one."""
        best = self.every[0].values[self.i]
        found: list[tuple[int, float]] = []
        for t in self.every:
            is_better = cost(t.values[self.i], self.objective) < cost(best, self.objective)
            best = t.values[self.i] if is_better else best
            if is_better or not found or len(self.every) == len(self.complete) or t is self.every[-1]:
                found.append((t.number, rounded(best, 6)))
        return [number for number, _ in found], [value for _, value in found]

    def parallel(self) -> Section:
        drawn, keys = self.choice(self.every), _escaped(self.keys[:MOST_AXES])
        study = drawable(drawn, [self.objective], self.i)
        figure = visualization.plot_parallel_coordinate(study, params=keys, target_name=self.objective)
        axes = [self.objective, *sorted(keys)]
        number = self._number_by_height(drawn)
        for line in figure.data[:-1]:  # the last one is the colour bar's
            line.update(line={"width": 1.5}, opacity=0.7, meta={"trial": number.get(round(line.y[0], 9))})
            line.hovertemplate = "%{text}<br>%{customdata[0]}: %{customdata[1]}<extra></extra>"
        figure.layout.annotations = _apart(figure.layout.annotations)
        for annotation in figure.layout.annotations:
            annotation.update(text=wrapped(annotation.text, 14), align="right", bgcolor="rgba(255,255,255,0.75)")
        figure.data[-1].marker.colorbar = _bar(self.objective)
        figure.update_layout(
            xaxis={"ticktext": [name_of(text, 14) for text in axes], "tickangle": 0, "range": [-0.5, len(axes) - 0.8]},
            height=480,
            meta={"min_width": AXIS_WIDTH * len(axes)},
        )
        note = "A line is a trial; the more it stands out from the page, the better." + said(drawn, self.every)
        return Section(f"Parallel coordinates{self.of}", note, [figure])

    def slices(self) -> Section:
        note = f"The objective along each key, {self.order}; the more a dot stands out, the later the trial."
        note += said(self.complete, self.every)
        return Section(f"Slices{self.of}", note, [self._slice(key) for key in self.keys[:MOST_AXES]])

    def _slice(self, key: str) -> go.Figure:
        figure = visualization.plot_slice(self.study, params=_escaped([key]), target_name=self.objective)
        dots, axis = figure.data[0], figure.layout.xaxis
        self._name_dots(dots, dots.marker.color, "%{y:.4g}")
        dots.marker.update(showscale=False, size=6, colorscale="Cividis", reversescale=True)
        if axis.type == "category":  # Optuna names a category by the repr of its value
            texts, upright = [str(ast.literal_eval(value)) for value in axis.categoryarray], len(axis.categoryarray) < 5
            ticks = [wrapped(text, 12) if upright else cut(text, 18) for text in texts]
            axis.update(tickvals=axis.categoryarray, ticktext=ticks, tickangle=0 if upright else -50)
            axis.range = [-0.5, len(texts) - 0.5]
        _space_ticks(axis, dots.x)
        axis.title = name_of(key, 40)
        figure.update_layout(
            yaxis_type=axis_type(dots.y),
            height=320 if axis.tickangle is None or axis.tickangle == 0 else 380,
            margin_t=30,
        )
        _space_ticks(figure.layout.yaxis, dots.y)
        return figure

    def together(self) -> Section:
        """A contour of two keys of numbers. If a key has no order, there is nothing to draw between its values, so the
        figure is a table of medians."""
        (a, b), others = self.pairs[0], [pair[1] for pair in self.pairs[1:]]
        title = f"Two keys together{self.of}: {a} against {', '.join([b, *others])}"
        ordered = [all(self._has_order(key) for key in pair) for pair in self.pairs]
        notes = []
        if any(ordered):
            notes.append("A dot is a trial; between the dots the colour is interpolated, so trust it only near them.")
        if not all(ordered):
            notes.append("In a cell: the median of the complete trials that have both values, and how many they are.")
        drawn = [self._contour(p) if o else self._medians(p) for p, o in zip(self.pairs, ordered, strict=True)]
        return Section(title, " ".join(notes), drawn)

    def _has_order(self, key: str) -> bool:
        return all(is_number(t.params[key]) for t in _with(self.complete, [key]))

    def _medians(self, pair: tuple[str, str]) -> go.Figure:
        drawn = _with(self.every, pair)
        values = np.array([t.values[self.i] for t in drawn])
        of = {key: _places([t.params[key] for t in drawn]) for key in pair}
        x, y = sorted(pair, key=lambda key: len(of[key]))
        cells = [[values[row & column] for column in of[x].values()] for row in of[y].values()]
        table = go.Heatmap(
            z=[[median(cell) if len(cell) else None for cell in row] for row in cells],
            text=[[f"{median(cell):.3g}<br>n = {len(cell)}" if len(cell) else "" for cell in row] for row in cells],
            texttemplate="%{text}",
            hoverinfo="skip",
            xgap=2,
            ygap=2,
            textfont={"color": "#0f172a"},
            colorscale=[[0, "rgb(247,251,255)"], [1, "rgb(107,174,214)"]],  # all so light that black is read on them
            reversescale=sign(self.objective) == 1,  # a dark one is good, as in a contour
            colorbar=_bar(self.objective),
        )
        upright = len(of[x]) < 5
        ticks = {
            x: [wrapped(text, 10) if upright else cut(text, 18) for text in of[x]],
            y: [wrapped(t, 12) for t in of[y]],
        }
        axes = {
            key: {"title": {"text": name_of(key, 30), "standoff": 20}, "tickvals": list(range(len(t))), "ticktext": t}
            for key, t in ticks.items()
        }
        angle, height = {"tickangle": 0 if upright else -50}, max(430, 200 + 44 * len(of[y]))
        figure = go.Figure(table, {"xaxis": axes[x] | angle, "yaxis": axes[y], "height": height})
        return figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)

    def _contour(self, pair: tuple[str, str]) -> go.Figure:
        drawn = self.choice(_with(self.every, pair))
        study = drawable(drawn, [self.objective], self.i)
        figure = visualization.plot_contour(study, params=_escaped(pair), target_name=self.objective)
        colours, dots = figure.data[:2]
        colours.update(colorbar=_bar(self.objective), line={"width": 0.5})
        self._name_dots(dots, [t.number for t in drawn], "%{hovertext}")
        dots.hovertext = [f"{t.values[self.i]:.4g}" for t in drawn]
        dots.update(marker={"size": 6, "color": "black", "line": {"width": 1, "color": "white"}})
        for axis, values in ((figure.layout.xaxis, colours.x), (figure.layout.yaxis, colours.y)):
            if axis.type == "category":
                axis.update(tickvals=values, ticktext=[wrapped(text, 12) for text in values], tickangle=0)
            axis.title = name_of(axis.title.text, 30)
            _space_ticks(axis, values)
        figure.update_layout(height=430)
        return figure

    def _name_dots(self, dots: go.Scatter, numbers: Sequence[int], value: str) -> None:
        """Give the dots their trials and their hover box. ``value`` is the objective in the form of Plotly's
        templates."""
        template = f"%{{text}}<br>{self.objective} <b>{value}</b><extra></extra>"
        dots.update(customdata=list(numbers), hovertemplate=template)

    def _number_by_height(self, trials: Sequence[FrozenTrial]) -> dict[float, int]:
        """The trial of each line in parallel coordinates, by the line's height on the first axis. Optuna does not say
        which trial a line is. Trials that share a height are left out."""
        values = [rounded(t.values[self.i], 6) for t in trials]
        low, high = min(values), max(values)
        heights = [round((v - low) / (high - low), 9) if high > low else 0.5 for v in values]
        return {h: t.number for h, t in zip(heights, trials, strict=True) if heights.count(h) == 1}


def _places(values: Sequence[Any]) -> dict[str, Any]:
    """A table's rows or columns by their texts, each with a mask of the values that it has. Each value is a row; if the
    values are many numbers, each row is a quarter of the trials."""
    found: list[tuple[Any, str, Any]] = []
    for inside in grouped(values).T > 0:
        its = [value for value, is_in in zip(values, inside, strict=True) if is_in]
        if len({repr(value) for value in its}) == 1:
            found.append((its[0], short_value(its[0]), inside))
        elif its:
            found.append((min(its), f"{min(its):.3g} to {max(its):.3g}", inside))
    found.sort(key=lambda place: numbers_first(short_value(place[0])))
    return {text: inside for _, text, inside in found}


def _varies(trials: Sequence[FrozenTrial], name: str) -> bool:
    return len({str(t.params[name]) for t in trials if name in t.params}) > 1


def _with(trials: Sequence[FrozenTrial], names: Sequence[str]) -> list[FrozenTrial]:
    return [t for t in trials if all(name in t.params for name in names)]


def _escaped(names: Sequence[str]) -> list[str]:
    return [html.escape(name, quote=False) for name in names]


# --- labels ---------------------------------------------------------------------------------------------------------


def _apart(ticks: Sequence[Any]) -> list[Any]:
    """The texts along the axes of parallel coordinates, without those that overlap a text at an axis' end."""
    ends = {
        tick.x: (min(heights), max(heights)) for tick in ticks if (heights := [t.y for t in ticks if t.x == tick.x])
    }
    return [t for t in ticks if t.y in ends[t.x] or all(abs(t.y - end) > 0.05 for end in ends[t.x])]


def _space_ticks(axis: Any, values: Sequence[float]) -> None:
    """Set the ticks of a log axis at 1, 2 and 5, or at powers of ten. Plotly itself writes many digits over each
    other."""
    if axis.type == "log":
        axis.dtick = "D2" if max(values) < 300 * min(values) else 1


def _bar(objective: str) -> dict[str, Any]:
    """A colour bar that leaves a narrow screen to the plot."""
    title = {"text": objective, "side": "top"}
    place = {"x": 0.5, "xanchor": "center", "y": 1.0, "yanchor": "bottom", "len": 0.7}
    return {"orientation": "h", "thickness": 10, "title": title, "tickformat": ".3~g", **place}

"""One style for all figures of a paper: a column's or a page's width, text of 8 pt in print, colours that the
colour-blind tell apart, and lines that everybody does in black and white."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import convert_to_RGB_255, sample_colorscale, unconvert_from_RGB_255, unlabel_rgb

from tbptt.reports.figures import INK, name_of

INCH = 96  # pixels, as Plotly, SVG and PDF have them
COLUMN, PAGE = 3.5 * INCH, 7.0 * INCH  # widths of figures
TEXT = 8 / 72 * INCH  # 8 pt
SMALL = 7 / 72 * INCH
LINE = 1.25  # pixels
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999")  # Okabe and Ito's
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "8px,2px,2px,2px,2px,2px", "2px,1px")
SYMBOLS = ("circle", "diamond", "x", "square")
AXIS = {
    "automargin": True,
    "exponentformat": "power",
    "gridcolor": "#e6e6e6",
    "gridwidth": 0.5,
    "linecolor": "black",
    "linewidth": 0.75,
    "showline": True,
    "tickcolor": "black",
    "ticklen": 3,
    "ticks": "outside",
    "tickwidth": 0.75,
    "title": {"standoff": 6, "font": {"size": TEXT}},
    "zeroline": False,
}
STYLE = go.layout.Template(
    layout={
        "colorway": COLOURS,
        "font": {"family": "Arial, Helvetica, Liberation Sans, sans-serif", "size": TEXT, "color": "black"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8, "autoexpand": True},
        "xaxis": AXIS,
        "yaxis": AXIS,
    }
)
BAR = {  # a colour bar on the right: below one on top, Plotly puts the title of the axis onto its ticks
    "orientation": "v",
    "x": 1.02,
    "xanchor": "left",
    "y": 0.5,
    "yanchor": "middle",
    "len": 1,
    "thickness": 7,
    "outlinewidth": 0.5,
    "tickfont": {"size": SMALL},
    "title": {"side": "right", "font": {"size": TEXT}},
}
# A legend lies above what is drawn, and never on it.
LEGEND = {
    "orientation": "h",
    "x": 0,
    "xanchor": "left",
    "y": 1.02,
    "yanchor": "bottom",
    "font": {"size": SMALL},
    "title": {"font": {"size": TEXT}},
    "itemwidth": 30,
    "bgcolor": "rgba(0,0,0,0)",
    "borderwidth": 0,
}


def styled(figure: go.Figure, wide: bool, height: float | None = None) -> go.Figure:
    """A copy of a figure in the style of papers: without a title, menus and what needs a mouse.

    Args:
        wide: whether it is as wide as a page, and not as a column.
        height: in pixels; None for one that suits the figure.
    """
    made = go.Figure(figure)
    for i, trace in enumerate(figure.data):
        if trace.type == "heatmap":
            _as_cells(made, i)
    tall = made.layout.height or 420
    made.update_layout(
        template=STYLE,
        title=None,
        updatemenus=[],
        sliders=[],
        hovermode=False,
        autosize=False,
        width=PAGE if wide else COLUMN,
        height=height or min(max(0.62 * tall, 2.1 * INCH), 6 * INCH),
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        font=None,
        legend={**LEGEND, "traceorder": made.layout.legend.traceorder},
    )
    made.update_layout(legend_title_text=figure.layout.legend.title.text)
    for axis, most in ((made.layout.xaxis, 80 if wide else 38), (made.layout.yaxis, 34)):
        if axis.title.text and "<br>" not in axis.title.text:
            axis.title.text = name_of(axis.title.text, most)
        axis.title.standoff = None
    for trace in made.data:
        _thin(trace)
    marked = [trace for trace in made.data if trace.type == "scatter" and trace.mode == "markers"]
    for trace, symbol in zip(marked, SYMBOLS, strict=False):  # as colours are not seen in black and white
        trace.marker.symbol = trace.marker.symbol or symbol
    if _is_parallel(made):
        _darker(made)
    for letter in "xy":
        _space_ticks(made.layout[f"{letter}axis"], [v for trace in made.data for v in _numbers(trace, letter)])
    return made


def _numbers(trace: Any, letter: str) -> list[float]:
    values = getattr(trace, letter, None)
    return [v for v in (() if values is None else values) if isinstance(v, int | float) and v > 0]


def _space_ticks(axis: Any, values: Sequence[float]) -> None:
    """Set the ticks of a log axis at 1, 2 and 5, or at powers of ten; Plotly itself writes more than there is room
    for."""
    if axis.type == "log":
        axis.tickformat = "~g"
        axis.dtick = "D2" if values and max(values) < 300 * min(values) else 1


def _thin(trace: Any) -> None:
    """Lines and marks as thin and small as print can have them."""
    if trace.type in ("scatter", "scatter3d"):
        if isinstance(trace.line.width, int | float) and trace.line.width > 0:
            trace.line.width = min(max(0.6 * trace.line.width, 0.75), 2.0)
        if isinstance(trace.marker.size, int | float):
            trace.marker.size = max(0.6 * trace.marker.size, 2.5)
    if trace.type == "bar" and trace.marker.pattern.shape:  # PDF would have a pattern as an image
        trace.marker.update(pattern=None, line={"color": "black", "width": 1})
    if trace.type == "contour":
        trace.contours.coloring = "fill"  # "heatmap", which Optuna chooses, is an image of pixels
    coloured = trace.marker if trace.type in ("scatter", "bar") else trace
    if coloured.to_plotly_json().get("colorbar"):
        coloured.colorbar.update(BAR)


def _is_parallel(figure: go.Figure) -> bool:
    """Whether a figure is one of Optuna's parallel coordinates."""
    return len(figure.layout.annotations) > 0 and any(trace.meta for trace in figure.data)


def _darker(figure: go.Figure) -> None:
    """Give the lines of parallel coordinates colours that are seen on white paper, where the palest one is white."""
    figure.update_xaxes(showline=False, ticks="")
    for trace in figure.data:
        if isinstance(trace.line.color, str) and trace.line.color.startswith("rgb("):
            trace.line.color = _mixed(trace.line.color)
        if trace.marker.colorscale:
            trace.marker.colorscale = [[at, _mixed(colour)] for at, colour in trace.marker.colorscale]


def _mixed(colour: str) -> str:
    return "rgb({:.0f},{:.0f},{:.0f})".format(*(0.8 * part for part in unlabel_rgb(colour)))


def _colour(scale: Sequence[tuple[float, str]], at: float) -> tuple[int, int, int]:
    """Red, green and blue of a colour scale of ``rgb(…)`` at a place from 0 to 1."""
    tuples = [[place, unconvert_from_RGB_255(unlabel_rgb(colour))] for place, colour in scale]
    (found,) = sample_colorscale(tuples, [at], colortype="tuple")
    red, green, blue = convert_to_RGB_255(found)
    return red, green, blue


def _as_cells(figure: go.Figure, i: int) -> None:
    """Draw a table of numbers with rectangles and texts in place of trace ``i``, which Plotly would draw as an image
    of pixels."""
    table = figure.data[i]
    values = [[None if v is None or not math.isfinite(v) else float(v) for v in row] for row in table.z]
    known = [v for row in values for v in row if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    scale = [(at, colour) for at, colour in table.colorscale]
    marks: dict[str, list[Any]] = {"x": [], "y": [], "text": [], "value": [], "ink": []}
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value is None:
                continue
            share = 0.5 if high == low else (value - low) / (high - low)
            red, green, blue = _colour(scale, 1 - share if table.reversescale else share)
            place = {"x0": x - 0.48, "x1": x + 0.48, "y0": y - 0.48, "y1": y + 0.48}
            figure.add_shape(type="rect", layer="below", line_width=0, fillcolor=f"rgb({red},{green},{blue})", **place)
            is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
            for name, one in zip(marks, (x, y, table.text[y][x], value, "white" if is_dark else INK), strict=True):
                marks[name].append(one)
    bar = table.colorbar.to_plotly_json()
    figure.data = [trace for k, trace in enumerate(figure.data) if k != i]
    figure.add_scatter(
        x=marks["x"],
        y=marks["y"],
        text=marks["text"],
        mode="markers+text",
        textposition="middle center",
        textfont={"color": marks["ink"], "size": SMALL},
        showlegend=False,
        marker={
            "opacity": 0,
            "color": marks["value"],
            "colorscale": scale,
            "reversescale": table.reversescale,
            "showscale": True,
            "colorbar": bar,
        },
    )
    figure.update_xaxes(range=[-0.5, len(values[0]) - 0.5]).update_yaxes(range=[-0.5, len(values) - 0.5])

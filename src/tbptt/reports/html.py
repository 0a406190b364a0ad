"""Pages of their own: a template, what it shows, and figures that Plotly draws without a network."""

import base64
import gzip
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from html import unescape
from types import MappingProxyType
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tbptt.reports import figures

MOST_NAMED = 6  # traces that a figure's description names
LONGEST_NAME = 80  # letters of an id, or of a file's name without its end
PLOTLY = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
    "showSendToCloud": False,  # Plotly's button that uploads a figure and its data; it is there by default
    "plotlyServerURL": "",
}


@cache
def environment() -> jinja2.Environment:
    """The templates of the pages. What they show is data: Jinja escapes it."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tbptt.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def rendered(
    template: str,
    figures: Iterable[Mapping[str, Any]],
    labels: Mapping[int, str],
    also: Mapping[str, str] = MappingProxyType({}),
    **content: Any,
) -> str:
    """A page, from the template of this name.

    Args:
        figures: those of the page, from :func:`embedded`.
        labels: of trials, by number: the text of a hover box (:func:`tbptt.reports.figures.label`).
        also: what else the page's scripts draw, JSON by name.
        content: what else the template shows.
    """
    packed_figures = drawn(figures, labels, **also)
    content.setdefault("live", None)
    return environment().get_template(template).render(plotly=_plotly(), drawn=packed_figures, **content)


def drawn(figures: Iterable[Mapping[str, Any]], labels: Mapping[int, str], **also: str) -> str:
    """What the page's scripts draw, compressed: ``figures`` by id, ``labels``, Plotly's ``config``; and ``also``, JSON
    by name."""
    parts = {
        "figures": "{" + ",".join(f"{json.dumps(f['id'])}:{f['json']}" for f in figures) + "}",
        "labels": json.dumps(labels),
        "config": json.dumps(PLOTLY),
        **also,
    }
    return packed("{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in parts.items()) + "}")


def packed(text: str) -> str:
    """A text for a page's scripts: gzip, in letters that no HTML parser takes for an end of it."""
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


@cache
def _plotly() -> str:
    return packed(get_plotlyjs())


def slug(text: str) -> str:
    """A text as part of an id or of a file's name: lower-case ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_NAME].strip("-") or "figure"


def embedded(figure: go.Figure, name: str, title: str = "") -> dict[str, Any]:
    """What the pages' templates need of a figure: ``id`` (its name), ``label`` (what a screen reader says of it),
    ``json``, ``height``, ``min_width``. The figure also gets the pages' style."""
    figure.update_layout(
        template="plotly_white",
        title=None,
        font={"family": "system-ui, sans-serif", "size": 12, "color": figures.INK},
        margin={"l": 10, "r": 14, "t": figure.layout.margin.t or 60, "b": 10},
        width=None,
        autosize=True,
        hoverlabel={"align": "left", "namelength": -1},
    )
    axes = {"automargin": True, "exponentformat": "power"}  # "B", the default, writes 0.0001 as 100µ
    figure.update_xaxes(axes).update_yaxes(axes)
    for choose in (figure.update_xaxes, figure.update_yaxes):  # else Plotly writes small digits between powers of ten
        choose(selector={"type": "log"}, tickformat="~g")
    return {
        "id": name,
        "label": _described(figure, title or name.replace("-", " ").capitalize()),
        "json": figure.to_json(),
        "height": figure.layout.height,
        "min_width": (figure.layout.meta or {}).get("min_width", 0),
    }


def _described(figure: go.Figure, title: str) -> str:
    """What a figure shows, in words: its title, its axes, its named traces."""
    names = [plain(axis.title.text) for axis in (figure.layout.yaxis, figure.layout.xaxis) if axis.title.text]
    drawn = [plain(trace.name) for trace in figure.data if trace.name]
    parts = [title, " by ".join(names), ", ".join(list(dict.fromkeys(drawn))[:MOST_NAMED])]
    return ": ".join(part for part in parts if part)


def plain(text: str) -> str:
    """A text of a figure without Plotly's HTML."""
    return unescape(re.sub(r"<br ?/?>", " ", text))

"""A picture of predictions: of each series its price with the side to be on, and the predictions beside the truth."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.system.files import refuse_link, replaced
from tbptt.system.runtime import CONTROL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_SERIES, MOST_OUTPUTS, LAST = 6, 4, 500
WIDTH, DPI = 12.0, 100  # inches; 1200 pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by the colour-blind, too
LONG, SHORT = "#56b4e9", "#e69f00"
# Series that the run did not learn from come first; a part that is not known ("") may be one that it did.
ORDER = ("test", "new", "val", "", "train")
PARTS = {"train": "train: trained on", "val": "val: chosen by", "test": "test: judged by", "new": "new"}


def draw(
    table: "pd.DataFrame", outputs: list[str], unit: str, title: str, path: Path, last: int | None = None
) -> list[str]:
    """Draw a table of predictions into a PNG file, which is replaced whole.

    Of more than MOST_SERIES series, those come first whose last row is of the test part or new, then of val, then of
    train. Above each stands which part its rows are of, where that is known.

    Args:
        table: as :func:`tbptt.serving.table.table_of` gives it.
        outputs: the names of the task's outputs.
        unit: theirs, in words.
        last: how many steps of each series are drawn; None for 500.

    Returns:
        What the picture leaves out, in words.

    Raises:
        ValueError: there is nothing to draw, or the file is a link.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    refuse_link(path)
    names = _in_order(table)
    if not names:
        raise ValueError("there is no step to draw")
    shown, drawn = names[:MOST_SERIES], outputs[:MOST_OUTPUTS]
    figure = Figure(figsize=(WIDTH, 1.3 + 3.6 * len(shown)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [1.0, 1.0] * len(shown)
    axes = figure.subplots(2 * len(shown), 1, sharex=False, height_ratios=ratios, squeeze=False)[:, 0]
    for i, name in enumerate(shown):
        rows = table[table["series"] == name].iloc[-(last or LAST) :]
        _draw_series(axes[2 * i], axes[2 * i + 1], rows, drawn, name)
        axes[2 * i + 1].set_ylabel(f"prediction,\n{unit}")
    handles, labels = _legend(axes)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)), frameon=False)
    figure.suptitle(_plain(title), fontsize=12, parse_math=False)
    with warnings.catch_warnings(), replaced(path) as beside:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that the font lacks
        figure.savefig(beside, format="png")
    left = [f"{len(names) - len(shown)} more series"] if len(names) > len(shown) else []
    left += [f"{len(outputs) - len(drawn)} more outputs"] if len(outputs) > len(drawn) else []
    longest = int(table["series"].value_counts().max())
    return [*left, *([f"steps before the last {last or LAST:,}"] if longest > (last or LAST) else [])]


def _in_order(table: "pd.DataFrame") -> list[str]:
    """The names of the series by the part of their last row, as ORDER says; else as the table has them."""
    last = table.groupby("series", sort=False)["part"].last()
    return sorted(last.index, key=lambda name: ORDER.index(last[name]))


def _draw_series(above: "Axes", below: "Axes", rows: "pd.DataFrame", outputs: list[str], name: str) -> None:
    times = "time" in rows.columns
    x: Any = rows["time"].dt.tz_localize(None).to_numpy() if times else rows["row"].to_numpy()
    above.plot(x, rows["price"].to_numpy(), color="black", linewidth=1.2, label="price")
    above.set_title(_plain(name), loc="left", fontsize=11, fontweight="bold", pad=16, parse_math=False)
    above.set_ylabel("price")
    above.ticklabel_format(axis="y", useOffset=False)  # it would be written over the part's name
    if "side" in rows.columns:
        _shade(above, x, rows["side"].to_numpy())
    for output, colour in zip(outputs, COLOURS, strict=False):
        true = rows[f"true_{output}"].to_numpy() if f"true_{output}" in rows.columns else None
        if true is not None and np.isfinite(true).any():
            below.plot(x, true, color=colour, linewidth=1.0, alpha=0.45, linestyle=(0, (3, 1)), label=f"{output}, true")
        below.plot(x, rows[output].to_numpy(), color=colour, linewidth=1.5, label=f"{output}, predicted")
    below.axhline(0, color="0.6", linewidth=0.7, zorder=0)
    for axes in (above, below):
        _mark_parts(axes, x, rows["part"].to_numpy(), named=axes is above)
        axes.margins(x=0.01)
        axes.grid(alpha=0.25)
        if times:
            _dates(axes)
    above.tick_params(labelbottom=False)
    below.set_xlim(above.get_xlim())
    if not times:
        below.set_xlabel("row")


def _dates(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _shade(axes: "Axes", x: Any, side: Any) -> None:
    """The side to be on, as the background of the steps until the next price."""
    for value, colour, word in ((1, LONG, "long"), (-1, SHORT, "short")):
        where = side == value
        if where.any():
            where = where | np.concatenate(([False], where[:-1]))  # up to the next price
            across = axes.get_xaxis_transform()
            axes.fill_between(
                x, 0, 1, where=where, transform=across, step="post", color=colour, alpha=0.25, linewidth=0, label=word
            )


def _mark_parts(axes: "Axes", x: Any, parts: Any, named: bool) -> None:
    """A line where another part begins, and its name at the top."""
    begins = [0, *(np.flatnonzero(parts[1:] != parts[:-1]) + 1).tolist()] if len(parts) else []
    for at in begins:
        if at:
            axes.axvline(x[at], color="0.35", linewidth=0.9, linestyle=":")
        if named and parts[at]:
            axes.text(
                x[at],
                1.01,
                f" {PARTS.get(parts[at], parts[at])}",
                transform=axes.get_xaxis_transform(),
                fontsize=8.5,
                color="0.3",
                va="bottom",
            )


def _legend(axes: Any) -> tuple[list[Any], list[str]]:
    """Each label once."""
    found: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _plain(text: str) -> str:
    return CONTROL.sub("?", text).replace("\n", " ")[:120]

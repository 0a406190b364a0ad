"""One series out of a column: blanks before and after it cut, blanks inside treated as ``data.gaps`` says."""

from collections.abc import Callable, Sequence

import numpy as np

from tbptt.data.panel import DataError, Rows, Series
from tbptt.data.panels.inputs import formed, unformed
from tbptt.data.prices import Prices, fewest


class TooFew(ValueError):
    """A series with fewer than two prices; ``count`` of them."""

    def __init__(self, column: str, count: int) -> None:
        self.said = f"{count} price{'' if count == 1 else 's'}"
        super().__init__(f"{column} holds {self.said}; a series needs at least 2")


def without_gaps(
    values: Prices, rows: Rows, gaps: str, where: Callable[[int], str], column: str, when: Callable[[int], str]
) -> tuple[Prices, Rows, int]:
    """Prices without blanks, which rows of ``values`` they are, and how many blanks inside were treated.

    Args:
        values: (M,) of the table's rows ``rows`` (M,), NaN where blank.
        gaps: refuse, drop or carry.
        where: the place of a row of the table, in words.
        column: the source and the column, in words.
        when: the time of a row of the table, in words that stand behind its place; "" if there are no times.

    Raises:
        ValueError: one line; a blank inside with ``refuse``, fewer than two prices, or one that is not finite.
    """
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < fewest():
        raise TooFew(column, len(known))
    if not len(known):
        return values[:0], known, 0
    first, last = int(known[0]), int(known[-1])
    infinite = np.isinf(values)
    if infinite.any():
        at = _first_in_file(np.flatnonzero(infinite), rows)
        raise ValueError(f"{column}, {where(int(rows[at]))}: {values[at]} is not a finite number")
    inside = np.arange(first, last + 1)
    blanks = len(inside) - len(known)
    if not blanks:
        return values[first : last + 1], inside, 0
    if gaps == "drop":
        return values[known], known, blanks
    if gaps == "carry":
        return values[known[np.searchsorted(known, inside, side="right") - 1]], inside, blanks
    at = _first_in_file(inside[np.isnan(values[first : last + 1])], rows)
    raise DataError(
        f"{column}, {where(int(rows[at]))}{when(int(rows[at]))}: a blank inside the series; data.gaps=drop "
        "leaves such rows out of the series, data.gaps=carry repeats the price before",
        "data.gaps",
    )


def _first_in_file(places: Rows, rows: Rows) -> int:
    """Of several places, the one that comes first in the file, which may be newest first."""
    return int(places[rows[places].argmin()])


def with_inputs(
    prices: Prices,
    panel_rows: Rows,
    table_rows: Rows,
    inputs: Sequence[tuple[str, str, Prices | None]],
    where: Callable[[int], str],
    source: str,
) -> Series:
    """A series and its other inputs, (N, D).

    Args:
        prices: (N,), of the panel's rows ``panel_rows`` and the table's rows ``table_rows``.
        inputs: of each input the column's name, the form and its values by row of the table; None: it has none.

    Raises:
        ValueError: one line; a value is not finite or not one that the form takes.
    """
    found = np.full((len(prices), len(inputs)), np.nan)
    for i, (name, form, column) in enumerate(inputs):
        if column is None:
            continue
        values = column[table_rows]
        if (wrong := unformed(form, values)) is not None:
            at = f"{source}, column {name}, {where(int(table_rows[wrong]))}"
            raise DataError(f"{at}: {values[wrong]:g} is {_what(form, float(values[wrong]))}", "data.inputs")
        found[:, i] = formed(form, values, prices)
    return Series(prices, panel_rows, found)


def _what(form: str, value: float) -> str:
    if not np.isfinite(value):
        return "not a finite number"
    return f"nothing that the form {form} takes; the form change or level takes it"

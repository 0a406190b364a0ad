"""Series that lie in one column one after the other or in turn, without a time that repeats: not one series."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.panel import DataError, Rows
from tbptt.data.panels.columns import kind_of
from tbptt.data.panels.long_format import BY_WORDS
from tbptt.data.prices import Prices
from tbptt.data.tables.names import words_of

if TYPE_CHECKING:
    from tbptt.data.tables.files import Table

FAR = 10  # a jump between groups of more than this many steps inside of them: other prices
OFTEN = 5  # such jumps: no chance, and no single event such as a split
FEW_VALUES = 20  # of a column of whole numbers that may name series


def refuse_mixed(
    table: "Table", prices: dict[str, Prices], rows: Rows, others: list[str], timed: bool, source: str
) -> list[str]:
    """What is said of columns that may name several series, while all rows are taken as one.

    Args:
        prices: (R,) of each series by its column.
        rows: (M,) of the table, oldest first.
        others: columns that are neither times nor series.
        timed: whether the table has times.

    Raises:
        DataError: the prices jump wherever the value of such a column changes, or a column such as ticker has several
            values in a table without times.
    """
    said = []
    for name in others:
        column = table.frame[name]
        kind = kind_of(column)
        called = bool(set(words_of(name)) & BY_WORDS) and len(words_of(name)) <= 3
        if kind != "text" and not (kind == "number" and column.dtype.kind in "iu"):
            continue
        codes, values = _groups(column, rows)
        if not 1 < values <= (len(rows) // 2 if kind == "text" else FEW_VALUES):
            continue
        jumps = max((_jump(each[rows], codes) for each in prices.values()), default=(0, 0))
        far = jumps[0] > FAR and (jumps[1] >= OFTEN or called)
        if far or (called and kind == "text" and not timed):
            why = f"and {next(iter(prices))} jumps where it changes" if far else "and there are no times"
            raise DataError(
                f"{source}, column {name}: it has {values} values, {why}: several series in one? data.by={name} makes "
                f"a series of each, data.columns=[{next(iter(prices))}] takes all rows as one",
                "data.by",
            )
        if called and kind == "text":
            said.append(f"all rows are one series, whatever {name} says; a series of each: data.by={name}")
    return said


def _groups(column: Any, rows: Rows) -> tuple[Rows, int]:
    import pandas as pd

    codes, values = pd.factorize(column.iloc[rows])
    return codes.astype(np.int64), len(values)


def _jump(values: Prices, codes: Rows) -> tuple[float, int]:
    """How much larger steps to another group are than those within one, and how many there are."""
    changes = codes[1:] != codes[:-1]
    order = np.argsort(codes, kind="stable")
    inside = np.abs(np.diff(values[order]))[codes[order][1:] == codes[order][:-1]]
    across = np.abs(np.diff(values))[changes]
    inside, across = (each[np.isfinite(each)] for each in (inside, across))
    if not len(inside) or not len(across):
        return 0.0, 0
    usual = float(np.median(inside)) or float(inside.mean())
    return (float(np.median(across)) / usual if usual else 0.0), len(across)

"""Long format: one row for each time of each series, and a column that names the series."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.panel import DataError, Rows, Times
from tbptt.data.panels.calendar import said
from tbptt.data.panels.columns import and_list, kind_of, line_of, listed, resolved
from tbptt.data.tables.names import NAMES, words_of

if TYPE_CHECKING:
    from tbptt.data.options import TableData
    from tbptt.data.tables.files import Table

BY_WORDS = frozenset(NAMES.split())  # what a column that names series may be called


@dataclass(frozen=True, eq=False)
class Groups:
    """Which series each row belongs to.

    Attributes:
        column: the column that names the series.
        codes: (R,) the series' number; -1 where the column is blank.
        names: of the series, in the order in which they come first.
    """

    column: str
    codes: Rows
    names: tuple[str, ...]


def groups_of(
    table: "Table", data: "TableData", source: str, times: Times | None, taken: tuple[str, ...], guess: bool
) -> Groups | None:
    """The series of a table in long format; None if it is in wide format.

    ``data.by`` says it. Else a table is in long format if its times repeat, but not within each value of a column; a
    column such as ``<TICKER>`` with one value gives its one series a name.

    Args:
        times: (R,), NaT where a row has none.
        taken: columns that are times.

    Raises:
        ValueError: there is no such column; several could be the one.
    """
    names = list(map(str, table.frame.columns))
    if data.by is not None:
        if (name := resolved(data.by, names)) is None:
            raise DataError(
                f"{source} has no column {data.by}, which data.by names (it has: {listed(names)})", "data.by"
            )
        groups = _groups(table, name)
        if len(groups.names) > len(groups.codes) // 2 and len(groups.codes) > 2:
            raise DataError(
                f"{source}, column {name}: {len(groups.names)} different values in {len(groups.codes)} rows are no "
                "names of series, each of which has many rows",
                "data.by",
            )
        return groups
    if not guess or times is None:
        return None
    free = [name for name in names if name not in taken]
    known = ~np.isnat(times)
    codes = np.unique(times[known], return_inverse=True)[1]
    if len(codes) and int(codes.max()) + 1 == len(codes):
        return _of_one(table, free)
    found = [each for name in free if (each := _if_it_names(table, name, codes, known)) is not None]
    if len(found) > 1 and not all(_same_parts(found[0], other) for other in found[1:]):
        keys = " or ".join(f"data.by={each.column}" for each in found)
        raise DataError(
            f"{source}: times repeat, and several columns could name the series; {keys} says which", "data.by"
        )
    if not found:
        _refuse_repeated(table, free, times, taken, source)
    return found[0] if found else None


def _refuse_repeated(table: "Table", free: list[str], times: Times, taken: tuple[str, ...], source: str) -> None:
    """Raises DataError if a column is called a name of series, but a time is there twice in one of them."""
    known = np.flatnonzero(~np.isnat(times))
    for name in free:
        if not set(words_of(name)) & BY_WORDS or not _may_name(name, table.frame[name]):
            continue
        groups = _groups(table, name)
        codes = groups.codes[known]
        if codes.min() < 0 or not 1 < len(groups.names) <= len(codes) // 2:
            continue
        order = np.lexsort((times[known], codes))
        same = (np.diff(codes[order]) == 0) & (times[known][order][1:] == times[known][order][:-1])
        if not same.any():
            continue
        rows = [sorted((int(known[order[i]]), int(known[order[i + 1]]))) for i in np.flatnonzero(same)]
        earlier, later = min(rows, key=lambda pair: pair[1])
        raise DataError(
            f"{source}, columns {and_list([*taken, name])}, {line_of(table, later)}: {said(times[later])} is there "
            f"twice for {groups.names[groups.codes[later]]}, also in {line_of(table, earlier)}; leave one of them out, "
            "or name with data.by the column that tells the series apart",
            "data.by",
        )


def _of_one(table: "Table", free: list[str]) -> Groups | None:
    """A table of one series, named by a column that has its name in all rows."""
    for name in free:
        column = table.frame[name]
        if kind_of(column) == "text" and set(words_of(name)) & BY_WORDS and column.nunique() == 1:
            return _groups(table, name)
    return None


def _may_name(name: str, column: Any) -> bool:
    kind = kind_of(column)
    return kind == "text" or (kind == "number" and column.dtype.kind in "iu" and bool(set(words_of(name)) & BY_WORDS))


def _if_it_names(table: "Table", name: str, times: Rows, known: Any) -> Groups | None:
    """The series that a column names, if no time is there twice in any of them."""
    if not _may_name(name, table.frame[name]):
        return None
    groups = _groups(table, name)
    codes = groups.codes[known]
    if codes.min() < 0 or not 1 < len(groups.names) <= len(codes) // 2:
        return None
    each = np.sort(codes * (int(times.max()) + 1) + times)
    return None if (each[1:] == each[:-1]).any() else groups


def _groups(table: "Table", name: str) -> Groups:
    import pandas as pd

    codes, values = pd.factorize(table.frame[name])
    return Groups(name, codes.astype(np.int64), tuple(str(value).strip() for value in values))


def _same_parts(one: Groups, other: Groups) -> bool:
    """Whether two columns part the rows alike, as a ticker and its ISIN do."""
    return len(one.names) == len(other.names) and bool(np.array_equal(one.codes, other.codes))


def without_blank(groups: Groups, rows: Rows, where: Callable[[int], str], source: str) -> None:
    """Raises ValueError if one of the rows belongs to no series."""
    blank = groups.codes[rows] < 0
    if blank.any():
        raise DataError(
            f"{source}, column {groups.column}, {where(int(rows[blank].min()))}: blank, so of no series", "data.by"
        )

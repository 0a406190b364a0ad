"""Which decimal point and thousands separator the numbers of a file have, told from all of them.

Own rules, for no library was found that tells 1,234 from 1.234 by the other values of a column and a file; they are
few, and refuse what they cannot tell:

1. Clear decimals: ``1.5``, ``0.123``, ``1234.567``, ``1,234.50``: one separator, last, and not one to three digits, the
   first no 0, before it and exactly three behind it. Clear thousands: ``1,234,567``, and all that ``'`` or a blank
   separates. ``1,234`` and ``1.234`` alone are neither.
2. A column with ``1.234`` and whole numbers of four and more digits is one of decimals, as these have no separator.
3. Clear values hold for the whole file: a decimal point makes the other separator one of thousands. Clear values that
   contradict each other are refused.
4. Without any clear value: ``1.234`` is a decimal, but for a file whose delimiter is ``;``, since ``;`` is used where
   the point may separate thousands. It is refused if the same column holds whole numbers (``936``, ``1.087``), and
   ``1,234`` with any delimiter but ``;``. With ``;``, each of both is a decimal if another column has whole numbers of
   four and more digits, which would have a separator, too (``70759``); without such a column it is refused.
5. A column that mixes ``936`` and ``1.087``, always three digits behind the point, is refused also where other columns
   say that the point is a decimal one: a series does not fall to a thousandth.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tbptt.data.errors import DataError
from tbptt.data.tables.numbers import GROUPS, INFINITE, MARKS, POWER, Written

Place = Callable[[str, int], str]  # of the column's name and the row: where that is, in words


@dataclass(frozen=True)
class Reading:
    """What separates: ``thousands`` is "" for nothing, " " for any kind of blank."""

    decimal: str
    thousands: str
    notes: tuple[str, ...] = ()


def decided(
    columns: list[Written], place: Place, delimiter: str, decimal: str | None = None, thousands: str | None = None
) -> Reading:
    """The one reading of all numbers of a file, by the rules above; what is said comes first.

    Raises:
        ValueError: two readings are possible, or none fits all; the line names both, and the keys that say which.
    """
    notes: tuple[str, ...] = ()
    if decimal is not None and decimal == thousands:
        raise DataError(f"data.decimal and data.thousands are both {decimal!r}", "data.decimal")
    if decimal is None and thousands in (",", "."):
        decimal = "." if thousands == "," else ","
    said = decimal is not None or thousands is not None
    if decimal is None:
        decimal, notes = _decimal(columns, place, delimiter, none=thousands == "none")
    if not said:
        _refuse_mixed(columns, place, decimal)
    if thousands is None:
        other = "," if decimal == "." else "."
        thousands = "none"
        seen: dict[str, tuple[Written, int]] = {}
        for column in columns:
            for mark, row in column.thousands.items():
                if mark != decimal:
                    seen.setdefault(mark, (column, row))
            for each in (column.decimals, column.unclear):
                if other in each:
                    seen.setdefault(other, (column, each[other]))
        if len(seen) > 1:
            _refuse_two("thousands", list(seen.items())[:2], place)
        thousands = next(iter(seen), "none")
        if thousands == "none" and any(has_mark(c, other) for c in columns):
            thousands = other
    return Reading(decimal, {"none": "", "space": " "}.get(thousands, thousands), notes)


def has_mark(column: Written, mark: str) -> bool:
    import pyarrow.compute as pc

    return bool(column.values is None and pc.any(pc.match_substring(column.core, mark)).as_py())


def _decimal(columns: list[Written], place: Place, delimiter: str, none: bool) -> tuple[str, tuple[str, ...]]:
    clear: dict[str, tuple[Written, int]] = {}
    for column in columns:
        for point, row in column.decimals.items():
            clear.setdefault(point, (column, row))
    if len(clear) > 1:
        _refuse_two("decimal", list(clear.items()), place)
    if clear:
        return next(iter(clear)), ()
    marks = {mark for c in columns for mark in c.thousands}
    if marks & {",", "."}:
        return ("." if "," in marks else ","), ()
    unclear = {point: c for c in reversed(columns) for point in c.unclear}
    if not unclear:
        return ".", ()
    for column in columns:
        for point, row in column.unclear.items():
            mixed = column.whole is not None
            open_ = not _plain_thousands(columns) if delimiter == ";" else point == ","
            if len(unclear) == 2 or (not marks and not none and (mixed or open_)):
                raise DataError(_two_readings(column, point, row, place, column.whole), "data.thousands")
    point, column = next(iter(unclear.items()))
    row = column.unclear[point]
    text = column.text(row)
    plain = text.replace(",", ".")
    return point, (f"{text!r} in column {column.name} is {plain} (data.thousands={_typed(point)} if it is not)",)


def _plain_thousands(columns: list[Written]) -> bool:
    """Whether a column has whole numbers of four and more digits without a separator, and they are no times."""
    import numpy as np
    import pyarrow as pa

    for column in columns:
        if column.values is None or not pa.types.is_integer(column.values.type):
            continue
        values = np.abs(column.values.drop_null().to_numpy())
        years = [(1700 * unit <= values).all() and (values < 2200 * unit).all() for unit in (1, 100, 10_000)]
        if (values >= 1000).any() and not any(years) and not (values >= 10**9).all():
            return True
    return False


def _refuse_mixed(columns: list[Written], place: Place, decimal: str) -> None:
    for column in columns:
        if decimal in column.unclear and decimal not in column.decimals and column.large is not None:
            raise DataError(
                _two_readings(column, decimal, column.unclear[decimal], place, column.large), "data.thousands"
            )


def _two_readings(column: Written, point: str, row: int, place: Place, whole: int | None) -> str:
    text = column.text(row)
    beside = f" beside {column.text(whole)!r}" if whole is not None else ""
    return (
        f"{place(column.name, row)}: {text!r}{beside} is {text.replace(point, '')} or {text.replace(point, '.')}; "
        f"type data.thousands={_typed(point)} or data.decimal={_typed(point)}"
    )


def _typed(mark: str) -> str:
    return {",": "','", " ": "space", "'": '"\'"'}.get(mark, mark)


def _refuse_two(what: str, seen: list[tuple[str, tuple[Written, int]]], place: Place) -> None:
    (first, (column, row)), (second, (other, at)) = seen
    raise ValueError(
        f"{place(column.name, row)}: {column.text(row)!r} has {what} {first!r}, but "
        f"{place(other.name, at).split(', ', 1)[1]}: {other.text(at)!r} has {what} {second!r}; "
        f"type data.{what}={_typed(first)} or data.{what}={_typed(second)}"
    )


def values_of(column: Written, reading: Reading, place: Place) -> Any:
    """The numbers of a column: int64 if all are whole, without separators and without blanks, else float64 (NaN: a
    blank).

    Raises:
        ValueError: a cell does not fit the reading.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values
    if values is not None and (
        reading.decimal == "." or pa.types.is_integer(values.type) or values.null_count == len(values)
    ):
        if pa.types.is_integer(values.type) and values.null_count:
            values = pc.cast(values, pa.float64(), safe=False)
        return values.to_numpy()
    core, point = column.core, re.escape(reading.decimal)
    groups = f"|{GROUPS[reading.thousands]}" if reading.thousands else ""
    fits = pc.match_substring_regex(core, rf"^[+-]?(?:(?:\d+{groups})(?:{point}\d*)?|{point}\d+|{INFINITE}){POWER}$")
    if (row := pc.index(fits, False).as_py()) >= 0:
        raise ValueError(
            f"{place(column.name, row)}: {column.text(row)!r} does not fit decimal {reading.decimal!r} and thousands "
            f"{reading.thousands or 'none'!r}; data.decimal and data.thousands say what is right"
        )
    for mark in MARKS.get(reading.thousands, ""):
        core = pc.replace_substring(core, mark, "")
    if reading.decimal == ",":
        core = pc.replace_substring(core, ",", ".")
    return np.asarray(pc.cast(core, pa.float64()).to_numpy(), np.float64)

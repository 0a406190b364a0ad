"""What columns of times are called, and those that have such a name and hold no times that can be read."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.panel import DataError
from tbptt.data.panels.columns import integers_or_floats, kind_of, numbers_of
from tbptt.data.panels.time_texts import month_of, texts_of
from tbptt.data.tables import names as vocabulary
from tbptt.data.tables.names import words_of

if TYPE_CHECKING:
    from tbptt.data.tables.files import Table

_OTHER = (
    "timestamps ts dt data jour day month period epoch unix utc gmt opentime closetime yyyymm yyyymmdd "
    "yearmonth caldt asof"
)
_BESIDE = (
    "trade trading open close start end event local exchange bar candle transaction quote settlement gmt utc of the as "
    "in ms us ns s sec seconds form report yymmdd value valuation effective posting"
)
DATE_WORDS, CLOCK_WORDS = frozenset(vocabulary.DATE.split()), frozenset(vocabulary.CLOCK.split())
TIME_WORDS = DATE_WORDS | CLOCK_WORDS | frozenset(_OTHER.split())
_HOUR = "hour hours hr he stunde std uur timme godzina час 时"
HOUR_WORDS = frozenset(_HOUR.split())
# What stands beside the word for a time of day: Trade Time and Hour Ending are such, Time of High is none.
_CLOCK_TOO = (
    "trade trading local exchange bar candle transaction quote interval start end begin beginning ending of day the in "
    "gmt utc cet cest est edt et hh mm ss ms s sec seconds hhmm hhmmss hhmmssmmm"
)
_BESIDE_CLOCK = frozenset(_CLOCK_TOO.split())
_WRITTEN = {"yyyymm", "yyyymmdd", "yearmonth"}
PERIODS = {"month", "week", "quarter", "period", "day"}
_PERIOD = "year mtu interval delivery jahr monat woche quartal periode zeitraum"
_PERIOD_WORDS = PERIODS | set(_PERIOD.split())
BESIDE_TIME = frozenset(_BESIDE.split())


def unread(table: "Table", source: str, kept: Collection[str], chosen: tuple[str, ...]) -> dict[str, str]:
    """Columns that have the name of times, and in which none can be read: never series.

    Args:
        kept: columns that are no times, or read already.
        chosen: the columns that the times were read from.

    Raises:
        DataError: no other column with such a name has the times, so that the rows may be in another order.
    """
    named = any(set(words_of(name)) & TIME_WORDS for name in chosen)
    found = {}
    for name in map(str, table.frame.columns):
        if name in kept or name in chosen:
            continue
        column = table.frame[name]
        kind = kind_of(column)
        period = _is_period(name, column, kind)
        if (
            not (period or _is_called_time(name))
            or kind not in ("number", "text")
            or (first := _first_value(column, kind)) is None
        ):
            continue
        found[name] = "times that cannot be read"
        clear = bool(set(words_of(name)) & (DATE_WORDS | _WRITTEN)) or period
        if named or (kind == "text" and not clear) or (kind == "number" and not clear and _counts(column)):
            continue
        if kind == "number" and (serial := _serial(integers_or_floats(column))):
            line = f"{serial}; write dates, or take the rows in their order with data.time=none"
        else:
            line = (
                f"{first[:40]!r} and the like are read as no times; data.time_format says their format, "
                "data.time=none takes the rows in their order"
            )
        raise DataError(f"{source}, column {name}: {line}", "data.time_format")
    return found


def refuse_grid(names: Collection[str], source: str) -> None:
    """Refuses a table of one row a year and one column a month or quarter: DataError."""
    years = [name for name in names if words_of(name) in (["year"], ["jahr"], ["yr"])]
    months = [name for name in names if name.isalpha() and month_of(name) and len(name) <= 9]
    quarters = [name for name in names if name.lower() in ("q1", "q2", "q3", "q4")]
    for each, full, unit in ((months, 12, "month"), (quarters, 4, "quarter")):
        if years and len(each) == full and (unit == "quarter" or len({month_of(name) for name in each}) == full):
            raise DataError(
                f"{source} has one row a year, one column a {unit} ({each[0]} to {each[-1]}); write one row a {unit}, "
                f"or take each {unit} as a series of its own with data.columns=[{','.join(each)}]",
                "data.columns",
            )


def refuse_backwards(table: "Table", source: str, kept: Collection[str], of_day: Mapping[str, Any]) -> None:
    """Refuses a table without times whose rows may be newest first, or whose times are texts that cannot be read.

    Args:
        kept: columns that are no times.
        of_day: times of day (R,) without a date, by column.

    Raises:
        DataError: a time of day, or a part of a date, falls more often than it rises; or a column that is called a
            time, a period or the like holds texts with the digits of dates.
    """
    for name in map(str, table.frame.columns):
        words = set(words_of(name))
        if name in kept or not words & (TIME_WORDS | HOUR_WORDS | _PERIOD_WORDS):
            continue
        column = table.frame[name]
        kind = kind_of(column)
        if name in of_day:
            steps = np.diff(of_day[name].astype("M8[us]").astype(np.int64))
        elif kind == "number" and words <= _PERIOD_WORDS | HOUR_WORDS:
            steps = np.diff(numbers_of(column))
        else:
            if kind == "text" and _are_like_dates(texts_of(column)):
                raise DataError(_unreadable(source, name, str(first_of(texts_of(column)))), "data.time_format")
            continue
        if int((steps < 0).sum()) > int((steps > 0).sum()):
            raise DataError(
                f"{source}, column {name} falls from row to row and is no whole date, so that the rows may be newest "
                "first; write dates, or take the rows in their order, the first as the oldest, with data.time=none",
                "data.time",
            )


def _are_like_dates(texts: Any) -> bool:
    """Whether nearly all texts have two numbers apart, as dates do, and differ."""
    import pyarrow.compute as pc

    known = pc.drop_null(texts)
    like = pc.match_substring_regex(known, r"\d.*[^\d.,].*\d|\d+[.,/:-]\d+[.,/:-]?\d")
    return len(known) > 1 and 2 * len(pc.unique(known)) > len(known) and pc.mean(like).as_py() >= 0.9


def _unreadable(source: str, name: str, first: str) -> str:
    return (
        f"{source}, column {name}: {first[:40]!r} and the like are read as no times; data.time_format says their "
        "format, data.time=none takes the rows in their order"
    )


def is_clock(words: Collection[str]) -> bool:
    """Whether all words of a name say that it is the time of day of a row."""
    words = set(words)
    return bool(words & (CLOCK_WORDS | HOUR_WORDS)) and words <= CLOCK_WORDS | HOUR_WORDS | _BESIDE_CLOCK


def _is_called_time(name: str) -> bool:
    """Whether all of a name is about time: trade_date and Time are, Time Warner and T are not."""
    words = set(words_of(name))
    return (
        bool(words & (DATE_WORDS | CLOCK_WORDS | {"yyyymm", "yyyymmdd", "yearmonth"}))
        and name != "T"
        and words <= TIME_WORDS | BESIDE_TIME
    )


def _is_period(name: str, column: Any, kind: str) -> bool:
    """Whether a column of texts names the month, quarter or week of each row, and each only once."""
    return kind == "text" and set(words_of(name)) <= PERIODS and bool(words_of(name)) and column.is_unique


def _counts(column: Any) -> bool:
    """Whether a column of a simulation counts its steps: 0, 0.1, 0.2 …"""
    values = numbers_of(column)
    steps = np.diff(values)
    return len(steps) > 1 and bool(steps[0] > 0 and np.allclose(steps, steps[0]) and abs(values[0]) <= 10 * steps[0])


def _first_value(column: Any, kind: str) -> str | None:
    if kind not in ("number", "text"):
        return None
    if kind == "text":
        return first_of(texts_of(column))
    known = numbers_of(column)
    known = known[~np.isnan(known)]
    return f"{known[0]:.15g}" if len(known) else None


def _serial(values: Any) -> str | None:
    """What days since 1899-12-30, as spreadsheets count them, look like; no one can be sure of it."""
    steps = np.diff(values)
    rises = len(values) > 1 and bool(np.all(steps > 0) or np.all(steps < 0))
    if not (rises and values.min() > 15_000 and values.max() < 80_000):
        return None
    day = np.datetime64("1899-12-30") + int(values[0])
    return f"{values[0]:g} may be {day}, counted in days as a spreadsheet does"


def first_of(texts: Any) -> str | None:
    """The first text of a column; None if all are blank."""
    import pyarrow.compute as pc

    known = pc.drop_null(texts)
    return str(known[0].as_py()) if len(known) else None

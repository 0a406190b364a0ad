"""Which column of a table holds the times of its rows, and what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.panel import DataError, Times
from tbptt.data.panels.columns import and_list, integers_or_floats, kind_of, line_of, listed, resolved
from tbptt.data.panels.date_parts import parts_of
from tbptt.data.panels.time_names import (
    CLOCK_WORDS,
    TIME_WORDS,
    first_of,
    is_clock,
    refuse_backwards,
    refuse_grid,
    unread,
)
from tbptt.data.panels.time_numbers import hours, readings_of_numbers, texts_of_numbers, times_of_day
from tbptt.data.panels.time_texts import Reading, first_wrong, readings_of_texts, texts_of, without_zone
from tbptt.data.panels.together import Candidate, is_monotone, joined, put_together
from tbptt.data.tables.names import words_of

if TYPE_CHECKING:
    from tbptt.data.options import TableData
    from tbptt.data.tables.files import Table


@dataclass(frozen=True, eq=False)
class RowTimes:
    """The times of a table's rows.

    Attributes:
        values: (R,) datetime64 in UTC, NaT where a row has none; None if the table has no times.
        names: the columns that they were read from.
        zone: the time zone that the table gave them in.
        found: phrases for :class:`tbptt.data.panel.Findings`.
        others: other columns that are times, and why they are left out.
    """

    values: Times | None
    names: tuple[str, ...] = ()
    zone: str | None = None
    found: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> str:
        """``column Date``, ``columns <DATE> and <TIME> put together``."""
        together = "" if len(self.names) == 1 else " put together"
        return f"column{'s' if together else ''} {and_list(list(self.names))}{together}"


def times_of(table: "Table", data: "TableData", source: str, kept: frozenset[str] = frozenset()) -> RowTimes:
    """The times of a table's rows: of the columns that ``data.time`` names, else found by name and content.

    Args:
        kept: columns that are series or inputs since the user says so: times as well only if they are called so.

    Raises:
        ValueError: one line; a column cannot be read as times, or in two ways.
    """
    asked = [data.time] if isinstance(data.time, str) else list(data.time or ())
    if asked and asked != ["none"]:
        return _asked(table, data, source, asked)
    columns = [*table.index, *(name for name in map(str, table.frame.columns) if name not in table.index)]
    if data.columns is None:
        refuse_grid(columns, source)
    # A format is that of the columns that are called times, if there are any: numbers of prices would fit some, too.
    called = {name for name in columns if name in table.index or set(words_of(name)) & TIME_WORDS}
    forms = {name: data.time_format if name in (called or columns) else None for name in columns}
    candidates = [
        Candidate((name,), found)
        for name in columns
        if (name not in kept or set(words_of(name)) & TIME_WORDS)
        and (found := _readings(table, name, forms[name], source, bool(asked)))
    ]
    others = {each.names[0]: "times" for each in candidates}
    if asked:
        return RowTimes(None, found=("rows in the file's order (data.time)",), others=others)
    if data.time_format is not None and not candidates:
        raise DataError(
            f"{source} has no column of times that data.time_format={data.time_format} reads", "data.time_format"
        )
    if not any(r.dated and r.said != "years" for each in candidates for r in each.readings):
        parts = parts_of(table, columns)
        if parts is not None:
            rest = [each for each in candidates if each.names[0] not in parts.names]
            candidates = [*(each for each in rest if not any(r.dated for r in each.readings)), parts]
    candidates.sort(key=lambda each: each.names[0] in kept)
    chosen = _chosen(put_together(candidates, columns, source))
    others = {name: why for name, why in others.items() if name not in kept}
    others |= unread(table, source, kept | others.keys(), () if chosen is None else chosen.names)
    if chosen is None:
        refuse_backwards(table, source, kept, {each.names[0]: each.readings[0].values for each in candidates})
        return RowTimes(None, found=("no times: rows in the file's order (data.time)",), others=others)
    _refuse_unused(chosen, data, source)
    also = [each.names[0] for each in candidates if each != chosen and any(_could_be(r) for r in each.readings)]
    return _as_times(chosen, table, source, others, tuple(name for name in also if name not in chosen.names))


def _refuse_unused(chosen: Candidate, data: "TableData", source: str) -> None:
    """Raises DataError if ``data.time_format`` is said and the times are read in another way, or need no format."""
    if data.time_format not in (None, *(reading.key for reading in chosen.readings)):
        columns = f"column{'s' * (len(chosen.names) > 1)} {and_list(list(chosen.names))}"
        raise DataError(
            f"{source}, {columns}: data.time_format={data.time_format} has no effect on its times; leave it out",
            "data.time_format",
        )


def _could_be(reading: Reading) -> bool:
    return reading.dated and is_monotone(reading.values)


def _readings(table: "Table", name: str, form: str | None, source: str, lenient: bool) -> list[Reading]:
    """In which ways a column is times; none if it is something else."""
    column = table.frame[name]
    kind = kind_of(column)
    words = set(words_of(name))
    if kind == "time":
        return [_of_objects(column)]
    if kind == "number":
        return _of_numbers(column, words, form) or _years(table, name, words)
    if kind != "text":
        return []
    texts = texts_of(column)
    found = readings_of_texts(texts, form)
    if not found and words & CLOCK_WORDS and form is None and (digits := _of_digits(texts)) is not None:
        return [Reading(digits, dated=False, timed=True)]
    named = bool(words & TIME_WORDS) or name in table.index
    if not found and named and not lenient and form is None and (wrong := first_wrong(texts)) is not None:
        value = texts[wrong].as_py()
        raise ValueError(f"{source}, column {name}, {line_of(table, wrong)}: {value[:40]!r} is no time as the others")
    return found


def _of_numbers(column: Any, words: set[str], form: str | None) -> list[Reading]:
    values = integers_or_floats(column)
    named = bool(words & TIME_WORDS)
    found = readings_of_numbers(values, named, form)
    called_clock = words & CLOCK_WORDS or is_clock(words)
    if not found and called_clock and (whole_hours := hours(values)) is not None:
        return [Reading(whole_hours, dated=False, timed=True, said="whole hours")]
    if not found and called_clock and (of_day := times_of_day(values)) is not None:
        return [Reading(of_day, dated=False, timed=True)]
    return found


def _of_digits(texts: Any) -> Times | None:
    """Times of day such as 093000, written as texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    long = pc.min(pc.utf8_length(texts)).as_py() == 6  # 000500 is five minutes past midnight, 0500 is five o'clock
    try:
        return times_of_day(np.asarray(texts.cast(pa.int64())), seconds=long)
    except pa.ArrowInvalid:
        return None


def _years(table: "Table", name: str, words: set[str]) -> list[Reading]:
    """Years, if each is there once, or once for each value of a column of texts: else they are a part of the date."""
    values = integers_or_floats(table.frame[name])
    if words not in ({"year"}, {"jahr"}) or np.isnan(values).any() or (values % 1).any():
        return []
    if values.min() < 1000 or values.max() >= 3000:
        return []
    texts = [other for other in table.frame.columns if kind_of(table.frame[other]) == "text"]
    keys = [[name], *([other, name] for other in texts)]
    if all(table.frame.duplicated(key).any() for key in keys):
        return []
    return [Reading((values.astype(np.int64) - 1970).astype("M8[Y]").astype("M8[us]"), said="years")]


def _of_objects(column: Any) -> Reading:
    """What a Parquet file or a DataFrame says to be times."""
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    elif column.dtype == object:
        try:
            column = pd.to_datetime(column)
        except ValueError:
            column = pd.to_datetime(column, utc=True)
    values, zone = without_zone(column)
    known = values[~np.isnat(values)]
    timed = bool(zone is not None or (known != known.astype("M8[D]")).any())
    return Reading(values, timed=timed, zone=zone)


def _asked(table: "Table", data: "TableData", source: str, asked: list[str]) -> RowTimes:
    """The times of the columns that the user names."""
    columns = list(map(str, table.frame.columns))
    names = [resolved(name, columns) for name in asked]
    if missing := [name for name, found in zip(asked, names, strict=True) if found is None]:
        raise DataError(
            f"{source} has no column {listed(missing)}, which data.time names (it has: {listed(columns)})", "data.time"
        )
    candidate = _with_format_over_all(table, list(map(str, names)), data.time_format)
    if candidate is None and len(names) > 1 and (made := parts_of(table, list(map(str, names)))) is not None:
        candidate = made if len(made.names) == len(names) else None
    if candidate is None:
        parts = [_named_column(table, str(name), data.time_format, source) for name in names]
        candidate = parts[0] if len(parts) == 1 else joined(source, parts)
    _refuse_unused(candidate, data, source)
    others = {
        name: "times"
        for name in columns
        if name not in names and _readings(table, name, None, source, True) and set(words_of(name)) & TIME_WORDS
    }
    return _as_times(candidate, table, source, others)


def _named_column(table: "Table", name: str, form: str | None, source: str) -> Candidate:
    column = table.frame[name]
    if kind_of(column) == "number":  # the user says that these numbers are times
        found = _of_numbers(column, {"time", *words_of(name)}, form)
    else:
        found = _readings(table, name, form, source, False)
    if not found and (form is None or "%" not in form):
        first = str(first_of(texts_of(column)))[:40]
        raise DataError(
            f"{source}, column {name}: {first!r} and the like are read as no times; data.time_format says their format",
            "data.time_format",
        )
    if not found:
        texts = texts_of(column)
        raise DataError(
            f"{source}, column {name}: data.time_format={form} does not read {str(first_of(texts))[:40]!r} "
            "and the like",
            "data.time_format",
        )
    return Candidate((name,), found)


def _with_format_over_all(table: "Table", names: list[str], form: str | None) -> Candidate | None:
    """A format such as ``%Y%m%d %H%M`` over a date and a time that stand in columns of their own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if form is None or "%" not in form or len(names) == 1:
        return None
    columns = [table.frame[name] for name in names]
    texts = [
        texts_of_numbers(integers_or_floats(each)) if kind_of(each) == "number" else texts_of(each) for each in columns
    ]
    joined = pc.binary_join_element_wise(*texts, pa.scalar(" ", pa.large_string()))
    found = readings_of_texts(joined, form)
    return Candidate(tuple(names), found) if found else None


def _chosen(candidates: list[Candidate]) -> Candidate | None:
    """The first that rises or falls at every row; else the first whose times differ; else the first.

    Those whose names say nothing of time come after the others: any numbers may rise at every row.
    """
    candidates = sorted(candidates, key=lambda each: not any(set(words_of(name)) & TIME_WORDS for name in each.names))
    for good in (is_monotone, _differs):
        if found := next((each for each in candidates if any(good(r.values) for r in each.readings)), None):
            return found
    return candidates[0] if candidates else None


def _is_ordered(values: Times) -> bool:
    steps = np.diff(values[~np.isnat(values)]).astype(np.int64)
    return bool(np.all(steps >= 0) or np.all(steps <= 0))


def _differs(values: Times) -> bool:
    known = values[~np.isnat(values)]
    return bool(len(known) and known.min() != known.max())


def _as_times(
    chosen: Candidate, table: "Table", source: str, others: Mapping[str, str], also_full: tuple[str, ...] = ()
) -> RowTimes:
    """Args: also_full: other columns that could have been the time, since each row has one of its own."""
    readings = chosen.readings
    if len(readings) > 1:
        ordered = [reading for reading in readings if _is_ordered(reading.values)]
        if len(ordered) != 1:
            raise DataError(_undecided(chosen, ordered or readings, table, source), "data.time_format")
        readings = ordered
    reading = readings[0]
    rest = {name: why for name, why in others.items() if name not in chosen.names}
    named = {"utc", "gmt"} & {word for name in chosen.names for word in words_of(name)}
    zone = reading.zone or ("UTC" if named else None)
    times = RowTimes(_in_nanoseconds(reading.values), chosen.names, zone, (), rest)
    found = [f"{reading.said} (data.time_format)"] if reading.said else []
    also = [name for name in rest if name in also_full]
    if also:
        found.append(f"the other column{'s' * (len(also) > 1)} of times: {listed(also)} (data.time)")
    return replace(times, found=tuple(found))


def _in_nanoseconds(values: Times) -> Times:
    known = values[~np.isnat(values)]
    if len(known) and (known.min() < np.datetime64("1678-01-01") or known.max() > np.datetime64("2262-01-01")):
        return values.astype("M8[us]")
    return values.astype("M8[ns]")


def _undecided(chosen: Candidate, readings: list[Reading], table: "Table", source: str) -> str:
    """Two readings that both fit: the first row in each, with the key that chooses it."""
    row = int(np.argmax(~np.isnat(readings[0].values) & (readings[0].values != readings[1].values)))
    text = str(table.frame[chosen.names[0]].iloc[row]).strip()[:40]
    ways = [f"{str(reading.values[row])[:10]} with data.time_format={reading.key}" for reading in readings]
    return f"{source}, column {chosen.names[0]}: {text} is {' or '.join(ways)}, and all rows can be read so"

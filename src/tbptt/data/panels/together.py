"""Dates and times of day that stand in columns of their own, put together."""

from dataclasses import dataclass

import numpy as np

from tbptt.data.panel import DataError, Times
from tbptt.data.panels.columns import and_list
from tbptt.data.panels.time_names import HOUR_WORDS, is_clock
from tbptt.data.panels.time_texts import Reading
from tbptt.data.tables.names import words_of


@dataclass(frozen=True, eq=False)
class Candidate:
    """Columns that may hold the times of a table's rows, and the ways in which they can be read."""

    names: tuple[str, ...]
    readings: list[Reading]


def joined(source: str, parts: list[Candidate]) -> Candidate:
    """The date and the time of day that the user names, put together."""
    dates = [part for part in parts if any(r.dated for r in part.readings)]
    of_day = [part for part in parts if not any(r.dated for r in part.readings)]
    if len(dates) != 1 or len(of_day) != 1 or len(parts) != 2:
        names = and_list([part.names[0] for part in parts])
        raise DataError(
            f"{source}: data.time takes a column of dates and one of times of day; {names} are not", "data.time"
        )
    return _sum(dates[0], of_day[0], source)


def put_together(candidates: list[Candidate], columns: list[str], source: str) -> list[Candidate]:
    """The columns with dates, each with the time of day that stands in a column of its own, if it has none itself.

    Dates that are all different are left alone. A column of times of day counts by its name; by content only if with
    it each row is later (or earlier) than the one before, as with the columns of a file without names.
    """
    of_day = [each for each in candidates if not any(r.dated for r in each.readings)]
    dated = [each for each in candidates if any(r.dated for r in each.readings)]
    place = {name: i for i, name in enumerate(columns)}
    found = []
    for each in dated:
        sums = []
        if not any(r.timed for r in each.readings) and not _all_differ(each.readings[0].values):
            near = sorted(of_day, key=lambda other: abs(place[other.names[0]] - place[each.names[0]] - 1))
            called = [other for other in near if is_clock(words_of(other.names[0]))]
            called = sorted(called, key=lambda other: bool(other.readings[0].said))  # HH:MM says more than hours do
            sums = [_sum(each, other, source) for other in called[:1] or near if called or not other.readings[0].said]
            sums = sums if called else [made for made in sums if any(is_monotone(r.values) for r in made.readings)]
        found.append(sums[0] if sums else each)
    return found


def is_monotone(values: Times) -> bool:
    """Whether the times rise at every row, or fall at every row."""
    known = values[~np.isnat(values)]
    steps = np.diff(known).astype(np.int64)
    return bool(len(known) and (np.all(steps > 0) or np.all(steps < 0)))


def _all_differ(values: Times) -> bool:
    known = values[~np.isnat(values)]
    return len(np.unique(known)) == len(known)


def _sum(date: Candidate, of_day: Candidate, source: str) -> Candidate:
    time = of_day.readings[0]
    if time.said and not set(words_of(of_day.names[0])) & HOUR_WORDS and not _repeat(date, time):
        raise DataError(
            f"{source}, column {of_day.names[0]}: numbers of at most 25 that are not the same each day may be hours or "
            f"something else; data.time=[{date.names[0]}, {of_day.names[0]}] with a data.time_format such as "
            "'%Y-%m-%d %H' says what they are",
            "data.time_format",
        )
    since = time.values.astype("M8[ns]").astype(np.int64)
    offset = np.where(np.isnat(time.values), np.timedelta64("NaT"), since.astype("m8[ns]"))
    found = []
    for reading in date.readings:
        values = reading.values + offset.astype("m8[us]" if reading.values.dtype == "M8[us]" else "m8[ns]")
        said = ", ".join(filter(None, (reading.said, time.said)))
        found.append(Reading(values, reading.key, True, True, time.zone or reading.zone, said))
    return Candidate((*date.names, *of_day.names), found)


def _repeat(date: Candidate, time: Reading) -> bool:
    """Whether most days have the same times of day, and more than one."""
    days = date.readings[0].values
    known = ~np.isnat(days)
    _, day = np.unique(days[known], return_inverse=True)
    of_each: dict[int, set[int]] = {}
    for code, hour in zip(day.tolist(), time.values[known].astype(np.int64).tolist(), strict=True):
        of_each.setdefault(code, set()).add(hour)
    each = [frozenset(hours) for hours in of_each.values()]
    usual = max(set(each), key=each.count)
    return len(each) > 1 and len(usual) > 1 and 2 * each.count(usual) >= len(each)

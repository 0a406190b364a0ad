"""The order of a table's rows in time: oldest first, each time once, and the gaps that a regular calendar has."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tbptt.data.panel import DataError, Rows, Times

SECOND = 10**9  # in nanoseconds
UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
SHORT = (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
REGULAR = 0.9  # the share of equal steps from which on a calendar is regular


def oldest_first(
    times: Times,
    names: str,
    where: Callable[[int], str],
    source: str,
    groups: NDArray[np.int64] | None = None,
    of: Callable[[int], str] = lambda row: "",
) -> tuple[Rows, bool]:
    """The rows that have a time in the order of time, and whether the table has them newest first.

    Args:
        times: (R,) without NaT.
        names: the columns of the times, in words.
        where: a row's place in the file, in words.
        groups: (R,) to which series each row belongs, of a table in long format; times repeat between series only.
        of: the series of a row, in words that stand behind its time.

    Raises:
        ValueError: one line; the rows are in no order, or a time is there twice.
    """
    order = np.arange(len(times)) if groups is None else np.argsort(groups, kind="stable")
    steps = np.diff(times[order]).astype(np.int64)
    if groups is not None:
        steps = steps[np.diff(groups[order]) == 0]
    backwards = bool(len(steps)) and int((steps < 0).sum()) > int((steps > 0).sum())
    if backwards:
        order = order[::-1] if groups is None else np.lexsort((-np.arange(len(times)), groups))
    wrong = _not_after(times, order, groups)
    if not len(wrong):
        return order, backwards
    raise DataError(_disorder(times, order, wrong, names, where, source, of), "data.time")


def _not_after(times: Times, order: Rows, groups: NDArray[np.int64] | None) -> Rows:
    """The places in ``order`` whose time is not after the one before it."""
    wrong = times[order][1:] <= times[order][:-1]
    if groups is not None:
        wrong &= groups[order][1:] == groups[order][:-1]
    return np.flatnonzero(wrong) + 1


def _disorder(
    times: Times,
    order: Rows,
    wrong: Rows,
    names: str,
    where: Callable[[int], str],
    source: str,
    of: Callable[[int], str],
) -> str:
    """The line about the first row, as the file has them, that is out of order or there twice."""
    pairs = [(max(int(order[i]), int(order[i - 1])), min(int(order[i]), int(order[i - 1]))) for i in wrong]
    later, earlier = min(pairs)
    one, other = said(times[later]), said(times[earlier])
    if times[later] == times[earlier]:
        return (
            f"{source}, {names}, {where(later)}: {one} is there twice{of(later)}, also in {where(earlier)}; in long "
            "format data.by names the column of the series, and data.time=none takes the rows in their order"
        )
    return (
        f"{source}, {names}, {where(later)}: {one} stands after {other} ({where(earlier)}), the rows are neither "
        "oldest first nor newest first; sort the file, or data.time=none takes the rows in their order"
    )


def said(time: Any) -> str:
    """A time in words: the date, with the time of day if it is not midnight."""
    day, _, clock = str(time).partition("T")
    clock = clock.rstrip("0").rstrip(".") if "." in clock else clock
    return day if clock in ("", "00", "00:00", "00:00:00") else f"{day} {clock[:5] if clock[5:] == ':00' else clock}"


def gaps_of(times: Times) -> str | None:
    """The gaps of a regular calendar in words; None if it has none, or is not regular.

    Calendars of days without weekends have no gap there.
    """
    if len(times) < 10:
        return None
    unit = np.datetime_data(times.dtype)[0]
    ticks = times.astype(np.int64) if unit == "ns" else times.astype("M8[us]").astype(np.int64) * 1000
    steps = np.diff(ticks)
    if _is_business(times, steps):
        days = times.astype("M8[D]")
        missing = np.busday_count(days[:-1], days[1:]) - 1
        return _listed_gaps(missing > 0, steps, times, "weekday")
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[counts.argmax()])
    if counts.max() < REGULAR * len(steps):
        return None
    return _listed_gaps(steps > usual, steps, times, _step_name(usual))


def _is_business(times: Times, steps: NDArray[np.int64]) -> bool:
    """Whether the calendar has one row on most weekdays, and none at weekends."""
    day = 86_400 * SECOND
    if (steps < day // 2).any() or not np.is_busday(times.astype("M8[D]")).all():
        return False
    days = times.astype("M8[D]")
    between = np.busday_count(days[:-1], days[1:])
    return bool((between == 1).mean() >= REGULAR) and bool((steps > day * 3 // 2).any())


def _listed_gaps(gap: NDArray[np.bool_], steps: NDArray[np.int64], times: Times, calendar: str) -> str | None:
    count = int(gap.sum())
    if not count:
        return None
    longest = int(np.where(gap, steps, 0).argmax())
    return (
        f"{count} gap{'' if count == 1 else 's'} in a {calendar} calendar, "
        f"the longest {_length(int(steps[longest]))} after {said(times[longest])}"
    )


def _step_name(step: int) -> str:
    """``5-minute``, ``1-day``."""
    for name, seconds in UNITS:
        if step % (seconds * SECOND) == 0:
            return f"{step // (seconds * SECOND)}-{name}"
    return f"{step / SECOND:g}-second"


def _length(step: int) -> str:
    for name, seconds in SHORT:
        if step >= seconds * SECOND:
            return f"{step / (seconds * SECOND):.3g} {name}"
    return "0 s"

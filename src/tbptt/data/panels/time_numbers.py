"""Numbers that are times: epochs and written dates, told by their size."""

from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tbptt.data.panel import Times
from tbptt.data.panels.time_texts import Reading, Whole, days_of, moments, nanoseconds, with_format

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
PLAUSIBLE = (631_152_000, 4_102_444_800)  # seconds: 1990 to 2100
EARLIEST = np.datetime64("1990-01-01")  # of the last time of a column
# An epoch of 1973 to 2286 in each unit: the ranges do not meet, so that the size of a number tells its unit.
EPOCHS = {"s": (1e8, 1e10), "ms": (1e11, 1e13), "us": (1e14, 1e16), "ns": (1e17, 9.2e18)}


def readings_of_numbers(values: NDArray[Any], named: bool, form: str | None = None) -> list[Reading]:
    """All ways in which numbers (R,) are times; NaN is a blank.

    Args:
        named: whether the column has the name of a time. Else only numbers that rise (or fall) at every row are times,
            since prices and volumes can have any size.
        form: ``data.time_format``.
    """
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    here = values[known]
    if not len(here) or not np.isfinite(here).all():
        return []
    if form in PER_SECOND:
        return [_spread(_epochs(here, np.full(len(here), PER_SECOND[form])), known, form, f"epoch in {form}", "UTC")]
    if not named and not (_whole(here) and (_is_monotone(here) or _are_epochs_in_blocks(here))):
        return []
    if form is not None and "%" in form:
        if not _whole(here):
            return []
        texts = texts_of_numbers(here)
        return [_spread(each.values, known, form, form, each.zone, each.timed) for each in with_format(texts, form)]
    digits = (_written(here) or _months(here, named)) if _whole(here) else None
    if digits is not None:
        return [_spread(digits[0], known, "", digits[1], None, timed=digits[2])]
    found = []
    if named and _whole(here) and (short := _written_short(here)) is not None:
        found.append(_spread(short, known, "%y%m%d%H%M", "YYMMDDHHMM", None))
    units = _units(here)
    if units is not None:
        per_second, said = units
        epochs = _epochs(here, per_second)
        if EARLIEST <= epochs.max() < _latest():
            found.append(_spread(epochs, known, said.split()[0], f"epoch in {said}", "UTC"))
    return found


def _latest() -> np.datetime64:
    """Numbers that would be epochs after this are no epochs."""
    return np.datetime64(f"{date.today().year + 3}-01-01")


def _is_monotone(values: NDArray[Any]) -> bool:
    return bool(np.all(values[1:] > values[:-1]) or np.all(values[1:] < values[:-1]))


def _are_epochs_in_blocks(values: NDArray[Any]) -> bool:
    """Whether whole numbers are epochs of 1990 to 2100 in one unit that run on, but for a few places.

    So do the times of a file in long format: they repeat from row to row, or begin again with each series. No price or
    volume does.
    """
    if len(values) < 4 or values.min() == values.max():
        return False
    if not any(
        values.min() >= PLAUSIBLE[0] * size and values.max() < PLAUSIBLE[1] * size for size in PER_SECOND.values()
    ):
        return False
    steps = np.diff(values)
    against = min(int((steps < 0).sum()), int((steps > 0).sum()))
    return against <= len(steps) // 10


def _spread(
    times: Times,
    known: NDArray[np.bool_],
    key: str,
    said: str,
    zone: str | None,
    timed: bool = True,
) -> Reading:
    values = np.full(len(known), np.datetime64("NaT"), times.dtype)
    values[known] = times
    return Reading(values, key, True, timed, zone, said)


def _whole(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" or bool(np.all(values == np.floor(values)))


def texts_of_numbers(values: NDArray[Any]) -> Any:
    """Whole numbers (R,) as an Arrow array of texts."""
    import pyarrow as pa

    return pa.array(values.astype(np.int64)).cast(pa.large_string())


def _written(values: NDArray[Any]) -> tuple[Times, str, bool] | None:
    """Whole numbers whose digits are a date, YYYYMMDD, or a date and a time: the times, and the form in words."""
    for said, low, size in (
        ("YYYYMMDD", 10**7, 1),
        ("YYYYMMDDHH", 10**9, 100),
        ("YYYYMMDDHHMM", 10**11, 10**4),
        ("YYYYMMDDHHMMSS", 10**13, 10**6),
    ):
        if not (values.min() >= low and values.max() < 10 * low):
            continue
        numbers = values.astype(np.int64)
        day, rest = numbers // size, numbers % size
        year = day // 10_000
        if year.min() < (1900 if size == 100 else 1600) or year.max() > 2200:  # seconds since 1970 begin with less
            return None
        seconds = rest * (10**6 // size) if size > 1 else rest
        of_day = nanoseconds(seconds // 10_000, seconds // 100 % 100, seconds % 100)
        days = days_of(year, day // 100 % 100, day % 100)
        return None if np.isnat(days).any() or (of_day < 0).any() else (moments(days, of_day), said, size > 1)
    return None


def _written_short(values: NDArray[Any]) -> Times | None:
    """Whole numbers YYMMDDHHMM as times; None if they are none. Of 2010 to 2017 they could be epochs as well."""
    if not (values.min() >= 10**9 and values.max() < 10**10):
        return None
    numbers = values.astype(np.int64)
    day, rest = numbers // 10**4, numbers % 10**4
    year = day // 10_000
    of_day = nanoseconds(rest // 100, rest % 100, np.zeros_like(rest))
    days = days_of(year + np.where(year >= 69, 1900, 2000), day // 100 % 100, day % 100)
    late = np.isnat(days).any() or (of_day < 0).any() or days.max() >= _latest()
    return None if late else moments(days, of_day)


def _months(values: NDArray[Any], named: bool) -> tuple[Times, str, bool] | None:
    """Whole numbers YYYYMM; without such a name only if each is the month after or before the other.

    Numbers that could be YYMMDD as well, as 201012, are none.
    """
    numbers = values.astype(np.int64)
    year, month = numbers // 100, numbers % 100
    if year.min() < 1800 or year.max() > 2100 or month.min() < 1 or month.max() > 12:
        return None
    steps = np.abs(np.diff(12 * year + month))
    if len(steps) < 2 or not (named or np.all(steps == 1)):
        return None
    days = days_of(year // 100 + 2000, year % 100, month)
    if not np.isnat(days).any():
        return None
    return moments(days_of(year, month, np.ones_like(month)), np.zeros_like(month)), "YYYYMM", False


def _units(values: NDArray[Any]) -> tuple[Whole, str] | None:
    """Ticks a second of each number, told by its size, and the units in words; None if a size is of no unit."""
    per_second = np.zeros(len(values), np.int64)
    said = []
    for unit, (low, high) in EPOCHS.items():
        here = (values >= low) & (values < high)
        if here.any():
            per_second[here] = PER_SECOND[unit]
            said.append(unit)
    return (per_second, " and ".join(said)) if len(values) and (per_second > 0).all() else None


def _epochs(values: NDArray[Any], per_second: Whole) -> Times:
    if values.dtype.kind == "f" and not _whole(values):
        micro = np.round(values * (10**6 / per_second)).astype(np.int64)  # float64 holds no more of a date
        return micro.astype("M8[us]").astype("M8[ns]")
    whole = values.astype(np.int64)
    if len(whole) and np.abs(whole // per_second).max() > 9 * 10**9:
        return (whole // per_second).astype("M8[s]").astype("M8[us]")
    return (whole * (10**9 // per_second)).astype("M8[ns]")


def hours(values: NDArray[Any]) -> Times | None:
    """Whole hours 0 to 23 or 1 to 24, 25 on the longest day of a year, from 1970-01-01; None if they are none."""
    if not len(values) or np.isnan(values).any() or not _whole(values) or values.min() < 0 or values.max() > 25:
        return None
    return values.astype(np.int64).astype("M8[h]").astype("M8[ns]")


def times_of_day(values: NDArray[Any], seconds: bool = False) -> Times | None:
    """Whole numbers HHMMSSmmm, HHMMSS or HHMM, without leading zeros, as times of 1970-01-01; None if they are none.

    Args:
        seconds: whether they are known to be HHMMSS.
    """
    if values.dtype.kind == "f" and np.isnan(values).any():
        return None
    if not len(values) or not _whole(values) or values.min() < 0 or values.max() >= 240_000_000:
        return None
    whole = values.astype(np.int64)
    milli = np.zeros_like(whole)
    if whole.max() > 240_000:
        whole, milli, seconds = whole // 1000, whole % 1000, True
    if (
        not seconds
        and whole.max() <= 2400
        and (of_day := nanoseconds(whole // 100, whole % 100, np.zeros_like(whole))).min() >= 0
    ):
        return np.zeros(len(whole), "M8[ns]") + of_day.astype("m8[ns]")
    of_day = nanoseconds(whole // 10_000, whole // 100 % 100, whole % 100)
    return np.zeros(len(whole), "M8[ns]") + (of_day + milli * 10**6).astype("m8[ns]") if of_day.min() >= 0 else None

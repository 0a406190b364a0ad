"""Texts that are times: in which ways they can be read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tbptt.data.panel import Times

Whole = NDArray[np.int64]

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
SHORT_YEAR_FIRST = "%y-%m-%d"  # also with / and ., and before a time of day: as a key it stands for the reading
# Other languages' names of months that do not begin as English ones do.
OTHER_MONTHS = {"mär": 3, "mrz": 3, "mai": 5, "mei": 5, "okt": 10, "oct": 10, "dez": 12, "des": 12, "agu": 8, "ags": 8}

_CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?(?: ?(?P<p>[AaPp])\.?[Mm]\.?)?"
_DIGITS = r"(?P<H2>\d{2})(?P<M2>\d{2})(?P<S2>\d{2})?"
_TIME = rf"{_CLOCK}|{_DIGITS}|(?P<H3>\d{{1,2}})-(?P<p3>[AaPp])[Mm]"
_ZONE = r"(?: ?(?P<z>Z|UTC|GMT)? ?(?P<o>[+-]\d{2}:?(?:\d{2})?)?)"
_AFTER_DATE = rf"(?:(?:T|,? {{1,2}})(?:{_TIME}){_ZONE})?"
_TH = "(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:[A-Za-z]{2,9}\.?,? )?"
# Each form of a date; the order in which they are tried does not matter, since all that fit are kept.
_DATES = {
    "year_first": r"(?P<y>\d{4})(?:[-./年]|년) ?(?P<m>\d{1,2})(?:[-./月]|월) ?(?P<d>\d{1,2})[日일.]?",
    "plain": r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
    "numbers": r"(?P<a>\d{1,2})[-./](?P<b>\d{1,2})[-./](?P<y>\d{4})",
    "short": r"(?P<a>\d{1,2})[-./](?P<b>\d{1,2})[-./](?P<c>\d{2})",
    "day_name": rf"{_WEEKDAY}(?P<d>\d{{1,2}}){_TH}\.?[-./ ]?(?P<n>\pL{{3,9}})\.?,?[-./ ]?(?P<y>\d{{4}}|\d{{2}})",
    "name_day": rf"{_WEEKDAY}(?P<n>\pL{{3,9}})\.?[- ](?P<d>\d{{1,2}}){_TH},?[- ](?P<y>\d{{4}})",
    "year_name": r"(?P<y>\d{4})[-./ ]?(?P<n>\pL{3,9})\.?[-./ ]?(?P<d>\d{1,2})",
    "month": r"(?P<y>\d{4})(?:[-/.]|-?M)(?P<m>\d{2})",
    "name_month": r"(?P<n>\pL{3,9})\.?[- ](?P<y>\d{4})",
    "quarter": r"(?P<y>\d{4})[-:. ]?[Qq](?P<q>[1-4])",
    "week": r"(?P<y>\d{4})-?[Ww](?P<w>\d{2})(?:-?(?P<k>[1-7]))?",
    "quarter_first": r"[Qq](?P<q>[1-4])[- /]?(?P<y>\d{4})",
}
_PATTERNS = {name: f"^{date}{_AFTER_DATE}$" for name, date in _DATES.items()}
_RANGE = r"^(?P<from>[^/]*?\d[^/]*?|\S+/\S+/\S+(?: \S+)?)(?: ?[-–—] | to | bis |/)(?P<to>.*?)(?: ?\([^()]*\))?$"
_OF_DAY = rf"^{_CLOCK}{_ZONE}$"


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a column as times.

    Attributes:
        values: (R,) datetime64; NaT where the column is blank. Without a date, times of 1970-01-01.
        key: the value of ``data.time_format`` that asks for this reading; "" if none does.
        dated, timed: whether the column holds dates, and times of day.
        zone: the zone that the column names; the values are in UTC then.
        said: the reading in words; "" if the texts say it.
    """

    values: Times
    key: str = ""
    dated: bool = True
    timed: bool = False
    zone: str | None = None
    said: str = ""


def texts_of(column: Any) -> Any:
    """A column's texts as an Arrow array, without blanks around them; null where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts = pa.array(column, from_pandas=True)
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        texts = texts.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):  # values of several types
        known = column.notna().to_numpy()
        texts = pa.array([str(v) if k else None for v, k in zip(column, known, strict=True)], pa.large_string())
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(texts, ""), None, texts)


def readings_of_texts(texts: Any, form: str | None = None) -> list[Reading]:
    """All ways in which every text is a time, (R,) each; ``form`` is ``data.time_format``.

    ``texts`` is what :func:`texts_of` gives.
    """
    if form is not None and "%" in form and form != SHORT_YEAR_FIRST:
        return list(with_format(texts, form))
    few = _few(texts)
    found = []
    for name, pattern in (*_PATTERNS.items(), ("of_day", _OF_DAY)):
        if _parts(few, pattern) is not None and (parts := _parts(texts, pattern)) is not None:
            found += list(_of_parts(name, parts))
    found = found or _beginnings(texts, form)
    if form in ("day_first", "month_first", SHORT_YEAR_FIRST):
        return [reading for reading in found if reading.key in ("", form)]
    return found


def _beginnings(texts: Any, form: str | None) -> list[Reading]:
    """The beginnings of times such as ``01.01.2023 00:00 - 01.01.2023 01:00``, if each text is such a range."""
    import pyarrow.compute as pc

    parts = _parts(texts, _RANGE) if _parts(_few(texts), _RANGE) is not None else None
    if parts is None:
        return []
    start, end = (texts_of(pc.struct_field(parts, name).to_pandas()) for name in ("from", "to"))
    keys = {reading.key for reading in readings_of_texts(end, form)}
    found = [reading for reading in readings_of_texts(start, form) if reading.key in keys]
    return [replace(each, said=", ".join(filter(None, (each.said, "the beginning of each range")))) for each in found]


def first_wrong(texts: Any) -> int | None:
    """Where the first text is that is no time, if nearly all others are; None if most are not, or all are."""
    import pyarrow.compute as pc

    known = len(texts) - texts.null_count
    for pattern in (*_PATTERNS.values(), _OF_DAY):
        fits = pc.match_substring_regex(texts, pattern)
        right = int(pc.sum(fits).as_py() or 0)
        if known > right >= 0.9 * known:
            return int(pc.index(fits, False).as_py())
        if right == known and known:  # the form is right, and no such date exists
            for reading in _of_parts(_name(pattern), pc.extract_regex(texts, pattern), whole=False):
                wrong = np.isnat(reading.values) & ~np.asarray(texts.is_null())
                if wrong.mean() <= 0.1:
                    return int(np.argmax(wrong))
    return None


def _name(pattern: str) -> str:
    return next((name for name, each in _PATTERNS.items() if each == pattern), "of_day")


def _few(texts: Any) -> Any:
    """Up to 200 texts from the whole column, to see in little time what cannot be."""
    import pyarrow.compute as pc

    known = pc.drop_null(texts)
    return known.take(np.unique(np.linspace(0, len(known) - 1, 200).astype(int))) if len(known) else known


def _parts(texts: Any, pattern: str) -> Any:
    """The parts of each text, by the names in the pattern; None if it does not fit all texts, or there are none."""
    import pyarrow.compute as pc

    if len(texts) == texts.null_count:
        return None
    parts = pc.extract_regex(texts, pattern)
    return parts if parts.null_count == texts.null_count else None


def _of_parts(name: str, parts: Any, whole: bool = True) -> Iterator[Reading]:
    """The readings of texts that were taken apart; with ``whole``, only those in which each text is a time."""
    get = _getter(parts)
    blank = np.asarray(parts.is_null())
    time = _time_of_day(get, parts)
    zone, offset = _zones(parts, blank)
    timed = bool((get("H") >= 0).any() or (get("H2") >= 0).any() or (get("H3") >= 0).any())
    if name == "of_day":
        values = np.zeros(len(blank), "M8[ns]") + time.astype("m8[ns]")
        yield _kept(Reading(values, dated=False, timed=True), time, blank)
        return
    for key, year, month, day in _dates(name, get, parts):
        days = days_of(year, month, day)
        values = moments(days, time - offset)
        bad = np.isnat(days) | (time < 0)
        values[bad] = np.datetime64("NaT")
        if not whole or (bad == blank).all():
            said = key.replace("_", " ") if key in ("day_first", "month_first") else ""
            yield Reading(values, key, True, timed, zone, said)


def _kept(reading: Reading, time: Whole, blank: Any) -> Reading:
    reading.values[blank | (time < 0)] = np.datetime64("NaT")
    return reading


def _getter(parts: Any) -> Callable[[str], Whole]:
    """A function that gives a part as whole numbers; -1 where the text has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = _named(parts)

    def get(name: str) -> Whole:
        if name not in names:
            return np.full(len(parts), -1, np.int64)
        texts = pc.struct_field(parts, name)
        numbers = pc.if_else(pc.equal(texts, ""), "-1", texts).cast(pa.int64())
        return np.asarray(pc.fill_null(numbers, -1))

    return get


def _named(parts: Any) -> set[str]:
    return {field.name for field in parts.type}


def _coded(parts: Any, name: str, meaning: Callable[[str], int]) -> Whole:
    """A part whose few different texts each have a meaning; -1 where the text has none."""
    import pyarrow.compute as pc

    if name not in _named(parts):
        return np.full(len(parts), -1, np.int64)
    codes = pc.struct_field(parts, name).dictionary_encode()
    meanings = np.array([meaning(str(text)) if text else -1 for text in codes.dictionary.to_pylist()] + [-1])
    return meanings[np.asarray(pc.fill_null(codes.indices, len(meanings) - 1))]


def month_of(text: str) -> int:
    start = text.lower()[:3]
    return MONTHS.index(start) + 1 if start in MONTHS else OTHER_MONTHS.get(start, 0)


def _full_year(year: Whole) -> Whole:
    """Years of two digits as strptime reads them: 69 is 1969, 68 is 2068."""
    return np.where((year >= 0) & (year < 100), year + np.where(year >= 69, 1900, 2000), year)


def _dates(name: str, get: Callable[[str], Whole], parts: Any) -> Iterator[tuple[str, Whole, Whole, Whole]]:
    """The key, year, month and day of each reading of a form of date."""
    if name in ("numbers", "short"):
        a, b = get("a"), get("b")
        year = get("y") if name == "numbers" else _full_year(get("c"))
        yield "day_first", year, b, a
        yield "month_first", year, a, b
        if name == "short":
            yield SHORT_YEAR_FIRST, _full_year(a), b, get("c")
        return
    if name == "week":
        days = _weeks(get("y"), get("w"), np.maximum(get("k"), 1))
        months = days.astype("M8[M]")
        month = np.where(np.isnat(days), 0, months.astype(np.int64) % 12 + 1)
        yield "", months.astype("M8[Y]").astype(np.int64) + 1970, month, (days - months).astype(np.int64) + 1
        return
    year = _full_year(get("y")) if name == "day_name" else get("y")
    one = np.ones(len(parts), np.int64)
    month = _coded(parts, "n", month_of) if "name" in name else get("m")
    if name.startswith("quarter"):
        month = 3 * get("q") - 2
    yield "", year, month, get("d") if "d" in _named(parts) else one


def _weeks(year: Whole, week: Whole, weekday: Whole) -> Times:
    """Days of ISO weeks: week 1 is the one with 4 January; NaT where the year has no such week."""
    fourth = days_of(year, np.ones_like(year), np.full_like(year, 4))
    monday = fourth - ((fourth.astype(np.int64) + 3) % 7).astype("m8[D]")
    thursday = monday + (7 * (week - 1) + 3).astype("m8[D]")
    days: Times = thursday + (weekday - 4).astype("m8[D]")
    days[(week < 1) | (thursday.astype("M8[Y]") != fourth.astype("M8[Y]"))] = np.datetime64("NaT")
    return days


def days_of(year: Whole, month: Whole, day: Whole) -> Times:
    """Days as datetime64; NaT where there is no such day."""
    months = ((year - 1970) * 12 + month - 1).astype("M8[M]")
    days = months.astype("M8[D]") + (day - 1).astype("m8[D]")
    wrong = (year < 0) | (month < 1) | (month > 12) | (day < 1) | (days.astype("M8[M]") != months)
    days[wrong] = np.datetime64("NaT")
    return days


def moments(days: Times, of_day: Whole) -> Times:
    """Days and nanoseconds of the day, put together; in microseconds where nanoseconds cannot hold the year."""
    known = days[~np.isnat(days)]
    if len(known) and (known.min() < np.datetime64("1678-01-01") or known.max() > np.datetime64("2262-01-01")):
        return days.astype("M8[us]") + (of_day // 1000).astype("m8[us]")
    return days.astype("M8[ns]") + of_day.astype("m8[ns]")


def _time_of_day(get: Callable[[str], Whole], parts: Any) -> Whole:
    """Nanoseconds since midnight; 0 where the text has no time of day, -1 where there is no such time."""
    hour, minute, second = (np.maximum(np.maximum(get(p), get(f"{p}2")), get(f"{p}3")) for p in "HMS")
    if not (hour >= 0).any():
        return np.zeros(len(hour), np.int64)
    half = np.maximum(*(_coded(parts, name, lambda text: int(text in "Pp")) for name in ("p", "p3")))
    impossible = (half >= 0) & ((hour < 1) | (hour > 12))
    hour = np.where(half >= 0, hour % 12 + 12 * half, hour)
    return np.where(impossible, -1, nanoseconds(hour, minute, second) + _fraction(parts))


def nanoseconds(hour: Whole, minute: Whole, second: Whole) -> Whole:
    """Nanoseconds since midnight; -1 where there is no such time of day. A part of -1 is not said: 0."""
    wrong = (hour > 24) | (minute > 59) | (second > 60) | ((hour == 24) & ((minute > 0) | (second > 0)))
    hour, minute, second = (np.maximum(part, 0) for part in (hour, minute, second))
    return np.where(wrong, -1, ((hour * 60 + minute) * 60 + second) * 10**9)


def _fraction(parts: Any) -> Whole:
    """Nanoseconds after the second."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.fill_null(pc.struct_field(parts, "f"), "")
    return np.asarray(pc.utf8_rpad(texts, 9, "0").cast(pa.int64()))


def _zones(parts: Any, blank: Any) -> tuple[str | None, Whole]:
    """The zone that the texts name, and its nanoseconds before UTC at each."""
    offset = _coded(parts, "o", _offset)
    offset[offset == -1] = 0
    named = _coded(parts, "z", lambda text: 1)
    names = sorted({_zone_name(int(o)) for o in np.unique(offset[~blank])})
    if names == ["UTC"] and not (named == 1).any() and not (_coded(parts, "o", lambda text: 1) == 1).any():
        return None, offset
    return " and ".join(names), offset


def _offset(text: str) -> int:
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    return (-1 if text[0] == "-" else 1) * (hours * 60 + minutes) * 60 * 10**9


def _zone_name(offset: int) -> str:
    minutes = abs(offset) // (60 * 10**9)
    return f"UTC{'-' if offset < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}" if offset else "UTC"


def with_format(texts: Any, form: str) -> Iterator[Reading]:
    """The reading in a format of strptime, if all texts have it."""
    import pandas as pd
    import pyarrow.compute as pc

    key = form
    if "%G" in form and "%V" in form and not any(day in form for day in ("%u", "%w", "%a", "%A")):
        form += "-%u"  # pandas wants a day of the week: Monday
        texts = pc.replace_substring_regex(texts, "$", "-1", max_replacements=1)
    try:
        values = pd.to_datetime(texts.to_pandas(), format=form, exact=True)
    except ValueError:
        try:  # offsets of summer time and winter time in one column
            values = pd.to_datetime(texts.to_pandas(), format=form, exact=True, utc=True)
        except ValueError:
            return
    timed = any(letter in form for letter in "HIMSfcXs")
    dated = any(letter in form for letter in "dyYmbBjcxGVs")
    naive, zone = without_zone(values)
    yield Reading(naive, key, dated, timed, zone, key)


def without_zone(values: Any) -> tuple[Times, str | None]:
    """A pandas series of times as (R,) datetime64 in UTC, and the zone that it says."""
    zone = getattr(values.dt, "tz", None)
    if zone is None:
        return values.to_numpy().copy(), None
    name = str(zone)
    return values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().copy(), name

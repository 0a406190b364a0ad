"""Year, month, day and hour of each row in columns of their own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tbptt.data.panels.columns import kind_of, numbers_of
from tbptt.data.panels.time_texts import Reading, days_of, moments, month_of, texts_of
from tbptt.data.panels.together import Candidate
from tbptt.data.tables.names import words_of

if TYPE_CHECKING:
    from tbptt.data.tables.files import Table

# What each part is called, its smallest and its largest value; a part that is missing has the smallest.
_PARTS = {
    "year": ("year yyyy jahr año ano anno année annee jaar rok yıl yil год 年", 1600, 2200),
    "quarter": ("quarter qtr quartal", 1, 4),
    "month": ("month mm mon monat mes mese mois maand miesiąc miesiac ay месяц 月", 1, 12),
    "day": ("day dd tag dia día giorno jour dag dzień dzien gün gun день 日 dom", 1, 31),
    "hour": ("hour hh hr stunde hora ora heure uur godzina saat час 时", 0, 24),
    "minute": ("minute min minuten minuto", 0, 59),
    "second": ("second sec sekunde segundo", 0, 59),
}
_NAMES = {word: part for part, (words, _, _) in _PARTS.items() for word in words.split()}


def parts_of(table: "Table", names: Sequence[str]) -> Candidate | None:
    """The times that the columns among ``names`` with the parts of a date give together; None if they give none."""
    found: dict[str, str] = {}
    for name in names:
        words = words_of(name)
        part = _NAMES.get(words[0]) if len(words) == 1 else None
        if part is not None and part not in found:
            found[part] = name
    if "year" not in found or not {"month", "quarter"} & found.keys() or ("day" in found and "month" not in found):
        return None
    order = ["year", "month" if "month" in found else "quarter", "day", "hour", "minute", "second"]
    used: list[str] = []
    values: dict[str, Any] = {}
    for part in order:
        if part not in found or (part == "hour" and "day" not in found) or (part == "minute" and "hour" not in used):
            continue
        if (numbers := _numbers(table.frame[found[part]], part)) is None:
            if part in order[:3]:
                return None
            continue
        used.append(part)
        values[part] = numbers
    known = ~np.any([np.isnan(each) for each in values.values()], axis=0)
    whole = {part: each[known].astype(np.int64) for part, each in values.items()}
    zero = np.zeros(int(known.sum()), np.int64)
    month = whole["month"] if "month" in whole else 3 * whole["quarter"] - 2
    days = days_of(whole["year"], month, whole.get("day", zero + 1))
    if np.isnat(days).any():
        return None
    of_day = 3600 * whole.get("hour", zero) + 60 * whole.get("minute", zero) + whole.get("second", zero)
    made = moments(days, of_day * 10**9)
    times = np.full(len(known), np.datetime64("NaT"), made.dtype)
    times[known] = made
    return Candidate(tuple(found[part] for part in used), [Reading(times, timed="hour" in used)])


def _numbers(column: Any, part: str) -> Any:
    """A part of the date in each row, (R,) float64; None if the column holds something else."""
    kind = kind_of(column)
    if kind == "text" and part == "month":
        values = np.array([np.nan if each is None else month_of(each) for each in texts_of(column).to_pylist()])
    elif kind == "number":
        values = numbers_of(column)
    else:
        try:  # the folders year=2024/month=01 give texts
            values = numbers_of(texts_of(column).cast(pa.float64()).to_pandas())
        except pa.ArrowInvalid:
            return None
    here = values[~np.isnan(values)]
    _, low, high = _PARTS[part]
    right = len(here) and (here % 1 == 0).all() and here.min() >= low and here.max() <= high
    return values if right else None

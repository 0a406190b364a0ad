"""What a run trains on, as plain values and in words: the source, the series, their times and rows, the steps of each
part, what was left out and why, and what looks wrong."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from tbptt.data.options import DataConfig
from tbptt.data.panel import Panel, Rows, Times
from tbptt.data.split import Split
from tbptt.evaluation.chance import FEWEST, FEWEST_SERIES
from tbptt.evaluation.words import TOO_SHORT, observed
from tbptt.tasks.options import TaskConfig

PARTS = {"train": "trained on", "val": "to choose by", "test": "to judge by"}
WIDTH, INDENT = 120, 6 * " "  # of a line, in letters; before what goes on with it
MOST_NAMES = 6  # in a line


def described(data: DataConfig, task: TaskConfig, split: Split, warnings: Iterable[str] = ()) -> dict[str, Any]:
    """What is trained, as plain values that JSON can hold. The lines of a terminal, tags, MLflow's dataset and the
    report are made of it.

    Args:
        warnings: what looks wrong besides what was found while reading.

    Returns:
        ``source`` and ``is_file``; ``rows``; ``time``, the columns that the times are from, ``zone``, ``first`` and
        ``last``, each None if there are no times; ``found``, ``left_out`` (why, by column), ``inputs`` and
        ``warnings``; ``fold``; ``count`` and ``uneven``, of the training series; ``parts``, by name, with the
        ``steps``, the ``first`` and the ``last`` time of what is scored, and its ``evidence`` in words; ``series``,
        each with ``name``, ``rows``, ``first``, ``last`` and its ``steps`` by part. ``series`` is empty for series that
        are generated: their names say nothing.
    """
    panel = split.panel
    found = Panel({}).findings if panel is None else panel.findings
    said = _say_times(panel)
    parts = {name: _part(name, data, task, split, said) for name in PARTS}
    first, last = _span([] if panel is None else [panel.series[name].rows for name in split.train])
    path = getattr(data, "path", None)
    return {
        "source": path or found.source or data.name,  # a path as it was typed
        "is_file": path is not None,
        "rows": found.rows or split.rows,
        "time": found.time,
        "zone": None if panel is None or panel.times is None else panel.zone,
        "first": said(first),
        "last": said(last),
        "found": list(found.found),
        "left_out": dict(found.left_out),
        "inputs": [] if panel is None else list(panel.inputs),
        "warnings": list(dict.fromkeys([*found.warnings, *warnings])),
        "fold": getattr(data, "fold", None),
        "count": len(split.train),
        "uneven": len({len(prices) for prices in split.train.values()}) > 1,
        "parts": parts,
        "series": [] if panel is None else [_series(name, panel, split, said) for name in split.train],
    }


def _series(name: str, panel: Panel, split: Split, said: Callable[[Any], str | None]) -> dict[str, Any]:
    rows = panel.series[name].rows
    first, last = (rows[0], rows[-1]) if len(rows) else (None, None)
    steps = {part: split.scored(part, name) for part in PARTS}
    return {"name": name, "rows": len(rows), "first": said(first), "last": said(last), "steps": steps}


def _part(
    part: str, data: DataConfig, task: TaskConfig, split: Split, said: Callable[[Any], str | None]
) -> dict[str, Any]:
    steps = [n for name in getattr(split, part) if (n := split.scored(part, name))]
    scored = []
    for name, rows in split.rows_of.get(part, {}).items():
        if name in getattr(split, part):
            before = split.window + split.warm.get(part, {}).get(name, 0)
            scored.append(rows[before : len(rows) - split.ahead])
    first, last = _span(scored)
    evidence = _observations(data, task, steps, split.moments(part)) if steps and part != "train" else None
    return {"steps": sum(steps), "first": said(first), "last": said(last), "evidence": evidence}


def _span(rows_of: Sequence[Rows]) -> tuple[Any, Any]:
    """The first and the last of all rows; None twice if there is none."""
    some = [rows for rows in rows_of if len(rows)]
    return (min(rows[0] for rows in some), max(rows[-1] for rows in some)) if some else (None, None)


def _observations(data: DataConfig, task: TaskConfig, steps: list[int], moments: int) -> str:
    if data.independent_series:
        few = "" if len(steps) >= FEWEST_SERIES else f", fewer than {FEWEST_SERIES}"
        return f"{len(steps)} independent series{few}"
    count = moments / max(1.0, 2 * task.overlap)
    few = "" if count >= FEWEST else f", fewer than {FEWEST}: {TOO_SHORT}"
    return f"at most about {observed(count)}{few}"


# --- times ----------------------------------------------------------------------------------------------------------

Unit = Literal["D", "m", "s", "us"]
UNITS: dict[Unit, int] = {"D": 86_400 * 10**6, "m": 60 * 10**6, "s": 10**6}  # in microseconds


def _say_times(panel: Panel | None) -> Callable[[Any], str | None]:
    """A function that writes the time of a row of the panel, None for no row: the date alone if every time is midnight,
    else down to the minute, the second or the microsecond, as the times need it. Times are in the panel's zone."""
    if panel is None or panel.times is None:
        return lambda row: None
    local = _local(panel.times, panel.zone)
    unit = _unit(local)

    def said(row: Any) -> str | None:
        return None if row is None else str(np.datetime_as_string(local[int(row)], unit)).replace("T", " ")

    return said


def _local(times: Times, zone: str | None) -> Times:
    """Times in UTC as those that clocks show in a zone; in UTC if the zone is not known here. To microseconds."""
    if zone is not None and zone.upper() != "UTC":
        import pandas as pd

        with suppress(KeyError, ValueError, TypeError):  # a name that this machine has no table for
            times = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy()
    return times.astype("datetime64[us]")


def _unit(local: Times) -> Unit:
    since = local.astype(np.int64)
    return next((unit for unit, length in UNITS.items() if not (since % length).any()), "us")


# --- in words -------------------------------------------------------------------------------------------------------


def data_lines(about: Mapping[str, Any]) -> list[str]:
    """What :func:`described` returns, as the lines that are shown before training begins, without its warnings."""
    fold = f" in fold {about['fold']}" if about["fold"] else ""
    parts = [_part_words(*item) for item in about["parts"].items()]
    if not about["series"]:
        how_many = f"{about['count']} series of " if about["count"] > 1 else "one series of "
        up_to = "up to " if about["uneven"] else ""
        return [f"data: {how_many}{up_to}{about['rows']:,} rows; steps: {', '.join(parts)}"]
    series = _series_words(about)
    return [
        *wrapped(f"data: {_source_words(about)}"),
        *_spread("data: ", series),
        *_spread(f"data: steps{fold}: ", parts),
    ]


def read_lines(panel: Panel, source: str) -> list[str]:
    """What was read to predict on, in the words of :func:`data_lines`, with a line for each thing that looks wrong."""
    said, found = _say_times(panel), panel.findings
    spans = {name: _span([each.rows]) for name, each in panel.series.items()}
    first, last = _span([each.rows for each in panel.series.values()])
    about = {
        **{"source": source, "rows": found.rows, "found": found.found, "left_out": found.left_out, "time": found.time},
        **{"zone": panel.zone, "first": said(first), "last": said(last), "inputs": panel.inputs},
        "warnings": found.warnings,
        "series": [
            {"name": name, "rows": len(panel.series[name].rows), "first": said(begin), "last": said(end)}
            for name, (begin, end) in spans.items()
        ],
    }
    parts = [f"predicts {series_words(about)}"]
    parts += [f"inputs: {few(panel.inputs)}"] if panel.inputs else []
    parts += [f"left out: {left_out_words(found.left_out)}"] if found.left_out else []
    return [*wrapped(f"data: {_source_words(about)}"), *_spread("data: ", parts), *warning_lines(about)]


def _spread(head: str, parts: Sequence[str]) -> list[str]:
    """Parts of a sentence in one line if they fit into it, else each in its own."""
    if len(one := head + "; ".join(parts)) <= WIDTH:
        return wrapped(one)
    ended = [*(f"{part};" for part in parts[:-1]), parts[-1]]
    return [line for i, part in enumerate(ended) for line in wrapped((INDENT if i else head) + part, 10 * " ")]


def warning_lines(about: Mapping[str, Any]) -> list[str]:
    """One line for each thing that looks wrong."""
    return [part for line in about["warnings"] for part in wrapped(f"warning: {line}")]


def wrapped(line: str, indent: str = INDENT) -> list[str]:
    """A line in lines of at most 120 letters, cut at blanks only. Letters that a terminal would obey become ``?``: a
    column's name may be from a file from elsewhere."""
    plain = "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in line)
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(plain, WIDTH, subsequent_indent=indent, **options)


def few(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more:,} more"


def by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """The columns that were left out for each reason."""
    found: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        found.setdefault(reason, []).append(name)
    return found


def left_out_words(left_out: Mapping[str, str], most: int = MOST_NAMES) -> str:
    """``Open, High (prices of the same asset), Volume (volume)``"""
    return ", ".join(f"{few(names, most)} ({reason})" for reason, names in by_reason(left_out).items())


def times_words(of: Mapping[str, Any]) -> str:
    """From when to when; empty if there are no times."""
    if of["first"] is None:
        return ""
    return str(of["first"]) if of["first"] == of["last"] else f"{of['first']} to {of['last']}"


def span_words(about: Mapping[str, Any]) -> str:
    """From when to when all data are, with the zone if times of day are shown, and the columns of the times."""
    if not (said := times_words(about)):
        return ""
    zone = f" {about['zone']}" if about["zone"] and ":" in said else ""
    return said + zone + (f" by {about['time']}" if about["time"] else "")


def series_words(about: Mapping[str, Any], most: int = MOST_NAMES) -> str:
    """The series by name; with the rows of each if these differ."""
    each, count = about["series"], len(about["series"])
    differ = len({one["rows"] for one in each}) > 1
    names = few([f"{one['name']} ({one['rows']:,} rows)" if differ else one["name"] for one in each], most)
    return f"{count:,} series: {names}" if count > 1 else names


def _source_words(about: Mapping[str, Any]) -> str:
    rows = f"{about['rows']:,} row{'' if about['rows'] == 1 else 's'}"
    said = ", ".join(filter(None, [about["source"], rows, span_words(about)]))
    return said + (f" ({'; '.join(about['found'])})" if about["found"] else "")


def _series_words(about: Mapping[str, Any]) -> list[str]:
    parts = [f"trains {series_words(about)}"]
    parts += [f"inputs: {few(about['inputs'])}"] if about["inputs"] else []
    parts += [f"left out: {left_out_words(about['left_out'])}"] if about["left_out"] else []
    return parts + not_scored_words(about)


def not_scored_words(about: Mapping[str, Any], most: int = MOST_NAMES) -> list[str]:
    """The series that train and have no step in val, in test or in both: ``not scored in test: b (ends 2020-05-01)``"""
    there = [part for part in ("val", "test") if about["parts"][part]["steps"]]
    found: dict[str, list[str]] = {}
    for one in about["series"]:
        lacks = [part for part in there if not one["steps"][part]]
        if lacks:
            ended = lacks[-1] == there[-1] and one["last"] is not None and one["last"] < about["last"]
            named = f"{one['name']} (ends {one['last']})" if ended else one["name"]
            found.setdefault(" and ".join(lacks), []).append(named)
    return [f"not scored in {parts}: {few(names, most)}" for parts, names in found.items()]


def _part_words(name: str, part: Mapping[str, Any]) -> str:
    if not part["steps"]:
        return f"none {PARTS[name]}"
    times = times_words(part)
    evidence = f" ({part['evidence']})" if part["evidence"] else ""
    return f"{part['steps']:,} {PARTS[name]}{f', {times}' if times else ''}{evidence}"

"""The section of a study's report on its data. Studies of earlier versions have none."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tbptt.config.names import SWEEPS
from tbptt.evaluation.data_words import PARTS, left_out_words, span_words, times_words
from tbptt.studies.described import FILE
from tbptt.studies.study import Study
from tbptt.system.files import is_own_file

MOST_SERIES = 50  # rows of the table
MOST_NAMED = 20  # columns that were left out for one reason
LARGEST = 64 * 2**20  # bytes of a file that is read
TEXT = ("source",)
TEXT_OR_NONE = ("time", "zone", "first", "last", "fold")
TEXTS = ("found", "inputs", "warnings", "varies")


def section(study: Study, store: Any | None) -> dict[str, Any] | None:
    """What the section shows: ``says``, lines; ``warnings``; the table's ``head``, ``rows`` and last row, ``parts``.
    None if it is not known what the study trained on.

    Args:
        store: the :class:`tbptt.runs.tracking.Store` of its runs, which keeps that too: for a report elsewhere.
    """
    about = _kept(study, store)
    if about is None:
        return None
    return {"says": _says(about), "warnings": about["warnings"], **_table(about)}


def whole_table(study: Study, store: Any | None) -> tuple[list[str], list[list[Any]]]:
    """The columns and rows of the section's table, with all series and numbers as they are; a last row is of all
    together. No rows if it is not known what the study trained on."""
    about = _kept(study, store)
    head = ["series", "first", "last", "rows", *(f"steps_{part}" for part in PARTS)]
    if about is None:
        return head, []
    rows = [
        [one["name"], one["first"] or "", one["last"] or "", one["rows"], *(one["steps"][part] for part in PARTS)]
        for one in about["series"]
    ]
    steps = [about["parts"][part]["steps"] for part in PARTS]
    return head, [*rows, ["all", about["first"] or "", about["last"] or "", about["rows"], *steps]]


def _says(about: Mapping[str, Any]) -> list[str]:
    rows, span = f"{about['rows']:,} row{'' if about['rows'] == 1 else 's'}", span_words(about)
    if not about["series"]:
        many = "one series" if about["count"] == 1 else f"{about['count']:,} series"
        rows = f"{many} of {'up to ' if about['uneven'] else ''}{rows}"
    said = [f"{', '.join(filter(None, [about['source'], rows, span]))}."]
    said += [f"Found out: {'; '.join(about['found'])}."] if about["found"] else []
    said += [f"Left out: {left_out_words(about['left_out'], MOST_NAMED)}."] if about["left_out"] else []
    said += [f"Other inputs of a step: {', '.join(about['inputs'])}."] if about["inputs"] else []
    said += [f"Steps are those of the last fold, {about['fold']}."] if about["fold"] else []
    varies = ", ".join(about["varies"])
    return said + ([f"This is of the first point; these differ between trials: {varies}."] if varies else [])


def _table(about: Mapping[str, Any]) -> dict[str, Any]:
    """Each series with its steps; and of all, the steps, times and evidence of each part."""
    has_times, each = about["first"] is not None, about["series"]
    head = ["series", *(["first", "last"] if has_times else []), "rows", *(f"steps {word}" for word in PARTS.values())]
    rows = []
    for one in each[:MOST_SERIES]:
        times = [one["first"] or "", one["last"] or ""] if has_times else []
        rows.append([one["name"], *times, f"{one['rows']:,}", *(f"{one['steps'][part]:,}" for part in PARTS)])
    if len(each) > MOST_SERIES:
        rows.append([f"{len(each) - MOST_SERIES:,} more, in {FILE}", *[""] * (len(head) - 1)])
    parts = [about["parts"][part] for part in PARTS]
    all_ = [(f"{p['steps']:,}", times_words(p), p["evidence"] or "") if p["steps"] else ("none", "", "") for p in parts]
    return {"head": head, "rows": rows, "parts": all_}


# --- the file, which others may have written ----------------------------------------------------------------------


def _kept(study: Study, store: Any | None) -> dict[str, Any] | None:
    """What the study's folder holds of it, else what its parent run does; None if neither does, or it is damaged."""
    own = SWEEPS / study.name / FILE
    if is_own_file(own):
        return _read(own)
    parent = study.record.parent_run
    if store is None or parent is None:
        return None
    folder = Path(tempfile.mkdtemp())
    try:
        found = store.artifact(parent, FILE, folder)
        return _read(found) if found is not None and is_own_file(found) else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > LARGEST:
            return None
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return about if _is_right(about) else None


def _is_right(about: Any) -> bool:
    """Whether it has the entries of :func:`tbptt.studies.described.data_of` that are shown, with the right types."""
    if not isinstance(about, dict) or not isinstance(about.get("left_out"), dict):
        return False
    return (
        _are(str, [about.get(name) for name in TEXT])
        and _are(str | None, [about.get(name, 0) for name in TEXT_OR_NONE])
        and all(isinstance(about.get(name), list) and _are(str, about[name]) for name in TEXTS)
        and _are(str, list(about["left_out"].values()))
        and _are(int, [about.get("rows"), about.get("count")])
        and "uneven" in about
        and isinstance(about.get("parts"), dict)
        and all(_is_part(about["parts"].get(part)) for part in PARTS)
        and isinstance(about.get("series"), list)
        and all(map(_is_series, about["series"]))
    )


def _are(kind: Any, values: Sequence[object]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _has_times(of: Any) -> bool:
    return isinstance(of, dict) and _are(str | None, [of.get("first", 0), of.get("last", 0)])


def _is_part(part: Any) -> bool:
    return _has_times(part) and _are(int, [part.get("steps")]) and _are(str | None, [part.get("evidence", 0)])


def _is_series(one: Any) -> bool:
    return (
        _has_times(one)
        and _are(str, [one.get("name")])
        and isinstance(one.get("steps"), dict)
        and _are(int, [one.get("rows"), *(one["steps"].get(part) for part in PARTS)])
    )

"""The files of a folder: parts of one table in the order of time, or a file for each series."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tbptt.data.tables.names import DATE, NAMES, words_of

MONTHS = (
    "jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july august september "
    "october november december"
)
# Words in the names of files that are parts of one table.
PARTS = frozenset(
    f"part parts chunk batch block shard split page data prices table file export old new train test val valid "
    f"validation live history historical snappy gz zstd c q w m h y am pm {MONTHS}".split()
)
UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(-c\d+)?", re.IGNORECASE)


def series_of(stems: Sequence[str], tables: Sequence[Any]) -> list[str] | None:
    """What series the rows of each file are of, by its name; None if the names tell none apart.

    ``AAPL`` and ``MSFT`` are series; ``part-0`` and ``2024-01`` are none. ``AAPL_2023`` and ``AAPL_2024`` are parts of
    one. A name of digits alone (``600519``) is one if the times of the files overlap.
    """
    if any(set(words_of(name)) & set(NAMES.split()) - {"file"} for name in tables[0].column_names):
        return None
    bare = [UUID.sub("", stem) for stem in stems]
    words = [tuple(w for w in re.findall(r"[^\W\d_]+", stem) if w.lower() not in PARTS) for stem in bare]
    if len(set(words)) > 1:
        return list(stems) if len(set(words)) == len(stems) else [" ".join(each) or "others" for each in words]
    times = _spans(tables)
    if any(words) or len(set(stems)) < len(stems) or not all(stem.isdigit() for stem in stems) or times is None:
        return None
    in_turn = sorted(times)
    return list(stems) if any(a[1] > b[0] for a, b in pairwise(in_turn)) else None


def by_time(tables: Sequence[Any]) -> list[int] | None:
    """The order of the files by their times, where these do not overlap and the order of names is another; else None.

    Files with the newest row first come newest first.
    """
    times = _spans(tables)
    if times is None:
        return None
    order = sorted(range(len(times)), key=lambda i: times[i])
    if any(times[a][1] > times[b][0] for a, b in pairwise(order)):
        return None
    column = tables[0].column(_time_column(tables[0]))
    if column[0].as_py() > column[-1].as_py():
        order = order[::-1]
    return None if order == list(range(len(times))) else order


def _time_column(table: Any) -> str | None:
    """The column with times: one that has such a type, or whole numbers or texts such as 2024-01-31 called date."""
    import pyarrow.types as kinds

    for field in table.schema:
        if kinds.is_timestamp(field.type) or kinds.is_date(field.type):
            return str(field.name)
    for field in table.schema:
        if not set(words_of(field.name)) & {*DATE.split(), "time", "ts"}:
            continue
        first = table.column(field.name)[0].as_py() if len(table) else None
        if kinds.is_integer(field.type) or (isinstance(first, str) and re.match(r"\d{4}-\d\d-\d\d", first)):
            return str(field.name)
    return None


def _spans(tables: Sequence[Any]) -> list[tuple[Any, Any]] | None:
    """The first and the last time of each file; None if one has no times."""
    import pyarrow.compute as pc

    spans = []
    for table in tables:
        if (name := _time_column(table)) is None:
            return None
        found = pc.min_max(table.column(name)).as_py()
        if found["min"] is None:
            return None
        spans.append((found["min"], found["max"]))
    return spans if len({type(first) for first, _ in spans}) == 1 else None

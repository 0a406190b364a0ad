"""A Parquet file, or a folder of them, as a table."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tbptt.data.tables.files import PARQUET, Table
from tbptt.data.tables.parts import by_time, series_of
from tbptt.system.memory import free_memory, too_large

# Folders that only sort rows by time, as year=2024.
CALENDAR = {"year", "quarter", "month", "week", "day", "hour", "yyyy", "mm", "dd"}
COPIES = 5  # of a table, at most, until its series are made, measured on 1,000,000 rows of 8 columns


def read_parquet(path: Path) -> Table:
    """The rows of a file, or of all files of a folder in the order of their names (``2`` before ``10``).

    Folders such as ``year=2024`` are no column, for they only sort the rows by time; others, as ``symbol=AAA``, become
    columns of texts. A file for each series (``AAPL.parquet``) gives a column ``file``; parts of one table whose names
    sort otherwise than their times come in the order of times. What pandas says of its index and of columns with
    several levels is restored.

    Raises:
        ValueError: there is no Parquet file, or its files have different columns, or memory is short.
    """
    import pandas as pd

    table, of_folders, found, files = _joined(path)
    said = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    index = [name for name in said.get("index_columns", []) if isinstance(name, str) and name in table.column_names]
    names, levels = _names([name for name in table.column_names if name not in index])
    called = {each.get("field_name"): each.get("name") for each in said.get("columns", [])}
    columns: dict[str, Any] = {}
    for i, name in enumerate(index):
        columns[str(called.get(name, name) or f"column {i + 1}")] = table.column(name)
    index_names = tuple(columns)
    columns |= {name: texts for name, texts in of_folders.items() if name not in {*columns, *names.values()}}
    for stored, name in names.items():
        if name in columns:
            raise ValueError(f"{path} has two columns named {name}")
        columns[name] = table.column(stored)
    del table, of_folders
    frame: dict[str, Any] = {}
    for name in list(columns):
        kind = columns[name].type
        values = _values(columns.pop(name))
        if values is None:
            found.append(f"column {name} left out: it holds {kind}, which is no number, time or text")
        else:
            frame[name] = values
    if not frame or not len(next(iter(frame.values()))):
        raise ValueError(f"{path} has no rows")
    return Table(pd.DataFrame(frame, copy=False), levels, None, index_names, tuple(found), files=files)


def _joined(path: Path) -> tuple[Any, dict[str, Any], list[str], tuple[tuple[str, int], ...]]:
    """The rows of all files; columns that names of folders or files are; what was found; where each file begins."""
    import pyarrow as pa
    from pyarrow import parquet

    files = _files(path)
    _refuse_large(files)
    tables: list[Any] = []
    keys: list[dict[str, str]] = []
    for file in files:
        table = parquet.ParquetFile(file).read()
        if tables and table.column_names != tables[0].column_names:
            _refuse_other_columns(path, file, table.column_names, files[0], tables[0].column_names)
        tables.append(table)
        inside = "" if file == path else file.relative_to(path).as_posix()
        keys.append(dict(re.findall(r"([^/=]+)=([^/]*)(?=/)", inside)))
    columns: dict[str, Any] = {}
    found: list[str] = []
    files, tables, keys = _in_order(files, tables, keys, columns, found)
    for name in dict.fromkeys(key for each in keys for key in each):
        texts = [each.get(name) for each in keys]
        if name.lower() in CALENDAR:
            found.append(f"column {name} left out: the names of folders ({name}={texts[0]}) that sort the rows by time")
        else:
            repeated = [
                pa.repeat(pa.scalar(text, pa.string()), t.num_rows) for text, t in zip(texts, tables, strict=True)
            ]
            columns[name] = pa.chunked_array(repeated)
    joined = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    starts = [0, *np.cumsum([t.num_rows for t in tables]).tolist()]
    places = (
        [(f.relative_to(path).as_posix(), s) for f, s in zip(files, starts, strict=False)] if len(files) > 1 else []
    )
    return joined, columns, found, tuple(places)


def _in_order(
    files: list[Path], tables: list[Any], keys: list[dict[str, str]], columns: dict[str, Any], found: list[str]
) -> tuple[list[Path], list[Any], list[dict[str, str]]]:
    """The files in the order of their rows; a file for each series gets a column with the files' names."""
    import pyarrow as pa

    if len(tables) < 2 or any(name.lower() not in CALENDAR for each in keys for name in each):
        return files, tables, keys
    if "file" not in tables[0].column_names and (series := series_of([f.stem for f in files], tables)) is not None:
        texts = [pa.repeat(pa.scalar(text, pa.string()), t.num_rows) for text, t in zip(series, tables, strict=True)]
        columns["file"] = pa.chunked_array(texts)
        found.append(f"column file added: the names of the files ({', '.join(series[:3])}{', …' * (len(series) > 3)})")
    elif (order := by_time(tables)) is not None:
        found.append("the files in the order of their times, not of their names")
        return [files[i] for i in order], [tables[i] for i in order], [keys[i] for i in order]
    return files, tables, keys


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for inside, what in (("_delta_log", "Delta Lake"), ("metadata/version-hint.text", "Iceberg"), (".hoodie", "Hudi")):
        if (path / inside).exists():
            raise ValueError(
                f"{path} is a table of {what}, whose folder also holds rows that were deleted; write it as Parquet"
            )
    files = [
        f
        for f in path.rglob("*")
        if f.suffix.lower() in PARQUET
        and f.is_file()
        and not any(part.startswith((".", "_")) for part in f.relative_to(path).parts)
    ]
    if not files:
        raise ValueError(f"{path} is a folder without Parquet files")
    return sorted(
        files, key=lambda f: [(int(d or 0), t) for d, t in re.findall(r"(\d+)|(\D+)", f.relative_to(path).as_posix())]
    )


def _refuse_large(files: list[Path]) -> None:
    from pyarrow import parquet

    known = [parquet.read_metadata(file) for file in files]
    needed = sum(max(8 * m.num_rows * m.num_columns, _bytes(m)) for m in known) * COPIES
    if problem := too_large(needed):
        raise ValueError(f"it {problem}; about {100 * (free_memory() or 0) / needed:.0f}% of its rows would fit")


def _bytes(metadata: Any) -> int:
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))


def _refuse_other_columns(path: Path, file: Path, names: list[str], first: Path, expected: list[str]) -> None:
    differ = [name for name in (*names, *expected) if (name in names) != (name in expected)]
    what = (
        f"column {', '.join(dict.fromkeys(differ))} in one of them alone" if differ else "the columns in another order"
    )
    names_of_files = " and ".join(each.relative_to(path).as_posix() for each in (first, file))
    raise ValueError(f"{path}: {names_of_files} have {what}")


def _names(stored: list[str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The shown name of each column; the levels of those that have several."""
    parts = {name: _parts(name) for name in stored}
    counts = {len(each) for each in parts.values()}
    if len(counts) != 1 or counts == {1}:
        return {name: name.strip() or f"column {i + 1}" for i, name in enumerate(stored)}, {}
    shown = {name: " ".join(filter(None, each)) for name, each in parts.items()}
    return shown, {shown[n]: each for n, each in parts.items()}


def _parts(name: str) -> tuple[str, ...]:
    """``('Close', 'AAA')``, as pandas stores a name of two levels, in its parts."""
    if len(name) < 1000 and re.fullmatch(r"\(.+,.+\)", name):
        try:
            parts = ast.literal_eval(name)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return (name,)
        if isinstance(parts, tuple) and all(isinstance(part, str | int | float) for part in parts):
            return tuple(str(part).strip() for part in parts)
    return (name,)


def _values(column: Any) -> Any:
    """A column as NumPy or pandas hold it; None if it holds no values that are numbers, times or texts.

    Whole numbers are int64, or float64 where one is missing; other numbers are float64 (NaN: missing); times keep their
    zone; times of day are texts.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    kind = column.type
    if kinds.is_dictionary(kind):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type)
        kind = column.type
    if kinds.is_null(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy()
    if kinds.is_integer(kind):
        try:
            return column.cast(pa.float64() if column.null_count else pa.int64(), safe=not column.null_count).to_numpy()
        except pa.ArrowInvalid:
            return column.cast(pa.float64(), safe=False).to_numpy()  # above 2**63
    if kinds.is_date(kind):
        return column.cast(pa.timestamp("s" if kinds.is_date32(kind) else "ms")).to_pandas()
    if kinds.is_timestamp(kind) or kinds.is_boolean(kind):
        return column.to_pandas()
    if kinds.is_time(kind):
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", "").to_pandas()
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kind == pa.string_view():
        return _texts(column.cast(pa.string()))
    return None


def _texts(column: Any) -> Any:
    """Texts; as numbers, if all are numbers with a point, as exchanges send prices in texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(column)
    if column.null_count < len(column) and pc.any(pc.match_substring(trimmed, ".")).as_py():
        try:
            return trimmed.cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            pass
    return column.to_pandas()

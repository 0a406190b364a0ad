"""Rows of a stream: CSV lines as numbers and times, a block at a time, and which of them are wrong."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from tbptt.data.panels.columns import listed, resolved
from tbptt.data.panels.inputs import parse_inputs
from tbptt.data.panels.time_names import TIME_WORDS
from tbptt.data.tables.names import words_of

NULLS = ["", "nan", "NaN", "NA", "N/A", "null", "NULL", "None", "#N/A"]
SEPARATORS = {"tab": "\t", "space": " "}
NO_TIME = np.iinfo(np.int64).min
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """How rows are written.

    Attributes:
        delimiter: one character.
        decimal: ``.`` or ``,``.
        time_format: as ``data.time_format``.
    """

    delimiter: str = ","
    decimal: str = "."
    time_format: str | None = None

    @classmethod
    def of(cls, delimiter: str | None, decimal: str | None, time_format: str | None) -> "Form":
        """From the config's keys. Raises ValueError if one character is to be both."""
        decimal = decimal or "."
        delimiter = SEPARATORS.get(delimiter or "", delimiter) or (";" if decimal == "," else ",")
        if delimiter == decimal:
            raise ValueError(f"data.delimiter: got {delimiter!r}, which is data.decimal, too; takes another, such as ;")
        return cls(delimiter, decimal, time_format)

    def fields(self, line: str) -> list[str]:
        """The fields of a line, without blanks around them."""
        return [each.strip() for each in next(csv.reader([line], delimiter=self.delimiter), []) or [""]]

    def without_blank_lines(self, block: bytes) -> bytes:
        """Whole lines without those that hold nothing."""
        blanks = rb"[\r\t ]*" if self.delimiter not in ("\t", " ") else rb"\r?"
        return re.sub(rb"(?m)^" + blanks + rb"\n", b"", block)

    def number(self, text: str) -> float | None:
        """A number, NaN for a missing one; None if it is neither."""
        if text in NULLS:
            return np.nan
        try:
            found = float(text.replace(self.decimal, "."))
        except ValueError:
            return None
        return found if np.isfinite(found) and "_" not in text else None


@dataclass(frozen=True)
class Columns:
    """What the fields of a row are.

    Attributes:
        count: fields of a row.
        names: of the series, in the network's order.
        series: the field of each series.
        inputs: the field and the form of each of the run's other inputs.
        time: the field of the time; None if there is none.
        unused: names of fields that are none of these.
        header: the names of all fields; empty if they have none.
    """

    count: int
    names: list[str]
    series: list[int]
    inputs: list[tuple[int, str]] = field(default_factory=list)
    time: int | None = None
    unused: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)

    @classmethod
    def one(cls, name: str) -> "Columns":
        """A number a line."""
        return cls(1, [name], [0])

    @classmethod
    def of(cls, header: Sequence[str], series: list[str] | None, inputs: list[str], time: str | None) -> "Columns":
        """From a line of names.

        Args:
            series, inputs: of the run; ``series`` None: all that is no time is a series.
            time: the name of the time's field, if it is known.

        Raises:
            ValueError: one line; a series or an input is missing, or a name is there twice.
        """
        names = list(header)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the header has {twice[0]!r} twice; a name belongs to one field")
        parsed = parse_inputs(inputs, names) if inputs else []
        at = resolved(time, names) if time else None
        if at is None:
            free = [name for name in names if name not in (series or []) and name not in [each for each, _ in parsed]]
            at = next((name for name in free if set(words_of(name)) & TIME_WORDS), None)
        if series is None:
            series = [name for name in names if name != at and name not in [each for each, _ in parsed]]
        found = {name: near for name in series if (near := resolved(name, names)) is not None and near != at}
        if lacks := [name for name in series if name not in found] or ([] if series else ["of prices"]):
            has = listed(names)
            raise ValueError(f"the header has no {listed(lacks)} (it has: {has}); the first line names the fields")
        used = {*found.values(), *(name for name, _ in parsed), at}
        return cls(
            len(names),
            series,
            [names.index(found[name]) for name in series],
            [(names.index(name), form) for name, form in parsed],
            None if at is None else names.index(at),
            [name for name in names if name not in used],
            names,
        )


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows, R of them.

    Attributes:
        numbers: (R, F) by field, NaN where one is missing, and in fields that are not used.
        times: (R,) in microseconds since 1970; :data:`NO_TIME` if there is none.
        said: the times as they came; None if there are none.
        wrong: by row, what is wrong with it.
    """

    numbers: Numbers
    times: NDArray[np.int64]
    said: list[str] | None
    wrong: dict[int, str]


def parsed(block: bytes, columns: Columns, form: Form) -> Block:
    """Whole lines as numbers: all at once, or line by line if one of them is wrong."""
    found = _at_once(block, columns, form)
    return found if found is not None else _line_by_line(block, columns, form)


def _used(columns: Columns) -> list[int]:
    return sorted({*columns.series, *(at for at, _ in columns.inputs)})


def _at_once(block: bytes, columns: Columns, form: Form) -> Block | None:
    if columns.count > 1 and b"\n\n" in b"\n" + block.replace(b"\r", b""):
        return None  # an empty line is no row of missing values
    names, used = [str(i) for i in range(columns.count)], _used(columns)
    types: dict[str, pa.DataType] = {str(i): pa.float64() for i in used}
    if columns.time is not None:
        types[str(columns.time)] = pa.string()
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
            pa.csv.ParseOptions(delimiter=form.delimiter, ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                column_types=types, null_values=NULLS, decimal_point=form.decimal, include_columns=list(types)
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    count = block.count(b"\n")
    if table.num_rows != count:
        return None
    numbers = np.full((count, columns.count), np.nan)
    for i in used:
        numbers[:, i] = table.column(str(i)).to_numpy()
    if np.isinf(numbers).any():
        return None
    return _with_times(numbers, table, columns, form)


def _with_times(numbers: Numbers, table: pa.Table, columns: Columns, form: Form) -> Block:
    texts = None if columns.time is None else table.column(str(columns.time)).to_pylist()
    return _block(numbers, texts, {}, form)


def _block(numbers: Numbers, texts: list[str] | None, wrong: dict[int, str], form: Form) -> Block:
    if texts is None:
        return Block(numbers, np.full(len(numbers), NO_TIME), None, wrong)
    times = times_of(texts, form.time_format)
    for row in np.flatnonzero(times == NO_TIME).tolist():
        wrong.setdefault(row, f"{texts[row][:40]!r} is not a time")
    return Block(numbers, times, texts, wrong)


def _line_by_line(block: bytes, columns: Columns, form: Form) -> Block:
    lines = block.split(b"\n")[:-1]
    numbers, wrong = np.full((len(lines), columns.count), np.nan), {}
    texts = [""] * len(lines)
    for row, line in enumerate(lines):
        try:
            fields = form.fields(line.decode().removesuffix("\r"))
        except (UnicodeDecodeError, csv.Error):
            wrong[row] = "is no text"
            continue
        if len(fields) != columns.count:
            wrong[row] = f"has {len(fields)} field{'' if len(fields) == 1 else 's'}; takes {columns.count}"
            continue
        texts[row] = "" if columns.time is None else fields[columns.time]
        for i in _used(columns):
            number = form.number(fields[i])
            if number is None:
                of = f" in {columns.header[i]}" if columns.header else ""
                wrong[row] = f"{fields[i][:40]!r}{of} is not a number"
                break
            numbers[row, i] = number
    return _block(numbers, None if columns.time is None else texts, wrong, form)


def times_of(texts: list[str], time_format: str | None) -> NDArray[np.int64]:
    """Times in microseconds since 1970, in UTC; :data:`NO_TIME` for what is none.

    Without a format: ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970, told by their size.
    """
    import pandas as pd

    first = next((text for text in texts if text.strip()), "")
    unit = time_format if time_format in ("s", "ms", "us", "ns") else None
    if time_format is None and re.fullmatch(r"\d{9,19}(\.\d*)?", first.strip()):
        digits = len(first.strip().split(".")[0])
        unit = "s" if digits < 12 else "ms" if digits < 15 else "us" if digits < 18 else "ns"
    column = pd.Series(texts, dtype=object)
    if unit is not None:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        scaled = numbers * {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[unit]
        known = np.isfinite(scaled) & (np.abs(scaled) < 2**62)
        return np.where(known, np.where(known, scaled, 0).round().astype(np.int64), NO_TIME)
    options: dict[str, Any] = {"format": time_format or "ISO8601"}
    if time_format in ("day_first", "month_first"):
        options = {"format": "mixed", "dayfirst": time_format == "day_first"}
    found = pd.to_datetime(column, errors="coerce", utc=True, **options)
    whole: NDArray[np.int64] = found.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return whole  # NaT is the smallest number, as NO_TIME

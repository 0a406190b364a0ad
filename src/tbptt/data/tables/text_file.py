"""A text file as a table: CSV and the like, in whatever form a site or a program exports it."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.panel import DataError
from tbptt.data.tables import dialect, numbers, raw_text, separators
from tbptt.data.tables.dialect import NO_DELIMITER, Layout
from tbptt.data.tables.files import Form, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALLED = {"\t": "tab", " ": "space"}


def read_text(path: Path, packed: str | None, form: Form) -> Table:
    """The table of a text file. Raises ValueError without the path, or beginning with it where a cell is meant."""
    body, encoding = raw_text.as_utf8(raw_text.unpacked(path, packed), form.encoding)
    body = _without_blank_end(body)
    if not body:
        raise _Named(f"{path} is empty")
    lines, tail = _first_lines(body), _last_lines(body)
    delimiter, told = _delimiter(lines, form)
    header = 0 if form.names and form.header is None else form.header
    lines[:told] = [""] * told
    try:
        layout = dialect.layout_of(lines, tail, delimiter, header, form.footer)
    except ValueError as error:
        raise _Named(f"{path}{', ' if str(error).startswith('line') else ' '}{error}") from error
    if (
        form.names
        and form.header is None
        and (names_there := dialect.layout_of(lines, tail, delimiter, None, form.footer).header)
    ):
        raise _Named(
            f"{path}: the first line holds names ({', '.join(names_there[0][:4])}{', …' * (layout.width > 4)}); add "
            "data.header=1 for data.names to stand in their place",
            "data.names",
        )
    names = _Names.of(layout, form, path)
    texts, lines_of_rows = _cells(body, layout, path)
    del body
    columns = {
        name: numbers.trimmed(texts.column(i))
        for i, name in enumerate(names.columns)
        if not (name == f"column {i + 1}" and i == len(names.columns) - 1 > 0 and _is_blank(texts.column(i)))
    }
    del texts
    if not columns or not len(next(iter(columns.values()))):
        raise _Named(f"{path} has a header line and no rows")

    def place(name: str, row: int) -> str:
        line = lines_of_rows + row if isinstance(lines_of_rows, int) else lines_of_rows[row]
        return f"{path}, column {name}, line {line}"

    try:
        frame, percent, read_as, warnings, signs = _typed(columns, place, delimiter, form)
    except ValueError as error:
        raise _Named(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    found = _found(encoding, layout, read_as, form, names.levels_are_said) + signs
    return Table(frame, names.levels, lines_of_rows, (), found, percent, warnings)


class _Named(DataError):
    """An error whose line begins with the path."""


def _without_blank_end(body: bytes) -> bytes:
    """The text without lines of blanks and delimiters alone at its end."""
    end = len(body.rstrip(b' \t\n,;|"\x1a'))
    line_end = body.find(b"\n", end)
    body = body if line_end < 0 else body[:line_end]
    return body if body.strip(b" \t\n\x1a") else b""


def _first_lines(body: bytes) -> list[str]:
    start = body[: 4 * raw_text.SAMPLE]
    lines = start.split(b"\n", dialect.HEAD)
    if len(lines) > dialect.HEAD or (len(start) < len(body) and len(lines) > 1):
        lines.pop()
    return [line.decode(errors="replace") for line in lines]


def _last_lines(body: bytes) -> list[str]:
    end = body[-raw_text.SAMPLE :]
    lines = end.rsplit(b"\n", dialect.TAIL)
    if len(lines) > dialect.TAIL or (len(end) < len(body) and len(lines) > 1):
        lines.pop(0)
    return [line.decode(errors="replace") for line in lines]


def _delimiter(lines: list[str], form: Form) -> tuple[str, int]:
    """The delimiter, and how many lines at the beginning say no more than it (Excel's ``sep=;``)."""
    said = re.fullmatch(r'"?sep=(.)"?[,;]*', lines[0].strip(" "), re.IGNORECASE)
    told = 1 if said else 0
    if form.delimiter is not None:
        return {"tab": "\t", "space": " "}.get(form.delimiter, form.delimiter), told
    return said[1] if said else dialect.find_delimiter(lines), told


@dataclass
class _Names:
    columns: list[str]
    levels: dict[str, tuple[str, ...]]
    levels_are_said: int  # how many lines of names to tell of; 1 is not told

    @classmethod
    def of(cls, layout: Layout, form: Form, path: Path) -> "_Names":
        if form.names:
            return cls(_given(layout, form, path), {}, 1)
        if not layout.header:
            if form.header is None:
                raise _Named(
                    f"{path}: the first line holds numbers, not names; name the columns: 'data.names=[a,b,…]' "
                    f"({layout.width} column{'' if layout.width == 1 else 's'}; if these are names: data.header=1)",
                    "data.names",
                )
            return cls([f"column {i + 1}" for i in range(layout.width)], {}, 1)
        if wrong := next((cells for cells in layout.header if len(cells) != layout.width), None):
            raise _Named(f"{path}: the header holds {len(wrong)} names, but the rows have {layout.width} cells")
        rows, first = _levels(layout.header)
        parts = list(zip(*rows, strict=True))
        columns = [" ".join(dict.fromkeys(part for part in each if part)) if i == 0 else " ".join(filter(None, each))
                   for i, each in enumerate(parts)]  # fmt: skip
        columns[0] = columns[0] if first is None else first
        columns = [name or f"column {i + 1}" for i, name in enumerate(columns)]
        _refuse_twice(columns, path)
        several = len(rows) > 1
        levels = dict(zip(columns[1:], parts[1:], strict=True)) if several else {}
        if several and first is None and columns[0] != "column 1":
            levels = {columns[0]: parts[0], **levels}
        return cls(columns, levels, len(layout.header))


def _given(layout: Layout, form: Form, path: Path) -> list[str]:
    columns = [name.strip() for name in form.names]
    if len(columns) != layout.width:
        raise _Named(f"{path} has {layout.width} columns, but data.names has {len(columns)} names", "data.names")
    _refuse_twice(columns, path)
    return columns


def _levels(header: list[list[str]]) -> tuple[list[list[str]], str | None]:
    """The lines of names; the name of the first column, where it has a line of its own or none.

    pandas writes ``Price,Close`` / ``Ticker,AAA`` / ``Date,``: the first cells name the levels, and the last line names
    the index.
    """
    rows = [list(cells) for cells in header]
    if len(rows) == 1:
        return rows, None
    first = None
    if rows[-1][0] and not any(rows[-1][1:]):
        first = rows.pop()[0]
    elif all(cells[0].lower() in dialect.LEVEL_NAMES for cells in rows):
        first = ""
    for cells in rows[:-1]:  # a cell that spans columns is written once: AAPL,,,MSFT,,
        for i in range(1 if first is None and cells[0] else 2, len(cells)):
            cells[i] = cells[i] or cells[i - 1]
    return rows, first


def _refuse_twice(columns: list[str], path: Path) -> None:
    for name in columns:
        if columns.count(name) > 1:
            at = [i + 1 for i, each in enumerate(columns) if each == name]
            raise _Named(
                f"{path} has {len(at)} columns named {name} ({', '.join(map(str, at[:4]))}); give them other names: "
                f"data.header=1 'data.names=[a,b,…]' ({len(columns)} columns)",
                "data.names",
            )


def _is_blank(texts: Any) -> bool:
    import pyarrow.compute as pc

    return not pc.any(pc.not_equal(pc.utf8_trim_whitespace(texts), "")).as_py()


def _cells(body: bytes, layout: Layout, path: Path) -> "tuple[Any, int | NDArray[np.int64]]":
    """The cells of all rows as texts, and the line of each row.

    Raises:
        ValueError: a row has more or fewer cells than there are names.
    """
    import pyarrow as pa

    start = _start_of_line(body, layout.first)
    end = len(body)
    for _ in range(layout.after):
        end = body.rfind(b"\n", 0, end)
    if end <= start:
        return pa.table({str(i): pa.array([], pa.string()) for i in range(layout.width)}), layout.first
    delimiter, quoted = layout.delimiter, b'"' in body
    rows = memoryview(body)[start:end]
    if delimiter == " ":
        rows = memoryview(_single_blanks(bytes(rows)))
    elif re.search(rb'%s +"' % re.escape(delimiter.encode()), body[:65536]):  # ``1, "2,000"``
        rows = memoryview(re.sub(rb'%s +"' % re.escape(delimiter.encode()), delimiter.encode() + b'"', bytes(rows)))
    try:
        table = _parsed(rows, delimiter, layout.width, quoted)
    except pa.ArrowInvalid as error:
        text = bytes(rows)
        if re.search(rb"(?m)^ +$", text):
            text = re.sub(rb"(?m)^ +$", b"", text)
        _refuse_ragged(text, delimiter, layout, path)
        try:
            table = _parsed(memoryview(text), delimiter, layout.width, quoted)
        except pa.ArrowInvalid:
            raise error from None
    if table.num_rows == body.count(b"\n", start, end) + 1:
        return table, layout.first
    return table, _lines(bytes(rows), delimiter, layout)


def _start_of_line(body: bytes, line: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = body.find(b"\n", start) + 1
        if start == 0:
            return len(body)
    return start


def _parsed(rows: memoryview, delimiter: str, width: int, quoted: bool) -> Any:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(i) for i in range(width)]
    return arrow_csv.read_csv(
        pa.BufferReader(pa.py_buffer(rows)),
        read_options=arrow_csv.ReadOptions(column_names=names, block_size=raw_text.BLOCK),
        # A blank line is a gap where there is one column; else it is no row.
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=quoted, ignore_empty_lines=width > 1
        ),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _single_blanks(text: bytes) -> bytes:
    """The text with one blank between cells, and none at the ends of lines."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")


def _csv_rows(text: bytes, delimiter: str, layout: Layout) -> Any:
    """The line and the cells of each row, by Python's own parser: slower, but it counts lines."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(text), "utf-8", newline="\n"), delimiter=delimiter)
    line = layout.first
    for cells in reader:
        if cells or layout.width == 1:
            yield line, cells
        line = layout.first + reader.line_num


def _lines(text: bytes, delimiter: str, layout: Layout) -> "NDArray[np.int64]":
    return np.fromiter((line for line, _ in _csv_rows(text, delimiter, layout)), np.int64)


def _refuse_ragged(text: bytes, delimiter: str, layout: Layout, path: Path) -> None:
    for line, cells in _csv_rows(text, delimiter, layout):
        if max(1, len(cells)) != layout.width:
            raise _Named(
                f"{path}, line {line} has {len(cells)} cell{'' if len(cells) == 1 else 's'}, but there are "
                f"{layout.width} columns (data.delimiter is {CALLED.get(layout.delimiter, layout.delimiter)!r})"
            )


def _typed(columns: dict[str, Any], place: separators.Place, delimiter: str, form: Form) -> Any:
    """The columns as numbers and texts; the texts are let go of one by one."""
    import pandas as pd

    by_name = {name: numbers.written(name, texts) for name, texts in columns.items()}
    known = [column for column in by_name.values() if column is not None]
    for name, column in by_name.items():
        if column is not None:
            columns[name] = None
    read_as = separators.decided(known, place, delimiter, form.decimal, form.thousands)
    done: dict[str, Any] = {}
    percent, warnings, scaled = [], [], []
    for name in list(by_name):
        if (column := by_name.pop(name)) is None:
            done[name] = columns.pop(name).to_pandas()
            continue
        done[name] = separators.values_of(column, read_as, place)
        if column.scaled_row is not None:
            value = done[name][column.scaled_row]
            scaled.append(f"{column.scaled_text!r} in column {name} is {value:.15g}")
        warnings += column.warnings
        if column.percent:
            percent.append(name)
    if percent:
        shown = ", ".join(percent[:4]) + (", …" if len(percent) > 4 else "")
        scaled.append(f"% signs of {shown} left out: 1.5% is 1.5")
    return pd.DataFrame(done, copy=False), tuple(percent), read_as, tuple(warnings), tuple(scaled)


def _found(
    encoding: str, layout: Layout, read_as: separators.Reading, form: Form, header_lines: int
) -> tuple[str, ...]:
    """What is not the plain form, one phrase each."""
    found = []
    if form.encoding is None and encoding not in ("utf-8", "ascii"):
        found.append(f"encoding {encoding} (data.encoding)")
    if form.delimiter is None and layout.delimiter not in (",", NO_DELIMITER):
        found.append(f"delimiter {CALLED.get(layout.delimiter) or repr(layout.delimiter)} (data.delimiter)")
    if form.decimal is None and read_as.decimal != ".":
        found.append(f"decimal {read_as.decimal!r} (data.decimal)")
    if form.thousands is None and read_as.thousands:
        found.append(f"thousands {CALLED.get(read_as.thousands) or repr(read_as.thousands)} (data.thousands)")
    found += read_as.notes
    if form.header is None and header_lines > 1:
        found.append(f"{header_lines} header lines (data.header)")
    for lines, where, key in (
        (layout.before, "before the header", "header"),
        (layout.under, "under the names", "header"),
        (layout.footer, "at the end", "footer"),
    ):
        if lines and getattr(form, key) is None:
            shown = f"{lines[0][:40]}{'…' if len(lines[0]) > 40 else ''}"
            found.append(f"{len(lines)} line{'s' * (len(lines) > 1)} {where} left out: '{shown}' (data.{key})")
    return tuple(found)

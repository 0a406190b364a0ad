"""Reading a file as a table: its format is found out, and what was found is said."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tbptt.data.panel import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Form:
    """What is known of a text file's form; None and () are to be found out.

    Attributes:
        delimiter: one character, ``tab`` or ``space``.
        decimal: ``.`` or ``,``.
        thousands: ``,``, ``.``, ``'``, ``space`` or ``none``.
        encoding: Python's name of the text's encoding.
        header: how many lines hold the columns' names.
        names: the columns' names; the file then has no header.
        footer: how many lines at the end are no rows.
    """

    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    header: int | None = None
    names: tuple[str, ...] = ()
    footer: int | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """A file's content.

    Attributes:
        frame: columns of numbers are float64 or int64 (NaN: a blank); all others are texts, or what Parquet says they
            are. The names of a header with several levels are joined by a blank, ``Close AAA``; a column without a name
            is called ``column 1``, counted from 1. The index is a plain range.
        levels: the parts of each name of a header with several levels: ``{"Close AAA": ("Close", "AAA")}``; else empty.
        lines: the line of the file that row i of the frame stands in, counted from 1, as an editor does: ``lines + i``,
            or ``lines[i]`` where blank lines or line ends inside of cells come between; None if the file has no lines
            (Parquet). :func:`tbptt.data.panels.columns.line_of` tells it.
        index: the names of columns that the file itself marks as its index (Parquet written by pandas).
        found: what was found out, one phrase each with its key, as in :class:`tbptt.data.panel.Findings`.
        percent: the names of columns whose numbers were written with a % sign; 1.5% is read as 1.5.
        warnings: one line each.
        files: of a folder, the name of each file and its first row, counted from 0; else empty.
    """

    frame: "pd.DataFrame"
    levels: dict[str, tuple[str, ...]]
    lines: "int | NDArray[np.int64] | None"
    index: tuple[str, ...]
    found: tuple[str, ...]
    percent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()


PARQUET = (".parquet", ".pq")


def read_table(path: Path, form: Form = Form()) -> Table:
    """The content of a text file (CSV and the like, also compressed), a Parquet file or a folder of Parquet files.

    Any file that holds text is read as a table of numbers, dates and names, whatever its suffix. Its form is found out
    from the whole file (:mod:`tbptt.data.tables.dialect`, :mod:`tbptt.data.tables.numbers`), where ``form`` does not
    say it. The cells of a column become numbers if all are numbers or blanks; otherwise the column stays as text, also
    where a single cell is wrong.

    Raises:
        ValueError: one line that begins with the path and says what is wrong, where, and which key says what is right.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is not a file")
    try:
        return _read(path, form)
    except Exception as error:  # pyarrow and zipfile raise a dozen kinds for a file that is not what its name says
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        line = reason if reason.startswith(str(path)) else f"{path} cannot be read: {reason}"
        raise (DataError(line, error.key) if isinstance(error, DataError) else ValueError(line)) from error


def _read(path: Path, form: Form) -> Table:
    from tbptt.data.tables import parquet, raw_text
    from tbptt.data.tables.foreign import MAGIC, refuse_foreign
    from tbptt.data.tables.text_file import read_text

    if path.is_dir():
        return parquet.read_parquet(path)
    refuse_foreign(path, path.suffix.lower())
    if path.suffix.lower() in PARQUET:
        return parquet.read_parquet(path)
    head, packed = raw_text.beginning(path)
    if head.startswith(b"PAR1"):
        if packed is None:
            return parquet.read_parquet(path)
        raise ValueError(f"it is Parquet inside {packed}; unpack it")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS, not the file itself; get it with: git lfs pull")
    if head[257:262] == b"ustar":
        refuse_foreign(path, ".tar")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, suffix in MAGIC.items():
        if start.startswith(magic):
            refuse_foreign(path, suffix)
    return read_text(path, packed, form)

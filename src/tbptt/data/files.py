"""Reading a file as a table: its format is found out, and what was found is said."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


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
        level_names: what the file calls these levels, ``("Price", "Ticker")``; "" where it does not say.
        lines: the line of the file that row i of the frame stands in is ``lines + i``, counted from 1, as an editor
            does; None if the file has no lines (Parquet).
        index: the names of columns that the file itself marks as its index (Parquet written by pandas).
        found: what was found out, one phrase each with its key, as in :class:`tbptt.data.panel.Findings`.
        percent: the names of columns whose numbers were written with a % sign; 1.5% is read as 1.5.
        warnings: one line each.
    """

    frame: "pd.DataFrame"
    levels: dict[str, tuple[str, ...]]
    level_names: tuple[str, ...]
    lines: int | None
    index: tuple[str, ...]
    found: tuple[str, ...]
    percent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_table(path: Path, form: Form = Form()) -> Table:
    """The content of a text file (CSV and the like, also compressed), a Parquet file or a folder of Parquet files.

    Raises:
        ValueError: one line that says what is wrong, where, and which key says what is right.
    """
    raise NotImplementedError

"""A DataFrame of one's own, as a table and as a panel."""

from dataclasses import fields
from typing import TYPE_CHECKING

from tbptt.data.options import SplitData, TableData
from tbptt.data.panel import DataError, Panel
from tbptt.data.panels.columns import kind_of
from tbptt.data.panels.panel_file import panel_of_table
from tbptt.data.tables.files import Table

if TYPE_CHECKING:
    import pandas as pd


def panel_of_frame(frame: "pd.DataFrame", data: "SplitData", source: str) -> Panel:
    """The panel of a DataFrame that a data source returns.

    Whoever writes a source chooses its columns, so each column of numbers is a series, and nothing is guessed from
    names or content. A ``DatetimeIndex`` gives the times, else the only column of datetimes;
    ``data.columns`` and ``data.inputs`` apply as they do to a
    file, and so do ``data.time``, ``data.by`` and ``data.gaps`` if the source builds on ``TableData``.

    Raises:
        ValueError: one line that says what is wrong, in which row, and which key says what is right.
    """
    table = table_of_frame(frame, source)
    if isinstance(data, TableData):
        return panel_of_table(table, data, source, guess=False)
    as_table = TableData(**{each.name: getattr(data, each.name) for each in fields(SplitData)})
    try:
        return panel_of_table(table, as_table, source, guess=False)
    except DataError as error:
        if hasattr(data, error.key.removeprefix("data.")) or error.key == "data.path":
            raise
        line = f"{error}; {source} has no {error.key}: it has one if it builds on TableData"
        raise DataError(line, "data") from None


def table_of_frame(frame: "pd.DataFrame", source: str) -> Table:
    """A DataFrame as what is read from a file: names are texts, an index with a meaning becomes a column.

    Raises:
        ValueError: two columns have one name.
    """
    import pandas as pd

    levels = {}
    frame = frame.copy(deep=False)
    if isinstance(frame.columns, pd.MultiIndex):
        parts = [tuple(map(str, name)) for name in frame.columns]
        frame.columns = pd.Index([" ".join(filter(None, each)) for each in parts])
        levels = dict(zip(frame.columns, parts, strict=True))
    frame.columns = pd.Index([str(name) for name in frame.columns], dtype=object)
    index = []
    for at in range(frame.index.nlevels):
        values = frame.index.get_level_values(at)
        if frame.index.nlevels > 1 or kind_of(values.to_series()) == "time":
            name = str(values.name or ("index" if frame.index.nlevels == 1 else f"index {at + 1}"))
            index.append(name)
            frame.insert(at, name, values, allow_duplicates=True)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"{source} has two columns {twice}; a name belongs to one column")
    return Table(frame.reset_index(drop=True), levels, None, tuple(index), ())

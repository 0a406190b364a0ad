"""From a table to a panel: which columns are times, series and inputs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tbptt.data.panel import DataError, Findings, Panel, Rows, Series, Times
from tbptt.data.panels.calendar import gaps_of, oldest_first, said
from tbptt.data.panels.choice import Chooser, Picked, is_change, one_price
from tbptt.data.panels.columns import and_list, kind_of, line_of, listed, resolved
from tbptt.data.panels.gaps import TooFew, with_inputs, without_gaps
from tbptt.data.panels.long_format import Groups, groups_of, without_blank
from tbptt.data.panels.mixed import refuse_mixed
from tbptt.data.panels.suspicious import suspicions
from tbptt.data.panels.times import RowTimes, times_of
from tbptt.data.prices import FEWEST, LARGE, Prices, fewest
from tbptt.data.tables.files import Table, read_table

if TYPE_CHECKING:
    from tbptt.data.options import PricesData, TableData

KEYS = ("columns", "inputs", "time", "time_format", "by", "gaps")  # of TableData: what a panel depends on


def panel_of_file(path: str, data: "PricesData") -> Panel:
    """The panel of a file, cached while the file is unchanged. Raises ValueError with one line.

    A sweep needs the cache, as :func:`tbptt.data.prices.prices_of_file` says. Callers share the arrays, so these are
    read-only.
    """
    version = version_of(Path(path))
    request = _Request(path, version, repr([getattr(data, key) for key in KEYS] + [data.form]), data)
    cached = _last_read if version and version[1] > LARGE else _lately_read
    found = (cached if fewest() == FEWEST else _read)(request)
    if isinstance(found, _Failure):
        raise ValueError(found.line) if found.key is None else DataError(found.line, found.key)
    return found


@dataclass(frozen=True)
class _Request:
    """What is read; two are the same if the file and the keys are, whatever else the config says."""

    path: str
    version: tuple[int, int, int] | None
    keys: str
    data: "PricesData" = field(compare=False)


def version_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file, or a file in a folder, changes: newest change, bytes, inode or number of files."""
    if not path.exists():
        return None
    if not path.is_dir():
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
    each = [status for file in sorted(path.rglob("*")) if file.is_file() and (status := file.stat())]
    return max((s.st_mtime_ns for s in each), default=0), sum(s.st_size for s in each), len(each)


@dataclass(frozen=True)
class _Failure:
    """Why a file cannot be used; kept in place of the error, which would keep all that was read."""

    line: str
    key: str | None


def _read(request: _Request) -> Panel | _Failure:
    try:
        panel = panel_of_table(read_table(Path(request.path), request.data.form), request.data, request.path)
    except ValueError as error:
        return _Failure(str(error), error.key if isinstance(error, DataError) else None)
    arrays = [array for each in panel.series.values() for array in (each.prices, each.rows, each.inputs)]
    for array in arrays if panel.times is None else [*arrays, panel.times]:
        array.flags.writeable = False
    return panel


_last_read = lru_cache(maxsize=1)(_read)
_lately_read = lru_cache(maxsize=4)(_read)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # of columns that hold inf, which are refused
def panel_of_table(table: Table, data: "TableData", source: str, guess: bool = True) -> Panel:
    """The panel of a table: times recognised, series told from other columns, inputs formed, gaps treated.

    Args:
        guess: whether to tell series from other columns; else each column of numbers is one, and times are only in
            the columns that the table marks as its index, or that ``data.time`` names.

    Raises:
        ValueError: one line that says what is wrong, where, and which key says what is right.
    """
    if len(table.frame) < max(1, fewest()):
        count = f"{len(table.frame)} row{'' if len(table.frame) == 1 else 's'}"
        raise ValueError(f"{source} has {count}; a series needs at least {max(1, fewest())}")
    return _Maker(table, data, source, guess).panel()


class _Maker:
    def __init__(self, table: Table, data: "TableData", source: str, guess: bool) -> None:
        self.table, self.data, self.source, self.guess = table, data, source, guess
        self.found = list(table.found)
        self.warnings = list(table.warnings)
        self.blanks: dict[str, int] = {}
        self.too_few: dict[str, TooFew] = {}
        self.times: Times | None = None  # of the table's rows

    def panel(self) -> Panel:
        times = self._times()
        self.times = times.values
        groups = groups_of(self.table, self.data, self.source, times.values, times.names, self.guess)
        order = self._order(times, groups)
        taken = dict(times.others) | dict.fromkeys(times.names, "times")
        if groups is not None:
            taken[groups.column] = "the names of the series"
            self.found.append(f"one series a {groups.column} (data.by)")
        rows = order if groups is None else _of_longest(groups, order)
        chooser = Chooser(self.table, self.data, self.source, taken, rows, self.guess)
        if groups is None:
            series, calendar = self._wide(chooser, times, order)
        else:
            series, calendar = self._long(chooser, groups, times, order)
        self._say_gaps(calendar)
        left_out = {n: why for n, why in chooser.left_out.items() if n not in times.names}
        if groups is not None:
            left_out.pop(groups.column, None)
        findings = Findings(
            self.source,
            len(self.table.frame),
            tuple(self.found),
            left_out,
            tuple(self.warnings),
            and_list(list(times.names)) or None,
        )
        shared = groups is None or calendar is not None
        return Panel(series, shared, calendar, times.zone, tuple(self.data.inputs), findings)

    def where(self, row: int) -> str:
        return line_of(self.table, row)

    def when(self, row: int) -> str:
        return "" if self.times is None else f" ({said(self.times[row])})"

    def _times(self) -> RowTimes:
        names = list(map(str, self.table.frame.columns))
        inputs = [text.rpartition(":")[0] or text for text in self.data.inputs]
        asked = [*(self.data.columns or ()), *self.data.inputs, *inputs]
        kept = frozenset(name for each in asked if (name := resolved(each, names)) is not None)
        if self.guess or self.data.time is not None:
            times = times_of(self.table, self.data, self.source, kept)
        elif self.table.index:
            times = times_of(of_the_index(self.table), self.data, self.source)
        else:
            times = self._only_times()
        self.found += times.found
        return times

    def _only_times(self) -> RowTimes:
        """The column of a DataFrame that holds times as pandas has them: read_csv with parse_dates gives such a one."""
        frame = self.table.frame
        names = [str(name) for name in frame.columns if kind_of(frame[name]) == "time"]
        if not names:
            return RowTimes(None)
        if len(names) > 1:
            raise DataError(
                f"{self.source} has {len(names)} columns of times, {and_list(names)}; data.time names that of the "
                "rows, or set_index does, data.time=none takes the rows in their order",
                "data.time",
            )
        times = times_of(replace(self.table, frame=frame[names]), self.data, self.source)
        return replace(times, found=(*times.found, f"times from column {names[0]}"))

    def _order(self, times: RowTimes, groups: Groups | None) -> Rows:
        """The rows of the table from which series are taken, oldest first (in long format, series by series)."""
        rows = np.arange(len(self.table.frame))
        if times.values is not None and (blank := np.isnat(times.values)).any():
            others = self.table.frame.drop(columns=list(times.names))
            filled = np.flatnonzero(blank & others.notna().any(axis=1).to_numpy())
            if len(filled):
                raise DataError(f"{self.source}, {times.columns}, {self.where(int(filled[0]))}: no time", "data.time")
            rows = rows[~blank]
        if groups is not None:
            without_blank(groups, rows, self.where, self.source)
        codes = None if groups is None else groups.codes[rows]
        if times.values is None:
            return rows if codes is None else rows[np.argsort(codes, kind="stable")]
        order, backwards = oldest_first(
            times.values[rows],
            times.columns,
            lambda i: self.where(int(rows[i])),
            self.source,
            codes,
            lambda i: "" if groups is None else f" for {groups.names[groups.codes[rows[i]]]}",
        )
        if backwards:
            self.found.append("newest first: reversed")
        return rows[order]

    def _wide(self, chooser: Chooser, times: RowTimes, order: Rows) -> tuple[dict[str, Series], Times | None]:
        picked = chooser.series()
        if self.guess and self.data.columns is None:
            prices = {each.column: chooser.numbers(each.column) for each in picked}
            others = [name for name in chooser.names if name not in times.names and name not in prices]
            self.found += refuse_mixed(self.table, prices, order, others, times.values is not None, self.source)
        inputs = self._inputs(chooser)
        series = {}
        places = np.arange(len(order))
        for each in picked:
            with self._but_too_few(each.column, named=self.data.columns is not None):
                series[each.name] = self._series(chooser, each, inputs, order, places)
        chooser.left_out |= {name: f"{error.said}; a series needs 2" for name, error in self.too_few.items()}
        return self._some(series), None if times.values is None else times.values[order]

    def _long(
        self, chooser: Chooser, groups: Groups, times: RowTimes, order: Rows
    ) -> tuple[dict[str, Series], Times | None]:
        names, columns = self._of_values(groups)
        chooser.data = replace(self.data, columns=columns or None)
        picked = chooser.series()
        if not columns:
            price = one_price(picked, groups.column, self.source)
            chooser.left_out |= {each.column: "not the price" for each in picked if each != price}
            picked = [price]
        inputs = self._inputs(chooser)
        calendar, places = None, np.empty(0, np.int64)
        if times.values is not None:
            calendar, places = np.unique(times.values[order], return_inverse=True)
        series = {}
        named = len(self.data.columns or ()) > len(columns)
        codes = groups.codes[order]
        starts = np.searchsorted(codes, np.arange(len(groups.names) + 1))
        for code, value in enumerate(groups.names):
            if value not in names:
                continue
            part = slice(int(starts[code]), int(starts[code + 1]))
            rows = order[part]
            panel_rows = np.arange(len(rows)) if calendar is None else places[part]
            for each in picked:
                name = value if len(picked) == 1 else f"{value} {each.column}"
                called = replace(each, name=name)
                with self._but_too_few(name, named):
                    series[name] = self._series(chooser, called, inputs, rows, panel_rows, f" of {value}")
        if self.too_few:
            few = listed(f"{name} ({error.said})" for name, error in self.too_few.items())
            self.found.append(f"left out, for a series needs 2 prices: {few} (data.columns)")
        series = self._some(series)
        return {name: series[name] for name in sorted(series, key=lambda n: _place(n, names))}, calendar

    @contextmanager
    def _but_too_few(self, name: str, named: bool) -> Iterator[None]:
        """A series with fewer than two prices is left out, but for one that ``data.columns`` names."""
        try:
            yield
        except TooFew as error:
            if named:
                raise
            self.too_few[name] = error

    def _some(self, series: dict[str, Series]) -> dict[str, Series]:
        if not series:
            raise next(iter(self.too_few.values()))
        return series

    def _of_values(self, groups: Groups) -> tuple[list[str], list[str]]:
        """Which series are wanted, by value, and in which columns: ``data.columns`` may name both."""
        asked = self.data.columns or []
        frame = list(map(str, self.table.frame.columns))
        columns = [name for name in asked if resolved(name, frame) is not None]
        values = {name: resolved(name, groups.names) for name in asked if name not in columns}
        if unknown := [name for name, value in values.items() if value is None]:
            has = [*frame, *groups.names]
            raise DataError(f"{self.source} has no column {listed(unknown)} (it has: {listed(has)})", "data.columns")
        return [str(value) for value in values.values()] or list(groups.names), columns

    def _inputs(self, chooser: Chooser) -> Callable[[Picked], list[tuple[str, str, Prices | None]]]:
        """The other inputs of a series, by row of the table."""
        asked = chooser.inputs()

        def of(picked: Picked) -> list[tuple[str, str, Prices | None]]:
            found: list[tuple[str, str, Prices | None]] = []
            for name, form, by_ticker in asked:
                column = chooser.levels.columns.get(picked.ticker, {}).get(name) if by_ticker else name
                found.append((column or name, form, None if column is None else chooser.numbers(column, "data.inputs")))
            return found

        return of

    def _series(
        self,
        chooser: Chooser,
        picked: Picked,
        inputs: Callable[[Picked], list[tuple[str, str, Prices | None]]],
        rows: Rows,
        panel_rows: Rows,
        of: str = "",
    ) -> Series:
        """One series, from the rows ``rows`` of the table, which are the rows ``panel_rows`` of the panel."""
        column = f"{self.source}, column {picked.column}{of}"
        values = chooser.numbers(picked.column)[rows]
        prices, kept, blanks = without_gaps(values, rows, self.data.gaps, self.where, column, self.when)
        if blanks:
            self.blanks[picked.name] = blanks
        table_rows = rows[kept]
        self.warnings += suspicions(
            picked.name, prices, lambda i: self.where(int(table_rows[i])), is_change(picked.column)
        )
        return with_inputs(prices, panel_rows[kept], table_rows, inputs(picked), self.where, self.source)

    def _say_gaps(self, calendar: Times | None) -> None:
        if self.blanks:
            total = sum(self.blanks.values())
            what = "left out" if self.data.gaps == "drop" else "filled with the price before"
            names = listed(self.blanks)
            self.found.append(f"{total} blank{'' if total == 1 else 's'} inside {names} {what} (data.gaps)")
        if calendar is not None and (gaps := gaps_of(calendar)) is not None:
            self.found.append(gaps)


def _of_longest(groups: Groups, order: Rows) -> Rows:
    """The rows of the series with the most rows, by which columns are compared."""
    codes = groups.codes[order]
    return order[codes == np.bincount(codes).argmax()]


def _place(name: str, values: Iterable[str]) -> int:
    """The place of a series among the wanted ones: ``AAA`` or ``AAA open``."""
    return next(i for i, value in enumerate(values) if name == value or name.startswith(f"{value} "))


def of_the_index(table: Table) -> Table:
    """A table of the index alone: of a DataFrame, other columns are no times."""
    return replace(table, frame=table.frame[list(table.index)])

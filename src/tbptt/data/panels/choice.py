"""Which columns of a table are series, what they are called, and which are its other inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tbptt.data.panel import DataError
from tbptt.data.panels.columns import flags_of, kind_of, line_of, listed, numbers_of, resolved
from tbptt.data.panels.fields import field_of, one_of_each_asset
from tbptt.data.panels.inputs import parse_inputs
from tbptt.data.panels.roles import FEW_VALUES, OTHER_KINDS, TEXTS, WEAK, role_by_name, roles_of
from tbptt.data.panels.transposed import transposed
from tbptt.data.prices import Prices
from tbptt.data.tables.names import words_of

if TYPE_CHECKING:
    from tbptt.data.options import TableData
    from tbptt.data.tables.files import Table


@dataclass(frozen=True)
class Picked:
    """A series: its name, the column of its prices, and of a header with several levels, the ticker."""

    name: str
    column: str
    ticker: str = ""


@dataclass(frozen=True)
class Levels:
    """The columns of a header with a level of fields (Open, Close) and one or more of tickers.

    Attributes:
        columns: by ticker and field, the column's name.
    """

    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: "Table") -> "Levels":
        """Which level holds the fields is told by the words in it; without such a level, there are none."""
        parts = {name: tuple(map(str, each)) for name, each in table.levels.items() if len(each) > 1}
        if not parts:
            return cls()
        depth = min(map(len, parts.values()))
        shares = [_share_of_fields({each[i] for each in parts.values()}) for i in range(depth)]
        at = int(np.argmax(shares))
        if shares[at] < 0.5:
            return cls()
        found: dict[str, dict[str, str]] = {}
        for name, each in parts.items():
            ticker = " ".join(part for i, part in enumerate(each) if i != at and part.strip())
            if ticker and each[at].strip():
                found.setdefault(ticker, {})[each[at]] = name
        return cls(found)

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.columns.values() for name in each))


def _share_of_fields(words: set[str]) -> float:
    known = {word for word in words if word.strip()}
    fits = [word for word in known if role_by_name(word) or ((found := field_of(word)) and not found.asset)]
    return len(fits) / len(known) if known else 0.0


class Chooser:
    """Chooses the series and the other inputs of a table.

    Args:
        taken: columns that are times or name the series, and why they are no series.
        rows: (M,) the rows of the table by which columns are compared, oldest first; of one series in long format.
        guess: whether to tell series from other columns; else each column of numbers is one.
    """

    def __init__(
        self, table: "Table", data: "TableData", source: str, taken: Mapping[str, str], rows: Any, guess: bool = True
    ) -> None:
        self.table, self.data, self.source, self.rows, self.guess = table, data, source, rows, guess
        self.taken = dict(taken)
        self.names = list(map(str, table.frame.columns))
        self.levels = Levels.of(table)
        self.left_out: dict[str, str] = {}
        self._numbers: dict[str, Prices] = {}

    def numbers(self, name: str, key: str = "data.path") -> Prices:
        """(R,) of a column of numbers, in the order of the table.

        Args:
            key: the key that asks for it.

        Raises:
            DataError: it holds something else.
        """
        if name not in self._numbers:
            column = self.table.frame[name]
            kind = kind_of(column)
            if kind == "text" and (flags := flags_of(column)) is not None:
                self._numbers[name] = flags
                return flags
            if kind == "text":
                raise DataError(f"{self.source}, column {name}, {self._not_a_number(column)}", key)
            if kind in ("time", "duration"):
                raise DataError(f"{self.source}, column {name} holds {kind}s, not numbers", key)
            self._numbers[name] = numbers_of(column)
        return self._numbers[name]

    def _not_a_number(self, column: Any) -> str:
        import pandas as pd

        known = column.notna()
        wrong = np.flatnonzero(known & pd.to_numeric(column, errors="coerce").isna())
        row = int(wrong[0]) if len(wrong) else 0
        return f"{line_of(self.table, row)}: {str(column.iloc[row])[:40]!r} is not a number"

    def inputs(self) -> list[tuple[str, str, bool]]:
        """Of each of ``data.inputs``, the column or field, its form, and whether it is a field of each ticker."""
        fields = [name for name in self.levels.fields if name not in self.names]
        try:
            found = parse_inputs(self.data.inputs, [*self.names, *fields])
        except ValueError as error:
            raise DataError(f"{self.source} {error}", "data.inputs") from None
        return [(name, form, name in fields) for name, form in found]

    def series(self) -> list[Picked]:
        """The series, by ``data.columns`` or by what the columns are. Raises ValueError if there are none."""
        found = self._asked() if self.data.columns is not None else self._found()
        used = {column for name, _, by_ticker in self.inputs() for column in self._input_columns(name, by_ticker)}
        if self.data.columns is None and any(each.column not in used for each in found):
            found = [each for each in found if each.column not in used]
        series = {each.column for each in found}
        self.left_out = {name: why for name, why in self.left_out.items() if name not in used and name not in series}
        return found

    def _input_columns(self, name: str, by_ticker: bool) -> list[str]:
        return [each[name] for each in self.levels.columns.values() if name in each] if by_ticker else [name]

    def _asked(self) -> list[Picked]:
        """The series that ``data.columns`` names: columns, tickers, or a field of each ticker."""
        self._found_quietly()
        found: list[Picked] = []
        unknown = []
        fields = [name for name in self.data.columns or () if resolved(name, self.levels.fields)]
        for asked in self.data.columns or ():
            if (name := resolved(asked, self.names)) is not None:
                found.append(Picked(name, name))
            elif (ticker := resolved(asked, self.levels.columns)) is not None:
                found += [each for each in self._of_ticker(ticker)[0] if each.ticker == ticker]
            elif (of := resolved(asked, self.levels.fields)) is not None:
                columns = {ticker: each[of] for ticker, each in self.levels.columns.items() if of in each}
                found += [Picked(t if len(fields) == 1 else name, name, t) for t, name in columns.items()]
            else:
                unknown.append(asked)
        if unknown:
            has = [*self.names, *self.levels.columns]
            raise DataError(f"{self.source} has no column {listed(unknown)} (it has: {listed(has)})", "data.columns")
        for each in found:
            if kind_of(self.table.frame[each.column]) == "bool":
                raise DataError(f"{self.source}, column {each.column} holds yes or no, not prices", "data.columns")
            self.numbers(each.column, "data.columns")
        named = [each.column for each in found]
        self.left_out |= {n: "not in data.columns" for n in self.names if n not in named and n not in self.left_out}
        return found

    def _found_quietly(self) -> None:
        """What each column is that the user did not name, as far as that can be told."""
        self.left_out = dict(self.taken)
        if self.guess:
            free = {name: self.table.frame[name] for name in self.names if name not in self.taken}
            self.left_out |= roles_of(free, self._numeric(free), self.table.percent)

    def _numeric(self, columns: Mapping[str, Any]) -> dict[str, Prices]:
        return {name: self.numbers(name) for name, column in columns.items() if kind_of(column) == "number"}

    def _refuse_transposed(self) -> None:
        """Raises DataError for a table without times of which each row is a series."""
        if not self.guess or "times" in self.taken.values():
            return
        kinds = {name: kind_of(self.table.frame[name]) for name in self.names}
        texts = [list(self.table.frame[name].dropna()) for name, kind in kinds.items() if kind == "text"]
        numbers = [name for name, kind in kinds.items() if kind == "number"]
        if (why := transposed(numbers, texts)) is not None:
            raise DataError(
                f"{self.source}: {why}: one series a row? Transpose it, so that each series is a column; "
                f"data.columns=[{numbers[0]},…] takes columns as they are",
                "data.columns",
            )

    def _found(self) -> list[Picked]:
        self._refuse_transposed()
        self.left_out = dict(self.taken)
        in_levels = {column for each in self.levels.columns.values() for column in each.values()}
        flat = [name for name in self.names if name not in self.taken and name not in in_levels]
        found = []
        for ticker in self.levels.columns:
            picked, left_out = self._of_ticker(ticker)
            found += picked
            self.left_out |= left_out
        names, left_out = self._told({name: name for name in flat}, weak=not found)
        self.left_out |= left_out
        # Prices may move in few large ticks: beside nothing better, such a column is meant as a series.
        if not (found or names):
            names = [name for name, why in left_out.items() if why == FEW_VALUES]
        found += [Picked(name, name) for name in names]
        if not found:
            why = "; ".join(f"{name}: {reason}" for name, reason in list(self.left_out.items())[:12])
            raise DataError(
                f"{self.source} has no column of prices (it has {why}); data.columns takes one anyway", "data.columns"
            )
        return sorted(found, key=lambda each: self.names.index(each.column))

    def _of_ticker(self, ticker: str) -> tuple[list[Picked], dict[str, str]]:
        """The series of one ticker of a header with several levels, and why its other columns are none."""
        columns = {name: column for name, column in self.levels.columns[ticker].items() if column not in self.taken}
        names, left_out = self._told(columns, weak=True)
        picked = [Picked(ticker if len(names) == 1 else columns[name], columns[name], ticker) for name in names]
        return picked, {columns[name]: why for name, why in left_out.items()}

    def _told(self, columns: Mapping[str, str], weak: bool) -> tuple[list[str], dict[str, str]]:
        """Of columns, by the name that tells what they are: which are series, and why the others are none.

        Args:
            weak: whether changes or a spread are series if nothing else is.
        """
        frames = {name: self.table.frame[column] for name, column in columns.items()}
        numbers = {name: self.numbers(columns[name]) for name, each in frames.items() if kind_of(each) == "number"}
        if not self.guess:
            others = [name for name in frames if name not in numbers]
            return list(numbers), {name: OTHER_KINDS.get(kind_of(frames[name]), TEXTS) for name in others}
        self._refuse_strays(frames)
        numbers = {name: values[self.rows] for name, values in numbers.items()}
        percent = tuple(name for name, column in columns.items() if column in self.table.percent)
        roles = roles_of(frames, numbers, percent)
        prices = {name: values for name, values in numbers.items() if name not in roles}
        if not prices and weak:
            roles = {name: role for name, role in roles.items() if role not in WEAK}
            prices = {name: values for name, values in numbers.items() if name not in roles}
        series, same = one_of_each_asset(prices)
        return series, roles | same

    def _refuse_strays(self, frames: Mapping[str, Any]) -> None:
        """Raises ValueError for a column of texts that are numbers, but for a few: it would be a series."""
        import pandas as pd

        for name, column in frames.items():
            if kind_of(column) != "text" or role_by_name(name) or column.dtype == "category":
                continue
            known = column.dropna()
            few = pd.to_numeric(known.iloc[:1000], errors="coerce").notna()
            if len(few) and few.mean() > 0.5 and 0.5 < pd.to_numeric(known, errors="coerce").notna().mean() < 1:
                raise ValueError(f"{self.source}, column {column.name}, {self._not_a_number(column)}")


def one_price(picked: list[Picked], by: str, source: str) -> Picked:
    """The price of each series of a table in long format. Raises ValueError if several columns could be it."""
    named = [each for each in picked if (found := field_of(each.column)) is not None and not found.asset]
    if len(picked) == 1 or len(named) == 1:
        return (named or picked)[0]
    keys = " or ".join(f"data.columns=[{each.column}]" for each in picked[:6])
    raise DataError(f"{source}: several columns could be the price of each {by}; {keys} says which", "data.columns")


def is_change(name: str) -> bool:
    """Whether a column's name says that it holds changes."""
    return role_by_name(name) == "changes, not prices" or "%" in name or "ret" in words_of(name)

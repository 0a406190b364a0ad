"""Columns of a table: what they hold, what their names are made of, and which one a user means."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tbptt.data.prices import Prices

if TYPE_CHECKING:
    from tbptt.data.tables.files import Table


def kind_of(column: Any) -> str:
    """What a column of a table holds: ``number``, ``bool``, ``time`` or ``text``."""
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_bool_dtype(column.dtype):
        return "bool"
    if kinds.is_numeric_dtype(column.dtype):
        return "number"
    if kinds.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return "time"
    if kinds.is_timedelta64_dtype(column.dtype):
        return "duration"
    if column.dtype == object:
        held = kinds.infer_dtype(column, skipna=True)
        if held in ("date", "datetime", "datetime64"):
            return "time"
        if held in ("decimal", "floating", "integer", "mixed-integer-float"):
            return "number"
        if held == "boolean":
            return "bool"
        if held == "time":
            return "text"  # times of day, as texts HH:MM:SS
    return "text"


def numbers_of(column: Any) -> Prices:
    """A column of numbers or of yes and no (1 and 0) as (R,) float64; NaN where it is blank."""
    import pandas as pd

    if column.dtype == object:
        column = pd.to_numeric(column.astype("Float64") if kind_of(column) == "bool" else column.map(_float))
    values: Prices = column.to_numpy(np.float64, na_value=np.nan)
    return values


def flags_of(column: Any) -> Prices | None:
    """A column of the texts ``true`` and ``false`` as 1 and 0, (R,); None if it holds others."""
    import pandas as pd

    codes, texts = pd.factorize(column)
    meaning = [{"true": 1.0, "false": 0.0}.get(str(text).strip().lower(), -1.0) for text in texts]
    if not meaning or -1.0 in meaning:
        return None
    return np.array([*meaning, np.nan])[codes]


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def integers_or_floats(column: Any) -> NDArray[Any]:
    """A column of numbers as (R,) int64 if it can be, so that nanoseconds since 1970 keep all digits, else float64."""
    import pandas as pd

    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        whole: NDArray[Any] = column.to_numpy(np.int64)
        return whole
    return numbers_of(column)


def resolved(asked: str, names: Iterable[str]) -> str | None:
    """The name that is meant: itself, or the only one that differs in case, blanks around it, or angle brackets."""
    names = list(names)
    if asked in names:
        return asked
    alike = [name for name in names if _bare(name) == _bare(asked)]
    return alike[0] if len(alike) == 1 else None


def _bare(name: str) -> str:
    return name.strip().strip("<>").strip().casefold()


def listed(names: Iterable[object]) -> str:
    """Names in a row, the first twelve."""
    shown = [str(n) for n in names]
    return ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "") if shown else "none"


def and_list(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def line_of(table: "Table", row: int) -> str:
    """Where row ``row`` of the frame, counted from 0, stands: the line of a file as an editor counts it."""
    lines: Any = table.lines  # the first row's, or each row's
    if lines is None:
        name, start = next((each for each in reversed(table.files) if each[1] <= row), ("", 0))
        return f"row {row - start + 1}{f' of {name}' if name else ''}"
    return f"line {lines + row if isinstance(lines, int) else int(lines[row])}"

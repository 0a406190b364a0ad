"""Real daily closes that the package ``arch`` ships."""

from typing import TYPE_CHECKING

import numpy as np

from tbptt.data.panel import DataError, Findings, Panel, Rows, Series, Times
from tbptt.data.panels.columns import listed
from tbptt.data.panels.inputs import formed, parse_inputs
from tbptt.data.prices import Prices

if TYPE_CHECKING:
    import pandas as pd

    from tbptt.data.options import MarketData

CLOSES = {"sp500": "Close", "nasdaq": "Close", "wti": "DCOILWTICO"}


def market_panel(data: "MarketData") -> Panel:
    """S&P 500, NASDAQ and WTI crude oil by day; blank days dropped.

    Cut by time, they share the days on which one of them has a price. Other inputs are the columns of each one's table
    (Open, High, Low, Adj Close, Volume; WTI has none of them, so they are missing there), or another of the three by
    its name, as known on that day.

    Raises:
        ValueError: there is no such series, input or form.
    """
    tables = _tables()
    closes = {name: tables[name][close].dropna() for name, close in CLOSES.items()}
    if unknown := [name for name in data.columns or () if name not in closes]:
        has = ", ".join(CLOSES)
        raise DataError(f"the market data has no column {listed(unknown)} (it has: {has})", "data.columns")
    prices = {name: closes[name].to_numpy(np.float64) for name in data.columns or CLOSES}
    if data.split != "time" and not data.inputs:
        return Panel.of_arrays(prices, data.name)
    inputs = _parsed(data.inputs, tables, data.name)
    if data.columns is None:  # a series that is an input is not trained itself, unless the user names it
        used = {column for column, _ in inputs}
        prices = {name: each for name, each in prices.items() if name not in used} or prices
    taken = {name: _days(closes[name]) for name in prices}
    calendar = np.unique(np.concatenate(list(taken.values())))
    series = {}
    for name, days in taken.items():
        found = np.full((len(days), len(inputs)), np.nan)
        for i, (column, form) in enumerate(inputs):
            table = closes[column].to_frame(column) if column in closes else tables[name]
            if column in table:
                found[:, i] = formed(form, _on(table[column], days), prices[name])
        series[name] = Series(prices[name], np.searchsorted(calendar, days), found)
    said = ("daily closes of the package arch, blank days dropped",)
    findings = Findings(data.name, len(calendar), said, time="Date")
    return Panel(series, True, calendar, None, tuple(data.inputs), findings)


def _tables() -> "dict[str, pd.DataFrame]":
    import arch.data.nasdaq
    import arch.data.sp500
    import arch.data.wti

    return {"sp500": arch.data.sp500.load(), "nasdaq": arch.data.nasdaq.load(), "wti": arch.data.wti.load()}


def _parsed(texts: list[str], tables: "dict[str, pd.DataFrame]", source: str) -> list[tuple[str, str]]:
    columns = dict.fromkeys([*CLOSES, *(str(name) for table in tables.values() for name in table.columns)])
    try:
        return parse_inputs(texts, list(columns))
    except ValueError as error:
        raise DataError(f"{source} {error}", "data.inputs") from None


def _days(column: "pd.Series[float]") -> Times:
    days: Times = column.index.to_numpy().astype("M8[ns]")
    return days


def _on(column: "pd.Series[float]", days: Times) -> Prices:
    """The values of a column on these days, (N,); NaN where it has none."""
    has = _days(column)
    at: Rows = np.minimum(np.searchsorted(has, days), len(has) - 1)
    values = column.to_numpy(np.float64)
    return np.where(has[at] == days, values[at], np.nan)

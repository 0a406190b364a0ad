"""What a table holds: times, series, other inputs, each told from the others; what is left out, refused, warned of."""

import csv
import datetime
import gzip
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tbptt.data.options import MarketData, PricesData
from tbptt.data.panel import DataError, Panel
from tbptt.data.panels import panel_file
from tbptt.data.panels.frames import panel_of_frame
from tbptt.data.panels.inputs import FORMS, formed, parse_input
from tbptt.data.panels.market import market_panel
from tbptt.data.panels.panel_file import panel_of_file, panel_of_table
from tbptt.data.tables.files import Table

CASES = Path(__file__).parent / "cases"
SAME = "prices of the same asset; data.inputs takes them"


def data(**keys: Any) -> PricesData:
    return PricesData(path="f.csv", reading="auto", **keys)


def table(columns: dict[str, Any], **more: Any) -> Table:
    """A table of these columns, as a CSV file with one header line gives it."""
    facts = {"levels": {}, "lines": 2, "index": (), "found": ()} | more
    return Table(pd.DataFrame(columns), **facts)


def panel(made: dict[str, Any], more: dict[str, Any] | None = None, **keys: Any) -> Panel:
    return panel_of_table(table(made, **(more or {})), data(**keys), "f.csv")


def refusal(made: dict[str, Any], more: dict[str, Any] | None = None, **keys: Any) -> str:
    return refused(lambda: panel(made, more, **keys))


def refused(build: Callable[[], object]) -> str:
    """The whole line with which something is refused."""
    try:
        build()
    except ValueError as error:
        return str(error)
    raise AssertionError("taken")


@pytest.mark.parametrize(
    "names",
    [
        [f"2019-01-{i:02}" for i in range(1, 13)],
        [str(year) for year in range(2000, 2012)],
        [f"2019Q{i}" for i in range(1, 5)],
        [f"{i}/3/2019" for i in range(1, 13)],
        [f"V{i}" for i in range(2, 14)],
    ],
)
def test_a_table_of_one_series_a_row_is_refused(names: list[str]) -> None:
    made = {"V1": [f"T{i}" for i in range(60)], **{name: walk(i) for i, name in enumerate(names)}}
    line = refusal(made)
    assert "one series a row? Transpose it" in line
    assert "data.columns" in line
    assert list(panel(made, columns=names[:2]).series) == names[:2]


def test_flags_and_counts_are_left_out() -> None:
    flag = np.arange(60) % 7 == 0
    few = np.arange(60) ** 2 % 5
    made = {"SPY": walk(1), "month_end": flag.astype(int), "regime": few, "SPY_n": np.arange(60) ** 2 % 997 + 5000}
    made |= {"nobs": 4681 + few, "half": np.where(flag, 0.5, 0.25), "Implied Vol": walk(2)}
    found = panel(made)
    assert list(found.series) == ["SPY"]
    assert found.findings.left_out == {
        "month_end": "two values alone, as yes or no",
        "half": "two values alone, as yes or no",
        "regime": "a few small whole numbers, as of kinds or counts",
        "SPY_n": "a count",
        "nobs": "a count",
        "Implied Vol": "a volatility",
    }
    assert "data.columns" in refusal({"half": np.where(flag, 0.5, 0.25), "flag": flag.astype(int)})
    assert list(panel({"A Implied Vol": walk(1), "B Implied Vol": walk(2)}).series) == [
        "A Implied Vol",
        "B Implied Vol",
    ]
    assert list(panel({"Close": 5 + few}).series) == ["Close"]
    assert list(panel({"CT": walk(1), "N": walk(2), "NUM": walk(3)}).series) == ["CT", "N", "NUM"]


def test_one_series_with_too_few_prices_is_left_out_of_several() -> None:
    blank = np.full(60, np.nan)
    blank[7] = 5.5
    wide = {"A": walk(1), "B": blank, "C": walk(2)}
    found = panel(wide)
    assert list(found.series) == ["A", "C"]
    assert found.findings.left_out == {"B": "1 price; a series needs 2"}
    assert refusal(wide, columns=["A", "B"]) == "f.csv, column B holds 1 price; a series needs at least 2"
    assert refusal({"B": blank}) == "f.csv, column B holds 1 price; a series needs at least 2"
    days = [str(day) for day in pd.date_range("2024-01-01", periods=60).date]
    long = {"date": [*days, days[0]], "ticker": ["A"] * 60 + ["B"], "close": [*walk(1), 5.5]}
    found = panel(long)
    assert list(found.series) == ["A"]
    assert "left out, for a series needs 2 prices: B (1 price) (data.columns)" in found.findings.found
    assert "column close of B holds 1 price" in refusal(long, columns=["B"])


def test_prices_that_stand_still_at_the_beginning_are_warned_of() -> None:
    prices = walk(1, 200)
    still = prices.copy()
    still[:60] = still[59]
    (line,) = panel({"A": still, "B": walk(2, 200)}).findings.warnings
    assert line == f"A does not change before line 62: its first 60 of 200 prices are {still[0]:g}"
    prices[:60] = 0.0
    (line,) = panel({"A": prices, "B": walk(2, 200)}).findings.warnings
    spread = np.std(np.delete(np.diff(prices), 59))
    assert line == (
        "A holds 0 60 times, first in line 2: a sign for a missing price? The step there is "
        f"{prices[60] / spread:.3g} standard deviations of the others"
    )


@pytest.mark.parametrize("value", [99999.9, -99.99, -9999.9])
def test_a_repeated_sign_for_a_missing_price_is_warned_of(value: float) -> None:
    prices = walk(1, 200)
    prices[[50, 90]] = value
    (line,) = panel({"A": prices}).findings.warnings
    assert line.startswith(f"A holds {value:g} 2 times, first in line 52: a sign for a missing price?")


def test_an_order_book_is_one_series() -> None:
    mid = walk(1)
    made = {f"{side}p{i}": mid + sign * i / 100 for side, sign in (("b", -1), ("a", 1)) for i in (1, 2, 3)}
    made |= {f"{side}v{i}": walk(i + 10) for side in "ba" for i in (1, 2, 3)}
    found = panel(made)
    assert list(found.series) == ["bp1"]
    assert {found.findings.left_out[f"{side}v{i}"] for side in "ba" for i in (1, 2, 3)} == {"volume"}
    book = {"bid_px_00": mid, "ask_px_00": mid + 0.02, "bid_ct_00": walk(5), "ask_ct_00": walk(6)}
    found = panel(book)
    assert list(found.series) == ["bid_px_00"]
    assert {found.findings.left_out[name] for name in ("bid_ct_00", "ask_ct_00")} == {"a count"}


def test_columns_with_dates_for_names_beside_times_are_series() -> None:
    days = [str(day) for day in pd.date_range("2020-01-01", periods=60).date]
    names = ["2024-03-15", "2024-06-21", "2024-09-20"]  # the days on which futures end
    made = panel({"Date": days, **{name: walk(i) for i, name in enumerate(names)}})
    assert list(made.series) == names


def walk(seed: int, n: int = 60, start: float = 100.0) -> np.ndarray:
    return np.round(start * np.exp(np.cumsum(np.random.default_rng(seed).standard_normal(n)) * 0.01), 4)


def prices_of_day(seed: int = 0, n: int = 60) -> dict[str, np.ndarray]:
    """Open, high, low and close of an asset that moves 20 times a step, and a volume that knows nothing of it."""
    rng = np.random.default_rng(seed)
    path = 100 * np.exp(np.cumsum(rng.standard_normal(20 * n) * 0.003)).reshape(n, 20)
    volume = rng.lognormal(10, 1, n).astype(int)
    return {"o": path[:, 0], "h": path.max(axis=1), "l": path.min(axis=1), "c": path[:, -1], "v": volume}


def dates(n: int = 60, form: str = "%Y-%m-%d", freq: str = "D", start: str = "2020-01-01") -> list[str]:
    return list(pd.date_range(start, periods=n, freq=freq).strftime(form))


def moments(*texts: str) -> np.ndarray:
    return np.array(texts, "M8[ns]")


# --- the cases ------------------------------------------------------------------------------------------------


def case(name: str) -> Table:
    """A file of the cases as a table: what reading it is to give."""
    path = CASES / name
    if path.suffix == ".parquet" or path.is_dir():
        frame = pd.read_parquet(path)
        levels = {" ".join(each): each for each in frame.columns} if frame.columns.nlevels > 1 else {}
        frame.columns = pd.Index(list(levels) or list(frame.columns))
        dated = isinstance(frame.index, pd.DatetimeIndex)
        frame = frame.rename_axis("index").reset_index() if dated else frame
        return Table(frame, levels, None, ("index",) if dated else (), ())
    how: dict[str, Any] = {"skipinitialspace": True, "na_values": [".", "-"]}
    kind = name.split("_")[0]
    how |= {"a10": {"sep": ";", "decimal": ","}, "a14": {"sep": "\t"}, "a08": {"thousands": ","}}.get(kind, {})
    how |= {"a26b": {"skipfooter": 1, "engine": "python"}, "a02": {"skiprows": 3, "header": None}}.get(kind, {})
    frame = pd.read_csv(path, **how)
    levels = {}
    if kind == "a02":
        top = pd.read_csv(path, header=None, nrows=2).to_numpy()
        levels = {f"{a} {b}": (str(a), str(b)) for a, b in zip(top[0][1:], top[1][1:], strict=True)}
        frame.columns = pd.Index(["Date", *levels])
    frame = frame.rename(columns={"Unnamed: 0": "column 1"})
    percent = []
    for column in frame.columns:
        text = str(frame[column].iloc[0])
        if text.startswith("$"):
            frame[column] = frame[column].str[1:].astype(float)
        elif text.endswith("%"):
            frame[column] = frame[column].str[:-1].astype(float)
            percent.append(column)
    return Table(frame, levels, 4 if kind == "a02" else 2, (), (), tuple(percent))


def cells(name: str, column: int, delimiter: str = ",") -> list[float]:
    """The numbers of a column of a file, read without pandas."""
    content = (CASES / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if len(row) > column]
    found = []
    for row in rows:
        try:
            found.append(float(row[column].strip(" $%").replace(",", "." if delimiter == ";" else "")))
        except ValueError:
            continue
    return found


FULL = {"Volume": "volume", "Open": SAME, "High": SAME, "Low": SAME}


@pytest.mark.parametrize(
    ("name", "series", "column", "left_out", "found"),
    [
        ("00_reference.csv", "Close", 4, FULL, []),
        ("a01_newest_first.csv", "Close", 4, FULL, ["newest first: reversed"]),
        (
            "a02_yfinance_multi_header.csv",
            *("AAA", 1, {"Volume AAA": "volume", "Open AAA": SAME, "High AAA": SAME, "Low AAA": SAME}),
            [],
        ),
        (
            "a10_ariva_semicolon_decimal_comma.csv",
            *("Schlusskurs", 4),
            {"Stuecke": "volume", "Volumen": "volume", "Erster": SAME, "Hoch": SAME, "Tief": SAME},
            ["newest first: reversed"],
        ),
        (
            "a14_mt5_tabs_utf8.csv",
            *("<CLOSE>", 4),
            {"<TICKVOL>": "volume", "<VOL>": "volume", "<SPREAD>": "a spread"}
            | {"<OPEN>": SAME, "<HIGH>": SAME, "<LOW>": SAME},
            [],
        ),
        (
            "a16_nasdaq_dollar.csv",
            *("Close/Last", 1, FULL),
            ["month first (data.time_format)", "newest first: reversed"],
        ),
        ("a18_unnamed_0.csv", "close", 2, {"column 1": "a saved index"}, []),
        (
            "a24_yf_history_dividends_splits.csv",
            *("Close", 4),
            FULL | {"Dividends": "dividends or splits", "Stock Splits": "dividends or splits"},
            [],
        ),
        ("a25_prices.csv.gz", "Close", 4, FULL, []),
        (
            "a26b_barchart_footer.csv",
            *("Last", 4),
            FULL | {"Change": "changes, not prices", "%Chg": "changes, not prices"},
            ["month first (data.time_format)", "newest first: reversed"],
        ),
        ("a29_header_spaces.csv", "Close", 1, {"Volume": "volume"}, []),
    ],
)
def test_daily_exports_of_one_asset(
    name: str, series: str, column: int, left_out: dict[str, str], found: list[str]
) -> None:
    got = panel_of_table(case(name), data(), name)
    delimiter = {"a10": ";", "a14": "\t"}.get(name[:3], ",")
    expected = cells(name, column, delimiter)
    if "newest first: reversed" in found:
        expected = expected[::-1]
    assert list(got.series) == [series]
    np.testing.assert_array_equal(got.series[series].prices, expected)
    assert (got.series[series].prices[0], got.series[series].prices[-1]) == (100.0, 85.94)
    assert got.shared
    assert got.times is not None
    assert [str(got.times[i])[:10] for i in (0, -1)] == ["2024-01-02", "2024-06-17"]
    assert (np.diff(got.times.astype(np.int64)) > 0).all()
    assert dict(got.findings.left_out) == left_out
    assert list(got.findings.found) == found
    assert (got.findings.rows, got.findings.warnings, got.findings.source) == (120, (), name)
    np.testing.assert_array_equal(got.series[series].rows, np.arange(120))


def test_klines_are_known_by_names_and_without_them() -> None:
    left_out = {"close_time": "times", "count": "a count", "ignore": "unused", "open": SAME, "high": SAME, "low": SAME}
    left_out |= dict.fromkeys(["volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"], "volume")
    got = panel_of_table(case("a05_binance_futures_header.csv"), data(), "a05")
    assert dict(got.findings.left_out) == left_out
    assert (got.findings.time, got.zone) == ("open_time", "UTC")
    assert got.findings.found == (
        "epoch in ms (data.time_format)",
        "the other column of times: close_time (data.time)",
    )
    np.testing.assert_array_equal(got.series["close"].prices, cells("a05_binance_futures_header.csv", 4))
    assert got.times is not None
    assert str(got.times[0]) == "2023-10-27T00:00:00.000000000"
    assert set(np.diff(got.times)) == {np.timedelta64(3600, "s").astype("m8[ns]")}

    bare = pd.read_csv(CASES / "a04_binance_klines_no_header.csv", header=None)
    bare.columns = pd.Index([f"column {i + 1}" for i in range(12)])
    got = panel_of_table(Table(bare, {}, 1, (), ()), data(), "a04")
    np.testing.assert_array_equal(got.series["column 5"].prices, cells("a04_binance_klines_no_header.csv", 4))
    assert list(got.series) == ["column 5"]
    price, volume = (
        "looks like a price of the asset of column 5; data.columns takes it as a series",
        "jumps as volumes do",
    )
    assert dict(got.findings.left_out) == {
        **{f"column {i}": price for i in (2, 3, 4)},
        **{f"column {i}": volume for i in (6, 8, 9, 10, 11)},
        "column 7": "times",
        "column 12": "the same value everywhere",
    }


def test_other_cases() -> None:
    wide = panel_of_table(case("a08_wide_one_asset_over_1000.csv"), data(), "a08")
    assert {name: len(each.prices) for name, each in wide.series.items()} == {"SILVER": 120, "GOLD": 120, "BRENT": 120}
    assert wide.series["GOLD"].prices[2] == 1000.01
    kaggle = panel_of_table(case("a20_kaggle_bitcoin.csv"), data(), "a20")
    assert dict(kaggle.findings.left_out) == {
        **{"Open": SAME, "High": SAME, "Low": SAME, "Weighted_Price": SAME},
        **{"Volume_(BTC)": "volume", "Volume_(Currency)": "volume"},
    }
    assert kaggle.times is not None
    assert str(kaggle.times[0]) == "2014-12-01T05:33:00.000000000"
    both = panel_of_table(case("a21_long_two_tickers.csv"), data(), "a21")
    assert {name: (each.prices[0], each.prices[-1], len(each.prices)) for name, each in both.series.items()} == {
        "AAA": (100.0, 88.71, 80),
        "BBB": (945.54, 883.17, 80),
    }
    assert both.findings.found == ("one series a symbol (data.by)",)
    late = panel_of_table(case("a36_dash_before_listing.csv"), data(), "a36")
    assert (len(late.series["OLD"].prices), len(late.series["NEW"].prices), late.series["NEW"].rows[0]) == (120, 50, 70)
    epochs = panel_of_table(case("p06_epoch_ms.parquet"), data(), "p06")
    assert epochs.findings.found == ("epoch in s (data.time_format)",)
    parts = panel_of_table(case("p08_partitioned"), data(), "p08")
    assert (list(parts.series), parts.times, dict(parts.findings.left_out)) == (
        ["px"],
        None,
        {"year": "a part of the date"},
    )
    assert parts.findings.found == ("no times: rows in the file's order (data.time)",)


def test_finam_puts_date_and_time_together_and_is_named_by_its_ticker() -> None:
    made = case("a13b_finam_5min.csv")
    assert refused(lambda: panel_of_table(made, data(), "a13b.csv")) == (
        "a13b.csv, columns <DATE> and <TIME> put together, line 50: 2024-01-03 10:00 stands after 2024-01-03 10:55 "
        "(line 49), the rows are neither oldest first nor newest first; sort the file, or data.time=none takes the "
        "rows in their order"
    )
    made.frame["<TIME>"] = [93000 + 100 * i for i in range(30)] * 4  # 9:30 without its leading zero
    made.frame["<DATE>"] = np.repeat([20240102, 20240103, 20240104, 20240105], 30)
    got = panel_of_table(made, data(), "a13b.csv")
    assert list(got.series) == ["AAA"]
    assert got.times is not None
    assert [str(got.times[i])[:19] for i in (0, 30)] == ["2024-01-02T09:30:00", "2024-01-03T09:30:00"]
    assert got.findings.time == "<DATE> and <TIME>"
    assert dict(got.findings.left_out) == {
        **{"<VOL>": "volume", "<PER>": "the same value everywhere"},
        **{"<OPEN>": SAME, "<HIGH>": SAME, "<LOW>": SAME},
    }


# --- times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "expected", "zone"),
    [
        ("Date", ["2024-01-02", "2024-01-03"], ["2024-01-02", "2024-01-03"], None),
        ("x", ["2024.01.02", "2024.01.03"], ["2024-01-02", "2024-01-03"], None),
        ("x", ["2024/1/2", "2024/1/3"], ["2024-01-02", "2024-01-03"], None),
        ("Tanggal", ["02/01/2024", "13/01/2024"], ["2024-01-02", "2024-01-13"], None),
        ("Date", ["06/17/2024", "06/18/2024"], ["2024-06-17", "2024-06-18"], None),
        ("Date", ["02-Jan-2024", "03-Feb-2024"], ["2024-01-02", "2024-02-03"], None),
        ("Date", ["Jan 02, 2024", "Dec 03, 2024"], ["2024-01-02", "2024-12-03"], None),
        ("Date", ["2 January 2024", "3 May 2024"], ["2024-01-02", "2024-05-03"], None),
        ("Datum", ["2. Mai 2024", "3. Dez 2024"], ["2024-05-02", "2024-12-03"], None),
        ("Date", ["Tue, 02 Jan 2024", "Wed, 03 Jan 2024"], ["2024-01-02", "2024-01-03"], None),
        ("Date", ["02-Jan-98", "03-Jan-24"], ["1998-01-02", "2024-01-03"], None),
        ("Date", ["31.12.23", "01.01.24", "02.01.24"], ["2023-12-31", "2024-01-01", "2024-01-02"], None),
        ("Date", ["2024-01", "2024-02"], ["2024-01-01", "2024-02-01"], None),
        ("Date", ["2024M01", "2024M02"], ["2024-01-01", "2024-02-01"], None),
        ("Date", ["Jan 2024", "Feb 2024"], ["2024-01-01", "2024-02-01"], None),
        ("Date", ["2024Q1", "2024Q3"], ["2024-01-01", "2024-07-01"], None),
        ("Date", ["20240102 170000", "20240102 170100"], ["2024-01-02T17:00", "2024-01-02T17:01"], None),
        ("Date", ["1/2/2024 12:00 AM", "1/13/2024 12:30 PM"], ["2024-01-02T00:00", "2024-01-13T12:30"], None),
        ("Date", ["2020-07-02 07-PM", "2020-07-02 08-PM"], ["2020-07-02T19:00", "2020-07-02T20:00"], None),
        (
            "Date",
            ["2024-01-02T09:30:00Z", "2024-01-02T09:30:00.125Z"],
            ["2024-01-02T09:30", "2024-01-02T09:30:00.125"],
            "UTC",
        ),
        ("Date", ["2024-01-02 09:30 UTC", "2024-01-03 09:30 UTC"], ["2024-01-02T09:30", "2024-01-03T09:30"], "UTC"),
        (
            "Date",
            ["2024-01-02 09:30+01:00", "2024-01-03 09:30+01:00"],
            ["2024-01-02T08:30", "2024-01-03T08:30"],
            "UTC+01:00",
        ),
        (
            "Date",  # over the change to summer time
            ["2024-03-08 16:00:00-05:00", "2024-03-11 16:00:00-04:00"],
            ["2024-03-08T21:00", "2024-03-11T20:00"],
            "UTC-04:00 and UTC-05:00",
        ),
        (
            "Gmt time",
            ["01.02.2024 00:00:00.000", "13.02.2024 00:00:00.500"],
            ["2024-02-01", "2024-02-13T00:00:00.5"],
            "UTC",
        ),
        ("ts", [1704153600, 1704153660], ["2024-01-02", "2024-01-02T00:01"], "UTC"),
        ("open_time", [1704153600000, 1704153660000], ["2024-01-02", "2024-01-02T00:01"], "UTC"),
        ("timestamp", [1704153600000000, 1704153600000001], ["2024-01-02", "2024-01-02T00:00:00.000001"], "UTC"),
        ("Time", [1704153600000000000, 1704153600000000001], ["2024-01-02", "2024-01-02T00:00:00.000000001"], "UTC"),
        ("ts", [1704153600.25, 1704153660.5], ["2024-01-02T00:00:00.25", "2024-01-02T00:01:00.5"], "UTC"),
        ("ts", [1735603200000, 1735689600000000], ["2024-12-31", "2025-01-01"], "UTC"),  # as klines of 2025 are
        ("column 1", [1704153600, 1704153660], ["2024-01-02", "2024-01-02T00:01"], "UTC"),
        ("<DATE>", [20240102, 20240103], ["2024-01-02", "2024-01-03"], None),
        ("column 1", [20240102093000, 20240102093100], ["2024-01-02T09:30", "2024-01-02T09:31"], None),
        ("x", [202401020930, 202401020931], ["2024-01-02T09:30", "2024-01-02T09:31"], None),
        ("date", [2024010100, 2024010123], ["2024-01-01", "2024-01-01T23:00"], None),
        ("time", [2401010000, 2401010115], ["2024-01-01", "2024-01-01T01:15"], None),
        ("time", [1704060000, 1704063600], ["2023-12-31T22:00", "2023-12-31T23:00"], "UTC"),
        ("year", [1999, 2001], ["1999-01-01", "2001-01-01"], None),
        ("d", [datetime.date(2024, 1, 2), datetime.date(2024, 1, 3)], ["2024-01-02", "2024-01-03"], None),
        ("d", pd.PeriodIndex(["2024-01", "2024-02"], freq="M"), ["2024-01-01", "2024-02-01"], None),
        (
            "d",
            pd.DatetimeIndex(["2024-03-30", "2024-04-01"]).tz_localize("Europe/Berlin"),
            ["2024-03-29T23:00", "2024-03-31T22:00"],
            "Europe/Berlin",
        ),
    ],
)
def test_times_are_known_by_name_and_content(name: str, values: Any, expected: list[str], zone: str | None) -> None:
    got = panel({"price": [1.5, 2.5, 3.5][: len(expected)], name: values})
    assert got.times is not None
    np.testing.assert_array_equal(got.times, moments(*expected))
    assert got.times.dtype == "M8[ns]"
    assert (got.zone, got.findings.time) == (zone, name)
    assert list(got.series) == ["price"]


def test_whole_numbers_that_may_be_epochs_or_written_times_are_refused() -> None:
    """1612310040 is 2021-02-02 23:54 as an epoch, and 2016-12-31 00:40 as YYMMDDHHMM."""
    line = refusal({"time": [1612310040, 1612310041], "price": [1.5, 2.5]})
    assert "data.time_format=s" in line
    assert "data.time_format=%y%m%d%H%M" in line
    # 130000123 is one o'clock in the afternoon rather than a second of 1974
    assert "read as no times" in refusal({"date": [230000123, 230000124], "price": [1.5, 2.5]})


@pytest.mark.parametrize(
    ("name", "of_day", "minutes"),
    [
        ("Hour", [0, 1, 23], [0, 60, 1380]),
        ("Time", [1, 12, 24], [60, 720, 1440]),
        ("HE", [1, 2, 3], [60, 120, 180]),
        ("Time", [0, 5, 1230], [0, 5, 750]),
        ("<TIME>", [90000000, 90100000, 130000000], [540, 541, 780]),
        ("Trade Time", ["09:30", "09:31", "13:00"], [570, 571, 780]),
        ("column 2", ["09:30", "09:31", "13:00"], [570, 571, 780]),
    ],
)
def test_a_time_of_day_beside_a_date_is_added_to_it(name: str, of_day: list[Any], minutes: list[int]) -> None:
    days = np.repeat(np.array(["2024-01-02", "2024-01-03", "2024-01-04"], "M8[m]"), 3)
    got = panel({"Date": days.astype("M8[D]").astype(str), name: of_day * 3, "price": np.arange(9) + 1.5})
    assert got.times is not None
    np.testing.assert_array_equal(got.times.astype("M8[m]"), days + np.array(minutes * 3))


def test_a_time_of_day_that_is_none_of_the_row_is_not_added() -> None:
    days = np.array(["2024-01-02", "2024-01-03", "2024-01-04"])
    for name in ("Time", "Time of High", "sunrise"):
        got = panel({"Date": days, name: ["09:30", "09:40", "09:20"], "price": [1.5, 2.5, 3.5]})
        np.testing.assert_array_equal(got.times, moments(*days))  # type: ignore[arg-type]
    # two rows a day: times of the day's high tell nothing of the rows, and numbers 1, 2 then 3, 4 are no hours
    twice = {"Date": np.repeat(days, 2), "price": np.arange(6) + 1.5}
    assert "is there twice" in refusal({**twice, "Time of High": ["09:30", "09:30"] * 3})
    assert "data.time_format" in refusal({**twice, "Time": [1, 2, 3, 4, 5, 6]})


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("parts", "forms", "freq"),
    [
        (["Year", "Month", "Day"], ["%Y", "%m", "%d"], "D"),
        (["year", "month", "day", "hour"], ["%Y", "%m", "%d", "%H"], "h"),
        (["Year", "Month"], ["%Y", "%m"], "MS"),
        (["year", "month"], ["%Y", "%b"], "MS"),
    ],
)
def test_parts_of_the_date_are_put_together(
    parts: list[str], forms: list[str], freq: str, asked: bool, newest_first: bool
) -> None:
    times = pd.date_range("2019-12-01", periods=30, freq=freq)
    shown = times[::-1] if newest_first else times
    texts = {part: shown.strftime(form) for part, form in zip(parts, forms, strict=True)}
    columns = {part: each if each[0].isalpha() else each.astype(int) for part, each in texts.items()}
    prices = np.arange(30) + 0.5
    got = panel({**columns, "price": prices[::-1] if newest_first else prices}, time=parts if asked else None)
    assert got.times is not None
    np.testing.assert_array_equal(got.times, times.to_numpy())
    assert got.series["price"].prices.tolist() == prices.tolist()
    assert ("newest first: reversed" in got.findings.found) == newest_first


@pytest.mark.parametrize("form", [None, "%G-W%V"])
def test_iso_weeks_begin_on_monday(form: str | None) -> None:
    times = pd.date_range("2019-12-02", periods=60, freq="W-MON")
    got = panel({"Week": times.strftime("%G-W%V"), "price": np.arange(60) + 1.5}, time_format=form)
    assert got.times is not None
    np.testing.assert_array_equal(got.times, times.to_numpy())
    assert "read as no times" in refusal({"Week": ["2021-W53", "2022-W01"], "price": [1.5, 2.5]})  # 2021 has 52


@pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M"])
@pytest.mark.parametrize("between", [" - ", "/"])
def test_a_range_of_times_is_its_beginning(form: str, between: str) -> None:
    times = pd.date_range("2023-01-20", periods=40, freq="h")
    ranges = times.strftime(form) + between + (times + pd.Timedelta(hours=1)).strftime(form)
    got = panel({"MTU": ranges[::-1], "price": np.arange(40)[::-1] + 1.5})
    assert got.times is not None
    np.testing.assert_array_equal(got.times, times.to_numpy())
    assert got.series["price"].prices[0] == 1.5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("time", ["11:02", "11:01", "11:00"]),
        ("Data", ["6 paź 2023", "5 paź 2023", "4 paź 2023"]),
        ("Delivery Period", ["F2 of 2023 3", "F2 of 2023 2", "F2 of 2023 1"]),
        ("day", [3, 2, 1]),
        ("year", [2001, 2001, 2000]),
    ],
)
def test_rows_that_may_be_newest_first_are_not_taken_in_their_order(name: str, values: list[Any]) -> None:
    made = {name: values, "price": [1.5, 2.5, 1.75]}
    assert "data.time=none" in refusal(made)
    assert panel(made, time="none").series["price"].prices.tolist() == [1.5, 2.5, 1.75]


def test_the_only_column_of_datetimes_gives_the_times_of_an_own_frame() -> None:
    times = pd.date_range("2024-01-01", periods=5)
    frame = pd.DataFrame({"when": times[::-1], "a": np.arange(5)[::-1] + 1.5})
    got = panel_of_frame(frame, data(), "mine")
    assert got.times is not None
    np.testing.assert_array_equal(got.times, times.to_numpy())
    assert got.series["a"].prices.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert got.findings.found == ("times from column when", "newest first: reversed")
    two = frame.assign(known=times)
    assert "when and known; data.time names" in refused(lambda: panel_of_frame(two, data(), "mine"))


def test_a_column_can_be_times_and_input() -> None:
    made = {"time": [1704153720, 1704153660, 1704153600], "price": [3.5, 2.5, 1.5]}
    got = panel(made, inputs=["time:change"])
    assert got.times is not None
    np.testing.assert_array_equal(got.times, moments("2024-01-02", "2024-01-02T00:01", "2024-01-02T00:02"))
    assert got.series["price"].prices.tolist() == [1.5, 2.5, 3.5]


def test_a_grid_of_years_and_months_is_refused_by_name() -> None:
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    grid = {"Year": [2000, 2001, 2002], **{name: [1.5 + i, 2.5 - i, 1.75] for i, name in enumerate(months)}}
    assert "one row a year, one column a month" in refusal(grid)
    assert list(panel(grid, columns=months).series) == months


def test_years_that_nanoseconds_do_not_hold_are_read() -> None:
    got = panel({"Date": ["1600-01-01", "1601-01-01"], "price": [1.5, 2.5]})
    assert got.times is not None
    assert list(got.times) == list(np.array(["1600-01-01", "1601-01-01"], "M8[us]"))


def test_a_date_and_a_time_of_day_in_columns_of_their_own() -> None:
    for day, clock in (
        (["2024.01.02"] * 2, ["09:30", "10:05"]),
        ([20240102, 20240102], [93000, 100500]),
        ([20240102, 20240102], [930, 1005]),
        (["2024-01-02"] * 2, ["093000", "100500"]),
        (["02-Jan-2024"] * 2, ["9:30 AM", "10:05 AM"]),
        (["2024-01-02"] * 2, [datetime.time(9, 30), datetime.time(10, 5)]),
    ):
        got = panel({"Date": day, "Time": clock, "price": [1.5, 2.5]})
        np.testing.assert_array_equal(got.times, moments("2024-01-02T09:30", "2024-01-02T10:05"))
        assert got.findings.time == "Date and Time"


def test_the_order_of_day_and_month_is_told_by_the_whole_column_or_asked_for() -> None:
    ends = ["30/11/2023", "01/12/2023", "02/12/2023"]
    got = panel({"Date": ends, "price": [1.5, 2.5, 3.5]})
    np.testing.assert_array_equal(got.times, moments("2023-11-30", "2023-12-01", "2023-12-02"))
    fits = ["31/01/2024", "01/02/2024", "02/02/2024"]  # month first: the 2nd of January after a 31st month
    assert panel({"Date": fits, "p": [1.5, 2.5, 3.5]}).findings.found[0] == "day first (data.time_format)"
    # January to December, or the 1st to the 12th of January: both rise.
    both = {"Date": [f"01/{month:02}/2024" for month in range(1, 13)], "price": walk(1, 12)}
    assert refusal(both) == (
        "f.csv, column Date: 01/02/2024 is 2024-02-01 with data.time_format=day_first or 2024-01-02 with "
        "data.time_format=month_first, and all rows can be read so"
    )
    asked = panel(both, time_format="month_first")
    np.testing.assert_array_equal(asked.times, np.arange("2024-01-01", "2024-01-13", dtype="M8[D]"))
    other = panel(both, time_format="day_first")
    assert other.times is not None
    assert str(other.times[-1])[:10] == "2024-12-01"
    short = {"Date": ["24/01/02", "24/02/03"], "price": [1.5, 2.5]}
    assert refusal(short) == (
        "f.csv, column Date: 24/01/02 is 2002-01-24 with data.time_format=day_first or 2024-01-02 with "
        "data.time_format=%y-%m-%d, and all rows can be read so"
    )
    got = panel(short, time_format="%y-%m-%d")
    np.testing.assert_array_equal(got.times, moments("2024-01-02", "2024-02-03"))


def test_keys_say_which_columns_are_times_and_what_they_mean() -> None:
    made = {"Date": dates(3), "when": ["2024 1 5", "2024 1 6", "2024 2 1"], "price": [1.5, 2.5, 3.5]}
    got = panel(made, time="when", time_format="%Y %m %d")
    np.testing.assert_array_equal(got.times, moments("2024-01-05", "2024-01-06", "2024-02-01"))
    assert got.findings.found == ("%Y %m %d (data.time_format)",)
    assert dict(got.findings.left_out) == {"Date": "times"}
    none = panel(made, time="none")
    assert (none.times, none.findings.time, none.shared) == (None, None, True)
    assert dict(none.findings.left_out) == {"Date": "times", "when": "texts"}
    assert none.findings.found == ("rows in the file's order (data.time)",)
    both = {"a": [240102, 240102, 240103], "b": [930, 931, 930], "price": [1.5, 2.5, 3.5]}
    got = panel(both, time=["a", "b"], time_format="%y%m%d %H%M")
    np.testing.assert_array_equal(got.times, moments("2024-01-02T09:30", "2024-01-02T09:31", "2024-01-03T09:30"))
    early = panel({"t": [60, 120, 180], "price": [1.5, 2.5, 3.5]}, time="t", time_format="s")
    np.testing.assert_array_equal(early.times, moments("1970-01-01T00:01", "1970-01-01T00:02", "1970-01-01T00:03"))
    assert refusal(made, time="Zeit") == ("f.csv has no column Zeit, which data.time names (it has: Date, when, price)")
    assert refusal(made, time="when") == (
        "f.csv, column when: '2024 1 5' and the like are read as no times; data.time_format says their format"
    )
    assert refusal(made, time="when", time_format="%d.%m.%Y") == (
        "f.csv, column when: data.time_format=%d.%m.%Y does not read '2024 1 5' and the like"
    )
    assert refusal({"a": ["x", "y"], "p": [1.5, 2.5]}, time_format="%d.%m.%Y") == (
        "f.csv has no column of times that data.time_format=%d.%m.%Y reads"
    )
    assert refusal(made | {"Day": dates(3)}, time=["Date", "Day"]) == (
        "f.csv: data.time takes a column of dates and one of times of day; Date and Day are not"
    )


def test_what_may_be_times_is_not_guessed() -> None:
    assert refusal({"Date": [45293, 45294, 45297], "price": [1.5, 2.5, 3.5]}) == (
        "f.csv, column Date: 45293 may be 2024-01-02, counted in days as a spreadsheet does; write dates, or take the "
        "rows in their order with data.time=none"
    )
    assert refusal({"Date": ["week 1", "week 2"], "price": [1.5, 2.5]}) == (
        "f.csv, column Date: 'week 1' and the like are read as no times; data.time_format says their format, "
        "data.time=none takes the rows in their order"
    )
    wrong = dates(40)
    wrong[7] = "2020-02-30"
    assert refusal({"Date": wrong, "price": walk(1, 40)}) == (
        "f.csv, column Date, line 9: '2020-02-30' is no time as the others"
    )
    wrong[7] = "n/v"
    assert (
        refusal({"Date": wrong, "price": walk(1, 40)}) == "f.csv, column Date, line 9: 'n/v' is no time as the others"
    )


def test_of_two_columns_of_times_the_first_that_differs_at_each_row_is_taken() -> None:
    made = {"loaded": ["2024-05-05"] * 3, "Date": dates(3), "close_date": dates(3), "price": [1.5, 2.5, 3.5]}
    got = panel(made)
    assert got.findings.time == "Date"
    assert dict(got.findings.left_out) == {"loaded": "times", "close_date": "times"}


# --- order and gaps -------------------------------------------------------------------------------------------


def test_rows_out_of_order_or_there_twice_are_refused_with_their_lines() -> None:
    assert refusal({"Date": ["2024-01-02", "2024-01-04", "2024-01-03", "2024-01-05"], "p": [1.5, 2.5, 3.5, 4.5]}) == (
        "f.csv, column Date, line 4: 2024-01-03 stands after 2024-01-04 (line 3), the rows are neither oldest first "
        "nor newest first; sort the file, or data.time=none takes the rows in their order"
    )
    assert refusal(
        {"Date": ["2024-01-05", "2024-01-04", "2024-01-03", "2024-01-03 16:30"], "p": [1.5, 2.5, 3.5, 4.5]}
    ).startswith("f.csv, column Date, line 5: 2024-01-03 16:30 stands after 2024-01-03 (line 4), ")
    twice = {"Date": ["2024-01-04", "2024-01-03", "2024-01-03", "2024-01-02"], "p": [1.5, 2.5, 3.5, 4.5]}
    said = (
        "2024-01-03 is there twice, also in {}; in long format data.by names the column of the series, and "
        "data.time=none takes the rows in their order"
    )
    assert refusal(twice) == f"f.csv, column Date, line 4: {said.format('line 3')}"
    assert refusal(twice, {"lines": None}) == f"f.csv, column Date, row 3: {said.format('row 2')}"
    with_blank_lines = np.array([2, 3, 7, 8])
    assert refusal(twice, {"lines": with_blank_lines}) == f"f.csv, column Date, line 7: {said.format('line 3')}"
    with pytest.raises(
        ValueError, match=r"^a22, column Date, line 61: 2024-02-26 stands after 2024-03-22 \(line 60\), "
    ):
        panel_of_table(case("a22_duplicated_and_unsorted_dates.csv"), data(), "a22")


def test_rows_without_a_time_are_dropped_if_blank_and_refused_otherwise() -> None:
    made = {"Date": ["2024-01-02", None, "2024-01-03"], "price": [1.5, np.nan, 2.5]}
    got = panel(made)
    np.testing.assert_array_equal(got.series["price"].prices, [1.5, 2.5])
    np.testing.assert_array_equal(got.series["price"].rows, [0, 1])
    assert refusal(made | {"price": [1.5, 2.0, 2.5]}) == "f.csv, column Date, line 3: no time"


@pytest.mark.parametrize(
    ("freq", "left_out", "said"),
    [
        (
            "5min",
            [10, *range(50, 73), *range(90, 95)],
            "3 gaps in a 5-minute calendar, the longest 2 h after 2020-01-01 04:05",
        ),
        ("h", [30], "1 gap in a 1-hour calendar, the longest 2 h after 2020-01-02 05:00"),
        ("D", [30, 31], "1 gap in a 1-day calendar, the longest 3 days after 2020-01-30"),
        ("B", [12, 13], "1 gap in a weekday calendar, the longest 5 days after 2020-01-16"),
        ("B", [], None),
        ("MS", [3], None),  # months are not of one length
    ],
)
def test_gaps_in_a_regular_calendar_are_said(freq: str, left_out: list[int], said: str | None) -> None:
    days = np.delete(np.array(dates(150, "%Y-%m-%d %H:%M", freq)), left_out)
    found = panel({"Date": days, "price": walk(1, len(days))}).findings.found
    assert list(found) == ([said] if said else [])


# --- series ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "series", "left_out"),
    [
        ("1. open|2. high|3. low|4. close|5. volume", ["4. close"], ["1. open", "2. high", "3. low"]),
        ("X.Open|X.High|X.Low|X.Close|X.Volume", ["X.Close"], ["X.Open", "X.High", "X.Low"]),
        ("Open X|High X|Low X|Close X|Volume X", ["Close X"], ["Open X", "High X", "Low X"]),
        ("o|h|l|c|v", ["c"], ["o", "h", "l"]),
        ("openPrice|highPrice|lowPrice|closePrice|volume", ["closePrice"], ["openPrice", "highPrice", "lowPrice"]),
        ("Open|High|Low|Price|Vol.", ["Price"], ["Open", "High", "Low"]),
        ("Erster|Hoch|Tief|Schluss|Umsatz", ["Schluss"], ["Erster", "Hoch", "Tief"]),
        ("PX_OPEN|PX_HIGH|PX_LOW|PX_LAST|PX_VOLUME", ["PX_LAST"], ["PX_OPEN", "PX_HIGH", "PX_LOW"]),
        ("bid_open|bid_high|bid_low|bid_close|bid_volume", ["bid_close"], ["bid_open", "bid_high", "bid_low"]),
        ("Bid|Ask|Mid|Last|Size", ["Last"], ["Bid", "Ask", "Mid"]),
    ],
)
def test_of_the_prices_of_an_asset_its_close_is_the_series(names: str, series: list[str], left_out: list[str]) -> None:
    columns = dict(zip(names.split("|"), prices_of_day().values(), strict=True))
    got = panel({"Date": dates(), **columns})
    assert list(got.series) == series
    np.testing.assert_array_equal(got.series[series[0]].prices, columns[series[0]])
    assert [name for name, why in got.findings.left_out.items() if why == SAME] == left_out
    assert got.findings.left_out[names.split("|")[-1]] in ("volume", "jumps as volumes do")


@pytest.mark.parametrize("order", ["cohl", "ohlc", "lhoc"])
def test_of_four_prices_in_unknown_words_the_close_is_the_one_that_the_next_open_is_near(order: str) -> None:
    one = prices_of_day(1)
    got = panel({"Date": dates(), **{f"word {letter}": one[letter] for letter in order}})
    assert list(got.series) == ["word c"]


def test_each_asset_has_a_series_of_its_own() -> None:
    one, two = prices_of_day(1), prices_of_day(2)
    made = {"Date": dates(), "A Close": one["c"], "A Open": one["o"], "B Close": two["c"], "B Open": two["o"]}
    assert list(panel(made).series) == ["A Close", "B Close"]
    # Names of fields are tickers, too: these are no prices of one asset, as their values say.
    tickers = {"Date": dates(), "AAPL": walk(1), "LOW": walk(2, start=300), "OPEN": walk(3, start=5)}
    assert list(panel(tickers).series) == ["AAPL", "LOW", "OPEN"]
    assert list(panel({"a": walk(1), "b": walk(2), "c": walk(3)}).series) == ["a", "b", "c"]


def test_adjusted_closes_are_offered_and_taken_when_asked_for() -> None:
    one = prices_of_day(1)
    made = {"Date": dates(), "Close": one["c"], "Adj Close": one["c"] / 4, "Open": one["o"]}
    got = panel(made)
    assert list(got.series) == ["Close"]
    assert got.findings.left_out["Adj Close"] == "prices of the same asset; data.columns=[Adj Close] takes it"
    asked = panel(made, columns=["Adj Close"])
    np.testing.assert_array_equal(asked.series["Adj Close"].prices, one["c"] / 4)


def test_columns_that_are_nearly_one_are_not_two_series() -> None:
    rng = np.random.default_rng(3)
    base = walk(1)
    twin = base * 1.01 + 0.001 * rng.standard_normal(60)
    market = np.cumsum(rng.standard_normal(60))
    near = 100 + market + 0.33 * np.cumsum(rng.standard_normal(60))  # changes correlate by about 0.95
    got = panel({"GOOG": base, "GOOGL": twin, "x": 100 + market, "y": near})
    assert np.corrcoef(np.diff(market), np.diff(near))[0, 1] > 0.85
    assert list(got.series) == ["GOOG", "x", "y"]
    assert dict(got.findings.left_out) == {"GOOGL": "nearly the same as GOOG; data.columns takes it as a series"}


def test_what_is_no_price_is_left_out_with_a_reason() -> None:
    n = 60
    rng = np.random.default_rng(0)
    made = {
        "Unnamed: 0": np.arange(n),
        "date": dates(),
        "price": walk(1),
        "id": np.arange(1, n + 1),
        "number_of_trades": rng.integers(0, 1000, n),
        "taker_base": rng.random(n),
        "Open Interest": rng.integers(0, 1000, n),
        "market_cap": walk(2) * 1e9,
        "ret": rng.standard_normal(n),
        "dividend": np.zeros(n),
        "currency": ["USD"] * n,
        "halted": rng.random(n) > 0.5,
        "PER": [5] * n,
        "blank": [np.nan] * n,
        "pieces": rng.lognormal(8, 1, n).astype(int),
        "month": rng.integers(1, 13, n),
        "growth": rng.standard_normal(n),
    }
    got = panel(made, {"percent": ("growth",)})
    assert list(got.series) == ["price"]
    assert dict(got.findings.left_out) == {
        "Unnamed: 0": "a saved index",
        "id": "a saved index",
        "number_of_trades": "a count",
        "taker_base": "volume",
        "Open Interest": "open interest",
        "market_cap": "a market value",
        "ret": "changes, not prices",
        "dividend": "dividends or splits",
        "currency": "texts",
        "halted": "yes or no",
        "PER": "the same value everywhere",
        "blank": "no values",
        "pieces": "jumps as volumes do",
        "month": "a part of the date",
        "growth": "changes, not prices",
    }


def test_names_of_funds_and_codes_are_no_roles() -> None:
    funds = {"iShares Core": walk(1), "Absolute Return Fund": walk(2, start=30), "Total Return Index": walk(3, start=7)}
    assert list(panel({"Date": dates()} | funds).series) == list(funds)
    coded = panel({"Date": dates(), "code": ["000001"] * 60, "note": ["007"] * 30 + ["008"] * 30, "close": walk(1)})
    assert list(coded.series) == ["000001"]
    assert dict(coded.findings.left_out) == {"note": "texts"}


def test_walks_that_know_nothing_of_each_other_are_all_series() -> None:
    rng = np.random.default_rng(3)
    for scale, level in ((0.1, 0), (1, 100), (5, 1000)):
        for count in (25, 60, 300):
            steps = rng.standard_normal((count, 5)) + rng.standard_normal((count, 1))  # and a market in common
            made = {f"n{i}": each for i, each in enumerate(level + scale * np.cumsum(steps, axis=0).T)}
            got = panel(made)
            assert list(got.series) == list(made)
            assert got.findings.warnings == ()


@pytest.mark.parametrize("clock", ["", " %H:%M", "T%H:%M:%S.%f", ", %I:%M:%S %p", " %H%M%S"])
@pytest.mark.parametrize(
    "day",
    ["%Y/%m/%d", "%d.%m.%Y", "%m-%d-%Y", "%d%b%Y", "%B %d, %Y", "%A, %b %d, %Y", "%d-%b-%y", "%m/%d/%y", "%Y-%b-%d"],
)
def test_what_strftime_writes_is_read_back(day: str, clock: str) -> None:
    times = pd.date_range("2023-11-20 03:00" if clock else "2023-11-20", periods=60, freq="31h" if clock else "D")
    for zone, hours in (("", 0), *([("Z", 0), ("+01:00", -1), ("-0500", 5)] if clock == " %H:%M" else [])):
        got = panel({"Date": times.strftime(day + clock) + zone, "price": walk(1)})
        np.testing.assert_array_equal(got.times, times + pd.Timedelta(hours=hours))


def test_asked_columns_are_taken_whatever_they_are() -> None:
    made = {"Date": dates(), " <CLOSE>": walk(1), "Volume": prices_of_day()["v"], "kind": ["a"] * 60}
    got = panel(made, columns=["volume", "close"])
    assert list(got.series) == ["Volume", " <CLOSE>"]
    assert dict(got.findings.left_out) == {"kind": "texts"}
    assert refusal(made, columns=["Open", "Volume"]) == (
        "f.csv has no column Open (it has: Date,  <CLOSE>, Volume, kind)"
    )
    assert refusal(made, columns=["kind"]) == "f.csv, column kind, line 2: 'a' is not a number"
    assert refusal({"A": walk(1), "a": walk(2), "b": walk(3)}, columns=["B", "á"]) == (
        "f.csv has no column á (it has: A, a, b)"
    )
    assert refusal({"flag": [True, False], "p": [1.5, 2.5]}, columns=["flag"]) == (
        "f.csv, column flag holds yes or no, not prices"
    )
    assert refusal({"Date": dates(), "n": ["a"] * 60}) == (
        "f.csv has no column of prices (it has Date: times; n: texts); data.columns takes one anyway"
    )
    typed = [str(price) for price in walk(1)]
    typed[5] = "n.v."
    assert refusal({"Date": dates(), "Close": typed}) == "f.csv, column Close, line 7: 'n.v.' is not a number"
    assert refusal({"p": [1.5]}) == "f.csv has 1 row; a series needs at least 2"


def test_levels_of_a_header_give_a_series_a_ticker() -> None:
    got = panel_of_table(case("p02_multiindex_columns.parquet"), data(), "p02")
    assert {name: (each.prices[0], each.prices[-1]) for name, each in got.series.items()} == {
        "AAA": (100.0, 85.94),
        "BBB": (48.02, 48.56),
    }
    assert dict(got.findings.left_out) == {"Volume AAA": "volume", "Volume BBB": "volume"}
    assert got.findings.time == "index"
    shown = panel_of_table(case("p02_multiindex_columns.parquet"), data(columns=["Close BBB"]), "p02")
    assert {name: each.prices[0] for name, each in shown.series.items()} == {"Close BBB": 48.02}
    tickers = panel_of_table(case("p02_multiindex_columns.parquet"), data(columns=["BBB"]), "p02")
    assert {name: each.prices[0] for name, each in tickers.series.items()} == {"BBB": 48.02}
    fields = panel_of_table(case("p02_multiindex_columns.parquet"), data(columns=["Volume"]), "p02")
    assert {name: each.prices[0] for name, each in fields.series.items()} == {"AAA": 89428.0, "BBB": 89428.0}
    # Tickers above fields, and inputs of each ticker's own.
    one, two = prices_of_day(1), prices_of_day(2)
    made = {"Date": dates(), "A Close": one["c"], "A Volume": one["v"], "B Close": two["c"], "B Volume": two["v"]}
    levels = {name: tuple(name.split(" ")) for name in list(made)[1:]}
    got = panel(made, {"levels": levels}, inputs=["Volume", "A Volume:change"])
    assert list(got.series) == ["A", "B"]
    np.testing.assert_array_equal(got.series["B"].inputs[:, 0], two["v"])
    np.testing.assert_array_equal(got.series["B"].inputs[1:, 1], np.diff(one["v"]))


def long_table() -> dict[str, Any]:
    """Three series of one calendar, 60, 60 and 40 days; each row has a volume."""
    n = (60, 60, 40)
    return {
        "date": dates(60) + dates(60) + dates(60)[20:],
        "symbol": ["A"] * n[0] + ["B"] * n[1] + ["C"] * n[2],
        "close": np.concatenate([walk(1), walk(2), walk(3, 40)]),
        "volume": np.arange(160.0),
    }


@pytest.mark.parametrize("how", ["blocks", "interleaved", "newest first"])
def test_long_format_gives_a_series_a_value(how: str) -> None:
    frame = pd.DataFrame(long_table())
    if how != "blocks":
        frame = frame.sort_values(["date", "symbol"], ascending=how == "interleaved").reset_index(drop=True)
    got = panel_of_table(Table(frame, {}, 2, (), ()), data(inputs=["volume"]), "f.csv")
    np.testing.assert_array_equal(got.series["A"].prices, walk(1))
    np.testing.assert_array_equal(got.series["B"].prices, walk(2))
    np.testing.assert_array_equal(got.series["C"].prices, walk(3, 40))
    np.testing.assert_array_equal(got.series["C"].rows, np.arange(20, 60))
    np.testing.assert_array_equal(got.series["C"].inputs[:, 0], np.arange(120, 160))
    np.testing.assert_array_equal(got.times, np.array(dates(60), "M8[ns]"))
    assert (got.shared, got.inputs, sorted(got.series)) == (True, ("volume",), ["A", "B", "C"])
    assert ("newest first: reversed" in got.findings.found) == (how == "newest first")
    assert dict(got.findings.left_out) == {}


def test_long_format_takes_series_and_prices_by_name() -> None:
    made = long_table() | {"open": long_table()["close"] * 1.001}
    assert list(panel(made, columns=["c", "A"]).series) == ["C", "A"]
    both = panel(made, columns=["close", "open"])
    assert list(both.series) == ["A close", "A open", "B close", "B open", "C close", "C open"]
    np.testing.assert_array_equal(both.series["B open"].prices, walk(2) * 1.001)
    assert refusal(made, columns=["D"]) == (
        "f.csv has no column D (it has: date, symbol, close, volume, open, A, B, C)"
    )
    assert refusal(made, by="ticker") == (
        "f.csv has no column ticker, which data.by names (it has: date, symbol, close, volume, open)"
    )
    assert refusal(
        {k: v for k, v in made.items() if k not in ("close", "open")} | {"x": walk(4, 160), "y": walk(5, 160) * 9}
    ) == ("f.csv: several columns could be the price of each symbol; data.columns=[x] or data.columns=[y] says which")


def test_the_column_of_the_series_is_refused_where_two_could_be_it() -> None:
    made = long_table() | {"board": ["x"] * 60 + ["y"] * 60 + ["z"] * 40}
    assert "board" in panel(made).findings.left_out  # parts the rows alike
    halves = ["x"] * 30 + ["y"] * 30 + ["y"] * 30 + ["z"] * 30 + ["z"] * 10 + ["x"] * 30
    assert refusal(made | {"board": halves}) == (
        "f.csv: times repeat, and several columns could name the series; data.by=symbol or data.by=board says which"
    )
    assert list(panel(made | {"board": halves}, by="symbol").series) == ["A", "B", "C"]
    ids = panel({"permno": [7] * 60 + [9] * 60 + [8] * 40} | long_table() | {"symbol": [0.5] * 160})
    assert list(ids.series) == ["7", "9", "8"]
    made["symbol"][3] = None
    assert refusal(made, by="symbol") == "f.csv, column symbol, line 5: blank, so of no series"
    unordered = long_table()
    unordered["date"][70], unordered["date"][71] = unordered["date"][71], unordered["date"][70]
    assert refusal(unordered).startswith("f.csv, column date, line 73: 2020-01-11 stands after 2020-01-12 (line 72), ")


def test_long_format_without_times_has_rows_of_each_series_own() -> None:
    made = {"symbol": ["A", "B"] * 30, "close": walk(1)}
    got = panel(made, by="symbol")
    np.testing.assert_array_equal(got.series["B"].prices, walk(1)[1::2])
    np.testing.assert_array_equal(got.series["B"].rows, np.arange(30))
    assert (got.times, got.shared) == (None, False)


# --- blanks ---------------------------------------------------------------------------------------------------


def test_blanks_inside_are_refused_dropped_or_carried() -> None:
    name = "a17_fred_dot_and_negative.csv"
    assert refused(lambda: panel_of_table(case(name), data(), name)) == (
        f"{name}, column DCOILWTICO, line 11 (2024-01-15): a blank inside the series; data.gaps=drop leaves such "
        "rows out of the series, data.gaps=carry repeats the price before"
    )
    known = cells(name, 1)
    drop = panel_of_table(case(name), data(gaps="drop"), name)
    np.testing.assert_array_equal(drop.series["DCOILWTICO"].prices, known)
    np.testing.assert_array_equal(np.setdiff1d(np.arange(120), drop.series["DCOILWTICO"].rows), [9, 33, 90])
    assert drop.findings.found == ("3 blanks inside DCOILWTICO left out (data.gaps)",)
    assert drop.series["DCOILWTICO"].prices.min() == -36.98
    carry = panel_of_table(case(name), data(gaps="carry"), name).series["DCOILWTICO"].prices
    for row in (9, 33, 90):
        assert carry[row] == carry[row - 1]
    np.testing.assert_array_equal(np.delete(carry, [9, 33, 90]), known)


def test_a_blank_is_said_by_the_line_of_the_file_also_when_it_is_reversed() -> None:
    made = {"Date": dates(6)[::-1], "a": [np.nan, 1.5, np.nan, 2.5, np.nan, 3.5]}
    assert refusal(made).startswith("f.csv, column a, line 4 (2020-01-04): a blank inside the series; ")
    assert refusal({"a": [1.5, np.inf, 2.5]}) == "f.csv, column a, line 3: inf is not a finite number"
    assert refusal({"a": [1.5, 2.5, 2.6], "b": [np.nan, 2.5, np.nan]}, columns=["a", "b"]) == (
        "f.csv, column b holds 1 price; a series needs at least 2"
    )


# --- other inputs ---------------------------------------------------------------------------------------------


def test_a_step_of_each_form_sees_nothing_after_it() -> None:
    prices, values = walk(1), walk(2)
    other = np.concatenate([values[:30], values[30:] * 3 + 1])
    expected = {
        "level": values,
        "log1p": [np.log(1 + v) for v in values],
        "change": [np.nan, *(b - a for a, b in pairwise(values))],
        "log_change": [np.nan, *(np.log(b / a) for a, b in pairwise(values))],
        "from_price": [v - p for v, p in zip(values, prices, strict=True)],
    }
    assert set(expected) == set(FORMS)
    for form, slow in expected.items():
        got = formed(form, values, prices)
        np.testing.assert_allclose(got, slow, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(got[:30], formed(form, other, prices)[:30])
        assert not np.array_equal(got[30:], formed(form, other, prices)[30:])


def test_inputs_are_named_with_a_form() -> None:
    assert parse_input("volume:log1p", ["volume"]) == ("volume", "log1p")
    assert parse_input("VOL", ["<VOL>", "a"]) == ("<VOL>", "level")
    assert parse_input("a:log1p", ["a", "a:log1p"]) == ("a:log1p", "level")
    assert parse_input("x:y:change", ["x:y"]) == ("x:y", "change")
    for text, said in {
        "foo": "has no column foo, which data.inputs names (it has: a, b)",
        "foo:log1p": "has no column foo, which data.inputs names (it has: a, b)",
        "foo:bar": "has no column foo:bar, which data.inputs names (it has: a, b)",
        "a:log2": "has a, but data.inputs has no form 'log2'; takes level, log1p, change, log_change, from_price",
    }.items():
        assert refused(lambda text=text: parse_input(text, ["a", "b"])) == said


def test_inputs_stand_beside_the_prices_of_their_rows() -> None:
    one = prices_of_day(1)
    volume = one["v"].astype(float)
    volume[7] = np.nan
    close = one["c"].copy()
    close[20] = np.nan
    made = {"Date": dates()[::-1], "Open": one["o"], "High": one["h"], "Close": close, "Volume": volume}
    got = panel(made, inputs=["volume:log1p", "high:from_price", "volume:change"], gaps="drop")
    assert (list(got.series), got.inputs) == (["Close"], ("volume:log1p", "high:from_price", "volume:change"))
    assert dict(got.findings.left_out) == {"Open": SAME}
    rows = [row for row in range(59, -1, -1) if row != 20]
    inputs = got.series["Close"].inputs
    np.testing.assert_allclose(inputs[:, 0], np.log1p(volume[rows]))
    np.testing.assert_allclose(inputs[:, 1], (one["h"] - close)[rows])
    np.testing.assert_allclose(inputs[:, 2], [np.nan, *np.diff(volume[rows])])  # the row before it that is left
    assert np.isnan(inputs[:, 0]).sum() == 1


def test_an_input_is_no_series_unless_it_is_asked_for() -> None:
    made = {"Date": dates(), "a": walk(1), "b": walk(2), "up": [True, False] * 30, "news": ["True", "false"] * 30}
    assert list(panel(made, inputs=["b", "up", "news"]).series) == ["a"]
    got = panel(made, inputs=["b", "up", "news"], columns=["a", "b"])
    assert list(got.series) == ["a", "b"]
    np.testing.assert_array_equal(got.series["a"].inputs[:2], [[walk(2)[0], 1, 1], [walk(2)[1], 0, 0]])
    assert list(panel({"a": walk(1)}, inputs=["a:change"]).series) == ["a"]


def test_inputs_that_cannot_be_are_refused() -> None:
    made = {"Date": dates(), "Close": walk(1), "Volume": np.arange(60.0) - 3, "kind": ["x"] * 60}
    assert refusal(made, inputs=["vol"]) == (
        "f.csv has no column vol, which data.inputs names (it has: Date, Close, Volume, kind)"
    )
    assert refusal(made, inputs=["volume:log1p"]) == (
        "f.csv, column Volume, line 2: -3 is nothing that the form log1p takes; the form change or level takes it"
    )
    assert refusal(made, inputs=["kind"]) == "f.csv, column kind, line 2: 'x' is not a number"
    infinite = np.where(np.arange(60) == 4, np.inf, 1.0)
    assert refusal(made | {"Volume": infinite}, inputs=["Volume"]) == (
        "f.csv, column Volume, line 6: inf is not a finite number"
    )


# --- warnings -------------------------------------------------------------------------------------------------


def test_suspicions_are_a_line_each() -> None:
    assert panel_of_table(case("a32_only_returns.csv"), data(), "a32").findings.warnings == (
        "Ret looks like returns, not prices: its values are around 0, with both signs",
    )
    prices = np.array(cells("a27i_minus_9999_missing.csv", 0))
    others = np.diff(prices)[np.abs(np.diff(prices)) < 1000]
    size = abs(prices[60] - prices[59]) / others.std()
    assert panel_of_table(case("a27i_minus_9999_missing.csv"), data(), "a27i").findings.warnings == (
        "a holds -9999 2 times, first in line 62: a sign for a missing price? The step there is "
        f"{size:.3g} standard deviations of the others",
    )
    assert panel_of_table(case("a35_halted_after_window.csv"), data(), "a35").findings.warnings == (
        "HALTED does not change after line 12: its last 390 of 400 prices are 100.61",
    )
    spiked = walk(1, 300)
    spiked[100] *= 100
    others = np.delete(np.diff(spiked), [99, 100])
    assert panel({"a": spiked}).findings.warnings == (
        f"a steps from {spiked[99]:g} to {spiked[100]:g} in line 102: "
        f"{(spiked[100] - spiked[99]) / others.std():.3g} standard deviations of the other steps (2 such steps)",
    )


def test_what_is_usual_is_no_suspicion() -> None:
    around_zero = np.cumsum(np.random.default_rng(1).standard_normal(300))  # a spread: both signs, but a level
    assert (around_zero < 0).any()
    assert (around_zero > 0).any()
    rare = np.repeat(walk(1, 60), 5)  # changes at every fifth step only
    assert panel({"a": around_zero, "b": walk(2, 300), "c": rare}).findings.warnings == ()


# --- files, frames, the market ----------------------------------------------------------------------------------


def test_a_file_is_read_once_while_it_and_the_keys_are_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def read(path: Path, form: object) -> Table:
        reads.append(path)
        if path.name == "bad.csv":
            raise ValueError(f"{path} is empty")
        return table({"Date": dates(), "a": walk(1), "b": walk(2)})

    monkeypatch.setattr(panel_file, "read_table", read)
    file = tmp_path / "x.csv"
    file.write_text("a")
    one = panel_of_file(str(file), data())
    assert panel_of_file(str(file), data(window=7)) is one  # a sweep over a key that says nothing of the file
    assert panel_of_file(str(file), data(columns=["b"])) is not one
    assert len(reads) == 2
    os.utime(file, ns=(1, 1))
    panel_of_file(str(file), data())
    assert len(reads) == 3
    for array in (one.times, one.series["a"].prices, one.series["a"].rows, one.series["a"].inputs):
        assert array is not None
        assert not array.flags.writeable
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "0.parquet").write_text("a")
    panel_of_file(str(folder), data())
    panel_of_file(str(folder), data())
    assert len(reads) == 4
    (folder / "1.parquet").write_text("a")
    panel_of_file(str(folder), data())
    assert len(reads) == 5
    for _ in range(2):
        with pytest.raises(ValueError, match=r"bad\.csv is empty"):
            panel_of_file(str(tmp_path / "bad.csv"), data())


def test_an_error_keeps_its_key_in_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "Date,Close,kind\n" + "".join(f"{day},{price},x\n" for day, price in zip(dates(), walk(1), strict=True))
    )
    for keys, key in [
        ({"columns": ["Open"]}, "data.columns"),
        ({"columns": ["kind"]}, "data.columns"),
        ({"inputs": ["Volume"]}, "data.inputs"),
        ({"inputs": ["kind"]}, "data.inputs"),
        ({"time": "Day"}, "data.time"),
        ({"by": "who"}, "data.by"),
        ({"names": ["a"]}, "data.names"),
    ]:
        for _ in range(2):
            with pytest.raises(DataError) as error:
                panel_of_file(str(file), data(**keys))
            assert error.value.key == key


def test_a_frame_of_ones_own_keeps_its_columns() -> None:
    frame = pd.DataFrame({"Open": [1.0, 2, 3], "Close": [1.0, 2, np.nan], "Volume": [5, 6, 7], 8: [1.0, 1, 1]})
    got = panel_of_frame(frame, data(), "mine")
    assert {name: list(each.prices) for name, each in got.series.items()} == {
        "Open": [1, 2, 3],
        "Close": [1, 2],
        "Volume": [5, 6, 7],
        "8": [1, 1, 1],
    }
    assert (got.times, got.findings.left_out, got.findings.source) == (None, {}, "mine")
    with_input = panel_of_frame(frame, data(inputs=["Volume:log1p"], columns=["close"]), "mine")
    np.testing.assert_allclose(with_input.series["Close"].inputs[:, 0], np.log([6, 7]))
    dated = frame.set_index(pd.date_range("2024-01-02", periods=3, tz="America/New_York"))
    got = panel_of_frame(dated, data(), "mine")
    np.testing.assert_array_equal(got.times, moments("2024-01-02T05:00", "2024-01-03T05:00", "2024-01-04T05:00"))
    assert (got.zone, list(got.series)) == ("America/New_York", ["Open", "Close", "Volume", "8"])
    assert list(frame.columns) == ["Open", "Close", "Volume", 8]
    long = pd.DataFrame({"who": ["a", "b"] * 3, "day": np.repeat(dates(3), 2), "x": range(6)})
    got = panel_of_frame(long, data(by="who", time="day"), "mine")
    np.testing.assert_array_equal(got.series["b"].prices, [1, 3, 5])
    gap = pd.DataFrame({"a": [1.0, np.nan, 2]})
    np.testing.assert_array_equal(panel_of_frame(gap, data(gaps="carry"), "mine").series["a"].prices, [1, 1, 2])
    with pytest.raises(ValueError, match=r"^mine, column a, row 2: a blank inside the series; "):
        panel_of_frame(gap, data(), "mine")
    with pytest.raises(ValueError, match=r"^mine has two columns 1; a name belongs to one column$"):
        panel_of_frame(pd.DataFrame({"1": [1.0, 2], 1: [1.0, 2]}), data(), "mine")


def test_the_market_shares_days_when_it_is_cut_by_time() -> None:
    import arch.data.sp500
    import arch.data.wti

    alone = market_panel(MarketData(name="market"))
    assert (alone.times, alone.shared, list(alone.series)) == (None, False, ["sp500", "nasdaq", "wti"])
    got = market_panel(
        MarketData(name="market", split="time", inputs=["Volume", "nasdaq:change"], columns=["sp500", "wti"])
    )
    assert got.times is not None
    sp500, wti = arch.data.sp500.load(), arch.data.wti.load()["DCOILWTICO"].dropna()
    days = sp500.index.union(wti.index)
    np.testing.assert_array_equal(got.times, days.to_numpy())
    for name, column in {"sp500": sp500["Close"], "wti": wti}.items():
        np.testing.assert_array_equal(got.series[name].prices, alone.series[name].prices)
        np.testing.assert_array_equal(got.times[got.series[name].rows], column.index.to_numpy())
    np.testing.assert_array_equal(got.series["sp500"].inputs[:, 0], sp500["Volume"])
    np.testing.assert_array_equal(got.series["sp500"].inputs[1:, 1], np.diff(alone.series["nasdaq"].prices))
    assert np.isnan(got.series["wti"].inputs[:, 0]).all()
    assert list(market_panel(MarketData(name="market", inputs=["wti"])).series) == ["sp500", "nasdaq"]
    with pytest.raises(ValueError, match=r"^market has no column Foo, which data.inputs names \(it has: sp500, "):
        market_panel(MarketData(name="market", inputs=["Foo"]))


def test_a_format_is_that_of_the_columns_that_are_called_times() -> None:
    """Prices around 100 would be seconds of 1970; the format is not theirs if another column is called ``date``."""
    rows = np.arange(50)
    found = panel({"date": 1577836800 + 3600 * rows, "close": 100.0 + rows % 7}, time_format="s")
    assert list(found.series) == ["close"]
    assert found.times is not None
    assert found.times[1] == np.datetime64("2020-01-01T01:00")


def test_files_without_times_in_a_folder_are_several_series_if_their_names_say_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for seed, name in enumerate(["AAPL", "MSFT"], 1):
        pd.DataFrame({"close": walk(seed, start=100 * seed)}).to_parquet(tmp_path / "a" / f"{name}.parquet")
    path = str(tmp_path / "a")
    assert "column file: it has 2 values" in refused(lambda: panel_of_file(path, data()))
    assert "data.by=file" in refused(lambda: panel_of_file(path, data()))
    assert list(panel_of_file(path, data(by="file")).series) == ["AAPL", "MSFT"]


def test_a_place_in_a_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for part in range(2):
        values = walk(part)
        values[20 + part] = np.nan if part else values[20]
        pd.DataFrame({"A": values}).to_parquet(tmp_path / "a" / f"part-{part}.parquet")
    assert "row 22 of part-1.parquet: a blank" in refused(lambda: panel_of_file(str(tmp_path / "a"), data()))


def test_a_source_of_tables_takes_the_keys_of_tables_and_another_has_none() -> None:
    """``TableData`` has data.gaps, data.by and data.time; ``SplitData`` has only the keys that any source needs."""
    from tbptt.extend import SplitData, TableData

    prices = walk(1)
    prices[7] = np.nan
    frame = pd.DataFrame({"day": pd.to_datetime(dates()), "a": prices})
    found = panel_of_frame(frame, TableData(name="mine", gaps="drop", time="day"), "mine")
    assert list(found.series["a"].rows) == [row for row in range(60) if row != 7]
    assert found.times is not None
    assert found.times[8] == np.datetime64("2020-01-09")
    with pytest.raises(ValueError, match=r"mine has no data\.gaps: it has one if it builds on TableData"):
        panel_of_frame(frame, SplitData(name="mine"), "mine")


def test_few_small_whole_numbers_are_a_series_beside_nothing_better() -> None:
    ticks = np.arange(60) % 7
    assert list(panel({"a": ticks}).series) == ["a"]
    found = panel({"a": ticks, "gold": walk(1)})
    assert list(found.series) == ["gold"]
    assert found.findings.left_out["a"] == "a few small whole numbers, as of kinds or counts"

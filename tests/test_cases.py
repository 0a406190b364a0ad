"""Each file of tests/cases is read right, or refused with the line that its table demands.

The numbers here were read off the files with an editor and awk, not with the code under test.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import Refused, Right, check, data_of, read, refusal

from tbptt.data.split import load_split
from tbptt.tasks.options import QValues

CASES = Path(__file__).parent / "cases"
DAYS = ("2024-01-02", "2024-06-17")
UP, DOWN = (120, 100.0, 85.94), (120, 99.24, 84.77)
OHL = ("Open", "High", "Low")
REVERSED = r"newest first|revers"
KLINES = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
NOT_CLOSE = tuple(name for name in KLINES if name not in ("open_time", "close"))
HOURS = ("2023-10-27T00:00", "2023-10-31T23:00")

TABLE: dict[str, Right | Refused] = {
    "00_reference.csv": Right({"Close": UP}, DAYS, (*OHL, "Volume")),
    "a01_newest_first.csv": Right({"Close": UP}, DAYS, (*OHL, "Volume"), said=(REVERSED,)),
    "a02_yfinance_multi_header.csv": Right(
        {"AAA": UP}, DAYS, ("High AAA", "Low AAA", "Open AAA", "Volume AAA"), said=("header", r"data\.header")
    ),
    "a04_binance_klines_no_header.csv": Refused(
        ("first line holds numbers, not names", r"data\.names"),
        typed={"names": list(KLINES)},
        then=Right({"close": (120, 339.21, 266.52)}, HOURS, NOT_CLOSE),
    ),
    "a05_binance_futures_header.csv": Right(
        {"close": (120, 336.35, 329.62)}, HOURS, NOT_CLOSE, said=(r"\bms\b|milli",)
    ),
    "a08_wide_one_asset_over_1000.csv": Right(
        {"SILVER": (120, 22.96, 20.21), "GOLD": (120, 979.70, 1186.42), "BRENT": (120, 79.06, 79.3)},
        DAYS,
        said=(r"thousands.*data\.thousands",),
    ),
    "a10_ariva_semicolon_decimal_comma.csv": Right(
        {"Schlusskurs": UP},
        DAYS,
        ("Erster", "Hoch", "Tief", "Stuecke", "Volumen"),
        said=(r"';'.*data\.delimiter", r"','.*data\.decimal", REVERSED),
    ),
    "a12_dot_thousands.csv": Refused(
        (r"Terakhir", r"data\.thousands|data\.decimal"),
        typed={"thousands": "."},
        then=Right({"Terakhir": (120, 936, 1087)}, DAYS),
    ),
    # Its times run back at line 50, from 10:55 to 10:00: date and time are put together, and the order is refused.
    "a13b_finam_5min.csv": Refused(
        (r"\b50\b", r"2024-01-03[ T]10:00"),
        typed={"time": "none"},
        then=Right(
            {"<CLOSE>": UP},
            None,
            ("<OPEN>", "<HIGH>", "<LOW>", "<VOL>", "<PER>"),
            either=("<TICKER>", "<DATE>", "<TIME>"),
        ),
    ),
    "a14_mt5_tabs_utf8.csv": Right(
        {"<CLOSE>": UP},
        DAYS,
        ("<OPEN>", "<HIGH>", "<LOW>", "<TICKVOL>", "<VOL>", "<SPREAD>"),
        said=(r"tab.*data\.delimiter",),
    ),
    "a16_nasdaq_dollar.csv": Right({"Close/Last": UP}, DAYS, (*OHL, "Volume"), said=(REVERSED,)),
    "a17_fred_dot_and_negative.csv": Refused(
        ("DCOILWTICO", r"\b11\b", r"data\.gaps"),
        typed={"gaps": "drop"},
        then=Right({"DCOILWTICO": (117, 59.78, 70.46)}, DAYS, warned=(r"DCOILWTICO.*-36\.98",)),
    ),
    "a18_unnamed_0.csv": Right({"close": UP}, DAYS, ("column 1",)),
    "a20_kaggle_bitcoin.csv": Right(
        {"Close": UP},
        ("2014-12-01T05:33", "2014-12-01T07:32"),
        (*OHL, "Volume_(BTC)", "Volume_(Currency)", "Weighted_Price"),
        said=(r"\bs\b|second",),
    ),
    "a21_long_two_tickers.csv": Right(
        {"AAA": (80, 100.0, 88.71), "BBB": (80, 945.54, 883.17)},
        ("2024-01-02", "2024-04-22"),
        said=(r"symbol.*data\.by|data\.by=symbol",),
    ),
    "a22_duplicated_and_unsorted_dates.csv": Refused((r"\b61\b", "2024-02-26")),
    "a24_yf_history_dividends_splits.csv": Right(
        {"Close": UP},
        ("2024-01-02T05:00", "2024-06-17T05:00"),
        (*OHL, "Volume", "Dividends", "Stock Splits"),
        zone="-05:?00",
    ),
    "a25_prices.csv.gz": Right({"Close": UP}, DAYS, (*OHL, "Volume")),
    "p08_partitioned": Right({"px": UP}, None, either=("year",)),
    "a26b_barchart_footer.csv": Right(
        {"Last": UP}, DAYS, (*OHL, "Change", "%Chg", "Volume"), said=(REVERSED, r"data\.footer")
    ),
    "a27i_minus_9999_missing.csv": Right({"a": UP}, None, warned=(r"\b62\b", "-9999", "standard deviations")),
    "a29_header_spaces.csv": Right({"Close": UP}, DAYS, ("Volume",)),
    "a32_only_returns.csv": Right({"Ret": (120, 0.1238, -0.8957)}, DAYS, warned=("Ret.*returns",)),
    "a36_dash_before_listing.csv": Right({"OLD": (120, 99.2, 103.96), "NEW": (50, 29.58, 29.89)}, DAYS),
    "p02_multiindex_columns.parquet": Right(
        {"AAA": UP, "BBB": (120, 48.02, 48.56)}, DAYS, ("Volume AAA", "Volume BBB")
    ),
    "p06_epoch_ms.parquet": Right({"px": UP}, DAYS, said=(r"\bs\b|second",)),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_file_as_people_have_them(name: str) -> None:
    check(CASES / name, TABLE[name])


def test_each_file_is_in_the_table() -> None:
    elsewhere = {"README.md", "a35_halted_after_window.csv"}
    assert {path.name for path in CASES.iterdir()} == TABLE.keys() | elsewhere


def test_every_number_of_a_plain_file_is_the_one_written() -> None:
    lines = (CASES / "00_reference.csv").read_text().splitlines()[1:]
    panel = read(CASES / "00_reference.csv")
    assert panel.series["Close"].prices.tolist() == [float(line.split(",")[4]) for line in lines]
    assert panel.times is not None
    assert panel.times.astype("datetime64[D]").astype(str).tolist() == [line.split(",")[0] for line in lines]
    assert panel.findings.rows == 120
    # other forms of the same file
    same = {
        "a01_newest_first.csv": "Close",
        "a10_ariva_semicolon_decimal_comma.csv": "Schlusskurs",
        "a16_nasdaq_dollar.csv": "Close/Last",
        "a25_prices.csv.gz": "Close",
        "a26b_barchart_footer.csv": "Last",
        "a29_header_spaces.csv": "Close",
    }
    for name, column in same.items():
        other = read(CASES / name)
        np.testing.assert_array_equal(other.series[column].prices, panel.series["Close"].prices, name)
        np.testing.assert_array_equal(other.times, panel.times, name)


@pytest.mark.parametrize(("name", "keys"), [("a01_newest_first.csv", {}), ("00_reference.csv", {"input_window": 3})])
def test_other_columns_of_an_asset_are_inputs_when_named(name: str, keys: dict[str, Any]) -> None:
    lines = sorted((CASES / name).read_text().splitlines()[1:])  # dates sort as text
    panel = read(CASES / name, inputs=["Volume", "High"], **keys)
    assert panel.inputs == ("Volume", "High")
    expected = [[float(line.split(",")[5]), float(line.split(",")[2])] for line in lines]
    assert panel.series["Close"].inputs.tolist() == expected
    assert {"Open", "Low"} == set(panel.findings.left_out)


def test_a_column_that_is_named_is_a_series_whatever_it_looks_like() -> None:
    panel = read(CASES / "00_reference.csv", columns=["Open", "Volume"])
    assert list(panel.series) == ["Open", "Volume"]
    assert panel.series["Volume"].prices[[0, -1]].tolist() == [89428, 70759]
    assert panel.times is not None


def test_what_is_typed_after_a_refusal_reads_the_file() -> None:
    carried = read(CASES / "a17_fred_dot_and_negative.csv", gaps="carry").series["DCOILWTICO"].prices
    assert len(carried) == 120
    assert carried[[8, 9, 10, 70]].tolist() == [65.81, 65.81, 67.44, -36.98]
    dropped = read(CASES / "a17_fred_dot_and_negative.csv", gaps="drop").series["DCOILWTICO"]
    assert dropped.prices[[8, 9]].tolist() == [65.81, 67.44]
    assert dropped.prices.min() == -36.98
    thousands = read(CASES / "a12_dot_thousands.csv", thousands=".").series["Terakhir"].prices
    assert (thousands.min(), thousands[1]) == (915, 944)
    assert (np.abs(np.diff(thousands)) < 100).all()
    for gaps in ("drop", "carry"):  # no way to fill blanks mends an order
        assert "2024-02-26" in refusal(CASES / "a22_duplicated_and_unsorted_dates.csv", gaps=gaps)


def test_minutes_of_two_columns_are_one_time_and_breaks_are_counted(tmp_path: Path) -> None:
    header, *lines = (CASES / "a13b_finam_5min.csv").read_text().splitlines()
    lines.sort(key=lambda line: line.split(",")[2:4])
    path = tmp_path / "sorted.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    panel = read(path)
    (close,) = panel.series.values()
    assert close.prices.tolist() == [float(line.split(",")[7]) for line in lines]
    day, clock = zip(*(line.split(",")[2:4] for line in lines), strict=True)
    stamps = [f"{d[:4]}-{d[4:6]}-{d[6:]}T{t[:2]}:{t[2:4]}:{t[4:]}" for d, t in zip(day, clock, strict=True)]
    np.testing.assert_array_equal(panel.times, np.array(stamps, "datetime64[ns]"))
    assert "<VOL>" in panel.findings.left_out
    named = read(path, time=["<DATE>", "<TIME>"])
    np.testing.assert_array_equal(named.times, panel.times)


def test_a_series_that_stops_is_said_by_name_before_anything_is_written() -> None:
    """Refused or warned of; nothing is trained to find it out."""
    data = data_of(CASES / "a35_halted_after_window.csv", val_fraction=0.2)
    task = QValues(name="q_values", gamma=0.9, fee=1.3, fee_unit="change_std", horizon=5)
    try:
        load_split(data, task)
        lines = list(read(CASES / "a35_halted_after_window.csv").findings.warnings)
    except ValueError as error:
        lines = [str(error)]
    assert [line for line in lines if "HALTED" in line and "AAA" not in line and "\n" not in line]
    assert not read(CASES / "a35_halted_after_window.csv", columns=["AAA"]).findings.warnings


def test_a_gap_in_a_regular_calendar_is_counted(tmp_path: Path) -> None:
    lines = (CASES / "a20_kaggle_bitcoin.csv").read_text().splitlines()  # a row each minute
    path = tmp_path / "gap.csv"
    path.write_text("\n".join(lines[:50] + lines[53:]) + "\n")
    said = read(path).findings
    assert any("gap" in words or "missing" in words for words in (*said.found, *said.warnings)), said
    whole = read(CASES / "a20_kaggle_bitcoin.csv").findings
    assert len(whole.found) + len(whole.warnings) < len(said.found) + len(said.warnings) or whole.found != said.found

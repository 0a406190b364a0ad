"""Files as people have them become tables of the same numbers and names, or one line that says what to type."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from pyarrow import parquet

from tbptt.data.panels.columns import line_of
from tbptt.data.tables import dialect, raw_text
from tbptt.data.tables.files import Form, Table, read_table
from tbptt.data.tables.foreign import FOREIGN
from tbptt.system import memory

CASES = Path(__file__).parent / "cases"
DATED = "Date,A\n2024-01-02,1.5\n2024-01-03,1.6\n"


def reference() -> dict[str, list[str]]:
    with (CASES / "00_reference.csv").open() as file:
        rows = list(csv.reader(file))
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}


REFERENCE = reference()
PRICES = {name: [float(v) for v in REFERENCE[name]] for name in ("Open", "High", "Low", "Close", "Volume")}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """A function that writes a text and reads it."""

    def write_and_read(text: str | bytes, name: str = "x.csv", **form: Any) -> Table:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, Form(**form))

    return write_and_read


@pytest.fixture
def refused(read: Any, tmp_path: Path) -> Any:
    """A function that writes a text and gives the line that refuses it, without the folder."""

    def line(text: str | bytes, name: str = "x.csv", **form: Any) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011 -- the test looks at the whole line
            read(text, name, **form)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(str(tmp_path / name))
        return str(error.value).replace(str(tmp_path) + "/", "")

    return line


def of(table: Table) -> dict[str, list[Any]]:
    """The columns as plain lists, a blank as None."""
    return {name: [None if pd.isna(v) else v for v in column] for name, column in table.frame.items()}


def same(table: Table, **columns: str) -> None:
    """Each named column of the table has the numbers of the reference's column."""
    for name, ours in columns.items():
        assert table.frame[name].tolist() == PRICES[ours], name


# The cases, against the well-formed file.


def test_the_well_formed_file_has_nothing_to_say() -> None:
    table = read_table(CASES / "00_reference.csv")
    same(table, Open="Open", High="High", Low="Low", Close="Close", Volume="Volume")
    assert table.frame["Date"].tolist() == REFERENCE["Date"]
    assert (table.frame["Close"].dtype, table.frame["Volume"].dtype) == (np.float64, np.int64)
    assert (table.found, table.warnings, table.percent, table.levels, table.index) == ((), (), (), {}, ())
    assert (table.lines, line_of(table, 0), line_of(table, 119)) == (2, "line 2", "line 121")


def test_header_levels_of_yfinance_are_read_with_their_names() -> None:
    table = read_table(CASES / "a02_yfinance_multi_header.csv")
    same(table, **{"Close AAA": "Close", "High AAA": "High", "Volume AAA": "Volume"})
    assert list(table.frame) == ["Date", "Close AAA", "High AAA", "Low AAA", "Open AAA", "Volume AAA"]
    assert table.levels["Close AAA"] == ("Close", "AAA")
    assert table.found == ("3 header lines (data.header)",)
    assert line_of(table, 0) == "line 4"


def test_decimal_commas_are_told_from_thousands_by_the_delimiter() -> None:
    table = read_table(CASES / "a10_ariva_semicolon_decimal_comma.csv")
    newest_first = table.frame[::-1].reset_index(drop=True)
    assert newest_first["Schlusskurs"].tolist() == PRICES["Close"]
    assert newest_first["Erster"].tolist() == PRICES["Open"]
    assert newest_first["Stuecke"].tolist() == PRICES["Volume"]
    assert table.found == (
        "delimiter ';' (data.delimiter)",
        "decimal ',' (data.decimal)",
        "'85,510' in column Erster is 85.510 (data.thousands=',' if it is not)",
    )


def test_a_column_that_mixes_936_and_1_087_is_refused_and_read_by_either_key() -> None:
    path = CASES / "a12_dot_thousands.csv"
    with pytest.raises(ValueError, match=r"column Terakhir") as error:
        read_table(path)
    assert str(error.value) == (
        f"{path}, column Terakhir, line 48: '1.003' beside '936' is 1003 or 1.003; "
        "type data.thousands=. or data.decimal=."
    )
    by_thousands = read_table(path, Form(thousands=".")).frame["Terakhir"]
    assert (by_thousands[0], by_thousands[46], by_thousands[119]) == (936, 1003, 1087)
    assert by_thousands.diff().abs().max() < 50
    assert read_table(path, Form(decimal=".")).frame["Terakhir"][46] == 1.003


def test_a_file_without_names_is_refused_and_read_with_given_ones() -> None:
    path = CASES / "a04_binance_klines_no_header.csv"
    with pytest.raises(ValueError, match="names") as error:
        read_table(path)
    assert str(error.value) == (
        f"{path}: the first line holds numbers, not names; name the columns: 'data.names=[a,b,…]' "
        "(12 columns; if these are names: data.header=1)"
    )
    names = ("time", "open", "high", "low", "close", "volume", "until", "quote", "count", "base", "taker", "ignore")
    table = read_table(path, Form(names=names))
    assert list(table.frame) == list(names)
    assert table.frame["close"].tolist()[:2] == [339.21, 339.53]
    assert table.frame["time"].dtype == np.int64
    assert (line_of(table, 0), len(table.frame)) == ("line 1", 120)
    with pytest.raises(ValueError, match=r"has 12 columns, but data\.names has 2 names"):
        read_table(path, Form(names=("a", "b")))


def test_signs_footers_blanks_and_spaces_of_the_cases() -> None:
    nasdaq = read_table(CASES / "a16_nasdaq_dollar.csv").frame[::-1]
    assert nasdaq["Close/Last"].tolist() == PRICES["Close"]
    barchart = read_table(CASES / "a26b_barchart_footer.csv")
    assert barchart.frame["Last"][::-1].tolist() == PRICES["Close"]
    assert barchart.percent == ("%Chg",)
    assert barchart.frame["%Chg"][:3].tolist() == [0.5, 0.0, 0.04]
    assert barchart.found == (
        "1 line at the end left out: 'Downloaded from Barchart.com as of 06-14…' (data.footer)",
        "% signs of %Chg left out: 1.5% is 1.5",
    )
    gold = read_table(CASES / "a08_wide_one_asset_over_1000.csv")
    assert gold.frame["GOLD"][:3].tolist() == [979.70, 992.40, 1000.01]
    assert gold.found == ("thousands ',' (data.thousands)",)
    oil = read_table(CASES / "a17_fred_dot_and_negative.csv").frame["DCOILWTICO"]
    with (CASES / "a17_fred_dot_and_negative.csv").open() as file:
        written = [line.strip().split(",")[1] for line in file][1:]
    assert [None if np.isnan(v) else v for v in oil] == [None if v == "." else float(v) for v in written]
    assert oil.isna().any()
    assert (oil < 0).any()
    dashes = read_table(CASES / "a36_dash_before_listing.csv").frame
    assert np.isnan(dashes["NEW"][0])
    assert dashes["NEW"][119] == 29.89
    same(read_table(CASES / "a29_header_spaces.csv"), Close="Close", Volume="Volume")
    index = read_table(CASES / "a18_unnamed_0.csv")
    assert index.frame["column 1"].tolist() == list(range(120))
    tabs = read_table(CASES / "a14_mt5_tabs_utf8.csv")
    same(tabs, **{"<CLOSE>": "Close"})
    assert tabs.found == ("delimiter tab (data.delimiter)",)
    same(read_table(CASES / "a25_prices.csv.gz"), Close="Close")
    assert read_table(CASES / "a32_only_returns.csv").percent == ("Ret",)


def test_parquet_cases() -> None:
    levels = read_table(CASES / "p02_multiindex_columns.parquet")
    same(levels, **{"Close AAA": "Close", "Volume AAA": "Volume"})
    assert levels.levels["Close BBB"] == ("Close", "BBB")
    assert levels.index == ("column 1",)
    assert levels.frame["column 1"].dt.strftime("%Y-%m-%d").tolist() == REFERENCE["Date"]
    assert levels.lines is None
    assert line_of(levels, 3) == "row 4"
    folder = read_table(CASES / "p08_partitioned")
    parts = [pd.read_parquet(path) for path in sorted((CASES / "p08_partitioned").rglob("*.parquet"))]
    assert folder.frame["px"].tolist() == [v for part in parts for v in part["px"]]
    assert folder.found == ("column year left out: the names of folders (year=2023) that sort the rows by time",)


# Exports of other sites and programs: the text, then columns, what was found, and the line of the first row.

EXPORTS: dict[str, tuple[Any, dict[str, list[Any]], tuple[str, ...], int]] = {
    "yfinance, several tickers": (
        "Price,Close,Close,Volume\nTicker,AAPL,MSFT,AAPL\nDate,,,\n2024-01-02,185.64,370.87,82488700\n"
        "2024-01-03,184.25,,58414500\n",
        {"Close AAPL": [185.64, 184.25], "Close MSFT": [370.87, None], "Volume AAPL": [82488700, 58414500]},
        ("3 header lines (data.header)",),
        4,
    ),
    "investing.com": (
        '\ufeff"Date","Price","Vol.","Change %"\n"06/17/2024","1,234.50","1.23M","+0.50%"\n'
        '"06/14/2024","999.50","-","-0.15%"\n"06/13/2024","998.00","856.20K","0.00%"\n',
        {"Price": [1234.5, 999.5, 998], "Vol.": [1230000, None, 856200], "Change %": [0.5, -0.15, 0]},
        (
            "thousands ',' (data.thousands)",
            "'1.23M' in column Vol. is 1230000",
            "% signs of Change % left out: 1.5% is 1.5",
        ),
        2,
    ),
    "investing.com in German": (
        '"Datum","Zuletzt","Vol."\n"17.06.2024","1.234,50","1,23M"\n"14.06.2024","999,50",""\n',
        {"Datum": ["17.06.2024", "14.06.2024"], "Zuletzt": [1234.5, 999.5], "Vol.": [1230000, None]},
        ("decimal ',' (data.decimal)", "thousands '.' (data.thousands)", "'1,23M' in column Vol. is 1230000"),
        2,
    ),
    "Bundesbank": (
        '"";BBEX3.USD;BBEX3.USD_FLAGS\n"";"Euro-Referenzkurs";\nEinheit;USD;\nDimension;Eins;\nStand vom;2024-06-17;\n'
        "1999-01-02;.;Kein Wert vorhanden\n1999-01-04;1,1789;\n1999-01-05;1,1790;\n",
        {"column 1": ["1999-01-02", "1999-01-04", "1999-01-05"], "BBEX3.USD": [None, 1.1789, 1.179]},
        (
            "delimiter ';' (data.delimiter)",
            "decimal ',' (data.decimal)",
            "4 lines under the names left out: 'Euro-Referenzkurs' (data.header)",
        ),
        6,
    ),
    "ECB": (
        "Date,USD,JPY,\n2024-06-17,1.0712,169.3,\n2024-06-14,1.0686,N/A,\n",
        {"Date": ["2024-06-17", "2024-06-14"], "USD": [1.0712, 1.0686], "JPY": [169.3, None]},
        (),
        2,
    ),
    "MetaTrader 5, UTF-16": (
        "<DATE>\t<TIME>\t<CLOSE>\t<VOL>\r\n2024.01.02\t00:00:00\t1.10427\t0\r\n2024.01.02\t00:01:00\t1.1045\t3\r\n".encode(
            "utf-16"
        ),
        {"<DATE>": ["2024.01.02"] * 2, "<CLOSE>": [1.10427, 1.1045], "<VOL>": [0, 3]},
        ("encoding utf-16 (data.encoding)", "delimiter tab (data.delimiter)"),
        2,
    ),
    "UTF-16 without a mark": (
        "Date;A\n2024-01-02;1.5\n2024-01-03;1.6\n".encode("utf-16-be"),
        {"A": [1.5, 1.6]},
        ("encoding utf-16-be (data.encoding)", "delimiter ';' (data.delimiter)"),
        2,
    ),
    "comdirect, cp1252": (
        "Datum;Eröffnung;Schluss;Stücke\r\n02.01.2024;1.234,5;1.230,25;12.345\r\n03.01.2024;999;999,25;345\r\n".encode(
            "cp1252"
        ),
        {"Eröffnung": [1234.5, 999], "Schluss": [1230.25, 999.25], "Stücke": [12345, 345]},
        (
            "encoding cp1252 (data.encoding)",
            "delimiter ';' (data.delimiter)",
            "decimal ',' (data.decimal)",
            "thousands '.' (data.thousands)",
        ),
        2,
    ),
    "cp1251": (
        "Дата;Цена;Объём\n02.01.2024;274,5;1 234 567\n03.01.2024;275,5;234 567\n".encode("cp1251"),
        {"Цена": [274.5, 275.5], "Объём": [1234567, 234567]},
        (
            "encoding cp1251 (data.encoding)",
            "delimiter ';' (data.delimiter)",
            "decimal ',' (data.decimal)",
            "thousands space (data.thousands)",
        ),
        2,
    ),
    "R's write.table": (
        '"Date" "Open" "Adj Close"\n"1" "2024-01-02" 100.5 99.1\n"2" "2024-01-03" 101.5 NA\n',
        {"column 1": [1, 2], "Date": ["2024-01-02", "2024-01-03"], "Open": [100.5, 101.5], "Adj Close": [99.1, None]},
        ("delimiter space (data.delimiter)",),
        2,
    ),
    "R's write.table of dates": (
        '"Open" "Close"\n"2024-01-02" 100.5 99.1\n"2024-01-03" 101.5 98\n',
        {"column 1": ["2024-01-02", "2024-01-03"], "Open": [100.5, 101.5], "Close": [99.1, 98]},
        ("delimiter space (data.delimiter)",),
        2,
    ),
    "Excel": (
        "sep=;\nDatum;Kurs\n02.01.2024;100,5\n03.01.2024;99,25\n;\n;\n",
        {"Datum": ["02.01.2024", "03.01.2024"], "Kurs": [100.5, 99.25]},
        ("delimiter ';' (data.delimiter)", "decimal ',' (data.decimal)"),
        3,
    ),
    "Bloomberg": (
        "AAPL US Equity,,IBM US Equity,\nDate,PX_LAST,Date,PX_LAST\n1/2/2024,185.64,1/2/2024,161.5\n"
        "1/3/2024,184.25,1/3/2024,#N/A N/A\n",
        {"AAPL US Equity PX_LAST": [185.64, 184.25], "IBM US Equity PX_LAST": [161.5, None]},
        ("2 header lines (data.header)",),
        3,
    ),
    "lines before the header": (
        "Security,AAPL US Equity\nStart Date,1/2/2024\n\nDate,PX_LAST,PX_VOLUME\n1/2/2024,18.5,123\n1/3/2024,9.5,55\n",
        {"PX_LAST": [18.5, 9.5], "PX_VOLUME": [123, 55]},
        ("2 lines before the header left out: 'Security AAPL US Equity' (data.header)",),
        5,
    ),
    "a title of the same width": (
        "My export,,\nDate,Open,Close\n2024-01-02,1.5,2.5\n2024-01-03,1.5,2.5\n",
        {"Open": [1.5, 1.5], "Close": [2.5, 2.5]},
        ("1 line before the header left out: 'My export' (data.header)",),
        3,
    ),
    "FRED's text": (
        "Title:       Crude Oil\nUnits:       Dollars per Barrel\n\nDATE          VALUE\n1986-01-02    25.56\n"
        "1986-01-03    26.00\n1986-01-06    .\n",
        {"DATE": ["1986-01-02", "1986-01-03", "1986-01-06"], "VALUE": [25.56, 26, None]},
        ("delimiter space (data.delimiter)", "2 lines before the header left out: 'Title: Crude Oil' (data.header)"),
        5,
    ),
    "NSE": (
        '"Date ","OPEN ","close "\n"17-Jun-2024","23,570.80","1,23,465.60"\n"14-Jun-2024","23,464.95","965.60"\n',
        {"Date": ["17-Jun-2024", "14-Jun-2024"], "OPEN": [23570.8, 23464.95], "close": [123465.6, 965.6]},
        ("thousands ',' (data.thousands)",),
        2,
    ),
    "apostrophes": (
        "Datum;Kurs\n02.01.2024;11'134.50\n03.01.2024;999.25\n",
        {"Kurs": [11134.5, 999.25]},
        ("delimiter ';' (data.delimiter)", 'thousands "\'" (data.thousands)'),
        2,
    ),
    "narrow blanks": (
        "Date;Clôture\n02/01/2024;1\u202f134,50 €\n03/01/2024;999,25 €\n",
        {"Clôture": [1134.5, 999.25]},
        ("delimiter ';' (data.delimiter)", "decimal ',' (data.decimal)", "thousands space (data.thousands)"),
        2,
    ),
    "pipes": (
        "Date|A\n2024-01-02|1.5\n2024-01-03|1.6\n",
        {"A": [1.5, 1.6]},
        ("delimiter '|' (data.delimiter)",),
        2,
    ),
    "NumPy's savetxt": (
        "# t a b\n1.0 2.5 3.5\n2.0 2.6 3.6\n",
        {"t": [1, 2], "a": [2.5, 2.6], "b": [3.5, 3.6]},
        ("delimiter space (data.delimiter)",),
        2,
    ),
    "one column of decimal commas": (
        "Kurs\n100,5\n99,25\n101,125\n",
        {"Kurs": [100.5, 99.25, 101.125]},
        ("decimal ',' (data.decimal)",),
        2,
    ),
    "one column of blanks and decimal commas": (
        "Kurs\n1 234,5\n1 235,5\n",
        {"Kurs": [1234.5, 1235.5]},
        ("decimal ',' (data.decimal)", "thousands space (data.thousands)"),
        2,
    ),
    "old Mac": ("Date,A\r2024-01-02,1.5\r2024-01-03,1.6\r", {"A": [1.5, 1.6]}, (), 2),
    "names that are numbers": (
        "Date,7203,9984\n2024-01-02,2500.5,6300\n2024-01-03,2510,6310\n",
        {"7203": [2500.5, 2510], "9984": [6300, 6310]},
        (),
        2,
    ),
    "Finam": (
        "<TICKER>;<DATE>;<TIME>;<CLOSE>\nNA;20240103;000500;274.5600000\nSBER;20240104;101000;274.1000000\n",
        {"<TICKER>": ["NA", "SBER"], "<DATE>": [20240103, 20240104], "<TIME>": ["000500", "101000"],
         "<CLOSE>": [274.56, 274.1]},
        ("delimiter ';' (data.delimiter)",),
        2,
    ),
    "blanks after commas, before quotes": (
        'Date, Close, V\n2024-01-02, "1,000.5", 5\n2024-01-03, "999.5", 6\n',
        {"Close": [1000.5, 999.5], "V": [5, 6]},
        ("thousands ',' (data.thousands)",),
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPORTS)
def test_exports_are_read_as_they_are(kind: str, read: Any) -> None:
    text, columns, found, line = EXPORTS[kind]
    table = read(text)
    assert {name: of(table).get(name) for name in columns} == columns
    assert table.found == found
    assert line_of(table, 0) == f"line {line}"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Höhe,A\n1,2\n", "cp1252"),
        ("Date;Close (€)\n2024-01-02;1.5\n", "cp1252"),
        ("Data;Otwarcie;Najwyższy;Najniższy;Zamknięcie\n2024-01-02;1;2;3;4\n", "cp1250"),
        ("日付,始値,高値,安値,終値\n2024/01/02,100,101,99,100\n", "shift_jis"),
    ],
)
def test_encodings_are_told_from_a_few_letters(text: str, encoding: str, read: Any) -> None:
    table = read(text.encode(encoding))
    assert list(table.frame) == text.split("\n")[0].replace(";", ",").split(",")
    assert table.found[0] == f"encoding {encoding} (data.encoding)"


# Numbers.

WRITTEN: list[tuple[str, float | None]] = [
    ("$85.94", 85.94), ("-$1.5", -1.5), ("$-1.5", -1.5), ("(2.5)", -2.5), ("($2.50)", -2.5), ("+0.5", 0.5),
    ("−0.5", -0.5), ("US$ 5.5", 5.5), ("USD 1.5", 1.5), ("1.5 EUR", 1.5), ("€ 1.5", 1.5), ("₹1,234.5", 1234.5),
    ("1.5K", 1500), ("1.5k", 1500), ("2.25M", 2250000), ("0.1B", 100000000), ("1.5e-05", 0.000015), ("1.5E3", 1500),
    (".5", 0.5), ("5.", 5), ("-", None), ("--", None), ("n/a", None), ("#N/A N/A", None), ("null", None), ("NaN", None),
    ("#VALUE!", None), ("None", None), ("inf", np.inf), ("-Infinity", -np.inf), ("  7.5  ", 7.5), ("1.5%", 1.5),
]  # fmt: skip


def test_each_way_to_write_a_number_has_its_value(read: Any) -> None:
    text = "Date;A\n" + "".join(f'2024-01-02;"{written}"\n' for written, _ in WRITTEN) + "2024-01-02;9.75\n"
    table = read(text)
    assert of(table)["A"] == [value for _, value in WRITTEN] + [9.75]
    assert table.frame["A"].dtype == np.float64
    assert table.warnings == ("column A mixes currencies: $, EUR, US$, USD, €, ₹",)


def test_each_number_alone_has_its_value(read: Any) -> None:
    for written, value in WRITTEN:
        table = read(f'Date;A\n2024-01-02;9.75\n2024-01-03;"{written}"\n')
        assert of(table)["A"] == [9.75, value], written


@pytest.mark.parametrize(
    ("cells", "delimiter", "values"),
    [
        (["979.70", "1,003"], ",", [979.7, 1003]),  # the point makes the comma clear
        (["1,234,567", "1,234"], ",", [1234567, 1234]),  # two separators are thousands
        (["1.234.567", "936"], ";", [1234567, 936]),
        (["12,5", "1,234"], ",", [12.5, 1.234]),  # not three digits behind it
        (["0,123", "1,234"], ",", [0.123, 1.234]),  # no number of thousands begins with 0
        (["1234,567", "1,234"], ",", [1234.567, 1.234]),
        (["12345", "1,234"], ",", [12345, 1.234]),  # a whole number without a separator
        (["140.873", "140.900"], ",", [140.873, 140.9]),
        (["1.234,5", "1.234"], ";", [1234.5, 1234]),
        (["9.5", "1.087", "936"], ",", [9.5, 1.087, 936]),
    ],
)
def test_separators_are_told_by_the_other_values(
    cells: list[str], delimiter: str, values: list[float], read: Any
) -> None:
    table = read(f"Date{delimiter}A\n" + "".join(f'2024-01-02{delimiter}"{cell}"\n' for cell in cells))
    assert of(table)["A"] == values


def test_clear_values_of_one_column_hold_for_the_others(read: Any) -> None:
    table = read('Date,A,B\n2024-01-02,0.5,"1,003"\n2024-01-03,0.25,936\n')
    assert of(table)["B"] == [1003, 936]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('D,A\n2024-01-02,"85,510"\n2024-01-03,"85,610"\n', "x.csv, column A, line 2: '85,510' is 85510 or 85.510; "
         "type data.thousands=',' or data.decimal=','"),
        ("D;A\n2024-01-02;99,600\n2024-01-03;100,030\n", "x.csv, column A, line 2: '99,600' is 99600 or 99.600; "
         "type data.thousands=',' or data.decimal=','"),
        ("D;A;Year\n20240102;30.054;2024\n20240103;30.108;2024\n", "x.csv, column A, line 2: '30.054' is 30054 or "
         "30.054; type data.thousands=. or data.decimal=."),
        ("D;A\n2024-01-02;936\n2024-01-03;1,087\n", "x.csv, column A, line 3: '1,087' beside '936' is 1087 or 1.087; "
         "type data.thousands=',' or data.decimal=','"),
        # Other columns say that the point is a decimal one; a fall to a thousandth is none for that.
        ("D,A,B\n2024-01-02,936,0.5\n2024-01-03,1.087,0.25\n", "x.csv, column A, line 3: '1.087' beside '936' is 1087 "
         "or 1.087; type data.thousands=. or data.decimal=."),
        ("D;A;B\n2024-01-02;1,5;2.5\n", "x.csv, column A, line 2: '1,5' has decimal ',', but column B, line 2: '2.5' "
         "has decimal '.'; type data.decimal=',' or data.decimal=."),
        ("D;A;B\n2024-01-02;1,234;2.345\n", "x.csv, column A, line 2: '1,234' is 1234 or 1.234; type "
         "data.thousands=',' or data.decimal=','"),
        ("D;A;B\n2024-01-02;1.234.567;2.5\n", "x.csv, column A, line 2: '1.234.567' does not fit decimal '.' and "
         "thousands 'none'; data.decimal and data.thousands say what is right"),
    ],
)  # fmt: skip
def test_what_has_two_readings_is_refused_with_the_key_of_each(text: str, line: str, refused: Any) -> None:
    assert refused(text) == line


def test_what_comes_late_in_a_file_counts(read: Any, refused: Any) -> None:
    """Thousands, and numbers with two readings, that first come thousands of rows behind the beginning."""
    many = "".join(f"2024-01-02,{i % 900 / 10}\n" for i in range(3000))
    table = read(f'D,A\n{many}2024-01-02,"1,003.5"\n')
    assert table.frame["A"].tolist() == [i % 900 / 10 for i in range(3000)] + [1003.5]
    whole = "".join(f"2024-01-02,{100 + i % 900}\n" for i in range(3000))
    assert refused(f"D,A\n{whole}2024-01-02,1.003\n") == (
        "x.csv, column A, line 3002: '1.003' beside '100' is 1003 or 1.003; type data.thousands=. or data.decimal=."
    )


@pytest.mark.parametrize("point", ",.")
def test_whole_numbers_without_a_separator_tell_that_there_is_none(point: str, read: Any) -> None:
    table = read(f"D;A;Volume\n2024-01-02;99{point}600;70759\n2024-01-03;100{point}030;812\n")
    assert of(table)["A"] == [99.6, 100.03]
    assert any(f"'99{point}600' in column A is 99.600 (data.thousands=" in each for each in table.found)


@pytest.mark.parametrize("units", [",USD,USD,shares", "-,EUR,,", "Units,(USD),%,[lots]"])
def test_a_line_of_units_is_no_part_of_the_names(units: str, read: Any) -> None:
    table = read(f"Date,A,B,Volume\n{units}\n2024-01-02,1.5,2.5,100\n2024-01-03,1.6,2.6,200\n")
    assert table.frame.columns.tolist() == ["Date", "A", "B", "Volume"]
    assert table.levels == {}
    assert table.lines == 3
    assert [each for each in table.found if "left out" in each] == [
        f"1 line under the names left out: '{units.replace(',', ' ').strip()}' (data.header)"
    ]


def test_lines_of_tickers_and_names_that_need_the_second_line_stay(read: Any) -> None:
    rows = "2024-01-02,1.5,2.5\n2024-01-03,1.6,2.6\n"
    assert read("Date,Close,Close\n,USD,EUR\n" + rows).frame.columns.tolist()[1:] == ["Close USD", "Close EUR"]
    assert read("Date,Close,Open\n,BTC,BTC\n" + rows).frame.columns.tolist()[1:] == ["Close BTC", "Open BTC"]


def test_keys_come_before_what_would_be_found(read: Any) -> None:
    assert of(read("D;A\n2024-01-02;99,600\n", thousands=","))["A"] == [99600]
    assert of(read("D;A\n2024-01-02;99,600\n", decimal=","))["A"] == [99.6]
    assert of(read('D,A\n2024-01-02,"99,600"\n', thousands="none"))["A"] == [99.6]
    assert read("a;b,c;d\n1;2,3;4\n", delimiter=",").frame.columns.tolist() == ["a;b", "c;d"]
    assert read("Höhe,A\n1,2\n".encode("cp1250"), encoding="cp1250").found == ()
    table = read("A,B\nC,D\n1,2\n3,4\n", header=1)
    assert of(table) == {"A": ["C", "1", "3"], "B": ["D", "2", "4"]}
    assert of(read(DATED + "2024-01-04,1.7\n", footer=1))["A"] == [1.5, 1.6]
    footer = read(DATED + "end,of it\n", footer=0)
    assert of(footer)["A"] == ["1.5", "1.6", "of it"]
    assert of(read("1,2\n3,4\n", header=0)) == {"column 1": [1, 3], "column 2": [2, 4]}
    assert of(read("Close,Close\n1,2\n", header=1, names=("a", "b"))) == {"a": [1], "b": [2]}


def test_columns_are_whole_numbers_only_without_blanks_and_leading_zeros(read: Any) -> None:
    frame = read("D,A,B,C,E\nx,1,1,007,2.0\ny,2,,120,3.0\n").frame
    assert frame["A"].dtype == np.int64
    assert frame["B"].dtype == np.float64
    assert frame["C"].tolist() == ["007", "120"]
    assert frame["E"].dtype == np.float64


def test_a_mistake_in_a_column_leaves_it_as_text(read: Any) -> None:
    table = read("Date,Close,Note\n2024-01-02,1.5,x\n2024-01-03,-,1\n2024-01-04,1.5x,y\n2024-01-05,1.6,z\n")
    assert table.frame["Close"].tolist() == ["1.5", "-", "1.5x", "1.6"]
    assert line_of(table, 2) == "line 4"


def test_mixed_signs_are_warned_of(read: Any) -> None:
    assert read("D,A\nx,$1.5\ny,€2.5\n").warnings == ("column A mixes currencies: $, €",)
    table = read("D,A\nx,1.5%\ny,0.02\nz,0.00\n")
    assert table.warnings == ("column A mixes numbers with a % sign and without one",)
    assert read("D,A\nx,1.5%\ny,0.00\n").warnings == ()


# Rows, lines and names.


def test_lines_are_counted_as_an_editor_does(read: Any) -> None:
    blank = read("Date,A\n\n2024-01-02,1.5\n\n\n2024-01-03,1.6\n")
    assert [line_of(blank, i) for i in range(2)] == ["line 3", "line 6"]
    quoted = read('Date,Note,A\n2024-01-02,"a\nb",1.5\n2024-01-03,"x, y",1.6\n')
    assert [line_of(quoted, i) for i in range(2)] == ["line 2", "line 4"]
    assert of(quoted)["Note"] == ["a\nb", "x, y"]
    gap = read("a\n100.5\n\n99.25\n\n\n")
    assert of(gap)["a"] == [100.5, None, 99.25]
    assert gap.lines == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("D,A\n2024-01-02,1\n2024-01-03,1,5\n2024-01-04,1\n", "x.csv, line 3 has 3 cells, but there are 2 columns "
         "(data.delimiter is ',')"),
        ("D,A,B\n2024-01-02,1,2\n\n2024-01-03,1,2\n2024-01-04,3", "x.csv, line 5 has 2 cells, but there are 3 columns "
         "(data.delimiter is ',')"),
        # 100,5 in a file whose delimiter is the comma, too: R's row names would make 5 of it.
        ("Date,Close\n2024-01-02,100,5\n2024-01-03,101,5\n", "x.csv, line 2 has 3 cells, but the header names 2"),
        ("Date Close\n2024-01-02 1 234.5\n2024-01-03 1 235.5\n",
         "x.csv, line 2 has 3 cells, but the header names 2"),
        ("Kurs\n1 234.5\n1 235.5\n", "x.csv, line 2 has 2 cells, but the header names 1"),
        ("D,A,B,C\n2024-01-02,1,2\n2024-01-03,1,2\n", "x.csv, line 1 has 4 cells, but line 2 has 3"),
        ("Date,Close,Close\n2024-01-02,1,2\n", "x.csv has 2 columns named Close (2, 3); give them other names: "
         "data.header=1 'data.names=[a,b,…]' (3 columns)"),
        ("Date,Close\n", "x.csv has a header line and no rows"),
        ("\n  \n\n", "x.csv is empty"),
        ('"', "x.csv holds no table"),
        ("# a comment, alone", "x.csv has a header line and no rows"),
        ("#nothing\n#else\n", "x.csv holds no table"),
        ("", "x.csv is empty"),
    ],
)  # fmt: skip
def test_rows_and_names_that_do_not_fit_are_refused(text: str, line: str, refused: Any) -> None:
    assert refused(text) == line


def test_names_over_a_line_of_names_are_refused(refused: Any) -> None:
    assert refused(DATED, names=("a", "b")) == (
        "x.csv: the first line holds names (Date, A); add data.header=1 for data.names to stand in their place"
    )


def test_missing_files_and_folders_without_parquet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.csv does not exist$"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"is a folder without Parquet files$"):
        read_table(tmp_path)


# What a file is packed in, and what is no table.


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.csv", content)
    return buffer.getvalue()


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
    "zip": lambda raw: zipped(a=raw),
}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("named", [True, False])
def test_packed_files_are_read_by_their_first_bytes(suffix: str, named: bool, read: Any) -> None:
    table = read(PACKERS[suffix](DATED.encode()), f"x.csv.{suffix}" if named else "x")
    assert of(table) == {"Date": ["2024-01-02", "2024-01-03"], "A": [1.5, 1.6]}


def test_archives_of_several_files_and_damaged_ones_are_refused(refused: Any) -> None:
    several = refused(zipped(a=b"x", b=b"y"), "x.zip")
    assert several == "x.zip cannot be read: it holds 2 files (a.csv, b.csv); unpack it and name one of them"
    whole = gzip.compress(np.random.default_rng(0).bytes(3000).hex().encode())
    assert refused(whole[:1000], "x.csv.gz").startswith("x.csv.gz cannot be read: ")


def test_other_kinds_are_refused_by_name(refused: Any) -> None:
    for suffixes, reason in FOREIGN.items():
        for suffix in suffixes.split():
            assert refused(b"anything", f"x{suffix}") == f"x{suffix} {reason}"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (bytes(range(256)) * 20, "x.csv cannot be read: it is no text"),
        (b"\x80\x04\x95abc", "x.csv is a pickle, which can run code when it is read; where it comes from you, write it "
         "as Parquet: frame.to_parquet('prices.parquet')"),
        (b"<!DOCTYPE html><html>", "x.csv is a page or XML; save its table as CSV"),
        (b'[{"a": 1}]', "x.csv is JSON; write its table as CSV: pandas.read_json(path).to_csv('prices.csv')"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "x.csv is a pointer of Git LFS, not the file "
         "itself; get it with: git lfs pull"),
        (zipped(**{"[Content_Types].xml": b""}).replace(b".xml.csv", b".xml"), None),
    ],
)  # fmt: skip
def test_other_kinds_are_known_by_their_first_bytes(content: bytes, line: str | None, refused: Any) -> None:
    found = refused(content)
    assert line is None or found == line


def test_a_database_without_its_suffix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices"
    with sqlite3.connect(path) as database:
        database.execute("create table a (b)")
    database.close()
    with pytest.raises(ValueError, match=r"is a database; write its table as CSV or Parquet$"):
        read_table(path)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    read: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Date,A\n" + "2024-01-02,1.5\n" * 100_000
    packed = gzip.compress(text.encode())
    monkeypatch.setattr(memory, "free_memory", lambda: 3_000_000)
    monkeypatch.setattr(raw_text, "free_memory", lambda: 3_000_000)
    expected = (
        "x.csv cannot be read: it needs about 0.0 GB of memory, and 0.0 GB are free; about 25% of its rows would fit"
    )
    assert refused(text) == expected
    assert "of its rows would fit" in refused(packed, "x.csv.gz")
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    assert len(read(packed, "x.csv.gz").frame) == 100_000


# Parquet.


def test_parquet_keeps_kinds_and_restores_the_index(tmp_path: Path) -> None:
    table = pa.table(
        {
            "price": pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
            "single": pa.array([1.5, 2.5], pa.float32()),
            "count": pa.array([1, None], pa.int32()),
            "whole": pa.array([1, 2], pa.uint16()),
            "day": pa.array([19000, 19001], pa.date32()),
            "time": pa.array([0, 60_000_000_000], pa.timestamp("ns", "America/New_York")),
            "clock": pa.array([34_200, 34_260], pa.time32("s")),
            "ticker": pa.array(["AAA", "BBB"]).dictionary_encode(),
            "large": pa.array(["x", None], pa.large_string()),
            "text": pa.array(["67123.45", "7.5"]),
            "code": pa.array(["0700", "9988"]),
            "open": pa.array([True, False]),
            "list": pa.array([[1], [2]]),
        }
    )
    parquet.write_table(table, tmp_path / "x")  # its first bytes say what it is
    read = read_table(tmp_path / "x")
    frame = read.frame
    assert of(read) | {"day": None, "time": None} == {
        "price": [1.25, None], "single": [1.5, 2.5], "count": [1, None], "whole": [1, 2], "day": None, "time": None,
        "clock": ["09:30:00", "09:31:00"], "ticker": ["AAA", "BBB"], "large": ["x", None], "text": [67123.45, 7.5],
        "code": ["0700", "9988"], "open": [True, False],
    }  # fmt: skip
    assert [str(frame[name].dtype) for name in ("price", "single", "count", "whole")] == ["float64"] * 3 + ["int64"]
    assert frame["open"].dtype == bool
    assert frame["day"].dt.strftime("%Y-%m-%d").tolist() == ["2022-01-08", "2022-01-09"]
    assert str(frame["time"].dt.tz) == "America/New_York"
    assert frame["time"].iloc[1].isoformat() == "1969-12-31T19:01:00-05:00"
    assert read.found == ("column list left out: it holds list<element: int64>, which is no number, time or text",)
    indexed = pd.DataFrame({"px": [1.5, 2.5]}, pd.DatetimeIndex(["2024-01-02", "2024-01-03"], name="Date"))
    indexed.to_parquet(tmp_path / "y.parquet")
    again = read_table(tmp_path / "y.parquet")
    assert again.index == ("Date",)
    assert list(again.frame) == ["Date", "px"]
    assert again.frame["Date"].tolist() == list(indexed.index)


def test_levels_in_parquet_have_names_and_are_read_without_pandas_words(tmp_path: Path) -> None:
    columns = pd.MultiIndex.from_tuples([("Close", "AAA"), ("Close", "BBB")], names=["Price", "Ticker"])
    pd.DataFrame([[1.5, 2.5]], columns=columns).to_parquet(tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet")
    assert table.levels == {"Close AAA": ("Close", "AAA"), "Close BBB": ("Close", "BBB")}
    parquet.write_table(pa.table({"('Close', 'AAA')": [1.5], "('Close', 'BBB')": [2.5]}), tmp_path / "y.parquet")
    assert read_table(tmp_path / "y.parquet").levels == table.levels


def test_folders_of_parquet(tmp_path: Path) -> None:
    for month, value in ((2, 1.5), (10, 2.5)):
        folder = tmp_path / "by_month" / f"month={month}"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"px": [value]}), folder / "a.parquet")
    (tmp_path / "by_month" / "_SUCCESS").touch()
    assert of(read_table(tmp_path / "by_month")) == {"px": [1.5, 2.5]}  # 2 before 10
    for symbol in ("AAA", "BBB"):
        folder = tmp_path / "by_symbol" / f"symbol={symbol}"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"px": [1.5]}), folder / "a.parquet")
    assert of(read_table(tmp_path / "by_symbol"))["symbol"] == ["AAA", "BBB"]
    parquet.write_table(pa.table({"py": [1.5]}), tmp_path / "by_symbol" / "z.parquet")
    with pytest.raises(
        ValueError, match=r"by_symbol: symbol=AAA/a\.parquet and z\.parquet have column py, px in one of"
    ):
        read_table(tmp_path / "by_symbol")
    (tmp_path / "by_symbol" / "_delta_log").mkdir()
    with pytest.raises(ValueError, match="is a table of Delta Lake"):
        read_table(tmp_path / "by_symbol")


def test_a_damaged_parquet_file_is_one_line(refused: Any) -> None:
    assert refused(b"PAR1 and no more", "x.parquet").startswith("x.parquet cannot be read: ")
    assert refused(gzip.compress(b"PAR1"), "x.gz") == "x.gz cannot be read: it is Parquet inside gzip; unpack it"


def test_what_pandas_says_in_parquet_runs_nothing(tmp_path: Path) -> None:
    """Names that look like Python, and an index that is not there, are names."""
    said = json.dumps({"index_columns": ["gone"], "columns": [], "column_indexes": []})
    name = "(__import__('os').abort(), 'x')"
    table = pa.table({name: [1.5]}).replace_schema_metadata({"pandas": said})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert list(read_table(tmp_path / "x.parquet").frame) == [name]


# Any table in any form.

WORDS = (
    st.text("abcdefghkxyzÄéß", min_size=2, max_size=6)
    .map(str.capitalize)
    .filter(lambda w: w.lower() not in dialect.MONTHS)
)


@st.composite
def forms(draw: st.DrawFn) -> dict[str, Any]:
    delimiter = draw(st.sampled_from([",", ";", "\t", "|", " "]))
    decimal = draw(st.sampled_from([".", ","]))
    thousands = draw(st.sampled_from(["", ",", ".", "'", " "]))
    if thousands == decimal or (delimiter == " " and thousands == " "):
        thousands = ""
    return {
        "delimiter": delimiter,
        "decimal": decimal,
        "thousands": thousands,
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])),
        "packed": draw(st.sampled_from(["", *PACKERS])),
        "end": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "quoted": draw(st.booleans()),
        "levels": draw(st.sampled_from([1, 1, 2, 3])),
        "footer": draw(st.booleans()),
        "blank": draw(st.sampled_from(["", "NA", "-", "n/a"])) if delimiter != " " else "NA",
    }


def as_text(value: float | None, digits: int, form: dict[str, Any]) -> str:
    if value is None:
        return str(form["blank"])
    text = f"{value:,.{digits}f}"
    return text.translate(str.maketrans({",": form["thousands"], ".": form["decimal"]}))


def joined(cells: list[str], form: dict[str, Any]) -> str:
    must = [form["quoted"] or form["delimiter"] in cell or '"' in cell for cell in cells]
    return form["delimiter"].join(f'"{cell}"' if quote else cell for cell, quote in zip(cells, must, strict=True))


@given(st.data(), forms())
@settings(max_examples=100, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_any_table_in_any_form_is_read_back(tmp_path: Path, data: st.DataObject, form: dict[str, Any]) -> None:
    """The same numbers, to the bit, and the same names."""
    count = data.draw(st.integers(1, 4))
    names = data.draw(st.lists(WORDS, min_size=count, max_size=count, unique=True))
    digits = data.draw(st.lists(st.sampled_from([1, 2, 4]), min_size=count, max_size=count))
    cell = st.one_of(st.none(), st.floats(-5e6, 5e6), st.floats(-2000, 2000))
    rows = data.draw(st.lists(st.lists(cell, min_size=count, max_size=count), min_size=3, max_size=12))
    rows = [[None if v is None else round(v, d) for v, d in zip(row, digits, strict=True)] for row in rows]
    rows.append([1234.5] * count)  # no column is blank, and each has a clear number
    days = [f"2024-03-{i + 1:02d}" for i in range(len(rows))]
    levels = [[level, *(f"{name}{'' if i == 0 else i}" for name in names)]
              for i, level in enumerate(["Price", "Ticker"][: max(1, form["levels"] - 1)])]  # fmt: skip
    lines = levels if form["levels"] > 1 else [["When", *names]]
    if form["levels"] > 1:
        lines = [*lines, ["When", *[""] * count]]
    if form["delimiter"] == " ":
        lines = [[cell or '""' for cell in line] for line in lines]
    text = [joined(line, form) if '""' not in line else form["delimiter"].join(line) for line in lines]
    text += [joined([day, *(as_text(v, d, form) for v, d in zip(row, digits, strict=True))], form)
             for day, row in zip(days, rows, strict=True)]  # fmt: skip
    text += ['"Source of it"'] if form["footer"] else []
    raw = "".join(line + form["end"] for line in text).encode(form["encoding"])
    path = tmp_path / "x.csv"
    path.write_bytes(PACKERS[form["packed"]](raw) if form["packed"] else raw)
    table = read_table(path, Form(encoding="cp1252" if form["encoding"] == "cp1252" else None))
    shown = [" ".join(line[i + 1] for line in levels) for i in range(count)]
    assert list(table.frame) == ["When", *shown]
    assert table.frame["When"].tolist() == days
    for i, name in enumerate(shown):
        assert of(table)[name] == [row[i] for row in rows]
    assert line_of(table, 0) == f"line {len(lines) + 1}"
    assert len([f for f in table.found if "data.footer" in f]) == form["footer"]


def _parquets(folder: Path, tables: dict[str, dict[str, Any]]) -> Any:
    folder.mkdir()
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(folder / f"{name}.parquet", index=False)
    return read_table(folder)


def test_a_folder_with_a_file_for_each_series_gets_their_names(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=3)
    each = {"Date": days, "close": [1.5, 1.6, 1.7]}
    table = _parquets(tmp_path / "a", {"AAPL": each, "MSFT": each})
    assert table.frame["file"].tolist() == ["AAPL"] * 3 + ["MSFT"] * 3
    assert table.found == ("column file added: the names of the files (AAPL, MSFT)",)
    assert table.files == (("AAPL.parquet", 0), ("MSFT.parquet", 3))
    codes = _parquets(tmp_path / "b", {"600519": each, "600520": each})
    assert codes.frame["file"].tolist() == ["600519"] * 3 + ["600520"] * 3
    later = {"Date": days + pd.Timedelta(days=9), "close": [1.5, 1.6, 1.7]}
    years = _parquets(tmp_path / "c", {"AAPL_1": each, "AAPL_2": later, "MSFT_1": each, "MSFT_2": later})
    assert years.frame["file"].tolist() == ["AAPL"] * 6 + ["MSFT"] * 6
    named = {"ticker": ["x"] * 3, **each}
    assert "file" not in _parquets(tmp_path / "d", {"AAPL": named, "MSFT": named}).frame


def test_parts_of_a_table_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=9)
    parts = {f"{i}-jan": {"Date": days[3 * k : 3 * k + 3], "a": [k] * 3} for i, k in enumerate((1, 0, 2))}
    table = _parquets(tmp_path / "a", parts)
    assert table.frame["a"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert table.found == ("the files in the order of their times, not of their names",)
    backwards = {name: {key: values[::-1] for key, values in each.items()} for name, each in parts.items()}
    assert _parquets(tmp_path / "b", backwards).frame["a"].tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]

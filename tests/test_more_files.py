"""More of each kind of file in tests/cases: exports of other programs, other time formats, numbers, blanks and names.

Each is read right or refused with the key to type; none is read wrongly without a word. The files are written here.
"""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from reading import Refused, Right, check, read, refusal

N = 40
Form = Callable[[float], str]
Content = str | bytes | Callable[[Path], None]
STEPS = (7, -4, 3, 5, -9, 2, -3, 8, -6, 4, -1, 9, -7, 6, -2)  # of a cent; no two columns share them by chance
REVERSED = r"newest first|revers"
OHLV = ("Open", "High", "Low", "Volume")


def walk(start: float, n: int = N, size: float = 0.01, shift: int = 0) -> list[float]:
    """Prices that anyone can compute, rounded to what is written."""
    changes = [STEPS[(i * i + shift * (i + 3)) % 15] * size * (1 + (i * 7 + shift) % 5) for i in range(n)]
    return [round(start + sum(changes[:i]), 4) for i in range(n)]


def days(n: int = N, start: date = date(2024, 1, 1)) -> list[date]:
    """Working days."""
    return [start + timedelta(days=i // 5 * 7 + i % 5) for i in range(n)]


def stamps(n: int = N, minutes: float = 5, start: datetime = datetime(2024, 3, 4, 9, 30)) -> list[datetime]:
    return [start + timedelta(minutes=minutes * i) for i in range(n)]


CLOSE, OTHER, THIRD = walk(50), walk(20, shift=4), walk(1050, size=0.5, shift=8)
VOLUME = [1000 + (i * 7919) % 4001 for i in range(N)]
DAYS = (str(days()[0]), str(days()[-1]))
MINUTES = (stamps()[0].isoformat(), stamps()[-1].isoformat())
ONE = (N, CLOSE[0], CLOSE[-1])


def ends(prices: Sequence[float]) -> tuple[int, float, float]:
    return len(prices), prices[0], prices[-1]


def two(x: float) -> str:
    return f"{x:.2f}"


def comma(x: float) -> str:
    return two(x).replace(".", ",")


def rows(header: str | None, *columns: Sequence[object], sep: str = ",", end: str = "\n", last: str = "") -> str:
    """Lines of a text file: a header, if there is one, and a column each."""
    lines = [sep.join(map(str, row)) + last for row in zip(*columns, strict=True)]
    return end.join([*([] if header is None else [header]), *lines, ""])


def bars(close: Sequence[float] = CLOSE) -> list[list[float]]:
    """Open, High, Low, Close."""
    opened = [round(c + (0.02 if i % 3 else -0.03), 4) for i, c in enumerate(close)]
    high = [round(max(o, c) + 0.05, 4) for o, c in zip(opened, close, strict=True)]
    low = [round(min(o, c) - 0.04, 4) for o, c in zip(opened, close, strict=True)]
    return [opened, high, low, list(close)]


def texts(form: str, times: Sequence[date]) -> list[str]:
    return [f"{time:{form}}" for time in times]


def newest(text: str, header: int = 1) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:header] + lines[header:][::-1])


def parquet(frame: pd.DataFrame, **how: Any) -> Content:
    return lambda path: frame.to_parquet(path, **how)


def zipped(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return out.getvalue()


def put(cells: Sequence[float], **instead: str) -> list[str]:
    """Numbers as text, with others at ``i12="text"``."""
    return [instead.get(f"i{i}", two(x)) for i, x in enumerate(cells)]


def plain(cells: Sequence[object], header: str = "Date,Close") -> str:
    return rows(header, days(len(cells)), cells)


EXCEL = {"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<workbook/>"}
CASE: dict[str, tuple[str, Content, Right | Refused]] = {}


def case(key: str, content: Content, right: Right | Refused, name: str = "prices.csv") -> None:
    assert key not in CASE
    CASE[key] = (name, content, right)


# ---- exports of programs and sites ----------------------------------------------------------------------------------
THREE = [[*bars(c), VOLUME] for c in (CLOSE, OTHER, THIRD)]
KINDS, TICKERS = ("Open", "High", "Low", "Close", "Volume"), ("AAPL", "MSFT", "BRK-B")
RIGHT_THREE = {t: ends(c) for t, c in zip(TICKERS, (CLOSE, OTHER, THIRD), strict=True)}
by_kind = [(k, t, THREE[j][i]) for i, k in enumerate(KINDS) for j, t in enumerate(TICKERS)]
by_ticker = [(k, t, THREE[j][i]) for j, t in enumerate(TICKERS) for i, k in enumerate(KINDS)]


def levels(first: str, second: str, columns: list[tuple[str, str, list[float]]], swap: bool) -> str:
    upper, lower = [c[0] for c in columns], [c[1] for c in columns]
    if swap:
        upper, lower = lower, upper
    head = [",".join([first, *upper]), ",".join([second, *lower]), "Date" + "," * len(columns)]
    return rows("\n".join(head), days(), *(c[2] for c in columns))


case(
    "yfinance of three tickers, Price above Ticker",
    levels("Price", "Ticker", by_kind, False),
    Right(RIGHT_THREE, DAYS, tuple(f"{k} {t}" for k, t, _ in by_kind if k != "Close"), said=("header",)),
)
case(
    "yfinance group_by=ticker, Ticker above Price",
    levels("Ticker", "Price", by_ticker, True),
    Right(RIGHT_THREE, DAYS, tuple(f"{t} {k}" for k, t, _ in by_ticker if k != "Close"), said=("header",)),
)
case(
    "Stooq",
    rows("Date,Open,High,Low,Close,Volume", days(), *bars(), VOLUME),
    Right({"Close": ONE}, DAYS, OHLV),
    "spx_d.csv",
)
case(
    "Stooq's bulk file",
    rows(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
        *(["AAPL.US"] * N, ["D"] * N, texts("%Y%m%d", days()), ["000000"] * N, *bars(), VOLUME, [0] * N),
    ),
    Right(
        {"AAPL.US": ONE},
        DAYS,
        ("<OPEN>", "<HIGH>", "<LOW>", "<VOL>", "<OPENINT>", "<PER>"),
        either=("<TICKER>", "<TIME>"),
    ),
    "aapl.us.txt",
)
case(
    "investing.com",
    newest(
        rows(
            '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"',
            *([f'"{t:%m/%d/%Y}"' for t in days()], *([f'"{two(x)}"' for x in c] for c in [CLOSE, *bars()[:3]])),
            *([f'"{v / 1000:.2f}M"' for v in VOLUME], [f'"{0.1 * (i % 7) - 0.3:.2f}%"' for i in range(N)]),
        )
    ),
    Right({"Price": ONE}, DAYS, ("Open", "High", "Low", "Vol.", "Change %"), said=(REVERSED,)),
)
case(
    "Alpha Vantage",
    newest(
        rows(
            "timestamp,1. open,2. high,3. low,4. close,5. volume", texts("%Y-%m-%d %H:%M:%S", stamps()), *bars(), VOLUME
        )
    ),
    Right({"4. close": ONE}, MINUTES, ("1. open", "2. high", "3. low", "5. volume"), said=(REVERSED,)),
)
MT4 = rows(None, texts("%Y.%m.%d", stamps()), texts("%H:%M", stamps()), *bars(), VOLUME)
MT4_NAMES = ["date", "time", "open", "high", "low", "close", "volume"]
case(
    "MT4, without header",
    MT4,
    Refused(
        (r"first line", r"data\.names"),
        typed={"names": MT4_NAMES},
        then=Right({"close": ONE}, MINUTES, ("open", "high", "low", "volume")),
    ),
)
case(
    "MT5, UTF-16 with BOM",
    (
        rows(
            "\t".join(f"<{n}>" for n in ("DATE", "TIME", "OPEN", "HIGH", "LOW", "CLOSE", "TICKVOL", "VOL", "SPREAD")),
            *(
                texts("%Y.%m.%d", stamps()),
                texts("%H:%M:%S", stamps()),
                *bars(),
                VOLUME,
                [0] * N,
                [i % 4 for i in range(N)],
            ),
            sep="\t",
            end="\r\n",
        )
    ).encode("utf-16"),
    Right(
        {"<CLOSE>": ONE},
        MINUTES,
        ("<OPEN>", "<HIGH>", "<LOW>", "<TICKVOL>", "<VOL>", "<SPREAD>"),
        said=("utf-16", "tab"),
    ),
)
case(
    "German Excel, cp1252, sep=;",
    (
        "sep=;\r\n"
        + rows("Datum;Schlusskurs (€);Stück", texts("%d.%m.%Y", days()), map(comma, CLOSE), VOLUME, sep=";", end="\r\n")
    ).encode("cp1252"),
    Right({"Schlusskurs (€)": ONE}, DAYS, ("Stück",), said=("';'", "','", "cp1252|1252")),
)
case(
    "Bundesbank, lines about the series above",
    rows(
        '"";BBEX3.D.USD;BBEX3.D.USD_FLAGS\n"";Euro-Referenzkurs;Kommentar\nEinheit;USD;\nStand vom;24.02.2026;',
        *(days(), [f"{x:.4f}".replace(".", ",") for x in CLOSE], [""] * N),
        sep=";",
    ),
    Right({"BBEX3.D.USD": ONE}, DAYS, either=("BBEX3.D.USD_FLAGS",)),
)
case(
    "World Bank, titles above the header",
    '"Data Source","Prices"\n\n"Last Updated Date","2024-03-01"\n\n' + plain(CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "R's write.csv with row names",
    rows('"","date","close"', [f'"{i + 1}"' for i in range(N)], [f'"{d}"' for d in days()], CLOSE),
    Right({"close": ONE}, DAYS, ("column 1",)),
)
case(
    "R's write.table: a name too few",
    rows('"date" "close"', [f'"{i + 1}"' for i in range(N)], [f'"{d}"' for d in days()], CLOSE, sep=" "),
    Right({"close": ONE}, DAYS, either=("column 1",)),
    "prices.txt",
)
case(
    "Binance since 2025, microseconds",
    rows(
        "open_time,open,high,low,close,volume,close_time,count",
        [int(t.replace(tzinfo=UTC).timestamp()) * 10**6 for t in stamps()],
        *(*bars(), VOLUME, [int(t.replace(tzinfo=UTC).timestamp() + 299) * 10**6 + 999_999 for t in stamps()]),
        range(N),
    ),
    Right(
        {"close": ONE}, MINUTES, ("open", "high", "low", "volume", "close_time", "count"), said=(r"\b[uµ]s\b|micro",)
    ),
)
case(
    "CoinGecko, market_cap and total_volume",
    rows(
        "snapped_at,price,market_cap,total_volume",
        *(texts("%Y-%m-%d 00:00:00 UTC", days()), CLOSE, [c * 19e6 + i * i for i, c in enumerate(CLOSE)], VOLUME),
    ),
    Right({"price": ONE}, DAYS, ("market_cap", "total_volume"), zone="UTC"),
)
case(
    "CryptoDataDownload, a link above",
    "https://www.CryptoDataDownload.com\n"
    + newest(
        rows(
            "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD",
            *([int(t.replace(tzinfo=UTC).timestamp()) for t in stamps()], texts("%Y-%m-%d %H:%M:%S", stamps())),
            *(["BTC/USD"] * N, *bars(), VOLUME, [3 * v for v in VOLUME]),
        )
    ),
    Right(
        {"BTC/USD": ONE},
        MINUTES,
        ("open", "high", "low", "Volume BTC", "Volume USD"),
        either=("unix", "date", "symbol"),
        said=(REVERSED,),
    ),
)
case(
    "Yahoo's adjusted closes",
    rows("Date,Open,High,Low,Close,Adj Close,Volume", days(), *bars(), [round(c * 0.97, 4) for c in CLOSE], VOLUME),
    Right({"Close": ONE}, DAYS, ("Open", "High", "Low", "Volume", "Adj Close")),
)
ASK = [round(c + 0.01 * (1 + i % 2), 4) for i, c in enumerate(CLOSE)]
QUARTERS = (MINUTES[0], "2024-03-04T09:30:09.750")
case(
    "ticks of bid and ask",
    rows(
        "time,bid,ask,bid_size,ask_size",
        texts("%Y-%m-%d %H:%M:%S.%f", stamps(minutes=1 / 240)),
        *(
            CLOSE,
            ASK,
            VOLUME,
            [i % 9 + 1 for i in range(N)],
        ),
    ),
    Right({"bid": ONE}, QUARTERS, ("ask", "bid_size", "ask_size")),
)

# ---- more exports ---------------------------------------------------------------------------------------------------
NANO = [int(t.replace(tzinfo=UTC).timestamp()) * 10**9 for t in stamps()]
UNIX = [n // 10**9 for n in NANO]
case(
    "Tushare",
    newest(
        rows(
            "ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount",
            *(["000001.SZ"] * N, texts("%Y%m%d", days()), *bars(), [CLOSE[0], *CLOSE[:-1]]),
            *(np.diff(CLOSE, prepend=CLOSE[0]).round(2), (np.diff(CLOSE, prepend=CLOSE[0]) * 2).round(4)),
            *(VOLUME, [v * 51 + i * i for i, v in enumerate(VOLUME)]),
        )
    ),
    Right(
        {"000001.SZ": ONE},
        DAYS,
        ("open", "high", "low", "pre_close", "change", "pct_chg", "vol", "amount"),
        either=("ts_code",),
        said=(REVERSED,),
    ),
)
for encoding in ("utf-8", "gbk"):
    case(
        f"names of roles in Chinese, {encoding}",
        rows("日期,开盘,最高,最低,收盘,成交量", days(), *bars(), VOLUME).encode(encoding),
        Right({"收盘": ONE}, DAYS, ("开盘", "最高", "最低", "成交量")),
    )
case(
    "Polygon's flat files: minutes of two tickers",
    rows(
        "ticker,volume,open,close,high,low,window_start,transactions",
        *(["A"] * N + ["B"] * N, VOLUME * 2),
        *(bars()[k] + bars(OTHER)[k] for k in (0, 3, 1, 2)),
        *(NANO * 2, [1 + i % 70 for i in range(2 * N)]),
    ),
    Right({"A": ONE, "B": ends(OTHER)}, MINUTES, ("volume", "open", "high", "low", "transactions")),
)
case(
    "Coinbase, in its own order",
    newest(rows("time,low,high,open,close,volume", UNIX, *(bars()[k] for k in (2, 1, 0, 3)), VOLUME)),
    Right({"close": ONE}, MINUTES, ("low", "high", "open", "volume"), said=(REVERSED,)),
)
case(
    "Kraken, without header",
    rows(None, UNIX, *bars(), VOLUME, [i % 9 for i in range(N)]),
    Refused((r"first line holds numbers", r"data\.names")),
)
case(
    "HistData, without header",
    rows(None, texts("%Y%m%d %H%M%S", stamps()), *bars(), [0] * N, sep=";"),
    Refused(
        (r"data\.names",),
        typed={"names": ["time", "open", "high", "low", "close", "volume"]},
        then=Right({"close": ONE}, MINUTES, ("open", "high", "low", "volume")),
    ),
)
case(
    "Dukascopy",
    rows("Gmt time,Open,High,Low,Close,Volume",
         [f"{t:%d.%m.%Y %H:%M:%S}.000" for t in stamps(start=datetime(2024, 3, 14))], *bars(), VOLUME),
    Right({"Close": ONE}, ("2024-03-14T00:00", "2024-03-14T03:15"), OHLV, zone="^(UTC|GMT)?$"),
)  # fmt: skip
case(
    "TradingView with an average",
    rows("time,open,high,low,close,MA,Volume", UNIX, *bars(),
         [""] * 4 + [f"{np.mean(CLOSE[i - 4 : i + 1]):.4f}" for i in range(4, N)], VOLUME),
    Right({"close": ONE}, MINUTES, ("open", "high", "low", "MA", "Volume")),
)  # fmt: skip
case(
    "NSE India: quotes, blanks behind names, thousands",
    newest(
        rows(
            '"Date ","series ","OPEN ","HIGH ","LOW ","PREV. CLOSE ","ltp ","close ","vwap ","VOLUME ","No of trades "',
            *([f'"{t:%d-%b-%Y}"' for t in days()], ['"EQ"'] * N),
            *([f'"{x:,.2f}"' for x in c] for c in bars(THIRD)[:3]),
            *([f'"{x:,.2f}"' for x in c] for c in ([THIRD[0], *THIRD[:-1]], THIRD, THIRD, [x + 0.25 for x in THIRD])),
            *([f'"{v * 11:,}"' for v in VOLUME], [f'"{v:,}"' for v in VOLUME]),
        )
    ),
    Right(
        {"close": ends(THIRD)},
        DAYS,
        ("OPEN", "HIGH", "LOW", "PREV. CLOSE", "ltp", "vwap", "VOLUME", "No of trades"),
        either=("series",),
        said=(REVERSED,),
    ),
)
case(
    "French's library: a title, blanks, months as YYYYMM, a second table",
    "This file was created by CMPT_ME_BEME_RETS\n\n"
    + rows(",Mkt-RF,SMB", [f"{2000 + i // 12}{i % 12 + 1:02}" for i in range(N)], *([f"  {x:.2f}" for x in r] for r in
           ([5 * STEPS[i % 15] / 9 for i in range(N)], [3 * STEPS[i * i % 15] / 7 for i in range(N)])))
    + "\n Annual Factors: January-December\n,Mkt-RF,SMB\n2000,  3.00,  1.10\n2001,  1.00,  -2.10\n",
    Refused((r"line|data\.(header|footer|names)",)),
)  # fmt: skip
case(
    "days as Excel counts them",
    rows("Date,Close", [45292 + (d - days()[0]).days for d in days()], CLOSE),
    Refused(("Date", r"data\.(time|time_format)")),
)
case(
    "year, month and day apart",
    rows("year,month,day,close", *zip(*((d.year, d.month, d.day) for d in days()), strict=True), CLOSE),
    Right({"close": ONE}, DAYS),
)
case(
    "times of day alone, of two days",
    rows("time,close", texts("%H:%M", stamps(minutes=30)), CLOSE),
    Right({"close": ONE}, None, ("time",), said=("no times",)),
)
case(
    "quarters",
    rows("Quarter,Price", [f"{2000 + i // 4}Q{i % 4 + 1}" for i in range(N)], CLOSE),
    Right({"Price": ONE}, ("2000-01-01", "2009-10-01")),
)
case(
    "years of two digits",
    rows("Date,Close", texts("%y%m%d", days()), CLOSE),
    Refused(("Date", r"data\.(time|time_format)")),
)
case(
    "open interest, trades, turnover, spread",
    rows("Date,Close,Open Interest,Trades,Turnover,Spread", days(), CLOSE, VOLUME, VOLUME[::-1],
         [v * 3 for v in VOLUME], [i * i % 5 + 1 for i in range(N)]),
    Right({"Close": ONE}, DAYS, ("Open Interest", "Trades", "Turnover", "Spread")),
)  # fmt: skip
case(
    "capital letters and blanks below the line",
    rows("TRADE_DATE,OPEN_PRICE,HIGH_PRICE,LOW_PRICE,CLOSE_PRICE,TOTAL_VOLUME", days(), *bars(), VOLUME),
    Right({"CLOSE_PRICE": ONE}, DAYS, ("OPEN_PRICE", "HIGH_PRICE", "LOW_PRICE", "TOTAL_VOLUME")),
)
case(
    "two assets' open, high, low, close side by side",
    rows(",".join(["Date", *(f"{t}_{k}" for t in ("AAA", "BBB") for k in ("Open", "High", "Low", "Close"))]),
         days(), *bars(), *bars(OTHER)),
    Right({"AAA_Close": ONE, "BBB_Close": ends(OTHER)}, DAYS,
          tuple(f"{t}_{k}" for t in ("AAA", "BBB") for k in ("Open", "High", "Low"))),
)  # fmt: skip
case(
    "open, high, low, close without a time",
    rows("Open,High,Low,Close,Volume", *bars(), VOLUME),
    Right({"Close": ONE}, None, OHLV),
)
case(
    "prices with counts up beside them",
    rows("id,Close", range(1000, 1000 + N), CLOSE),
    Right({"Close": ONE}, None, ("id",)),
)
case(
    "Polygon's answers as a table, a letter a name",
    rows("v,vw,o,c,h,l,t,n", VOLUME, CLOSE, *(bars()[k] for k in (0, 3, 1, 2)), [n // 10**6 for n in NANO],
         [1 + i * i % 7 for i in range(N)]),
    Right({"c": ONE}, MINUTES, ("v", "vw", "o", "h", "l", "n")),
)  # fmt: skip
case(
    "trades with their numbers",
    rows("time,price,qty,side,trade_id", texts("%Y-%m-%d %H:%M:%S", stamps()),
         CLOSE, VOLUME, ["buy", "sell"] * (N // 2), range(10**6, 10**6 + N)),
    Right({"price": ONE}, MINUTES, ("qty", "side", "trade_id")),
)  # fmt: skip
case(
    "indicators beside a close",
    rows("Date,Close,SMA_20,RSI", days(), CLOSE, [f"{np.mean(CLOSE[max(0, i - 19) : i + 1]):.4f}" for i in range(N)],
         [50 + i * i % 23 for i in range(N)]),
    Right({"Close": ONE}, DAYS, ("SMA_20", "RSI")),
)  # fmt: skip

case(
    "mid prices as OANDA names them",
    rows("time,mid.o,mid.h,mid.l,mid.c,volume", texts("%Y-%m-%dT%H:%M:%S.000000000Z", stamps()), *bars(), VOLUME),
    Right({"mid.c": ONE}, MINUTES, ("mid.o", "mid.h", "mid.l", "volume"), zone="UTC"),
)
case(
    "bars of bid and ask",
    rows("date,bidopen,bidhigh,bidlow,bidclose,askclose,tickqty", days(), *bars(), [round(c + 0.02, 4) for c in CLOSE],
         VOLUME),
    Right({"bidclose": ONE}, DAYS, ("bidopen", "bidhigh", "bidlow", "askclose", "tickqty")),
)  # fmt: skip
case(
    "an order book of two levels",
    rows("time,bid_price_1,bid_size_1,ask_price_1,ask_size_1,bid_price_2,ask_price_2",
         texts("%Y-%m-%d %H:%M:%S", stamps()), CLOSE, VOLUME, ASK, VOLUME[::-1], [round(c - 0.02, 4) for c in CLOSE],
         [round(c + 0.02, 4) for c in ASK]),
    Right({"bid_price_1": ONE}, MINUTES, ("bid_size_1", "ask_price_1", "ask_size_1", "bid_price_2", "ask_price_2")),
)  # fmt: skip
case(
    "features and a target beside a close",
    rows("Date,Close,Close_lag1,Next Close,Close BTC", days(), CLOSE, [CLOSE[0], *CLOSE[:-1]], [*CLOSE[1:], CLOSE[-1]],
         OTHER),
    Right({"Close": ONE, "Close BTC": ends(OTHER)}, DAYS, ("Close_lag1", "Next Close")),
)  # fmt: skip
case(
    "an index level beside its high and low",
    rows("Trade Date,Index Value,High,Low,Total Market Value", days(), CLOSE, *bars()[1:3], [c * 1e9 for c in THIRD]),
    Right({"Index Value": ONE}, DAYS, ("High", "Low", "Total Market Value")),
)
INVESTING = {
    "Turkish": "Tarih,Şimdi,Açılış,Yüksek,Düşük,Hac.,Fark %",
    "Russian": "Дата,Цена,Откр.,Макс.,Мин.,Объём,Изм. %",
    "French": "Date,Dernier,Ouv.,Plus Haut,Plus Bas,Vol.,Variation %",
    "Spanish": "Fecha,Último,Apertura,Máximo,Mínimo,Vol.,% var.",
    "Italian": "Data,Ultimo,Apertura,Massimo,Minimo,Vol.,Var. %",
    "Portuguese": "Data,Último,Abertura,Máxima,Mínima,Vol.,Var%",
    "Indonesian": "Tanggal,Terakhir,Pembukaan,Tertinggi,Terendah,Vol.,Perubahan%",
    "German": "Datum,Zuletzt,Eröffn.,Hoch,Tief,Vol.,+/- %",
    "Japanese": "日付け,終値,始値,高値,安値,出来高,変化率 %",
    "Korean": "날짜,종가,시가,고가,저가,거래량,변동 %",
    "Chinese": "日期,收盘,开盘,高,低,交易量,涨跌幅",
}
DATED = {"Japanese": "%Y年%m月%d日", "Korean": "%Y- %m- %d"}
for language, header in INVESTING.items():
    case(
        f"investing.com in {language}",
        rows(header, texts(DATED.get(language, "%d.%m.%Y"), days()), CLOSE, *bars()[:3],
             [f"{v / 1000:.2f}K" for v in VOLUME], [f"{0.1 * (i % 7) - 0.3:.2f}%" for i in range(N)]),
        Right({header.split(",")[1]: ONE}, DAYS, tuple(header.split(",")[2:]),
              said=("K' in column .* is 1000", "% signs")),
    )  # fmt: skip
case(
    "two tickers in turn, no time twice",
    rows("time,ticker,price", texts("%Y-%m-%d %H:%M:%S", stamps()), ["A", "B"] * (N // 2),
         [a if i % 2 else b for i, (a, b) in enumerate(zip(CLOSE, OTHER, strict=True))]),
    Refused(
        ("ticker", r"data\.by=ticker"),
        typed={"by": "ticker"},
        then=Right({"A": (20, OTHER[0], OTHER[38]), "B": (20, CLOSE[1], CLOSE[39])}, MINUTES),
    ),
)  # fmt: skip
case(
    "two tickers one after the other, without times",
    rows("ticker,price", ["A"] * N + ["B"] * N, CLOSE + OTHER),
    Refused(("ticker", r"data\.by=ticker")),
)
case(
    "long, a day of a ticker twice",
    rows("date,ticker,price", [*days(), *days(), days()[4]], ["X"] * N + ["Y"] * (N + 1), [*CLOSE, *OTHER, 5.0]),
    Refused((str(days()[4]), r"\bY\b", r"\b82\b", r"\b46\b", r"data\.by")),
)
case(
    "whole numbers YYYYMM",
    rows("yyyymm,Price", [f"{2000 + i // 12}{i % 12 + 1:02}" for i in range(N)], CLOSE),
    Right({"Price": ONE}, ("2000-01-01", "2003-04-01")),
)
case(
    "months and years of two digits",
    rows("Month,Price", [f"{date(2000 + i // 12, i % 12 + 1, 1):%b-%y}" for i in range(N)], CLOSE),
    Refused(("Month", r"data\.time_format"), typed={"time_format": "%b-%y"},
            then=Right({"Price": ONE}, ("2000-01-01", "2003-04-01"))),
)  # fmt: skip
case(
    "dates with bars in a file of commas",
    rows("Date,Close", texts("%d|%m|%Y", days()), CLOSE),
    Right({"Close": ONE}, DAYS, keys={"time_format": "%d|%m|%Y"}),
)
case(
    "names of firms in GBK",
    rows("Date,贵州茅台,平安", days(), CLOSE, OTHER).encode("gbk"),
    Refused((r"data\.encoding=\w+ .* or data\.encoding=",), typed={"encoding": "gbk"},
            then=Right({"贵州茅台": ONE, "平安": ends(OTHER)}, DAYS)),
)  # fmt: skip

case(
    "dates as YYMMDD beside dates",
    rows("As_of_Date_In_Form_YYMMDD,Report_Date_as_YYYY-MM-DD,Price", texts("%y%m%d", days()), days(), CLOSE),
    Right({"Price": ONE}, DAYS, ("As_of_Date_In_Form_YYMMDD",)),
)

# ---- times ----------------------------------------------------------------------------------------------------------
case(
    "newest first with times of day",
    newest(rows("Time,Close", texts("%Y-%m-%d %H:%M", stamps()), CLOSE)),
    Right({"Close": ONE}, MINUTES, said=(REVERSED,)),
)
SECONDS = [int(t.replace(tzinfo=UTC).timestamp()) for t in stamps(minutes=10)]
TEN = (stamps(minutes=10)[0].isoformat(), stamps(minutes=10)[-1].isoformat())
for unit, factor in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
    case(
        f"epoch in {unit}, every ten minutes",
        rows("time,close", [s * factor for s in SECONDS], CLOSE),
        Right({"close": ONE}, TEN, said=(rf"\b{unit}\b|µs|second",)),
    )
case(
    "epoch in s with decimals",
    rows("timestamp,price", [f"{s}.25" for s in SECONDS], CLOSE),
    Right({"price": ONE}, (TEN[0] + ".250", TEN[1] + ".250")),
)
case(
    "whole numbers YYYYMMDD",
    rows("date,close", texts("%Y%m%d", days()), CLOSE),
    Right({"close": ONE}, DAYS),
)
case(
    "whole numbers YYYYMMDD and HHMM",
    rows(
        "date,time,close",
        texts("%Y%m%d", stamps(start=datetime(2024, 3, 4, 9, 5))),
        [int(f"{t:%H%M}") for t in stamps(start=datetime(2024, 3, 4, 9, 5))],
        CLOSE,
    ),
    Right({"close": ONE}, ("2024-03-04T09:05", "2024-03-04T12:20")),
)
FEW = [date(2024, 1, 1 + i) for i in range(12)]  # the first of each month, if the month is first
case(
    "days and months that cannot be told apart",
    rows("Date,Close", texts("%d/%m/%Y", FEW), CLOSE[:12]),
    Refused(
        (r"data\.time_format", "day_first|month_first"),
        typed={"time_format": "day_first"},
        then=Right({"Close": ends(CLOSE[:12])}, ("2024-01-01", "2024-01-12")),
    ),
)
case(
    "the same, month first",
    rows("Date,Close", texts("%d/%m/%Y", FEW), CLOSE[:12]),
    Right({"Close": ends(CLOSE[:12])}, ("2024-01-01", "2024-12-01"), keys={"time_format": "month_first"}),
)
TWELVES = [date(2024, 1 + i // 12, 1 + i % 12) for i in range(N)]  # month first, they would not ascend
case(
    "no day after the 12th, and one order that ascends",
    rows("Date,Close", texts("%d/%m/%Y", TWELVES), CLOSE),
    Right({"Close": ONE}, ("2024-01-01", str(TWELVES[-1]))),
)
case(
    "day first, decided by a 13th",
    rows("Date,Close", texts("%d/%m/%Y", days()), CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "day first with dots",
    rows("Date,Close", texts("%d.%m.%Y", days()), CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "month first, decided by a 13th",
    rows("Date,Close", texts("%m/%d/%Y", days()), CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "month first without leading zeros",
    rows("Date,Close", [f"{t.month}/{t.day}/{t:%y}" for t in days()], CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "names of months",
    rows('"Date","Close"', [f'"{t:%b %d, %Y}"' for t in days()], CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "31-Jan-24",
    rows("Date,Close", texts("%d-%b-%y", days()), CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "AM and PM",
    rows("Date,Close", texts("%m/%d/%Y %I:%M:%S %p", stamps(minutes=30, start=datetime(2024, 3, 14, 22))), CLOSE),
    Right({"Close": ONE}, ("2024-03-14T22:00", "2024-03-15T17:30")),
)
BERLIN = [datetime(2024, 3, 30, 20, tzinfo=UTC) + timedelta(hours=i) for i in range(N)]
case(
    "offsets across summer time",
    rows("Date,Close", [t.astimezone(ZoneInfo("Europe/Berlin")).isoformat() for t in BERLIN], CLOSE),
    Right({"Close": ONE}, ("2024-03-30T20:00", "2024-04-01T11:00"), zone="."),
)
case(
    "wall clocks across summer time: no hour twice, one is not there",
    rows("Date,Close", [t.astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d %H:%M") for t in BERLIN], CLOSE),
    Right({"Close": ONE}, ("2024-03-30T21:00", "2024-04-01T13:00")),
)
case(
    "wall clocks at the end of summer time: an hour twice",
    rows(
        "Date,Close",
        [
            (t + timedelta(days=210)).astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d %H:%M")
            for t in (BERLIN[0] + timedelta(hours=i) for i in range(N))
        ],
        CLOSE,
    ),
    Refused((r"2024-10-27[ T]02:00", r"\b7\b")),
)
case(
    "Zulu times",
    rows("time,price", texts("%Y-%m-%dT%H:%M:%S.000Z", stamps()), CLOSE),
    Right({"price": ONE}, MINUTES, zone="UTC"),
)
case(
    "two columns with times",
    rows(
        "event_time,received_time,price",
        stamps(),
        [t + timedelta(seconds=i % 3) for i, t in enumerate(stamps())],
        CLOSE,
    ),
    Right({"price": ONE}, MINUTES, either=("received_time", "event_time")),
)
case(
    "years alone",
    rows("Year,Price", range(1984, 1984 + N), CLOSE),
    Right({"Price": ONE}, ("1984-01-01", "2023-01-01")),
)
case(
    "months",
    rows("Month,Price", [f"{2000 + i // 12}-{i % 12 + 1:02}" for i in range(N)], CLOSE),
    Right({"Price": ONE}, ("2000-01-01", "2003-04-01")),
)
case("no times", rows("a,b", CLOSE, OTHER), Right({"a": ONE, "b": ends(OTHER)}))
case(
    "a day that is not there",
    plain(CLOSE).replace(str(days()[9]), "2024-02-30"),
    Refused((r"2024-02-30", r"\b11\b")),
)
case(
    "a repeated last row",
    plain(CLOSE) + plain(CLOSE).splitlines()[-1] + "\n",
    Refused((str(days()[-1]), r"\b42\b")),
)
case(
    "an unsorted pair",
    "\n".join(
        [*plain(CLOSE).splitlines()[:5], *plain(CLOSE).splitlines()[5:7][::-1], *plain(CLOSE).splitlines()[7:], ""]
    ),
    Refused((str(days()[4]), r"\b7\b")),
)

# ---- Parquet --------------------------------------------------------------------------------------------------------
AWARE = pd.date_range("2024-03-28", periods=N, freq="D", tz="Europe/Berlin", name="when")
case(
    "Parquet, index with a zone",
    parquet(pd.DataFrame({"px": CLOSE}, index=AWARE)),
    Right({"px": ONE}, ("2024-03-27T23:00", "2024-05-05T22:00"), zone="Europe/Berlin"),
    "p.parquet",
)
case(
    "Parquet, a column of days",
    parquet(pd.DataFrame({"day": days(), "px": CLOSE}), index=False),
    Right({"px": ONE}, DAYS),
    "p.pq",
)
case(
    "Parquet, decimals",
    parquet(pd.DataFrame({"day": days(), "px": [Decimal(two(x)) for x in CLOSE]})),
    Right({"px": ONE}, DAYS),
    "p.parquet",
)
case(
    "Parquet, nullable whole numbers",
    parquet(pd.DataFrame({"day": days(), "px": pd.array([None, *range(100, 100 + N - 2), 95], dtype="Int64")})),
    Right({"px": (N - 1, 100, 95)}, DAYS),
    "p.parquet",
)
case(
    "Parquet, categories in a long table",
    parquet(
        pd.DataFrame(
            {
                "day": [*days(), *days()],
                "name": pd.Categorical(["X"] * N + ["Y"] * N, categories=["Y", "X", "never"]),
                "px": CLOSE + OTHER,
            }
        )
    ),
    Right({"X": ONE, "Y": ends(OTHER)}, DAYS),
    "p.parquet",
)
case(
    "Parquet, an index with a name",
    parquet(pd.DataFrame({"px": CLOSE}, index=pd.Index(pd.to_datetime(days()), name="Trading Day"))),
    Right({"px": ONE}, DAYS),
    "p.parquet",
)
case(
    "Parquet, newest first",
    parquet(pd.DataFrame({"px": CLOSE}, index=pd.to_datetime(days())).iloc[::-1]),
    Right({"px": ONE}, DAYS, said=(REVERSED,)),
    "p.parquet",
)


def folder(path: Path) -> None:
    path.mkdir()
    frame = pd.DataFrame({"day": pd.to_datetime(days()), "px": CLOSE})
    frame[:25].to_parquet(path / "2024-01.parquet")
    frame[25:].to_parquet(path / "2024-02.parquet")


case("a folder of Parquet without keys", folder, Right({"px": ONE}, DAYS), "folder")


def by_symbol(path: Path) -> None:
    for name, prices in (("X", CLOSE), ("Y", OTHER)):
        (path / f"symbol={name}").mkdir(parents=True)
        pd.DataFrame({"day": pd.to_datetime(days()), "px": prices}).to_parquet(path / f"symbol={name}" / "0.parquet")


case("a folder of Parquet by symbol", by_symbol, Right({"X": ONE, "Y": ends(OTHER)}, DAYS), "folder")
case("a folder of other files", lambda path: path.mkdir(), Refused(("Parquet",)), "folder")
case("Parquet that is none", b"PAR1 is not enough", Refused((r"Parquet|cannot be read",)), "p.parquet")

# ---- long format ----------------------------------------------------------------------------------------------------
FIVE = {f"T{j}": walk(30 + 10 * j, N - 3 * j, shift=j) for j in range(5)}
LONG = sorted(
    (day, name, price, 100 * i + 7)
    for j, (name, prices) in enumerate(FIVE.items())
    for i, (day, price) in enumerate(zip(days()[3 * j :], prices, strict=True))
)
case(
    "five tickers in turn, of different lengths, with volumes",
    rows("date,ticker,price,volume", *zip(*LONG, strict=True)),
    Right({name: ends(prices) for name, prices in FIVE.items()}, DAYS, ("volume",), said=(r"data\.by",)),
)
case(
    "long, one ticker unsorted",
    rows("date,ticker,price", *zip(*[*((d, "X", p) for d, p in zip(days(), CLOSE, strict=True)),
         *((d, "Y", p) for d, p in zip([*days()[:20], days()[21], days()[20], *days()[22:]], OTHER, strict=True))],
         strict=True)),
    Refused((str(days()[20]), r"\b63\b")),
)  # fmt: skip
case(
    "long, each ticker newest first",
    newest(rows("date,ticker,price", [*days(), *days()], ["X"] * N + ["Y"] * N, CLOSE + OTHER)),
    Right({"Y": ends(OTHER), "X": ONE}, DAYS, said=(REVERSED,)),
)
case(
    "long with open, high, low, close",
    rows("date,ticker,open,high,low,close", [*days(), *days()], ["X"] * N + ["Y"] * N,
         *(a + b for a, b in zip(bars(), bars(OTHER), strict=True))),
    Right({"X": ONE, "Y": ends(OTHER)}, DAYS, ("open", "high", "low")),
)  # fmt: skip
case(
    "long, tickers that are numbers",
    rows("date,permno,prc", [*days(), *days()], [10001] * N + [10002] * N, CLOSE + OTHER),
    Right({"10001": ONE, "10002": ends(OTHER)}, DAYS),
)

# ---- wide format, and names that only look like something else ------------------------------------------------------
case(
    "three assets that start one after another",
    rows(
        "Date,A,B,C", days(), CLOSE, [""] * 10 + [two(x) for x in OTHER[10:]], [""] * 20 + [two(x) for x in THIRD[20:]]
    ),
    Right({"A": ONE, "B": (30, OTHER[10], OTHER[-1]), "C": (20, THIRD[20], THIRD[-1])}, DAYS),
)
ASSETS = {
    "a vol index": ("vol_index", "sp500"),
    "firms with a role in their names": ("Timeless Corp", "Datex"),
    "High Street plc and Low & Bonar": ("High Street plc", "Low & Bonar"),
    "Open Text and Lowe's": ("Open Text", "Lowe's"),
    "tickers HIGH and LOW": ("HIGH", "LOW"),
    "Index Ventures and Volumetric": ("Index Ventures", "Volumetric"),
    "Count Basie Inc and Asking plc": ("Count Basie Inc", "Asking plc"),
    "Closed End Fund and Bid Corp": ("Closed End Fund", "Bid Corp"),
    "Return Assured and Time Warner": ("Return Assured", "Time Warner"),
    "Volvo and Splitit": ("Volvo", "Splitit"),
    "dots, brackets, a colon": ("BRK.B", "x:y[1]"),
    "letters from elsewhere": ("日経平均", "Ørsted μ"),
    "names that differ by case alone": ("abc", "ABC"),
    "names that are numbers": ("600519", "000001"),
    "names that are years": ("2024", "2025"),
    "a name with quotes": ('say ""hi""', "b"),
    "a name with a comma": ("Alphabet, Inc.", "b"),
}
for what, (a, b) in ASSETS.items():
    both = Right({a.replace('""', '"'): ONE, b: ends(OTHER)}, DAYS)
    case(f"wide: {what}", rows(f'Date,"{a}","{b}"', days(), CLOSE, OTHER), both)
NEAR = [round(c + 0.35 * (o - 20), 4) for c, o in zip(CLOSE, OTHER, strict=True)]  # changes correlate by 0.94
case("alike, and yet two assets", rows("Date,KO,PEP", days(), CLOSE, NEAR), Right({"KO": ONE, "PEP": ends(NEAR)}, DAYS))
case(
    "a name twice",
    rows("Date,Close,Close", days(), CLOSE, OTHER),
    Refused((r"Close", r"data\.names")),
)
case("a saved index in Parquet", parquet(pd.DataFrame({"Unnamed: 0": range(N), "px": CLOSE})),
     Right({"px": ONE}, None, ("Unnamed: 0",)), "p.parquet")  # fmt: skip
MANY = (50 + np.random.default_rng(1).normal(0, 0.5, (300, N)).cumsum(axis=1)).round(2).tolist()
case(
    "300 columns",
    rows("Date," + ",".join(f"S{i}" for i in range(300)), days(), *MANY),
    Right({f"S{i}": ends(prices) for i, prices in enumerate(MANY)}, DAYS),
)
case(
    "flags and notes",
    rows("Date,Close,halted,note", days(), CLOSE, ["True", "False"] * (N // 2), ["", "x y"] * (N // 2)),
    Right({"Close": ONE}, DAYS, ("halted", "note")),
)
case(
    "flags and notes in Parquet",
    parquet(
        pd.DataFrame({"day": days(), "px": CLOSE, "halted": [True, False] * (N // 2), "note": ["a", None] * (N // 2)})
    ),
    Right({"px": ONE}, DAYS, ("halted", "note")),
    "p.parquet",
)

# ---- numbers and blanks ---------------------------------------------------------------------------------------------
for blank in ("-", "--", "n/a", "#N/A", "NaN", "null", "NA", ".", " ", "None", "#N/A N/A"):
    case(
        f"{blank!r} for a blank before the start",
        plain(put(CLOSE, i0=blank, i1=blank)),
        Right({"Close": (N - 2, CLOSE[2], CLOSE[-1])}, DAYS),
    )
INSIDE = rows("Date,A,B,C", days(), CLOSE, put(OTHER, i7="", i8=""), THIRD)
case(
    "blanks inside one of three",
    INSIDE,
    Refused(
        ("B", r"\b9\b", r"data\.gaps"),
        typed={"gaps": "carry"},
        then=Right({"A": ONE, "B": ends(OTHER), "C": ends(THIRD)}, DAYS),
    ),
)
case(
    "blanks inside one of three, dropped",
    INSIDE,
    Right({"A": ONE, "B": (38, OTHER[0], OTHER[-1]), "C": ends(THIRD)}, DAYS, keys={"gaps": "drop"}),
)
BELOW = [round(x - 50.05, 2) for x in CLOSE]
case("negative prices", plain(BELOW), Right({"Close": ends(BELOW)}, DAYS))
case(
    "negative prices in brackets",
    plain([f"({two(-x)})" if x < 0 else two(x) for x in BELOW]),
    Right({"Close": ends(BELOW)}, DAYS),
)
case(
    "a minus sign of typography",
    plain([two(x).replace("-", "−") for x in BELOW]),
    Right({"Close": ends(BELOW)}, DAYS),
)
BIG = [round(x * 100 + 0.25, 2) for x in THIRD]
for what, mark in (("blank", " "), ("apostrophe", "'"), ("no-break blank", "\u00a0"), ("narrow blank", "\u202f")):
    case(
        f"thousands by {what}", plain([f"{x:,.2f}".replace(",", mark) for x in BIG]), Right({"Close": ends(BIG)}, DAYS)
    )
GERMAN = [f"{x:,.2f}".translate(str.maketrans(",.", ".,")) for x in BIG]
case(
    "1.234,56",
    rows("Date;Close", days(), GERMAN, sep=";"),
    Right({"Close": ends(BIG)}, DAYS, said=("';'", r"','.*data\.decimal", r"data\.thousands")),
)
case(
    '"1.234,56" between commas',
    plain([f'"{x}"' for x in GERMAN]),
    Right({"Close": ends(BIG)}, DAYS, said=(r"data\.decimal",)),
)
LAKH = ["1,00,250.50", "1,00,251.25", *[f"1,00,{252 + i % 9}.{i % 10}0" for i in range(N - 2)]]
case(
    "1,00,250.50",
    plain([f'"{x}"' for x in LAKH]),
    Right({"Close": (N, 100250.50, float(LAKH[-1].replace(",", "")))}, DAYS),
)
case("€ behind", rows("Date;Close", days(), [comma(x) + " €" for x in CLOSE], sep=";"), Right({"Close": ONE}, DAYS))
case("USD behind", plain([two(x) + " USD" for x in CLOSE]), Right({"Close": ONE}, DAYS))
case("£ in front", plain(["£" + two(x) for x in CLOSE]), Right({"Close": ONE}, DAYS))
case("1.5e+01", plain([f"{x:.6e}" for x in CLOSE]), Right({"Close": (N, CLOSE[0], CLOSE[-1])}, DAYS))
case("text at line 57", plain([*put(walk(50, 55)), "oops", *put(walk(50, 9))]), Refused(("Close", "oops", r"\b57\b")))
case("an infinite value", plain(put(CLOSE, i9="inf")), Refused(("Close", r"\b11\b", "inf")))
case("a number of a million digits", plain(put(CLOSE, i9="1" * 10**6)), Refused(("Close", r"\b11\b")))
case("0 for none", plain(put(CLOSE, i9="0", i10="0")), Right({"Close": ONE}, DAYS, warned=(r"Close.*\b(11|12)\b",)))
case("a spike", plain(put(walk(50, 200), i99="5000.00")),
     Right({"Close": ends(walk(50, 200))}, (DAYS[0], str(days(200)[-1])), warned=(r"Close.*\b10[12]\b",)))  # fmt: skip
case("99999 for none", plain(put(CLOSE, i9="99999")), Right({"Close": ONE}, DAYS, warned=(r"Close.*\b(11|12)\b",)))
RETURNS = [round(0.001 * STEPS[i % 15] + 0.0001 * (i % 3), 5) for i in range(N)]
case("returns", plain(RETURNS, "Date,Ret"), Right({"Ret": ends(RETURNS)}, DAYS, warned=("Ret.*returns",)))
case(
    "log-returns", plain(RETURNS, "Date,log_ret"), Right({"log_ret": ends(RETURNS)}, DAYS, warned=("log_ret.*returns",))
)
case(
    "spreads around zero are no returns for sure",
    plain([round(x - 50, 2) for x in CLOSE], "Date,Spread"),
    Right({"Spread": (N, 0.0, round(CLOSE[-1] - 50, 2))}, DAYS, keys={"columns": ["Spread"]}, either=(), warned=("",)),
)

# ---- the text itself ------------------------------------------------------------------------------------------------
case(
    "a delimiter behind each row",
    rows("Date,Close,", days(), CLOSE, last=","),
    Right({"Close": ONE}, DAYS, either=("column 3",)),
)
case(
    "a delimiter behind each row but the header",
    rows("Date,Close", days(), CLOSE, last=","),
    Right({"Close": ONE}, DAYS, either=("column 3",)),
)
case("BOM", "\ufeff" + plain(CLOSE), Right({"Close": ONE}, DAYS))
case("CRLF", plain(CLOSE).replace("\n", "\r\n"), Right({"Close": ONE}, DAYS))
case("CR alone", plain(CLOSE).replace("\n", "\r"), Right({"Close": ONE}, DAYS))
case("blank lines at the end", plain(CLOSE) + "\n\n\n", Right({"Close": ONE}, DAYS))
case(
    "UTF-16 without BOM",
    plain(CLOSE).encode("utf-16-le"),
    Right({"Close": ONE}, DAYS, said=("utf-16",)),
)
case("semicolons", rows("Date;A;B", days(), CLOSE, OTHER, sep=";"), Right({"A": ONE, "B": ends(OTHER)}, DAYS))
case(
    "bars", rows("Date|A|B", days(), CLOSE, OTHER, sep="|"), Right({"A": ONE, "B": ends(OTHER)}, DAYS, said=(r"'\|'",))
)
case(
    "blanks between",
    rows("Date   Close", days(), CLOSE, sep="   "),
    Right({"Close": ONE}, DAYS, said=("space|blank",)),
    "p.txt",
)
case("tabs", rows("Date\tClose", days(), CLOSE, sep="\t"), Right({"Close": ONE}, DAYS), "p.tsv")
case("one column", rows("px", CLOSE), Right({"px": ONE}), "p.txt")
case("header alone", "Date,Close\n", Refused(("row",)))
case("one row", plain(CLOSE[:1]), Refused((r"\b1\b|one",)))
case("nothing", "", Refused(("empty",)))
case("blank lines alone", "\n\n\n", Refused((r"empty|row|column|line",)))
case(
    "a line quoted across two",
    rows("Date,Close,note", days(), CLOSE, ['"a\nb"', *["x"] * (N - 1)]),
    Right({"Close": ONE}, DAYS, ("note",)),
)
case("a row that is too long", plain(put(CLOSE, i9="50.1,7")), Refused((r"\b11\b",)))
case(
    "a row that is too short",
    rows("Date,A,B", days(), CLOSE, OTHER).replace(f"{days()[9]},{CLOSE[9]},{OTHER[9]}", f"{days()[9]},{CLOSE[9]}"),
    Refused((r"\b11\b",)),
)
case(
    "comments above",
    "# made by hand\n# in EUR\n" + plain(CLOSE),
    Right({"Close": ONE}, DAYS),
)
case(
    "a footer of totals",
    plain(CLOSE) + f"Total,{sum(CLOSE):.2f}\n",
    Refused((r"\b42\b", "Total")),
)
case(
    "a footer in several lines",
    plain(CLOSE) + "\nSource: me\nAll rights reserved\n",
    Right({"Close": ONE}, DAYS, said=(r"data\.footer",)),
)
case("an Excel file called csv", zipped(EXCEL), Refused((r"Excel|Office|zip",)))
case("an Excel file", zipped(EXCEL), Refused(("Excel|xlsx", "csv|CSV")), "p.xlsx")
case("an old Excel file", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), Refused(("Excel|xls", "csv|CSV")), "p.xls")
case(
    "HTML called csv", "<!DOCTYPE html><html><body>Too many requests</body></html>\n", Refused(("HTML|<!DOCTYPE|page",))
)
case(
    "JSON",
    json.dumps([{"Date": str(d), "Close": c} for d, c in zip(days(), CLOSE, strict=True)]),
    Refused(("JSON", "csv|CSV")),
    "p.json",
)
case(
    "JSON called csv",
    json.dumps([{"Date": str(d), "Close": c} for d, c in zip(days(), CLOSE, strict=True)]),
    Refused(("JSON|number|column",)),
)
case("a zip of one file", zipped({"a.csv": plain(CLOSE)}), Right({"Close": ONE}, DAYS), "p.csv.zip")
case(
    "a zip of two files",
    zipped({"a.csv": plain(CLOSE), "b.csv": plain(OTHER)}),
    Refused((r"two|2|several|more than one",)),
    "p.zip",
)
case(
    "gzip that is cut off",
    gzip.compress(plain(CLOSE).encode())[:-20],
    Refused((r"gzip|compress|cannot be read",)),
    "p.csv.gz",
)
case(
    "gzip called csv",
    gzip.compress(plain(CLOSE).encode()),
    Right({"Close": ONE}, DAYS),
)
case("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(500), Refused(("csv|CSV|Parquet",)), "p.h5")


@pytest.mark.parametrize("key", CASE)
def test_a_file_is_read_right_or_refused(key: str, tmp_path: Path) -> None:
    name, content, right = CASE[key]
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(path, right)


def put_down(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_volumes_of_a_long_file_go_with_their_series(tmp_path: Path) -> None:
    path = put_down(tmp_path / "long.csv", rows("date,ticker,price,volume", *zip(*LONG, strict=True)))
    panel = read(path, inputs=["volume"])
    for name, prices in FIVE.items():
        assert panel.series[name].prices.tolist() == prices
        assert panel.series[name].inputs[:, 0].tolist() == [100 * i + 7 for i in range(len(prices))]
    assert panel.shared
    assert panel.findings.rows == len(LONG)


def test_volumes_of_several_header_levels_go_with_their_series(tmp_path: Path) -> None:
    for swap, columns in ((False, by_kind), (True, by_ticker)):
        names = ("Ticker", "Price") if swap else ("Price", "Ticker")
        path = put_down(tmp_path / f"{swap}.csv", levels(*names, columns, swap))
        panel = read(path, inputs=["Volume", "High"])
        for series, close in zip(panel.series.values(), (CLOSE, OTHER, THIRD), strict=True):
            assert series.inputs.tolist() == [list(pair) for pair in zip(VOLUME, bars(close)[1], strict=True)]


def test_a_row_missing_from_an_input_is_no_gap_of_the_series(tmp_path: Path) -> None:
    volume = put([float(v) for v in VOLUME], i0="", i12="")
    path = put_down(tmp_path / "p.csv", rows("Date,Close,Volume", days(), CLOSE, volume))
    inputs = read(path, inputs=["Volume"]).series["Close"].inputs[:, 0]
    assert np.flatnonzero(np.isnan(inputs)).tolist() == [0, 12]


def test_series_of_a_panel_share_its_rows(tmp_path: Path) -> None:
    panel = read(put_down(tmp_path / "p.csv", rows("Date,A,B", days(), CLOSE, [""] * 10 + put(OTHER[10:]))))
    assert panel.shared
    assert panel.series["B"].rows.tolist() == list(range(10, N))
    dropped = read(put_down(tmp_path / "q.csv", INSIDE), gaps="drop")
    assert dropped.times is not None
    kept = dropped.times[dropped.series["B"].rows].astype("datetime64[D]").astype(str).tolist()
    assert kept == [str(day) for i, day in enumerate(days()) if i not in (7, 8)]


def test_changes_of_two_share_classes_are_not_dropped_without_a_word(tmp_path: Path) -> None:
    """GOOG and GOOGL move alike by 0.995 or more, and are two assets, not one with four names."""
    other = [round(c + 0.01 * (i * 5 % 3 - 1), 4) for i, c in enumerate(THIRD)]
    panel = read(put_down(tmp_path / "p.csv", rows("Date,GOOG,GOOGL", days(), THIRD, other)))
    assert {"GOOG", "GOOGL"} == {*panel.series, *panel.findings.left_out}
    assert list(panel.series) == ["GOOG", "GOOGL"] or "data.columns" in panel.findings.left_out["GOOGL"]
    assert list(read(tmp_path / "p.csv", columns=["GOOG", "GOOGL"]).series) == ["GOOG", "GOOGL"]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"delimiter": ";"}, plain(CLOSE).replace(",", ";")),
        ({"delimiter": "tab"}, plain(CLOSE).replace(",", "\t")),
        ({"delimiter": "space"}, plain(CLOSE).replace(",", " ")),
        ({"delimiter": "^"}, plain(CLOSE).replace(",", "^")),
        ({"delimiter": ";", "decimal": ","}, rows("Date;Close", days(), map(comma, CLOSE), sep=";")),
        ({"footer": 2}, plain(CLOSE) + "2030-01-01,5\n2030-01-02,6\n"),
        ({"header": 0, "names": ["Date", "Close"]}, rows(None, days(), CLOSE)),
        ({"names": ["Date", "Close"]}, rows(None, days(), CLOSE)),
        ({"time_format": "%d~%m~%Y"}, rows("Date,Close", texts("%d~%m~%Y", days()), CLOSE)),
        ({"time": "Date"}, rows("Other,Date,Close", days()[::-1], days(), CLOSE)),
        ({"thousands": "none"}, plain(CLOSE)),
        ({"encoding": "utf-8"}, plain(CLOSE)),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_a_key_says_what_the_file_is(keys: dict[str, Any], text: str, tmp_path: Path) -> None:
    panel = read(put_down(tmp_path / "p.csv", text), **keys)
    assert panel.series["Close"].prices.tolist() == CLOSE
    assert panel.times is not None
    assert panel.times.astype("datetime64[D]").astype(str).tolist() == [str(d) for d in days()]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"columns": ["Closs"]}, ("Closs", "Close")),
        ({"inputs": ["Volum"]}, ("Volum", "Close")),
        ({"time": "Day"}, ("Day", "Date")),
        ({"by": "symbol"}, ("symbol", "Date")),
        ({"columns": ["Date"]}, ("Date",)),
        ({"time_format": "%Y/%m"}, (r"time_format",)),
        ({"names": ["one"]}, (r"data\.names",)),
        ({"header": 3, "columns": ["Price"]}, ("Price", "50.07")),
        ({"encoding": "utf-16"}, ("utf-16",)),
    ],
    ids=str,
)
def test_a_key_that_does_not_fit_is_refused_in_a_line(
    keys: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    line = refusal(put_down(tmp_path / "p.csv", plain(CLOSE)), **keys)
    for word in words:
        assert re.search(word, line), line


def test_order_without_times_is_taken_as_it_is(tmp_path: Path) -> None:
    path = put_down(tmp_path / "p.csv", newest(plain(CLOSE)))
    panel = read(path, time="none")
    assert panel.times is None
    assert panel.series["Close"].prices.tolist() == CLOSE[::-1]

"""A random panel, written in a random format, is read back: the same numbers, times, names and inputs."""

import csv
import io
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from reading import read, whole

from tbptt.data.panel import Panel

STEPS = {
    "day": timedelta(days=1),
    "business day": timedelta(days=1),
    "5 minutes": timedelta(minutes=5),
    "second": timedelta(seconds=1),
}
DATES = {
    "iso": "%Y-%m-%d",
    "day first": "%d/%m/%Y",
    "dots": "%d.%m.%Y",
    "month first": "%m/%d/%Y",
    "whole": "%Y%m%d",
    "slashes": "%Y/%m/%d",
    "month's name": "%d %b %Y",
}
EPOCHS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNDECIDED = ("day first", "month first", "dots")  # unless a day after the 12th says which
ZONES = {
    "none": None,
    "Z": UTC,
    "+05:30": timezone(timedelta(hours=5, minutes=30)),
    "-04:00": timezone(-timedelta(hours=4)),
}


@dataclass(frozen=True)
class Drawn:
    """A panel: prices and volumes (N,) of each series by name, NaN where there are none."""

    times: list[datetime]
    prices: dict[str, np.ndarray]
    volumes: dict[str, np.ndarray]
    digits: int


@dataclass(frozen=True)
class Written:
    """How it is written. ``layout`` is wide, long or levels; the rest is said by the keys of the same names."""

    layout: str
    kind: str
    delimiter: str
    decimal: str
    thousands: str
    encoding: str
    compression: str
    dates: str
    zone: str
    blank: str
    newest_first: bool
    by_time: bool
    apart: bool  # date and time of day in two columns
    volume: bool


@st.composite
def panels(draw: st.DrawFn) -> Drawn:
    n = draw(st.integers(5, 60))
    ends = st.text("aceXYZ éÖ.-_'&1", max_size=5).map(lambda text: f"Z{text}".strip())
    count = draw(st.integers(1, 4))
    names = draw(st.lists(ends, min_size=count, max_size=count, unique=True))
    digits = draw(st.sampled_from([2, 2, 4, 3]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    prices, volumes = {}, {}
    for i, name in enumerate(names):
        level = draw(st.sampled_from([8.0, 95.0, 1000.0, 4200.0, 1_300_000.0]))
        start = draw(st.integers(0, n - 4)) if i else 0
        walk = level * np.exp(random.normal(0, 0.01, n).cumsum())
        prices[name] = np.where(np.arange(n) < start, np.nan, walk.round(digits))
        volume = random.integers(100, 900_000, n).astype(float)
        volume[random.random(n) < draw(st.sampled_from([0, 0, 0.1]))] = np.nan
        volumes[name] = np.where(np.arange(n) < start, np.nan, volume)
    calendar = draw(st.sampled_from(list(STEPS)))
    first = datetime(2024, 1, 1) + timedelta(days=draw(st.integers(0, 300)))
    if calendar in ("5 minutes", "second"):
        first += timedelta(seconds=draw(st.integers(0, 86_399)))
    times = [first + STEPS[calendar] * i for i in range(2 * n)]
    if calendar == "business day":
        times = [time for time in times if time.weekday() < 5]
    return Drawn(times[:n], prices, volumes, digits)


formats = st.builds(
    Written,
    layout=st.sampled_from(["wide", "wide", "long", "levels"]),
    kind=st.sampled_from(["csv", "csv", "csv", "parquet"]),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from(["none", "none", ",", ".", "'", "space"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    compression=st.sampled_from(["", "", ".gz", ".bz2", ".xz", ".zip"]),
    dates=st.sampled_from([*DATES, *EPOCHS]),
    zone=st.sampled_from(list(ZONES)),
    blank=st.sampled_from(["", "-", "NaN", "n/a"]),
    newest_first=st.booleans(),
    by_time=st.booleans(),
    apart=st.booleans(),
    volume=st.booleans(),
)


def number(value: float, digits: int, how: Written) -> str:
    if np.isnan(value):
        return how.blank
    separator = {"none": "", "space": " "}.get(how.thousands, how.thousands)
    separator = "" if separator == how.decimal else separator
    return f"{value:,.{digits}f}".translate(str.maketrans({",": separator, ".": how.decimal}))


def stamp(time: datetime, how: Written, clock: bool) -> list[str]:
    """The cells of a time."""
    if how.dates in EPOCHS:
        return [str(int(time.replace(tzinfo=UTC).timestamp()) * EPOCHS[how.dates])]
    day = time.strftime(DATES[how.dates])
    if not clock:
        return [day]
    if how.layout != "levels" and (how.dates == "whole" or (how.apart and how.zone == "none")):
        return [day, time.strftime("%H%M%S" if how.dates == "whole" else "%H:%M:%S")]
    if how.dates == "iso" and (zone := ZONES[how.zone]):
        return [time.replace(tzinfo=UTC).astimezone(zone).isoformat().replace("+00:00", "Z")]
    return [f"{day} {time:%H:%M:%S}"]


def has_clock(panel: Drawn) -> bool:
    return any((time.hour, time.minute, time.second) != (0, 0, 0) for time in panel.times)


def cells(panel: Drawn, how: Written) -> tuple[list[list[str]], list[list[str]]]:
    """Header lines and rows, oldest first."""
    stamps = [stamp(time, how, has_clock(panel)) for time in panel.times]
    head = ["Date", "Time"][: len(stamps[0])]

    def pair(name: str, i: int) -> list[str]:
        volume = panel.volumes[name][i]
        cells = [number(panel.prices[name][i], panel.digits, how)]
        return [*cells, *(["" if np.isnan(volume) else f"{volume:.0f}"] if how.volume else [])]

    kinds = ["Close", *(["Volume"] if how.volume else [])]
    if how.layout == "long":
        order = [(i, name) for i in range(len(stamps)) for name in panel.prices if not np.isnan(panel.prices[name][i])]
        order = order if how.by_time else sorted(order, key=lambda at: (list(panel.prices).index(at[1]), at[0]))
        return [[*head, "Ticker", *kinds]], [[*stamps[i], name, *pair(name, i)] for i, name in order]
    if how.layout == "levels":
        rows = [[*stamp, *(cell for name in panel.prices for cell in pair(name, i))] for i, stamp in enumerate(stamps)]
        blank = [""] * (len(head) - 1)
        upper = ["Price", *blank, *(kind for _ in panel.prices for kind in kinds)]
        lower = ["Ticker", *blank, *(name for name in panel.prices for _ in kinds)]
        return [upper, lower, [*head, *[""] * (len(upper) - len(head))]], rows
    (first, *_) = panel.prices
    rows = [
        [*stamp, *(pair(name, i)[0] for name in panel.prices), *pair(first, i)[1:]] for i, stamp in enumerate(stamps)
    ]
    return [[*head, *panel.prices, *kinds[1:]]], rows


def write_text(folder: Path, panel: Drawn, how: Written) -> Path:
    head, rows = cells(panel, how)
    out = io.StringIO()
    csv.writer(out, delimiter=how.delimiter).writerows([*head, *(rows[::-1] if how.newest_first else rows)])
    path = folder / f"prices.csv{how.compression}"
    table = pd.io.common.get_handle(
        path, "wb", compression="infer" if how.compression else None, is_text=False, memory_map=False
    )
    with table as file:
        file.handle.write(out.getvalue().encode(how.encoding))  # type: ignore[arg-type]
    return path


def write_parquet(folder: Path, panel: Drawn, how: Written) -> Path:
    index = pd.DatetimeIndex(panel.times, name="Date")
    if ZONES[how.zone]:
        index = index.tz_localize("UTC").tz_convert("America/New_York" if how.zone == "-04:00" else ZONES[how.zone])
    (first, *_) = panel.prices
    frame = pd.DataFrame(panel.prices, index=index)
    if how.layout == "wide" and how.volume:
        frame["Volume"] = panel.volumes[first]
    if how.layout == "levels":
        columns = {("Close", name): prices for name, prices in panel.prices.items()}
        columns |= {("Volume", name): volume for name, volume in panel.volumes.items()} if how.volume else {}
        frame = pd.DataFrame(columns, index=index)
    if how.layout == "long":
        parts = [
            pd.DataFrame(
                {"Ticker": name, "Close": prices} | ({"Volume": panel.volumes[name]} if how.volume else {}), index=index
            )[~np.isnan(prices)]
            for name, prices in panel.prices.items()
        ]
        frame = pd.concat(parts)
        frame = frame.sort_index(kind="stable") if how.by_time else frame
    frame = frame.iloc[::-1] if how.newest_first else frame
    path = folder / "prices.parquet"
    (frame.reset_index() if how.apart and how.layout != "levels" else frame).to_parquet(path)
    return path


def may_be_refused(panel: Drawn, how: Written) -> dict[str, Any]:
    """The keys that an honest reader may ask for; none if the file has one reading."""
    keys: dict[str, Any] = {}
    if how.kind == "parquet":
        return keys
    if how.encoding == "cp1252" and any(re.search("[éÖ]{2}", name) for name in panel.prices):  # as in Cyrillic
        keys["encoding"] = "cp1252"
    if how.dates in UNDECIDED and all(time.day <= 12 for time in panel.times):
        keys["time_format"] = "month_first" if how.dates == "month first" else "day_first"
    if panel.digits == 3:  # 1.234 and 12.345 have two readings
        shown = how.thousands if how.thousands != how.decimal else "none"
        keys |= {"decimal": how.decimal, "thousands": shown}
    return keys


def same(panel: Panel, drawn: Drawn, how: Written) -> None:
    whole(panel)
    names = {name: name for name in drawn.prices}
    if how.layout == "levels":
        names = {name: name if name in panel.series else f"Close {name}" for name in drawn.prices}
    assert set(panel.series) == set(names.values())
    np.testing.assert_array_equal(panel.times, np.array(drawn.times, "datetime64[ns]"))
    has_zone = how.zone != "none" and (how.kind == "parquet" or (how.dates == "iso" and has_clock(drawn)))
    assert bool(panel.zone) == has_zone or how.dates in EPOCHS  # an epoch's zone is UTC, said or not
    (first, *_) = drawn.prices
    for name, prices in drawn.prices.items():
        series, known = panel.series[names[name]], np.flatnonzero(~np.isnan(prices))
        np.testing.assert_array_equal(series.prices, prices[known], name)
        np.testing.assert_array_equal(series.rows, known, name)
        if how.volume:
            volume = drawn.volumes[first if how.layout == "wide" else name]
            np.testing.assert_array_equal(series.inputs[:, 0], volume[known], name)


@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(drawn=panels(), how=formats)
def test_what_is_written_is_read_back(drawn: Drawn, how: Written) -> None:
    keys: dict[str, Any] = {"inputs": ["Volume"] if how.volume else []}
    with tempfile.TemporaryDirectory() as folder:
        write = write_parquet if how.kind == "parquet" else write_text
        path = write(Path(folder), drawn, how)
        asked = may_be_refused(drawn, how)
        try:
            panel = read(path, **keys)
        except ValueError as error:
            if not any(f"data.{key}" in str(error) for key in asked):
                raise
            panel = read(path, **keys | asked)
        same(panel, drawn, how)

"""What tests of reading share: a file read as ``data.reading=auto`` does, and what is right to come of it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tbptt.data.options import PricesData
from tbptt.data.panel import Panel

Ends = tuple[int, float, float]  # prices, the first and the last one


@dataclass(frozen=True)
class Right:
    """What a file is to be read as.

    Attributes:
        series: prices, first and last one by name.
        times: the first and the last one of the panel, in UTC; None: the file has none.
        left_out: all columns that are no series, no input and no time.
        either: columns that may be among them.
        said: patterns, each of which is found in what is said of the form.
        warned: the same of the warnings; () if there is to be no warning.
        zone: a pattern of the time zone; None: there is none.
        keys: of ``data``, beside the path.
    """

    series: dict[str, Ends]
    times: tuple[str, str] | None = None
    left_out: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    zone: str | None = None
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """That a file is refused, with patterns that the line has; once ``typed`` is among the keys, it is ``then``."""

    line: tuple[str, ...]
    keys: dict[str, Any] = field(default_factory=dict)
    typed: dict[str, Any] = field(default_factory=dict)
    then: "Right | Refused | None" = None


def data_of(path: Path | str, **keys: Any) -> PricesData:
    small: dict[str, Any] = {"reading": "auto", "split": "time", "window": 8, "test_fraction": 0.0}
    return PricesData(name="prices", path=str(path), **small | keys)


def read(path: Path | str, **keys: Any) -> Panel:
    panel = data_of(path, **keys).prices()
    assert isinstance(panel, Panel)
    return panel


def refusal(path: Path | str, **keys: Any) -> str:
    """The line by which a file is refused."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- each caller looks at the line
        read(path, **keys)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) - len(str(path)) < 500
    assert str(path) in line or Path(path).name in line, line
    return line


def check(path: Path, right: Right | Refused, **keys: Any) -> None:
    """Hold a file against what is right, and where it is refused also what it is once the key is typed."""
    keys = keys | right.keys
    if isinstance(right, Refused):
        line = refusal(path, **keys)
        for pattern in right.line:
            assert re.search(pattern, line, re.IGNORECASE), f"{pattern!r} is not in: {line}"
        if right.then is not None:
            check(path, right.then, **keys | right.typed)
        return
    panel = read(path, **keys)
    whole(panel)
    same_series(panel, right.series)
    same_times(panel, right)
    found = panel.findings
    left_out = set(found.left_out)
    assert set(right.left_out) <= left_out <= set(right.left_out) | set(right.either), found.left_out
    said, warned = (" | ".join(words) for words in (found.found, found.warnings))
    for pattern, words in [(p, said) for p in right.said] + [(p, warned) for p in right.warned]:
        assert re.search(pattern, words, re.IGNORECASE), f"{pattern!r} is not in: {words}"
    assert right.warned or not found.warnings, found.warnings
    again = read(path, **keys | {"columns": list(panel.series)})  # the names that it shows are taken
    assert list(again.series) == list(panel.series)
    for name, series in panel.series.items():
        np.testing.assert_array_equal(again.series[name].prices, series.prices)


def whole(panel: Panel) -> None:
    """What holds for each panel."""
    for name, series in panel.series.items():
        assert len(series.prices) == len(series.rows) == len(series.inputs), name
        assert np.isfinite(series.prices).all(), name
        assert (np.diff(series.rows) > 0).all(), name
        if panel.times is not None:
            assert 0 <= series.rows[0] <= series.rows[-1] < len(panel.times), name
    if panel.times is not None:
        assert (np.diff(panel.times) > np.timedelta64(0)).all()
    found = panel.findings
    assert all(reason and "\n" not in reason for reason in [*found.found, *found.warnings, *found.left_out.values()])
    assert not set(found.left_out) & {*panel.series, *panel.inputs}


def same_series(panel: Panel, right: dict[str, Ends]) -> None:
    assert len(panel.series) == len(right), list(panel.series)
    for (name, series), (named, (prices, first, last)) in zip(panel.series.items(), right.items(), strict=True):
        assert name == named
        assert (len(series.prices), series.prices[0], series.prices[-1]) == (
            prices,
            pytest.approx(first, rel=1e-12),
            pytest.approx(last, rel=1e-12),
        ), name


def same_times(panel: Panel, right: Right) -> None:
    if right.times is None:
        assert panel.times is None
        return
    assert panel.times is not None
    first, last = (np.datetime64(time, "ns") for time in right.times)
    assert (panel.times[0], panel.times[-1]) == (first, last)
    assert panel.findings.time
    of_epoch = "epoch" in " ".join(panel.findings.found)  # its seconds are UTC, said or not
    assert re.search(right.zone or ("^(UTC)?$" if of_epoch else "^$"), panel.zone or ""), panel.zone

"""Price series with the times of their steps, other inputs beside them, and what was found out while reading them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tbptt.data.errors import DataError as DataError
from tbptt.data.prices import Prices

Times = NDArray[np.datetime64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Findings:
    """What was read, in words for the user.

    Attributes:
        source: what was read: a file's name as it was typed, or the name of a data source.
        rows: how many rows it has.
        found: what was found out about its form, one phrase each, with the key that says otherwise: ``delimiter ';'
            (data.delimiter)``.
        left_out: the columns that are no series and no input, and series that cannot be used, and why.
        warnings: what looks wrong, one line each.
        time: the column or columns that the times were read from; None if there are no times.
    """

    source: str = ""
    rows: int = 0
    found: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    time: str | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """The prices of one series, without blanks, oldest first.

    Attributes:
        prices: (N,) float64.
        rows: (N,) which row of the panel each price is in, ascending.
        inputs: (N, D) float64, the other inputs of each step in the order of the panel's ``inputs``, known when the
            price of that step is known; NaN where one is missing.
    """

    prices: Prices
    rows: Rows
    inputs: Prices


@dataclass(frozen=True, eq=False)
class Panel:
    """Series, as a file or another source has them.

    Attributes:
        series: by name.
        shared: whether a row is the same time in every series. Then the series can be cut and compared by time.
        times: (R,) of the rows, ascending and all different, in UTC; None if the source has no times.
        zone: the time zone that the source gave its times in; None if it gave none.
        inputs: the names of the other inputs, as ``data.inputs`` says them.
        findings: what was read.
    """

    series: Mapping[str, Series]
    shared: bool = False
    times: Times | None = None
    zone: str | None = None
    inputs: tuple[str, ...] = ()
    findings: Findings = field(default_factory=Findings)

    @classmethod
    def of_arrays(cls, given: Mapping[str, Prices], source: str = "") -> "Panel":
        """Series without times, other inputs or a calendar in common."""
        series = {
            str(name): Series(prices, np.arange(len(prices)), np.empty((len(prices), 0)))
            for name, prices in ((name, np.asarray(prices)) for name, prices in given.items())
        }
        rows = max((len(each.prices) for each in series.values()), default=0)
        return cls(series, findings=Findings(source, rows))

    def only(self, names: list[str]) -> "Panel":
        """The panel with these series alone, in this order."""
        return replace(self, series={name: self.series[name] for name in names})

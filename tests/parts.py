"""Data in three parts for the tests of what judges a network, and networks that predict what they are told to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tbptt.data.options import ArticleData, PricesData
from tbptt.data.panel import Panel, Series
from tbptt.data.prices import Prices
from tbptt.data.sequences import Sequences
from tbptt.tasks.options import Forecast, QValues, TaskConfig
from tbptt.tasks.prepare import Prepared, prepare

WINDOW, GAMMA, FEE, WARM = 4, 0.5, 0.4, 15
LENGTHS = (400, 330)


def walks(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> dict[str, Prices]:
    """Random walks of different lengths, levels and sizes."""
    random = np.random.default_rng(seed)
    return {f"s{i}": 50.0 * (i + 1) + random.normal(0.0, 2.0**i, n).cumsum() for i, n in enumerate(lengths)}


def written(folder: Path, series: dict[str, Prices]) -> Path:
    """Series as a CSV file, blank after their ends; the numbers are kept to the bit."""
    path = folder / "prices.csv"
    pd.DataFrame({name: pd.Series(row) for name, row in series.items()}).to_csv(path, index=False)
    return path


def data_of(path: Path, **changes: Any) -> PricesData:
    settings = {"window": WINDOW, "val_fraction": 0.25, "test_fraction": 0.25, "warm_steps": WARM, **changes}
    return PricesData(name="prices", path=str(path), **settings)


@dataclass
class OfPanel(PricesData):
    """Data of a panel that a test has made."""

    panel: Panel = field(default_factory=lambda: Panel({}))

    def prices(self) -> Panel:
        return self.panel


def of_panel(panel: Panel, **changes: Any) -> OfPanel:
    settings = {"window": WINDOW, "val_fraction": 0.25, "test_fraction": 0.25, "warm_steps": WARM, "split": "time"}
    return OfPanel(name="prices", path="panel", panel=panel, **(settings | changes))


def panel_of(rows: dict[str, Sequence[int]], seed: int = 0, inputs: int = 0, **kept: Any) -> Panel:
    """A panel of daily random walks from 2001-01-01 on, which have prices in these rows; inputs are noise."""
    random = np.random.default_rng(seed)
    found = {}
    for i, (name, own) in enumerate(rows.items()):
        prices = 50.0 * (i + 1) + random.normal(0.0, 2.0**i, len(own)).cumsum()
        found[name] = Series(prices, np.array(own, dtype=np.int64), random.normal(size=(len(own), inputs)))
    times = np.datetime64("2001-01-01", "ns") + np.arange(1 + max(max(own) for own in rows.values())) * np.timedelta64(
        1, "D"
    )
    names = tuple(f"x{k}" for k in range(inputs))
    return Panel(found, **{"shared": True, "times": times, "inputs": names, **kept})


def q_values(**changes: Any) -> QValues:
    return QValues(**{"name": "q_values", "gamma": GAMMA, "fee": FEE, "fee_unit": "change_std", **changes})


def forecast(*horizons: int) -> Forecast:
    return Forecast(name="forecast", horizons=list(horizons))


def article(**changes: Any) -> ArticleData:
    settings = {"window": WINDOW, "n_series": 4, "val_series": 3, "test_series": 12, "length": 300, **changes}
    return ArticleData(name="article", **settings)


def prepared(folder: Path, series: dict[str, Prices], task: TaskConfig | None = None, **changes: Any) -> Prepared:
    return prepare(data_of(written(folder, series), **changes), task or q_values())


def scored(part: Sequences) -> list[tuple[int, int]]:
    """(series, step) of each step that counts, in a plain loop: neither warm-up nor padding."""
    warm = part.warm or [0] * part.batch
    return [(b, t) for b in range(part.batch) for t in range(warm[b], part.steps[b])]


class Told(torch.nn.Module):
    """Predicts what it is told to: one (B, T, O) for each pass over a part, in the order of the passes."""

    def __init__(self, *passes: torch.Tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.passes, self.at, self.began = passes, 0, 0

    def zero_state(self, batch: int) -> list[torch.Tensor]:
        self.at, self.began = 0, self.began + 1
        return []

    def forward(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self.at += x.shape[1]
        y = self.passes[(self.began - 1) % len(self.passes)]
        return y[:, self.at - x.shape[1] : self.at], state

"""Which prices train and which are held out, and whether there are enough of them."""

import math
from dataclasses import dataclass

import numpy as np

from tbptt.config import ArticleData, DataConfig, SplitData
from tbptt.series import HELD_OUT, TRAINING, Prices, article_series, fingerprint
from tbptt.targets import default_horizon


@dataclass(frozen=True)
class Parts:
    """Prices of both parts. Each array is ``window`` prices to look back to, the steps, and horizon + 1 more prices.

    Attributes:
        training, held_out: by series name.
        window, horizon: in steps.
        shared_scale: one scaler for all series, or one for each.
        fees: of one change of side, in price units, one a training series; held-out series i has that of training
            series i, or the only one there is.
    """

    training: dict[str, Prices]
    held_out: dict[str, Prices]
    window: int
    horizon: int
    shared_scale: bool
    fees: list[float]

    def steps(self, prices: Prices) -> int:
        """Steps of one array that have features and targets."""
        return len(prices) - self.window - self.horizon - 1

    def fingerprint(self) -> str:
        """Of all prices: the same data, the same 64 hex digits."""
        trained = {f"training/{name}": prices for name, prices in self.training.items()}
        return fingerprint(trained | {f"held_out/{name}": prices for name, prices in self.held_out.items()})

    @property
    def length(self) -> int:
        """The longest training series, in steps: what the schedule cuts into chunks."""
        return max(map(self.steps, self.training.values()))


def resolved_horizon(data: DataConfig) -> int:
    """``data.horizon`` with ``auto`` worked out, in steps."""
    return default_horizon(data.gamma) if data.horizon == "auto" else int(data.horizon)


def load_parts(data: DataConfig) -> Parts:
    """Generate or read the prices and split them.

    Raises:
        ValueError: a file cannot be used (:func:`tbptt.series.read_prices`), a series is too short or never changes.
    """
    horizon = resolved_horizon(data)
    if isinstance(data, ArticleData):
        training, held_out = _article_parts(data, horizon)
    else:
        assert isinstance(data, SplitData)
        series = data.prices()
        names = list(series) if data.columns is None else data.columns
        if unknown := [name for name in names if name not in series]:
            raise ValueError(f"{data.name} has no column {', '.join(unknown)} (it has: {', '.join(series)})")
        split = {name: _split(name, _checked(name, series[name]), data, horizon) for name in names}
        training = {name: both[0] for name, both in split.items()}
        held_out = {name: both[1] for name, both in split.items()}
    shared = isinstance(data, ArticleData)
    return Parts(training, held_out, data.window, horizon, shared, _fees(data, training, shared))


def memory_of(data: ArticleData) -> int:
    """About how many bytes the article's data take, prices, features and targets of all steps."""
    return 40 * (data.n_series + data.val_series) * (data.window + data.length + resolved_horizon(data))


def _article_parts(data: ArticleData, horizon: int) -> tuple[dict[str, Prices], dict[str, Prices]]:
    length = data.window + data.length + horizon + 1
    both = []
    for part, count in ((TRAINING, data.n_series), (HELD_OUT, data.val_series)):
        prices = article_series(
            count,
            length,
            seed=data.seed,
            part=part,
            noise_std=data.noise_std,
            frequencies=(data.frequencies[0], data.frequencies[1]),
        )
        both.append({f"{i}": row for i, row in enumerate(prices)})
    return both[0], both[1]


def _checked(name: str, prices: Prices) -> Prices:
    """What a data source gave, be it one of your own."""
    prices = np.asarray(prices, dtype=np.float64)
    if prices.ndim != 1 or not np.isfinite(prices).all():
        raise ValueError(f"{name} is not a sequence of finite prices")
    return prices


def _split(name: str, prices: Prices, data: SplitData, horizon: int) -> tuple[Prices, Prices]:
    """The last ``val_fraction`` of a series is held out; it may look back for its window."""
    n, window = len(prices), data.window
    v = math.floor(data.val_fraction * n + 1e-9)  # 0.29 · 100 is 28.999999999999996
    trained, tested = n - v - window - horizon - 1, v - horizon - 1
    if trained < 1 or tested < 1:
        part, has = ("training part", n - v) if trained < 1 else ("held-out part", v)
        needs = (window if trained < 1 else 0) + horizon + 2
        raise ValueError(
            f"{name} has {n} prices, {has} of them in its {part}, which needs at least {needs} for window {window} and "
            f"horizon {horizon} (val_fraction {data.val_fraction:g}; data.horizon shortens it)"
        )
    training = prices[: n - v]
    if np.ptp(training) == 0:
        raise ValueError(f"{name} never changes in its training part ({len(training)} prices of {training[0]:g})")
    return training, prices[n - v - window :]


def _fees(data: DataConfig, training: dict[str, Prices], shared: bool) -> list[float]:
    if data.fee_unit == "price":
        return [data.fee] * len(training)
    changes = [np.diff(prices) for prices in training.values()]
    if shared:
        return [data.fee * float(np.std(np.concatenate(changes)))] * len(training)
    return [data.fee * float(np.std(change)) for change in changes]

"""Prices and what is learnt of them, as sequences ready to train on."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tbptt.data.features import LagFeatures, Scaler
from tbptt.data.options import DataConfig, PricesData
from tbptt.data.prices import Prices
from tbptt.data.sequences import Sequences
from tbptt.data.split import Parts, load_parts
from tbptt.tasks.q_values import q_values


@dataclass(frozen=True)
class Prepared:
    """Data, ready to train on.

    Attributes:
        training, held_out: the sequences.
        scaler: fitted on the training part only.
        fingerprint: of all prices.
        baseline: held-out loss of predicting the training mean.
    """

    training: Sequences
    held_out: Sequences
    scaler: Scaler
    fingerprint: str
    baseline: float


def prepare(data: DataConfig) -> Prepared:
    """Raises ValueError where the data cannot be used."""
    parts = load_parts(data)
    fees = np.array(parts.fees)
    prices, q, steps = _padded(parts, parts.training, data.gamma, fees)
    scaler = Scaler.fit(prices, torch.tensor(steps), q, parts.window, data.features, parts.shared_scale)
    scaler = replace(scaler, fee=torch.from_numpy(fees[:1] if parts.shared_scale else fees))
    training = _sequences(prices, q, steps, scaler, data)
    prices, q, steps = _padded(parts, parts.held_out, data.gamma, fees[0] if parts.shared_scale else fees)
    held_out = _sequences(prices, q, steps, scaler, data)
    return Prepared(training, held_out, scaler, parts.fingerprint(), mean_loss(held_out))


class PreparedLast:
    """:func:`prepare`, but what it gave last is given again for the same data: a worker's trials mostly share theirs,
    which take 0.3 s to prepare."""

    def __init__(self) -> None:
        self._key: object = None
        self._last: Prepared | None = None

    def __call__(self, data: DataConfig) -> Prepared:
        path = Path(data.path) if isinstance(data, PricesData) else None
        file = path.stat() if path and path.exists() else None
        key = (repr(data), file and (file.st_mtime_ns, file.st_size, file.st_ino))
        if self._last is None or self._key != key:
            self._last = None  # room for the new one
            self._key, self._last = key, prepare(data)
        return self._last


def _padded(
    parts: Parts, series: dict[str, Prices], gamma: float, fee: float | np.ndarray
) -> tuple[Tensor, Tensor, list[int]]:
    """Series of different lengths as one array: prices (B, W + T), Q-values (B, T, 2), the steps of each."""
    rows = list(series.values())
    longest = max(map(len, rows))
    # The last price repeated is a future without change: Q is 0 there, and 0 is where the recursion starts.
    prices = np.stack([np.pad(row, (0, longest - len(row)), mode="edge") for row in rows])
    length = longest - parts.window - parts.horizon - 1
    q = q_values(prices[:, parts.window :], gamma, fee)[:, :length]
    return torch.from_numpy(prices[:, : parts.window + length]), torch.from_numpy(q), [parts.steps(row) for row in rows]


def _sequences(prices: Tensor, q: Tensor, steps: list[int], scaler: Scaler, data: DataConfig) -> Sequences:
    length = q.shape[1]
    mask = (torch.arange(length) < torch.tensor(steps)[:, None]).float()  # (B, T)
    features = LagFeatures(prices, scaler, data.window, data.features)
    targets = scaler.scale_targets(q).float()
    return Sequences(features, targets, None if min(steps) == length else mask, steps)


def mean_loss(sequences: Sequences) -> float:
    """The loss of predicting the training mean, which is zero in standardised units."""
    zeros = torch.zeros_like(sequences.targets)
    return float(sequences.squared_error(zeros.double(), 0, sequences.length)) / (2 * sequences.valid_steps)

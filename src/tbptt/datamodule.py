"""From a data config to sequences on the device: features, targets, scaling, padding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from tbptt.bptt import Sequences, mean_loss
from tbptt.config import DataConfig, PricesData
from tbptt.features import LagFeatures, Scaler
from tbptt.parts import Parts, load_parts
from tbptt.series import Prices
from tbptt.targets import q_values


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


class SequenceDataModule(pl.LightningDataModule):
    """Both parts as one batch each: the whole set of sequences, which stays on the device.

    Attributes:
        training, held_out, scaler, fingerprint, baseline: see :class:`Prepared`.

    Raises:
        ValueError: the data cannot be used.
    """

    def __init__(self, data: DataConfig, prepare: Callable[[DataConfig], Prepared] = prepare):
        super().__init__()
        found = prepare(data)
        self.training, self.held_out, self.scaler = found.training, found.held_out, found.scaler
        self.fingerprint, self.baseline = found.fingerprint, found.baseline

    def setup(self, stage: str) -> None:
        """Move the data to the device, once."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.training, self.held_out = self.training.to(device), self.held_out.to(device)

    def train_dataloader(self) -> "OneBatch":
        return OneBatch(self.training)

    def val_dataloader(self) -> "OneBatch":
        return OneBatch(self.held_out)

    def transfer_batch_to_device(self, batch: Sequences, device: torch.device, dataloader_idx: int) -> Sequences:
        """It is there already."""
        return batch


class OneBatch:
    """A loader of a single batch. PyTorch's DataLoader would draw from the global generator at every epoch."""

    def __init__(self, batch: Sequences):
        self.batch = batch

    def __iter__(self) -> Iterator[Sequences]:
        yield self.batch

    def __len__(self) -> int:
        return 1


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

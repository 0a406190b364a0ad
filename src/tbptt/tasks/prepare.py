"""Prices and what is learnt of them, as sequences ready to train on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tbptt.data.features import LagFeatures, Scaler
from tbptt.data.options import DataConfig, PricesData
from tbptt.data.prices import Prices
from tbptt.data.sequences import Sequences
from tbptt.data.split import Split, load_split
from tbptt.options.own import said_of
from tbptt.tasks.options import Array, TaskConfig
from tbptt.tasks.try_out import mixing_of, targets_of


@dataclass(frozen=True)
class Prepared:
    """Data, ready to train on.

    Attributes:
        train, val: the sequences.
        scaler: fitted on the training part only.
        fingerprint: of all prices.
        baseline: held-out loss of predicting the training mean.
    """

    train: Sequences
    val: Sequences
    scaler: Scaler
    fingerprint: str
    baseline: float


def prepare(data: DataConfig, task: TaskConfig) -> Prepared:
    """Raises ValueError where the data cannot be used, or the task does not give what it says."""
    split = load_split(data, task)
    prices, targets, steps = _padded(split, split.train, task)
    mixing = mixing_of(task)
    scaler = Scaler.fit(
        prices,
        torch.tensor(steps),
        targets,
        split.window,
        data.features,
        split.shared_scale,
        common_scale=task.common_scale,
        mixing=None if mixing is None else torch.from_numpy(mixing),
    )
    scaler = replace(scaler, fee=_fee(task, split.change_std))
    train = _sequences(prices, targets, steps, scaler, data, task)
    prices, targets, steps = _padded(split, split.val, task)
    val = _sequences(prices, targets, steps, scaler, data, task)
    return Prepared(train, val, scaler, split.fingerprint(), baseline_loss(train, val, task))


def _fee(task: TaskConfig, change_std: Array) -> Tensor | None:
    """What a task's change of side costs, (S,) float64. Raises ValueError where it gives something else."""
    with said_of(type(task), f"task={task.name}: change_cost"):
        given = task.change_cost(change_std)
        cost = None if given is None else np.array(given, dtype=np.float64)
    if cost is not None and cost.shape != change_std.shape:
        raise ValueError(f"task={task.name}: change_cost gives {cost.shape}; takes {change_std.shape}, as change_std")
    return None if cost is None else torch.from_numpy(cost)


class PreparedLast:
    """:func:`prepare`, but what it gave last is given again for the same data and task: a worker's trials mostly share
    theirs, which take 0.3 s to prepare."""

    def __init__(self) -> None:
        self._key: object = None
        self._last: Prepared | None = None

    def __call__(self, data: DataConfig, task: TaskConfig) -> Prepared:
        path = Path(data.path) if isinstance(data, PricesData) else None
        file = path.stat() if path and path.exists() else None
        key = (repr(data), repr(task), file and (file.st_mtime_ns, file.st_size, file.st_ino))
        if self._last is None or self._key != key:
            self._last = None  # room for the new one
            self._key, self._last = key, prepare(data, task)
        return self._last


def _padded(split: Split, series: dict[str, Prices], task: TaskConfig) -> tuple[Tensor, Tensor, list[int]]:
    """Series of different lengths as one array: prices (B, W + T), targets (B, T, O), the steps of each."""
    rows = list(series.values())
    longest = max(map(len, rows))
    # The last price repeated is a future without change, from which no target of a step that counts is computed.
    prices = np.stack([np.pad(row, (0, longest - len(row)), mode="edge") for row in rows])
    length = longest - split.window - split.ahead
    targets = targets_of(task, prices[:, split.window :], split.change_std, length)
    steps = [split.steps(row) for row in rows]
    return torch.from_numpy(prices[:, : split.window + length]), torch.from_numpy(targets), steps


def _sequences(
    prices: Tensor, targets: Tensor, steps: list[int], scaler: Scaler, data: DataConfig, task: TaskConfig
) -> Sequences:
    length = targets.shape[1]
    mask = (torch.arange(length) < torch.tensor(steps)[:, None]).float()  # (B, T)
    features = LagFeatures(prices, scaler, data.window, data.features)
    scaled = scaler.scale_targets(targets).float()
    return Sequences(features, scaled, None if min(steps) == length else mask, steps, task, scaler)


def baseline_loss(train: Sequences, val: Sequences, task: TaskConfig) -> float:
    """The held-out loss of the task's constant prediction, by default the training mean."""
    constant = task.baseline(train.targets, train.mask)
    prediction = constant.to(val.targets).expand_as(val.targets)
    return float(val.loss(prediction, 0, val.length)) / val.count(0, val.length)


def fingerprint_of(cfg: DictConfig) -> str:
    """Of all prices that a config stands for. Raises ValueError where they cannot be used."""
    data, task = OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)
    return load_split(cast(DataConfig, data), cast(TaskConfig, task)).fingerprint()

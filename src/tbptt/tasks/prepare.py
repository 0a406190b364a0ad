"""Prices and what is learnt of them, as sequences ready to train on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from tbptt.tasks.try_out import mixing_of, own_baselines, targets_of


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data, ready to train on.

    Attributes:
        train, val: the sequences of these parts; :meth:`test` makes those of the test part on request.
        scaler: fitted on the training part only.
        split: the prices of each part.
        data, task: the configs that the sequences were made from.
    """

    train: Sequences
    val: Sequences
    scaler: Scaler
    split: Split
    data: DataConfig
    task: TaskConfig

    @property
    def baseline(self) -> float:
        """The loss on val of the task's constant prediction, by default the training mean."""
        return self.val.baseline

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of all prices."""
        return self.split.fingerprint()

    def test(self) -> Sequences | None:
        """The sequences of the test part; None if there is none.

        Each call makes them anew, as a study needs them for one of its trials only.
        """
        if not self.split.test:
            return None
        return _scored("test", self.split, self.train, self.scaler, self.data, self.task)


def prepare(data: DataConfig, task: TaskConfig) -> Prepared:
    """Prepare data for a task. Raises ValueError if the data cannot be used, or the task returns something wrong."""
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
    own_baselines(task, train.features(0, min(2, train.length)))  # a mistake in them is told before a run begins
    return Prepared(train, _scored("val", split, train, scaler, data, task), scaler, split, data, task)


def _scored(part: str, split: Split, train: Sequences, scaler: Scaler, data: DataConfig, task: TaskConfig) -> Sequences:
    """The sequences of ``val`` or ``test``."""
    series: dict[str, Prices] = getattr(split, part)
    prices, targets, steps = _padded(split, series, task)
    warm = [split.warm[part].get(name, 0) for name in series]
    found = _sequences(prices, targets, steps, scaler, data, task, warm)
    found.changes = _changes(series, split.window, found.length)
    found.change_std = torch.from_numpy(split.change_std)
    found.baseline = baseline_loss(train, found, task)
    found.rows = _rows(split, part, found.length) if split.by_time else None
    return found


def _changes(series: dict[str, Prices], window: int, length: int) -> Tensor:
    """The change of each price to the next, (B, T) float64; 0 at padding, and at a step without a next price."""
    found = np.zeros((len(series), length))
    for row, prices in zip(found, series.values(), strict=True):
        change = np.diff(prices[window:])[:length]
        row[: len(change)] = change
    return torch.from_numpy(found)


def _rows(split: Split, part: str, length: int) -> Tensor:
    """The row of the panel of each step, (B, T) int64; any number at padding."""
    found = np.zeros((len(split.rows_of[part]), length), dtype=np.int64)
    for row, rows in zip(found, split.rows_of[part].values(), strict=True):
        own = rows[split.window : split.window + length]
        row[: len(own)] = own
    return torch.from_numpy(found)


def _fee(task: TaskConfig, change_std: Array) -> Tensor | None:
    """The cost of a task's change of side, (S,) float64; None if it has none. Raises ValueError for another shape."""
    with said_of(type(task), f"task={task.name}: change_cost"):
        given = task.change_cost(change_std)
        cost = None if given is None else np.array(given, dtype=np.float64)
    if cost is not None and cost.shape != change_std.shape:
        raise ValueError(f"task={task.name}: change_cost gives {cost.shape}; takes {change_std.shape}, as change_std")
    return None if cost is None else torch.from_numpy(cost)


class PreparedLast:
    """:func:`prepare` with a cache of one: the same data and task as last time give the same result again.

    Most trials of a worker share their data and task, and to prepare these takes 0.3 s.
    """

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
    # The padding repeats the last price. No target of a valid step depends on it.
    prices = np.stack([np.pad(row, (0, longest - len(row)), mode="edge") for row in rows])
    length = longest - split.window - split.ahead
    targets = targets_of(task, prices[:, split.window :], split.change_std, length)
    steps = [split.steps(row) for row in rows]
    return torch.from_numpy(prices[:, : split.window + length]), torch.from_numpy(targets), steps


def _sequences(
    prices: Tensor,
    targets: Tensor,
    steps: list[int],
    scaler: Scaler,
    data: DataConfig,
    task: TaskConfig,
    warm: Sequence[int] = (),
) -> Sequences:
    at = torch.arange(targets.shape[1])
    firsts = torch.tensor(warm or [0] * len(steps))
    mask = ((at < torch.tensor(steps)[:, None]) & (at >= firsts[:, None])).float()  # (B, T)
    features = LagFeatures(prices, scaler, data.window, data.features)
    scaled = scaler.scale_targets(targets).float()
    return Sequences(features, scaled, None if mask.all() else mask, steps, task, scaler, list(warm))


def baseline_loss(train: Sequences, scored: Sequences, task: TaskConfig) -> float:
    """The loss of the task's constant prediction, by default the training mean."""
    constant = task.baseline(train.targets, train.mask)
    prediction = constant.to(scored.targets).expand_as(scored.targets)
    return float(scored.loss(prediction, 0, scored.length)) / scored.count(0, scored.length)


def fingerprint_of(cfg: DictConfig) -> str:
    """The fingerprint of all prices of a config. Raises ValueError if they cannot be used."""
    data, task = OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)
    return load_split(cast(DataConfig, data), cast(TaskConfig, task)).fingerprint()

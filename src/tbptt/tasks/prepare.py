"""Prices and what is learnt of them, as sequences ready to train on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tbptt.data.features import LagFeatures, Scaler
from tbptt.data.options import DataConfig, SplitData
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
        warnings: a line for each other input that says nothing in the training part of a series.
    """

    train: Sequences
    val: Sequences
    scaler: Scaler
    split: Split
    data: DataConfig
    task: TaskConfig
    warnings: tuple[str, ...] = ()

    @property
    def baseline(self) -> float:
        """The loss on val of the task's constant prediction, by default the training mean."""
        return self.val.baseline

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of all prices."""
        return self.split.fingerprint()

    def on(self, device: torch.device) -> tuple[Sequences, Sequences]:
        """train and val on a device. They are moved once: all runs that were prepared together share them."""
        if device not in self._on:
            self._on[device] = self.train.to(device), self.val.to(device)
        return self._on[device]

    @cached_property
    def _on(self) -> dict[torch.device, tuple[Sequences, Sequences]]:
        return {}

    def test(self) -> Sequences | None:
        """The sequences of the test part; None if there is none.

        Each call makes them anew, as a study needs them for one of its trials only.
        """
        if not self.split.test:
            return None
        return _scored("test", self.split, self.train, self.scaler, self.data, self.task)


def prepare(data: DataConfig, task: TaskConfig) -> Prepared:
    """Prepare data for a task. Raises ValueError if the data cannot be used, or the task returns something wrong."""
    return prepare_split(load_split(data, task), data, task)


def prepare_split(split: Split, data: DataConfig, task: TaskConfig) -> Prepared:
    """:func:`prepare` for data that are split already."""
    prices, targets, steps = _padded(split, split.train, task)
    extra = _extra(split, "train", data)
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
    if extra is not None:
        scaler = scaler.with_extra(extra, torch.tensor(steps), split.window, split.shared_scale)
    warnings = _say_nothing(scaler, extra, steps, split, data)
    train = _sequences(prices, targets, steps, scaler, data, task, extra=extra)
    own_baselines(task, train.features(0, min(2, train.length)))  # a mistake in them is told before a run begins
    val = _scored("val", split, train, scaler, data, task)
    return Prepared(train, val, scaler, split, data, task, warnings)


def _scored(part: str, split: Split, train: Sequences, scaler: Scaler, data: DataConfig, task: TaskConfig) -> Sequences:
    """The sequences of ``val`` or ``test``."""
    series: dict[str, Prices] = getattr(split, part)
    prices, targets, steps = _padded(split, series, task)
    warm = [split.warm[part].get(name, 0) for name in series]
    found = _sequences(prices, targets, steps, scaler, data, task, warm, _extra(split, part, data))
    found.changes = _changes(series, split.window, found.length)
    found.change_std = torch.from_numpy(split.change_std)
    found.baseline = baseline_loss(train, found, task)
    found.rows = _rows(split, part, found.length) if split.by_time else None
    return found


def of_rows(
    series: dict[str, Prices],
    inputs: dict[str, Prices],
    scaler: Scaler,
    change_std: Array | None,
    data: DataConfig,
    task: TaskConfig,
) -> Sequences:
    """Sequences of prices that a trained network is to be measured on, as those of ``val``, without a baseline.

    Args:
        series: by name; each array holds ``window`` prices to look back to, the steps, and ``ahead`` more.
        inputs: by name, (N, D), the run's other inputs of each price; empty if it has none.
        scaler: the run's, of these series.
        change_std: (S,); None if it is not known. Then metrics that need it cannot be measured.
    """
    shared, std = len(scaler.input_std) == 1, np.ones(len(scaler.input_std)) if change_std is None else change_std
    given = {"val": inputs} if inputs else {}
    split = Split({}, series, {}, {"val": {}}, 0, data.window, task.ahead, shared, std, given)
    prices, targets, steps = _padded(split, series, task)
    found = _sequences(prices, targets, steps, scaler, data, task, extra=_extra(split, "val", data))
    if change_std is not None:
        found.changes = _changes(series, split.window, found.length)
        found.change_std = torch.from_numpy(change_std)
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
        key = (repr(data), repr(task), data.version())
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


def _extra(split: Split, part: str, data: DataConfig) -> Tensor | None:
    """The other inputs of a part, beside the prices of :func:`_padded`: (B, W + T, D) float64, NaN where one is missing
    and in the padding. None if the run has none.

    Raises ValueError if the data source does not give those that the config names.
    """
    if not (names := _names(data)):
        return None
    given = [] if part not in split.inputs else names if split.panel is None else list(split.panel.inputs)
    if lacks := [name for name in names if name not in given]:
        has = ", ".join(given) or "none"
        raise ValueError(f"data.inputs: {data.name} has no input {', '.join(lacks)} (it has: {has})")
    columns = [given.index(name) for name in names]
    series: dict[str, Prices] = getattr(split, part)
    longest = max(map(len, series.values()))
    found = np.full((len(series), longest - split.ahead, len(names)), np.nan)
    for row, (name, prices) in zip(found, series.items(), strict=True):
        values = split.inputs[part][name]
        if values.shape != (len(prices), len(given)):
            takes = f"{(len(prices), len(given))}, a row for each price"
            raise ValueError(f"{data.name}: the inputs of {name} are {values.shape}; takes {takes}")
        row[: len(values)] = values[: len(row), columns]
    return torch.from_numpy(found)


def _names(data: DataConfig) -> list[str]:
    return list(data.inputs) if isinstance(data, SplitData) else []


def _say_nothing(
    scaler: Scaler, extra: Tensor | None, steps: Sequence[int], split: Split, data: DataConfig
) -> tuple[str, ...]:
    """A line for each input that is the same at all steps of the training part of a series, or never known there."""
    if extra is None or scaler.extra_std is None:
        return ()
    lines = []
    for i, name in enumerate(_names(data)):
        for row in scaler.extra_std[:, i].isinf().nonzero().flatten().tolist():
            rows = range(len(steps)) if split.shared_scale else [row]
            known = any(extra[b, split.window : split.window + steps[b], i].isfinite().any() for b in rows)
            of = "" if split.shared_scale else f" of {list(split.train)[row]}"
            never = "never changes" if known else "is never known"
            lines.append(f"{name} {never} in the training part{of}: it says nothing there")
    return tuple(lines)


def _sequences(
    prices: Tensor,
    targets: Tensor,
    steps: list[int],
    scaler: Scaler,
    data: DataConfig,
    task: TaskConfig,
    warm: Sequence[int] = (),
    extra: Tensor | None = None,
) -> Sequences:
    at = torch.arange(targets.shape[1])
    firsts = torch.tensor(warm or [0] * len(steps))
    mask = ((at < torch.tensor(steps)[:, None]) & (at >= firsts[:, None])).float()  # (B, T)
    lags = data.input_window if isinstance(data, SplitData) else 1
    features = LagFeatures(prices, scaler, data.window, data.features, extra=extra, input_window=lags)
    scaled = scaler.scale_targets(targets).float()
    return Sequences(features, scaled, None if mask.all() else mask, steps, task, scaler, list(warm))


def baseline_loss(train: Sequences, scored: Sequences, task: TaskConfig) -> float:
    """The loss of the task's constant prediction, by default the training mean."""
    return constant_loss(task.baseline(train.targets, train.mask), scored)


def constant_loss(constant: Tensor, scored: Sequences) -> float:
    """The loss of a constant prediction, (O,) standardised."""
    prediction = constant.to(scored.targets).expand_as(scored.targets)
    return float(scored.loss(prediction, 0, scored.length)) / scored.count(0, scored.length)

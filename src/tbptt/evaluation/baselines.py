"""Baselines: predictions without a network, which a network has to beat."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from tbptt.data.options import DataConfig
from tbptt.data.sequences import Sequences
from tbptt.system.runtime import full_float32
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import Prepared
from tbptt.tasks.try_out import own_baselines

MEAN, ZERO, RIDGE, CLOCK = "mean", "zero", "ridge", "clock"
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of ridge regression, for inputs of variance 1
CHUNK = 500  # steps; the inputs of one chunk are in memory at once


class Baselines:
    """The baselines' predictions; all are fitted on the training part.

    ``mean`` is the task's constant prediction, by default the training mean. ``zero`` predicts 0 in price units.
    ``ridge`` is linear in the step's inputs, with the penalty that is best on val. ``clock`` uses the step's number
    alone; only some data have it. A task of your own may bring more (``TaskConfig.baselines``).
    """

    @full_float32()
    def __init__(self, prepared: Prepared):
        device = prepared.train.features.past.device  # training may have moved these, and not the targets
        train, val = prepared.train.to(device), prepared.val.to(device)
        self._data, self._task = prepared.data, prepared.task
        self._has_own = type(prepared.task).baselines is not TaskConfig.baselines
        self._constant = prepared.task.baseline(train.targets, train.mask)
        self._ridge = best_ridge(train, val)
        clock = _clock(prepared.data, 0, 1)
        self._clock = None if clock is None else _least_squares(_moments(train, _clock_chunks(train, self._data)), 0.0)

    @full_float32()
    def predict(self, part: Sequences) -> dict[str, Float[Tensor, "B T O"]]:
        """By name, standardised."""
        shape, scaler = part.targets, part.scaler
        found = {MEAN: self._constant.to(shape).expand_as(shape)}
        if scaler is not None:
            found[ZERO] = scaler.scale_targets(torch.zeros_like(shape, dtype=torch.float64, device="cpu")).to(shape)
        found[RIDGE] = _linear(part, _inputs(part), self._ridge)
        for start, stop, x in _inputs(part) if self._has_own else ():
            for name, y in own_baselines(self._task, x).items():
                found.setdefault(name, torch.empty_like(shape))[:, start:stop] = y
        if self._clock is not None:
            found[CLOCK] = _linear(part, _clock_chunks(part, self._data), self._clock)
        return found


_KNOWN: "WeakKeyDictionary[Prepared, Baselines]" = WeakKeyDictionary()


def baselines_of(prepared: Prepared) -> Baselines:
    """The fitted baselines, cached: most trials of a worker share their data, so these are fitted only once."""
    if prepared not in _KNOWN:
        _KNOWN[prepared] = Baselines(prepared)
    return _KNOWN[prepared]


# --- linear in something ---------------------------------------------------------------------------------------------

Chunks = Iterator[tuple[int, int, Tensor]]  # first step, end, (B, K, F)
Sums = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # count, Σx, Σxxᵀ, Σy, Σxyᵀ
Fit = tuple[Tensor, Tensor]  # weights (F, O), constant (O,)


def best_ridge(train: Sequences, val: Sequences) -> Fit:
    """Ridge regression of the targets on the inputs, in closed form; the penalty is the one with the least val loss."""
    sums = _moments(train, _inputs(train))
    fits = [_least_squares(sums, penalty) for penalty in PENALTIES]
    weights, constants = torch.cat([w for w, _ in fits], dim=1), torch.cat([c for _, c in fits])
    losses = torch.zeros(len(fits))
    for start, stop, x in _inputs(val):  # all penalties at once, as making the inputs takes longest
        for i, y in enumerate((x @ weights + constants).chunk(len(fits), dim=-1)):
            losses[i] += val.loss(y, start, stop).cpu()
    return fits[int(losses.argmin())]


def _inputs(part: Sequences) -> Chunks:
    for start in range(0, part.length, CHUNK):
        stop = min(start + CHUNK, part.length)
        yield start, stop, part.features(start, stop)


def _clock(data: DataConfig, start: int, stop: int) -> Float[Tensor, "T F"] | None:
    found = data.clock(start, stop)
    return None if found is None else torch.from_numpy(found)


def _clock_chunks(part: Sequences, data: DataConfig) -> Chunks:
    features = _clock(data, 0, part.length)
    assert features is not None
    yield 0, part.length, features.to(part.targets).expand(part.batch, -1, -1)


def _moments(part: Sequences, chunks: Chunks) -> Sums:
    """Sums over the scored steps, in float64 over the chunks."""
    found: list[Any] = []
    for start, stop, x in chunks:
        x, y = x.flatten(0, 1), part.targets[:, start:stop].flatten(0, 1).to(x)  # (N, F), (N, O)
        if part.mask is not None:
            at = part.mask[:, start:stop].flatten().bool()
            x, y = x[at], y[at]
        new = [torch.tensor(float(len(x))), x.sum(0), x.T @ x, y.sum(0), x.T @ y]
        found = [old + more.double() for old, more in zip(found or [0.0] * 5, new, strict=True)]
    return found[0], found[1], found[2], found[3], found[4]


def _least_squares(sums: Sums, penalty: float) -> Fit:
    """Weights and constant that minimise the mean squared error plus ``penalty`` times the sum of squared weights."""
    count, x, xx, y, xy = sums
    mean_x, mean_y = x / count, y / count
    spread = xx / count - torch.outer(mean_x, mean_x) + penalty * torch.eye(len(x)).to(x)
    shared = xy / count - torch.outer(mean_x, mean_y)
    weights = torch.linalg.lstsq(spread.cpu(), shared.cpu(), driver="gelsd").solution.to(x)  # inputs may be alike
    return weights.float(), (mean_y - mean_x @ weights).float()


def _linear(part: Sequences, chunks: Chunks, fit: Fit) -> Float[Tensor, "B T O"]:
    weights, constant = (values.to(part.targets.device) for values in fit)
    found = torch.empty_like(part.targets)
    for start, stop, x in chunks:
        found[:, start:stop] = (x @ weights + constant).to(found)
    return found

"""The network's predictions at every price of a panel, series by series."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tbptt.data.borders import TEST, TRAIN, VAL
from tbptt.data.panel import Panel
from tbptt.serving.given import Given
from tbptt.serving.predictor import Predictor
from tbptt.serving.trained import Trained
from tbptt.tasks.decisions import held

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of one series, N prices.

    Attributes:
        scaled: (N, O) float32, standardised; NaN where there is no prediction.
        values: (N, O), in the units of the task's targets.
        side: (N,) 1 long, -1 short, 0 where there is no prediction.
        held: the side that was held before the first of them; 0 if none was.
        first: the first price that is predicted, from 0.
        past: (W,) the prices before ``first``, NaN where there were none; they may be in a state, and not in the data.
        beside: (W, D) the other inputs of these.
        free: prices at which the side is free to take, as at the first step.
    """

    scaled: NDArray[np.float32]
    values: Numbers
    side: NDArray[np.int8]
    held: int
    first: int
    past: Numbers
    beside: Numbers
    free: tuple[int, ...] = ()

    @property
    def there(self) -> NDArray[np.bool_]:
        """(N,) whether there is a prediction."""
        return np.asarray(np.isfinite(self.values).any(axis=1))


def in_parts(trained: Trained, given: Given, device: str = "cpu") -> dict[str, Steps]:
    """The predictions of a run's own data, each part as the run was evaluated: the state is zero before the part's
    warm-up, and the first side of a part is free to take."""
    assert given.at is not None
    panel, warm = given.panel, int(getattr(given.data, "warm_steps", 0))
    found = {name: _empty(trained, len(each.prices), 0, free=given.at[name]) for name, each in panel.series.items()}
    for part in (TRAIN, VAL, TEST):
        ranges = {name: _range(part, at, trained.window, warm) for name, at in given.at.items()}
        spans = {name: (start, stop) for name, (start, _, stop) in ranges.items()}
        if not any(stop > begin for _, begin, stop in ranges.values()):
            continue
        predictor = Predictor(trained, len(panel.series), device)
        steps = {name: _empty(trained, len(each.prices), 0) for name, each in panel.series.items()}
        _fill(predictor, panel, spans, steps)
        for i, (name, (_, begin, stop)) in enumerate(ranges.items()):
            own, of = slice(begin, stop), found[name]
            of.scaled[own], of.values[own] = steps[name].scaled[own], steps[name].values[own]
            of.side[own] = _sides(trained, i, steps[name].values[own])
    return found


def _range(part: int, at: tuple[int, ...], window: int, warm: int) -> tuple[int, int, int]:
    """Where a part's prices start, with what it looks back to and its warm-up; where it begins, and where it stops."""
    first, val, _, test, n = at
    begin, stop = {TRAIN: (first, val), VAL: (val, test), TEST: (test, n)}[part]
    if part == TRAIN:
        return begin, begin, stop
    return max(0, begin - window - min(warm, max(0, begin - window))), begin, stop


def _sides(trained: Trained, series: int, values: Numbers) -> NDArray[np.int8]:
    """The sides to hold at the steps of a part, (n,); 0 where there is no prediction."""
    found, there = np.zeros(len(values), dtype=np.int8), np.isfinite(values).all(axis=1)
    if trained.task.decides and there.any():
        q = torch.from_numpy(values[there])[None]
        cost = 2 * fees(trained)[series if len(fees(trained)) > 1 else 0].reshape(1, 1)
        gain = q[..., 0] - q[..., 1]
        found[there] = 2 * held(gain, cost, gain[:, 0] > 0)[0].numpy() - 1
    return found


def fees(trained: Trained) -> torch.Tensor:
    """The cost of closing or opening a side, (S,) in price units."""
    fee = trained.scaler.fee
    return torch.zeros(1, dtype=torch.float64) if fee is None else fee.double()


def in_one_go(predictor: Predictor, panel: Panel, firsts: Mapping[str, int]) -> dict[str, Steps]:
    """The predictions of each series from its price ``firsts`` on, the predictor's state carried."""
    before = predictor.state_dict()
    sides, past, beside = before["side"].tolist(), before["past"].numpy().copy(), before["extra"].numpy().copy()
    found = {}
    for i, (name, each) in enumerate(panel.series.items()):
        empty = _empty(predictor.trained, len(each.prices), sides[i], firsts[name])
        found[name] = replace(empty, past=past[i], beside=beside[i])
    _fill(predictor, panel, {name: (firsts[name], len(each.prices)) for name, each in panel.series.items()}, found)
    return found


def _empty(trained: Trained, count: int, side: int, first: int = 0, free: tuple[int, ...] = ()) -> Steps:
    outputs = trained.task.outputs
    scaled, values = np.full((count, outputs), np.nan, dtype=np.float32), np.full((count, outputs), np.nan)
    past, beside = np.full(trained.window, np.nan), np.full((trained.window, len(trained.inputs)), np.nan)
    return Steps(scaled, values, np.zeros(count, dtype=np.int8), side, first, past, beside, free)


def _fill(predictor: Predictor, panel: Panel, spans: Mapping[str, tuple[int, int]], into: Mapping[str, Steps]) -> None:
    """Predict the prices ``spans`` of each series, and put the predictions into their places."""
    for prices, extra, places in _blocks(panel, spans, predictor.batch):
        found = predictor(prices, extra if panel.inputs else None)
        for i, (name, (at, columns)) in enumerate(places.items()):
            steps = into[name]
            steps.scaled[at], steps.values[at] = found.scaled[i, columns].numpy(), found.values[i, columns].numpy()
            if found.side is not None:
                steps.side[at] = found.side[i, columns].numpy()


def _blocks(
    panel: Panel, spans: Mapping[str, tuple[int, int]], batch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, dict[str, tuple[slice, NDArray[np.int64]]]]]:
    """Prices (B, n) and inputs (B, n, D) row by row, NaN where a series has none; and for each series, which of its
    prices are in which columns. A block takes some 10 MB."""
    rows = {name: panel.series[name].rows[start:stop] for name, (start, stop) in spans.items()}
    some = [each for each in rows.values() if len(each)]
    if not some:
        return
    low, high = min(int(each[0]) for each in some), max(int(each[-1]) for each in some) + 1
    length = max(1000, 10**6 // (batch * (1 + len(panel.inputs))))
    for begin in range(low, high, length):
        end = min(begin + length, high)
        prices = np.full((batch, end - begin), np.nan)
        extra = np.full((batch, end - begin, len(panel.inputs)), np.nan)
        places = {}
        for i, (name, (start, _)) in enumerate(spans.items()):
            a, b = np.searchsorted(rows[name], (begin, end))
            at = slice(start + int(a), start + int(b))
            columns = rows[name][a:b] - begin
            prices[i, columns], extra[i, columns] = panel.series[name].prices[at], panel.series[name].inputs[at]
            places[name] = at, columns
        yield torch.from_numpy(prices), torch.from_numpy(extra), places

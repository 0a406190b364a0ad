"""Where a run's parts begin in each series, kept with its checkpoints: so rows of another file can be told from those
that the network was trained on."""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tbptt.data.panel import Series, Times
from tbptt.data.prices import Prices
from tbptt.data.split import Split

Labels = NDArray[np.int8]
UNKNOWN, NEW, TRAIN, VAL, TEST = -1, 0, 1, 2, 3
WORDS = {UNKNOWN: "", NEW: "new", TRAIN: "train", VAL: "val", TEST: "test"}
# Between five borders: before the training part (of rolling folds), train, val, after val (of folds), test, later.
_BETWEEN = np.array([NEW, TRAIN, VAL, NEW, TEST, NEW], dtype=np.int8)


def borders_of(split: Split) -> dict[str, Any] | None:
    """The borders of each series' parts, in plain types for a checkpoint.

    Returns:
        ``at``: (B, 5) int64, the prices of each series, from 0, at which train, val, what is after val, and test
        begin, and their number; ``times``: the same as times in microseconds, None if there are none; ``sha256``: of
        each series' prices. B and the order are those of the training series. None for series that are generated.
    """
    if (panel := split.panel) is None:
        return None
    at = np.array([_borders(name, panel.series[name], split) for name in split.train], dtype=np.int64)
    times = None
    if panel.times is not None:
        each = zip(split.train, at, strict=True)
        times = torch.from_numpy(np.stack([_times(panel.series[name], row, panel.times) for name, row in each]))
    digests = [digest(panel.series[name].prices) for name in split.train]
    return {"at": torch.from_numpy(at), "times": times, "sha256": digests}


def _borders(name: str, series: Series, split: Split) -> tuple[int, ...]:
    def place(part: str, i: int) -> int:
        return int(np.searchsorted(series.rows, split.rows_of[part][name][i]))

    def begins(part: str) -> int:
        return place(part, split.window + split.warm[part].get(name, 0))

    n = len(series.rows)
    first, val = place("train", 0), place("train", -1) + 1
    begin, end = (begins("val"), place("val", -1) + 1) if split.scored("val", name) else (val, val)
    return first, begin, end, begins("test") if split.scored("test", name) else n, n


def _times(series: Series, at: NDArray[np.int64], times: Times) -> NDArray[np.int64]:
    """The times of these prices; of the one after the last, the next microsecond."""
    own = in_microseconds(times[series.rows])
    return np.append(own, own[-1] + 1)[at]


def in_microseconds(times: Times) -> NDArray[np.int64]:
    """Since 1970, (N,)."""
    found: NDArray[np.int64] = times.astype("datetime64[us]").astype(np.int64)
    return found


def digest(prices: Prices) -> str:
    """SHA-256 of prices."""
    return hashlib.sha256(np.ascontiguousarray(prices, dtype=np.float64).tobytes()).hexdigest()


def labels(borders: dict[str, Any], i: int, series: Series, times: Times | None) -> Labels:
    """The part of each price of a series, (N,): by its time, if the run and the series have times, else by its place,
    if the series begins with the run's prices. UNKNOWN if neither is so.

    Args:
        i: which of the run's series it is.
    """
    if times is not None and borders["times"] is not None:
        at, own = borders["times"][i].numpy(), in_microseconds(times[series.rows])
    else:
        at, own = borders["at"][i].numpy(), np.arange(len(series.prices))
        n = int(at[-1])
        if len(own) < n or digest(series.prices[:n]) != borders["sha256"][i]:
            return np.full(len(own), UNKNOWN, dtype=np.int8)
    found: Labels = _BETWEEN[np.searchsorted(at, own, side="right")]
    return found


def are_borders(value: Any) -> bool:
    """Whether this is what :func:`borders_of` returns."""
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"at", "times", "sha256"}:
        return False
    at, times, digests = value["at"], value["times"], value["sha256"]
    if not isinstance(digests, list) or not all(isinstance(each, str) for each in digests):
        return False
    return _are_places(at, len(digests)) and (times is None or _are_places(times, len(digests)))


def _are_places(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.int64 and tuple(value.shape) == (count, 5)

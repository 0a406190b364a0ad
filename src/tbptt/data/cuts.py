"""Where series are cut into the parts that train, choose and judge: each by itself, or all at the same times."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tbptt.data.options import SplitData, fold_of
from tbptt.data.panel import Panel, Rows, Times

Values = TypeVar("Values", bound=NDArray[Any])


class Ahead(Protocol):
    """The part of a task that is needed here."""

    shortened_by: ClassVar[str]  # the key that makes it look less far ahead, if there is one

    @property
    def ahead(self) -> int:
        """The number of prices after a step that its targets depend on."""


@dataclass(frozen=True)
class Cut:
    """Where a series of n prices is cut: [first, val) trains, [val, val_end) is chosen by, [test, n) is judged by.

    ``warm_val`` and ``warm_test`` steps before a part are its warm-up.
    """

    first: int
    val: int
    val_end: int
    test: int
    warm_val: int
    warm_test: int
    window: int

    @property
    def inner(self) -> tuple[int, ...]:
        """The borders of parts within the series."""
        return tuple(dict.fromkeys((self.first, self.val, self.val_end, self.test)))

    def of(self, values: Values) -> tuple[Values, Values, Values]:
        """Each part with what it looks back to, of prices or of what else there is for each price, (N, …).

        Copies would cost memory: these are views.
        """
        val = values[self.val - self.window - self.warm_val : self.val_end]
        test = values[self.test - self.window - self.warm_test :] if self.test < len(values) else values[:0]
        return values[max(0, self.first - self.window) : self.val], val, test  # type: ignore[return-value]


@dataclass(frozen=True)
class Cuts:
    """The cut of every series.

    Attributes:
        of: by series name.
        rows: the rows of the panel at which the parts of all series begin: train, val, what is after val, and test.
            None if each series is cut by itself.
    """

    of: Mapping[str, Cut]
    rows: tuple[int, ...] | None


def cuts_of(panel: Panel, data: SplitData, task: Ahead) -> Cuts:
    """The borders of all series' parts, in time order: train, val, test. With folds, the fold sets the borders.

    With ``split=each``, or where rows are no common times, the fractions are shares of each series. With ``split=time``
    all series are cut at the same rows, and the fractions are shares of all their prices together. For series with the
    same rows both come to the same.

    Raises:
        ValueError: a part would have too few prices of a series. By time, this holds for a series that ends before a
            part begins, and for one that begins after the training part: it could not be scored, or not be trained.
    """
    if data.split == "each" or not panel.shared:
        return Cuts({name: _cut_alone(name, len(each.prices), data, task) for name, each in panel.series.items()}, None)
    rows = _common_rows(panel, data)
    found = {}
    for name, each in panel.series.items():
        borders = tuple(int(at) for at in np.searchsorted(each.rows, rows))
        try:
            found[name] = _cut(name, len(each.prices), borders, data, task, bool(data.test_fraction))
        except ValueError as error:
            raise ValueError(f"{error}; {_by_time(panel, each.rows, rows)}") from None
    return Cuts(found, rows)


def _cut_alone(name: str, n: int, data: SplitData, task: Ahead) -> Cut:
    test = n - math.floor(data.test_fraction * n + 1e-9)  # 0.29 · 100 is 28.999999999999996
    first, end = 0, test
    if data.fold:
        k, folds = fold_of(data.fold) or (1, 1)
        pieces = [test * i // (folds + 1) for i in range(folds + 2)]
        val, end = pieces[k], pieces[k + 1]
        first = pieces[k - 1] if data.fold_window == "rolling" else 0
    else:
        val = test - math.floor(data.val_fraction * n + 1e-9)
    has_test = test < n or bool(data.test_fraction and data.test_fraction * n < 1)
    return _cut(name, n, (first, val, end, test), data, task, has_test)


def _common_rows(panel: Panel, data: SplitData) -> tuple[int, ...]:
    """The rows of the panel at which train, val, what is after val, and test begin.

    Test and val begin at the first rows that leave them at most their fraction of all prices. The pieces of folds end
    at the last rows that leave them at most their share.
    """
    counts = np.bincount(np.concatenate([each.rows for each in panel.series.values()]))
    rows = np.flatnonzero(counts)
    before = np.concatenate(([0], np.cumsum(counts[rows])))  # prices before each of these rows, and before the end
    total = int(before[-1])
    slack = 1e-9 * len(panel.series)  # as for one series

    def back_from(end: int, fraction: float) -> int:
        most = math.floor(fraction * total + slack)
        return int(np.searchsorted(before, before[end] - most))

    test = back_from(len(rows), data.test_fraction)
    first, end = 0, test
    if data.fold:
        k, folds = fold_of(data.fold) or (1, 1)
        shares = np.array([int(before[test]) * i // (folds + 1) for i in range(folds + 2)])
        pieces = np.searchsorted(before, shares, side="right") - 1
        val, end = int(pieces[k]), int(pieces[k + 1])
        first = int(pieces[k - 1]) if data.fold_window == "rolling" else 0
    else:
        val = back_from(test, data.val_fraction)
    after = np.append(rows, len(counts))
    return tuple(int(after[at]) for at in (first, val, end, test))


def _cut(name: str, n: int, borders: tuple[int, ...], data: SplitData, task: Ahead, has_test: bool) -> Cut:
    """The cut of a series of n prices at (first, val, end of val, test).

    Raises ValueError if a part would have too few prices.
    """
    first, val, end, test = borders
    window, ahead = data.window, task.ahead
    back = window - min(first, window)  # prices that have to come out of the training part itself
    parts = {"training": (val - first, back + ahead + 2), "validation": (end - val, ahead + 1)}
    if has_test:
        parts["test"] = (n - test, ahead + 1)
    for part, (has, needs) in parts.items():
        if has < needs:  # one step that trains has no spread to be scaled by
            shorter = f"; {task.shortened_by} shortens that" if task.shortened_by else ""
            fractions = f"val_fraction {data.val_fraction:g}"
            fractions += f", test_fraction {data.test_fraction:g}" if data.test_fraction else ""
            where = f"fold {data.fold}" if data.fold else fractions
            raise ValueError(
                f"{name} has {n} prices, {max(has, 0)} of them in its {part} part, which needs at least {needs} for "
                f"window {window} and targets that look {ahead} prices ahead ({where}{shorter})"
            )
    warm_val, warm_test = (min(data.warm_steps, border - window) for border in (val, test))
    return Cut(first, val, end, test, warm_val, warm_test, window)


def _by_time(panel: Panel, own: Rows, rows: tuple[int, ...]) -> str:
    """Why a series has so few prices in a part, and what changes that. ``own``: its rows."""
    how = "all series are cut at the same times"
    if panel.times is not None and len(own):
        _, val, end, test = rows
        at = [row for row in dict.fromkeys((val, end, test)) if row < len(panel.times)]
        shown = _shown(panel.times[[own[0], own[-1], *at]], panel.zone)
        begins = dict(zip(at, shown[2:], strict=True))
        parts = [f"validation begins {begins[val]}"] if val in begins else []
        parts += [f"ends before {begins[end]}"] if end in begins and end != test else []
        parts += [f"test begins {begins[test]}"] if test in begins else []
        how += f" ({', '.join(parts)}), and it goes from {shown[0]} to {shown[1]}"
    return f"{how}: data.split=each cuts each at shares of its own length, data.columns leaves a series out"


def _shown(times: Times, zone: str | None) -> list[str]:
    """Times in words, in their zone; days alone if all are midnights."""
    import pandas as pd

    found = pd.DatetimeIndex(times)
    if zone is not None:
        found = found.tz_localize("UTC").tz_convert(zone)
    if (found == found.normalize()).all():
        return [f"{time:%Y-%m-%d}" for time in found]
    return [f"{time:%Y-%m-%d %H:%M:%S}" for time in found]

"""Where series are cut into the parts that train, choose and judge: each by itself, or all at the same times."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tbptt.data.options import SplitData, fold_of
from tbptt.data.panel import Panel, Times

Values = TypeVar("Values", bound=NDArray[Any])
PARTS_IN_WORDS = {"train": "training", "val": "validation", "test": "test"}
PARTS = tuple(PARTS_IN_WORDS)


class Ahead(Protocol):
    """The part of a task that is needed here."""

    shortened_by: ClassVar[str]  # the key that makes it look less far ahead, if there is one

    @property
    def ahead(self) -> int:
        """The number of prices after a step that its targets depend on."""


@dataclass(frozen=True)
class Cut:
    """Where a series of n prices is cut: [first, val) trains, [val, val_end) is chosen by, [test, n) is judged by.

    ``warm_val`` and ``warm_test`` steps before a part are its warm-up. ``unscored``: the parts, ``val`` or ``test``, in
    which the series has too few prices for a step.
    """

    first: int
    val: int
    val_end: int
    test: int
    warm_val: int
    warm_test: int
    window: int
    ahead: int
    unscored: tuple[str, ...] = ()

    @property
    def inner(self) -> tuple[int, ...]:
        """The borders of parts within the series."""
        return tuple(dict.fromkeys((self.first, self.val, self.val_end, self.test)))

    def of(self, values: Values) -> tuple[Values, Values, Values]:
        """Each part with what it looks back to, of prices or of what else there is for each price, (N, …).

        Of a part in which the series is not scored: the ``window + ahead`` values before it, which hold no step. So
        the series keeps its place in every part. Copies would cost memory: these are views.
        """
        back = self.window + self.ahead
        train = values[max(0, self.first - self.window) : self.val]
        val = values[self.val - self.window - self.warm_val : self.val_end]
        test = values[self.test - self.window - self.warm_test :] if self.test < len(values) else values[:0]
        if "val" in self.unscored:
            val = values[self.val - back : self.val]
        if "test" in self.unscored:
            test = values[self.test - back : self.test]
        return train, val, test  # type: ignore[return-value]


@dataclass(frozen=True)
class Cuts:
    """The cut of every series.

    Attributes:
        of: by series name, without those that are left out.
        rows: the rows of the panel at which the parts of all series begin: train, val, what is after val, and test.
            None if each series is cut by itself.
        left_out: by series name, why it has no cut. These series count where all are cut, too: so a cut does not depend
            on the window and on how far targets look ahead.
    """

    of: Mapping[str, Cut]
    rows: tuple[int, ...] | None
    left_out: Mapping[str, str] = field(default_factory=dict)


def cuts_of(panel: Panel, data: SplitData, task: Ahead) -> Cuts:
    """The borders of all series' parts, in time order: train, val, test. With folds, the fold sets the borders.

    With ``split=each``, or where rows are no common times, the fractions are shares of each series. With ``split=time``
    all series are cut at the same rows, and the fractions are shares of all their prices together. For series with the
    same rows both come to the same.

    By time, a series with too few prices to train on, such as one that begins after the training part, is left out. One
    that trains and then has too few prices in val or test, such as one that ended before, is not scored there.

    Raises:
        ValueError: a part would have too few prices of a series. By time: of every series.
    """
    if data.split == "each" or not panel.shared:
        return Cuts({name: _cut_alone(name, len(each.prices), data, task) for name, each in panel.series.items()}, None)
    rows = _common_rows(panel, data)
    borders = {name: tuple(int(at) for at in np.searchsorted(each.rows, rows)) for name, each in panel.series.items()}
    sizes = {n: _sizes(len(panel.series[n].prices), borders[n], data, task, bool(data.test_fraction)) for n in borders}
    trained = [name for name, size in sizes.items() if size["train"].enough]
    for part in PARTS if data.test_fraction else PARTS[:2]:
        among = list(borders) if part == "train" else trained
        if not any(sizes[name][part].enough for name in among):
            raise ValueError(_of_none(panel, rows, {name: sizes[name] for name in among}, part, data, task))
    found = {}
    for name in trained:
        unscored = tuple(part for part, size in sizes[name].items() if not size.enough)
        found[name] = _cut(borders[name], data, task, unscored)
    reason = "" if len(found) == len(borders) else _untrained(panel, rows, data)
    return Cuts(found, rows, {name: reason for name in borders if name not in found})


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
    borders = (first, val, end, test)
    for part, size in _sizes(n, borders, data, task, has_test).items():
        if not size.enough:
            raise ValueError(_too_few(name, n, part, size, data, task))
    return _cut(borders, data, task)


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


def _cut(borders: tuple[int, ...], data: SplitData, task: Ahead, unscored: tuple[str, ...] = ()) -> Cut:
    """The cut of a series at (first, val, end of val, test). A part that is not scored needs no warm-up."""
    first, val, end, test = borders
    warm = {"val": min(data.warm_steps, val - data.window), "test": min(data.warm_steps, test - data.window)}
    warm |= dict.fromkeys(unscored, 0)
    return Cut(first, val, end, test, warm["val"], warm["test"], data.window, task.ahead, unscored)


@dataclass(frozen=True)
class _Size:
    """How many prices a part of a series has, and how many it needs."""

    has: int
    needs: int

    @property
    def enough(self) -> bool:
        return self.has >= self.needs


def _sizes(n: int, borders: tuple[int, ...], data: SplitData, task: Ahead, has_test: bool) -> dict[str, _Size]:
    """The sizes of the parts of a series of n prices that is cut at (first, val, end of val, test)."""
    first, val, end, test = borders
    back = data.window - min(first, data.window)  # prices that have to come out of the training part itself
    sizes = {
        "train": _Size(val - first, back + task.ahead + 2),  # one step that trains has no spread to be scaled by
        "val": _Size(end - val, task.ahead + 1),
        "test": _Size(n - test, task.ahead + 1),
    }
    return sizes if has_test else {part: sizes[part] for part in PARTS[:2]}


def _too_few(name: str, n: int, part: str, size: _Size, data: SplitData, task: Ahead) -> str:
    """The line about a part of a series of n prices that has too few of them."""
    shorter = f"; {task.shortened_by} shortens that" if task.shortened_by else ""
    fractions = f"val_fraction {data.val_fraction:g}"
    fractions += f", test_fraction {data.test_fraction:g}" if data.test_fraction else ""
    where = f"fold {data.fold}" if data.fold else fractions
    return (
        f"{name} has {n} prices, {max(size.has, 0)} of them in its {PARTS_IN_WORDS[part]} part, which needs at least "
        f"{size.needs} for window {data.window} and targets that look {task.ahead} prices ahead ({where}{shorter})"
    )


def _of_none(
    panel: Panel,
    rows: tuple[int, ...],
    sizes: Mapping[str, Mapping[str, _Size]],
    part: str,
    data: SplitData,
    task: Ahead,
) -> str:
    """The line about a part in which no series has enough prices: about the one that has most, and what changes that.

    ``sizes``: of the series that could be in the part.
    """
    name = max(sizes, key=lambda name: sizes[name][part].has - sizes[name][part].needs)  # the first of several
    line = _too_few(name, len(panel.series[name].prices), part, sizes[name][part], data, task)
    moved_by = "data.test_fraction and the number of folds" if data.fold else "data.val_fraction and data.test_fraction"
    at = _borders_in_words(panel, rows)
    if len(panel.series) == 1:
        return f"{line}; {moved_by} say where it is cut{at}"
    none = f"none of {len(sizes):,} series{'' if part == 'train' else ' that train'} has enough there"
    return (
        f"{line}; {none}: all are cut at the same times{at}, as {moved_by} say; data.split=each cuts each at shares of "
        "its own length"
    )


def _borders_in_words(panel: Panel, rows: tuple[int, ...]) -> str:
    """Where parts begin and end, in brackets after a blank; empty if that is not known."""
    if panel.times is None:
        return ""
    _, val, end, test = rows
    at = [row for row in dict.fromkeys((val, end, test)) if row < len(panel.times)]
    begins = dict(zip(at, _shown(panel.times[at], panel.zone), strict=True))
    parts = [f"validation begins {begins[val]}"] if val in begins else []
    parts += [f"ends before {begins[end]}"] if end in begins and end != test else []
    parts += [f"test begins {begins[test]}"] if test in begins else []
    return f" ({', '.join(parts)})" if parts else ""


def _untrained(panel: Panel, rows: tuple[int, ...], data: SplitData) -> str:
    """Why a series is left out."""
    first, val = rows[:2]
    few = "too few prices to train on"
    if panel.times is None or not val < len(panel.times):
        return few
    began, ended = _shown(panel.times[[first, val]], panel.zone)
    rolling = data.fold and data.fold_window == "rolling"
    return f"{few} from {began} to before {ended}" if rolling else f"{few} before {ended}"


def _shown(times: Times, zone: str | None) -> list[str]:
    """Times in words, in their zone; days alone if all are midnights."""
    import pandas as pd

    found = pd.DatetimeIndex(times)
    if zone is not None:
        found = found.tz_localize("UTC").tz_convert(zone)
    if (found == found.normalize()).all():
        return [f"{time:%Y-%m-%d}" for time in found]
    return [f"{time:%Y-%m-%d %H:%M:%S}" for time in found]

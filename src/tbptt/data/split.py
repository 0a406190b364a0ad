"""Which prices train and which are held out, and whether there are enough of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from tbptt.data.options import ArticleData, DataConfig, SplitData, fold_of
from tbptt.data.panel import Panel, Rows
from tbptt.data.prices import HELD_OUT, TEST, TRAINING, Prices, article_series, fingerprint
from tbptt.data.surrogates import surrogate_of

if TYPE_CHECKING:
    import pandas as pd

# LEAST_CHANGE to MOST_CHANGE: float64 can hold the squares of such changes, and the sums of the squares. MOST_TIMES is
# for float32: held-out changes may be this many times larger than those in training.
LEAST_CHANGE, MOST_CHANGE = 1e-100, 1e100
MOST_TIMES = 1e12


class Task(Protocol):
    """The part of a task that is needed here."""

    shortened_by: ClassVar[str]  # the key that makes it look less far ahead, if there is one

    @property
    def ahead(self) -> int:
        """The number of prices after a step that its targets depend on."""

    def targets(self, prices: Prices, change_std: Prices) -> Prices:
        """The targets of series (B, N): (B, N - ahead, O) or longer."""


@dataclass(frozen=True)
class Split:
    """The prices of each part: one to train on, one to choose by, one to judge by.

    Each array holds ``window`` prices to look back to, then the steps, then ``ahead`` more prices. So the targets of
    one part depend on no price of another part. A part that continues the part before it begins with warm-up steps
    (``warm``): they bring the network's state up to date and are not scored.

    Attributes:
        train, val, test: by series name; test is empty if nothing is left to judge by.
        warm: the number of warm-up steps of each series, by part (``val``, ``test``).
        rows: prices of the longest series before it was split.
        window, ahead: in steps.
        shared_scale: one scaler for all series, or one for each.
        change_std: (S,) standard deviation of a step's change in the training part, in price units. It is one value if
            the series share a scale, else one for each series. Series i of another part uses the value of training
            series i.
    """

    train: dict[str, Prices]
    val: dict[str, Prices]
    test: dict[str, Prices]
    warm: dict[str, dict[str, int]]
    rows: int
    window: int
    ahead: int
    shared_scale: bool
    change_std: Prices
    inputs: Mapping[str, Mapping[str, Prices]] = field(default_factory=dict)
    rows_of: Mapping[str, Mapping[str, Rows]] = field(default_factory=dict)
    panel: Panel | None = None

    def steps(self, prices: Prices) -> int:
        """Steps of one array that have features and targets, warm-up included."""
        return len(prices) - self.window - self.ahead

    def fingerprint(self) -> str:
        """The fingerprint of all prices, 64 hex digits; it does not depend on the number of warm-up steps."""
        trained = {f"training/{name}": prices for name, prices in self.train.items()}
        chosen_by = {f"held_out/{name}": prices for name, prices in self._scored("val").items()}
        return fingerprint(trained | chosen_by | {f"test/{n}": prices for n, prices in self._scored("test").items()})

    def test_fingerprint(self) -> str:
        """The fingerprint of the prices at the test part's steps alone.

        It is the same for all folds, and does not depend on the window.
        """
        return fingerprint({name: prices[self.window :] for name, prices in self._scored("test").items()})

    def _scored(self, part: str) -> dict[str, Prices]:
        series: dict[str, Prices] = getattr(self, part)
        return {name: prices[self.warm[part].get(name, 0) :] for name, prices in series.items()}

    @property
    def length(self) -> int:
        """The length of the longest training series, in steps; the schedule cuts this length into chunks."""
        return max(map(self.steps, self.train.values()))


def load_split(
    data: DataConfig, task: Task, given: "Mapping[str, Prices] | pd.DataFrame | Panel | None" = None
) -> Split:
    """Generate or read the prices and split them.

    Args:
        given: the result of ``data.prices()``, if the caller has it already, for example from another fold.

    Raises:
        ValueError: a file cannot be used (:func:`tbptt.data.prices.read_prices`), a series is too short or
            cannot be scaled.
    """
    shared = isinstance(data, ArticleData)
    if isinstance(data, ArticleData):
        parts = _article_parts(data, task.ahead)
        warm: dict[str, dict[str, int]] = {"val": {}, "test": {}}
        rows = data.window + data.length + task.ahead
    else:
        assert isinstance(data, SplitData)
        panel = as_panel(data.prices() if given is None else given)
        series = {name: each.prices for name, each in panel.series.items()}
        names = list(series) if data.columns is None else data.columns
        if unknown := [name for name in names if name not in series]:
            raise ValueError(f"{data.name} has no column {', '.join(unknown)} (it has: {', '.join(series)})")
        cuts = {name: _cut(name, len(series[name]), data, task) for name in names}
        taken = {
            name: cut.of(surrogate_of(data, _checked(name, series[name]), cut.inner)) for name, cut in cuts.items()
        }
        parts = tuple({name: each[i] for name, each in taken.items() if len(each[i])} for i in range(3))
        warm = {
            "val": {n: cut.warm_val for n, cut in cuts.items()},
            "test": {n: cut.warm_test for n, cut in cuts.items()},
        }
        rows = max(len(series[name]) for name in names)
    train, val, test = parts
    for part in (val, *([test] if test else [])):
        _check_scales(data, train, part, task, shared)
    return Split(train, val, test, warm, rows, data.window, task.ahead, shared, _change_std(train, shared))


def as_panel(given: "Mapping[str, Prices] | pd.DataFrame | Panel") -> Panel:
    """What a data source returns, as a panel; trailing blanks of a table's column are cut off."""
    if isinstance(given, Panel):
        return given
    if isinstance(given, Mapping):
        return Panel.of_arrays(given)
    found = {}
    for name, column in given.items():
        values = column.to_numpy(dtype=np.float64)
        there = np.flatnonzero(~np.isnan(values))
        found[str(name)] = values[: there[-1] + 1 if len(there) else 0]
    return Panel.of_arrays(found)


def memory_of(data: ArticleData, task: Task) -> int:
    """About how many bytes the article's data take, prices, features and targets of all steps."""
    series = data.n_series + data.val_series + data.test_series
    return 40 * series * (data.window + data.length + task.ahead)


def may_be_degenerate(data: ArticleData) -> bool:
    """Whether the article's series may be constant or change by too much, so that they must be generated and checked.

    To generate them takes long, and with settings like the defaults they are known to be fine.
    """
    return not 0.01 <= data.noise_std <= 1e6 or data.n_series * data.length < 100


def _article_parts(data: ArticleData, ahead: int) -> tuple[dict[str, Prices], ...]:
    length = data.window + data.length + ahead
    parts = []
    for part, count in ((TRAINING, data.n_series), (HELD_OUT, data.val_series), (TEST, data.test_series)):
        with np.errstate(over="ignore", invalid="ignore"):  # a huge noise overflows; its result is refused later
            prices = article_series(
                count,
                length,
                seed=data.seed,
                part=part,
                noise_std=data.noise_std,
                frequencies=(data.frequencies[0], data.frequencies[1]),
            )
        parts.append({f"{i}": surrogate_of(data, row, (), (part, i)) for i, row in enumerate(prices)})
    return tuple(parts)


def _checked(name: str, prices: Prices) -> Prices:
    """The prices of a data source, checked; the source may be the user's own."""
    prices = np.asarray(prices, dtype=np.float64)
    if prices.ndim != 1 or not np.isfinite(prices).all():
        raise ValueError(f"{name} is not a sequence of finite prices")
    return prices


@dataclass(frozen=True)
class _Cut:
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

    def of(self, prices: Prices) -> tuple[Prices, Prices, Prices]:
        """Each part with what it looks back to. Copies would cost memory: these are views."""
        val = prices[self.val - self.window - self.warm_val : self.val_end]
        test = prices[self.test - self.window - self.warm_test :] if self.test < len(prices) else prices[:0]
        return prices[max(0, self.first - self.window) : self.val], val, test


def _cut(name: str, n: int, data: SplitData, task: Task) -> _Cut:
    """The borders of a series' parts, in time order: train, val, test. With folds, the fold sets the borders.

    Raises ValueError if a part would have too few prices.
    """
    test = n - math.floor(data.test_fraction * n + 1e-9)  # 0.29 · 100 is 28.999999999999996
    first, end = 0, test
    if data.fold:
        k, folds = fold_of(data.fold) or (1, 1)
        pieces = [test * i // (folds + 1) for i in range(folds + 2)]
        val, end = pieces[k], pieces[k + 1]
        first = pieces[k - 1] if data.fold_window == "rolling" else 0
    else:
        val = test - math.floor(data.val_fraction * n + 1e-9)
    _check_long_enough(name, n, (first, val, end, test), data, task)
    warm_val, warm_test = (min(data.warm_steps, border - data.window) for border in (val, test))
    return _Cut(first, val, end, test, warm_val, warm_test, data.window)


def _check_long_enough(name: str, n: int, cut: tuple[int, int, int, int], data: SplitData, task: Task) -> None:
    first, val, end, test = cut
    window, ahead = data.window, task.ahead
    back = window - min(first, window)  # prices that have to come out of the training part itself
    parts = {"training": (val - first, back + ahead + 2), "validation": (end - val, ahead + 1)}
    if test < n or (data.test_fraction and data.test_fraction * n < 1):
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


@np.errstate(over="ignore", invalid="ignore")  # changes that overflow are refused below
def _check_scales(data: DataConfig, train: dict[str, Prices], val: dict[str, Prices], task: Task, shared: bool) -> None:
    """Check that the training inputs and targets can be standardised, and that held-out ones fit that scale.

    If all series share one scale, they are checked together. Raises ValueError with a series' name.
    """
    together = [("the article's process", list(train.values()), list(val.values()))]
    alone = [(name, [train[name]], [val[name]]) for name in train if not shared]
    for name, trained, scored in together if shared else alone:
        if problem := _unscalable(data, trained, task) or _out_of_scale(trained, scored):
            raise ValueError(f"{name} {problem}")


def _unscalable(data: DataConfig, series: list[Prices], task: Task) -> str | None:
    """The reason why the inputs or targets of series with one scale cannot be standardised; None if they can."""
    window, ahead = data.window, task.ahead
    steps = sum(len(prices) - window - ahead for prices in series)
    changes = [np.diff(prices) for prices in series]
    after = [change[window:] for change in changes]  # from the steps that train to the end of what their targets know
    largest = float(np.max([np.abs(change).max() for change in changes]))
    trained = np.concatenate([change[: len(change) - ahead + 1] for change in after])
    seen = np.concatenate([change[: len(change) - ahead] for change in changes])
    if not (trained.any() and seen.any()):
        where = "in the steps that train" if largest else "in its training part"
        return f"never changes {where} ({len(trained)} steps at a price of {series[0][window]:g})"
    if not LEAST_CHANGE < largest < MOST_CHANGE:
        unit = f"takes changes of {LEAST_CHANGE:g} to {MOST_CHANGE:g}, so another unit"
        return f"changes by up to {largest:.3g} from step to step; {unit}"
    if steps == 1:
        return "has one step to train, which has no spread to be scaled by; takes two or more"
    one_lag = data.features == "one_step_change" or window == 1
    if (_same(trained) and _learns_nothing(series, window, task)) or (one_lag and _same(seen)):
        return f"changes by {seen[-1]:g} at every step that trains, so nothing is there to be learnt"
    return None


def _learns_nothing(series: list[Prices], window: int, task: Task) -> bool:
    """Whether the targets of series that change by the same at every step are the same at every step, too."""
    for prices in series:
        steps = len(prices) - window - task.ahead
        targets = task.targets(prices[None, window:], np.array([float(np.std(np.diff(prices)))]))[0, :steps]
        if not all(_same(column) for column in targets.T):
            return False
    return True


def _same(values: Prices) -> bool:
    """Whether all are the same, as far as rounding lets one tell."""
    return bool(np.std(values) <= 1e-6 * np.sqrt(np.mean(values**2)))


def _out_of_scale(train: list[Prices], val: list[Prices]) -> str | None:
    """The reason why the held-out series do not fit the training scale; None if they fit.

    Values far beyond the training scale would leave the range of float32.
    """
    largest, ahead = (float(np.max([np.abs(np.diff(p)).max() for p in part])) for part in (train, val))
    if ahead <= MOST_TIMES * largest:
        return None
    return f"changes by up to {ahead:.3g} in its held-out part, and by at most {largest:.3g} in its training part"


def _change_std(train: dict[str, Prices], shared: bool) -> Prices:
    changes = [np.diff(prices) for prices in train.values()]
    return np.array([float(np.std(each)) for each in ([np.concatenate(changes)] if shared else changes)])

"""Which prices train and which are held out, and whether there are enough of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tbptt.data.cuts import Ahead, Cuts, cuts_of
from tbptt.data.options import ArticleData, DataConfig, SplitData
from tbptt.data.panel import DataError, Panel, Rows
from tbptt.data.prices import HELD_OUT, TEST, TRAINING, Prices, article_series, fingerprint
from tbptt.data.surrogates import Draw, draw_alone, draw_by_time, surrogate_of

if TYPE_CHECKING:
    import pandas as pd

# LEAST_CHANGE to MOST_CHANGE: float64 can hold the squares of such changes, and the sums of the squares. MOST_TIMES is
# for float32: held-out changes may be this many times larger than those in training.
LEAST_CHANGE, MOST_CHANGE = 1e-100, 1e100
MOST_TIMES = 1e12
PARTS = {"train": "training", "val": "held_out", "test": "test"}  # and their names in fingerprints


class Task(Ahead, Protocol):
    """The part of a task that is needed here."""

    def targets(self, prices: Prices, change_std: Prices) -> Prices:
        """The targets of series (B, N): (B, N - ahead, O) or longer."""


@dataclass(frozen=True)
class Split:
    """The prices of each part: one to train on, one to choose by, one to judge by.

    Each array holds ``window`` prices to look back to, then the steps, then ``ahead`` more prices. So the targets of
    one part depend on no price of another part. A part that continues the part before it begins with warm-up steps
    (``warm``): they bring the network's state up to date and are not scored.

    Every series that trains is in val, and in test if there is one, in the same order. One that has too few prices for
    a step is there without any: its array holds ``window + ahead`` prices from before the part.

    Attributes:
        train, val, test: by series name; test is empty if nothing is left to judge by.
        warm: the number of warm-up steps of each series, by part (``val``, ``test``).
        rows: prices of the longest series before it was split.
        window, ahead: in steps.
        shared_scale: one scaler for all series, or one for each.
        change_std: (S,) standard deviation of a step's change in the training part, in price units. It is one value if
            the series share a scale, else one for each series. Series i of another part uses the value of training
            series i.
        inputs: by part and series name, (N, D), the other inputs of each price in the part's array; NaN where one is
            missing. Empty if there are none.
        rows_of: by part and series name, (N,), which row of the panel each price in the part's array is in. Empty for
            the article's series.
        panel: the series as they were read, before they were split and before a surrogate was made of them, without
            those that have too few prices to train on, which its findings name. None for the article's series.
        by_time: whether all series were cut at the same rows of the panel. A row is then the same time in each.
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
    by_time: bool = False

    def steps(self, prices: Prices) -> int:
        """Steps of one array that have features and targets, warm-up included."""
        return len(prices) - self.window - self.ahead

    def scored(self, part: str, name: str) -> int:
        """The steps of a series that are trained on or scored in a part; 0 if it is not there."""
        series: dict[str, Prices] = getattr(self, part)
        return self.steps(series[name]) - self.warm.get(part, {}).get(name, 0) if name in series else 0

    def moments(self, part: str) -> int:
        """The number of different times at which ``val`` or ``test`` is scored.

        For series that were each cut by itself, their steps count from the end: it is the steps of the longest one.
        """
        series: dict[str, Prices] = getattr(self, part)
        firsts = {name: self.window + self.warm[part].get(name, 0) for name in series}
        if not self.by_time:
            return max((len(prices) - self.ahead - firsts[name] for name, prices in series.items()), default=0)
        rows = [self.rows_of[part][name][first : len(series[name]) - self.ahead] for name, first in firsts.items()]
        return int(np.count_nonzero(np.bincount(np.concatenate(rows)))) if rows else 0

    def fingerprint(self) -> str:
        """The fingerprint of all prices and other inputs, 64 hex digits.

        It does not depend on the number of warm-up steps, nor in val and test on series that have no step there.
        """
        found: dict[str, Prices] = {}
        for part, word in PARTS.items():
            found |= {f"{word}/{name}": prices for name, prices in self._scored(part).items()}
        for part, word in PARTS.items():
            found |= {f"{word}\0{name}": values for name, values in self._scored_inputs(part).items()}
        return fingerprint(found)

    def test_fingerprint(self) -> str:
        """The fingerprint of the prices and other inputs at the test part's steps alone.

        It is the same for all folds, and does not depend on the window.
        """
        prices, inputs = self._scored("test"), self._scored_inputs("test")
        others = {f"\0{name}": values[self.window :] for name, values in inputs.items()}
        return fingerprint({name: values[self.window :] for name, values in prices.items()} | others)

    def _scored(self, part: str) -> dict[str, Prices]:
        return self._without_warm_up(part, getattr(self, part))

    def _scored_inputs(self, part: str) -> dict[str, Prices]:
        return self._without_warm_up(part, self.inputs.get(part, {}))

    def _without_warm_up(self, part: str, values: Mapping[str, Prices]) -> dict[str, Prices]:
        warm = self.warm.get(part, {})
        return {name: each[warm.get(name, 0) :] for name, each in values.items() if self.scored(part, name)}

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
    if isinstance(data, SplitData):
        return _split_of(as_panel(data.prices() if given is None else given, data), data, task)
    assert isinstance(data, ArticleData)
    train, val, test = _article_parts(data, task.ahead)
    for part in (val, *([test] if test else [])):
        _check_scales(data, train, part, task, shared=True)
    warm: dict[str, dict[str, int]] = {"val": {}, "test": {}}
    rows = data.window + data.length + task.ahead
    return Split(train, val, test, warm, rows, data.window, task.ahead, True, _change_std(train, shared=True))


def _split_of(panel: Panel, data: SplitData, task: Task) -> Split:
    cuts = cuts_of(panel, data, task)
    prices = {name: _checked(name, each.prices) for name, each in panel.series.items()}
    # Of all series, as the test part has to be the same in all folds, and not all folds leave out the same series.
    draws = {} if data.surrogate is None else _draws(panel, cuts, data.surrogate, data.surrogate_seed)
    if cuts.left_out:
        panel = _without(panel, cuts.left_out)
        prices = {name: prices[name] for name in panel.series}
    inputs = {name: each.inputs for name, each in panel.series.items()} if panel.inputs else {}
    if draws:
        prices = {name: draws[name].of_prices(each) for name, each in prices.items()}
        inputs = {name: draws[name].of_inputs(each) for name, each in inputs.items()}
    train, val, test = _cut_up(prices, cuts)
    for part in (val, *([test] if test else [])):
        _check_scales(data, train, part, task, shared=False)
    return Split(
        train,
        val,
        test,
        warm={
            "val": {name: cut.warm_val for name, cut in cuts.of.items()},
            "test": {name: cut.warm_test for name, cut in cuts.of.items()},
        },
        rows=max(map(len, prices.values())),
        window=data.window,
        ahead=task.ahead,
        shared_scale=False,
        change_std=_change_std(train, shared=False),
        inputs=dict(zip(PARTS, _cut_up(inputs, cuts), strict=True)) if inputs else {},
        rows_of=dict(zip(PARTS, _cut_up({n: each.rows for n, each in panel.series.items()}, cuts), strict=True)),
        panel=panel,
        by_time=cuts.rows is not None,
    )


def _without(panel: Panel, left_out: Mapping[str, str]) -> Panel:
    """A panel without some series; its findings say why."""
    kept = panel.only([name for name in panel.series if name not in left_out])
    return replace(kept, findings=replace(panel.findings, left_out={**panel.findings.left_out, **left_out}))


def _cut_up(values: Mapping[str, Any], cuts: Cuts) -> list[dict[str, Any]]:
    """The values of each series in train, val and test, as views; a series with none in a part is not in that."""
    every = {name: cuts.of[name].of(each) for name, each in values.items()}
    return [{name: each[i] for name, each in every.items() if len(each[i])} for i in range(len(PARTS))]


def _draws(panel: Panel, cuts: Cuts, kind: str, seed: int) -> dict[str, Draw]:
    """What a surrogate does to each series: by time if they were cut by time."""
    if cuts.rows is not None:
        return draw_by_time({name: each.rows for name, each in panel.series.items()}, cuts.rows, kind, seed)
    return {n: draw_alone(len(each.prices), cuts.of[n].inner, kind, seed) for n, each in panel.series.items()}


def as_panel(given: "Mapping[str, Prices] | pd.DataFrame | Panel", data: SplitData) -> Panel:
    """What a data source returns, as a panel of the series that ``data.columns`` names.

    A source that returns a panel has picked them itself. Raises ValueError if one is not there.
    """
    if isinstance(given, Panel):
        return given
    if not isinstance(given, Mapping):
        import pandas as pd

        from tbptt.data.panels.frames import panel_of_frame

        if not isinstance(given, pd.DataFrame):
            kind = type(given).__name__
            raise DataError(
                f"prices() of {data.name} returned a {kind}; takes arrays by name, a DataFrame or a Panel", "data"
            )
        return panel_of_frame(given, data, data.name)
    if wrong := [name for name, each in given.items() if np.ndim(each) != 1]:
        raise DataError(f"{wrong[0]} is not a sequence of finite prices", "data")
    panel = Panel.of_arrays(given, data.name)
    if data.columns is None:
        return panel
    if unknown := [name for name in data.columns if name not in panel.series]:
        has = ", ".join(panel.series)
        raise DataError(f"{data.name} has no column {', '.join(unknown)} (it has: {has})", "data.columns")
    return panel.only(data.columns)


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
                phase=data.phase,
            )
        parts.append({f"{i}": surrogate_of(data, row, (), (part, i)) for i, row in enumerate(prices)})
    return tuple(parts)


def _checked(name: str, prices: Prices) -> Prices:
    """The prices of a data source, checked; the source may be the user's own."""
    prices = np.asarray(prices, dtype=np.float64)
    if prices.ndim != 1 or not np.isfinite(prices).all():
        raise ValueError(f"{name} is not a sequence of finite prices")
    return prices


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
    largest, ahead = (float(np.max([np.abs(np.diff(p)).max(initial=0.0) for p in part])) for part in (train, val))
    if ahead <= MOST_TIMES * largest:
        return None
    return f"changes by up to {ahead:.3g} in its held-out part, and by at most {largest:.3g} in its training part"


def _change_std(train: dict[str, Prices], shared: bool) -> Prices:
    changes = [np.diff(prices) for prices in train.values()]
    return np.array([float(np.std(each)) for each in ([np.concatenate(changes)] if shared else changes)])

"""Which prices train and which are held out, and whether there are enough of them."""

import math
from dataclasses import dataclass

import numpy as np

from tbptt.data.options import ArticleData, DataConfig, SplitData
from tbptt.data.prices import HELD_OUT, TRAINING, Prices, article_series, fingerprint
from tbptt.tasks.q_values import default_horizon

# Changes whose squares, and the sums of these, float64 holds; and how many times larger than in training they may be
# where they are held out, for float32.
LEAST_CHANGE, MOST_CHANGE = 1e-100, 1e100
MOST_TIMES = 1e12
MOST_HORIZON = 10**6  # steps, whose targets take some ten seconds; auto is 460,515 of them where gamma is 0.99999


@dataclass(frozen=True)
class Parts:
    """Prices of both parts. Each array is ``window`` prices to look back to, the steps, and horizon + 1 more prices.

    Attributes:
        training, held_out: by series name.
        window, horizon: in steps.
        shared_scale: one scaler for all series, or one for each.
        fees: of one change of side, in price units, one a training series; held-out series i has that of training
            series i, or the only one there is.
    """

    training: dict[str, Prices]
    held_out: dict[str, Prices]
    window: int
    horizon: int
    shared_scale: bool
    fees: list[float]

    def steps(self, prices: Prices) -> int:
        """Steps of one array that have features and targets."""
        return len(prices) - self.window - self.horizon - 1

    def fingerprint(self) -> str:
        """Of all prices: the same data, the same 64 hex digits."""
        trained = {f"training/{name}": prices for name, prices in self.training.items()}
        return fingerprint(trained | {f"held_out/{name}": prices for name, prices in self.held_out.items()})

    @property
    def length(self) -> int:
        """The longest training series, in steps: what the schedule cuts into chunks."""
        return max(map(self.steps, self.training.values()))


def resolved_horizon(data: DataConfig) -> int:
    """``data.horizon`` with ``auto`` worked out, in steps."""
    return default_horizon(data.gamma) if data.horizon == "auto" else int(data.horizon)


def load_parts(data: DataConfig) -> Parts:
    """Generate or read the prices and split them.

    Raises:
        ValueError: a file cannot be used (:func:`tbptt.data.prices.read_prices`), a series is too short or
            cannot be scaled.
    """
    horizon = resolved_horizon(data)
    if isinstance(data, ArticleData):
        training, held_out = _article_parts(data, horizon)
    else:
        assert isinstance(data, SplitData)
        series = data.prices()
        names = list(series) if data.columns is None else data.columns
        if unknown := [name for name in names if name not in series]:
            raise ValueError(f"{data.name} has no column {', '.join(unknown)} (it has: {', '.join(series)})")
        split = {name: _split(name, _checked(name, series[name]), data, horizon) for name in names}
        training = {name: both[0] for name, both in split.items()}
        held_out = {name: both[1] for name, both in split.items()}
    shared = isinstance(data, ArticleData)
    _check_scales(data, training, held_out, horizon, shared)
    return Parts(training, held_out, data.window, horizon, shared, _fees(data, training, shared))


def horizon_problem(data: ArticleData) -> tuple[str, str] | None:
    """The key that makes a horizon of the article's data absurd, and what it takes; None where it is none.

    The targets of its steps are computed one after the other, about 10 µs each, and are not trained on. Ten times
    ``auto`` the weight of a reward is 1e-20: beside the first one float64 has no room for it, so that no target changes
    with what comes later. Below a series' own length, or 10,000 steps, a horizon costs little, and one for all is what
    several gammas are compared with on the same steps.
    """
    auto = default_horizon(data.gamma)
    most = min(max(10 * auto, data.length, 10_000), MOST_HORIZON)
    if resolved_horizon(data) <= most:
        return None
    if data.horizon == "auto":
        return "gamma", f"one whose data.horizon is at most {most} steps (auto: {auto}), or a data.horizon"
    why = "" if most == MOST_HORIZON else ", from where on no target changes with it"
    return "horizon", f"at most {most}{why}"


def memory_of(data: ArticleData) -> int:
    """About how many bytes the article's data take, prices, features and targets of all steps."""
    return 40 * (data.n_series + data.val_series) * (data.window + data.length + resolved_horizon(data))


def may_be_degenerate(data: ArticleData) -> bool:
    """Whether the article's series have to be looked at to know that they change, and not by too much; to generate them
    takes long, and with settings like the default ones they do."""
    return not 0.01 <= data.noise_std <= 1e6 or data.n_series * data.length < 100


def _article_parts(data: ArticleData, horizon: int) -> tuple[dict[str, Prices], dict[str, Prices]]:
    length = data.window + data.length + horizon + 1
    both = []
    for part, count in ((TRAINING, data.n_series), (HELD_OUT, data.val_series)):
        with np.errstate(over="ignore", invalid="ignore"):  # of a huge noise, which is refused for what comes of it
            prices = article_series(
                count,
                length,
                seed=data.seed,
                part=part,
                noise_std=data.noise_std,
                frequencies=(data.frequencies[0], data.frequencies[1]),
            )
        both.append({f"{i}": row for i, row in enumerate(prices)})
    return both[0], both[1]


def _checked(name: str, prices: Prices) -> Prices:
    """What a data source gave, be it one of your own."""
    prices = np.asarray(prices, dtype=np.float64)
    if prices.ndim != 1 or not np.isfinite(prices).all():
        raise ValueError(f"{name} is not a sequence of finite prices")
    return prices


def _split(name: str, prices: Prices, data: SplitData, horizon: int) -> tuple[Prices, Prices]:
    """The last ``val_fraction`` of a series is held out; it may look back for its window."""
    n, window = len(prices), data.window
    v = math.floor(data.val_fraction * n + 1e-9)  # 0.29 · 100 is 28.999999999999996
    trained, tested = n - v - window - horizon - 1, v - horizon - 1
    if trained < 2 or tested < 1:  # one step has no spread to be scaled by
        part, has = ("training part", n - v) if trained < 2 else ("held-out part", v)
        needs = (window + 1 if trained < 2 else 0) + horizon + 2
        raise ValueError(
            f"{name} has {n} prices, {has} of them in its {part}, which needs at least {needs} for window {window} and "
            f"horizon {horizon} (val_fraction {data.val_fraction:g}; data.horizon shortens it)"
        )
    return prices[: n - v], prices[n - v - window :]


@np.errstate(over="ignore", invalid="ignore")  # of changes that are refused for it
def _check_scales(
    data: DataConfig, training: dict[str, Prices], held_out: dict[str, Prices], horizon: int, shared: bool
) -> None:
    """That inputs and targets of what trains can be standardised, and those of what is held out fit that scale.

    Where all series share one scale, they are held against it together. Raises ValueError with a series' name.
    """
    together = [("the article's process", list(training.values()), list(held_out.values()))]
    alone = [(name, [training[name]], [held_out[name]]) for name in training if not shared]
    for name, train, test in together if shared else alone:
        if problem := _unscalable(data, train, horizon) or _out_of_scale(train, test):
            raise ValueError(f"{name} {problem}")


def _unscalable(data: DataConfig, series: list[Prices], horizon: int) -> str | None:
    """Why the inputs or targets of series with one scale cannot be standardised; None where they can."""
    window = data.window
    steps = sum(len(prices) - window - horizon - 1 for prices in series)
    changes = [np.diff(prices) for prices in series]
    ahead = [change[window:] for change in changes]  # from the steps that train to the end of what their targets know
    largest = float(np.max([np.abs(change).max() for change in changes]))
    trained = np.concatenate([change[: len(change) - horizon] for change in ahead])
    seen = np.concatenate([change[: len(change) - horizon - 1] for change in changes])
    if not (trained.any() and seen.any()):
        where = "in the steps that train" if largest else "in its training part"
        return f"never changes {where} ({len(trained)} steps at a price of {series[0][window]:g})"
    if not LEAST_CHANGE < largest < MOST_CHANGE:
        unit = f"takes changes of {LEAST_CHANGE:g} to {MOST_CHANGE:g}, so another unit"
        return f"changes by up to {largest:.3g} from step to step; {unit}"
    if steps == 1:
        return "has one step to train, which has no spread to be scaled by; takes two or more"
    one_lag = data.features == "one_step_change" or window == 1
    if (data.gamma == 0 and _same(trained)) or (one_lag and _same(seen)):
        return f"changes by {seen[-1]:g} at every step that trains, so nothing is there to be learnt"
    return None


def _same(changes: Prices) -> bool:
    """Whether all are the same, as far as rounding lets one tell."""
    return bool(np.std(changes) <= 1e-6 * np.sqrt(np.mean(changes**2)))


def _out_of_scale(training: list[Prices], held_out: list[Prices]) -> str | None:
    """Why what is held out does not fit the scale of what trains, whose float32 it would leave; None where it does."""
    largest, ahead = (float(np.max([np.abs(np.diff(p)).max() for p in part])) for part in (training, held_out))
    if ahead <= MOST_TIMES * largest:
        return None
    return f"changes by up to {ahead:.3g} in its held-out part, and by at most {largest:.3g} in its training part"


def _fees(data: DataConfig, training: dict[str, Prices], shared: bool) -> list[float]:
    if data.fee_unit == "price":
        return [data.fee] * len(training)
    changes = [np.diff(prices) for prices in training.values()]
    if shared:
        return [data.fee * float(np.std(np.concatenate(changes)))] * len(training)
    return [data.fee * float(np.std(change)) for change in changes]

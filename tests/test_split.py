"""What trains and what is held out, down to the tensors that the network sees: borders, padding, no look-ahead."""

import math
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from tbptt.config.checks import problems
from tbptt.data.options import ArticleData, MarketData, PricesData
from tbptt.data.prices import HELD_OUT, TEST, TRAINING, article_series, fingerprint
from tbptt.data.split import load_split, may_be_degenerate
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.tasks.options import QValues
from tbptt.tasks.prepare import prepare

WINDOW, HORIZON, GAMMA = 5, 3, 0.8
LENGTHS = {"long": 90, "middle": 61, "short": 47}
Write = Callable[[dict[str, np.ndarray]], Path]


def three_series() -> dict[str, np.ndarray]:
    """Three walks of different lengths, levels and sizes."""
    random = np.random.default_rng(2)
    return {
        name: 100 * (i + 1) + np.cumsum(random.normal(0.01, 10.0**i, n)) for i, (name, n) in enumerate(LENGTHS.items())
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes series to a CSV file, blank after their ends."""

    def written(series: dict[str, np.ndarray]) -> Path:
        path = tmp_path / "prices.csv"
        pd.DataFrame({name: pd.Series(row) for name, row in series.items()}).to_csv(path, index=False)
        return path

    return written


Both = tuple[Any, QValues]  # the data, and what is learnt of them
OF_THE_TASK = ("gamma", "fee", "fee_unit", "horizon")


def both(kind: Any, settings: dict[str, Any]) -> Both:
    task = {name: settings.pop(name) for name in OF_THE_TASK if name in settings}
    return kind(**settings), QValues(name="q_values", **task)


def prices_data(path: Path, **changes: Any) -> Both:
    settings: dict[str, Any] = {
        "name": "prices",
        "path": str(path),
        "window": WINDOW,
        "gamma": GAMMA,
        "fee": 1.3,
        "fee_unit": "change_std",
        "horizon": HORIZON,
        "val_fraction": 0.3,
    }
    return both(PricesData, settings | changes)


def article_data(**changes: Any) -> Both:
    settings: dict[str, Any] = {
        "name": "article",
        "window": WINDOW,
        "gamma": GAMMA,
        "fee": 0.02,
        "fee_unit": "price",
        "n_series": 3,
        "val_series": 2,
        "length": 50,
        "horizon": HORIZON,
    }
    return both(ArticleData, settings | changes)


def fees_of(data: Any, task: QValues) -> list[float]:
    return list(task.change_cost(load_split(data, task).change_std))


def q_of(prices: np.ndarray, fee: float) -> np.ndarray:
    """(N - 1, 2): the Bellman recursion of one series, backwards from its last price."""
    q = [(0.0, 0.0)]
    for change in np.diff(prices)[::-1]:
        buy, sell = q[-1]
        q.append((change + GAMMA * max(buy, sell - 2 * fee), -change + GAMMA * max(sell, buy - 2 * fee)))
    return np.array(q[:0:-1])


def lags_of(prices: np.ndarray, now: int) -> np.ndarray:
    return np.array([prices[now] - prices[now - k] for k in range(1, WINDOW + 1)])


def held_out_count(n: int) -> int:
    return math.floor(0.3 * n)


# --- the split of files ---------------------------------------------------------------------------------------


def test_split_borders_are_those_of_the_specification(write: Write) -> None:
    series = three_series()
    split = load_split(*prices_data(write(series)))
    for name, prices in series.items():
        n, v = len(prices), held_out_count(len(prices))
        trained = range(WINDOW, n - v - 2 - HORIZON + 1)
        tested = range(n - v, n - 2 - HORIZON + 1)
        training, held_out = split.train[name], split.val[name]
        np.testing.assert_allclose(training, prices[: n - v], rtol=1e-14)
        np.testing.assert_allclose(held_out, prices[n - v - WINDOW :], rtol=1e-14)
        assert split.steps(training) == len(trained)
        assert split.steps(held_out) == len(tested)
    assert split.length == 90 - 27 - 2 - HORIZON - WINDOW + 1
    assert not split.shared_scale


def test_trained_targets_know_no_held_out_price(write: Write) -> None:
    """The last trained step's target reaches the training part's last price and no further."""
    series = three_series()
    data = SequenceDataModule(*prices_data(write(series)))
    fees = [1.3 * np.std(np.diff(p[: len(p) - held_out_count(len(p))])) for p in series.values()]
    got = data.scaler.to_price_units(data.train.targets.double()).numpy()
    for b, prices in enumerate(series.values()):
        border = len(prices) - held_out_count(len(prices))
        steps = border - 1 - HORIZON - WINDOW
        expected = q_of(prices[:border], fees[b])[WINDOW : border - 1 - HORIZON]
        assert data.train.steps[b] == steps == len(expected)
        np.testing.assert_allclose(got[b, :steps], expected, rtol=1e-5, atol=1e-4 * np.std(expected))


def test_held_out_targets_use_the_held_out_prices_of_their_series(write: Write) -> None:
    series = three_series()
    data = SequenceDataModule(*prices_data(write(series)))
    got = data.scaler.to_price_units(data.val.targets.double()).numpy()
    for b, prices in enumerate(series.values()):
        border = len(prices) - held_out_count(len(prices))
        fee = 1.3 * np.std(np.diff(prices[:border]))
        expected = q_of(prices[border:], fee)[: -HORIZON or None]
        assert data.val.steps[b] == len(expected)
        np.testing.assert_allclose(got[b, : len(expected)], expected, rtol=1e-5, atol=1e-4 * np.std(expected))


def test_inputs_of_both_parts_belong_to_the_steps_of_their_targets(write: Write) -> None:
    series = three_series()
    data = SequenceDataModule(*prices_data(write(series)))
    mean, std = data.scaler.input_mean.numpy(), data.scaler.input_std.numpy()
    for b, prices in enumerate(series.values()):
        border = len(prices) - held_out_count(len(prices))
        for part, first in ((data.train, WINDOW), (data.val, border)):
            for t in (0, 1, part.steps[b] - 1):
                got = part.features(t, t + 1)[b, 0].numpy()
                np.testing.assert_allclose(got, (lags_of(prices, first + t) - mean[b]) / std[b], atol=1e-5)


def tensors(data: SequenceDataModule, part: str) -> list[torch.Tensor]:
    sequences = getattr(data, part)
    kept = [v for v in vars(sequences.features).values() if isinstance(v, torch.Tensor)]
    return [*kept, sequences.targets, sequences.mask]


def test_scaler_fees_and_training_have_seen_no_held_out_price(write: Write) -> None:
    series = three_series()
    config = prices_data(write(series))
    before, fees = SequenceDataModule(*config), fees_of(*config)
    for prices in series.values():
        prices[len(prices) - held_out_count(len(prices)) :] *= 3
    write(series)
    after = SequenceDataModule(*config)
    assert fees_of(*config) == fees
    for name, value in before.scaler.state_dict().items():
        if value is None:
            continue
        assert torch.equal(getattr(after.scaler, name), value), name
    for old, new in zip(tensors(before, "train"), tensors(after, "train"), strict=True):
        assert torch.equal(old, new)
    assert not torch.equal(before.val.targets, after.val.targets)
    assert before.fingerprint != after.fingerprint


def test_held_out_part_looks_back_for_its_window_only(write: Write) -> None:
    series = three_series()
    before = load_split(*prices_data(write(series)))
    for prices in series.values():
        prices[: len(prices) - held_out_count(len(prices)) - WINDOW] += 50
    after = load_split(*prices_data(write(series)))
    for name in series:
        np.testing.assert_array_equal(after.val[name], before.val[name])
        assert not np.array_equal(after.train[name], before.train[name])


def test_change_std_fee_is_in_training_deviations_of_the_one_step_change(write: Write) -> None:
    series = three_series()
    fees = fees_of(*prices_data(write(series), fee=0.7))
    expected = []
    for prices in series.values():
        training = prices[: len(prices) - held_out_count(len(prices))]
        changes = [training[t + 1] - training[t] for t in range(len(training) - 1)]
        mean = sum(changes) / len(changes)
        expected.append(0.7 * math.sqrt(sum((c - mean) ** 2 for c in changes) / len(changes)))
    np.testing.assert_allclose(fees, expected, rtol=1e-12)


@pytest.mark.parametrize("unit", ["change_std", "price"])
def test_a_scaler_has_the_fees_in_price_units(write: Write, unit: str) -> None:
    """What a loaded run needs to know what a change of side costs."""
    config = prices_data(write(three_series()), fee=0.7, fee_unit=unit)
    fee = SequenceDataModule(*config).scaler.fee
    assert fee is not None
    assert fee.tolist() == fees_of(*config)
    shared = article_data(fee_unit=unit, fee=0.7)
    fee = SequenceDataModule(*shared).scaler.fee
    assert fee is not None
    assert fee.tolist() == fees_of(*shared)[:1]


def test_price_fee_is_the_same_for_all(write: Write) -> None:
    assert fees_of(*prices_data(write(three_series()), fee=0.5, fee_unit="price")) == [0.5] * 3


def test_horizon_auto_follows_gamma_and_zero_keeps_the_ramp(write: Write) -> None:
    path = write(three_series())
    auto = load_split(*prices_data(path, horizon="auto", gamma=0.3))
    assert auto.ahead - 1 == math.ceil(math.log(0.01) / math.log(0.3)) == 4
    assert load_split(*prices_data(path, horizon="auto", gamma=0.0)).ahead == 1
    literal = load_split(*prices_data(path, horizon=0))
    assert literal.length == 90 - 27 - 1 - WINDOW


@pytest.mark.parametrize(("n", "part", "needs"), [(20, "training part", 11), (13, "training part", 11)])
def test_series_too_short_to_train_says_what_it_needs(write: Write, n: int, part: str, needs: int) -> None:
    series = three_series()
    series["short"] = series["short"][:n]
    with pytest.raises(ValueError, match=f"short has {n} prices.*{part}.*needs at least {needs}"):
        load_split(*prices_data(write(series), val_fraction=0.5))


def test_series_with_too_little_held_out_says_what_it_needs(write: Write) -> None:
    with pytest.raises(ValueError, match=r"short has 47 prices, 4 of them in its validation part.*needs at least 5"):
        load_split(*prices_data(write(three_series()), val_fraction=0.1))


def test_the_shortest_series_that_is_enough_has_two_steps_to_train_and_one_held_out(write: Write) -> None:
    data = SequenceDataModule(*prices_data(write({"only": three_series()["long"][:22]}), val_fraction=0.5))
    assert data.train.steps == [11 - WINDOW - HORIZON - 1] == [2]
    split = load_split(*prices_data(write({"only": three_series()["long"][:50]}), val_fraction=0.1))
    assert split.steps(split.val["only"]) == 5 - HORIZON - 1 == 1


def walk(n: int = 60) -> np.ndarray:
    return 100 + np.cumsum(np.random.default_rng(5).normal(0, 1, n))


def halted(n: int, moves: int) -> np.ndarray:
    """A walk that stands still after so many prices."""
    prices = walk(n)
    prices[moves:] = prices[moves - 1]
    return prices


NOT_TO_BE_SCALED = {
    "never": (np.full(60, 7.5), {}, "never changes in its training part (33 steps at a price of 7.5)"),
    "in_its_window_only": (halted(60, WINDOW), {}, "never changes in the steps that train (33 steps"),
    "held_out_only": (np.append(np.full(50, 2.0), walk(10)), {}, "never changes in its training part"),
    "behind_the_trained_steps_only": (np.append(np.full(39, 2.0), walk(21)), {}, "never changes in the steps"),
    "by_the_same_each_step": (np.arange(60) / 10, {"features": "one_step_change"}, "changes by 0.1 at every step"),
    "by_the_same_in_one_lag": (np.arange(60) / 10, {"window": 1}, "changes by 0.1 at every step"),
    "by_the_same_without_a_future": (np.arange(60) / 10, {"gamma": 0.0}, "changes by 0.1 at every step"),
    "too_much": (walk() * 1e180, {}, "e+180 from step to step; takes changes of 1e-100 to 1e+100, so another unit"),
    "too_little": (walk() * 1e-180, {}, "e-180 from step to step; takes changes of 1e-100 to 1e+100"),
    "out_of_scale_where_held_out": (np.append(walk(50), walk(10) * 1e30), {}, "e+31 in its held-out part, and by at"),
}


@pytest.mark.parametrize(("prices", "changes", "says"), NOT_TO_BE_SCALED.values(), ids=NOT_TO_BE_SCALED)
def test_series_that_cannot_be_standardised_is_named(
    prices: np.ndarray, changes: dict[str, Any], says: str, write: Write
) -> None:
    path = write({"fine": walk(), "halted": prices})
    with pytest.raises(ValueError, match="^halted " + ".*" + re.escape(says)):
        load_split(*prices_data(path, **changes))


NEARLY = {
    "one_move_in_the_steps": (halted(60, WINDOW + 2), {}),
    "by_the_same_with_lags": (np.arange(60) / 10, {}),
    "large_and_small": (walk() * 1e90, {}),
    "tiny": (walk() * 1e-90, {}),
    "still_where_held_out": (halted(60, 40), {}),
    "a_jump_where_held_out": (np.append(walk(50), walk(10) * 1e10), {}),
    "one_move_one_lag": (halted(60, WINDOW + 2), {"features": "one_step_change"}),
    "one_move_no_future": (halted(60, WINDOW + 2), {"gamma": 0.0}),
}


@pytest.mark.parametrize(("prices", "changes"), NEARLY.values(), ids=NEARLY)
def test_what_passes_can_be_standardised(prices: np.ndarray, changes: dict[str, Any], write: Write) -> None:
    data = SequenceDataModule(*prices_data(write({"nearly": prices}), **changes))
    for part in (data.train, data.val):
        assert part.targets.isfinite().all()
        assert part.features(0, part.length).isfinite().all()
    assert math.isfinite(data.baseline)


ODD = [
    ({"noise_std": 0.0, "frequencies": [0.0, 0.0]}, "never changes in its training part"),
    ({"noise_std": 1e-4, "frequencies": [0.0, 1e-9]}, "never changes in its training part"),
    ({"n_series": 1, "length": 1}, "has one step to train"),
]


@pytest.mark.parametrize(("changes", "says"), ODD, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_article_settings_that_cannot_be_standardised_are_refused_before_anything_is_written(
    changes: dict[str, Any], says: str, config: Callable[..., Any]
) -> None:
    data = article_data(**changes)
    assert may_be_degenerate(data[0])
    with pytest.raises(ValueError, match=f"the article's process {says}"):
        load_split(*data)
    words = [f"data.{key}={str(value).replace(' ', '')}" for key, value in changes.items()]
    (line,) = problems(config("data.window=5", "task.gamma=0.8", "schedule.chunks=[1]", *words))
    assert line.startswith(f"data: the article's process {says}")


def test_market_default_trains_three_series_with_the_default_split() -> None:
    data = both(MarketData, {"name": "market", "fee": 1.3, "fee_unit": "change_std"})
    split = load_split(*data)
    assert split.ahead == 460
    for name, series in cast(MarketData, data[0]).prices().series.items():
        n, v = len(series.prices), math.floor(0.2 * len(series.prices))
        assert split.steps(split.train[name]) == n - v - 2 - 459 - 128 + 1
        assert split.steps(split.val[name]) == v - 1 - 459
    assert split.length == max(map(split.steps, split.train.values()))


# --- the article's split --------------------------------------------------------------------------------------


def test_article_series_are_just_long_enough_for_their_steps() -> None:
    split = load_split(*article_data())
    assert list(map(len, (split.train, split.val))) == [3, 2]
    for part, series in ((TRAINING, split.train), (HELD_OUT, split.val)):
        rows = np.stack(list(series.values()))
        np.testing.assert_array_equal(rows, article_series(len(series), WINDOW + 50 + HORIZON + 1, seed=0, part=part))
        assert {split.steps(row) for row in rows} == {50}
    assert split.shared_scale
    assert split.length == 50


def test_article_settings_reach_the_process() -> None:
    settings = {"seed": 3, "noise_std": 0.2, "frequencies": [0.1, 0.3], "test_series": 4}
    split, moved = (load_split(*article_data(**settings, **more)) for more in ({}, {"phase": "random"}))
    of_parts = ((TRAINING, "train"), (HELD_OUT, "val"), (TEST, "test"))
    for (part, name), (found, phase) in product(of_parts, ((split, 0), (moved, "random"))):
        series = getattr(found, name)
        expected = article_series(
            len(series), WINDOW + 54, seed=3, part=part, noise_std=0.2, frequencies=(0.1, 0.3), phase=phase
        )
        np.testing.assert_array_equal(list(series.values()), expected)
    assert split.fingerprint() != moved.fingerprint()


def test_number_of_training_series_leaves_the_held_out_ones_unchanged() -> None:
    few, many = load_split(*article_data()), load_split(*article_data(n_series=7, val_series=4))
    for name in few.val:
        np.testing.assert_array_equal(many.val[name], few.val[name])
    for name in few.train:
        np.testing.assert_array_equal(many.train[name], few.train[name])


def test_article_trains_every_step_and_needs_no_mask() -> None:
    data = SequenceDataModule(*article_data())
    assert data.train.steps == [50] * 3
    assert data.val.steps == [50] * 2
    assert data.train.mask is None
    assert data.train.targets.shape == (3, 50, 2)
    assert data.train.features(0, 50).shape == (3, 50, WINDOW)
    assert data.train.targets.dtype == torch.float32


@pytest.mark.parametrize("unit", ["price", "change_std"])
def test_article_tensors_are_those_of_the_definition(unit: str) -> None:
    """One scaler over all training series, one fee, and the held-out series under the same."""
    data = SequenceDataModule(*article_data(fee_unit=unit, fee=0.5))
    length = WINDOW + 50 + HORIZON + 1
    training, held_out = (article_series(n, length, seed=0, part=p) for n, p in ((3, TRAINING), (2, HELD_OUT)))
    fee = 0.5 if unit == "price" else 0.5 * np.std(np.concatenate([np.diff(row) for row in training]))
    q, q_held_out = (np.stack([q_of(row, fee)[WINDOW : WINDOW + 50] for row in part]) for part in (training, held_out))
    x = np.array([[lags_of(row, WINDOW + t) for t in range(50)] for row in training])
    mean = q.mean(axis=(0, 1))
    std = np.sqrt(np.mean((q - mean) ** 2))
    np.testing.assert_allclose(data.scaler.target_mean, [mean], rtol=1e-9)
    np.testing.assert_allclose(data.scaler.target_std, [std], rtol=1e-9)
    np.testing.assert_allclose(data.train.targets, (q - mean) / std, atol=1e-5)
    np.testing.assert_allclose(data.val.targets, (q_held_out - mean) / std, atol=1e-5)
    np.testing.assert_allclose(data.train.features(0, 50), (x - x.mean()) / x.std(), atol=1e-5)
    x = np.array([[lags_of(row, WINDOW + t) for t in range(50)] for row in held_out])
    np.testing.assert_allclose(
        data.val.features(0, 50), (x - data.scaler.input_mean.item()) / data.scaler.input_std.item(), atol=1e-5
    )
    assert data.baseline == pytest.approx(np.mean(((q_held_out - mean) / std) ** 2), rel=1e-5)


# --- padding --------------------------------------------------------------------------------------------------


def test_mask_marks_the_steps_of_every_series(write: Write) -> None:
    data = SequenceDataModule(*prices_data(write(three_series())))
    for part in (data.train, data.val):
        assert part.mask is not None
        assert part.mask.shape == part.targets.shape[:2]
        assert part.length == max(part.steps)
        for row, steps in zip(part.mask, part.steps, strict=True):
            assert row.tolist() == [1.0] * steps + [0.0] * (part.length - steps)
        assert torch.isfinite(part.targets).all()
        assert torch.isfinite(part.features(0, part.length)).all()


@pytest.mark.parametrize("name", list(LENGTHS))
def test_a_series_among_longer_ones_is_as_it_is_alone(write: Write, name: str) -> None:
    """Padding moves no input, target, fee or scale of any series."""
    series = three_series()
    together = SequenceDataModule(*prices_data(write(series)))
    alone = SequenceDataModule(*prices_data(write({name: series[name]})))
    b = list(LENGTHS).index(name)
    for mine, among in ((alone.train, together.train), (alone.val, together.val)):
        steps = mine.steps[0]
        assert mine.mask is None
        assert among.steps[b] == steps
        torch.testing.assert_close(among.targets[b, :steps], mine.targets[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(among.features(0, steps)[b], mine.features(0, steps)[0], rtol=0, atol=1e-6)
    for key, value in vars(alone.scaler).items():
        if value is not None:
            torch.testing.assert_close(getattr(together.scaler, key)[b], value[0])


def test_baseline_is_the_loss_of_predicting_the_training_mean(write: Write) -> None:
    series = three_series()
    data = SequenceDataModule(*prices_data(write(series)))
    squares, count = 0.0, 0
    for prices in series.values():
        border = len(prices) - held_out_count(len(prices))
        fee = 1.3 * np.std(np.diff(prices[:border]))
        trained = q_of(prices[:border], fee)[WINDOW : border - 1 - HORIZON]
        mean = trained.mean(axis=0)
        std = np.sqrt(np.mean((trained - mean) ** 2))
        tested = (q_of(prices[border:], fee)[:-HORIZON] - mean) / std
        squares, count = squares + np.sum(tested**2), count + tested.size
    assert data.baseline == pytest.approx(squares / count, rel=1e-6)


def test_one_batch_holds_the_whole_set() -> None:
    data = SequenceDataModule(*article_data())
    assert [b is data.train for b in data.train_dataloader()] == [True]
    assert [b is data.val for b in data.val_dataloader()] == [True]
    assert len(data.train_dataloader()) == 1


def test_loading_draws_nothing_from_the_global_generators() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    data = SequenceDataModule(*article_data())
    list(data.train_dataloader())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


# --- three parts ----------------------------------------------------------------------------------------------


THREE = {"val_fraction": 0.25, "test_fraction": 0.2, "warm_steps": 7}
AT = {"long": (90, 50, 72), "middle": (61, 34, 49), "short": (47, 27, 38)}  # n, first of val, first of test


def test_parts_are_in_the_order_of_time_and_test_is_the_last(write: Write) -> None:
    series = three_series()
    split = load_split(*prices_data(write(series), **THREE))
    for name, prices in series.items():
        n, val, test = AT[name]
        assert (test, val) == (n - math.floor(0.2 * n), test - math.floor(0.25 * n))
        warm = min(7, val - WINDOW)
        for part, expected in (
            (split.train, prices[:val]),
            (split.val, prices[val - WINDOW - warm : test]),
            (split.test, prices[test - WINDOW - 7 :]),
        ):
            np.testing.assert_allclose(part[name], expected, rtol=1e-14)
        assert split.warm["val"][name] == warm
        assert split.steps(split.val[name]) - warm == test - val - HORIZON - 1
        assert split.steps(split.test[name]) - 7 == n - test - HORIZON - 1


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_scored_targets_of_a_part_know_of_no_price_of_another(write: Write, part: str) -> None:
    """Another price in one part moves no target that counts in the others, nor what they are scaled by."""
    series = three_series()
    settings = THREE | {"fee_unit": "price"}  # which does not come from the training part
    found = []
    for moved in (0.0, 5.0):
        for name, prices in series.items():
            n, val, test = AT[name]
            at = {"train": slice(0, val), "val": slice(val, test), "test": slice(test, n)}[part]
            prices[at] += moved * np.arange(at.stop - at.start) ** 2
        found.append(prepare(*prices_data(write(series), **settings)))
    for name in ("train", "val", "test"):
        before, after = (one.test() if name == "test" else getattr(one, name) for one in found)
        in_prices = [
            one.scaler.to_price_units(s.targets.double()) for one, s in zip(found, (before, after), strict=True)
        ]
        for b, steps in enumerate(before.steps):
            at = slice(before.warm[b] if before.warm else 0, steps)
            same = np.allclose(in_prices[0][b, at], in_prices[1][b, at], rtol=1e-4, atol=1e-3)
            assert same is (name != part), (name, b)
    assert torch.equal(found[0].scaler.target_std, found[1].scaler.target_std) is (part != "train")


def test_warm_up_is_masked_and_its_steps_count_nowhere(write: Write) -> None:
    data = prepare(*prices_data(write(three_series()), **THREE))
    for part in (data.val, data.test()):
        assert part is not None
        assert part.mask is not None
        for row, steps, warm in zip(part.mask, part.steps, part.warm, strict=True):
            assert row.tolist() == [0.0] * warm + [1.0] * (steps - warm) + [0.0] * (part.length - steps)
        assert part.valid_steps == int(part.mask.sum())
        for a, b in ((0, 3), (5, 9), (0, part.length), (8, 8)):
            assert part.valid_in(a, b) == int(part.mask[:, a:b].sum())


def test_warm_up_is_as_long_as_what_is_there_where_a_series_is_shorter(write: Write) -> None:
    series = three_series()
    split = load_split(*prices_data(write(series), **THREE | {"warm_steps": 1000}))
    for name, prices in series.items():
        n, val, test = AT[name]
        assert split.warm["val"][name] == val - WINDOW
        assert split.warm["test"][name] == test - WINDOW
        np.testing.assert_allclose(split.val[name], prices[:test], rtol=1e-14)
        np.testing.assert_allclose(split.test[name], prices[:n], rtol=1e-14)


def test_warm_up_moves_no_scored_input_or_target(write: Write) -> None:
    path = write(three_series())
    plain, warm = (prepare(*prices_data(path, **THREE | {"warm_steps": n})) for n in (0, 7))
    for before, after in ((plain.val, warm.val), (plain.test(), warm.test())):
        assert before is not None
        assert after is not None
        x, y = before.features(0, before.length), after.features(0, after.length)
        for b, steps in enumerate(before.steps):
            assert after.steps[b] == steps + 7
            torch.testing.assert_close(y[b, 7 : 7 + steps], x[b, :steps], atol=1e-4, rtol=0)
            torch.testing.assert_close(after.targets[b, 7 : 7 + steps], before.targets[b, :steps])
        assert after.baseline == pytest.approx(before.baseline, rel=1e-6)


def test_fingerprint_is_as_before_without_a_test_part_and_whatever_is_warm_up(write: Write) -> None:
    series = three_series()
    path = write(series)
    v = {name: held_out_count(len(prices)) for name, prices in series.items()}
    read = {name: load_split(*prices_data(path, warm_steps=0)).train[name] for name in series}
    assert {name: len(row) for name, row in read.items()} == {name: len(p) - v[name] for name, p in series.items()}
    parts = {f"training/{name}": read[name] for name in series} | {
        f"held_out/{name}": load_split(*prices_data(path)).val[name] for name in series
    }
    digests = {load_split(*prices_data(path, warm_steps=n)).fingerprint() for n in (0, 3, 1000)}
    assert digests == {fingerprint(parts)}
    three = [load_split(*prices_data(path, **THREE | {"warm_steps": n})) for n in (0, 7)]
    assert len({split.fingerprint() for split in three}) == 1
    assert three[0].fingerprint() not in digests
    assert three[0].test_fingerprint() == three[1].test_fingerprint()


@pytest.mark.parametrize("window", ["expanding", "rolling"])
def test_folds_validate_on_one_piece_after_another_and_all_leave_the_test_part_alone(write: Write, window: str) -> None:
    series = three_series()
    path = write(series)
    for name, prices in series.items():
        test = AT[name][2]
        pieces = [test * i // 4 for i in range(5)]
        for k in (1, 2, 3):
            changes = {"fold": f"{k}/3", "fold_window": window, "columns": [name], "horizon": 1, "window": 3}
            split = load_split(*prices_data(path, **THREE | changes | {"warm_steps": 2}))
            first = max(0, pieces[k - 1] - 3) if window == "rolling" else 0
            np.testing.assert_allclose(split.train[name], prices[first : pieces[k]], rtol=1e-14)
            np.testing.assert_allclose(split.val[name], prices[pieces[k] - 3 - 2 : pieces[k + 1]], rtol=1e-14)
            np.testing.assert_allclose(split.test[name], prices[test - 3 - 2 :], rtol=1e-14)
        assert pieces[4] == test


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_fraction": 0.1}, r"short has 47 prices, 4 of them in its test part.*at least 5.*test_fraction 0.1"),
        ({"test_fraction": 0.01}, r"long has 90 prices, 0 of them in its test part.*at least 5"),
        ({"val_fraction": 0.05}, r"long has 90 prices, 4 of them in its validation part.*at least 5"),
        ({"val_fraction": 0.7}, r"long has 90 prices, 9 of them in its training part.*at least 11"),
        ({"fold": "1/9"}, r"long has 90 prices, 7 of them in its training part.*\(fold 1/9; task.horizon shortens"),
        ({"fold": "8/9"}, r"short has 47 prices, 4 of them in its validation part.*\(fold 8/9; task.horizon"),
    ],
    ids=str,
)
def test_a_part_that_is_too_short_is_named_with_what_it_needs(write: Write, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_split(*prices_data(write(three_series()), **THREE | changes))


def test_articles_first_two_parts_are_the_same_to_the_byte_with_and_without_test_series() -> None:
    none, some = (load_split(*article_data(test_series=n)) for n in (0, 12))
    for part in ("train", "val"):
        before, after = getattr(none, part), getattr(some, part)
        assert {name: p.tobytes() for name, p in before.items()} == {name: p.tobytes() for name, p in after.items()}
    assert none.test == {}
    rows = np.stack(list(some.test.values()))
    np.testing.assert_array_equal(rows, article_series(12, WINDOW + 54, seed=0, part=TEST))
    for part in (TRAINING, HELD_OUT):
        assert not np.isclose(rows[0], article_series(1, WINDOW + 54, seed=0, part=part)[0]).all()
    assert none.fingerprint() != some.fingerprint()

"""Other inputs of a step, from the split to the network: against loops over the definition, and never ahead of it."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from parts import forecast, walks
from test_features import LargestMemory, lag_inputs, some_scaler
from torch import Tensor

from tbptt.data.features import KINDS, MOST_DEVIATIONS, LagFeatures, Scaler
from tbptt.data.options import MarketData
from tbptt.data.panel import Panel
from tbptt.data.panels.inputs import FORMS, formed
from tbptt.data.prices import Prices
from tbptt.data.split import Split, load_split
from tbptt.evaluation.baselines import RIDGE, Baselines
from tbptt.evaluation.losses import evaluate
from tbptt.models.build import build_network
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import Prepared, prepare_split
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer

WINDOW, AHEAD, WARM = 4, 1, 9
NAMES = ["volume", "spread"]


def by_definition(extra: np.ndarray, mean: np.ndarray, std: np.ndarray, window: int, lags: int) -> np.ndarray:
    """(B, T, 2·D·J): values in order of input and lag, then what is known; extra[:, window + t] is of step t."""
    batch, rows, count = extra.shape
    values, known = (np.zeros((batch, rows - window, count, lags)) for _ in range(2))
    for b, t, d, j in itertools.product(range(batch), range(rows - window), range(count), range(lags)):
        row, s = window + t - j, b % len(mean)
        if row >= 0 and not math.isnan(extra[b, row, d]):
            values[b, t, d, j] = (extra[b, row, d] - mean[s, d]) / std[s, d]
            known[b, t, d, j] = 1
    return np.concatenate([values.reshape(batch, rows - window, -1), known.reshape(batch, rows - window, -1)], axis=2)


def some_inputs(batch: int, rows: int, count: int = 2, seed: int = 0, missing: float = 0.2) -> np.ndarray:
    """Inputs of different sizes, some of them missing."""
    random = np.random.default_rng(seed)
    found = random.normal(5, 1, (batch, rows, count)) * 10.0 ** np.arange(count)
    found[random.random(found.shape) < missing] = np.nan
    return found


def some_moments(scales: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.normal(5, 1, (scales, count)), random.random((scales, count)) + 0.5


def with_moments(scaler: Scaler, mean: np.ndarray, std: np.ndarray) -> Scaler:
    return replace(scaler, extra_mean=torch.from_numpy(mean), extra_std=torch.from_numpy(std))


def features_of(kind: str, lags: int, batch: int = 3, dtype: torch.dtype = torch.float32) -> LagFeatures:
    prices, extra = some_prices(batch, 40), torch.from_numpy(some_inputs(batch, 40))
    scaler = with_moments(some_scaler(batch), *some_moments(batch, 2))
    return LagFeatures(torch.from_numpy(prices), scaler, WINDOW, kind, dtype, extra, lags)


def some_prices(batch: int, rows: int) -> np.ndarray:
    return np.stack([*walks([rows] * batch).values()])


# --- a chunk's inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize(("window", "lags"), [(1, 1), (6, 1), (6, 3), (6, 7), (2, 12), (1, 60)])
def test_a_step_has_the_lags_of_its_price_then_those_of_the_inputs_then_what_is_known(
    window: int, lags: int, scales: int, kind: str
) -> None:
    batch, rows = 3, 30 + window
    prices, extra = some_prices(batch, rows), some_inputs(batch, rows, count=3, seed=lags)
    scaler, (mean, std) = some_scaler(scales), some_moments(scales, 3)
    given = (torch.from_numpy(prices), with_moments(scaler, mean, std), window, kind, torch.float64)
    features = LagFeatures(*given, torch.from_numpy(extra), lags)
    of_prices = (lag_inputs(prices, window, kind) - scaler.input_mean.numpy()[:, None, None]) / (
        scaler.input_std.numpy()[:, None, None]
    )
    expected = np.concatenate([of_prices, by_definition(extra, mean, std, window, lags)], axis=2)
    for start, stop in [(0, 30), (0, 1), (0, 7), (11, 19), (29, 30)]:
        got = features(start, stop)
        np.testing.assert_allclose(got.numpy(), expected[:, start:stop], rtol=0, atol=1e-11)
        assert got.transpose(0, 1).is_contiguous(), "time-major in memory"


@pytest.mark.parametrize("kind", KINDS)
def test_the_lags_of_the_price_are_the_same_to_the_bit_beside_other_inputs(kind: str) -> None:
    features = features_of(kind, 3)
    alone = LagFeatures(torch.from_numpy(some_prices(3, 40)), some_scaler(3), WINDOW, kind)
    assert torch.equal(features(5, 30)[..., :WINDOW], alone(5, 30))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lags", [1, 3, 50])
def test_a_buffer_has_the_inputs_of_the_steps_that_were_copied(kind: str, lags: int) -> None:
    features = features_of(kind, lags)
    buffer = features.buffer(7)
    places = [v.data_ptr() for v in vars(buffer).values() if isinstance(v, Tensor)]
    for start in (0, 20, 29, 4):
        buffer.copy_from(features, start)
        assert torch.equal(buffer(0, 7), features(start, start + 7))
    assert [v.data_ptr() for v in vars(buffer).values() if isinstance(v, Tensor)] == places, "a graph reads these"
    assert len(places) == len([v for v in vars(features).values() if isinstance(v, Tensor)])


def test_chunks_do_not_alter_what_is_kept() -> None:
    features = features_of("lagged_change", 3)
    first = features(3, 20).clone()
    features(3, 20).fill_(7)
    assert torch.equal(features(3, 20), first)


@pytest.mark.parametrize("lags", [1, 40])
def test_nothing_of_all_steps_times_lags_is_made(lags: int) -> None:
    batch, length, window, count, chunk = 2, 3000, 100, 3, 20
    prices, extra = torch.from_numpy(some_prices(batch, window + length)), some_inputs(batch, window + length, count)
    given = torch.from_numpy(extra)
    with LargestMemory() as memory:
        scaler = some_scaler(batch).with_extra(given, torch.tensor([length] * batch), window, False)
        features = LagFeatures(prices, scaler, window, "lagged_change", extra=given, input_window=lags)
        features(1500, 1500 + chunk)
    assert memory.largest <= max(batch * (length + window) * 8 * count, batch * (length + lags) * 4 * 2 * count)
    kept = {name: v.untyped_storage().nbytes() for name, v in vars(features).items() if isinstance(v, Tensor)}
    assert kept["extra"] == batch * (length + lags - 1) * 2 * count * 4
    assert sum(kept.values()) <= 2 * batch * (length + window) * 4 + kept["extra"]


# --- the scale ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_moments_are_those_of_what_is_known_in_the_steps_that_train(shared: bool) -> None:
    rows, steps = WINDOW + 50, [50, 31]
    extra = some_inputs(2, rows, 3)
    scaler = some_scaler().with_extra(torch.from_numpy(extra), torch.tensor(steps), WINDOW, shared)
    trained = [extra[b, WINDOW : WINDOW + n] for b, n in enumerate(steps)]
    groups = [np.concatenate(trained)] if shared else trained
    np.testing.assert_allclose(scaler.extra_mean, [np.nanmean(group, axis=0) for group in groups], rtol=1e-12)
    np.testing.assert_allclose(scaler.extra_std, [np.nanstd(group, axis=0) for group in groups], rtol=1e-12)
    extra[:, :WINDOW], extra[1, WINDOW + 31 :] = 1e9, -1e9  # before the first step, and padding
    again = some_scaler().with_extra(torch.from_numpy(extra), torch.tensor(steps), WINDOW, shared)
    for name in ("extra_mean", "extra_std"):
        assert torch.equal(getattr(again, name), getattr(scaler, name))


def scaled(training: list[float], held_out: list[float]) -> np.ndarray:
    """An input's values, and whether they are known, in another part than the one that its scale is of: (T, 2)."""
    one = torch.tensor(training, dtype=torch.float64)[None, :, None]
    scaler = some_scaler().with_extra(one, torch.tensor([len(training) - 1]), 1, False)
    extra = torch.tensor(held_out, dtype=torch.float64)[None, :, None]
    features = LagFeatures(torch.zeros(1, len(held_out)).double(), scaler, 1, "lagged_change", extra=extra)
    return cast(np.ndarray, features(0, features.length)[0, :, 1:].numpy())


@pytest.mark.parametrize("never", [7.0, 0.0, 0.1, -1e308, math.nan])
def test_an_input_that_says_nothing_in_training_says_nothing_later(never: float) -> None:
    """Its weights were never trained, so that any other value would be as good as noise."""
    got = scaled([1.0] + [never] * 5, [0.0, never, 8.0, 1e308, math.nan])
    np.testing.assert_array_equal(got[:, 0], 0)
    np.testing.assert_array_equal(got[:, 1], [0 if math.isnan(never) else 1, 1, 1, 0])


def test_values_that_float32_cannot_hold_stay_within_bounds() -> None:
    got = scaled([0, 1, 3], [0, 2.5, 1e300, -1e300, 1 + 1e3, math.inf, -math.inf])  # mean 2, deviation 1
    np.testing.assert_allclose(got[:, 0], [0.5, MOST_DEVIATIONS, -MOST_DEVIATIONS, 999, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(got[:, 1], [1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("unit", [1e-200, 1e-9, 1.0, 1e200, 4e307])
def test_an_inputs_unit_makes_no_difference(unit: float) -> None:
    got = scaled([0, 1 * unit, 3 * unit, 2 * unit], [0, 1 * unit, 2 * unit])
    np.testing.assert_allclose(got[:, 0], [-math.sqrt(1.5), 0], atol=1e-6)


def test_a_small_move_of_a_large_input_keeps_its_digits() -> None:
    ticks = np.random.default_rng(0).integers(-1, 2, 500).astype(float)
    level = 1e6 + 0.01 * ticks
    got = scaled(level.tolist(), level.tolist())
    expected = (ticks[1:] - ticks[1:].mean()) / ticks[1:].std()
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)


# --- from the split to the sequences --------------------------------------------------------------------------


def data_of(inputs: list[str], lags: int = 1, **changes: Any) -> MarketData:
    settings = {"window": WINDOW, "val_fraction": 0.25, "test_fraction": 0.25, "warm_steps": WARM, **changes}
    return MarketData(name="market", inputs=inputs, input_window=lags, **settings)


def split_of(series: Mapping[str, Prices], inputs: Mapping[str, Prices], data: MarketData, task: TaskConfig) -> Split:
    """The split of these series, each with its (N, D) other inputs cut as its prices are."""
    found = load_split(replace(data, inputs=[]), task, dict(series))
    parts: dict[str, dict[str, Prices]] = {"train": {}, "val": {}, "test": {}}
    for name, rows in inputs.items():
        n = len(rows)
        test, back = n - math.floor(0.25 * n), WINDOW + WARM
        val = test - math.floor(0.25 * n)
        parts["train"][name], parts["val"][name] = rows[:val], rows[val - back : test]
        parts["test"][name] = rows[test - back :]
        assert [len(parts[part][name]) for part in parts] == [len(getattr(found, part)[name]) for part in parts]
    panel = Panel.of_arrays(series)
    of = {name: replace(each, inputs=inputs[name]) for name, each in panel.series.items()}
    return replace(found, inputs=parts, panel=replace(panel, series=of, inputs=tuple(data.inputs)))


def prepared(series: Mapping[str, Prices], inputs: Mapping[str, Prices], lags: int, kind: str = KINDS[0]) -> Prepared:
    data, task = data_of(NAMES, lags, features=kind), forecast(AHEAD)
    return prepare_split(split_of(series, inputs, data, task), data, task)


def parts_of(found: Prepared) -> dict[str, np.ndarray]:
    test = found.test()
    assert test is not None
    parts = {"train": found.train, "val": found.val, "test": test}
    return {name: part.features(0, part.length).numpy() for name, part in parts.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lags", [1, 3, 25])
def test_each_part_has_the_inputs_of_its_steps(lags: int, kind: str) -> None:
    """Series of different lengths: warm-up, look-back and padding."""
    series = walks([200, 171])
    inputs = {name: some_inputs(1, len(prices), seed=len(prices))[0] for name, prices in series.items()}
    found = prepared(series, inputs, lags, kind)
    assert found.data.input_size == WINDOW + 2 * 2 * lags
    split, parts = found.split, parts_of(found)
    mean, std = (np.empty((2, 2)) for _ in range(2))
    for b, (name, prices) in enumerate(split.train.items()):
        trained = split.inputs["train"][name][WINDOW : len(prices) - AHEAD]
        mean[b], std[b] = np.nanmean(trained, axis=0), np.nanstd(trained, axis=0)
    for part, got in parts.items():
        assert got.shape[2] == found.data.input_size
        for b, name in enumerate(series):
            rows = split.inputs[part][name]
            expected = by_definition(rows[None], mean[b : b + 1], std[b : b + 1], WINDOW, lags)[0]
            steps = len(rows) - WINDOW - AHEAD
            np.testing.assert_allclose(got[b, :steps, WINDOW:], expected[:steps], atol=1e-5, err_msg=f"{part} {name}")
    assert found.warnings == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("changed", ["input", "price"])
def test_no_step_sees_an_input_or_a_price_after_it(form: str, changed: str) -> None:
    """In any form, in any part, what comes after a step changes nothing that the network sees up to it."""
    random = np.random.default_rng(0)
    raw = {"a": random.uniform(1, 2, 200), "b": random.uniform(1, 2, 190)}
    prices = {name: 50 + random.normal(0, 0.1, len(each)).cumsum() for name, each in raw.items()}
    lags = 6

    def seen(raw: Mapping[str, Prices], prices: Mapping[str, Prices]) -> tuple[Prepared, dict[str, np.ndarray]]:
        inputs = {n: np.stack([formed(form, raw[n], prices[n]), raw[n]], axis=1) for n in raw}
        found = prepared(prices, inputs, lags)
        return found, parts_of(found)

    before, was = seen(raw, prices)
    for row in (110, 140, 175):  # in validation, in validation and the warm-up of test, in test
        cut = {name: each.copy() for name, each in (raw if changed == "input" else prices).items()}
        for each in cut.values():
            each[row:] = random.uniform(40, 90, len(each) - row)
        after, got = seen(cut, prices) if changed == "input" else seen(raw, cut)
        for name in ("extra_mean", "extra_std", "input_mean", "input_std"):
            assert torch.equal(getattr(after.scaler, name), getattr(before.scaler, name)), f"{name} sees row {row}"
        differs = 0
        for part, (b, (name, each)) in itertools.product(was, enumerate(raw.items())):
            n = len(each)
            test = n - math.floor(0.25 * n)
            val = test - math.floor(0.25 * n)
            first = {"train": WINDOW, "val": val - WARM, "test": test - WARM}[part]  # the row of step 0
            up_to = min(max(row - first, 0), before.split.steps(getattr(before.split, part)[name]))
            np.testing.assert_array_equal(got[part][b, :up_to], was[part][b, :up_to])
            differs += int((got[part][b, up_to : up_to + 1] != was[part][b, up_to : up_to + 1]).any())
        assert differs, "what was changed is seen at its own step"


def test_what_says_nothing_in_training_is_said_by_input_and_series() -> None:
    series = walks([200, 171])
    inputs = {name: some_inputs(1, len(prices))[0] for name, prices in series.items()}
    inputs["s0"][WINDOW : 100 - AHEAD, 0] = 3.0  # the prices before the first step do not train
    inputs["s1"][:86, 1] = np.nan
    inputs["s1"][86, 1] = 1.0  # beside the last price of the training part, at which only a target looks
    found = prepared(series, inputs, 1)
    assert found.warnings == (
        "volume never changes in the training part of s0: it says nothing there",
        "spread is never known in the training part of s1: it says nothing there",
    )
    parts = parts_of(found)
    for part in parts.values():
        assert not part[0, :, WINDOW].any()
        assert not part[1, :, WINDOW + 1].any()
        assert part[0, :, WINDOW + 1].any()


def test_inputs_that_the_source_does_not_give_are_named() -> None:
    series, task = walks([200]), forecast(AHEAD)
    inputs = {"s0": some_inputs(1, 200)[0]}
    split = split_of(series, inputs, data_of(NAMES), task)
    with pytest.raises(ValueError, match=r"data.inputs: market has no input vwap \(it has: volume, spread\)"):
        prepare_split(split, data_of(["spread", "vwap"]), task)
    with pytest.raises(ValueError, match=r"market has no input volume \(it has: none\)"):
        prepare_split(load_split(data_of([]), task, series), data_of(["volume"]), task)
    chosen = [prepare_split(split, data_of(names), task) for names in (["spread"], NAMES[::-1], NAMES)]
    alone, turned, given = (found.train.features(0, 20)[0, :, WINDOW:].numpy() for found in chosen)
    np.testing.assert_array_equal(alone, given[:, [1, 3]])
    np.testing.assert_array_equal(turned, given[:, [1, 0, 3, 2]])
    split = replace(split, inputs={"train": {"s0": inputs["s0"][:-1]}})
    with pytest.raises(ValueError, match=r"market: the inputs of s0 are \(199, 2\); takes \(100, 2\), a row for each"):
        prepare_split(split, data_of(NAMES), task)


# --- what is learnt of them -----------------------------------------------------------------------------------


def told(lags: int) -> Prepared:
    """Prices whose next change is what an input told one step ago, and some noise; the other input is noise."""
    random = np.random.default_rng(0)
    series, inputs = {}, {}
    for name, n in (("a", 600), ("b", 500)):
        signal = random.normal(0, 1, n)
        changes = np.concatenate([[0, 0], signal[:-2]]) + random.normal(0, 0.3, n)
        series[name] = 100 + changes.cumsum()
        inputs[name] = np.stack([random.normal(0, 1, n), signal], axis=1)
        inputs[name][random.random(n) < 0.1, 0] = np.nan
    return prepared(series, inputs, lags, "one_step_change")


def test_ridge_sees_the_same_inputs() -> None:
    found = told(lags=2)
    unseen = prepare_split(found.split, replace(found.data, inputs=[]), found.task)
    losses = {}
    for name, each in (("with", found), ("without", unseen), ("one lag", told(lags=1))):
        y = Baselines(each).predict(each.val)[RIDGE]
        losses[name] = float(each.val.loss(y, 0, each.val.length)) / each.val.count(0, each.val.length)
    assert losses["with"] < 0.15 * unseen.baseline
    assert losses["without"] > 0.9 * unseen.baseline
    assert losses["one lag"] > 0.9 * unseen.baseline


@pytest.mark.parametrize("way", ["plain", "segments", "fixed"])
def test_a_network_learns_what_only_another_input_tells(way: str, config: Any) -> None:
    found = told(lags=1)  # what was told a step ago is left to the network's state
    model = OmegaConf.to_object(config("model.dense=[]", "model.hidden=[8]", "model.noise_std=0").model)
    torch.manual_seed(0)
    network = build_network(cast(Any, model), found.data.input_size, found.task.outputs)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.02)
    fixed = FixedSteps() if way == "fixed" else None
    segment = 20 if way == "segments" else None
    first = evaluate(network, found.val).item()
    for _ in range(8):
        train_pass(network, parameters, optimizer, found.train, 10, segment_length=segment, fixed=fixed)
    ridge = prepare_split(found.split, replace(found.data, inputs=[]), found.task)
    y = Baselines(ridge).predict(ridge.val)[RIDGE]
    without = float(ridge.val.loss(y, 0, ridge.val.length)) / ridge.val.count(0, ridge.val.length)
    assert evaluate(network, found.val).item() < 0.5 * min(first, without)

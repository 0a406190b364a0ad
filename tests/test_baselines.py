"""Baselines that need no network, against least squares written out with NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parts import Told, article, forecast, prepared, q_values, scored, walks

from tbptt.data.prices import HELD_OUT, TEST, TRAINING, waves
from tbptt.data.sequences import Sequences
from tbptt.evaluation import baselines
from tbptt.evaluation.baselines import CLOCK, MEAN, PENALTIES, RIDGE, ZERO, Baselines, baselines_of, best_ridge
from tbptt.evaluation.judged import judge
from tbptt.tasks.options import Forecast
from tbptt.tasks.prepare import Prepared, prepare


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    return prepared(tmp_path, walks())


def rows_of(part: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, W) and targets (N, O) of the steps that count, float64."""
    x, steps = part.features(0, part.length).double().numpy(), scored(part)
    return np.array([x[at] for at in steps]), np.array([part.targets[at].double().numpy() for at in steps])


def solved(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with the penalty as further rows: sqrt(N·penalty) times the identity, whose targets are 0."""
    centred, shift = x - x.mean(0), y - y.mean(0)
    more = np.sqrt(len(x) * penalty) * np.eye(x.shape[1])
    weights, *_ = np.linalg.lstsq(np.vstack([centred, more]), np.vstack([shift, np.zeros((len(more), y.shape[1]))]))
    return weights, y.mean(0) - x.mean(0) @ weights


def squared_error(x: np.ndarray, y: np.ndarray, fit: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.mean((x @ fit[0] + fit[1] - y) ** 2))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_ridge_is_the_direct_solution(data: Prepared, penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the steps that count, in chunks that divide nothing evenly."""
    monkeypatch.setattr(baselines, "PENALTIES", (penalty,))
    monkeypatch.setattr(baselines, "CHUNK", 37)
    assert data.train.mask is not None
    weights, constant = best_ridge(data.train, data.val)
    expected = solved(*rows_of(data.train), penalty)
    np.testing.assert_allclose(weights, expected[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(constant, expected[1], rtol=1e-3, atol=1e-5)


def test_ridge_takes_the_penalty_whose_loss_on_val_is_least(data: Prepared) -> None:
    train, val = rows_of(data.train), rows_of(data.val)
    fits = [solved(*train, penalty) for penalty in PENALTIES]
    losses = [squared_error(*val, fit) for fit in fits]
    weights, _ = best_ridge(data.train, data.val)
    np.testing.assert_allclose(weights, fits[int(np.argmin(losses))][0], rtol=1e-3, atol=1e-5)
    assert max(losses) > 1.0001 * min(losses)


def test_ridge_finds_a_linear_rule_and_predicts_by_it_where_nothing_was_fitted(tmp_path: Path) -> None:
    """Changes that follow from the one before by 0.9, and little noise."""
    random, changes = np.random.default_rng(0), [1.0]
    for noise in random.normal(0, 0.1, 799):
        changes.append(0.9 * changes[-1] + noise)
    found = prepared(tmp_path, {"a": 500 + np.cumsum(changes)}, forecast(1), features="one_step_change")
    test = found.test()
    assert test is not None
    y = baselines_of(found).predict(test)[RIDGE]
    x, target = rows_of(test)
    fits = [solved(*rows_of(found.train), penalty) for penalty in PENALTIES]
    expected = min(fits, key=lambda fit: squared_error(*rows_of(found.val), fit))
    np.testing.assert_allclose([y[at].item() for at in scored(test)], (x @ expected[0] + expected[1])[:, 0], atol=1e-4)
    assert squared_error(x, target, expected) < 0.4 * np.mean(target**2)


def test_inputs_that_are_alike_have_weights_all_the_same(tmp_path: Path) -> None:
    """The lags of a straight line with few bends are nearly equal; without a penalty there is no one solution."""
    bends = np.abs((np.arange(400) % 100) - 50) * 0.25
    found = prepared(tmp_path, {"a": 100 + bends}, forecast(2))
    for y in Baselines(found).predict(found.val).values():
        assert y.isfinite().all()


def test_mean_and_zero_are_what_they_say_in_price_units(data: Prepared) -> None:
    test = data.test()
    assert test is not None
    for part in (data.val, test):
        found = baselines_of(data).predict(part)
        assert set(found) == {MEAN, ZERO, RIDGE}
        train_prices = data.scaler.to_price_units(data.train.targets.double())
        for b in range(part.batch):
            rows = [train_prices[b, t].numpy() for t in range(data.train.steps[b])]
            in_prices = {name: data.scaler.to_price_units(found[name].double())[b] for name in (MEAN, ZERO)}
            scale = float(data.scaler.target_std[b])
            np.testing.assert_allclose(in_prices[MEAN], np.tile(np.mean(rows, 0), (part.length, 1)), atol=1e-5 * scale)
            np.testing.assert_allclose(in_prices[ZERO], np.zeros((part.length, 2)), atol=1e-5 * scale)
    assert data.baseline == pytest.approx(np.mean(rows_of(data.val)[1] ** 2), rel=1e-5)
    assert test.baseline == pytest.approx(np.mean(rows_of(test)[1] ** 2), rel=1e-5)


def test_baselines_are_fitted_on_the_training_part_alone(tmp_path: Path) -> None:
    """The penalty, which val chooses, is the same in both."""
    series = walks()
    before = Baselines(prepared(tmp_path, series))
    for prices in series.values():
        prices[len(prices) * 3 // 4 :] += np.linspace(0, 9, len(prices) - len(prices) * 3 // 4)
    after = Baselines(prepared(tmp_path, series))
    assert all(torch.equal(a, b) for a, b in zip(before._ridge, after._ridge, strict=True))


def test_the_same_data_are_fitted_once(data: Prepared, tmp_path: Path) -> None:
    assert baselines_of(data) is baselines_of(data)
    assert baselines_of(prepared(tmp_path, walks())) is not baselines_of(data)


# --- the clock ------------------------------------------------------------------------------------------------------


def test_the_clock_is_least_squares_on_the_articles_waves() -> None:
    """Its features are those of the series' own envelope at the price of each step."""
    config = article(length=600, frequencies=[0.004, 0.007])
    found = prepare(config, q_values(gamma=0.9, fee=0.02, fee_unit="price"))
    at = config.window + np.arange(600)
    columns = [np.ones(600), *(f(np.sin(w * at)) for w in (0.004, 0.007) for f in (np.abs, np.square))]
    x = np.stack(columns, axis=1)
    train = found.train.targets.double().numpy()
    weights, *_ = np.linalg.lstsq(np.tile(x, (len(train), 1)), train.reshape(-1, 2))
    test = found.test()
    assert test is not None
    for part in (found.val, test):
        got = baselines_of(found).predict(part)[CLOCK].numpy()
        np.testing.assert_allclose(got, np.tile((x @ weights)[None], (part.batch, 1, 1)), atol=2e-3)


def test_the_articles_envelope_is_what_the_clock_looks_at() -> None:
    """Prices leave 100 by no more than |sin f·t| of the two waves, at the clock's own steps."""
    config = article(length=3000, frequencies=[0.002, 0.002])
    envelope = config.clock(0, 3000)[:, 0]
    for part in (TRAINING, HELD_OUT, TEST):
        prices = waves(5, 3000 + config.window, seed=0, part=part, frequencies=(0.002, 0.002))
        found = np.abs(prices[:, config.window :] - 100)
        assert (found <= np.sqrt(2) * envelope + 1e-9).all()
        assert (found.max(0) > 0.2 * envelope).mean() > 0.5


def test_a_clock_that_sees_no_price_knows_much_of_the_articles_series() -> None:
    """As all series begin at t = 0. With the default 15 series it has 0.258 on val, and the mean 1.116."""
    config = article(n_series=6, test_series=0, length=20000)
    found = prepare(config, q_values(gamma=0.99, fee=0.02, fee_unit="price"))
    y = baselines_of(found).predict(found.val)
    assert float((y[CLOCK] - found.val.targets).square().mean()) < 0.4 * found.baseline


def test_no_clock_helps_where_each_series_starts_at_another_time() -> None:
    """It is least squares on the number of the step as before, and comes out near the mean: an honest row."""
    config = article(n_series=6, test_series=0, length=20000, phase="random")
    found = prepare(config, q_values(gamma=0.99, fee=0.02, fee_unit="price"))
    wave = np.sin(0.0002 * (config.window + np.arange(20000)))
    x = np.stack([np.ones(20000), np.abs(wave), wave**2], axis=1)
    mean_of_series = found.train.targets.double().numpy().mean(0)  # all have the same rows of x
    weights, *_ = np.linalg.lstsq(x, mean_of_series)
    y = baselines_of(found).predict(found.val)[CLOCK]
    np.testing.assert_allclose(y, np.tile((x @ weights)[None], (3, 1, 1)), atol=2e-3)
    assert float((y - found.val.targets).square().mean()) > 0.95 * found.baseline


def test_files_have_no_clock(data: Prepared) -> None:
    assert data.data.clock(0, 3) is None


class Persistent(Forecast):
    """The last change goes on."""

    name = "persistent"
    gives: str = "last_change"

    def baselines(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {self.gives: x[..., :1]}


def test_a_task_of_ones_own_brings_baselines_of_the_inputs(tmp_path: Path) -> None:
    found = prepared(tmp_path, walks(), Persistent(name="persistent", horizons=[1]))
    y = Baselines(found).predict(found.val)["last_change"]
    torch.testing.assert_close(y, found.val.features(0, found.val.length)[..., :1])
    test = found.test()
    assert test is not None
    judged, steps = judge(
        [Told(torch.zeros_like(found.val.targets), torch.zeros_like(test.targets))], found, with_test=True
    )
    assert judged.test is not None
    assert {"last_change", "mean", "zero", "ridge"} == set(judged.val.baselines) == set(judged.test.baselines)
    assert steps["val/last_change"].shape == steps["val/mean"].shape


@pytest.mark.parametrize(
    ("gives", "horizons", "says"),
    [
        ("ridge", [1], "got the name 'ridge'"),
        ("wide", [1, 2], r"gives \(2, 2, 1\) for wide; takes a tensor of \(2, 2, 2\)"),
    ],
)
def test_baselines_that_cannot_be_used_are_refused_before_a_run(
    gives: str, horizons: list[int], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Persistent, "gives", gives)
    with pytest.raises(ValueError, match=f"task=persistent: baselines.*{says}"):
        prepared(tmp_path, walks(), Persistent(name="persistent", horizons=horizons))

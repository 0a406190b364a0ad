"""Lag windows and their scaling, against loops over the definition."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tbptt.data.features import KINDS, LagFeatures, Scaler

WINDOW = 6


def walks(batch: int, length: int, std: float = 1.0, seed: int = 0) -> np.ndarray:
    """Prices in ticks of 0.01, beginning at about 100, 150, …"""
    steps = np.random.default_rng(seed).normal(0, std, (batch, length))
    return np.round(100 + 50 * np.arange(batch)[:, None] + np.cumsum(steps, axis=1), 2)


def lag_inputs(prices: np.ndarray, window: int, kind: str) -> np.ndarray:
    """(B, T, W) by definition: step t is prices[window + t]; x_t[k], k = 1..W."""
    out = np.empty((len(prices), prices.shape[1] - window, window))
    for b, row in enumerate(prices):
        for t in range(out.shape[1]):
            now = window + t
            for k in range(1, window + 1):
                change = row[now] - row[now - k] if kind == "lagged_change" else row[now - k + 1] - row[now - k]
                out[b, t, k - 1] = change
    return out


def some_scaler(batch: int = 1) -> Scaler:
    """Any scaler: of all series, or one for each."""
    random = torch.Generator().manual_seed(0)
    means, stds = (torch.rand(4, batch, generator=random, dtype=torch.float64) + 0.5 for _ in range(2))
    return Scaler(means[0], stds[0], means[1:3].T.contiguous(), stds[1])


def numbers(features: LagFeatures, start: int, stop: int) -> np.ndarray:
    return features(start, stop).numpy()


# --- lag windows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [1, WINDOW])
def test_inputs_are_the_standardised_changes_of_the_definition(window: int, kind: str, scales: int) -> None:
    prices, scaler = walks(3, 30 + window), some_scaler(scales)
    features = LagFeatures(torch.from_numpy(prices), scaler, window, kind, torch.float64)
    mean, std = (v.numpy()[:, None, None] for v in (scaler.input_mean, scaler.input_std))
    expected = (lag_inputs(prices, window, kind) - mean) / std
    assert (features.batch, features.length) == (3, 30)
    for start, stop in [(0, 30), (0, 1), (0, 7), (11, 19), (29, 30), (13, 30)]:
        np.testing.assert_allclose(numbers(features, start, stop), expected[:, start:stop], rtol=0, atol=1e-12)
        assert features(start, stop).transpose(0, 1).is_contiguous()  # as the layers want them, without a copy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_together_are_the_whole(kind: str, dtype: torch.dtype) -> None:
    features = LagFeatures(torch.from_numpy(walks(2, 40)), some_scaler(), WINDOW, kind, dtype)
    borders = [0, 1, 5, 6, 20, 34]
    chunks = [numbers(features, a, b) for a, b in itertools.pairwise(borders)]
    assert features(0, 3).dtype == dtype
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), numbers(features, 0, 34))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_do_not_alter_what_is_kept(kind: str) -> None:
    features = LagFeatures(torch.from_numpy(walks(2, 40)), some_scaler(), WINDOW, kind)
    first = numbers(features, 3, 20).copy()
    features(3, 20).fill_(7)
    np.testing.assert_array_equal(numbers(features, 3, 20), first)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_sees_no_later_and_no_older_price(kind: str) -> None:
    prices = walks(1, 40)
    changed = prices.copy()
    changed[:, :10] += 3  # older than p_{t-W} for t = 10 + W
    changed[:, 10 + WINDOW + 1 :] -= 3
    rows = []
    for version in (prices, changed):
        features = LagFeatures(torch.from_numpy(version), some_scaler(), WINDOW, kind, torch.float64)
        rows.append(numbers(features, 10, 11))
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_of_one_tick_keeps_its_digits_in_float32(kind: str) -> None:
    ticks = np.random.default_rng(0).integers(-1, 2, (2, 500))
    prices = 100 + 0.01 * ticks
    x = lag_inputs(prices, WINDOW, kind)
    one = torch.ones(1, dtype=torch.float64)
    scaler = Scaler(torch.tensor([x.mean()]), torch.tensor([x.std()]), one[None].expand(1, 2), one)
    got = LagFeatures(torch.from_numpy(prices), scaler, WINDOW, kind)(0, 494)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), (x - x.mean()) / x.std(), rtol=0, atol=3e-6)


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"'change'.*lagged_change, one_step_change"):
        LagFeatures(torch.zeros(1, 20, dtype=torch.float64), some_scaler(), WINDOW, "change")


class LargestMemory(TorchDispatchMode):
    """The largest memory, in bytes, that any tensor made under it takes; a view takes that of what it shows."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_all_steps_times_window_is_made(kind: str) -> None:
    batch, length, window, chunk = 2, 3000, 100, 20
    prices = torch.from_numpy(walks(batch, length + window))
    targets = torch.randn(batch, length, 2, dtype=torch.float64)
    with LargestMemory() as memory:
        scaler = Scaler.fit(prices, torch.tensor([length, length]), targets, window, kind, True)
        features = LagFeatures(prices, scaler, window, kind)
        features(1500, 1500 + chunk)
    assert memory.largest <= 2 * batch * (length + window) * 8, "two values a step, in float64"
    kept = [v for v in vars(features).values() if isinstance(v, Tensor)]
    assert kept
    assert sum(v.untyped_storage().nbytes() for v in kept) <= 2 * batch * (length + window) * 4


# --- scaling --------------------------------------------------------------------------------------------------


def fitted(prices: np.ndarray, steps: list[int], q: np.ndarray, kind: str, shared: bool) -> Scaler:
    return Scaler.fit(torch.from_numpy(prices), torch.tensor(steps), torch.from_numpy(q), WINDOW, kind, shared)


def targets_of(batch: int, length: int) -> np.ndarray:
    """Two actions of different means, series of different sizes."""
    q = np.random.default_rng(9).normal(0, 1, (batch, length, 2)) * (1 + np.arange(batch))[:, None, None]
    return q + np.array([3.0, -8.0])


@pytest.mark.parametrize("steps", [[40, 40, 40], [40, 7, 23], [2, 40, 1]])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_scaler_has_the_moments_of_all_trained_steps(kind: str, steps: list[int]) -> None:
    prices, q = walks(3, 40 + WINDOW), targets_of(3, 40)
    scaler = fitted(prices, steps, q, kind, shared=True)
    x = np.concatenate([row[:n] for row, n in zip(lag_inputs(prices, WINDOW, kind), steps, strict=True)])
    y = np.concatenate([row[:n] for row, n in zip(q, steps, strict=True)])
    np.testing.assert_allclose(scaler.input_mean, [x.mean()], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scaler.input_std, [x.std()], rtol=1e-12)
    np.testing.assert_allclose(scaler.target_mean, [y.mean(axis=0)], rtol=1e-12)
    np.testing.assert_allclose(scaler.target_std, [np.sqrt(np.mean((y - y.mean(axis=0)) ** 2))], rtol=1e-12)


@pytest.mark.parametrize("steps", [[40, 40, 40], [40, 7, 23]])
@pytest.mark.parametrize("kind", KINDS)
def test_scaler_a_series_has_the_moments_of_its_own_trained_steps(kind: str, steps: list[int]) -> None:
    prices, q = walks(3, 40 + WINDOW), targets_of(3, 40)
    scaler = fitted(prices, steps, q, kind, shared=False)
    for b, (x, y, n) in enumerate(zip(lag_inputs(prices, WINDOW, kind), q, steps, strict=True)):
        x, y = x[:n], y[:n]
        assert scaler.input_mean[b].item() == pytest.approx(x.mean(), abs=1e-12)
        assert scaler.input_std[b].item() == pytest.approx(x.std(), rel=1e-12)
        np.testing.assert_allclose(scaler.target_mean[b], y.mean(axis=0), rtol=1e-12)
        expected = np.sqrt(np.mean((y - y.mean(axis=0)) ** 2))
        assert scaler.target_std[b].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_padded_prices_and_targets_do_not_move_the_scaler(shared: bool) -> None:
    prices, q, steps = walks(2, 40 + WINDOW), targets_of(2, 40), [40, 15]
    before = fitted(prices, steps, q, "lagged_change", shared)
    prices[1, WINDOW + 15 :] = 1e4
    q[1, 15:] = -1e4
    after = fitted(prices, steps, q, "lagged_change", shared)
    for name, value in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), value, err_msg=name)


@pytest.mark.parametrize("shared", [True, False])
def test_scaled_targets_have_mean_zero_and_a_common_deviation_of_one(shared: bool) -> None:
    q = targets_of(3, 40)
    scaler = fitted(walks(3, 40 + WINDOW), [40, 40, 40], q, "lagged_change", shared)
    scaled = scaler.scale_targets(torch.from_numpy(q)).numpy()
    groups = [scaled.reshape(-1, 2)] if shared else list(scaled)
    for group in groups:
        np.testing.assert_allclose(group.mean(axis=0), 0, atol=1e-12)
        assert np.mean(group**2) == pytest.approx(1)
    expected = (q - scaler.target_mean.numpy()[:, None]) / scaler.target_std.numpy()[:, None, None]
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_come_back_in_price_units(scales: int, dtype: torch.dtype) -> None:
    q, scaler = torch.from_numpy(targets_of(3, 10)), some_scaler(scales)
    back = scaler.to_price_units(scaler.scale_targets(q).to(dtype))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, q, rtol=1e-5 if dtype == torch.float32 else 1e-12)


def test_scaler_is_rebuilt_from_its_state() -> None:
    scaler = replace(some_scaler(3), fee=torch.tensor([0.1, 0.2, 0.3]), mixing=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    scaler = replace(scaler, extra_mean=torch.rand(3, 2), extra_std=torch.rand(3, 2))
    again = Scaler(**scaler.state_dict())
    newer = ("fee", "mixing", "extra_mean", "extra_std")
    older = Scaler(**{name: value for name, value in scaler.state_dict().items() if name not in newer})
    assert [getattr(older, name) for name in newer] == [None] * 4
    for name, value in vars(scaler).items():
        assert torch.equal(getattr(again, name), value)


@pytest.mark.parametrize("constant", ["prices", "targets"])
def test_what_never_changes_cannot_be_standardised(constant: str) -> None:
    prices, q = walks(2, 40 + WINDOW), targets_of(2, 40)
    (prices if constant == "prices" else q)[1] = 5.0
    with pytest.raises(ValueError, match="never changes"):
        fitted(prices, [40, 40], q, "lagged_change", shared=False)

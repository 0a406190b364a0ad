"""Bellman Q-values, against the recursion one number at a time and against trying every plan of actions."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from tbptt import sides
from tbptt.tasks.options import default_horizon
from tbptt.tasks.q_values import q_values


def bellman(prices: np.ndarray, gamma: float, fee: float) -> np.ndarray:
    """The recursion of one series, backwards from 0 at its last price."""
    q = [(0.0, 0.0)]
    for now, after in reversed(list(itertools.pairwise(prices))):
        (buy, sell), change = q[-1], after - now
        q.append((change + gamma * max(buy, sell - 2 * fee), -change + gamma * max(sell, buy - 2 * fee)))
    return np.array(q[:0:-1])


def best_plan(prices: np.ndarray, gamma: float, fee: float, first: int) -> float:
    """The most that any plan of actions beginning with ``first`` earns, every one of them tried."""
    changes = np.diff(prices)
    best = -math.inf
    for rest in itertools.product((1, -1), repeat=len(changes) - 1):
        actions = (first, *rest)
        earned = sum(gamma**t * a * c for t, (a, c) in enumerate(zip(actions, changes, strict=True)))
        costs = sum(gamma**t * 2 * fee for t in range(1, len(actions)) if actions[t] != actions[t - 1])
        best = max(best, earned - costs)
    return best


def walks(count: int, length: int, seed: int = 0) -> np.ndarray:
    return 100 + np.cumsum(np.random.default_rng(seed).normal(0, 1, (count, length)), axis=1)


@pytest.mark.parametrize("fee", [0.0, 0.02, 0.7])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_q_values_satisfy_the_bellman_recursion(gamma: float, fee: float) -> None:
    prices = walks(3, 200)
    q = q_values(prices, gamma, fee)
    assert q.shape == (3, 199, 2)
    assert q.dtype == np.float64
    np.testing.assert_allclose(q, [bellman(row, gamma, fee) for row in prices], rtol=0, atol=1e-11)


@pytest.mark.parametrize("fee", [0.0, 0.4, 3.0])
def test_q_values_are_those_of_the_best_plan_of_actions(fee: float) -> None:
    prices = walks(2, 11, seed=4)
    expected = [[[best_plan(row[t:], 0.8, fee, a) for a in (1, -1)] for t in range(10)] for row in prices]
    np.testing.assert_allclose(q_values(prices, 0.8, fee), expected, rtol=0, atol=1e-12)


def test_without_fee_the_future_is_worth_every_move() -> None:
    prices = walks(1, 60)
    change = np.diff(prices[0])
    future = [sum(0.9**k * abs(change[t + k]) for k in range(1, 59 - t)) for t in range(59)]
    expected = np.stack([change + future, -change + future], axis=-1)
    np.testing.assert_allclose(q_values(prices, 0.9, 0.0)[0], expected, rtol=0, atol=1e-11)


def test_each_series_may_have_its_own_fee() -> None:
    prices, fees = walks(3, 80), np.array([0.0, 0.1, 2.0])
    expected = [bellman(row, 0.95, fee) for row, fee in zip(prices, fees, strict=True)]
    np.testing.assert_allclose(q_values(prices, 0.95, fees), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("fee", [0.0, 0.3])
def test_padding_with_the_last_price_changes_nothing(fee: float) -> None:
    prices = walks(2, 50)
    padded = np.pad(prices, ((0, 0), (0, 30)), mode="edge")
    q = q_values(padded, 0.97, fee)
    np.testing.assert_array_equal(q[:, :49], q_values(prices, 0.97, fee))
    np.testing.assert_array_equal(q[:, 49:], 0)


def test_earlier_prices_change_no_later_target() -> None:
    prices = walks(1, 50)
    changed = prices.copy()
    changed[:, :20] += 5
    np.testing.assert_array_equal(q_values(changed, 0.9, 0.1)[:, 20:], q_values(prices, 0.9, 0.1)[:, 20:])


def test_prices_are_not_altered() -> None:
    prices = walks(2, 20)
    before = prices.copy()
    q_values(prices, 0.9, 0.1)
    np.testing.assert_array_equal(prices, before)


@pytest.mark.parametrize(("gamma", "steps"), [(0.99, 459), (0.0, 0), (0.5, 7), (0.9, 44), (0.999, 4603), (0.001, 1)])
def test_default_horizon_is_where_a_reward_weighs_a_hundredth(gamma: float, steps: int) -> None:
    assert default_horizon(gamma) == steps
    if gamma > 0:
        assert gamma**steps <= 0.01 < gamma ** (steps - 1)


# --- which side to be on --------------------------------------------------------------------------------------------


def one_at_a_time(q: np.ndarray, fee: float) -> list[bool]:
    """The rule of one series, step by step: change only where it is worth more than it costs."""
    bought, found = bool(q[0, 0] > q[0, 1]), []
    for buy, sell in q:
        here, there = (buy, sell) if bought else (sell, buy)
        bought = bought if there - 2 * fee <= here else not bought
        found.append(bought)
    return found


@pytest.mark.parametrize("fee", [0.0, 0.3, 2.0])
def test_sides_change_only_where_that_is_worth_more_than_twice_the_fee(fee: float) -> None:
    q = np.random.default_rng(1).normal(0, 1, (4, 300, 2))
    expected = np.array([one_at_a_time(row, fee) for row in q])
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(sides(torch.from_numpy(q), fee).numpy(), expected)


@pytest.mark.parametrize("fee", [0.0, 0.4, 3.0])
def test_with_the_true_q_values_sides_earn_the_most_that_can_be_earned(fee: float) -> None:
    prices, gamma = walks(3, 11, seed=5), 0.9
    side = sides(torch.from_numpy(q_values(prices, gamma, fee)), fee).numpy()
    actions, discount = np.where(side, 1, -1), gamma ** np.arange(10)
    changed = np.diff(actions, axis=1, prepend=actions[:, :1]) != 0
    earned = ((actions * np.diff(prices, axis=1) - 2 * fee * changed) * discount).sum(axis=1)
    most = [max(best_plan(row, gamma, fee, first) for first in (1, -1)) for row in prices]
    np.testing.assert_allclose(earned, most, rtol=0, atol=1e-12)


def test_the_larger_q_value_alone_pays_for_changes_that_are_not_worth_it() -> None:
    prices, gamma, fee = walks(2, 400, seed=6), 0.9, 0.5
    q = torch.from_numpy(q_values(prices, gamma, fee))

    def earned(side: torch.Tensor) -> float:
        actions = np.where(side.numpy(), 1, -1)
        return float((actions * np.diff(prices, axis=1)).sum() - 2 * fee * (np.diff(actions, axis=1) != 0).sum())

    assert earned(sides(q, fee)) > earned(q[..., 0] > q[..., 1])


def test_sides_go_on_from_those_that_are_held_and_each_series_has_its_fee() -> None:
    q = torch.from_numpy(np.random.default_rng(2).normal(0, 1, (3, 80, 2)))
    fees = torch.tensor([0.1, 0.5, 1.0])
    whole = sides(q, fees)
    first = sides(q[:, :30], fees)
    torch.testing.assert_close(torch.cat([first, sides(q[:, 30:], fees, held=first[:, -1])], dim=1), whole)
    for row, alone in enumerate(whole):
        torch.testing.assert_close(sides(q[row : row + 1], float(fees[row]))[0], alone)


@pytest.mark.parametrize(
    ("shape", "fee", "said"),
    [
        ((3, 2), 0.1, r"q: got \(3, 2\); takes \(series, steps, 2\)"),
        ((2, 5, 2), None, "fee: got None; takes price units from 0, one number or one for each of 2 series"),
        ((2, 5, 2), -1.0, "fee: got -1"),
        ((2, 5, 2), torch.ones(3), "fee: got 3 numbers"),
    ],
)
def test_sides_say_what_they_take(shape: tuple[int, ...], fee: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sides(torch.zeros(shape), fee)

"""Surrogates keep what is not to be learnt, each part's changes, and nothing else."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from parts import article, data_of, q_values, walks, written

from tbptt.data.split import load_split
from tbptt.data.surrogates import surrogate

BORDERS = (60, 110)
KINDS = ("shuffle", "blocks", "signs")


def prices_of(sign: float, n: int = 200, seed: int = 3) -> np.ndarray:
    """A walk that stays positive, or one that does not."""
    walk = np.random.default_rng(seed).normal(0, 1, n).cumsum()
    return np.exp(walk / 50) * 100 if sign > 0 else walk


def changes_of(prices: np.ndarray, borders: Sequence[int] = BORDERS) -> list[np.ndarray]:
    """Of each part, the changes that lead to its prices; of the logarithm where that is what is permuted."""
    level = np.log(prices) if (prices > 0).all() else prices
    steps = [level[i] - level[i - 1] for i in range(1, len(level))]
    return [np.array(steps[max(a - 1, 0) : b - 1]) for a, b in pairwise([0, *borders, len(prices)])]


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["positive", "of both signs"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_surrogate_has_each_parts_changes_in_another_order_or_with_other_signs(kind: str, sign: float) -> None:
    prices = prices_of(sign)
    made = surrogate(prices, BORDERS, kind, 5)
    assert made[0] == pytest.approx(prices[0], rel=1e-12)
    assert len(made) == len(prices)
    assert bool((made > 0).all()) is bool((prices > 0).all())
    for before, after in zip(changes_of(prices), changes_of(made), strict=True):
        if kind == "signs":
            np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-10)
            flipped = np.mean(np.sign(after) != np.sign(before))
            assert 0.2 < flipped < 0.8
        else:
            np.testing.assert_allclose(np.sort(after), np.sort(before), atol=1e-10)
            assert not np.allclose(after, before)


def test_blocks_keep_the_order_within_them() -> None:
    before, after = (changes_of(p, ()) for p in (prices_of(-1), surrogate(prices_of(-1), (), "blocks", 0)))
    follows = {round(a, 9): round(b, 9) for a, b in pairwise(before[0])}
    kept = sum(follows.get(round(a, 9)) == round(b, 9) for a, b in pairwise(after[0]))
    assert 199 - 14 <= kept + 1 < 199  # 14 blocks of about sqrt(199) changes; two may stay together


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_one_surrogate_and_another_seed_another(kind: str) -> None:
    prices = prices_of(1)
    first = surrogate(prices, BORDERS, kind, 1)
    np.testing.assert_array_equal(surrogate(prices, BORDERS, kind, 1), first)
    assert not np.allclose(surrogate(prices, BORDERS, kind, 2), first)


def test_a_price_of_one_part_moves_no_change_of_another() -> None:
    prices, other = prices_of(-1), prices_of(-1)
    other[150] += 3
    before, after = (changes_of(surrogate(p, BORDERS, "shuffle", 0)) for p in (prices, other))
    np.testing.assert_allclose(after[0], before[0], atol=1e-10)
    np.testing.assert_allclose(after[1], before[1], atol=1e-10)
    assert not np.allclose(np.sort(after[2]), np.sort(before[2]))


@pytest.mark.parametrize("kind", KINDS)
def test_series_of_one_length_are_permuted_alike(tmp_path: Path, kind: str) -> None:
    """What they have in common on a day stays on one day: here twice the other's change, each day."""
    one = prices_of(-1, 300)
    path = written(tmp_path, {"one": one, "twice": 2 * one + 7})
    split = load_split(data_of(path, surrogate=kind), q_values())
    for part in (split.train, split.val, split.test):
        np.testing.assert_allclose(np.diff(part["twice"]), 2 * np.diff(part["one"]), atol=1e-9)
    assert not np.allclose(np.diff(split.train["one"]), np.diff(one[: len(split.train["one"])]))


def test_a_split_of_a_surrogate_keeps_each_parts_changes(tmp_path: Path) -> None:
    path = written(tmp_path, {"a": walks((400,))["s0"]})
    plain, made = (load_split(data_of(path, warm_steps=0, surrogate=s), q_values()) for s in (None, "shuffle"))
    for name in ("train", "val", "test"):
        before, after = (getattr(split, name)["a"] for split in (plain, made))
        assert len(before) == len(after)
        own = slice(0 if name == "train" else plain.window - 1, None)  # those that lead to the part's own prices
        logs = [np.sort(np.diff(np.log(p[own]))) for p in (before, after)]
        np.testing.assert_allclose(logs[1], logs[0], atol=1e-12)
    assert plain.fingerprint() != made.fingerprint()


def test_the_articles_series_have_no_day_in_common_and_are_permuted_each_by_itself() -> None:
    plain, made = (load_split(article(surrogate=s), q_values()) for s in (None, "signs"))
    flipped = []
    for part in ("train", "val", "test"):
        for before, after in zip(getattr(plain, part).values(), getattr(made, part).values(), strict=True):
            logs = [np.diff(np.log(p)) for p in (before, after)]
            np.testing.assert_allclose(np.abs(logs[1]), np.abs(logs[0]), atol=1e-12)
            flipped.append(np.sign(logs[0]) * np.sign(logs[1]))
    alike = np.corrcoef(flipped)
    assert np.abs(alike - np.eye(len(flipped))).max() < 0.3

"""Surrogates keep what is not to be learnt, each part's changes, and nothing else."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from parts import article, data_of, forecast, of_panel, panel_of, q_values, walks, written

from tbptt.data.panel import Panel, Series
from tbptt.data.split import load_split
from tbptt.data.surrogates import Draw, draw_by_time, surrogate

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


def as_always(prices: np.ndarray, borders: Sequence[int], kind: str, seed: int) -> np.ndarray:
    """The surrogate of a series by itself, as all versions have drawn it."""
    positive = bool((prices > 0).all())
    level = np.log(prices) if positive else prices
    changes = np.diff(level)
    edges = [0, *(b - 1 for b in sorted(borders) if 1 < b < len(prices)), len(changes)]
    for i, (start, stop) in enumerate(pairwise(edges)):
        random = np.random.default_rng([seed, (i + 4 - len(edges)) % 16, stop - start])
        part = changes[start:stop]
        if kind == "shuffle":
            changes[start:stop] = random.permutation(part)
        elif kind == "signs":
            changes[start:stop] = part * random.choice([-1.0, 1.0], len(part))
        else:
            blocks = np.array_split(part, max(1, math.isqrt(len(part))))
            changes[start:stop] = np.concatenate([blocks[i] for i in random.permutation(len(blocks))])
    made = level[0] + np.concatenate(([0.0], np.cumsum(changes)))
    return np.exp(made) if positive else made


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["positive", "of both signs"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_series_by_itself_has_the_surrogate_that_it_always_had_to_the_bit(kind: str, sign: float) -> None:
    for n, borders in ((200, BORDERS), (70_000, (1, 20_000, 66_000, 70_000)), (5, ()), (3, (2,))):
        prices = prices_of(sign, n) if n < 1000 else prices_of(-1, n)
        assert surrogate(prices, borders, kind, 4).tobytes() == as_always(prices, borders, kind, 4).tobytes()
    panel = panel_of({"a": range(400), "late": range(150, 400)})
    plain, made = (load_split(of_panel(panel, split="each", surrogate=s), forecast(1)) for s in (None, kind))
    for name, n in (("a", 400), ("late", 250)):
        whole = as_always(panel.series[name].prices, (n - 2 * (n // 4), n - n // 4), kind, 0)
        for part in ("train", "val", "test"):
            rows = np.searchsorted(panel.series[name].rows, plain.rows_of[part][name])
            assert getattr(made, part)[name].tobytes() == whole[rows].tobytes()


# --- by time --------------------------------------------------------------------------------------------------------

# From the beginning, from later on, until a while ago, and with blank days.
ROWS = {
    "whole": range(600),
    "late": range(100, 600),
    "ended": range(590),
    "blanks": [row for row in range(600) if row % 31 != 7],
}


def of_one_walk(rows: dict[str, Sequence[int]]) -> Panel:
    """Series that each move by a multiple of what the first one moves by, in the rows that they have."""
    walk = np.random.default_rng(8).normal(0, 1, 600)
    panel = panel_of(rows)
    series = {
        name: replace(each, prices=7 + (1 + i) * np.cumsum(walk[each.rows]))
        for i, (name, each) in enumerate(panel.series.items())
    }
    return replace(panel, series=series)


def changes_by_row(panel: Panel, **changes: object) -> list[dict[int, float]]:
    """Of each series, all changes of its three parts by row, over its factor: those of the first price aside."""
    split = load_split(of_panel(panel, warm_steps=0, **changes), forecast(1))
    found = []
    for i, name in enumerate(panel.series):
        moved: dict[int, float] = {}
        for part in ("train", "val", "test"):
            rows, prices = split.rows_of[part][name], getattr(split, part)[name]
            moved |= {int(r): float(c) / (1 + i) for r, c in zip(rows[1:], np.diff(prices), strict=True)}
        found.append(moved)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_a_day_stay_together_in_series_of_different_lengths(kind: str) -> None:
    lengths = {name: ROWS[name] for name in ("whole", "late")}
    panel = of_one_walk(lengths)
    before, late_before = changes_by_row(panel)
    whole, late = changes_by_row(panel, surrogate=kind)
    assert late.keys() == late_before.keys() == set(range(101, 600))
    assert np.mean([not np.isclose(whole[row], before[row]) for row in before]) > 0.4
    assert [late[row] for row in late] == pytest.approx([whole[row] for row in late], abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_few_changes_of_a_day_are_parted_where_series_have_different_blank_days(kind: str) -> None:
    whole, late, ended, blanks = changes_by_row(of_one_walk(ROWS), surrogate=kind)
    for other in (late, ended, blanks):
        together = np.mean([math.isclose(change, whole[row], abs_tol=1e-9) for row, change in other.items()])
        assert together > (0.99 if kind == "signs" else 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_each_series_keeps_the_changes_of_each_part(kind: str) -> None:
    panel = panel_of(ROWS)
    plain, made = (load_split(of_panel(panel, warm_steps=0, surrogate=s), forecast(1)) for s in (None, kind))
    for name in ROWS:
        for part in ("train", "val", "test"):
            before, after = (getattr(split, part)[name] for split in (plain, made))
            own = slice(0 if part == "train" else plain.window - 1, None)
            positive = bool((panel.series[name].prices > 0).all())
            steps = [np.diff(np.log(p) if positive else p)[own] for p in (before, after)]
            assert not np.allclose(steps[1], steps[0])
            if kind == "signs":
                steps = [np.abs(s) for s in steps]
                np.testing.assert_allclose(steps[1], steps[0], atol=1e-9)
            np.testing.assert_allclose(np.sort(steps[1]), np.sort(steps[0]), atol=1e-9)


def test_every_order_of_a_series_changes_is_as_likely_as_any_other_whatever_days_it_has() -> None:
    """Within five standard errors, of 6,000 seeds; another series has all days, a third one some of each."""
    rows = {"all": np.arange(8), "some": np.array([0, 1, 3, 5, 7]), "others": np.array([0, 1, 4, 6, 7])}
    draws = [draw_by_time(rows, (), "shuffle", seed) for seed in range(6000)]
    for name in ("some", "others"):
        found = Counter(tuple(draw[name].order.tolist()) for draw in draws)
        assert set(found) == set(permutations(range(4)))
        error = math.sqrt(6000 / 24 * (1 - 1 / 24))
        assert max(abs(count - 6000 / 24) for count in found.values()) < 5 * error
    places = Counter((place, int(source)) for draw in draws for place, source in enumerate(draw["all"].order))
    assert len(places) == 49
    assert max(abs(count - 6000 / 7) for count in places.values()) < 5 * math.sqrt(6000 / 7)


def test_blocks_by_time_are_blocks_of_rows() -> None:
    draw = draw_by_time({"a": np.arange(401), "b": np.arange(0, 401)}, (), "blocks", 2)["a"]
    follows = sum(int(b) == a + 1 for a, b in pairwise(draw.order))
    assert 399 - 19 <= follows < 399  # 20 blocks of 20 changes; two may stay together
    assert sorted(draw.order) == list(range(400))


def test_test_parts_of_all_folds_have_the_same_surrogate() -> None:
    panel = with_own_change(panel_of(ROWS))
    found = [
        load_split(of_panel(panel, surrogate="shuffle", warm_steps=n, fold=f"{k}/3"), forecast(1))
        for k, n in ((2, 0), (3, 20))
    ]
    for name in ROWS:
        one, other = (split.inputs["test"][name][split.window + split.warm["test"][name] :, 1] for split in found)
        assert one.tolist() == other.tolist() != sorted(one)


# --- other inputs ---------------------------------------------------------------------------------------------------


def with_own_change(panel: Panel) -> Panel:
    """The inputs of a step: the change that leads to its price, and the number of its row."""

    def inputs(each: Series) -> np.ndarray:
        return np.column_stack([np.diff(each.prices, prepend=np.nan), each.rows])

    series = {name: replace(each, inputs=inputs(each)) for name, each in panel.series.items()}
    return replace(panel, series=series, inputs=("change", "row"))


@pytest.mark.parametrize("how", ["time", "each"])
@pytest.mark.parametrize("kind", ["shuffle", "blocks"])
def test_inputs_go_where_the_change_goes_that_leads_to_their_price(kind: str, how: str) -> None:
    panel = with_own_change(of_one_walk(ROWS))
    plain, made = (load_split(of_panel(panel, split=how, surrogate=s), forecast(1)) for s in (None, kind))
    for name in ROWS:
        for part in ("train", "val", "test"):
            prices, inputs = getattr(made, part)[name], made.inputs[part][name]
            np.testing.assert_allclose(inputs[1:, 0], np.diff(prices), atol=1e-9)
            own = slice(0 if part == "train" else made.window + made.warm[part][name], None)
            rows = plain.rows_of[part][name][own]
            assert sorted(inputs[own, 1]) == rows.tolist()  # each part's inputs stay in it
            assert not np.array_equal(inputs[own, 1], rows)
    assert made.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize("how", ["time", "each"])
def test_signs_leave_the_inputs(how: str) -> None:
    panel = with_own_change(of_one_walk(ROWS))
    plain, made = (load_split(of_panel(panel, split=how, surrogate=s), forecast(1)) for s in (None, "signs"))
    for part in ("train", "val", "test"):
        for name in ROWS:
            np.testing.assert_array_equal(made.inputs[part][name], plain.inputs[part][name])
            assert not np.allclose(getattr(made, part)[name], getattr(plain, part)[name])


def test_a_draw_moves_prices_and_inputs_as_it_says() -> None:
    draw = Draw(np.array([2, 0, 1]), np.array([1.0, -1.0, 1.0]))
    assert draw.of_prices(np.array([-10.0, -9.0, -7.0, -3.0])).tolist() == [-10.0, -6.0, -7.0, -5.0]
    inputs = np.array([[0.0, 5.0], [1.0, np.nan], [2.0, 7.0], [3.0, 8.0]])
    np.testing.assert_array_equal(draw.of_inputs(inputs), inputs[[0, 3, 1, 2]])

"""Verdicts against chance: their intervals, what they rest on, how often they are wrong where the truth is known."""

import math
import subprocess
import sys

import numpy as np
import pytest
from arch.bootstrap import SPA, IIDBootstrap, StationaryBootstrap, optimal_block_length
from scipy.signal import lfilter

from tbptt.evaluation.chance import (
    Evidence,
    Verdict,
    against_chance,
    block_length,
    ratio_interval,
    skill,
    thinned,
)
from tbptt.evaluation.compared import confidence_set, superior


def autoregressive(rho: float, shape: int | tuple[int, int], seed: int) -> np.ndarray:
    """Stationary AR(1) series along the last axis, with mean 0."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    noise[..., 0] /= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --- blocks and evidence ----------------------------------------------------------------------------------------


def test_a_block_is_as_long_as_arch_says_and_never_shorter_than_asked() -> None:
    series = autoregressive(0.9, 3_000, 0)
    best = optimal_block_length(series)["stationary"].iloc[0]
    assert best > 20
    assert block_length(series, 20) == pytest.approx(best)
    assert block_length(series, 500) == 500


def test_a_block_of_a_long_series_is_found_on_sums_and_told_in_steps() -> None:
    series = autoregressive(0.9, 50_002, 0)  # the last group has one step only
    sums = series[:50_001].reshape(-1, 3).sum(axis=1)
    assert block_length(series, 1) == pytest.approx(3 * optimal_block_length(sums)["stationary"].iloc[0])


@pytest.mark.parametrize(
    "series",
    [
        np.zeros(500),
        np.full(500, 0.1),
        np.arange(5.0),
        np.ones(1),
        np.ones(0),
        np.full(500, np.nan),
        np.full(9, np.inf),
    ],
    ids=["zeros", "constant", "five", "one", "none", "nan", "inf"],
)
def test_where_no_length_can_be_found_the_shortest_is_taken(series: np.ndarray) -> None:
    assert block_length(series, 7.5) == 7.5
    assert block_length(series, 0) >= 1


def test_evidence_counts_blocks_or_series() -> None:
    assert Evidence(1_600, 20.0).observations == 80
    assert Evidence(600, 2 / (1 - 0.9)).enough  # 2 / (1 - 0.9) is a little over 20
    assert not Evidence(599, 20.0).enough
    assert Evidence(12, None).observations == 12
    assert Evidence(10, None).enough
    assert not Evidence(9, None).enough
    with pytest.raises(ValueError, match="1 step or longer"):
        Evidence(100, 0.5)


# --- thinning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 1_999, 2_000, 2_001, 4_000, 4_001, 123_457])
def test_thinning_keeps_the_sums_and_the_order(length: int) -> None:
    rows = np.stack([normal(length), np.ones(length)])
    points, group = thinned(rows)
    assert points.shape == (2, math.ceil(length / group))
    assert points.shape[1] <= 2_000
    assert points.sum(axis=1) == pytest.approx(rows.sum(axis=1))
    for at in (0, points.shape[1] - 1):
        assert points[0, at] == pytest.approx(rows[0, at * group : (at + 1) * group].sum())
    assert points[1, -1] == length - group * (points.shape[1] - 1)
    assert group == 1 or length > 2_000


def test_a_verdict_of_thinned_rows_is_that_of_the_steps() -> None:
    loss, base = 1 + autoregressive(0.9, (2, 1_950), 1) / 8
    steps = skill(loss, base, 20.0)
    points, group = thinned([loss, base], 400)
    assert group == 5
    sums = skill(*points, 20.0 / group)
    assert sums.estimate == pytest.approx(steps.estimate)
    assert sums.observations == pytest.approx(steps.observations, rel=0.01)
    assert sums.low == pytest.approx(steps.low, abs=0.15 * (steps.high - steps.low))
    assert sums.high == pytest.approx(steps.high, abs=0.15 * (steps.high - steps.low))


# --- one model against chance -----------------------------------------------------------------------------------


def by_hand(top: np.ndarray, bottom: np.ndarray, block: float | None) -> np.ndarray:
    """The percentiles, from arch's draws of rows."""
    rows = np.arange(len(top))
    draws = (IIDBootstrap(rows, seed=0) if block is None else StationaryBootstrap(block, rows, seed=0)).bootstrap(1_000)
    drawn = [at for (at,), _ in draws]
    return np.percentile([top[at].sum() / bottom[at].sum() for at in drawn], [2.5, 97.5])


@pytest.mark.parametrize("block", [20.0, 12.5, None])
def test_the_interval_is_of_pairs_that_are_drawn_together(block: float | None) -> None:
    bottom = 1 + normal(900, seed=1) ** 2
    top = bottom / 2 + normal(900) / 10
    assert ratio_interval(top, bottom, block) == pytest.approx(by_hand(top, bottom, block))


def test_skill_is_one_minus_the_ratio_of_the_sums() -> None:
    base = 1 + normal(1_200, seed=1) ** 2
    loss = 0.8 * base + normal(1_200) / 10
    verdict = skill(loss, base, 20.0)
    assert verdict.estimate == pytest.approx(1 - loss.sum() / base.sum())
    low, high = by_hand(loss, base, 20.0)
    assert (verdict.low, verdict.high) == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert verdict.word == "better than"
    assert verdict.observations == 60
    assert skill(base, loss, 20.0).word == "worse than"


def test_a_word_says_where_the_interval_lies() -> None:
    noise, ones = autoregressive(0.5, 600, 0), np.ones(600)
    noise -= noise.mean()
    words = {shift: against_chance(noise + shift, ones, 20.0).word for shift in (-1, 0, 1)}
    assert words == {-1: "worse than", 0: "cannot be told from", 1: "better than"}
    for shift in (-1, 1):  # a unit that is negative turns nothing round
        assert against_chance(noise + shift, -ones, 20.0).word == words[shift]


def test_too_little_is_not_tested() -> None:
    top, ones = 1 + normal(599) / 100, np.ones(599)
    assert against_chance(top, ones, 20.0) == Verdict(top.mean(), None, None, 29.95, "too short to tell")
    assert against_chance(top[:9], ones[:9], None).word == "too short to tell"
    assert against_chance(top[:10], ones[:10], None).word == "better than"
    assert against_chance([], [], 20.0).word == "too short to tell"


@pytest.mark.parametrize("block", [1.0, 20.0, None])
def test_nothing_to_judge_is_not_an_error(block: float | None) -> None:
    zeros, ones = np.zeros(600), np.ones(600)
    hole = np.where(np.arange(600) == 5, np.nan, ones)
    for loss, base in ((zeros, zeros), (ones, zeros), (hole, ones), (ones, hole), (ones * np.inf, ones)):
        verdict = skill(loss, base, block)
        assert math.isnan(verdict.estimate)
        assert (verdict.low, verdict.high, verdict.word) == (None, None, "cannot be told from")


def test_constants_have_an_interval_of_no_width() -> None:
    ones = np.ones(600)
    assert skill(ones, ones, 20.0) == Verdict(0.0, 0.0, 0.0, 30.0, "cannot be told from")
    assert skill(ones / 2, ones, 20.0) == Verdict(0.5, 0.5, 0.5, 30.0, "better than")
    assert skill(2 * ones, ones, 20.0) == Verdict(-1.0, -1.0, -1.0, 30.0, "worse than")


def test_a_baseline_that_is_mostly_zero_gives_a_verdict() -> None:
    """Some draws hold no step where it is not, and have no ratio."""
    base = np.where(np.arange(600) == 300, 1.0, 0.0)
    assert skill(base / 2, base, 1.0).word == "cannot be told from"


def test_noise_is_called_better_seldom_and_a_gain_often() -> None:
    """The whole of it: benchmarks/calibration.py. Here of 100, where 9 % are allowed, and by chance 16 at most."""
    ones = np.ones(600)
    noise = autoregressive(0.9, (100, 600), 7)
    words = [against_chance(row, ones, 20.0).word for row in noise]
    assert set(words) <= {"better than", "worse than", "cannot be told from"}
    assert 0 < words.count("better than") <= 16  # Binomial(100, 0.09): more once in a hundred
    assert 0 < words.count("worse than") <= 16
    gains = [against_chance(row + 2, ones, 20.0).word for row in noise[:20]]
    assert gains.count("better than") >= 19


# --- many models ------------------------------------------------------------------------------------------------


def trials(n: int, seed: int, length: int = 1_000) -> tuple[np.ndarray, np.ndarray]:
    """Losses of ``n`` models that are as good as a baseline, with most of their ups and downs in common with it."""
    base = 2 + normal(length, seed=seed)
    return base + 0.3 * autoregressive(0.5, (n, length), 1_000 + seed), base


def test_the_best_of_many_equal_ones_is_not_called_better_and_a_better_one_is() -> None:
    small = 0
    for seed in range(15):
        losses, base = trials(20, seed, length=600)
        value = superior(losses, base, 8.0)
        assert value is not None
        small += value < 0.05
        if seed < 5:
            losses[seed] -= 0.2
            assert superior(losses, base, 8.0) < 0.01
    assert small <= 4, small  # Binomial(15, 0.1), as 75 blocks are not many: more once in 80
    # Judged alone, as if it were the only one, the best of 20 looks better than it is.
    losses, base = trials(20, 0)
    best = losses[[losses.mean(axis=1).argmin()]]
    assert superior(best, base, 5.0) < superior(losses, base, 5.0)


def test_the_p_value_is_that_of_arch_for_models_of_one_spread() -> None:
    losses, base = trials(5, 3)
    gains = base - losses
    gains = (gains - gains.mean(axis=1, keepdims=True)) / gains.std(axis=1, keepdims=True)
    gains += np.array([[-0.1, -0.02, 0.0, 0.03, 0.05]]).T
    gains = np.unique(gains, axis=0)
    test = SPA(np.zeros(1_000), -gains.T, block_size=5, reps=1_000, seed=0)
    test.compute()
    assert superior(base - gains, base, 5.0) == pytest.approx(test.pvalues["consistent"], abs=0.002)
    assert 0.01 < test.pvalues["consistent"] < 0.99


def test_a_wild_model_does_not_hide_a_better_one() -> None:
    losses, base = trials(20, 0)
    losses[3] -= 0.1
    losses[7] += 30 * normal(1_000, seed=5)
    assert superior(losses, base, 5.0) < 0.01


def test_one_model_is_enough_for_the_test() -> None:
    losses, base = trials(1, 0)
    assert superior(losses - 0.1, base, 5.0) < 0.01
    assert superior(losses + 0.1, base, 5.0) == 1.0


def test_who_is_equal_to_the_baseline_or_worse_is_not_better() -> None:
    _, base = trials(1, 0)
    assert superior(base[None], base, 5.0) == 1.0
    assert superior(np.stack([base, base + 1, base + 0.001]), base, 5.0) == 1.0
    assert superior(np.stack([base, base - 0.1]), base, 5.0) == 0.0  # by the same at every step


def test_the_set_holds_equals_and_leaves_out_the_worse() -> None:
    losses, _ = trials(8, 0)
    losses[[1, 4]] += 0.3
    assert confidence_set(losses, 5.0) == {0, 2, 3, 5, 6, 7}


def test_one_better_model_among_equally_bad_ones_is_alone_in_the_set() -> None:
    losses, _ = trials(20, 0)
    losses[7] -= 0.3
    assert confidence_set(losses, 5.0) == {7}


def test_equal_models_are_in_the_set_together_or_not_at_all() -> None:
    losses, base = trials(4, 0)
    losses[2] += 0.3
    doubled = losses[[0, 1, 2, 3, 2, 0]]
    assert confidence_set(doubled, 5.0) == {0, 1, 3, 5}
    assert confidence_set(losses, 5.0) == {0, 1, 3}
    assert superior(doubled, base, 5.0) == superior(losses, base, 5.0)


def test_one_model_is_its_own_set_and_so_are_equal_ones() -> None:
    row = normal(1, 600)
    assert confidence_set(row, 20.0) == {0}
    assert confidence_set(np.repeat(row, 3, axis=0), 20.0) == {0, 1, 2}


def test_losses_that_differ_by_a_constant_end_with_the_smallest() -> None:
    """Where differences have no spread, arch alone would go on for ever."""
    row = 1 + normal(600) ** 2
    assert confidence_set(row + np.array([[0.0], [0.5], [1.0]]), 20.0) == {0}
    assert confidence_set(np.ones((3, 600)) * np.array([[3.0], [1.0], [2.0]]), 20.0) == {1}
    assert confidence_set(np.zeros((2, 600)), 20.0) == {0, 1}
    other = 1 + normal(600, seed=1) ** 2
    assert confidence_set(np.stack([row, other, (row + other) / 2]), 20.0) is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_model_whose_loss_is_not_finite_is_left_out(bad: float) -> None:
    losses, base = trials(5, 0)
    losses[3] += 0.3
    kept, value = confidence_set(losses[1:], 5.0), superior(losses[1:], base, 5.0)
    losses[0, 17] = bad
    assert kept == {0, 1, 3}
    assert confidence_set(losses, 5.0) == {1, 2, 4}
    assert superior(losses, base, 5.0) == value
    losses[:, 17] = bad
    assert confidence_set(losses, 5.0) == set()
    assert superior(losses, base, 5.0) == 1.0


def test_too_little_is_not_compared() -> None:
    losses, base = trials(3, 0)
    assert superior(losses, base, 1_000 / 29) is None
    assert confidence_set(losses, 1_000 / 29) is None
    assert superior(losses[:, :9], base[:9], None) is None
    assert superior(losses, np.full(1_000, np.nan), 5.0) is None


def test_series_are_compared_one_by_one() -> None:
    base = 2 + normal(12)
    losses = base + 0.1 * normal(4, 12, seed=1)
    losses[2] -= 0.5
    assert superior(losses, base, None) < 0.01
    assert 2 in confidence_set(losses, None)
    order = np.random.default_rng(3).permutation(12)
    assert superior(losses[:, order], base[order], None) == pytest.approx(superior(losses, base, None), abs=0.02)


def test_of_many_models_fewer_points_are_kept_and_the_answer_stays() -> None:
    losses, base = trials(250, 1, length=4_003)
    assert superior(losses, base, 5.0) > 0.05
    losses[[5, 249]] += 0.5
    assert confidence_set(losses, 5.0).isdisjoint({5, 249})
    losses[7] -= 0.1
    assert superior(losses, base, 5.0) < 0.01


# --- all of it --------------------------------------------------------------------------------------------------


def test_the_same_numbers_get_the_same_answer_and_another_seed_nearly() -> None:
    losses, base = trials(6, 2)
    losses[0] -= 0.02
    np.random.seed(1)  # noqa: NPY002 - the state that all share plays no part
    first = skill(losses[0], base, 5.0), superior(losses, base, 5.0), confidence_set(losses, 5.0)
    np.random.seed(2)  # noqa: NPY002
    assert first == (skill(losses[0], base, 5.0), superior(losses, base, 5.0), confidence_set(losses, 5.0))
    order = [3, 0, 5, 1, 4, 2]
    assert superior(losses[order], base, 5.0) == first[1]
    assert {order[at] for at in confidence_set(losses[order], 5.0)} == first[2]
    other = skill(losses[0], base, 5.0, seed=1)
    assert other != first[0]
    assert other.low == pytest.approx(first[0].low, abs=0.1 * (other.high - other.low))
    assert superior(losses, base, 5.0, seed=1) == pytest.approx(first[1], abs=0.05)


def test_nothing_given_is_changed() -> None:
    losses, base = trials(4, 0)
    before = losses.copy(), base.copy()
    skill(losses[0], base, 5.0), superior(losses, base, 5.0), confidence_set(losses, 5.0), block_length(base, 2)
    assert (losses == before[0]).all()
    assert (base == before[1]).all()


def test_arch_is_imported_only_where_a_test_is_made() -> None:
    code = "import sys, tbptt.evaluation.compared; print([m for m in ('arch', 'torch', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

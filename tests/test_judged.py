"""What is said of a network on the test part: verdicts on cases whose answer is known, and what is kept of a step."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import LENGTHS, WARM, Told, article, forecast, prepared, q_values, scored, walks
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.evaluation import words
from tbptt.evaluation.baselines import MEAN, ZERO, baselines_of
from tbptt.evaluation.data_words import data_lines, described
from tbptt.evaluation.judged import judge
from tbptt.evaluation.results import Judged
from tbptt.evaluation.steps import aligned, step_losses
from tbptt.tasks.decisions import decisions
from tbptt.tasks.options import Forecast, TaskConfig
from tbptt.tasks.prepare import Prepared, prepare

LONG = (3000, 2600)


def test_of(data: Prepared) -> Sequences:
    found = data.test()
    assert found is not None
    return found


test_of.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Long enough for 30 blocks of four steps, also where these are longer."""
    return prepared(tmp_path_factory.mktemp("data"), walks(LONG))


def noise_of(part: Sequences, seed: int = 1) -> Tensor:
    return torch.randn(part.targets.shape, generator=torch.Generator().manual_seed(seed))


def told(data: Prepared, what: Any) -> Judged:
    """What comes out for a network that predicts ``what(part)`` of val and of test."""
    return judge([Told(what(data.val), what(test_of(data)))], data, with_test=True)[0]


# --- verdicts -------------------------------------------------------------------------------------------------------


def test_who_predicts_the_truth_is_better_and_earns(data: Prepared) -> None:
    found = told(data, lambda part: part.targets)
    assert found.decision is not None
    assert set(found.skill) == {MEAN, found.best_baseline}
    for verdict in (*found.skill.values(), found.decision):
        assert verdict.word == "better than"
        assert verdict.low is not None
        assert verdict.low > 0
    assert found.skill[MEAN].estimate == pytest.approx(1.0)


def test_who_predicts_a_little_of_the_truth_is_better_and_by_as_much(data: Prepared) -> None:
    """y = target/2: a quarter of the mean's loss is left, and with it a skill of three quarters."""
    found = told(data, lambda part: part.targets / 2)
    assert found.skill[MEAN].word == "better than"
    assert found.skill[MEAN].estimate == pytest.approx(0.75, abs=1e-4)


def test_who_predicts_noise_is_worse_in_loss_and_does_not_earn(data: Prepared) -> None:
    found = told(data, noise_of)
    assert found.decision is not None
    assert {verdict.word for verdict in found.skill.values()} == {"worse than"}
    assert found.decision.word in ("worse than", "cannot be told from")


def test_who_predicts_the_mean_cannot_be_told_from_it(data: Prepared) -> None:
    found = told(data, lambda part: torch.zeros_like(part.targets))
    verdict = found.skill[MEAN]
    assert verdict.word == "cannot be told from"
    assert verdict.estimate == 0


def test_who_holds_the_best_side_cannot_be_told_from_it(data: Prepared) -> None:
    found = told(data, lambda part: torch.zeros_like(part.targets))
    sides = {"long": [1e3, 0.0], "short": [0.0, 1e3]}
    if found.best_side in sides:
        constant = torch.tensor(sides[found.best_side])
        found = told(data, lambda part: constant.expand_as(part.targets))
    assert found.decision is not None
    assert found.decision.word == "cannot be told from"
    assert found.best_side == "flat" or found.decision.estimate == 0


@pytest.mark.parametrize("networks", [3, 7])
def test_networks_that_all_hold_the_best_side_differ_from_it_by_nothing(networks: int, data: Prepared) -> None:
    """The mean of equal profits is the profit, not a rounding error beside it."""
    best = told(data, lambda part: torch.zeros_like(part.targets)).best_side
    constant = torch.tensor({"long": [1e3, 0.0], "short": [0.0, 1e3]}[best or ""])
    always = [constant.expand_as(part.targets) for part in (data.val, test_of(data))]
    found, _ = judge([Told(*always) for _ in range(networks)], data, with_test=True)
    assert found.decision is not None
    assert (found.decision.estimate, found.decision.low, found.decision.high) == (0.0, 0.0, 0.0)


def test_what_is_wrong_for_good_is_worse(data: Prepared) -> None:
    found = told(data, lambda part: -part.targets)
    assert found.decision is not None
    assert {v.word for v in (*found.skill.values(), found.decision)} == {"worse than"}


def test_a_part_that_is_too_short_gets_no_verdict_whatever_is_predicted(tmp_path: Path) -> None:
    short = prepared(tmp_path, walks((400, 330)))  # 98 steps of test; blocks of 4 and more: 25 observations at most
    found = told(short, lambda part: part.targets)
    assert found.test is not None
    assert found.test.observations < 30
    assert found.decision is not None
    for verdict in (*found.skill.values(), found.decision):
        assert verdict.word == "too short to tell"
        assert verdict.low is verdict.high is None
    for line in words.lines(found):
        assert "too short to tell: about" in line
        assert "it takes 30" in line
    assert len(words.lines(found)) == len(set(words.lines(found)))


def test_a_diverged_networks_nan_is_no_evidence(data: Prepared) -> None:
    found = told(data, lambda part: torch.full_like(part.targets, math.nan))
    assert math.isnan(found.skill[MEAN].estimate)
    assert found.skill[MEAN].word == "cannot be told from"
    assert words.lines(found)


# --- what the numbers are -------------------------------------------------------------------------------------------


def test_results_are_means_over_the_scored_steps(data: Prepared) -> None:
    y = [noise_of(part) for part in (data.val, test_of(data))]
    found, _ = judge([Told(*y)], data, with_test=True)
    for part, result, given in ((data.val, found.val, y[0]), (test_of(data), found.test, y[1])):
        assert result is not None
        steps = scored(part)
        assert result.series == 2
        assert result.steps == max(n - w for n, w in zip(part.steps, part.warm, strict=True))
        loss = np.mean([(given[at] - part.targets[at]).square().mean().item() for at in steps])
        assert result.metrics["loss"] == pytest.approx(loss, rel=1e-5)
        for name, prediction in baselines_of(data).predict(part).items():
            expected = np.mean([(prediction[at] - part.targets[at]).square().mean().item() for at in steps])
            assert result.baselines[name] == pytest.approx(expected, rel=1e-5)
        assert part.changes is not None
        moved = np.mean([part.changes[b, t].item() / data.split.change_std[b] for b, t in steps])
        assert result.sides == pytest.approx({"long": moved, "short": -moved, "flat": 0.0})
        assert result.metrics["skill"] == pytest.approx(1 - loss / result.baselines[MEAN], rel=1e-4)
    assert found.test is not None
    assert found.decision is not None
    assert found.skill[MEAN].estimate == pytest.approx(found.test.metrics["skill"], rel=1e-4)
    assert found.best_baseline == min(found.val.baselines, key=lambda name: found.val.baselines[name])
    assert found.best_side == max(found.val.sides, key=lambda name: found.val.sides[name])
    excess = found.test.metrics["value"] - found.test.sides[found.best_side]
    assert found.decision.estimate == pytest.approx(excess, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_observations_are_steps_over_twice_what_targets_have_in_common(gamma: float, tmp_path: Path) -> None:
    """Or fewer, where the losses themselves hang together for longer."""
    found = told(prepared(tmp_path, walks(LONG), q_values(gamma=gamma)), lambda part: torch.zeros_like(part.targets))
    assert found.test is not None
    assert found.test.block >= 2 / (1 - gamma)
    assert found.test.observations == pytest.approx(found.test.steps / found.test.block)


def test_observations_of_a_forecast_go_by_its_largest_horizon_and_it_has_no_decision(tmp_path: Path) -> None:
    data = prepared(tmp_path, walks(LONG), forecast(1, 7))
    found = told(data, lambda part: part.targets)
    assert found.test is not None
    assert found.test.block >= 14
    assert found.decision is None
    assert found.best_side is None
    assert found.test.sides == {}
    assert {"value", "turnover", "advantage_r2"}.isdisjoint(found.test.metrics)
    assert [line.split(":")[0] for line in words.lines(found)] == ["test, loss"] * len(found.skill)
    assert found.skill[MEAN].word == "better than"


@pytest.mark.parametrize(("series", "word"), [(12, "better than"), (9, "too short to tell")])
def test_the_articles_series_are_one_observation_each(series: int, word: str) -> None:
    data = prepare(article(test_series=series), q_values(fee=0.02, fee_unit="price"))
    found = told(data, lambda part: part.targets)
    assert found.test is not None
    assert found.test.observations == series
    assert found.skill[MEAN].word == word
    assert found.skill[MEAN].observations == series
    if series == 9:
        assert "about 9 independent observations, and it takes 10" in words.lines(found)[0]


def test_without_a_test_part_or_where_it_is_not_to_be_seen_there_is_no_verdict(tmp_path: Path, data: Prepared) -> None:
    none = prepared(tmp_path, walks(), test_fraction=0.0)
    assert none.test() is None
    for one, with_test in ((none, True), (data, False)):
        found, kept = judge([Told(one.val.targets)], one, with_test)
        assert found.test is None
        assert found.skill == {}
        assert found.decision is None
        assert {name.partition("/")[0] for name in kept} == {"val"}
        assert words.lines(found) == []


def test_several_networks_are_judged_by_what_they_come_to_on_average(data: Prepared) -> None:
    both = [[noise_of(part, seed) for part in (data.val, test_of(data))] for seed in (1, 2)]
    alone = [judge([Told(*y)], data, with_test=True)[0] for y in both]
    found, _ = judge([Told(*y) for y in both], data, with_test=True)
    assert found.test is not None
    for name, value in found.test.metrics.items():
        assert value == pytest.approx(np.mean([one.test.metrics[name] for one in alone if one.test])), name
    assert found.skill[MEAN].estimate == pytest.approx(np.mean([one.skill[MEAN].estimate for one in alone]))


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_a_result_comes_back_from_json_as_it_was(data: Prepared, tmp_path: Path) -> None:
    full = told(data, noise_of)
    without, _ = judge([Told(data.val.targets)], data, with_test=False)
    of_forecast = told(prepared(tmp_path, walks(), forecast(1)), lambda part: part.targets)
    for found in (full, without, of_forecast):
        assert Judged.of(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize("broken", [{}, {"val": {}}, {"best_baseline": "mean", "best_side": None, "val": [1]}])
def test_what_is_no_result_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((TypeError, KeyError, AttributeError)):
        Judged.of(broken)


def test_what_is_kept_of_each_step_adds_up_to_the_result(data: Prepared) -> None:
    y = [noise_of(part) for part in (data.val, test_of(data))]
    found, kept = judge([Told(*y)], data, with_test=True)
    test = test_of(data)
    profit = (decisions(y[1], test).profit / test.change_std[:, None]).numpy()  # type: ignore[index]
    losses = (y[1] - test.targets).square().mean(2).numpy()
    firsts = test.warm
    longest = max(n - w for n, w in zip(test.steps, firsts, strict=True))
    for name, values in (("loss", losses), ("profit", profit)):
        expected = []
        for back in range(longest, 0, -1):  # aligned at their ends
            there = [values[b, n - back] for b, n in enumerate(test.steps) if n - back >= firsts[b]]
            expected.append(np.mean(there))
        np.testing.assert_allclose(kept[f"test/{name}"], expected, rtol=1e-4, atol=1e-6)
    assert {name for name in kept if name.startswith("test/")} == {
        f"test/{name}" for name in ("loss", MEAN, ZERO, "ridge", "profit", "long", "short", "flat", "block")
    }
    assert found.test is not None
    assert kept["test/block"] == pytest.approx(found.test.block)
    assert len(kept["drawn/predicted"]) == len(kept["drawn/true"]) == test.steps[0] - test.warm[0]
    np.testing.assert_allclose(kept["drawn/profit"][-1], kept["test/profit"].sum(), rtol=1e-6)


# --- steps ----------------------------------------------------------------------------------------------------------


def test_series_are_put_side_by_side_at_their_ends(tmp_path: Path) -> None:
    part = test_of(prepared(tmp_path, walks(LENGTHS)))
    numbers = torch.arange(part.batch * part.length, dtype=torch.float64).reshape(part.batch, part.length)
    numbers[~part.mask.bool()] = math.nan  # type: ignore[union-attr]
    found = aligned(part, number=numbers)
    counts = [n - WARM for n in part.steps]
    for b, count in enumerate(counts):
        row = [numbers[b, t].item() for t in range(WARM, part.steps[b])]
        assert found.present[b].tolist() == [False] * (max(counts) - count) + [True] * count
        assert found.values["number"][b, max(counts) - count :].tolist() == row
        assert found.by_series("number")[b] == sum(row)
    np.testing.assert_array_equal(found.counts(), found.present.sum(0))
    first = found.counts().argmax()
    assert found.means("number")[first] == found.values["number"][:, first].mean()


@dataclass
class LooksAtItsValues(Forecast):
    """A loss that PyTorch cannot compute of many steps at once."""

    def loss(self, y: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        total = y.new_zeros(())
        for b in range(y.shape[0]):
            for t in range(y.shape[1]):
                if mask is None or mask[b, t] > 0:
                    error = (y[b, t] - target[b, t]).abs().sum()
                    total = total + (error.square() if error.item() < 1 else error)
        return total


@dataclass
class Absolute(Forecast):
    def loss(self, y: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        error = (y - target).abs()
        return (error if mask is None else error * mask[..., None]).sum()

    def count(self, steps: int) -> int:
        return 3 * steps


@pytest.mark.parametrize("kind", [LooksAtItsValues, Absolute])
def test_any_loss_of_ones_own_is_known_step_by_step(kind: type[Forecast], tmp_path: Path) -> None:
    task = kind(name="own", horizons=[1, 3])
    y, target = torch.randn(2, 2, 7, 2, generator=torch.Generator().manual_seed(0)).unbind()
    found = step_losses(task, y, target)
    for b in range(2):
        for t in range(7):
            error = (y[b, t] - target[b, t]).abs().sum().item()
            expected = error / 3 if kind is Absolute else (error**2 if error < 1 else error) / 2
            assert found[b, t].item() == pytest.approx(expected, rel=1e-5)
    data = prepared(tmp_path, walks((120,)), task, warm_steps=3)
    result = told(data, lambda part: part.targets)
    assert result.test is not None
    assert result.test.metrics["loss"] == 0
    assert result.test.baselines[MEAN] == pytest.approx(test_of(data).baseline, rel=1e-5)


def test_a_task_of_ones_own_that_says_nothing_of_overlap_has_that_of_what_it_looks_ahead() -> None:
    class Mine(TaskConfig):
        ahead = 6  # type: ignore[assignment]

    assert TaskConfig.overlap.fget(Mine.__new__(Mine)) == 6  # type: ignore[attr-defined]


# --- words ----------------------------------------------------------------------------------------------------------


def test_lines_say_what_is_better_than_what_by_how_much_and_on_how_much_evidence(data: Prepared) -> None:
    found = told(data, lambda part: part.targets)
    decision, *losses = words.lines(found)
    assert decision == words.headline(found)
    assert decision.startswith("test, decision: better than ")
    assert "95 % interval" in decision
    assert "independent observations" in decision
    assert losses[0].startswith("test, loss: better than predicting the training mean, skill 1 (95 % interval ")
    assert found.decision is not None
    flat = replace(found.decision, estimate=-0.01234, word="worse than", low=-0.02, high=-0.001, observations=41.6)
    assert words.decision_line(flat, "flat") == (
        "test, decision: worse than doing nothing, -0.0123 standard deviations of a change a step "
        "(95 % interval -0.02 to -0.001, 42 independent observations)"
    )


def line_of(found: Prepared) -> str:
    """Of series without names and times, as generated ones are."""
    (line,) = data_lines(described(found.data, found.task, replace(found.split, panel=None)))
    return line


def test_data_line_counts_steps_and_observations_of_each_part(tmp_path: Path) -> None:
    data = prepared(tmp_path, walks(LENGTHS))
    parts = {"val": data.val, "test": test_of(data)}
    counts = {name: len(scored(part)) for name, part in parts.items()}
    few = {
        name: f"(at most about {max(n - WARM for n in part.steps) / 4:.0f} independent observations"
        ", fewer than 30: too short to tell)"
        for name, part in parts.items()
    }
    assert line_of(data) == (
        f"data: 2 series of up to 400 rows; steps: {sum(data.train.steps)} trained on, "
        f"{counts['val']} to choose by {few['val']}, {counts['test']} to judge by {few['test']}"
    )
    none = prepared(tmp_path, walks(LENGTHS), test_fraction=0.0)
    assert line_of(none).endswith(", none to judge by")
    assert "data.test_fraction above 0" in words.nothing_left(none.data)
    assert "data.test_series above 0" in words.nothing_left(article())

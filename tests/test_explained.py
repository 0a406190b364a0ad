"""How much each key explains: known truths, chance, pruned trials, seeds."""

import csv
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial
from studies import made_study, made_trial, numbered

from tbptt.reports.explained import FEWEST, Explained, _places, explained
from tbptt.reports.page import write_report

SPEED = "time/timesteps_per_second"  # maximized
Loss = Callable[[dict[str, float | str]], float]


def a_study(n: int, seed: int, loss: Loss, noise: float = 1.0, seeds: int = 1) -> list[FrozenTrial]:
    """Random trials over two choices and a range."""
    rng = random.Random(seed)
    trials = []
    for _ in range(n):
        point = {"optimizer": rng.choice("abcd"), "clip": math.exp(rng.uniform(-3, 3)), "clip_mode": rng.choice("xyz")}
        by_seed = [loss(point) + rng.gauss(0, noise) for _ in range(seeds)]
        trials.append(made_trial(values=[sum(by_seed) / seeds], params=point, by_seed=by_seed))
    return numbered(trials)


def by_key(found: list[Explained]) -> Mapping[str, Explained]:
    return {e.key: e for e in found}


def of_optimizer(point: dict[str, float | str]) -> float:
    return "abcd".index(str(point["optimizer"]))


def test_where_nothing_matters_about_one_key_in_twenty_is_above_chance() -> None:
    found = [e for seed in range(60) for e in explained(a_study(40, seed, lambda _: 0.0), 0, "val/loss")]
    assert len(found) == 180
    above = sum(e.share > (e.chance or 0) for e in found) / len(found)
    assert 0.01 < above < 0.1


def test_the_interval_holds_the_share_of_a_large_study() -> None:
    truth = by_key(explained(a_study(4000, 1, of_optimizer), 0, "val/loss"))
    assert 0.5 < truth["optimizer"].share < 0.6  # variance 1.25 of 2.25, in ranks
    assert truth["clip"].share < 0.01
    held = {"optimizer": 0, "clip": 0, "clip_mode": 0}
    for seed in range(40):
        for e in explained(a_study(60, seed, of_optimizer), 0, "val/loss"):
            held[e.key] += e.low <= truth[e.key].share <= e.high
    assert min(held.values()) >= 35
    first = explained(a_study(60, 0, of_optimizer), 0, "val/loss")[0]
    assert first.key == "optimizer"
    assert first.share > (first.chance or 1)
    assert first.low > 0.2


def test_a_range_explains_also_where_its_middle_is_best() -> None:
    found = explained(a_study(80, 2, lambda p: abs(math.log(float(p["clip"])))), 0, "val/loss")
    assert found[0].key == "clip"
    assert found[0].low > (found[0].chance or 1)


def test_a_pruned_trial_is_worse_than_any_complete_one() -> None:
    trials = a_study(60, 3, lambda _: 0.0)
    stopped = numbered(
        [made_trial("PRUNED", params=t.params) if t.params["optimizer"] in ("c", "d") else t for t in trials]
    )
    complete = [t for t in stopped if t.values]
    assert by_key(explained(complete, 0, "val/loss"))["optimizer"].share < 0.2
    assert by_key(explained(stopped, 0, "val/loss"))["optimizer"].share > 0.6


def test_of_two_stopped_trials_the_later_one_is_better_then_the_lower_one() -> None:
    curves = {1.0: [9.0], 2.0: [4.0, 9.0], 3.0: [5.0, 8.0], 4.0: [6.0, 7.0, 7.0]}
    at = [made_trial("PRUNED", params={"clip": c}, curve=curve) for c, curve in curves.items()]
    places = [_places(t, 0, "val/loss") for t in [made_trial(values=[99.0]), *at[::-1], made_trial("PRUNED", curve=[])]]
    assert places == sorted(places)
    assert len({str(p) for p in places}) == 6
    speed = "time/timesteps_per_second"
    assert _places(at[1], 0, speed) < _places(at[2], 0, speed)  # the higher one, of what is maximized


def test_what_seeds_do_is_no_keys() -> None:
    found = explained(a_study(600, 4, of_optimizer, seeds=2), 0, "val/loss")
    assert [e.key for e in found][-1] == "seed"
    shares = by_key(found)
    assert shares["optimizer"].share == pytest.approx(0.55, abs=0.08)
    assert shares["seed"].share == pytest.approx(0.45, abs=0.08)
    assert shares["seed"].chance is None
    assert shares["seed"].said.startswith(f"{shares['seed'].share:.2f} (0.")


def test_the_report_writes_them_down(here: Path) -> None:
    trials = a_study(30, 6, of_optimizer)
    write_report(made_study(trials))
    found = explained(trials, 0, "val/loss")
    rows = list(csv.DictReader(Path("sweeps/a-study/explained.csv").read_text().splitlines()))
    assert [(r["objective"], r["key"], float(r["share"])) for r in rows] == [
        ("val/loss", e.key, pytest.approx(e.share, abs=1e-4)) for e in found
    ]
    assert [float(r["chance"]) for r in rows] == [pytest.approx(e.chance, abs=1e-4) for e in found]


def test_direction_and_objective_are_those_asked_for() -> None:
    trials = numbered([made_trial(values=[0.0, float(i)], params={"clip": 1.0 + i}) for i in range(30)])
    lower, higher = explained(trials, 1, "val/loss"), explained(trials, 1, SPEED)
    assert lower[0].share == pytest.approx(higher[0].share)
    assert lower[0].share > 0.9
    assert explained(trials, 0, "val/loss")[0].share == pytest.approx(0.0, abs=1e-9)
    pruned = made_trial("PRUNED", params={"clip": 1.0})
    ends = [explained(numbered([*trials, *[pruned] * 10]), 1, o)[0].share for o in ("val/loss", SPEED)]
    assert ends[0] < ends[1]  # the pruned ones have a small clip, and small values are the bad ones when maximized


def test_a_key_counts_where_it_exists_and_only_with_enough_trials() -> None:
    trials = a_study(40, 5, of_optimizer)
    some = numbered([*trials, *(made_trial(values=[1.0], params={"schedule.start": i}) for i in range(12))])
    assert by_key(explained(some, 0, "val/loss"))["schedule.start"].trials == 12
    few = numbered([*trials, *(made_trial(values=[1.0], params={"schedule.start": i}) for i in range(FEWEST - 1))])
    assert "schedule.start" not in by_key(explained(few, 0, "val/loss"))
    assert explained(trials[: FEWEST - 1], 0, "val/loss") == []
    every_other = numbered([made_trial(values=[float(i)], params={"name": str(i)}) for i in range(20)])
    assert explained(every_other, 0, "val/loss") == []

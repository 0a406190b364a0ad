"""There is one order of trials, by objectives and their directions, and no value that is missing disturbs it."""

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from studies import made_study, made_trial, numbered

from tbptt.reports.page import write_report
from tbptt.studies.ranking import (
    best_first,
    best_first_by,
    best_run,
    best_trial,
    by_seed,
    complete,
    cost,
    is_complete,
    pareto_front,
)

LOSS, SPEED = "val/loss", "time/timesteps_per_second"


def spoilt(*values: Any) -> FrozenTrial:
    """A complete trial as Optuna makes none, but a storage may hold one."""
    trial = made_trial(values=[1.0] * len(values))
    trial._values = list(values) if values else None  # type: ignore[attr-defined]
    trial.state = TrialState.COMPLETE
    return trial


def trials() -> list[FrozenTrial]:
    """Of two objectives, with and without values; the best is in the middle."""
    return numbered(
        [
            spoilt(math.nan, 9.0),
            made_trial(values=[0.5, 1.0]),
            spoilt(0.1, math.nan),
            made_trial("PRUNED", curve=[3.0, 2.0]),
            made_trial(values=[0.25, 2.0]),
            spoilt(),
            made_trial(values=[0.25, 3.0]),
            spoilt(None, None),
            made_trial("FAIL", curve=[]),
        ]
    )


def test_a_smaller_cost_is_better_in_either_direction() -> None:
    assert cost(1.0, LOSS) < cost(2.0, LOSS) < cost(math.nan, LOSS)
    assert cost(2.0, SPEED) < cost(1.0, SPEED) < cost(math.nan, SPEED)


@pytest.mark.parametrize(("objectives", "order"), [((LOSS,), [4, 6, 1]), ((LOSS, SPEED), [6, 4, 1])])
def test_what_has_no_value_is_never_best_and_moves_no_other(objectives: tuple[str, ...], order: list[int]) -> None:
    every = trials()
    ranked = [t.number for t in best_first(every, *objectives)]
    assert ranked[:3] == order
    assert sorted(ranked) == list(range(len(every)))
    best = best_trial(every, *objectives)
    assert best is not None
    assert best.number == order[0]
    assert best_trial([spoilt(math.nan), spoilt(), every[3]], *objectives) is None


def test_by_another_objective_only_complete_trials_are_ranked() -> None:
    assert [t.number for t in best_first_by(trials(), 1, SPEED)] == [6, 4, 1]
    assert [t.number for t in complete(trials())] == [1, 4, 6]
    assert not any(map(is_complete, [spoilt(), spoilt(None), spoilt(math.nan), made_trial("PRUNED")]))


def test_the_front_has_no_trial_without_a_value() -> None:
    assert [t.number for t in pareto_front(trials(), [LOSS, SPEED])] == [6]
    infinite = numbered([made_trial(values=[math.inf, 1.0]), made_trial(values=[math.inf, 2.0])])
    assert [t.number for t in pareto_front(infinite, [LOSS, SPEED])] == [1]


def test_the_best_run_is_none_whose_value_is_missing(here: Path) -> None:
    best = made_trial(values=[0.4], by_seed=[math.nan, 0.5, 0.3], run_ids=["a", "b", "c"])
    run, said = best_run(made_study([best]), best)
    assert run == "c"
    assert said.startswith("run 3, the luckiest of trial 0's 3 seeds")


def test_a_trial_without_values_by_seed_has_its_own() -> None:
    trial = made_trial(values=[0.4, 2.0], values_by_seed=[])
    assert (by_seed(trial), by_seed(trial, 1)) == ([0.4], [2.0])


def test_a_report_is_written_of_trials_without_values(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [made_trial(values=[0.25 * i, float(i)], params={"clip": float(i)}) for i in range(1, 13)]
    study = made_study(made, [LOSS, SPEED])
    every = numbered([*study.trials(), *(t for t in trials() if t.state == TrialState.COMPLETE)])
    monkeypatch.setattr(study, "read", lambda: every)
    page = write_report(study).read_text(encoding="utf-8")
    assert "could not be drawn" not in page
    assert "12 complete" not in page  # those without values are complete to Optuna

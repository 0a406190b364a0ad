"""Values side by side: pairs that differ in one key only, the direction of an objective."""

import csv

from conftest import ROOT
from optuna.trial import FrozenTrial
from studies import made_trial, numbered

from tbptt.reports.pairs import pairs


def a_grid(**of_clip: list[float]) -> list[FrozenTrial]:
    """Two optimizers; of Adam a loss a seed for each clip, of SGD each one more."""
    return numbered(
        [
            made_trial(
                values=[sum(losses) / len(losses) + more],
                params={"optimizer": name, "clip": clip},
                by_seed=[v + more for v in losses],
            )
            for name, more in (("adam", 0.0), ("sgd", 1.0))
            for clip, losses in of_clip.items()
        ]
    )


def test_each_two_values_are_held_side_by_side_where_all_else_is_the_same() -> None:
    found = pairs(a_grid(a=[1.0, 2.0], b=[1.5, 1.75]), 0, "val/loss")
    assert [(p.key, p.better, p.worse) for p in found] == [("optimizer", "adam", "sgd"), ("clip", "a", "b")]
    assert found[0].gains == (1.0, 1.0, 1.0, 1.0)
    assert found[1].gains == (0.5, -0.25, 0.5, -0.25)
    assert (found[1].wins, found[1].mean) == (2, 0.125)


def test_of_what_is_maximized_more_is_better() -> None:
    found = pairs(a_grid(a=[1.0, 2.0], b=[1.5, 1.75]), 0, "time/timesteps_per_second")
    assert [(p.better, p.worse, p.mean, p.wins) for p in found] == [("sgd", "adam", 1.0, 4), ("b", "a", 0.125, 2)]


def test_trials_that_differ_in_more_or_are_not_complete_are_no_pair() -> None:
    differ = [made_trial(values=[float(i)], params={"optimizer": f"o{i}", "clip": 0.1 * (i + 1)}) for i in range(9)]
    assert pairs(numbered(differ), 0, "val/loss") == []
    stopped = [made_trial(state, values=[1.0], params={"clip": c}) for state in ("PRUNED", "FAIL") for c in (1.0, 2.0)]
    assert pairs(numbered(stopped), 0, "val/loss") == []


def test_a_range_of_many_values_is_left_to_the_slices() -> None:
    many = [made_trial(values=[0.5 + 0.5 / i], params={"clip": float(i)}, by_seed=[1.0 / i, 1.0]) for i in range(1, 14)]
    assert len(pairs(numbered(many[:12]), 0, "val/loss")) == 66
    assert pairs(numbered(many), 0, "val/loss") == []


def test_kept_results_say_how_often_clipping_was_better() -> None:
    with (ROOT / "docs" / "results" / "schedule-or-not.csv").open(newline="") as file:
        trials = [
            made_trial(
                values=[float(row["val/loss"])],
                params={"clip": row["clip"], "schedule.chunks": row["schedule.chunks"]},
                by_seed=[float(value) for value in row["by_seed"].split()],
            )
            for row in csv.DictReader(file)
        ]
    clip, *chunks = pairs(numbered(trials), 0, "val/loss")
    assert (clip.better, clip.worse, clip.wins, len(clip.gains)) == ("1.4", "null", 17, 20)
    assert {p.wins for p in chunks if p.better == "[6]" and p.worse != "[6, 4, 2, 1]"} == {10}

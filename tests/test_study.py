"""The study by itself, on objectives that train nothing: what is claimed, what is run again, what is counted."""

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from tbptt.compat import trial_id
from tbptt.config.compose import CommandError
from tbptt.config.schema import NSGAII, PrunerConfig, SamplerConfig, StartsRandom
from tbptt.options.values import Value
from tbptt.studies.best_of import existing_study
from tbptt.studies.space import Choice, Interval, IntRange, Space
from tbptt.studies.study import INTERRUPTED, Budget, Counts, Study, point_of
from tbptt.system.liveness import identity

STORAGE = "sqlite:///sweeps/optuna.db"
GRID = Space((Choice("optimizer", "optimizer", (), ("sgd", "adam")), IntRange("epochs", "epochs", (), 1, 3)))
SEARCH = Space((Interval("clip", "clip", (), 0.1, 10.0, True), *GRID.dimensions))
RANDOM, TPE, NO_PRUNER = SamplerConfig("random"), StartsRandom("tpe"), PrunerConfig("none")
Claimed = tuple[Trial, dict[str, Value]] | None


@pytest.fixture
def study(here: Path) -> Study:
    return Study("toy", STORAGE, ["val/loss"])


def claim(study: Study, space: Space = SEARCH, total: int | None = None, **more: Any) -> Claimed:
    """Claim from a grid, or with a total from a search of so many trials."""
    budget = {"deadline": None, "max_failures": None, "retries": 1} | {k: v for k, v in more.items() if k != "sampler"}
    return study.claim(space, Budget(total, **budget), more.get("sampler", RANDOM), NO_PRUNER, 3, total is None)


def taken(study: Study, space: Space = SEARCH, total: int | None = None, **more: Any) -> tuple[Trial, dict[str, Value]]:
    claimed = claim(study, space, total, **more)
    assert claimed is not None
    return claimed


def run(study: Study, space: Space = SEARCH, total: int | None = None, **more: Any) -> list[dict[str, Value]]:
    """Run what is left; the points in order."""
    points = []
    while claimed := claim(study, space, total, **more):
        study.optuna.tell(claimed[0], loss(claimed[1]))
        points.append(claimed[1])
    return points


def loss(point: Mapping[str, Any]) -> float:
    return float(abs(point.get("clip", 1.0) - 1)) + (point.get("optimizer") == "sgd") + point.get("epochs", 0) / 10


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on, claims are those of a process that is gone."""
    return lambda: monkeypatch.setattr("tbptt.studies.study.holding", lambda folder: identity() | {"lock": "let go of"})


def queue(study: Study, space: Space) -> None:
    with study.locked():
        study.enqueue(list(space.points()))


def states(study: Study) -> Counter[TrialState]:
    return Counter(t.state for t in study.optuna.trials)


# --- the budget -------------------------------------------------------------------------------------------------


def test_each_point_of_a_grid_runs_once_in_its_order(study: Study) -> None:
    queue(study, GRID)
    queue(study, GRID)
    assert run(study, GRID) == list(GRID.points())
    queue(study, GRID)
    assert claim(study, GRID) is None
    assert study.counts() == Counts(complete=6, pruned=0, failed=0, running=0, waiting=0)


def test_a_queue_that_was_cut_off_is_completed_not_doubled(study: Study) -> None:
    for point in list(GRID.points())[:2]:  # of a process that died here
        study.optuna.enqueue_trial(dict(point))
    queue(study, GRID)
    assert run(study, GRID) == list(GRID.points())


def test_a_search_ends_with_its_total_resumed_or_not(study: Study, here: Path) -> None:
    assert len(run(study, SEARCH, 4)) == 4
    again = Study("toy", STORAGE, ["val/loss"])
    assert claim(again, SEARCH, 4) is None
    assert len(run(again, SEARCH, 7)) == 3
    assert claim(again, SEARCH, 5) is None
    assert states(again) == {TrialState.COMPLETE: 7}


def test_what_runs_elsewhere_is_part_of_the_budget(study: Study) -> None:
    other = Study("toy", STORAGE, ["val/loss"])
    mine, theirs = taken(study, SEARCH, 2), taken(other, SEARCH, 2)
    assert claim(study, SEARCH, 2) is None
    assert mine[0].number != theirs[0].number


def test_pruned_trials_and_failures_are_part_of_the_budget(study: Study) -> None:
    pruned, failed = taken(study, SEARCH, 3)[0], taken(study, SEARCH, 3)[0]
    study.optuna.tell(pruned, state=TrialState.PRUNED)
    study.fail(failed.number, "ValueError: no")
    assert len(run(study, SEARCH, 3)) == 1
    assert study.counts() == Counts(complete=1, pruned=1, failed=1, running=0, waiting=0)
    assert [t.user_attrs["reason"] for t in study.failures()] == ["ValueError: no"]


def test_nothing_is_started_after_the_deadline(study: Study) -> None:
    assert claim(study, SEARCH, 3, deadline=time.monotonic() - 1) is None
    assert claim(study, SEARCH, 3, deadline=time.monotonic() + 600) is not None
    queue(study, GRID)
    assert claim(study, GRID, deadline=time.monotonic() - 1) is None


@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_a_clock_that_is_set_moves_no_deadline(study: Study, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + step)
    assert claim(study, SEARCH, 3, deadline=time.monotonic() - 1) is None
    assert claim(study, SEARCH, 3, deadline=time.monotonic() + 600) is not None


def test_a_study_stops_at_so_many_failures(study: Study) -> None:
    queue(study, GRID)
    for _ in range(2):
        study.fail(taken(study, GRID, max_failures=2)[0].number, "no")
    assert claim(study, GRID, max_failures=2) is None
    assert claim(study, GRID, max_failures=3) is not None


@pytest.mark.parametrize("sampler", [TPE, RANDOM, SamplerConfig("qmc"), NSGAII("nsgaii", population_size=2)])
def test_no_point_of_a_finite_space_is_trained_twice(study: Study, sampler: SamplerConfig) -> None:
    points = run(study, GRID, 5, sampler=sampler)
    assert len(points) == len({tuple(p.items()) for p in points}) == 5
    assert len(study.trials()) == study.counts().complete == 5
    assert len(run(study, GRID, 6, sampler=sampler)) == 1
    assert claim(study, GRID, 99, sampler=sampler) is None
    assert study.counts() == Counts(complete=6, pruned=0, failed=0, running=0, waiting=0)


def test_a_search_that_becomes_a_grid_runs_the_points_that_are_left(study: Study) -> None:
    first = run(study, GRID, 2)
    queue(study, GRID)
    assert run(study, GRID) == [point for point in GRID.points() if point not in first]


RACE = """
import sys, time
from pathlib import Path
from threading import Thread
sys.path.insert(0, {tests!r})
from test_study import GRID, SEARCH, STORAGE, claim, loss, queue
from tbptt.studies.study import Study
Path("ready-" + sys.argv[1]).touch()
while len(list(Path().glob("ready-*"))) < 4:
    time.sleep(0.01)
for name, space, total in (("grid", GRID, None), ("search", SEARCH, 11), ("part", GRID, 5)):
    study = Study(name, STORAGE, ["val/loss"])
    if name == "grid":
        queue(study, space)
    while claimed := claim(study, space, total):
        claimed[0].report(1.0, 0)
        study.optuna.tell(claimed[0], loss(claimed[1]))
"""


def test_four_processes_that_race_share_one_budget_to_the_trial(here: Path) -> None:
    script = RACE.format(tests=str(Path(__file__).parent))
    racing = [subprocess.Popen([sys.executable, "-c", script, str(i)], cwd=here) for i in range(4)]
    assert [process.wait(timeout=300) for process in racing] == [0] * 4
    for name, total in (("grid", 6), ("search", 11), ("part", 5)):
        trials = Study(name, STORAGE, ["val/loss"]).trials()
        assert [t.state for t in trials] == [TrialState.COMPLETE] * total
        assert len({tuple(t.params.items()) for t in trials}) == total
    workers = {t.user_attrs["worker"]["pid"] for t in Study("search", STORAGE, ["val/loss"]).trials()}
    assert workers <= {process.pid for process in racing}


# --- processes that die -----------------------------------------------------------------------------------------

DEATHS = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import tbptt.studies.study
from test_study import GRID, STORAGE, claim
from tbptt.studies.space import Space
from tbptt.studies.study import Study

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

class Deadly(type(GRID.dimensions[1])):
    suggest = die

first, last = GRID.dimensions
spaces = {{"training": GRID, "between its parameters": Space((first, Deadly(**vars(last)))), "after ask": GRID}}
for name, space in spaces.items():
    if os.fork() == 0:
        if name == "after ask":
            tbptt.studies.study.identity = die
        claim(Study(name, STORAGE, ["val/loss"]), space)
        die()
    os.wait()
"""


def test_a_process_killed_at_any_moment_loses_no_point_of_a_grid(here: Path) -> None:
    names = ("training", "between its parameters", "after ask")
    for name in names:
        queue(Study(name, STORAGE, ["val/loss"]), GRID)
    subprocess.run([sys.executable, "-c", DEATHS.format(tests=str(Path(__file__).parent))], check=True, timeout=300)
    for name in names:
        study = Study(name, STORAGE, ["val/loss"])
        assert states(study)[TrialState.RUNNING] == 1, name
        points = run(study, GRID)
        assert sorted(map(str, points)) == sorted(map(str, GRID.points())), name
        first, *others = study.trials()
        assert first.state == TrialState.FAIL
        assert first.user_attrs["reason"] == "its process died, killed or out of memory (attempt 1 of 2)"
        assert [t.state for t in others] == [TrialState.COMPLETE] * 6
        assert study.counts() == Counts(complete=6, pruned=0, failed=0, running=0, waiting=0)


def test_a_process_that_lives_is_never_reaped(study: Study) -> None:
    trial, _ = taken(study, SEARCH, 2)
    other = Study("toy", STORAGE, ["val/loss"])
    assert other.reap(1) == []
    assert taken(other, SEARCH, 2)[0].number != trial.number
    assert states(study) == {TrialState.RUNNING: 2}


def test_a_point_is_tried_again_as_often_as_retries_allow(study: Study, dead: Callable[[], None]) -> None:
    dead()
    points = []
    for _ in range(3):
        points.append(taken(study, SEARCH, 1, retries=2)[1])
    assert points[0] == points[1] == points[2]
    assert claim(study, SEARCH, 1, retries=2) is None
    reasons = [t.user_attrs["reason"] for t in study.trials()]
    assert reasons == [f"its process died, killed or out of memory (attempt {i} of 3)" for i in (1, 2, 3)]
    assert [t.user_attrs["requeued"] for t in study.trials()] == [True, True, False]
    assert [t.number for t in study.failures()] == [2]
    assert study.counts().used == 1


def test_no_retries_means_none(study: Study, dead: Callable[[], None]) -> None:
    dead()
    taken(study, SEARCH, 1, retries=0)
    assert claim(study, SEARCH, 1, retries=0) is None
    assert study.counts() == Counts(complete=0, pruned=0, failed=1, running=0, waiting=0)


def test_a_point_that_is_run_again_is_queued_once_whoever_looks(study: Study) -> None:
    other = Study("toy", STORAGE, ["val/loss"])
    trial, point = taken(study, SEARCH, 3)
    study.fail(trial.number, INTERRUPTED, again=True)
    retry, same = taken(other, SEARCH, 3)
    assert same == point
    assert retry.user_attrs["retry_of"] == trial.number
    assert len(run(study, SEARCH, 3)) == 2
    other.optuna.tell(retry, 1.0)
    assert claim(other, SEARCH, 3) is None
    assert states(study) == {TrialState.FAIL: 1, TrialState.COMPLETE: 3}
    assert sum(t.user_attrs.get("retry_of") == trial.number for t in study.trials()) == 1


def test_an_interruption_uses_up_no_retry(study: Study, dead: Callable[[], None]) -> None:
    for _ in range(4):
        study.fail(taken(study, SEARCH, 1, retries=1)[0].number, INTERRUPTED, again=True)
    dead()
    taken(study, SEARCH, 1, retries=1)
    assert taken(study, SEARCH, 1, retries=1)[0].user_attrs["attempt"] == 1
    assert claim(study, SEARCH, 1, retries=1) is None
    assert [t.user_attrs["reason"] for t in study.failures()] == [
        "its process died, killed or out of memory (attempt 2 of 2)"
    ]


# --- resuming ---------------------------------------------------------------------------------------------------


def test_a_resumed_study_tries_failures_again(study: Study) -> None:
    queue(study, GRID)
    number = taken(study, GRID)[0].number
    study.fail(number, "ValueError: no")
    assert len(run(study, GRID)) == 5
    assert len(study.failures()) == 1
    study.retry_failed()
    assert study.failures() == []
    assert run(study, GRID) == [next(GRID.points())]
    assert study.counts() == Counts(complete=6, pruned=0, failed=0, running=0, waiting=0)


def test_a_resumed_study_has_its_retries_again(study: Study, dead: Callable[[], None]) -> None:
    dead()
    for _ in range(2):
        for _ in range(2):
            taken(study, SEARCH, 1, retries=1)
        assert claim(study, SEARCH, 1, retries=1) is None
        study.retry_failed()
    reasons = [t.user_attrs["reason"] for t in study.trials()]
    assert reasons == 2 * [f"its process died, killed or out of memory (attempt {i} of 2)" for i in (1, 2)]


def test_failures_are_not_run_again_behind_the_back_of_another_worker(study: Study) -> None:
    failed, running = taken(study, SEARCH, 3)[0], taken(study, SEARCH, 3)[0]
    study.fail(failed.number, "no")
    study.retry_failed()
    assert len(study.failures()) == 1
    study.optuna.tell(running, 1.0)
    study.retry_failed()
    assert study.failures() == []


def test_copies_of_a_point_do_not_keep_a_failure_from_being_run_again(study: Study) -> None:
    for _ in range(3):
        copy = study.optuna.ask()
        copy.set_user_attr("same_as", 0)
        study.optuna.tell(copy, state=TrialState.FAIL)
    study.fail(taken(study, SEARCH, 1)[0].number, "no")
    study.retry_failed()
    assert study.failures() == []
    assert len(run(study, SEARCH, 1)) == 1


def test_choices_typed_in_another_order_are_the_same_study(study: Study) -> None:
    choices = ("b", "a", None, "c")
    space = Space((Choice("k", "k", (), choices), Interval("x", "x", (), 0.0, 1.0)))
    other = Space((Choice("k", "k", (), choices[::-1]), Interval("x", "x", (), 0.0, 1.0)))
    assert len(run(study, space, 4)) == 4
    assert len(run(study, other, 8)) == 4


@pytest.mark.parametrize("sampler", [RANDOM, TPE], ids=["random", "tpe"])
def test_a_resumed_search_draws_what_an_uninterrupted_one_would_have(here: Path, sampler: SamplerConfig) -> None:
    whole = run(Study("whole", STORAGE, ["val/loss"]), SEARCH, 14, sampler=sampler)
    parts = [run(Study("parts", STORAGE, ["val/loss"]), SEARCH, n, sampler=sampler) for n in (3, 11, 12, 14)]
    assert [point for part in parts for point in part] == whole
    assert len({point["clip"] for point in whole}) == 14


# --- the store --------------------------------------------------------------------------------------------------


def test_a_study_is_an_ordinary_study_of_optuna(study: Study, here: Path) -> None:
    run(study, SEARCH, 3)
    loaded = optuna.load_study(study_name="toy", storage=f"sqlite:///{here}/sweeps/optuna.db")
    assert len(loaded.trials) == 3
    assert loaded.best_value == min(loss(t.params) for t in loaded.trials)
    assert {t.user_attrs["worker"]["pid"] for t in loaded.trials} == {identity()["pid"]}


def test_each_objective_has_its_direction(here: Path) -> None:
    study = Study("two", STORAGE, ["val/loss", "time/timesteps_per_second"])
    assert study.optuna.directions == [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]


def test_an_existing_study_is_found_and_a_missing_one_is_said_with_those_that_there_are(here: Path) -> None:
    with pytest.raises(KeyError) as error:
        Study.existing("toy", STORAGE)
    assert error.value.args == ([],)
    assert list(here.iterdir()) == []
    for name in ("toy", "another"):
        Study(name, STORAGE, ["val/loss"]).optuna.set_user_attr("objectives", ["val/loss"])
    Study("only just being made", STORAGE, ["val/loss"])
    assert Study.existing("toy", STORAGE).objectives == ["val/loss"]
    with pytest.raises(KeyError) as error:
        Study.existing("missing", STORAGE)
    assert error.value.args == (["another", "toy"],)


def test_a_study_of_a_metric_that_is_gone_says_which_and_where_it_has_to_be(here: Path) -> None:
    Study("toy", STORAGE, ["val/loss"]).optuna.set_user_attr("objectives", ["val/loss", "val/gone"])
    said = "STUDY: study toy: its objective val/gone is not there; takes the file in own/ that brings this metric"
    with pytest.raises(CommandError, match=f"^{said}$"):
        existing_study("STUDY", "toy", STORAGE)


def test_a_point_is_known_before_and_while_it_is_suggested(study: Study) -> None:
    study.optuna.enqueue_trial({"optimizer": "adam", "epochs": 2})
    waiting = study.optuna.trials[0]
    assert point_of(waiting) == {"optimizer": "adam", "epochs": 2}
    study.optuna.ask().suggest_categorical("optimizer", ["adam", "sgd"])
    assert point_of(study.optuna.trials[0]) == {"optimizer": "adam", "epochs": 2}
    study.optuna.ask()
    assert point_of(study.optuna.trials[1]) == {}


def test_what_is_written_together_is_one_transaction(here: Path) -> None:
    """optuna 4: RDBStorage.engine and .scoped_session, on which studies/together.py relies."""
    study = Study("s", "sqlite:///sweeps/together.db", ["val/loss"])
    other = Study("s", "sqlite:///sweeps/together.db", ["val/loss"])
    trial = study.optuna.ask()
    with contextlib.suppress(ZeroDivisionError), study.together():
        trial.set_user_attr("reason", "half")
        _ = 1 / 0
    assert "reason" not in other.trials()[0].user_attrs
    seen: list[Mapping[str, Any]] = []
    with study.together(), study.together():
        trial.report(2.0, 0)
        trial.set_user_attr("reason", "whole")
        assert study.trials()[0].user_attrs["reason"] == "whole"
        thread = Thread(target=lambda: seen.append(study.storage.get_trial(trial_id(trial)).user_attrs))
        thread.start()
        thread.join()
        assert other.trials()[0].intermediate_values == {}
        study.optuna.tell(trial, 1.0)
    assert seen == [{}]  # another thread of this process is not in the transaction
    (ended,) = other.trials()
    assert (ended.intermediate_values, ended.user_attrs["reason"], ended.value) == ({0: 2.0}, "whole", 1.0)
    study.optuna.ask().set_user_attr("reason", "after")  # as before
    assert other.trials()[1].user_attrs["reason"] == "after"

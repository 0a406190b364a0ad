"""Sweeps from the command to both stores. Real commands and processes where these matter, else all in this one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from conftest import CONF, ROOT, SMALL
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from tbptt.cli.main import job, run
from tbptt.config.compose import ConfigSource
from tbptt.reports.page import SHARED
from tbptt.runs.context import RunContext
from tbptt.runs.versions import code_tags
from tbptt.system.liveness import is_alive
from tbptt.system.stores import locked

COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
# Real commands, each with seconds of imports: five minutes on two cores. `pytest -m slow` runs them.
pytestmark = pytest.mark.slow

DEADLINE = 240  # seconds until a process is taken to hang

# What a worker runs first, from PYTHONPATH: it breaks the trials that FAIL names in their first epoch, and holds every
# trial in its second epoch while there is a file named hold.
SITECUSTOMIZE = """
import importlib.abc, importlib.util, os, sys, time
from dataclasses import replace

def broken(fit):
    def broken_fit(cfg, context):
        def after(epoch):
            if str(cfg.study.trial) in os.environ.get("FAIL", "").split(","):
                raise RuntimeError("broken on purpose")
            while epoch.number == 1 and os.path.exists("hold") and context.signals.signum is None:
                open(f"held-{cfg.study.trial}", "w").close()
                time.sleep(0.02)
            return context.after_epoch(epoch)
        return fit(cfg, replace(context, after_epoch=after))
    return broken_fit

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tbptt.runs.fit":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.in_steps = broken(module.in_steps)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


@dataclass
class Left:
    """What the one study of a folder left in the stores."""

    folder: Path
    name: str | None = None

    @cached_property
    def study(self) -> optuna.Study:
        with locked(self.folder / "sweeps" / ".lock"):  # a storage that is just being made is not to be looked at
            return optuna.load_study(study_name=self.name, storage=f"sqlite:///{self.folder}/sweeps/optuna.db")

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.trials

    @property
    def states(self) -> dict[TrialState, int]:
        return dict(Counter(t.state for t in self.trials))

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlruns/mlflow.db")

    @property
    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name("tbptt")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))

    @property
    def parents(self) -> list[Run]:
        return [r for r in self.runs if "mlflow.parentRunId" not in r.data.tags]

    @property
    def parent(self) -> Run:
        (parent,) = self.parents
        return parent

    @property
    def children(self) -> list[Run]:
        parent = self.parent.info.run_id
        return [r for r in self.runs if r.data.tags.get("mlflow.parentRunId") == parent]

    def runs_of(self, trial: FrozenTrial) -> list[Run]:
        return [self.client.get_run(run_id) for run_id in trial.user_attrs["run_ids"]]

    def ends(self) -> list[tuple[str, str]]:
        """Status and reason of each child."""
        return [(r.info.status, r.data.tags["stop.reason"]) for r in self.children]

    def points(self) -> list[dict[str, Any]]:
        return [t.params for t in self.trials]


STARTED: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def starting(folder: Path, *words: str, **env: str) -> "subprocess.Popen[str]":
    """The command itself, in a folder."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder)} | env,
    )
    STARTED.append(process)
    return process


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.time() + DEADLINE
    while not condition():
        assert time.time() < end, f"waited in vain until {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def place(here: Path, empty_store: Path) -> Path:
    """An empty folder, but for MLflow's tables and what breaks and holds trials there."""
    (here / "mlruns").mkdir()
    shutil.copy(empty_store, here / "mlruns")
    (here / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return here


Sweep = Callable[..., tuple[int, str, str]]
REMEMBERED: dict[
    tuple[ConfigSource, tuple[str, ...]], DictConfig
] = {}  # a composition takes 0.15 s, and many are alike


@pytest.fixture
def sweep(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Sweep:
    """Gives a -m command in this process, which is also its only worker and writes no report: exit status, what it
    printed, errors and warnings."""
    from tbptt.studies.worker import work

    def no_report(study: Any, store: Any) -> Path:
        for name in SHARED:
            (place / name).touch()
        return place / "report.html"

    def only_worker(study: Any, plan: Any, spec: Any, workers: int, *_: Any) -> None:
        assert 1 <= workers <= plan.settings.workers
        work(spec)

    compose = ConfigSource.compose

    def remembering(source: ConfigSource, overrides: Iterable[str]) -> DictConfig:
        key = source, tuple(overrides)
        if key not in REMEMBERED:
            REMEMBERED[key] = compose(*key)
        return REMEMBERED[key].copy()

    monkeypatch.setattr(ConfigSource, "compose", remembering)
    monkeypatch.setattr("tbptt.studies.sweep._run_pool", only_worker)
    monkeypatch.setattr("tbptt.studies.pool.early", lambda config: [])
    monkeypatch.setattr("tbptt.reports.page.write_report", no_report)
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)

    def given(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", *SMALL, *words])
        capsys.readouterr()
        caplog.clear()
        status = run(main, CONF)
        out, err = capsys.readouterr()
        return status, out, "".join(f"{r.message}\n" for r in caplog.records if r.name == "tbptt") + err

    return given


# --- a grid, by the real command ---------------------------------------------------------------------------------

GRID = ["-m", *SMALL, "optimizer=adam,rmsprop", "clip=0.5,1,2"]
POINTS = [{"optimizer": o, "clip": c} for o in ("adam", "rmsprop") for c in (0.5, 1.0, 2.0)]


@dataclass
class Grid(Left):
    together: tuple[tuple[int, str, str], ...] = ()
    again: tuple[int, str, str] = (0, "", "")
    before: str = ""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """The same command twice at the same instant in an empty folder, and once more when they have ended."""
    folder = tmp_path_factory.mktemp("grid")
    processes = [starting(folder, *GRID) for _ in range(2)]
    together = tuple(ended(process) for process in processes)
    left = Grid(folder, together=together)
    left.before = told(left)
    left.again = ended(starting(folder, *GRID, "progress=plain"))
    return left


def told(left: Left) -> str:
    """All that both stores tell of trials and runs; equal exactly when nothing was run."""
    trials = [(t.number, t.state, t.params, t.values, t.datetime_complete) for t in left.trials]
    return str((trials, [(r.info.run_id, r.info.status, r.data.metrics) for r in left.children]))


def test_a_command_given_twice_at_once_runs_each_point_exactly_once(grid: Grid) -> None:
    assert [status for status, _, _ in grid.together] == [0, 0], grid.together
    assert [err for _, _, err in grid.together] == ["", ""]
    assert grid.states == {COMPLETE: 6}
    assert grid.points() == POINTS


def test_the_same_command_again_runs_nothing(grid: Grid) -> None:
    status, out, err = grid.again
    assert status == 0
    assert {line.split()[0] for line in err.splitlines()} <= {"starting", "opening", "data:"}
    assert "best: trial " in out
    assert f"use it: python predict.py {grid.study.study_name} data.path=FILE" in out.splitlines()
    assert told(grid) == grid.before
    assert len(grid.parents) == 1


def test_a_study_is_one_parent_run_and_a_child_a_point(grid: Grid) -> None:
    name = grid.study.study_name
    assert name.startswith("optimizer+clip-")
    assert grid.parent.info.status == "FINISHED"
    assert grid.parent.info.run_id == grid.study.user_attrs["parent_run"]
    assert grid.parent.data.tags["study.name"] == name
    assert len(grid.runs) == 7
    assert grid.ends() == [("FINISHED", "epochs")] * 6
    by_trial = {r.data.tags["trial.number"]: r for r in grid.children}
    assert sorted(by_trial) == list("012345")
    for trial in grid.trials:
        child = by_trial[str(trial.number)]
        assert trial.user_attrs["run_ids"] == [child.info.run_id]
        assert child.data.tags["study.name"] == name
        params = child.data.params
        assert (params["optimizer.name"], float(params["clip"])) == (trial.params["optimizer"], trial.params["clip"])
        assert trial.value == min(m.value for m in grid.client.get_metric_history(child.info.run_id, "val/loss"))


def test_each_trial_has_hydras_own_record(grid: Grid) -> None:
    for trial in grid.trials:
        folder = grid.folder / "sweeps" / grid.study.study_name / str(trial.number) / ".hydra"
        assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
        words = [f"optimizer={trial.params['optimizer']}", f"clip={trial.params['clip']}"]
        overrides = list(OmegaConf.load(folder / "overrides.yaml"))
        assert overrides[: len(SMALL)] == SMALL
        assert overrides[-3:] == [*words, f"study.trial={trial.number}"]
        config = OmegaConf.load(folder / "config.yaml")
        assert (config.optimizer.name, config.clip) == (trial.params["optimizer"], trial.params["clip"])
        assert "hydra" not in config
        assert OmegaConf.load(folder / "hydra.yaml").hydra.job.config_name == "config"


def test_the_parent_has_the_report(grid: Grid) -> None:
    artifacts = {a.path for a in grid.client.list_artifacts(grid.parent.info.run_id)}
    assert {"report.html", "trials.csv"} <= artifacts
    left = {path.name for path in (grid.folder / "sweeps" / grid.study.study_name).iterdir()}
    assert left >= {"report.html", "trials.csv", "best.yaml", "best.ckpt", "workers.log"}
    assert (grid.folder / "sweeps" / grid.study.study_name / "workers.log").read_text() == ""


def test_the_best_can_be_run_again_with_more_overrides(grid: Grid) -> None:
    config = ["--config-dir", f"sweeps/{grid.study.study_name}", "--config-name", "best"]
    runs = len(grid.runs)
    status, out, err = ended(starting(grid.folder, *config, "epochs=1"))
    again = grid.runs[-1]
    assert (status, out, err) == (0, f"run {again.info.run_id}\n", "")
    assert len(grid.runs) == runs + 1
    best = grid.runs_of(grid.study.best_trial)[0]
    different = {k for k, v in best.data.params.items() if again.data.params.get(k) != v and not k.startswith("study.")}
    assert different == {"epochs"}
    first = [grid.client.get_metric_history(r.info.run_id, "train/loss")[0].value for r in (best, again)]
    assert first[0] == first[1]
    grid.client.delete_run(again.info.run_id)


# --- processes that are killed, for real -------------------------------------------------------------------------

MIXED = [
    "-m",
    *SMALL,
    "study.name=mixed",
    "optimizer=adam,rmsprop",
    "clip=tag(log,interval(0.1,10))",
    "schedule.chunks=choice([10,2,1],[1])",
    "study.n_trials=4",
    "study.workers=2",
]


def held(left: Left, *numbers: int) -> Callable[[], bool]:
    """Whether these trials are in their second epoch."""
    return lambda: all((left.folder / f"held-{number}").exists() for number in numbers)


def test_whatever_is_killed_the_study_ends_with_its_total(place: Path, sweep: Sweep) -> None:
    left = Left(place, "mixed")
    (place / "hold").touch()
    head = starting(place, *MIXED)
    try:
        until(held(left, 0, 1), "both workers train")
        first, second = left.trials
        os.kill(first.user_attrs["worker"]["pid"], signal.SIGKILL)
        until(held(left, 2), "the killed trial is run again by another worker")
        dead, _, retry = left.trials
        assert dead.state == FAIL
        assert dead.user_attrs["reason"] == "its process died, killed or out of memory (attempt 1 of 2)"
        assert retry.params == dead.params
        assert (retry.user_attrs["retry_of"], retry.user_attrs["attempt"]) == (0, 1)
        workers = [t.user_attrs["worker"] for t in (second, retry)]
        assert all(map(is_alive, workers))
    finally:
        head.kill()
    ended(head)
    until(lambda: not any(map(is_alive, workers)), "the workers have followed their head")
    assert left.states == {FAIL: 3}
    assert [t.user_attrs["reason"] for t in left.trials[1:]] == ["interrupted"] * 2
    assert left.ends() == [("KILLED", "interrupted")] * 2
    (place / "hold").unlink()

    assert sweep(*MIXED[1:])[0] == 0
    done = [t for t in left.trials if t.state in (COMPLETE, PRUNED)]
    assert len(done) == 4
    assert left.states[FAIL] == len(left.trials) - 4 == 3
    assert {str(t.params) for t in done} >= {str(t.params) for t in (dead, second)}
    assert left.parent.info.status == "FINISHED"
    assert len(left.children) == 4  # each interrupted run was gone on with
    assert {r.info.status for r in left.children} <= {"FINISHED", "KILLED"}
    for trial in done:
        (of_trial,) = left.runs_of(trial)
        assert of_trial.data.tags["trial.number"] == str(trial.number)
        history = left.client.get_metric_history(of_trial.info.run_id, "val/loss")
        assert [m.step for m in history] == list(range(len(history)))
        assert [t.number for t in left.trials if of_trial.info.run_id in t.user_attrs["run_ids"]][-1] == trial.number


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_study_says_so_and_is_completed_by_the_same_command(
    place: Path, sweep: Sweep, signum: signal.Signals
) -> None:
    words = [*SMALL, "clip=1,2", "study.name=cut", "study.pack=1"]
    left = Left(place, "cut")
    (place / "hold").touch()
    head = starting(place, "-m", *words)
    until(held(left, 0), "a worker trains")
    worker = left.trials[0].user_attrs["worker"]
    head.send_signal(signum)
    status, _, err = ended(head)
    assert (status, err) == (128 + signum, f"stopped by {signum.name}; give the same command again to go on\n")
    assert not is_alive(worker)
    assert left.states == {FAIL: 1, TrialState.WAITING: 1}
    assert left.trials[0].user_attrs["reason"] == "interrupted"
    assert (left.parent.info.status, left.parent.data.tags["stop.reason"]) == ("KILLED", "interrupted")
    assert left.ends() == [("KILLED", "interrupted")]
    (place / "hold").unlink()

    assert sweep(*words)[0] == 0
    assert left.states == {FAIL: 1, COMPLETE: 2}
    assert left.parent.info.status == "FINISHED"
    assert "stop.reason" not in left.parent.data.tags
    assert left.ends() == [("FINISHED", "epochs")] * 2


def test_a_trial_that_fails_stops_no_other(place: Path) -> None:
    status, out, err = ended(starting(place, "-m", *SMALL, "clip=1,2,3", "progress=plain", FAIL="1"))
    reason = "RuntimeError: broken on purpose"
    assert status == 1
    (line,) = [line for line in err.splitlines() if line.startswith("trial 1 failed")]
    assert line.startswith(f"trial 1 failed: {reason} (")
    assert "best: trial " in out
    left = Left(place)
    assert [t.state for t in left.trials] == [COMPLETE, FAIL, COMPLETE]
    assert left.trials[1].user_attrs["reason"].startswith(reason)
    assert left.ends() == [("FINISHED", "epochs"), ("FAILED", "error"), ("FINISHED", "epochs")]
    assert left.parent.info.status == "FAILED"
    (failed,) = left.runs_of(left.trials[1])
    text = left.client.download_artifacts(failed.info.run_id, "traceback.txt")
    assert "broken on purpose" in Path(text).read_text()
    assert "Traceback" not in err


# --- searches ---------------------------------------------------------------------------------------------------

RATES = "optimizer.lr=tag(log,interval(1e-6,0.1))"


def curve(left: Left, run_id: str, metric: str = "val/loss") -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in left.client.get_metric_history(run_id, metric)]


def test_a_pruned_trial_keeps_the_curve_it_has(sweep: Sweep, place: Path) -> None:
    pruner = ["study/pruner=median", "study.pruner.patience=0", "study.pruner.n_startup_trials=1"]
    assert sweep(RATES, "study.n_trials=6", "epochs=4", "study/sampler=random", *pruner)[0] == 0
    left = Left(place)
    assert left.states[PRUNED] >= 1
    assert left.states[PRUNED] + left.states[COMPLETE] == 6
    assert left.parent.info.status == "FINISHED"
    for trial in left.trials:
        (of_trial,) = left.runs_of(trial)
        points = curve(left, of_trial.info.run_id)
        assert points == sorted(trial.intermediate_values.items())
        assert trial.user_attrs["curves"]["val/loss"] == [value for _, value in points]
        end = (of_trial.info.status, of_trial.data.tags["stop.reason"], len(points) < 4)
        if trial.state == PRUNED:
            assert end == ("KILLED", "pruned", True)
            assert trial.value == points[-1][1]
            assert trial.user_attrs["stop_reason"] == "pruned"
        else:
            assert end == ("FINISHED", "epochs", False)
            assert trial.value == min(value for _, value in points)


def test_no_point_of_a_grid_is_pruned_unless_a_pruner_is_asked_for(sweep: Sweep, place: Path) -> None:
    words = ["optimizer.lr=0.01,0.02,0.03,0.04,0.05,0.06,1e-6", "study.name=grid"]
    assert sweep(*words)[0] == 0
    assert Left(place, "grid").states == {COMPLETE: 7}


def test_a_diverged_trial_is_a_result_and_not_a_failure(sweep: Sweep, place: Path) -> None:
    status, _, err = sweep("optimizer=sgd", "optimizer.lr=0.01,1e30")
    assert status == 0
    assert "failed" not in err
    left = Left(place)
    fine, diverged = left.trials
    assert (fine.state, diverged.state) == (COMPLETE, PRUNED)
    assert diverged.user_attrs["stop_reason"] == "diverged"
    assert diverged.value is None or diverged.value < float("inf")
    assert left.ends() == [("FINISHED", "epochs"), ("FINISHED", "diverged")]
    assert left.parent.info.status == "FINISHED"


def test_several_objectives_are_read_at_one_epoch_and_none_is_pruned(sweep: Sweep, place: Path) -> None:
    words = ["objective=[val/loss,time/train_seconds]", RATES, "study.n_trials=4", "study/pruner=median"]
    status, _, err = sweep(*words, "study.pruner.n_startup_trials=0")
    assert status == 0
    (line,) = err.splitlines()
    assert line == "study/pruner=median: no trial is pruned, as there are several objectives"
    left = Left(place)
    assert left.states == {COMPLETE: 4}
    for trial in left.trials:
        run_id = trial.user_attrs["run_ids"][0]
        losses, seconds = curve(left, run_id), dict(curve(left, run_id, "time/train_seconds"))
        epoch, best = min(losses, key=lambda point: point[1])
        assert trial.values == [best, seconds[epoch]]
    pareto = {t.number for t in left.study.best_trials}
    worse = [
        t.number
        for t in left.trials
        if any(u.values[0] < t.values[0] and u.values[1] < t.values[1] for u in left.trials)
    ]
    assert pareto
    assert pareto.isdisjoint(worse)


def test_each_point_is_trained_once_a_seed_and_its_objective_is_their_mean(sweep: Sweep, place: Path) -> None:
    words = ["clip=1,2", "study.name=seeds"]
    assert sweep(*words, "study.seeds=[0,1,2]")[0] == 0
    left = Left(place, "seeds")
    assert left.states == {COMPLETE: 2}
    assert len(left.children) == 6
    for trial in left.trials:
        runs = left.runs_of(trial)
        assert [r.data.params["seed"] for r in runs] == ["0", "1", "2"]
        assert {r.data.tags["trial.number"] for r in runs} == {str(trial.number)}
        values = [min(value for _, value in curve(left, r.info.run_id)) for r in runs]
        assert trial.user_attrs["values_by_seed"] == [[value] for value in values]
        assert len(set(values)) == 3
        assert trial.value == pytest.approx(sum(values) / 3, rel=1e-12)
        assert sorted(trial.intermediate_values.items()) == curve(left, runs[0].info.run_id)
    status, _, err = sweep(*words, "study.seeds=[0,1]")
    assert status == 2
    assert "seeds was [0, 1, 2], is [0, 1]" in err


def test_the_best_points_are_trained_again_with_seeds_that_did_not_choose_them(sweep: Sweep, place: Path) -> None:
    words = ["clip=tag(log,interval(0.1,10))"]
    assert sweep(*words, "study.n_trials=4", "study.name=search")[0] == 0
    again = [*words, "study.best_of=search", "study.n_trials=2", "study.name=again"]
    assert sweep(*again, "study.seeds=[0,3]")[2].startswith("study.seeds: got [0], by which study search was searched")
    for _ in range(2):
        assert sweep(*again, "study.seeds=[3,4]")[0] == 0
    searched, left = Left(place, "search"), Left(place, "again")
    best = sorted(searched.trials, key=lambda t: t.value or 0)[:2]
    assert left.points() == [t.params for t in best]
    assert left.states == {COMPLETE: 2}
    assert [r.data.params["seed"] for t in left.trials for r in left.runs_of(t)] == ["3", "4", "3", "4"]


def test_a_higher_total_goes_on_to_it_and_no_further(sweep: Sweep, place: Path) -> None:
    words = ["optimizer=adam,rmsprop", "clip=1,2,3"]
    for asked, total in ((2, 2), (4, 4), (9, 6)):
        assert sweep(*words, f"study.n_trials={asked}")[0] == 0
        left = Left(place)
        finished = [t for t in left.trials if "same_as" not in t.user_attrs]
        assert [t.state for t in finished] == [COMPLETE] * total
        assert len({str(t.params) for t in finished}) == total
        assert len(left.children) == total
        assert left.parent.info.status == "FINISHED"


def test_a_shuffled_grid_runs_in_one_order_also_when_it_is_resumed(sweep: Sweep, place: Path) -> None:
    words = ["epochs=shuffle(range(1,7))", "study.name=shuffled"]
    assert sweep(*words)[0] == 0
    order = [t.params["epochs"] for t in Left(place, "shuffled").trials]
    assert sorted(order) == list(range(1, 7))
    assert order != sorted(order)
    assert sweep(*words)[0] == 0
    assert [t.params["epochs"] for t in Left(place, "shuffled").trials] == order


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, Callable[[], None]]], None]:
    """Does something at the beginning of the second epoch of trials, by number, or of every one, -1."""
    from tbptt.studies import worker

    in_steps = worker.in_steps

    def does(what: dict[int, Callable[[], None]]) -> None:
        def broken(cfg: Any, context: RunContext) -> Any:
            def after(epoch: Any) -> Any:
                act = what.get(cfg.study.trial, what.get(-1))
                if epoch.number == 1 and act:
                    act()
                return context.after_epoch(epoch)

            return in_steps(cfg, replace(context, after_epoch=after))

        monkeypatch.setattr("tbptt.studies.worker.in_steps", broken)

    return does


def fails() -> None:
    raise OSError("no space left\non the device")


def test_a_study_stops_at_so_many_failures_and_goes_on_when_they_are_mended(
    sweep: Sweep, place: Path, breaking: Callable[[dict[int, Callable[[], None]]], None]
) -> None:
    breaking({-1: fails})
    words = ["clip=1,2,3,4", "study.max_failures=2", "study.name=broken"]
    status, _, err = sweep(*words)
    lines = [line for line in err.splitlines() if line.startswith("trial")]
    assert status == 1
    assert any(line.startswith("trials 0 and 1 failed: OSError: no space left on the device") for line in lines)
    left = Left(place, "broken")
    assert left.states == {FAIL: 2, TrialState.WAITING: 2}
    assert left.parent.info.status == "FAILED"
    breaking({})
    assert sweep(*words)[0] == 0
    assert left.states == {FAIL: 2, COMPLETE: 4}
    assert sorted(t.params["clip"] for t in left.trials if t.state == COMPLETE) == [1, 2, 3, 4]
    assert left.parent.info.status == "FINISHED"


def test_a_trial_interrupted_before_its_first_epoch_ends_is_run_again(
    sweep: Sweep, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tbptt.studies import worker

    in_steps, stops = worker.in_steps, [signal.SIGINT]

    def cut(cfg: Any, context: RunContext) -> Any:
        def after(epoch: Any) -> Any:
            if stops:
                context.signals.signum = stops.pop()
                context.signals.check()
            return context.after_epoch(epoch)

        return in_steps(cfg, replace(context, after_epoch=after))

    monkeypatch.setattr("tbptt.studies.worker.in_steps", cut)
    status, _, _ = sweep("clip=1,2")
    assert status == 130
    left = Left(place)
    assert left.trials[0].user_attrs["reason"] == "interrupted"
    assert sweep("clip=1,2")[0] == 0
    assert left.states == {FAIL: 1, COMPLETE: 2}
    done = [left.runs_of(t)[0] for t in left.trials if t.state == COMPLETE]
    assert [(r.info.status, r.data.tags["stop.reason"]) for r in done] == [("FINISHED", "epochs")] * 2
    assert "RUNNING" not in {r.info.status for r in left.runs}


def test_a_time_limit_starts_no_trial_after_it(
    sweep: Sweep, place: Path, breaking: Callable[[dict[int, Callable[[], None]]], None]
) -> None:
    breaking({1: lambda: time.sleep(5)})  # the second trial outlasts the limit, and is finished
    assert sweep(RATES, "study.timeout=5", "study.n_trials=1000", "study/sampler=random")[0] == 0
    left = Left(place)
    assert 2 <= len(left.trials) < 1000
    assert set(left.states) <= {COMPLETE, PRUNED}
    assert left.parent.info.status == "FINISHED"
    ended_by = left.study.user_attrs["ended_by"]  # for the report
    done = f"{len(left.trials)} of 1000 trials"
    assert ended_by == f"study.timeout of 5 s is over: {done}; the same command goes on"
    assert sweep(RATES, f"study.n_trials={len(left.trials) + 1}", "study/sampler=random")[0] == 0
    assert Left(place).study.user_attrs["ended_by"] is None


def test_a_study_whose_parent_was_deleted_in_mlflow_gets_a_new_one(sweep: Sweep, place: Path) -> None:
    words = ["clip=1,2", "epochs=1"]
    assert sweep(*words)[0] == 0
    left = Left(place)
    before, best = left.parent.info.run_id, left.parent.data.tags["best.trial"]
    left.client.delete_run(before)
    status, _, err = sweep(*words)
    assert status == 0
    assert f"its parent run {before} was deleted in MLflow; a new one is made" in err
    parent = Left(place).parent  # of those that are not deleted, the one without a parent
    assert parent.info.run_id == Left(place).study.user_attrs["parent_run"] != before
    assert (parent.info.status, parent.data.tags["best.trial"]) == ("FINISHED", best)
    assert parent.data.params["space"]


# --- identity ---------------------------------------------------------------------------------------------------


def test_another_config_under_a_name_is_refused_and_says_what_changed(sweep: Sweep, place: Path) -> None:
    words = ["study.name='my study'", "task.fee=0.5"]
    assert sweep(*words, "clip=1,2", "epochs=1")[0] == 0
    left = Left(place, "my study")
    before = told(left)
    status, _, err = sweep(*words, "clip=1,2,3", "epochs=2", "clip_mode=std")
    assert status == 2
    advice = "takes another study.name, study.fresh=true, or study.allow_changed=true"
    assert sorted(err.splitlines()) == [
        f"study my study: clip was choice(1.0, 2.0), is choice(1.0, 2.0, 3.0); {advice}",
        f"study my study: clip_mode was norm, is std; {advice}",
        f"study my study: epochs was 1, is 2; {advice}",
    ]
    assert told(left) == before
    assert left.parent.info.status == "FINISHED"

    status, _, err = sweep(*words, "clip=1,2,3", "epochs=1", "study.allow_changed=true")
    assert status == 2
    assert "clip was choice(1.0, 2.0), is choice(1.0, 2.0, 3.0); cannot change within a study" in err

    assert sweep(*words, "clip=2.0,1", "epochs=2", "study.allow_changed=true")[0] == 0
    assert left.study.user_attrs["changes"] == ["epochs was 1, is 2"]
    assert left.states == {COMPLETE: 2}
    assert sweep(*words, "clip=1,2", "epochs=2")[0] == 0  # from here on this is what the study is


def test_an_outage_of_the_tracking_server_fails_no_trial(sweep: Sweep, place: Path) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise MlflowException("API request to http://host/api failed with exception timed out")

    words = ["clip=1,2", "epochs=1", "study.name=away", "study.retries=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tbptt.studies.worker.in_steps", away)
        status, _, err = sweep(*words)
    assert status == 1
    assert "API request to http://host/api failed" in err
    left = Left(place, "away")
    assert [t.user_attrs.get("requeued") for t in left.trials if t.state.name == "FAIL"] == [True]
    assert left.parent.info.status == "FAILED", "the sweep ended with an error"
    assert left.parent.data.tags["stop.reason"] == "error"
    assert sweep(*words)[0] == 0
    assert left.states[COMPLETE] == 2
    assert left.parent.info.status == "FINISHED"


def test_a_range_may_grow_or_move_where_that_is_allowed(sweep: Sweep, place: Path) -> None:
    for words in (["epochs=range(1,3)"], ["epochs=range(1,5)"], ["epochs=range(4,6)"]):
        assert sweep(*words, "study.name=grows", "study.allow_changed=true")[0] == 0
    left = Left(place, "grows")
    assert [t.params["epochs"] for t in left.trials] == [1, 2, 3, 4, 5]
    assert left.study.user_attrs["changes"] == [
        "epochs was whole numbers 1 to 2, is whole numbers 1 to 4",
        "epochs was whole numbers 1 to 4, is whole numbers 4 to 5",
    ]


def test_data_that_changed_in_its_file_are_another_study(sweep: Sweep, place: Path) -> None:
    path = place / "prices.csv"
    rows = [f"{100 + i % 7},{50 + i % 5}" for i in range(300)]
    path.write_text("\n".join(["a,b", *rows]))
    data = [f"data.path={path}", "data=prices", "schedule.chunks=[2,1]", "study.name=file"]
    small = [word for word in SMALL if word.split("=")[0] not in ("data.n_series", "data.val_series", "data.length")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_sweep.SMALL", small)
        assert sweep(*data, "clip=1,2", "epochs=1")[0] == 0
        path.write_text("\n".join(["a,b", *rows[:-1], "1,1"]))
        status, _, err = sweep(*data, "clip=1,2", "epochs=1")
        assert status == 2
        assert err.startswith("study file: data was ")
        assert len(err.splitlines()) == 1
        path.write_text("\n".join(["a,b", *rows]))
        assert sweep(*data, "clip=1,2", "epochs=1")[0] == 0


def test_changed_code_is_warned_of_and_a_fresh_study_begins_beside_the_old(
    sweep: Sweep, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["clip=1,2", "epochs=1", 'study.name="it\'s"']
    assert sweep(*words)[::2] == (0, "")
    tags = {"git.sha": "0" * 40}
    with monkeypatch.context() as patch:
        patch.setattr("tbptt.studies.sweep.code_tags", lambda: tags)
        status, _, err = sweep(*words)
    assert (status, err) == (0, "study it's: the code has changed since it was begun\n")
    with monkeypatch.context() as patch:
        tags = {**code_tags(), "own.sha256": "0" * 64}
        patch.setattr("tbptt.studies.sweep.code_tags", lambda: tags)
        status, _, err = sweep(*words)
    assert (status, err) == (0, "study it's: the files in own/ have changed since it was begun\n")
    for i in (2, 3):
        assert sweep(*words, "study.fresh=true")[0] == 0
        assert Left(place, f"it's-{i}").states == {COMPLETE: 2}
    assert Left(place, "it's").states == {COMPLETE: 2}
    assert [r.data.tags["study.name"] for r in Left(place).parents] == ["it's", "it's-2", "it's-3"]
    folders = {path.name for path in (place / "sweeps").iterdir() if path.is_dir()}
    assert folders - {".alive"} == {"it's", "it's-2", "it's-3"}  # that one is of the workers' locks


@pytest.mark.parametrize(
    "words",
    [
        ["clip=1,-1"],
        ["clip=1,2", "epochs=0"],
        ["clip=interval(0.1,1)"],
        ["seed=1,2"],
        ["clip=1,2", "objective=val/los"],
        ["sweep=nope"],
    ],
    ids=" ".join,
)
def test_a_wrong_sweep_costs_a_line_and_leaves_nothing(sweep: Sweep, place: Path, words: list[str]) -> None:
    before = sorted(place.rglob("*"))
    status, out, err = sweep(*words)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert sorted(place.rglob("*")) == before

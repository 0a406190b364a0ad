"""Sweeps from the command to both stores. Real commands and processes where these matter, else all in this one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from conftest import CONF, ROOT, SMALL
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from tbptt.liveness import is_alive
from tbptt.main import job, run

COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
DEADLINE = 240  # seconds until a process is taken to hang

# What a worker runs first, from PYTHONPATH: it breaks the trials that FAIL names in their first epoch, and holds every
# trial after its first epoch while there is a file named hold.
SITECUSTOMIZE = """
import importlib.abc, importlib.util, os, sys, time

def broken(fit):
    def broken_fit(cfg, *, after_epoch, signals, **more):
        def after(epoch):
            if str(cfg.study.trial) in os.environ.get("FAIL", "").split(","):
                raise RuntimeError("broken on purpose")
            while os.path.exists("hold") and signals.signum is None:
                time.sleep(0.02)
            return after_epoch(epoch)
        return fit(cfg, after_epoch=after, signals=signals, **more)
    return broken_fit

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tbptt.train":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.fit = broken(module.fit)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


@dataclass
class Left:
    """What the one study of a folder left in the stores."""

    folder: Path
    name: str | None = None

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder}/sweeps/optuna.db"

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name=self.name, storage=self.storage)

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


def starting(folder: Path, *words: str, **env: str) -> "subprocess.Popen[str]":
    """The command itself, in a folder."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder)} | env,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.time() + DEADLINE
    while not condition():
        assert time.time() < end, f"waited in vain until {what}"
        time.sleep(0.05)


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


@pytest.fixture
def sweep(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """Gives a -m command in this process, which is also its only worker: exit status, what it printed, errors."""
    from tbptt.worker import work

    monkeypatch.setattr("tbptt.sweep._run_pool", lambda study, plan, order, workers, signals: work(order))
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)

    def given(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", *SMALL, *words])
        capsys.readouterr()
        status = run(main, CONF)
        return status, *capsys.readouterr()

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
    assert (status, err) == (0, "")
    assert "best: trial " in out
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
        assert OmegaConf.load(folder / "overrides.yaml") == [*SMALL, *words, f"study.trial={trial.number}"]
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
    assert ended(starting(grid.folder, *config, "epochs=1")) == (0, "", "")
    again = grid.runs[-1]
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


def begun(left: Left, count: int) -> Callable[[], bool]:
    """Whether so many trials are being trained: they run, and have reported an epoch's loss or are about to."""

    def are() -> bool:
        if not (left.folder / "sweeps" / "optuna.db").exists():
            return False
        try:
            return sum(t.state == RUNNING and "run_ids" in t.user_attrs for t in left.trials) == count
        except (KeyError, optuna.exceptions.StorageInternalError):
            return False  # is just being made

    return are


def test_whatever_is_killed_the_study_ends_with_its_total(place: Path, sweep: Sweep) -> None:
    left = Left(place, "mixed")
    (place / "hold").touch()
    head = starting(place, *MIXED)
    try:
        until(begun(left, 2), "both workers train")
        first, second = left.trials
        os.kill(first.user_attrs["worker"]["pid"], signal.SIGKILL)
        until(lambda: len(left.trials) == 3 and begun(left, 2)(), "the killed trial is run again by another worker")
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
    words = [*SMALL, "clip=1,2", "study.name=cut"]
    left = Left(place, "cut")
    (place / "hold").touch()
    head = starting(place, "-m", *words)
    until(begun(left, 1), "a worker trains")
    worker = left.trials[0].user_attrs["worker"]
    head.send_signal(signum)
    status, _, err = ended(head)
    assert (status, err) == (128 + signum, f"stopped by {signum.name}\n")
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

"""A study shared by machines that come and go: kills, cut networks, restarts of both servers; nothing lost, none twice.

The machines are folders and processes; in the slow test network namespaces, with addresses of their own.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT, SMALL
from forked import command
from mlflow import MlflowClient
from optuna.trial import TrialState
from test_database import reachable
from test_outbox import free_port

from tbptt.cli.servers import MLflow, PostgreSQL, ServerTrouble

pytest.importorskip("psycopg")
NAME = "shared"
POINTS = "clip=tag(log,interval(0.1,10))"
CURVES = ("train/loss", "val/loss", "train/chunk_loss", "grad/norm")


@contextmanager
def servers(folder: Path, host: str = "127.0.0.1") -> Iterator[tuple[PostgreSQL, MLflow]]:
    """Both, their own; the MLflow server's runs are in PostgreSQL too."""
    folder.mkdir()
    reachable(folder)
    database = PostgreSQL(folder, free_port(), host)
    try:
        database.start()
    except ServerTrouble as trouble:
        if "missing" not in str(trouble):
            raise
        pytest.skip(str(trouble))
    tracking = MLflow(folder, database.uri("mlflow"), database.environment, free_port(), host)
    try:
        tracking.start()
        os.environ |= database.environment
        yield database, tracking
    finally:
        tracking.stop()
        database.stop("immediate")


def environment(database: PostgreSQL, tracking: MLflow) -> dict[str, str]:
    return {**database.environment, "TBPTT_STORAGE": database.uri("optuna"), "MLFLOW_TRACKING_URI": tracking.uri}


def until(what: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.2)


def complete(database: PostgreSQL) -> int:
    """Trials that are complete, 0 while there is no study yet."""
    with suppress(KeyError):
        return sum(t.state == TrialState.COMPLETE for t in trials_of(database))
    return 0


def trials_of(database: PostgreSQL) -> list[Any]:
    storage = optuna.storages.RDBStorage(database.uri("optuna"), engine_kwargs={"poolclass": _no_pool()})
    return optuna.load_study(study_name=NAME, storage=storage).trials


def _no_pool() -> Any:
    import sqlalchemy

    return sqlalchemy.NullPool


def workers_below(pid: int) -> list[int]:
    """Processes that one started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def assert_whole(database: PostgreSQL, tracking: MLflow, total: int, epochs: int) -> None:
    """Every trial once, each with one run that has every point of its curves once."""
    trials = trials_of(database)
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    others = [t for t in trials if t.state != TrialState.COMPLETE]
    assert len(done) == total
    assert {t.state for t in others} <= {TrialState.FAIL}
    assert all(t.user_attrs.get("requeued", True) for t in others), [t.user_attrs for t in others]
    assert len({t.params["clip"] for t in done}) == total, "no point twice"
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("tbptt")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    status = Counter(run.info.status for run in runs)
    assert set(status) <= {"FINISHED", "KILLED"}, status
    finished = {run.info.run_id: run for run in runs if run.info.status == "FINISHED"}
    assert len(finished) == total + 1, "and the parent"
    steps: list[list[int]] = []  # of the curves by update, which are thinned
    for trial in done:
        [run_id] = trial.user_attrs["run_ids"]
        assert finished[run_id].data.params["clip"].startswith(str(trial.params["clip"])[:6])
        points = {name: client.get_metric_history(run_id, name) for name in CURVES}
        for name in ("train/loss", "val/loss"):
            assert [p.step for p in sorted(points[name], key=lambda p: p.step)] == list(range(epochs)), (run_id, name)
        for name in ("train/chunk_loss", "grad/norm"):
            steps.append(sorted(p.step for p in points[name]))
            assert steps[-1] == steps[0], (run_id, name)
        assert min(p.value for p in points["val/loss"]) == trial.value
        assert client.download_artifacts(run_id, "checkpoints/best.ckpt")
    assert len(set(steps[0])) == len(steps[0]) >= epochs
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"


@pytest.mark.slow
def test_two_machines_share_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker is killed, then PostgreSQL and the MLflow server are restarted."""
    total, epochs = 12, 12
    words = [*SMALL, "data.length=1200", "schedule.chunks=[60,10]", f"epochs={epochs}", f"study.name={NAME}", POINTS]
    words += [f"study.n_trials={total}", "study/pruner=none", "study/sampler=random", "study.heartbeat=5"]
    with servers(tmp_path / "servers") as (database, tracking):
        for name, value in environment(database, tracking).items():
            monkeypatch.setenv(name, value)
        machines = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            machines.append(command(tmp_path / name, "-m", *words, "cluster=server"))
        until(lambda: complete(database) >= 2)
        os.kill(workers_below(machines[0].pid)[0], signal.SIGKILL)
        until(lambda: complete(database) >= 4)
        database.stop("immediate")
        time.sleep(1.5)
        database.start()
        until(lambda: complete(database) >= 6)
        tracking.stop()
        time.sleep(1.5)
        tracking.start()
        for machine in machines:
            machine.join(180)
        assert [machine.exitcode for machine in machines] == [0, 0], said(tmp_path)
        assert_whole(database, tracking, total, epochs)


def said(folder: Path) -> str:
    """What the machines printed, for a failure's sake."""
    return "\n".join(f"{p}:\n{p.read_text()}" for p in folder.glob("*/**/*") if p.name in ("out", "err", "workers.log"))


# --- machines with addresses of their own ----------------------------------------------------------------------


@pytest.fixture
def network() -> Iterator[list[str]]:
    """Four network namespaces on a bridge, which has the servers' address; their names."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names = [f"tbptt{i}" for i in range(4)]
    with ExitStack() as stack:

        def ip(*words: str, undo: str | None = None) -> None:
            if undo:  # of a test that was killed
                subprocess.run(["ip", *undo.split()], check=False, stderr=subprocess.DEVNULL)
            done = subprocess.run(["ip", *words], capture_output=True, text=True)
            if done.returncode:  # a system that lets nobody make them
                pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
            if undo:
                stack.callback(subprocess.run, ["ip", *undo.split()], check=False)

        ip("link", "add", "tbpttbr", "type", "bridge", undo="link del tbpttbr")
        ip("addr", "add", "10.77.0.1/24", "dev", "tbpttbr")
        ip("link", "set", "tbpttbr", "up")
        for i, name in enumerate(names):
            ip("netns", "add", name, undo=f"netns del {name}")
            pair = ["link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name]
            ip(*pair, undo=f"link del {name}h")  # a namespace takes its end away some time later only
            ip("link", "set", f"{name}h", "master", "tbpttbr")
            ip("link", "set", f"{name}h", "up")
            for words in (f"addr add 10.77.0.{10 + i}/24 dev eth0", "link set eth0 up", "link set lo up"):
                ip("-n", name, *words.split())
        yield names


@pytest.mark.slow
def test_four_machines_one_killed_one_cut_off_both_servers_restarted(network: list[str], tmp_path: Path) -> None:
    total, epochs = 40, 16
    words = [*SMALL, "data.length=6000", "schedule.chunks=[300,30]", f"epochs={epochs}", f"study.name={NAME}", POINTS]
    words += [f"study.n_trials={total}", "study/pruner=none", "study.heartbeat=5", "cluster=server", "progress=plain"]
    with servers(tmp_path / "servers", "10.77.0.1") as (database, tracking), ExitStack() as stack:
        env = {**os.environ, **environment(database, tracking)}
        machines = []
        for name in network:
            folder = tmp_path / name
            folder.mkdir()
            train = ["ip", "netns", "exec", name, sys.executable, str(ROOT / "train.py"), "-m", *words]
            with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
                machines.append(
                    stack.enter_context(subprocess.Popen(train, cwd=folder, env=env, stdout=out, stderr=err))
                )
        until(lambda: complete(database) >= 3, 180)
        os.kill(workers_below(machines[0].pid)[0], signal.SIGKILL)
        until(lambda: complete(database) >= 8, 180)
        subprocess.run(["ip", "link", "set", f"{network[1]}h", "down"], check=True)
        time.sleep(60)
        subprocess.run(["ip", "link", "set", f"{network[1]}h", "up"], check=True)
        tracking.stop()
        time.sleep(3)
        tracking.start()
        time.sleep(5)
        database.stop("immediate")
        time.sleep(3)
        database.start()
        for machine in machines:
            machine.wait(600)
        assert [machine.returncode for machine in machines] == [0] * 4, said(tmp_path)
        assert_whole(database, tracking, total, epochs)
        worked = {t.user_attrs["worker"]["pid"] for t in trials_of(database)}
        assert len(worked) >= 5, "four, and the one that came for the killed one"


# --- SLURM ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_slurm_jobs_are_preempted_and_outlive_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of two: one is told to make room and comes back; then the command is killed, and given again."""
    total, epochs = 14, 16
    words = [*SMALL, "data.length=6000", "schedule.chunks=[300,30]", f"epochs={epochs}", f"study.name={NAME}", POINTS]
    words += [f"study.n_trials={total}", "study/pruner=none", "study/sampler=random", "study.heartbeat=5"]
    words += ["cluster=slurm", "study.workers=2", "hydra.launcher.partition=here", "hydra.launcher.mem_gb=null"]
    folder = tmp_path / "shared"
    folder.mkdir()
    with servers(tmp_path / "servers") as (database, tracking), started_slurm(tmp_path / "s") as slurm_environment:
        env = {**os.environ, **environment(database, tracking), **slurm_environment}

        def ask(*command: str) -> str:
            return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

        def head() -> "subprocess.Popen[bytes]":
            train = [sys.executable, str(ROOT / "train.py"), "-m", *words]
            with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
                return subprocess.Popen(train, cwd=folder, env=env, stdout=out, stderr=err)

        with head() as first:
            until(lambda: complete(database) >= 2, 120)
            job = ask("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()[0]
            ask("scancel", "--signal=USR2", job)
            until(lambda: "Restarts=1" in ask("scontrol", "show", "job", job), 60)
            first.kill()
        at_kill = complete(database)
        until(lambda: complete(database) >= min(at_kill + 2, total), 120)
        with head() as again:
            assert again.wait(300) == 0, said(tmp_path)
        requeued = [t for t in trials_of(database) if t.user_attrs.get("reason") == "interrupted"]
        assert requeued, "the trial of the job that made room"
        assert_whole(database, tracking, total, epochs)


@contextmanager
def started_slurm(folder: Path) -> Iterator[dict[str, str]]:
    from slurm_here import slurm

    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with ExitStack() as stack:
        try:
            found = stack.enter_context(slurm(folder))
        except (FileNotFoundError, RuntimeError) as trouble:  # not installed, or its daemons do not start here
            pytest.skip(str(trouble))
        yield found

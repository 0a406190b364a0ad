"""A terminal that is closed under a run or a study, or has it pause: real processes with a terminal of their own."""

import os
import pty
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from conftest import ROOT, SMALL
from mlflow import MlflowClient
from optuna import load_study

pytestmark = pytest.mark.slow

ENDLESS = [*SMALL, "epochs=100000", "schedule.patience=null", "progress=auto"]


def closed_under(folder: Path, *words: str) -> int:
    """The exit status of a command whose terminal is closed once it has finished an epoch."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, str(ROOT / "train.py"), *words])
    os.set_blocking(terminal, False)
    end = time.time() + 120
    while not list(folder.glob("mlruns/artifacts/*/artifacts/checkpoints/last.ckpt")):
        assert time.time() < end
        time.sleep(0.2)
        try:
            while os.read(terminal, 65536):
                pass
        except BlockingIOError:
            pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ends(folder: Path) -> set[tuple[str, str]]:
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {(run.info.status, run.data.tags["stop.reason"]) for run in runs}


def test_a_run_is_closed_and_can_be_resumed(tmp_path: Path) -> None:
    assert closed_under(tmp_path, *ENDLESS) == 129
    assert ends(tmp_path) == {("KILLED", "interrupted")}


def test_a_study_is_closed_and_its_trials_go_back(tmp_path: Path) -> None:
    assert closed_under(tmp_path, "-m", *ENDLESS, "clip=1,2", "study.workers=2", "study.name=cut") == 129
    assert ends(tmp_path) == {("KILLED", "interrupted")}  # the parent, too
    study = load_study(study_name="cut", storage=f"sqlite:///{tmp_path}/sweeps/optuna.db")
    assert {t.state.name for t in study.trials} <= {"FAIL", "WAITING"}
    begun = [t.user_attrs for t in study.trials if t.state.name == "FAIL"]
    assert begun
    assert all(attrs["reason"] == "interrupted" and attrs["requeued"] for attrs in begun)


def test_ctrl_z_pauses_a_studys_workers_and_fg_goes_on(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if not pid:  # a shell, which stops and continues jobs
        os.chdir(tmp_path)
        os.execvp("bash", ["bash", "--norc", "-i"])
    shown: list[bytes] = []

    def read() -> None:
        try:
            while True:
                shown.append(os.read(terminal, 65536))
        except OSError:
            return

    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, b"".join(shown).decode()
            time.sleep(0.1)

    def epochs() -> list[int]:
        """When each worker last finished one."""
        return sorted(p.stat().st_mtime_ns for p in tmp_path.glob("mlruns/artifacts/*/artifacts/checkpoints/last.ckpt"))

    def stands() -> bool:
        before = epochs()
        time.sleep(1)  # some ten epochs
        return before == epochs()

    Thread(target=read, daemon=True).start()
    words = ["-m", *ENDLESS, "progress=none", "clip=1,2", "study.workers=2", "study.name=paused"]
    os.write(terminal, shlex.join([sys.executable, str(ROOT / "train.py"), *words]).encode() + b"\n")
    until(lambda: len(epochs()) == 2)
    assert not stands()
    os.write(terminal, b"\x1a")
    until(lambda: b"Stopped" in b"".join(shown))
    until(stands)
    assert stands()
    study = load_study(study_name="paused", storage=f"sqlite:///{tmp_path}/sweeps/optuna.db")
    assert [t.state.name for t in study.trials] == ["RUNNING"] * 2
    os.write(terminal, b"fg\n")
    until(lambda: not stands())
    os.write(terminal, b"\x03")
    until(lambda: b"stopped by SIGINT" in b"".join(shown))
    os.write(terminal, b"exit\n")
    os.waitpid(pid, 0)
    os.close(terminal)
    assert [t.user_attrs["reason"] for t in study.trials[:2]] == ["interrupted"] * 2

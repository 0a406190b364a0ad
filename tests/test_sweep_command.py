"""The sweep that the README begins with, through the real command: one parent run, six children, each point once."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from conftest import ROOT, SMALL
from forked import command, python
from mlflow import MlflowClient
from optuna.trial import TrialState

from tbptt.system.stores import absolute_uri

COMMAND = ["-m", "optimizer=adam,rmsprop", "clip=0.5,1,2", *SMALL, "epochs=2", "study.name=six", "study.workers=2"]


def test_a_sweep_is_one_parent_and_a_child_a_point_and_runs_each_once(here: Path) -> None:
    words = [str(ROOT / "train.py"), *COMMAND]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    done = python(*words, cwd=here)  # there is nothing left to run
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="six", storage=f"sqlite:///{here}/sweeps/optuna.db")
    points = [(o, c) for o in ("adam", "rmsprop") for c in (0.5, 1.0, 2.0)]
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 6
    assert [(t.params["optimizer"], t.params["clip"]) for t in study.trials] == points
    client = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db"))
    runs = client.search_runs(["1"])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs) == 7
    assert {r.info.status for r in runs} == {"FINISHED"}
    children.sort(key=lambda r: int(r.data.tags["trial.number"]))
    assert [(r.data.params["optimizer.name"], float(r.data.params["clip"])) for r in children] == points
    for trial, run in zip(study.trials, children, strict=True):
        values = [p.value for p in client.get_metric_history(run.info.run_id, "val/loss")]
        assert len(values) == 2
        assert trial.value == min(values)
        assert run.data.tags["study.name"] == "six"
    folder = here / "sweeps" / "six"
    assert {p.name for p in folder.iterdir()} >= {"report.html", "trials.csv", "best.yaml", "best.ckpt", "0", "5"}
    best = children[study.best_trial.number]
    assert parent.data.metrics["best/val/loss"] == study.best_value == best.data.metrics["best/val/loss"]
    judged = {n for n in best.data.metrics if n.startswith(("test/", "baseline/"))}
    assert {"test/loss", "test/skill", "baseline/ridge/test_loss"} <= judged
    assert set(parent.data.metrics) == {n for n in best.data.metrics if n.startswith("best/")} | judged
    others = [run for run in children if run is not best]
    assert not [n for run in others for n in run.data.metrics if n.startswith("test/")]
    assert parent.data.tags["best.trial"] == str(study.best_trial.number)
    found = client.search_runs(["1"], f"metrics.`best/val/loss` <= {study.best_value!r}")
    assert {r.info.run_id for r in found} == {parent.info.run_id, best.info.run_id}
    assert "report.html" in {a.path for a in client.list_artifacts(parent.info.run_id)}


@pytest.mark.slow
def test_the_address_that_a_sweep_says_answers_while_it_runs(here: Path) -> None:
    words = [w for w in SMALL if not w.startswith(("epochs=", "progress="))]
    sweep = command(here, "-m", "clip=1,2", *words, "epochs=100000", "progress=plain", "study.name=seen")
    started: list[psutil.Process] = []
    try:
        address = until(lambda: re.search(r"^watch: (http://127\.0\.0\.1:\d+/[\w-]{16}/)$", said(here), re.MULTILINE))[
            1
        ]
        assert not servers(sweep.pid), "nobody has looked"
        with urllib.request.urlopen(address, timeout=120) as answer:
            page = answer.read().decode()
        started = servers(sweep.pid)
        assert "<h1>seen</h1>" in page
        assert len(started) == 1
        assert address.split("/")[3] not in " ".join(started[0].cmdline()), "others on this machine see the words"
        assert sweep.is_alive()
    finally:
        os.kill(sweep.pid, signal.SIGINT)
        sweep.join(60)
        for process in started:
            process.terminate()
    assert sweep.exitcode == 130


def said(folder: Path) -> str:
    return "".join((folder / name).read_text() for name in ("out", "err") if (folder / name).exists())


def servers(sweep: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(sweep).children() if "--watch" in child.cmdline()]


def until(found: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (it := found()) and time.monotonic() < end:
        time.sleep(0.1)
    return it

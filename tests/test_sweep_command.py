"""The sweep that the README begins with, through the real command: one parent run, six children, each point once."""

import subprocess
import sys
from pathlib import Path

import optuna
from conftest import ROOT, SMALL
from forked import python
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

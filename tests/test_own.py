"""Options of your own: a file in src/tbptt/own/ and a yaml, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SMALL

# The examples of docs/using.md.
DOCS = (ROOT / "docs" / "using.md").read_text()


def written(path: str) -> str:
    """The block of docs/using.md that says what is in a file."""
    return DOCS.split(f"`{path}`:\n\n```", 1)[1].split("\n", 1)[1].split("```", 1)[0]


OWN = ("optimizer/lion", "schedule/doubling", "data/random_walk")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the files that docs/using.md adds."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("train.py", "report.py"):
        shutil.copy(ROOT / name, folder / name)
    for option in OWN:
        name = option.split("/")[1]
        for path in (f"src/tbptt/own/{name}.py", f"conf/{option}.yaml"):
            (folder / path).write_text(written(path))
    return folder


def command(clone: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": str(clone / "src")}
    return subprocess.run(
        [sys.executable, *words], cwd=clone, env=env, capture_output=True, text=True, check=False, timeout=400
    )


def test_help_and_errors_know_them(clone: Path) -> None:
    shown = command(clone, "train.py", "--help").stdout
    assert "adam, adamw, lion, momentum" in shown
    assert "optimizer.weight_decay" in shown
    assert "[schedule=doubling]" in shown
    wrong = command(clone, "train.py", "optimizer=lion", "optimizer.betas=[2]", "schedule=doubling", "schedule.most=0")
    assert wrong.returncode == 2
    assert [line.split(":")[0] for line in wrong.stderr.splitlines()] == ["optimizer.betas", "schedule.most"]
    assert not (clone / "mlruns").exists()
    columns = command(clone, "train.py", "data=random_walk", "data.columns=[a,zzz]")
    assert columns.stderr == "data.columns: random_walk has no column zzz (it has: a, b)\n"
    long = command(clone, "train.py", "schedule=doubling", "schedule.most=40000")
    assert "at most as many chunks as the longest series has steps to train, 20000" in long.stderr


def test_a_study_searches_them_and_its_best_comes_back(clone: Path) -> None:
    small = [w for w in SMALL if not w.startswith(("schedule.", "data.n_", "data.val_", "data.length"))]
    words = ["optimizer=lion,adam", "schedule=doubling", "data=random_walk", "data.n=300", "study.name=own"]
    done = command(clone, "train.py", "-m", *small, *words)
    assert done.returncode == 0, done.stderr
    script = """
import json, mlflow, tbptt
client = mlflow.MlflowClient("sqlite:///mlruns/mlflow.db")
runs = client.search_runs(["1"], "params.`optimizer.name` = 'lion'")
network, scaler, config = tbptt.load_run(runs[0].info.run_id)
chunks = [round(p.value) for p in client.get_metric_history(runs[0].info.run_id, "schedule/chunks")]
print(json.dumps([config.optimizer.name, config.data.name, chunks, runs[0].data.tags["stop.reason"]]))
"""
    back = command(clone, "-c", script)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout) == ["lion", "random_walk", [1, 2, 4], "epochs"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        (
            "from tbptt.config.schema import OptimizerConfig\nclass Mine(OptimizerConfig, options=['adam']): pass",
            "ValueError: optimizer=adam is there already",
        ),
    ],
)
def test_a_file_that_cannot_be_one_costs_a_line(clone: Path, content: str, said: str) -> None:
    broken = clone / "src" / "tbptt" / "own" / "broken.py"
    broken.write_text(content)
    try:
        done = command(clone, "train.py", "--help")
    finally:
        broken.unlink()
    assert (done.returncode, done.stderr) == (2, f"src/tbptt/own/broken.py: {said}\n")


def test_a_class_without_its_yaml_cannot_be_chosen_yet(clone: Path) -> None:
    yaml = clone / "conf" / "optimizer" / "lion.yaml"
    content = yaml.read_text()
    yaml.unlink()
    try:
        assert "lion" not in command(clone, "train.py", "--help").stdout
        assert "optimizer: got 'lion'; takes one of" in command(clone, "train.py", "optimizer=lion").stderr
    finally:
        yaml.write_text(content)

"""Options of your own: a file in src/tbptt/own/ and a yaml, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL

# The examples of docs/using.md.
DOCS = (ROOT / "docs" / "using.md").read_text()


def written(path: str) -> str:
    """The block of docs/using.md that says what is in a file."""
    return DOCS.split(f"`{path}`:\n\n```", 1)[1].split("\n", 1)[1].split("```", 1)[0]


OWN = ("optimizer/lion", "schedule/doubling", "data/random_walk", "model/residual")
# Of conftest's, what does not belong to an option that is replaced here.
LITTLE = [w for w in SMALL if not w.startswith(("schedule.", "data.n_", "data.val_", "data.length", "model."))]


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
    words = ["optimizer=lion,adam", "schedule=doubling", "data=random_walk", "data.n=300", "study.name=own"]
    done = command(clone, "train.py", "-m", *LITTLE, "model.dense=[8]", "model.hidden=[8]", *words)
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


# --- a model --------------------------------------------------------------------------------------------------


def test_a_model_is_searched_resumed_and_loaded(clone: Path) -> None:
    """By segments, which its state of a GRU's h and a counter passes through; resumed as if it had never stopped."""
    fixed = ["schedule=fixed", "schedule.chunks=[2]", "segment_length=30", "data=random_walk", "data.n=300"]
    words = ["model=residual,minlstm", "optimizer.lr=0.001,0.01", "study.name=models", "study.seeds=[1]"]
    done = command(clone, "train.py", "-m", *LITTLE, *fixed, *words)
    assert done.returncode == 0, done.stderr
    one = [*LITTLE, *fixed, "model=residual", "model.width=5", "model.dropout=0.1"]
    ids = []
    for epochs in (2, 4):
        done = command(clone, "train.py", *one, f"epochs={epochs}")
        assert done.returncode == 0, done.stderr
        ids.append(done.stdout.split("run ")[-1].split()[0].strip(",.:;"))
    done = command(clone, "train.py", f"resume={ids[0]}", "epochs=4")
    assert done.returncode == 0, done.stderr
    script = """
import json, sys, mlflow, torch, tbptt
client = mlflow.MlflowClient("sqlite:///mlruns/mlflow.db")
study = client.search_runs(["1"], "params.`study.name` = 'models' and params.`model.name` LIKE '%'")
names = sorted(run.data.params["model.name"] for run in study if "trial.number" in run.data.tags)
loaded = [tbptt.load_run(run, which="last") for run in sys.argv[1:]]
weights = [network.state_dict() for network, _, _ in loaded]
network, scaler, config = loaded[0]
x = tbptt.inputs(torch.rand(2, 50, dtype=torch.float64).cumsum(1), scaler, config)
y, state = network(x, network.zero_state(2))
print(json.dumps([names, all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0]), list(y.shape),
    state["steps"].tolist(), config.model.width]))
"""
    back = command(clone, "-c", script, *ids)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout) == [["minlstm", "minlstm", "residual", "residual"], True, [2, 42, 2], [42, 42], 5]


MINE = """
from dataclasses import dataclass
from typing import Any
from tbptt.extend import ModelConfig, key, whole

@dataclass
class Mine(ModelConfig, options=["mine"]):
    width: int = key(whole(1), 3)
    depth: int = key(whole(1), 1)

    def build(self, inputs: int, outputs: int) -> Any:
        from torch import nn

        class Network(nn.Module):
            def __init__(self, width: int, depth: int):
                super().__init__()
                self.cell, self.head = nn.GRU(inputs, width, depth, batch_first=True), nn.Linear(width, outputs)
                self.scale = float(self.head.weight.detach().abs().max())  # there are no numbers on the device "meta"

            def forward(self, x: Any, state: Any) -> Any:
                y, h = self.cell(x, state)
                return self.head(y), h

            def zero_state(self, batch: int) -> Any:
                return self.head.weight.new_zeros(self.cell.num_layers, batch, self.cell.hidden_size)

        return Network(self.width, self.depth)
"""
MINE_YAML = "defaults: [{/schema/model@_here_: mine}, _self_]\nname: mine\nwidth: 3\ndepth: 2\n"


@pytest.fixture
def mine(clone: Path) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """Trains with a model from a file, parts of which are other than they should be."""
    file, yaml = clone / "src" / "tbptt" / "own" / "mine.py", clone / "conf" / "model" / "mine.yaml"

    def train(was: str, becomes: str, more: str, *words: str) -> "subprocess.CompletedProcess[str]":
        assert was in MINE
        file.write_text(MINE.replace(was, becomes))
        yaml.write_text(MINE_YAML + more)
        data = ["data=random_walk", "data.n=300", "schedule=fixed", "schedule.chunks=[2]", "epochs=1"]
        return command(clone, "train.py", *LITTLE, *data, "model=mine", *words)

    yield train
    file.unlink(missing_ok=True)
    yaml.unlink(missing_ok=True)


def test_a_model_that_needs_numbers_to_be_built_trains_and_loads(mine: Any, clone: Path) -> None:
    done = mine("", "", "")
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split("run ")[-1].split()[0].strip(",.:;")
    back = command(clone, "-c", f"import tbptt; print(tbptt.load_run({run_id!r})[0].cell.num_layers)")
    assert (back.returncode, back.stdout) == (0, "2\n"), back.stderr


@pytest.mark.parametrize(
    ("was", "becomes", "more", "words", "said"),
    [
        ("(self.width, self.depth)", "(self.width, 1)", "", [], "model=mine: nothing reads its key depth"),
        (
            "self.depth)",
            "self.dept)",
            "",
            [],
            "model=mine: build raised AttributeError: 'Mine' object has no attribute",
        ),
        ("", "", "", ["model.widht=3"], "model.widht: unknown key; did you mean model.width?"),
        ("", "", "widht: 3\n", [], "Key 'widht' not in 'Mine'"),
        (
            "outputs: int) -> Any:",
            "outputs: int) -> Any:\n        return 3\n",
            "",
            [],
            "build gives a int; takes",
        ),
        ("def build", "def built", "", [], "mine.py: TypeError: Mine lacks build(self, inputs, outputs)"),
        ("return self.head(y), h", "return self.head(y), 0", "", [], "model=mine: its state is of the type int; takes"),
    ],
)
def test_a_model_that_cannot_be_trained_costs_a_line_before_anything_is_written(
    mine: Any, clone: Path, was: str, becomes: str, more: str, words: list[str], said: str
) -> None:
    runs = sorted(clone.glob("mlruns/**"))
    done = mine(was, becomes, more, *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert sorted(clone.glob("mlruns/**")) == runs

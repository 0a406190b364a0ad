"""Options of your own: a file in own/ and a yaml, and nothing else."""

import compileall
import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL
from forked import python
from pages import drawn_in

# The examples of docs/using.md.
DOCS = (ROOT / "docs" / "using.md").read_text()


def written(path: str) -> str:
    """The block of docs/using.md that says what is in a file."""
    return DOCS.split(f"`{path}`:\n\n```", 1)[1].split("\n", 1)[1].split("```", 1)[0]


OWN = (
    *("optimizer/lion", "optimizer/lars", "schedule/doubling", "data/random_walk", "callback/weight_limit"),
    *("callback/early_stopping", "callback/limit_and_stop", "model/residual", "task/volatility"),
    "lr_schedule/steps",
)
# Of conftest's, what does not belong to an option that is replaced here.
LITTLE = [w for w in SMALL if not w.startswith(("schedule.", "data.n_", "data.val_", "data.length", "model."))]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the files that docs/using.md adds."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("src", "conf", "own"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    compileall.compile_dir(folder / "src", quiet=1)
    for name in ("train.py", "report.py"):
        shutil.copy(ROOT / name, folder / name)
    for option in OWN:
        name = option.split("/")[1]
        for path in (f"own/{name}.py", f"conf/{option}.yaml"):
            (folder / path).write_text(written(path))
    for name in ("agc", "wild"):  # which need no yaml
        (folder / "own" / f"{name}.py").write_text(written(f"own/{name}.py"))
    return folder


def command(
    clone: Path, *words: str, cwd: Path | None = None, path: str = "", **more: Any
) -> "subprocess.CompletedProcess[str]":
    """What a command does with the clone's code, and with packages that are installed in ``path``."""
    return python(*words, cwd=cwd or clone, path=f"{clone / 'src'}{os.pathsep}{path}", **more)


def small(*without: str) -> list[str]:
    """A small run, without what begins so."""
    return [word for word in SMALL if not word.startswith(without)]


def test_help_and_errors_know_them(clone: Path) -> None:
    shown = command(clone, "train.py", "--help").stdout
    assert "adam, adamw, lars, lion, momentum" in shown
    assert re.search(r"callback +early_stopping, limit_and_stop, none, weight_limit\n", shown)
    assert "clip_mode=norm                               one of norm, tensor_norm, value, std, agc " in shown
    assert re.search(r"callback\.most=100 .*\[callback=weight_limit\]  # the norm of all weights together", shown)
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
    run = small("schedule.", "data.n_", "data.val_", "data.length")
    words = ["optimizer=lion,adam", "schedule=doubling", "data=random_walk", "data.n=300", "study.name=own"]
    words += ["lr_schedule=steps", "lr_schedule.every=1", "lr_schedule.by=0.25"]
    done = command(clone, "train.py", "-m", *run, *words)
    assert done.returncode == 0, done.stderr
    script = """
import json, mlflow, tbptt
client = mlflow.MlflowClient("sqlite:///mlruns/mlflow.db")
runs = client.search_runs(["1"], "params.`optimizer.name` = 'lion'")
network, scaler, config = tbptt.load_run(runs[0].info.run_id)
chunks = [round(p.value) for p in client.get_metric_history(runs[0].info.run_id, "schedule/chunks")]
rates = [p.value / config.optimizer.lr for p in client.get_metric_history(runs[0].info.run_id, "lr")]
print(json.dumps([config.optimizer.name, config.data.name, chunks, rates, runs[0].data.tags["stop.reason"]]))
"""
    back = command(clone, "-c", script)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout) == ["lion", "random_walk", [1, 2, 4], [1, 0.25, 0.0625], "epochs"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        (
            "from tbptt.config.schema import OptimizerConfig\nclass Mine(OptimizerConfig, options=['adam']): pass",
            "ValueError: optimizer=adam is there already",
        ),
        (
            "from tbptt.extend import clip_mode\nclip_mode('norm')(lambda gradient, clip: None)",
            "ValueError: clip_mode=norm is there already",
        ),
        ("raise OSError('two\\nlines')", "OSError: two"),
    ],
)
def test_a_file_that_cannot_be_one_costs_a_line(clone: Path, content: str, said: str) -> None:
    for folder in ("own", "src/tbptt/own"):
        broken = clone / folder / "broken.py"
        broken.write_text(content)
        try:
            done = command(clone, "train.py", "--help")
        finally:
            broken.unlink()
        assert (done.returncode, done.stderr) == (2, f"{folder}/broken.py: {said}\n")


def test_a_file_that_failed_leaves_nothing_and_can_be_mended_in_the_same_process(clone: Path) -> None:
    """As in a notebook; also what the file imported of one's own before it failed."""
    script = """
import sys
from pathlib import Path
from tbptt.config.schema import register
from tbptt.options.metrics import METRICS
from tbptt.options.option import GROUPS
from tbptt.options.own import own_digest
from tbptt.training.clip_modes import OWN

whole = '''
from tbptt.extend import OptimizerConfig, clip_mode, metric
class First(OptimizerConfig, options=["first_of_all"]):
    def build(self, parameters, capturable): ...
clip_mode("first_of_all")(print)
metric("val/first_of_all", direction="minimize", label="x")(print)
'''
known = lambda: ["first_of_all" in GROUPS["optimizer"], "first_of_all" in OWN, "val/first_of_all" in METRICS]
helper, file = Path("own/zz_helper.py"), Path("own/aa_first.py")
helper.write_text(whole)
file.write_text("from tbptt.own import zz_helper; 1 / 0")
for _ in range(2):
    try:
        register()
    except ValueError as error:
        print(error, known(), [name for name in sys.modules if name.endswith(("zz_helper", "aa_first"))])
file.write_text("from tbptt.own import zz_helper")
before = own_digest()
register()
print(known(), before != own_digest())
"""
    try:
        done = command(clone, "-c", script)
    finally:
        for name in ("zz_helper", "aa_first"):
            (clone / "own" / f"{name}.py").unlink()
    failed = "own/aa_first.py: ZeroDivisionError: division by zero [False, False, False] []"
    assert done.stdout.splitlines() == [failed, failed, "[True, True, True] True"], done.stderr


def test_a_class_without_its_yaml_cannot_be_chosen_yet(clone: Path) -> None:
    yaml = clone / "conf" / "optimizer" / "lion.yaml"
    content = yaml.read_text()
    yaml.unlink()
    try:
        assert "lion" not in command(clone, "train.py", "--help").stdout
        said = command(clone, "train.py", "optimizer=lion").stderr
        assert said.startswith("optimizer: got 'lion'; takes one of")
        assert said.endswith("; class LionConfig exists, but the file conf/optimizer/lion.yaml does not\n")
    finally:
        yaml.write_text(content)


def test_the_command_of_the_page_searches_the_other_doors(clone: Path) -> None:
    (typed,) = [line for line in DOCS.splitlines() if "callback=weight_limit" in line]
    done = command(clone, *typed.split()[1:], *small())
    assert done.returncode == 0, done.stderr
    script = """
import json, mlflow
client = mlflow.MlflowClient("sqlite:///mlruns/mlflow.db")
runs = client.search_runs(["1"], "tags.`study.name` = 'doors' and params.`callback.most` = '100.0'")
print(json.dumps([[r.data.params["optimizer.name"], r.data.params["clip_mode"], r.data.metrics["grad/norm_mean"]]
                  for r in runs if r.data.metrics]))
"""
    runs = json.loads(command(clone, "-c", script).stdout)
    norms = {(optimizer, mode): norm for optimizer, mode, norm in runs}
    assert set(norms) == {(o, m) for o in ("lars", "momentum") for m in ("agc", "norm")}
    assert norms["momentum", "agc"] != norms["momentum", "norm"]  # LARS does not see how large a gradient is


def kept(clone: Path, run_id: str) -> dict[str, Any]:
    """The last checkpoint of a run: what its optimizer and its callback keep, and its weights."""
    script = f"""
import json, torch
from pathlib import Path
(path,) = Path("mlruns/artifacts/{run_id}").rglob("last.ckpt")
state = torch.load(path, weights_only=True)
numbers = {{k: v.tolist() for k, v in state["model"].items()}}
momenta = {{k: v["m"].tolist() for k, v in state["optimizer"]["state"].items()}}
print(json.dumps([state["callbacks"], numbers, momenta]))
"""
    back = command(clone, "-c", script)
    assert back.returncode == 0, back.stderr
    return dict(zip(("callbacks", "model", "optimizer"), json.loads(back.stdout), strict=True))


def test_a_resumed_run_has_what_its_optimizer_and_callback_kept(clone: Path) -> None:
    words = ["optimizer=lars", "clip_mode=agc", "clip=0.1", "callback=weight_limit", "schedule=full", "epochs=4"]
    whole = command(clone, "train.py", *small("epochs", "schedule."), *words)
    assert whole.returncode == 0, whole.stderr
    part = command(clone, "train.py", *small("epochs", "schedule."), *words, "epochs=2")
    run_ids = [re.findall(r"[0-9a-f]{32}", done.stdout)[0] for done in (whole, part)]
    (norms,) = kept(clone, run_ids[1])["callbacks"].values()
    assert len(norms["norms"]) == 2
    again = command(clone, "train.py", f"resume={run_ids[1]}", "epochs=4", "progress=none")
    assert again.returncode == 0, again.stderr
    assert kept(clone, run_ids[1]) == kept(clone, run_ids[0])
    (norms,) = kept(clone, run_ids[1])["callbacks"].values()
    assert len(norms["norms"]) == 4


def test_a_callback_can_end_a_run(clone: Path) -> None:
    done = command(
        clone, "train.py", *small("progress"), "callback=weight_limit", "callback.most=0.1", "progress=plain"
    )
    assert done.returncode == 0, done.stderr
    assert "stopped: callback" in done.stdout + done.stderr


@pytest.mark.parametrize(("most", "patience", "epochs"), [("0.1", "3", 1), ("100", "3", 4)])
def test_an_option_that_is_two_callbacks_has_the_keys_of_both_and_does_what_both_do(
    clone: Path, most: str, patience: str, epochs: int
) -> None:
    (typed,) = [line for line in DOCS.splitlines() if line.startswith("python train.py callback=limit_and_stop")]
    still = ["optimizer=sgd", "optimizer.lr=1e-30", "epochs=9"]  # no loss gets better than the first
    words = [*typed.split()[2:], f"callback.most={most}", f"callback.patience={patience}"]
    done = command(clone, "train.py", *small("epochs", "schedule."), "schedule=full", *words, *still)
    assert done.returncode == 0, done.stderr
    script = f"""
import json, torch
from pathlib import Path
(path,) = Path("mlruns/artifacts/{re.findall(r"[0-9a-f]{32}", done.stdout)[0]}").rglob("last.ckpt")
state = torch.load(path, weights_only=True)
limit, early = state["callbacks"].values()
print(json.dumps([state["epoch"] + 1, state["stop_reason"], len(limit["norms"]), early["wait_count"]]))
"""
    assert json.loads(command(clone, "-c", script).stdout) == [epochs, "callback", epochs, epochs - 1]


def test_keys_of_an_option_that_is_two_are_checked(clone: Path) -> None:
    words = ["callback=limit_and_stop", "callback.most=0", "callback.patience=0"]
    lines = command(clone, "train.py", *words).stderr.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["callback.most", "callback.patience"]


NO_CALLBACKS = {
    """
    def build(self):
        return 3
""": "callback=mine: build() gives 3; takes a pytorch_lightning.Callback, or several",
    """
    def build(self):
        import pytorch_lightning as pl
        callback = pl.Callback()
        callback.state_dict = lambda: {"a": [callback]}
        return callback
""": "the state_dict of Callback holds a Callback, which no checkpoint may hold",
}


def test_what_the_other_doors_do_not_take_costs_a_line(clone: Path) -> None:
    wrong = ["clip_mode=agx", "callback=weight_limt", "optimizer=lars", "optimizer.momentum=2"]
    lines = command(clone, "train.py", *wrong).stderr.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["callback", "clip_mode", "optimizer.momentum"]
    assert any("one of norm, tensor_norm, value, std, agc" in line for line in lines)
    most = command(clone, "train.py", "-m", "callback=weight_limit", "callback.most=1,0").stderr
    assert most == "callback.most: got 0.0; takes a number above 0\n"
    mine = clone / "own" / "mine.py"
    content = "from tbptt.extend import CallbackConfig\nclass M(CallbackConfig, options=['mine']):"
    yaml = clone / "conf" / "callback" / "mine.yaml"
    yaml.write_text("defaults: [{/schema/callback@_here_: mine}, _self_]\nname: mine\n")
    try:
        for body, said in NO_CALLBACKS.items():
            mine.write_text(content + body)
            done = command(clone, "train.py", *small(), "callback=mine")
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
            assert said in done.stderr
    finally:
        mine.unlink()
        yaml.unlink()


def test_an_optimizer_that_needs_a_closure_costs_a_line_before_anything_is_written(clone: Path, tmp_path: Path) -> None:
    mine, yaml = clone / "own" / "second_order.py", clone / "conf" / "optimizer" / "second_order.yaml"
    mine.write_text(
        "from tbptt.extend import OptimizerConfig\n"
        "class M(OptimizerConfig, options=['second_order']):\n    torch_name = 'LBFGS'\n"
    )
    yaml.write_text("defaults: [{/schema/optimizer@_here_: second_order}, _self_]\nname: second_order\nlr: 1.0\n")
    try:
        done = command(clone, str(clone / "train.py"), *small(), "optimizer=second_order", cwd=tmp_path)
    finally:
        mine.unlink()
        yaml.unlink()
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert done.stderr.startswith("optimizer=second_order: step() raised TypeError: ")
    assert "missing 1 required positional argument: 'closure'; takes step(self, closure=None)" in done.stderr
    assert list(tmp_path.iterdir()) == []


HALF = """
from tbptt.extend import clip_mode

@clip_mode("NAME")
def half(gradient, clip):
    return gradient.flat.mul_(0.5).any()
"""


def test_own_in_the_working_directory_comes_before_the_one_beside_conf(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "agc.py").write_text(HALF.replace("NAME", "of_here"))
    shown = command(clone, str(clone / "train.py"), "--help", cwd=tmp_path).stdout
    assert "one of norm, tensor_norm, value, std, of_here " in shown
    assert "lars" in shown  # what is beside conf/ is there too
    (tmp_path / "own" / "agc.py").write_text("import nothing_like_it")
    failed = command(clone, str(clone / "train.py"), "--help", cwd=tmp_path).stderr
    assert failed == "own/agc.py: ModuleNotFoundError: No module named 'nothing_like_it'\n"


def test_workers_and_load_run_find_own_in_the_working_directory(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "half.py").write_text(HALF.replace("NAME", "half"))
    for name, option in (("lars", "lars2"), ("weight_limit", "limit2")):
        text = (clone / "own" / f"{name}.py").read_text().replace(f'options=["{name}"]', f'options=["{option}"]')
        (tmp_path / "own" / f"{option}.py").write_text(text)
    (tmp_path / "more" / "optimizer").mkdir(parents=True)
    yaml = (clone / "conf" / "optimizer" / "lars.yaml").read_text().replace("lars", "lars2")
    (tmp_path / "more" / "optimizer" / "lars2.yaml").write_text(yaml)
    words = ["-m", "--config-dir", "more", *small("schedule."), "optimizer=lars2", "clip_mode=half,norm"]
    words += ["schedule=doubling", "study.workers=2", "study.name=there"]  # the schedule is beside conf
    done = command(clone, str(clone / "train.py"), *words, cwd=tmp_path, workers_forked=False)
    assert done.returncode == 0, done.stderr
    script = "import tbptt; print(tbptt.load_run('sweeps/there/best.ckpt')[2].optimizer.name)"
    assert command(clone, "-c", script, cwd=tmp_path).stdout == "lars2\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    back = command(clone, "-c", script.replace("sweeps", "../sweeps"), cwd=elsewhere)
    assert back.stdout == "lars2\n", "a network needs no optimizer"


def test_a_folder_of_configs_brings_no_code(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "sent" / "own").mkdir(parents=True)
    (tmp_path / "sent" / "own" / "evil.py").write_text("open('was_run', 'w')")
    (tmp_path / "sent" / "evil.py").write_text("open('was_run', 'w')")
    (tmp_path / "sent" / "mine.yaml").write_text("defaults: [config, _self_]\n")
    words = ["--config-dir", str(tmp_path / "sent"), "--config-name", "mine", "--cfg", "job"]
    done = command(clone, str(clone / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was_run").exists()


def test_an_installed_package_brings_options_by_its_entry_points(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "clips_of_theirs.py").write_text(HALF.replace("NAME", "theirs"))
    info = tmp_path / "clips_of_theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clips-of-theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tbptt.options]\nclips = clips_of_theirs\n")
    assert "value, std, agc, theirs " in command(clone, "train.py", "--help", path=str(tmp_path)).stdout
    (tmp_path / "clips_of_theirs.py").write_text("1 / 0")
    failed = command(clone, "train.py", "--help", path=str(tmp_path))
    line = "clips_of_theirs, of an installed package: ZeroDivisionError: division by zero\n"
    assert (failed.returncode, failed.stderr) == (2, line)


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
        ("def build", "def built", "", [], "mine.py: ValueError: model=mine: class Mine does not define build"),
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


def test_a_target_and_a_metric_are_searched_resumed_loaded_and_shown(clone: Path) -> None:
    (typed,) = [line for line in DOCS.splitlines() if "objective=val/wild" in line]
    task = ["task=volatility", "task.steps=5", "study.name=targets", "study.seeds=[0,1]"]
    done = command(clone, *typed.split()[1:], *small("task."), *task)
    assert done.returncode == 0, done.stderr
    curves = drawn_in(clone / "sweeps" / "targets" / "report.html")["curves"]
    assert {"name": "val/wild", "label": "held-out, wild predictions", "is_loss": False} in curves["metrics"]
    assert {len(run["curves"]["val/wild"]) for t in curves["trials"] for run in t["runs"]} != set()
    with (clone / "sweeps" / "targets" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["val/wild"]) <= 1 and float(row["val/mae"]) > 0 for row in rows)
    assert "val/right_side" not in rows[0]  # of another task
    part = command(clone, "train.py", *small("task."), "task=volatility", "epochs=2")
    run_id = re.findall(r"[0-9a-f]{32}", part.stdout)[0]
    again = command(clone, "train.py", f"resume={run_id}", "epochs=3", "progress=none")
    assert again.returncode == 0, again.stderr
    script = f"""
import json, mlflow, tbptt, torch
network, scaler, config = tbptt.load_run({run_id!r}, which="last")
y, _ = network(torch.zeros(1, 4, 8), network.zero_state(1))
client = mlflow.MlflowClient("sqlite:///mlruns/mlflow.db")
steps = [point.step for point in client.get_metric_history({run_id!r}, "val/wild")]
print(json.dumps([list(scaler.to_price_units(y).shape), config.task.name, config.task.steps, steps]))
"""
    back = command(clone, "-c", script)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout) == [[1, 4, 1], "volatility", 20, [0, 1, 2]]
    wrong = command(clone, "train.py", "task=volatility", "task.steps=0", "task.gamma=0.5", "objective=val/wilde")
    assert {line.split(":")[0] for line in wrong.stderr.splitlines()} == {"task.steps", "task.gamma", "objective"}
    short = command(clone, "train.py", *small("task."), "task=volatility", "data=random_walk", "data.n=60")
    assert "targets that look 20 prices ahead (val_fraction 0.2; task.steps shortens that)" in short.stderr


WRONG_PARTS = {
    "metric": [
        (
            "off.sum(), off.numel()",
            "off.mean()",
            "metric val/wild: gives a Tensor; takes a sum and",
        ),
        (
            "off.sum(), off",
            "off.summ(), off",
            "metric val/wild raised AttributeError: 'Tensor' object",
        ),
    ],
    "target": [
        ("[:, :, None]", "", "targets gives (2, 12) for prices (2, 32); takes (2, 12 or more, 1)"),
        (
            "np.diff(prices, axis=1)",
            "np.diff(pricess)",
            "task=volatility: targets raised NameError: name",
        ),
        ("return 1", "return 1.0", "task=volatility: outputs is 1.0; takes a whole number from 1"),
        (
            "steps: int = key(whole(1), 20)",
            "loss: int = key(whole(1), 20)",
            "has a key loss, which is the name",
        ),
        ("    def targets(", "    def target(", "task=volatility: class Volatility does not define targets"),
    ],
}


@pytest.mark.parametrize("kind", WRONG_PARTS)
def test_a_target_or_a_metric_that_is_wrong_costs_a_line_before_anything_is_written(clone: Path, kind: str) -> None:
    path = clone / "own" / {"metric": "wild.py", "target": "volatility.py"}[kind]
    content, runs = path.read_text(), sorted(clone.glob("mlruns/**"))
    try:
        for was, becomes, said in WRONG_PARTS[kind]:
            assert was in content
            path.write_text(content.replace(was, becomes))
            done = command(clone, "train.py", *small("task."), "task=volatility")
            assert done.returncode == 2, done.stderr
            (line,) = done.stderr.splitlines()
            assert said in line
            if "raised" in said:
                assert re.search(rf"\(own/{path.name}, line \d+\)$", line)
    finally:
        path.write_text(content)
    assert sorted(clone.glob("mlruns/**")) == runs

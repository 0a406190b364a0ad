"""``export.py``: what it writes and says, and the line for each mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CONF, ROOT

from tbptt import load_run
from tbptt.cli.export import main
from tbptt.models.state import leaves
from tbptt.serving import to_onnx

BEFORE = ROOT / "tests" / "before"
RUN: str = json.loads((BEFORE / "expected.json").read_text())["runs"]["finished"]
CHECKPOINTS = BEFORE / "mlruns" / "artifacts" / RUN / "artifacts" / "checkpoints"
STORE = f"tracking.uri=sqlite:///{BEFORE}/mlruns/mlflow.db"
LAST = str(CHECKPOINTS / "last.ckpt")
Given = Callable[..., tuple[int, str, str]]


@pytest.fixture
def give(here: Path, capsys: pytest.CaptureFixture[str]) -> Given:
    def given(*words: str) -> tuple[int, str, str]:
        status = main(words, CONF)
        return status, *capsys.readouterr()

    return given


def used(said: str) -> str:
    """The lines of Python that a command prints."""
    return "\n".join(line.strip() for line in said.splitlines() if line.startswith("    "))


def chunk() -> torch.Tensor:
    return torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_run_becomes_an_onnx_file_of_the_epoch_that_was_asked_for(give: Given, here: Path, which: str) -> None:
    status, said, wrong = give(RUN, "--which", which, "--to", "onnx", STORE)
    assert (status, wrong) == (0, "")
    assert said.startswith(f"took run {RUN}\nwrote {RUN}.onnx: ONNX, opset 20, ")
    assert float(said.partition("several sizes: ")[2].split()[0]) < 1e-5
    network = load_run(CHECKPOINTS / f"{which}.ckpt")[0]
    with torch.no_grad():
        expected, after = network(chunk(), network.zero_state(2))
    names: dict[str, Any] = {"x": chunk().numpy()}
    zeros = np.zeros((1, 2, 8), np.float32)
    code = used(said).replace('"state.0.0": …', '"state.0.0": h').replace('"state.0.1": …', '"state.0.1": c')
    exec(code, names | {"h": zeros, "c": zeros}, names)  # as it is printed
    torch.testing.assert_close(torch.from_numpy(names["y"]), expected, atol=1e-5, rtol=0)
    for found, leaf in zip(names["state"], leaves(after), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), leaf, atol=1e-5, rtol=0)
    about = json.loads(names["session"].get_modelmeta().custom_metadata_map["tbptt"])
    assert (about["run_id"], about["window"]) == (RUN, 8)
    said_after = said.splitlines()[-3:]
    assert said_after[:2] == [
        "x: (sequences, steps, 8) float32",
        "the first state: state.0.0 (1, sequences, 8) float32, state.0.1 (1, sequences, 8) float32, all 0",
    ]
    names["json"] = json
    how_to = eval(said_after[2].partition("read: ")[2], names)["how_to"]
    assert "x_t[k] = (p_t - p_(t-k) - input_mean) / input_std for k = 1 to W" in how_to
    assert "sees W = 8 prices" in how_to
    assert sorted(path.name for path in here.iterdir()) == [f"{RUN}.onnx"]


def test_a_checkpoint_becomes_a_program_of_torch(give: Given, here: Path) -> None:
    status, said, wrong = give("--to", "torch", LAST, "--out", "a b.pt2")
    assert (status, wrong) == (0, "")
    assert said.startswith(f"took {LAST}\nwrote a b.pt2: a program of torch.export, ")
    network = load_run(LAST)[0]
    names: dict[str, Any] = {"x": chunk(), "state": network.zero_state(2)}
    with torch.no_grad():
        expected, _ = network(chunk(), network.zero_state(2))
        exec(used(said), names)
    _, state, about = said.splitlines()[-3:]
    assert state.startswith("the first state: state[0][0] (1, sequences, 8) float32, state[0][1]")
    *code, result = about.partition("read: ")[2].split("; ")
    exec("\n".join(code), names)
    assert "y * target_std + target_mean" in eval(result, {**names, "json": json})["how_to"]
    torch.testing.assert_close(names["y"], expected, atol=1e-5, rtol=0)


def test_what_is_there_is_replaced_only_with_force(give: Given, here: Path) -> None:
    (here / "last.onnx").write_text("mine")
    status, said, wrong = give(LAST, "--to", "onnx")
    assert (status, said) == (2, "")
    assert wrong == "--out: last.onnx is there already; --force replaces it, --out PATH writes elsewhere\n"
    assert (here / "last.onnx").read_text() == "mine"
    assert give(LAST, "--to", "onnx", "--force")[0] == 0
    assert onnxruntime.InferenceSession("last.onnx").get_inputs()[0].name == "x"


def test_a_link_is_replaced_and_not_what_it_names(give: Given, here: Path) -> None:
    (here / "theirs").write_text("theirs")
    (here / "last.onnx").symlink_to("theirs")
    assert give(LAST, "--to", "onnx")[0] == 2
    assert give(LAST, "--to", "onnx", "--force")[0] == 0
    assert (here / "theirs").read_text() == "theirs"
    assert not (here / "last.onnx").is_symlink()


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([LAST], ["the following arguments are required: --to; see python export.py --help"]),
        (["--to", "onnx"], ["WHAT is missing; see python export.py --help"]),
        (
            [LAST, "--to", "pickle"],
            [
                "argument --to: invalid choice: 'pickle' (choose from 'onnx', 'torch', 'pyfunc', 'registry'); "
                "see python export.py --help"
            ],
        ),
        ([LAST, "--to", "registry"], ["--name: is missing; takes the name of the registered model"]),
        (
            [LAST, "--to", "registry", "--name=n", "--out", "a", "--force"],
            ["--out: registry writes no file", "--force: registry writes no file"],
        ),
        (
            [LAST, "--to", "onnx", "--name=n", "--alias", "a"],
            ["--name: is for --to registry only", "--alias: is for --to registry only"],
        ),
        ([LAST, "--to", "onnx", "--out", "no/a.onnx"], ["--out: got no/a.onnx; there is no folder no"]),
        (
            [LAST, "--to", "onnx", "epochs=3", "more"],
            [
                "epochs=3: unknown here; takes study.storage=… and tracking.uri=…",
                "more: unknown here; takes study.storage=… and tracking.uri=…",
            ],
        ),
        (
            [LAST, "--to", "registry", "--name=a/b", "--alias=v1"],
            [
                "--name: got 'a/b'; takes a name without / and :",
                "--alias: got 'v1'; takes letters, digits, _ and -, and neither v1 nor latest",
            ],
        ),
        (["some.ckpt", "--which", "last", "--to", "torch"], "which: got 'last', and some.ckpt is of one epoch"),
        (["0" * 32, "--to", "onnx"], f"run {'0' * 32}: there is no store"),
        (["gone.ckpt", "--to", "torch"], "gone.ckpt"),
    ],
)
def test_a_mistake_costs_a_line_and_writes_nothing(give: Given, here: Path, words: list[str], lines: Any) -> None:
    status, said, wrong = give(*words)
    assert (status, said) == (2, "")
    if isinstance(lines, str):
        assert lines in wrong
        assert wrong.count("\n") == 1
    else:
        assert wrong.splitlines() == lines
    assert not list(here.iterdir())


def test_a_folder_is_no_file_to_replace(give: Given, here: Path) -> None:
    (here / "kept").mkdir()
    for form, kind in (("onnx", "file"), ("pyfunc", "model of MLflow")):
        status, _, wrong = give(LAST, "--to", form, "--out", "kept", "--force")
        assert (status, wrong) == (2, f"--out: kept is no {kind}, and is not replaced\n")
    assert (here / "kept").is_dir()


def test_what_is_not_installed_is_named(give: Given, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    status, said, wrong = give(LAST, "--to", "onnx")
    assert (status, said) == (2, "")
    assert wrong == "--to onnx needs onnxscript, onnxruntime: .venv/bin/python -m pip install -e '.[export]'\n"


def test_what_cannot_be_written_costs_a_line(give: Given, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(trained: Any) -> bytes:
        raise RuntimeError("it is\nnot possible")

    monkeypatch.setattr(to_onnx, "_followed", stopped)
    monkeypatch.setattr(to_onnx, "_exported", stopped)
    status, said, wrong = give(LAST, "--to", "onnx")
    assert (status, said) == (1, f"took {LAST}\n")
    assert wrong == f"{LAST} cannot be written as ONNX: it is\n"
    assert not list(here.iterdir())


# --- MLflow's forms, which other modules write ------------------------------------------------------------------------


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A stand-in for tbptt.serving.packaged, and what it is called with."""
    module, calls = ModuleType("tbptt.serving.packaged"), []

    def write(source: Any, folder: Path, replace: bool) -> Path:
        calls.append((source, folder, replace))
        folder.mkdir(exist_ok=replace)
        (folder / "MLmodel").write_text(f"model {len(calls)}")
        return folder

    module.write = write  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_a_folder_for_mlflow_is_written_and_replaced_only_with_force(
    give: Given, here: Path, packaged: list[Any]
) -> None:
    status, said, wrong = give(LAST, "--to", "pyfunc")
    assert (status, wrong) == (0, "")
    assert "wrote last-pyfunc: a model of MLflow (pyfunc)\n" in said
    assert 'mlflow.pyfunc.load_model("last-pyfunc")' in used(said)
    ((source, folder, replace),) = packaged
    assert (source.said, folder, replace) == (LAST, Path("last-pyfunc"), False)
    assert torch.equal(source.content["model"]["head.bias"], load_run(LAST)[0].state_dict()["head.bias"])
    assert give(LAST, "--to", "pyfunc")[0] == 2
    assert len(packaged) == 1
    assert give(LAST, "--to", "pyfunc", "--force")[0] == 0
    assert (here / "last-pyfunc" / "MLmodel").read_text() == "model 2"
    assert [path.name for path in here.iterdir()] == ["last-pyfunc"]


@pytest.mark.parametrize(("words", "alias"), [([], "champion"), (["--alias", "next"], "next")])
def test_a_model_is_registered(give: Given, words: list[str], alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, calls = ModuleType("tbptt.serving.registry"), []

    def register(source: Any, name: str, alias: str, tracking_uri: str) -> tuple[str, bool]:
        calls.append((source.run_id, name, alias, tracking_uri))
        return "3", len(calls) == 1

    module.register = register  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    status, said, wrong = give(RUN, "--to", "registry", "--name", "mine", *words, STORE)
    assert (status, wrong) == (0, "")
    assert calls == [(RUN, "mine", alias, STORE.removeprefix("tracking.uri="))]
    assert f"registered mine, version 3, which is models:/mine@{alias} now\n" in said
    assert f'tbptt.load_run("models:/mine@{alias}")' in used(said)
    _, said, _ = give(RUN, "--to", "registry", "--name", "mine", *words, STORE)
    assert f"it is version 3 of mine already, which is models:/mine@{alias} now; no other is made\n" in said


def test_the_script_helps_without_torch(here: Path) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['export.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'export.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("usage: python export.py")
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr

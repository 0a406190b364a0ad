"""An interrupted run that goes on is the run that was never stopped, bit for bit."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CONF, SMALL
from forked import command
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf

from tbptt.cli.command_line import checked
from tbptt.config.compose import CommandError
from tbptt.config.schema import register
from tbptt.runs import checkpoint
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.runs.journal import Outbox
from tbptt.runs.resume import resume_problems, resumed_config
from tbptt.system.runtime import Interrupted, StopSignals
from tbptt.system.stores import absolute_uri

URI = "sqlite:///mlruns/mlflow.db"
CURVES = ("train/loss", "val/loss", "train/eval_loss", "train/chunk_loss", "grad/norm", "schedule/chunks")
RUN = ["epochs=6", "eval_every=2", "schedule.chunks=[10,2,1]", "schedule.patience=1", "model.noise_std=0.1"]


class StopAfter(StopSignals):
    """A SIGINT that comes after so many chunks."""

    BEFORE = 3  # looks before the first chunk: before data, a checkpoint and the stores are read

    def __init__(self, chunks: int):
        super().__init__()
        self.left = chunks + self.BEFORE

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.signum = 2
        super().check()


def client() -> MlflowClient:
    return MlflowClient(absolute_uri(URI))


def curves(run_id: str) -> dict[str, list[tuple[int, float]]]:
    """All points of a run, by step; a step that is there twice would show."""
    found = {name: client().get_metric_history(run_id, name) for name in CURVES}
    return {name: sorted((p.step, p.value) for p in points) for name, points in found.items()}


def last(run_id: str, name: str = "last") -> dict:
    found = client().get_run(run_id).info.artifact_uri.removeprefix("file://")
    return checkpoint.load(Path(found) / "checkpoints" / f"{name}.ckpt")


def interrupted(cfg: DictConfig, chunks: int) -> str:
    """Train until a signal comes after so many chunks; the run's id."""
    ids: list[str] = []
    with pytest.raises(Interrupted):
        fit(cfg, RunContext(signals=StopAfter(chunks), on_start=ids.append))
    return ids[0]


@pytest.mark.parametrize(
    "optimizer",
    [
        *("adam", "momentum", "rmsprop", "adadelta", "muon", "adamw optimizer.decay_biases=false"),
        "adam lr_schedule=cosine lr_schedule.warmup=9",
        "sgd lr_schedule=plateau lr_schedule.patience=0 lr_schedule.threshold=0.9",
    ],
)
def test_a_resumed_run_equals_one_that_was_never_stopped(
    here: Path, small: Callable[..., DictConfig], optimizer: str
) -> None:
    cfg = small(*RUN, *f"optimizer={optimizer}".split())
    whole = fit(cfg).run_id
    updates = last(whole)["updates"]
    stops = random.Random(optimizer).sample(range(10, updates), 5)  # the first epoch has 10
    for stop in stops:
        run_id = interrupted(cfg, stop)
        info = client().get_run(run_id)
        assert (info.info.status, info.data.tags["stop.reason"]) == ("KILLED", "interrupted")
        result = fit(cfg, RunContext(resume=run_id))
        assert result.run_id == run_id
        assert curves(run_id) == curves(whole), f"stopped after {stop} chunks"
        a, b = last(whole), last(run_id)
        assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
        assert a["schedule"] == b["schedule"]
        assert a["best"] == b["best"]
        assert torch.equal(a["random"]["cpu"], b["random"]["cpu"])
        assert client().get_run(run_id).info.status == "FINISHED"


def test_a_run_stopped_in_its_first_epoch_is_begun_anew(here: Path, small: Callable[..., DictConfig]) -> None:
    cfg = small(*RUN)
    whole = fit(cfg).run_id
    stopped = interrupted(cfg, 4)
    again = fit(cfg, RunContext(resume=stopped)).run_id
    assert again != stopped
    assert curves(again) == curves(whole)
    assert client().get_run(stopped).info.status == "KILLED"


def test_a_run_stopped_again_and_again_is_still_the_same(here: Path, small: Callable[..., DictConfig]) -> None:
    cfg = small(*RUN)
    whole = fit(cfg).run_id
    run_id = interrupted(cfg, 12)
    for chunks in (3, 11, 5):
        with pytest.raises(Interrupted):
            fit(cfg, RunContext(resume=run_id, signals=StopAfter(chunks)))
    fit(cfg, RunContext(resume=run_id))
    assert curves(run_id) == curves(whole)


def test_a_crash_between_checkpoint_and_journal_loses_no_epoch(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small(*RUN)
    whole = fit(cfg).run_id
    ids: list[str] = []
    add = Outbox.add

    def crash(self: Outbox, epoch: object) -> None:
        if len(self.epochs) == 2:
            raise SystemError("power cut")
        add(self, epoch)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(Outbox, "add", crash)
        broken.setattr(Outbox, "close", lambda *args, **more: None)  # a killed process closes nothing
        with pytest.raises(SystemError):
            fit(cfg, RunContext(on_start=ids.append))
    fit(cfg, RunContext(resume=ids[0]))
    assert curves(ids[0]) == curves(whole)


@pytest.mark.parametrize("damage", ["cut", "empty", "altered"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    here: Path, small: Callable[..., DictConfig], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small(*RUN)
    whole = fit(cfg).run_id
    run_id = interrupted(cfg, 25)
    path = Path(client().get_run(run_id).info.artifact_uri.removeprefix("file://")) / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    if damage == "altered":
        state = torch.load(path, weights_only=True)
        state["model"]["head.bias"] += 1e-6
        torch.save(state, path)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    fit(cfg, RunContext(resume=run_id))
    assert "last.ckpt" in caplog.text
    assert "last.previous.ckpt" in caplog.text
    a, b = last(whole), last(run_id)
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_more_epochs_continue_a_run_that_had_ended(here: Path, small: Callable[..., DictConfig]) -> None:
    overrides = ["schedule=fixed", "schedule.chunks=[4]", "eval_every=1"]
    whole = fit(small(*overrides, "epochs=6")).run_id
    run_id = fit(small(*overrides, "epochs=4")).run_id
    fit(small(*overrides, "epochs=6"), RunContext(resume=run_id))
    assert curves(run_id) == curves(whole)


def test_only_what_may_change_is_taken_on_resume(here: Path, small: Callable[..., DictConfig]) -> None:
    run_id = interrupted(small(*RUN), 25)
    cfg = small(f"resume={run_id}", "epochs=9", "clip=3")
    assert resume_problems(small(f"resume={run_id}"), ["resume", "epochs", "tracking.update_points"], False) == []
    (line,) = resume_problems(cfg, ["resume", "clip"], False)
    assert line.startswith("clip: a resumed run keeps its own")
    resumed = resumed_config(cfg, ["resume", "epochs"])
    assert (resumed.epochs, resumed.clip, resumed.schedule.patience) == (9, 1.0, 1)


def changed(path: Path, **values: object) -> None:
    """A checkpoint with other content and a checksum that fits."""
    content = {**checkpoint.load(path), **values}
    checkpoint.save(
        path, {name: value for name, value in content.items() if value is not None or name == "stop_reason"}
    )


def in_config(path: Path, key: str, value: object) -> None:
    config = OmegaConf.create(checkpoint.load(path)["config"])
    OmegaConf.update(config, key, value)
    changed(path, config=OmegaConf.to_container(config))


def evil(path: Path) -> None:
    path.write_bytes(pickle.dumps(Path))


# What was done to both checkpoints of an interrupted run, and what the line says.
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:500]), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "text": (lambda path: path.write_text("weights"), "is damaged"),
    "pickle": (evil, "is damaged"),
    "another format": (lambda path: torch.save({"format": 2, "model": {}}, path), "not a checkpoint of tbptt"),
    "no format": (lambda path: torch.save({"model": {}}, path), "not a checkpoint of tbptt"),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), "not a checkpoint of tbptt"),
    "altered": (lambda path: torch.save({**torch.load(path), "epoch": 1}, path), "was altered"),
    "without weights": (lambda path: changed(path, model=None), "it lacks model"),
    "without optimizer and random": (
        lambda path: changed(path, optimizer=None, random=None),
        "lacks optimizer, random",
    ),
    "unknown optimizer": (lambda path: in_config(path, "optimizer.name", "adm"), "none of tbptt's"),
    "text for a number": (lambda path: in_config(path, "epochs", "many"), "none of tbptt's"),
    "impossible clip": (lambda path: in_config(path, "clip", -1.0), "clip: got -1.0; takes a number above 0"),
    "no config": (lambda path: changed(path, config=[]), "something else is in place of its config"),
    "a config of other things": (lambda path: changed(path, config={"model": 3}), "none of tbptt's"),
    "another layer": (lambda path: in_config(path, "model.hidden", [8, 8]), "its weights are not those of its model"),
    "a huge layer": (lambda path: in_config(path, "model.hidden", [10**7, 10**7]), "model: got"),
    "an optimizer of other weights": (
        lambda path: changed(path, optimizer={"state": {0: {"exp_avg": torch.zeros(3)}}}),
        "does not fit its model's 634 trained weights",
    ),
    "more than one vector": (
        lambda path: changed(path, optimizer={"state": {1: {"exp_avg": torch.zeros(634)}}}),
        "does not fit its model's 634 trained weights",
    ),
    "what an optimizer of tensors keeps": (
        lambda path: [
            in_config(path, "optimizer", {"name": "muon", "momentum": 0.95}),
            changed(path, optimizer={"state": {0: {"momentum_buffer": torch.zeros(634)}}}),
        ],
        "does not fit its model's 7 trained tensors",
    ),
    "more chunks than steps": (
        lambda path: changed(path, schedule={"stages": [10**6]}),
        "its schedule has 1000000 chunks",
    ),
    "another last epoch": (lambda path: changed(path, epoch=7), "its last epoch is not the one"),
    "another objective": (
        lambda path: changed(path, best={"objectives": ["train/loss"], "epoch": None, "values": []}),
        "its best epoch was told by train/loss",
    ),
    "other data": (lambda path: in_config(path, "data.seed", 9), "the data are not those that the run was begun with"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one interrupted run."""
    folder = tmp_path_factory.mktemp("stopped")
    register()
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base="1.3"):
        patch.chdir(folder)
        interrupted(compose("config", [*SMALL, *RUN]), 25)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_used_gets_one_line(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    act, says = DAMAGE[damage]
    monkeypatch.chdir(stopped)
    (run,) = (stopped / "mlruns" / "artifacts").iterdir()
    kept = run / "artifacts" / "checkpoints"
    shutil.copytree(kept, tmp_path / "kept")
    paths = [kept / "last.ckpt", kept / "last.previous.ckpt"]
    try:
        for path in paths:
            act(path)
        before = {path: path.read_bytes() for path in paths}
        with pytest.raises(CommandError) as caught:
            checked([f"resume={run.name}"], CONF)
        (line,) = caught.value.lines
        assert line.startswith("resume: ")
        assert says in line
        assert {path: path.read_bytes() for path in paths} == before
        info = client().get_run(run.name).info
        assert info.status == "KILLED"
    finally:
        shutil.rmtree(kept)
        shutil.copytree(tmp_path / "kept", kept)


def test_a_file_of_prices_that_is_gone_gets_one_line(here: Path, small: Callable[..., DictConfig]) -> None:
    rows = "\n".join(f"{100 + i % 7}" for i in range(300))
    Path("prices.csv").write_text(f"a\n{rows}\n")
    few = [word for word in SMALL if word.split("=")[0] not in ("data.n_series", "data.val_series", "data.length")]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*few, *RUN, "data=prices", "data.path=prices.csv", "schedule.chunks=[10,1]"])
    run_id = interrupted(cfg, 25)
    assert checked([f"resume={run_id}"], CONF)
    Path("prices.csv").write_text(f"a\n{rows}\n1\n")
    for says in ("the data are not those that the run was begun with", "prices.csv does not exist"):
        with pytest.raises(CommandError) as caught:
            checked([f"resume={run_id}"], CONF)
        (line,) = caught.value.lines
        assert says in line
        Path("prices.csv").unlink(missing_ok=True)


def test_what_cannot_be_resumed_is_said(here: Path, small: Callable[..., DictConfig]) -> None:
    def line(run_id: str) -> str:
        return resume_problems(small(f"resume={run_id}"), ["resume"], False)[0]

    assert "there is no store" in line("nope")
    ended = fit(small(*RUN, "schedule.patience=null")).run_id
    assert "that run has ended (epochs); epochs above 6 would let it go on" in line(ended)
    assert "takes the id of a run in" in line("nope")
    assert "it did not finish its first epoch" in line(interrupted(small(*RUN), 3))
    deleted = interrupted(small(*RUN), 25)
    client().delete_run(deleted)
    restore = f"MLFLOW_TRACKING_URI=sqlite:///{here}/mlruns/mlflow.db mlflow runs restore --run-id {deleted}"
    assert line(deleted).endswith(f"that run was deleted in MLflow; restore it first: {restore}")
    subprocess.run(f"{sys.executable} -m {restore.split(' ', 1)[1]}", shell=True, check=True, env=as_typed(restore))
    assert resume_problems(small(f"resume={deleted}"), ["resume"], False) == []


def as_typed(command: str) -> dict[str, str]:
    """The environment of a command that begins with a variable of it."""
    name, value = command.split(" ")[0].split("=", 1)
    return {**os.environ, name: value}


def test_of_two_commands_that_resume_a_run_at_once_one_does(here: Path, small: Callable[..., DictConfig]) -> None:
    """Claimed before the imports, during which both would have found it free."""
    run_id = interrupted(small("epochs=12"), 12)
    commands = [command(here, f"resume={run_id}", outputs=Path(tempfile.mkdtemp(dir=here))) for _ in range(2)]
    for each in commands:
        each.join()
    assert sorted(each.exitcode for each in commands) == [0, 2]
    (said,) = [text for path in here.glob("*/err") if "resume: got" in (text := path.read_text())]
    assert said == f"resume: got '{run_id}'; that run is being trained by another process\n"
    assert [step for step, _ in curves(run_id)["train/loss"]] == list(range(12))
    assert client().get_run(run_id).info.status == "FINISHED"

"""MLflow's registry: what is registered is found again by its name, and a hostile model is one line."""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONF, ROOT, SMALL
from forked import python
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from omegaconf import DictConfig
from test_outbox import free_port
from test_pyfunc import composed

import tbptt
from tbptt.cli.predict import main as predict
from tbptt.cli.servers import MLflow
from tbptt.data.borders import NEW
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit, train
from tbptt.runs.model import CHECKPOINT
from tbptt.serving.given import given
from tbptt.serving.packaged import write
from tbptt.serving.registry import register
from tbptt.serving.source import Source, find
from tbptt.serving.trained import trained


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one run, which is the trial of a study; the working directory."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit(composed(*SMALL), RunContext(tags={"study.name": "mine", "trial.number": "7"}))
        yield folder


@pytest.fixture
def uri(project: Path) -> str:
    return f"sqlite:///{project}/mlruns/mlflow.db"


@pytest.fixture
def run(uri: str) -> str:
    (found,) = MlflowClient(uri).search_runs(["1"])
    return str(found.info.run_id)


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items()) and set(one) == set(other)


def test_what_is_registered_is_found_by_alias_version_and_id(uri: str, run: str) -> None:
    source, client = find(run, uri), MlflowClient(uri)
    assert register(source, "first", "champion", uri) == ("1", True)
    version = client.get_model_version_by_alias("first", "champion")
    assert (str(version.version), version.run_id) == ("1", run)
    (model,) = client.search_logged_models(["1"])  # all are of the run's own
    assert version.source == f"models:/{model.model_id}"
    value = client.get_run(run).data.metrics["best/val/loss"]
    epoch = client.get_run(run).data.metrics["best/epoch"]
    said = f"val/loss {value:.4g} at its best epoch, {epoch:.0f}; run {run}; study mine, trial 7"
    assert version.description == said
    assert version.tags == {"study.name": "mine", "trial.number": "7"}
    network, scaler, config = tbptt.load_run(run, uri)
    for what in ("models:/first@champion", "models:/first/1", version.source):
        other, its_scaler, its_config = tbptt.load_run(what, uri)
        assert same(network.state_dict(), other.state_dict())
        assert torch.equal(scaler.target_mean, its_scaler.target_mean)
        assert its_config.model == config.model
        assert find(what, uri).run_id == run
    assert find("models:/first@champion", uri).why == f"version 1 of first, of run {run}"


def test_what_is_registered_already_gets_no_other_version(uri: str, run: str) -> None:
    source, client = find(run, uri), MlflowClient(uri)
    assert [register(source, "twice", alias, uri) for alias in ("old", None)] == [("1", True), ("1", False)]
    assert register(source, "twice", "champion", uri) == ("1", False)
    assert register(source, "another", None, uri) == ("1", True)
    assert [str(v.version) for v in client.search_model_versions("name = 'twice'")] == ["1"]
    assert str(client.get_model_version_by_alias("twice", "champion").version) == "1"
    client.delete_model_version("twice", "1")
    assert register(source, "twice", None, uri).is_new


def test_a_runs_last_line_predicts_with_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(composed(*SMALL, "progress=plain"))
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("use it: python predict.py ")
    pd.DataFrame({"close": 100 + np.random.default_rng(0).standard_normal(40).cumsum()}).to_csv("FILE", index=False)
    assert predict(shlex.split(said)[4:], CONF) == 0
    assert capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("what", ["some.ckpt", "models:/first/1"])
def test_of_one_epoch_none_is_chosen(project: Path, what: str) -> None:
    line = f"which: got 'last', and {what} is of one epoch; takes a run or a study to choose the epoch of"
    for call in (find, tbptt.load_run):
        with pytest.raises(ValueError, match=f"^{line}$"):
            call(what, which="last")


def test_the_process_keeps_its_own_tracking_uri(uri: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    before = mlflow.get_tracking_uri()
    register(find(run, uri), "kept", "a", uri)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"
    assert mlflow.get_tracking_uri() == before


def test_a_checkpoint_without_its_run_is_registered(uri: str, run: str, tmp_path: Path) -> None:
    file = tmp_path / "some.ckpt"
    shutil.copy(next(Path("mlruns/artifacts").glob("*/artifacts/checkpoints/best.ckpt")), file)
    assert [register(find(file), "alone", "champion", uri) for _ in range(2)] == [("1", True), ("1", False)]
    found = find("models:/alone@champion", uri)
    assert found.run_id is None
    assert same(found.content["model"], find(run, uri).content["model"])


def test_another_epoch_of_a_run_is_another_model(uri: str, run: str) -> None:
    best = find(run, uri)
    other = {name: value + 1 for name, value in best.content["model"].items()}
    register(replace(best, content={**best.content, "epoch": 0, "model": other}), "other", None, uri)
    assert same(find("models:/other/1", uri).content["model"], other)
    assert MlflowClient(uri).get_model_version("other", "1").description == f"epoch 1; run {run}; study mine, trial 7"
    names = [model.name for model in MlflowClient(uri).search_logged_models(["1"]) if model.source_run_id == run]
    assert sorted(names) == ["best-epoch-3", "epoch-1"]


def test_a_runs_last_epoch_leaves_the_values_of_its_best_as_they_are(here: Path) -> None:
    result = fit(composed(*SMALL, "optimizer.lr=1", "schedule.patience=null"))  # so that the last is not the best
    client, store = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db"), f"sqlite:///{here}/mlruns/mlflow.db"
    last = find(result.run_id, store, "last")
    assert last.content["epoch"] != result.best.epoch
    before = client.get_run(result.run_id).data.metrics
    register(last, "last", None, store)
    assert client.get_run(result.run_id).data.metrics == before


def test_a_model_keeps_what_says_which_rows_are_new(here: Path) -> None:
    prices = 100 + np.random.default_rng(0).standard_normal(300).cumsum()
    pd.DataFrame({"close": prices[:280]}).to_csv("prices.csv", index=False)
    pd.DataFrame({"close": prices}).to_csv("grown.csv", index=False)
    words = ["data=prices", "data.path=prices.csv", "data.time=none", "data.test_fraction=0.2", "data.warm_steps=10"]
    result = fit(composed(*(w for w in SMALL if not w.startswith("data.") or w.startswith("data.window")), *words))
    store = f"sqlite:///{here}/mlruns/mlflow.db"
    register(find(result.run_id, store), "mine", "champion", store)
    of_run, of_model = (
        given(trained(find(what, store)), "grown.csv") for what in (result.run_id, "models:/mine@champion")
    )
    assert of_model.notes == of_run.notes == ()
    assert np.array_equal(of_model.parts["close"], of_run.parts["close"])
    assert (of_model.parts["close"][280:] == NEW).all()
    assert np.array_equal(of_model.change_std, of_run.change_std)


@pytest.mark.parametrize(
    ("name", "alias", "line"),
    [
        ("a/b", None, r"name: got 'a/b'; takes a name without / and :"),
        ("a", "v1", r"alias: got 'v1'; takes letters, digits, _ and -, and neither v1 nor latest"),
        ("a", "the best", r"alias: got 'the best'; takes letters"),
    ],
)
def test_a_wrong_name_is_one_line_and_registers_nothing(
    uri: str, run: str, name: str, alias: str | None, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{line}"):
        register(find(run, uri), name, alias, uri)
    assert name not in [each.name for each in MlflowClient(uri).search_registered_models()]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("models:/nothing@champion", "Registered Model .*not found"),
        ("models:/nothing/1", "not found"),
        (f"models:/m-{'0' * 32}", "not found"),
        ("models:/nothing", "takes models:/NAME@ALIAS, models:/NAME/VERSION or models:/ID"),
        ("models:/../x/1", "takes models:/NAME@ALIAS"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(uri: str, what: str, line: str) -> None:
    with pytest.raises(ValueError, match=line) as caught:
        find(what, uri)
    assert str(caught.value).startswith(what)
    assert "\n" not in str(caught.value)


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^models:/a/1: there is no store .*none.db$"):
        find("models:/a/1", f"sqlite:///{tmp_path}/none.db")
    assert not list(tmp_path.iterdir())


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was_run"),))


def hostile(uri: str, files: dict[str, bytes]) -> str:
    """A registered model with these files."""
    client = MlflowClient(uri)
    model = client.create_logged_model("1", "evil")
    folder = Path("mlruns/artifacts/models") / model.model_id / "artifacts"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def test_a_hostile_model_is_one_line_and_none_of_its_code_runs(uri: str, run: str, tmp_path: Path) -> None:
    file = tmp_path / "evil"
    torch.save({"format": 1, "model": Evil()}, file)
    good = (write(find(run, uri), tmp_path / "good") / CHECKPOINT).read_bytes()
    marker = b"import pathlib; pathlib.Path('was_run').touch()"
    another = b"flavors: {python_function: {loader_module: evil, code: code, data: data}}"
    of_others = {"MLmodel": another, "code/evil.py": marker}
    cases = {
        "is no model of tbptt: it has no data/tbptt/model.ckpt": of_others,
        "is not a checkpoint of tbptt: it would have .* called": {CHECKPOINT: file.read_bytes()},
        "is not a checkpoint of tbptt, or is damaged": {CHECKPOINT: good[:-100]},
        "is not a checkpoint of tbptt, or is damaged ": {CHECKPOINT: b"\x80\x04." * 100},
    }
    for line, files in cases.items():
        what = hostile(uri, files)
        with pytest.raises(ValueError, match=line) as caught:
            find(what, uri)
        assert "\n" not in str(caught.value)
    own = {CHECKPOINT: good, "data/tbptt/own/evil.py": marker, **of_others}
    assert same(find(hostile(uri, own), uri).content["model"], find(run, uri).content["model"])
    assert not Path("was_run").exists()


def test_a_model_that_is_too_large_is_one_line(uri: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = register(find(run, uri), "large", None, uri).version
    monkeypatch.setattr("tbptt.system.memory.free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=rf"^models:/large/{version}: .*is too large: it needs about"):
        find(f"models:/large/{version}", uri)


def test_a_folder_of_its_own_is_written_whole_and_once(uri: str, run: str, tmp_path: Path) -> None:
    source, folder = find(run, uri), tmp_path / "deep" / "model"
    assert write(source, folder) == folder
    model = mlflow.pyfunc.load_model(str(folder))
    assert len(model.predict(model.input_example)) == 8 + 3
    assert same(find(folder / CHECKPOINT).content["model"], source.content["model"])
    with pytest.raises(ValueError, match=r"deep/model exists already; takes the name of a new folder$"):
        write(source, folder)
    (folder / "of_before").touch()
    write(source, folder, replace=True)
    assert (folder / CHECKPOINT).exists()
    assert not (folder / "of_before").exists()
    broken = Source({**source.content, "config": {"model": "x"}}, "x")
    with pytest.raises(ValueError, match="none of tbptt's"):
        write(broken, tmp_path / "deep" / "other")
    with pytest.raises(ValueError, match="none of tbptt's"):
        write(broken, folder, replace=True)
    assert (folder / CHECKPOINT).exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.slow  # a server starts; .ci/run runs it
def test_a_server_has_models_too(here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    server = MLflow(here / "server", f"sqlite:///{here}/server.db", {}, free_port())
    server.start()
    try:
        result = fit(small(f"tracking.uri={server.uri}"))
        client = MlflowClient(server.uri)
        (output,) = client.get_run(result.run_id).outputs.model_outputs
        assert client.get_logged_model(output.model_id).status == LoggedModelStatus.READY
        version = register(find(result.run_id, server.uri), "served", "champion", server.uri).version
        assert client.get_model_version("served", version).source == f"models:/{output.model_id}"
        network, _, _ = tbptt.load_run(result.run_id, server.uri)
        other, _, _ = tbptt.load_run("models:/served@champion", server.uri)
        assert same(network.state_dict(), other.state_dict())
        model = client.create_logged_model("1", "evil")
        (here / "evil").write_text("x")
        client.log_model_artifact(model.model_id, str(here / "evil"))
        with pytest.raises(ValueError, match=r"is no model of tbptt: it has no data/tbptt/model\.ckpt"):
            find(f"models:/{model.model_id}", server.uri)
        monkeypatch.setattr("tbptt.system.memory.free_memory", lambda: 1000)
        monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda *a, **k: pytest.fail("it was fetched"))
        with pytest.raises(ValueError, match="is too large: it needs about"):
            find("models:/served@champion", server.uri)
    finally:
        server.stop()
    with pytest.raises(ValueError, match=r"^models:/served@champion in http") as caught:
        find("models:/served@champion", server.uri)
    assert "\n" not in str(caught.value)


def test_the_studys_run_shows_the_best_trials_model(here: Path) -> None:
    train = str(ROOT / "train.py")
    done = python(train, "-m", *SMALL, "optimizer.lr=0.001,0.01", "study.name=two", cwd=here, path=str(ROOT / "src"))
    assert done.returncode == 0, done.stderr
    assert "use it:" not in done.stdout  # with progress=none
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    runs = client.search_runs(["1"])
    (parent,) = [r for r in runs if "best.trial" in r.data.tags]
    (best,) = [r for r in runs if r.data.tags.get("trial.number") == parent.data.tags["best.trial"]]
    of_best = [o.model_id for o in best.outputs.model_outputs]
    assert [o.model_id for o in parent.outputs.model_outputs] == of_best
    assert parent.data.tags["best.model"] == f"models:/{of_best[0]}"
    frame = pd.read_csv(here / "sweeps" / "two" / "trials.csv")
    assert len(frame) == 2

"""A project that was copied or moved has its own files: nothing goes to, or comes from, where it was before."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import chdir, closing
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT
from mlflow import MlflowClient
from omegaconf import DictConfig
from test_resume import interrupted

from tbptt import load_run
from tbptt.cli.main import run
from tbptt.config.schema import TrackingConfig
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.runs.resume import resume_problems, resumed_config
from tbptt.runs.tracking import Store
from tbptt.system.stores import absolute_uri

Config = Callable[..., DictConfig]
URI = "sqlite:///mlruns/mlflow.db"


class Begun(NamedTuple):
    """A project with a run that was stopped in its second epoch."""

    folder: Path
    run_id: str

    def files(self) -> dict[str, bytes]:
        """All that it holds but the lock, by path; a file that was touched would show."""
        found = (p for p in self.folder.rglob("*") if p.is_file() and p.name != ".lock")
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in found}


@pytest.fixture
def begun(here: Path, small: Config) -> Begun:
    (here / "a").mkdir()
    with chdir(here / "a"):
        return Begun(here / "a", interrupted(small("epochs=3"), 12))


def files_of(run_id: str) -> Path:
    """Where MLflow's own client has a run's files."""
    uri = MlflowClient(absolute_uri(URI)).get_run(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://"))


def resumed(small: Config, run_id: str) -> None:
    cfg = small("epochs=3", f"resume={run_id}")
    assert resume_problems(cfg, ["resume"], False) == []
    fit(resumed_config(cfg, ["resume"]), RunContext(resume=run_id))


def test_a_run_resumed_in_a_copy_leaves_the_first_project_as_it_was(begun: Begun, small: Config) -> None:
    before = begun.files()
    copy = begun.folder.with_name("b")
    shutil.copytree(begun.folder, copy)
    with chdir(copy):
        resumed(small, begun.run_id)
        assert files_of(begun.run_id) == copy / "mlruns" / "artifacts" / begun.run_id / "artifacts"
        assert torch.load(files_of(begun.run_id) / "checkpoints" / "last.ckpt")["epoch"] == 2
    assert begun.files() == before
    with chdir(begun.folder):  # which goes on by itself
        assert files_of(begun.run_id).is_relative_to(begun.folder)
        resumed(small, begun.run_id)


def test_a_new_run_in_a_copy_has_its_files_there(begun: Begun, small: Config) -> None:
    with chdir(begun.folder):
        other = fit(small("epochs=1", "tracking.experiment=other")).run_id
    before = begun.files()
    copy = begun.folder.with_name("b")
    shutil.copytree(begun.folder, copy)
    with chdir(copy):
        new = fit(small("epochs=1")).run_id
        assert files_of(new) == copy / "mlruns" / "artifacts" / new / "artifacts"
        listed = MlflowClient(absolute_uri(URI)).list_artifacts(new)
        assert {f.path for f in listed} == {
            "checkpoints",
            "config.yaml",
            "evaluation.json",
            "evaluation.npz",
            "updates.parquet",
        }
        assert files_of(other).is_relative_to(copy)  # of an experiment that was moved along
    assert begun.files() == before


def test_a_moved_project_goes_on_and_does_not_make_the_old_folder_anew(begun: Begun, small: Config) -> None:
    moved = begun.folder.rename(begun.folder.with_name("b"))
    with chdir(moved):
        network, _, _ = load_run(begun.run_id)
        assert not network.training
        resumed(small, begun.run_id)
        assert files_of(begun.run_id).is_relative_to(moved)
        assert Store(TrackingConfig(uri=URI)).artifact(begun.run_id, "config.yaml") is not None
    assert not begun.folder.exists()


def test_a_project_with_two_names_is_not_taken_for_a_copy(begun: Begun, small: Config) -> None:
    link = begun.folder.with_name("link")
    link.symlink_to(begun.folder)
    with chdir(link):
        before = files_of(begun.run_id)
        fit(small("epochs=1", f"tracking.uri=sqlite:///{link}/mlruns/mlflow.db"))
        assert files_of(begun.run_id) == before


def test_files_that_are_not_there_are_told_with_the_place(begun: Begun, small: Config) -> None:
    with chdir(begun.folder):
        expected = begun.folder / "mlruns" / "artifacts" / begun.run_id / "artifacts"
        shutil.rmtree(expected)
        (line,) = resume_problems(small(f"resume={begun.run_id}"), ["resume"], False)
        assert line.startswith(f"resume: got '{begun.run_id}'; its files are not in {expected}, where they were")
        with pytest.raises(ValueError, match="expected at") as error:
            load_run(begun.run_id)
        assert str(expected / "checkpoints" / "best.ckpt") in str(error.value)
        assert not expected.exists()


def test_a_run_without_an_epoch_is_still_told_as_such(here: Path, small: Config) -> None:
    run_id = interrupted(small("epochs=3"), 2)
    (line,) = resume_problems(small(f"resume={run_id}"), ["resume"], False)
    assert "it did not finish its first epoch" in line


def test_the_environment_of_another_project_is_not_taken(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "conf").mkdir()
    (here / "src" / "tbptt").mkdir(parents=True)
    assert run(lambda: pytest.fail("it trained"), here / "conf") == 2
    said = capsys.readouterr().err
    assert said == (
        f"the active environment would run the code in {ROOT}/src/tbptt, and not that of {here}; make train makes one "
        "for it\n"
    )


def test_an_experiment_with_its_files_elsewhere_on_a_disk_gets_them_beside_the_database(
    here: Path, small: Config
) -> None:
    client = MlflowClient(absolute_uri(URI))
    client.create_experiment("tbptt", artifact_location=(here / "elsewhere").as_uri())
    run_id = fit(small("epochs=1")).run_id
    assert files_of(run_id) == here / "mlruns" / "artifacts" / run_id / "artifacts"
    assert not (here / "elsewhere").exists()


def test_a_run_begun_where_somebody_chose_its_files_to_be_goes_on_there(begun: Begun, small: Config) -> None:
    with chdir(begun.folder):
        chosen = begun.folder.with_name("big-disk")
        beside = begun.folder / "mlruns" / "artifacts"
        beside.rename(chosen)
        with closing(sqlite3.connect("mlruns/mlflow.db")) as database, database:
            uri = f"{chosen.as_uri()}/{begun.run_id}/artifacts"
            database.execute("UPDATE runs SET artifact_uri = ?", (uri,))
            database.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'tbptt'", (chosen.as_uri(),))
        assert load_run(begun.run_id)
        resumed(small, begun.run_id)
        assert torch.load(chosen / begun.run_id / "artifacts" / "checkpoints" / "last.ckpt")["epoch"] == 2
        assert not (beside / begun.run_id).exists()


def test_a_copied_database_alone_does_not_write_into_the_first_project(begun: Begun, small: Config) -> None:
    before = begun.files()
    (begun.folder.with_name("b") / "mlruns").mkdir(parents=True)
    shutil.copy(begun.folder / "mlruns" / "mlflow.db", begun.folder.with_name("b") / "mlruns")
    with chdir(begun.folder.with_name("b")):
        (line,) = resume_problems(small(f"resume={begun.run_id}"), ["resume"], False)
        assert f"its files are not in {begun.folder.with_name('b')}/mlruns/artifacts/{begun.run_id}" in line
    assert begun.files() == before


def test_an_experiment_whose_files_are_in_a_store_of_objects_keeps_them_there(here: Path, small: Config) -> None:
    MlflowClient(absolute_uri(URI)).create_experiment("tbptt", artifact_location="s3://bucket/files")
    store = Store(TrackingConfig(uri=URI))
    run = store.start_run("one", {})
    assert not run.is_local
    with closing(sqlite3.connect(here / "mlruns" / "mlflow.db")) as database:
        said = database.execute("SELECT artifact_uri FROM runs").fetchone()
    assert said == (f"s3://bucket/files/{run.id}/artifacts",)

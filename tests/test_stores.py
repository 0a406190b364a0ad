"""Stores: any path works as it stands, several processes may begin at once, and a check leaves nothing behind."""

import fcntl
import io
import shlex
import sqlite3
from contextlib import chdir, closing, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy
import torch
from conftest import CONF, SMALL
from forked import CONTEXT
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Run

from tbptt import load_run
from tbptt.config import TrackingConfig, register
from tbptt.main import job
from tbptt.stores import absolute_uri, locked, sqlite_path, uri_problem
from tbptt.study import Study
from tbptt.tracking import Store

ODD_NAMES = ["with space's", "ünïcode-価格", "why?", "a#b 100%41;&="]


class Kept(NamedTuple):
    """A store under a folder with an odd name, with one run of ``python train.py``'s in it."""

    root: Path
    name: str
    printed: str

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root}/{self.name}/{self.name}.db"

    def run(self) -> Run:
        client = MlflowClient(absolute_uri(self.uri))
        (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
        return run


@pytest.fixture(scope="module", params=["with space ünïcode-価格", "why? a#b 100%41;&="])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    root, out = tmp_path_factory.mktemp("odd"), io.StringIO()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*SMALL, "epochs=1", "progress=plain"])
    cfg.tracking.uri = f"sqlite:///{request.param}/{request.param}.db"
    with chdir(root), redirect_stdout(out):
        job(cfg)
    return Kept(root, request.param, out.getvalue())


def test_run_in_a_store_with_an_odd_path_is_read_back(kept: Kept) -> None:
    assert (kept.root / kept.name / f"{kept.name}.db").is_file()  # not cut short, not quoted
    run = kept.run()
    assert run.info.status == "FINISHED"
    assert run.data.params["tracking.uri"] == f"sqlite:///{kept.name}/{kept.name}.db"
    listed = MlflowClient(absolute_uri(kept.uri)).list_artifacts(run.info.run_id)
    assert {f.path for f in listed} == {"checkpoints", "config.yaml", "updates.parquet"}


def test_run_in_a_store_with_an_odd_path_is_loaded(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = kept.run().info.run_id
    model, _, _ = load_run(run_id, kept.uri)
    assert model.hidden == [8]
    monkeypatch.chdir(kept.root)
    again, _, _ = load_run(run_id, f"sqlite:///{kept.name}/{kept.name}.db")
    assert torch.equal(again.head.weight, model.head.weight)


def test_store_with_an_odd_path_leaves_no_folder_beside_it(kept: Kept) -> None:
    assert [p.name for p in kept.root.iterdir()] == [kept.name]


def test_printed_command_to_compare_runs_opens_the_store(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = [line for line in kept.printed.splitlines() if "mlflow ui" in line]
    words = shlex.split(line.partition("mlflow ui")[2])
    uri = words[words.index("--backend-store-uri") + 1]
    monkeypatch.chdir(kept.root)
    path = Path(sqlalchemy.make_url(uri).database or "").absolute()  # as MLflow reads it
    assert path == kept.root / kept.name / f"{kept.name}.db"


def _open_and_start(uri: str, storage: str, start: str, ids: str, number: int) -> None:
    while not Path(start).exists():  # so that all begin at once
        pass
    trial = Study("shared", storage, ["val/loss"]).optuna.ask()
    trial.set_user_attr("number", number)
    run = Store(TrackingConfig(uri=uri)).start_run(f"run {number}", {})
    run.log_points([("loss", float(number), 0)], 0)
    run.finish("FINISHED")
    (Path(ids) / run.id).touch()


@pytest.mark.parametrize("time", [0, *(pytest.param(time, marks=pytest.mark.slow) for time in range(1, 20))])
def test_six_processes_open_fresh_stores_at_once(here: Path, time: int) -> None:
    ids = here / "ids"
    ids.mkdir()
    start = here / "start"
    uri, storage = f"sqlite:///{here}/fresh/mlflow.db", f"sqlite:///{here}/fresh/optuna.db"
    arguments = [(uri, storage, str(start), str(ids), i) for i in range(6)]
    workers = [CONTEXT.Process(target=_open_and_start, args=a) for a in arguments]
    for worker in workers:
        worker.start()
    start.touch()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "tbptt"]  # one, not one a process
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in runs} == {path.name for path in ids.iterdir()}
    assert sorted(run.data.metrics["loss"] for run in runs) == [0, 1, 2, 3, 4, 5]
    trials = Study("shared", storage, ["val/loss"]).trials()
    assert sorted(t.user_attrs["number"] for t in trials) == [0, 1, 2, 3, 4, 5]


def test_sqlite_path_is_absolute_and_taken_as_it_stands(here: Path) -> None:
    assert sqlite_path("sqlite:///a?b#c%20/d.db") == here / "a?b#c%20" / "d.db"
    assert sqlite_path("sqlite:////tmp/x.db") == Path("/tmp/x.db")
    assert sqlite_path("http://host") is None


@pytest.mark.parametrize("uri", ["http://host:5000", "https://host/mlflow", "postgresql+psycopg://me@host/db"])
def test_uri_of_a_server_is_left_as_it_is(uri: str) -> None:
    assert absolute_uri(uri) == uri
    assert uri_problem(uri) is None


def test_the_driver_of_postgresql_is_the_one_that_is_installed() -> None:
    assert absolute_uri("postgresql://me@host/db") == "postgresql+psycopg://me@host/db"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_absolute_uri_stays_itself_wherever_it_is_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    uri = absolute_uri(f"sqlite:///{name}.db")
    monkeypatch.chdir(tmp_path / "other")
    assert sqlalchemy.make_url(uri).database == str(tmp_path / f"{name}.db")


def test_check_of_a_place_leaves_nothing_there(here: Path) -> None:
    assert uri_problem("sqlite:///new/folder/x.db") is None
    assert list(here.iterdir()) == []


def test_existing_databases_and_empty_files_may_be_used(here: Path) -> None:
    with closing(sqlite3.connect("real.db")) as database:
        database.execute("create table t (x)")
        database.commit()
    Path("empty.db").touch()
    assert uri_problem("sqlite:///real.db") is None
    assert uri_problem("sqlite:///empty.db") is None


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("sqlite:///text.db", "no SQLite database"),
        ("sqlite:///.", "a directory"),
        ("sqlite:///text.db/inside.db", "text.db"),
        ("sqlite:////proc/x/y.db", "cannot be written"),
        ("sqlite://x.db", "sqlite:///PATH"),
        ("sqlte:///x.db", "did you mean sqlite?"),
        ("./mlruns", "sqlite:///PATH"),
        ("file:./mlruns", "sqlite:///PATH"),
    ],
)
def test_place_that_cannot_be_used_is_told(uri: str, says: str, here: Path) -> None:
    Path("text.db").write_text("some notes")
    problem = uri_problem(uri)
    assert problem is not None
    assert says in problem


def test_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"

    def free() -> bool:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with locked(path):
        assert not free()
    assert free()
    with pytest.raises(KeyError), locked(path):
        raise KeyError
    assert free()

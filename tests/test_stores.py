"""Stores: any path works as it stands, several processes may begin at once, and a check leaves nothing behind."""

import fcntl
import io
import shlex
import sqlite3
from contextlib import chdir, closing, redirect_stdout
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
import sqlalchemy
import torch
from conftest import CONF, SMALL
from forked import CONTEXT
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Run
from test_command_line import refused

from tbptt import load_run
from tbptt.cli.main import job
from tbptt.config.schema import TrackingConfig, register
from tbptt.runs.tracking import Store
from tbptt.studies.study import Study
from tbptt.system.stores import OF_MLFLOW, OF_OPTUNA, absolute_uri, locked, sqlite_path, uri_problem

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
    assert {f.path for f in listed} == {
        "checkpoints",
        "config.yaml",
        "evaluation.json",
        "evaluation.npz",
        "updates.parquet",
    }


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


def database(path: str | Path, *tables: str, wal: bool = False) -> None:
    with closing(sqlite3.connect(path)) as made:
        if wal:
            made.execute("pragma journal_mode = wal")
        for table in tables:
            made.execute(f"create table {table} (x)")
        made.commit()


def test_a_new_an_empty_and_a_known_database_may_be_used(here: Path) -> None:
    Path("empty.db").touch()
    database("no_tables.db")
    database("mlflow.db", *OF_MLFLOW, "metrics")
    database("optuna.db", *OF_OPTUNA, "trial_params")
    for name in ("new.db", "empty.db", "no_tables.db", "mlflow.db"):
        assert uri_problem(f"sqlite:///{name}") is None
    for name in ("new.db", "empty.db", "no_tables.db", "optuna.db"):
        assert uri_problem(f"sqlite:///{name}", OF_OPTUNA) is None


@pytest.mark.parametrize("name", ["mails.db", *ODD_NAMES])
@pytest.mark.parametrize("wal", [False, True])
def test_a_database_of_something_else_is_refused_and_left_as_it_is(here: Path, name: str, wal: bool) -> None:
    database(name, "people", "letters", wal=wal)
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    for tables, whose in ((OF_MLFLOW, "MLflow's"), (OF_OPTUNA, "Optuna's")):
        problem = uri_problem(f"sqlite:///{name}", tables)
        assert problem is not None
        assert problem.startswith(f"got {here}/{name}, a database of something else (tables letters, people)")
        assert f"takes one of {whose}" in problem
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_each_of_the_two_stores_is_refused_as_the_other(here: Path) -> None:
    database("mlflow.db", *OF_MLFLOW)
    database("optuna.db", *OF_OPTUNA)
    assert uri_problem("sqlite:///mlflow.db", OF_OPTUNA) is not None
    assert uri_problem("sqlite:///optuna.db", OF_MLFLOW) is not None


def test_a_database_that_is_locked_or_cannot_be_read_is_not_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database("busy.db", "people")
    with closing(sqlite3.connect("busy.db")) as other:
        other.execute("begin exclusive")
        assert uri_problem("sqlite:///busy.db") is None
    assert uri_problem("sqlite:///busy.db") is not None

    def unreadable(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("sqlite3.connect", unreadable)
    assert uri_problem("sqlite:///busy.db") is None


def test_a_store_whose_tables_are_just_being_made_is_waited_for(here: Path) -> None:
    database("new.db", "metrics")  # the first of MLflow's, by a process that holds the lock
    asked = Thread(target=lambda: found.append(uri_problem("sqlite:///new.db")))
    found: list[str | None] = []
    with locked(here / ".lock"):
        asked.start()
        asked.join(0.1)
        assert found == []
        database("new.db", *OF_MLFLOW)
    asked.join()
    assert found == [None]


def test_a_foreign_database_is_refused_wherever_it_is_named(here: Path) -> None:
    database("mails.db", "people")
    before = Path("mails.db").read_bytes()
    words = ["tracking.uri=sqlite:///mails.db", "study.storage=sqlite:///mails.db"]
    for word in words:
        (line,) = refused([word])
        assert line.startswith(f"{word.split('=')[0]}: got {here}/mails.db, a database of something else")
    Path("sent.yaml").write_text(f"defaults: [config, _self_]\ntracking: {{uri: '{words[0].split('=')[1]}'}}\n")
    (line,) = refused(["--config-dir", ".", "--config-name", "sent"])
    assert line.startswith("tracking.uri: got ")
    with pytest.raises(ValueError, match="a database of something else"):
        load_run("0" * 32, "sqlite:///mails.db")
    assert Path("mails.db").read_bytes() == before
    assert sorted(path.name for path in here.iterdir()) == ["mails.db", "sent.yaml"]


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

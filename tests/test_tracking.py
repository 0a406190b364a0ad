"""What goes to MLflow, and how: batches within its limits, true statuses, what code ran."""

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import CONF
from hydra.core.override_parser.overrides_parser import OverridesParser
from mlflow.exceptions import MlflowException

from tbptt.cli.main import run
from tbptt.config.compose import CommandError
from tbptt.config.schema import TrackingConfig
from tbptt.options.values import shortened
from tbptt.runs import versions
from tbptt.runs.store_errors import how_to_restore, is_locked, is_outage, said_shortly
from tbptt.runs.tracking import Run, Store, as_text
from tbptt.runs.versions import code_tags
from tbptt.system import folders


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"))


def points(run: Run, name: str) -> dict[int, float]:
    history = run.store.client.get_metric_history(run.id, name)
    assert len({m.step for m in history}) == len(history)  # one point a step
    return {m.step: m.value for m in history}


def test_points_and_params_beyond_one_call_all_arrive(store: Store) -> None:
    run = store.start_run("many", {})
    run.log_points([("loss", step / 8, step) for step in range(2500)], 1_700_000_000_000)
    run.log_params({f"p{i}": i for i in range(250)})
    assert points(run, "loss") == {step: step / 8 for step in range(2500)}
    assert store.client.get_run(run.id).data.params == {f"p{i}": str(i) for i in range(250)}


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED"])
def test_closed_run_has_its_status_and_reason(store: Store, status: str) -> None:
    run = store.start_run("one", {"study.name": "s"})
    assert store.client.get_run(run.id).info.status == "RUNNING"
    run.finish(status, "why")
    found = store.client.get_run(run.id)
    assert found.info.status == status
    assert found.info.end_time is not None
    assert found.data.tags["stop.reason"] == "why"
    assert found.data.tags["study.name"] == "s"


def test_child_points_to_its_parent(store: Store) -> None:
    parent = store.start_run("parent", {})
    child = store.start_run("child", {}, parent=parent.id)
    assert store.client.get_run(child.id).data.tags["mlflow.parentRunId"] == parent.id
    assert "mlflow.parentRunId" not in store.client.get_run(parent.id).data.tags
    assert store.client.get_run(child.id).info.run_name == "child"


def test_second_store_finds_the_first_ones_experiment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.folder)
    again = Store(TrackingConfig(uri="sqlite:///mlflow.db"))
    other = Store(TrackingConfig(uri="sqlite:///mlflow.db", experiment="other"))
    assert again.experiment == store.experiment
    assert other.experiment != store.experiment


def test_artifacts_are_under_the_stores_folder_wherever_work_goes_on(store: Store, here: Path) -> None:
    run = store.start_run("artifacts", {})
    assert run.folder.is_relative_to(store.folder)
    (run.folder / "note.txt").write_text("x")
    assert [f.path for f in store.client.list_artifacts(run.id)] == ["note.txt"]
    run.finish("FINISHED")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("value", [None, True, 3, 0.1, 1e-7, 1e30, "adam", [100, 50, 1], ["a", "b"], []])
def test_param_can_be_typed_back(value: object) -> None:
    assert OverridesParser.create().parse_override(f"key={as_text(value)}").value() == value


def test_tags_say_which_code_ran() -> None:
    tags = code_tags()
    for package in ("torch", "pytorch-lightning", "mlflow", "numpy", "tbptt"):
        assert tags[f"versions.{package}"] == version(package)
    here = ["git", "-C", str(Path(__file__).parent)]
    found = subprocess.run([*here, "rev-parse", "HEAD"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    assert tags["git.sha"] == found.stdout.strip()
    changed = subprocess.run([*here, "diff", "--quiet", "HEAD"], capture_output=True).returncode != 0
    assert tags["git.dirty"] == str(changed).lower()


def test_tags_say_which_files_of_ones_own_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for contents in ({}, {"tbptt.own.a": b"1"}, {"tbptt.own.a": b"2"}, {"tbptt.own.b": b"1"}):
        monkeypatch.setattr("tbptt.options.own._contents", contents)
        found.append(code_tags().get("own.sha256"))
    assert found[0] is None
    assert all(len(each or "") == 64 for each in found[1:])
    assert len(set(found)) == 4


def test_code_outside_a_checkout_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no git at all
    versions._code_tags.cache_clear()
    assert "git.sha" not in code_tags()
    versions._code_tags.cache_clear()


def test_a_repository_around_an_installed_package_is_not_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "checkout", lambda: None)
    versions._code_tags.cache_clear()
    tags = code_tags()
    versions._code_tags.cache_clear()
    assert tags["versions.tbptt"]
    assert not {name for name in tags if name.startswith("git.")}


def test_mlflow_keeps_its_chatter_to_itself() -> None:
    assert not logging.getLogger("alembic").isEnabledFor(logging.INFO)
    assert not logging.getLogger("mlflow").isEnabledFor(logging.INFO)


def test_a_deleted_experiment_is_told_with_what_restores_it(here: Path) -> None:
    uri = f"sqlite:///{here}/deleted.db"
    store = Store(TrackingConfig(uri=uri))
    store.client.delete_experiment(store.experiment)
    with pytest.raises(CommandError) as error:
        Store(TrackingConfig(uri=uri))
    (line,) = error.value.lines
    assert line.startswith("tracking.experiment: got 'tbptt', which was deleted; takes another name, or restore it")
    command = line.rpartition("restore it first: ")[2]
    subprocess.run(command.replace("mlflow", f"{sys.executable} -m mlflow", 1), shell=True, check=True)
    assert Store(TrackingConfig(uri=uri)).experiment == store.experiment


def test_looking_at_a_store_makes_no_experiment(here: Path) -> None:
    uri = f"sqlite:///{here}/new.db"
    store = Store(TrackingConfig(uri=uri))
    assert store.run("0" * 32) is None
    assert [e.name for e in store.client.search_experiments()] == ["Default"]


@pytest.mark.parametrize("version", ["0123456789ab", "1bd49d398cd2"])  # of a newer MLflow, of an older one
def test_a_store_of_another_schema_is_told_with_mlflows_reason_and_its_cure(here: Path, version: str) -> None:
    Store(TrackingConfig(uri="sqlite:///first.db"))
    Path("first.db").rename("other.db")  # MLflow looks at a store once a process, by its name
    with closing(sqlite3.connect("other.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    with pytest.raises(CommandError) as error:
        Store(TrackingConfig(uri="sqlite:///other.db"))
    (line,) = error.value.lines
    for part in ("got sqlite:///other.db", version, "backup", f"mlflow db upgrade sqlite:///{here}/other.db", "newer"):
        assert part in line


def test_a_store_that_is_broken_is_told_with_the_reason(here: Path) -> None:
    Store(TrackingConfig(uri="sqlite:///first.db"))
    Path("first.db").rename("broken.db")
    with closing(sqlite3.connect("broken.db")) as database, database:
        database.execute("DROP TABLE experiments")
    with pytest.raises(ConnectionError, match=r"tracking.uri: sqlite:///broken.db cannot be used: .*experiments"):
        Store(TrackingConfig(uri="sqlite:///broken.db"))


def test_a_resume_from_a_store_that_is_no_store_is_a_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("damaged.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    for uri, says in (("sqlite:///damaged.db", "cannot be used"), ("http://127.0.0.1:1", "does not answer")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train.py", f"resume={'0' * 32}", f"tracking.uri={uri}"])
            assert run(lambda: pytest.fail("it went on"), CONF) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ConnectionError: tracking.uri: {uri} {says}")
        assert "SELECT" not in line
    assert {path.name for path in here.iterdir()} <= {"damaged.db", ".lock"}


# --- names that are too long, a file that is locked, runs that were deleted -------------------------------------------


def test_names_params_and_tags_beyond_mlflows_limits_are_shortened(store: Store) -> None:
    run = store.start_run("clip=1, " * 100, {"note": "x" * 9000})
    run.log_params({"space": "a" * 7000})
    run.set_tags({"more": "y" * 9000})
    found = store.client.get_run(run.id)
    assert found.info.run_name == ("clip=1, " * 100)[:249] + "…"
    assert found.data.params["space"] == "a" * 5999 + "…"
    assert {name: len(found.data.tags[name]) for name in ("note", "more")} == {"note": 8000, "more": 8000}
    assert shortened("x" * 250, 250) == "x" * 250


def locked_error(path: Path) -> MlflowException:
    """MLflow's, of a file that another process has locked."""
    with closing(sqlite3.connect(path)) as other, closing(sqlite3.connect(path, timeout=0)) as one:
        other.execute("begin exclusive")
        try:
            one.execute("begin immediate")
        except sqlite3.OperationalError as error:
            locked = MlflowException("invalid data in the commit")
            locked.__cause__ = error
            return locked
    raise AssertionError


def test_a_file_that_is_locked_for_a_while_is_waited_for(store: Store, tmp_path: Path) -> None:
    errors = [locked_error(tmp_path / "x.db")]
    assert is_locked(errors[0])
    assert not is_outage(errors[0])

    def call() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert store.retry(call) == "done"


def test_one_that_stays_locked_is_told_in_a_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = locked_error(tmp_path / "x.db")

    def call(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tbptt.runs.tracking.LOCKED", 0.0)
    monkeypatch.setattr(store.client, "create_run", call)
    with pytest.raises(ConnectionError) as caught:
        store.start_run("locked", {})
    assert str(caught.value) == f"tracking.uri: {store.path} is locked by another process, for more than a minute"
    with pytest.raises(ConnectionError, match="is locked by another process"), said_shortly(store.tracking.uri):
        raise error


def test_a_deleted_run_is_known_and_not_reopened(store: Store) -> None:
    run = store.start_run("deleted", {})
    store.client.delete_run(run.id)
    found = store.run(run.id)
    assert found is not None
    assert found.is_deleted
    assert store.reopen_run(run.id) is None
    assert (
        how_to_restore("sqlite:////a.db", "0") == "MLFLOW_TRACKING_URI=sqlite:////a.db mlflow runs restore --run-id 0"
    )

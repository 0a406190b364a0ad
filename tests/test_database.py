"""A study on a real PostgreSQL: its lock, outages, workers that others cannot see."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from omegaconf import DictConfig
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from test_outbox import free_port
from test_study import GRID, SEARCH, loss, run, taken

from tbptt.cli.servers import PostgreSQL, ServerTrouble
from tbptt.compat import study_id, trial_id
from tbptt.config.checks import problems
from tbptt.config.schema import TrackingConfig
from tbptt.runs.tracking import Store
from tbptt.studies import postgres
from tbptt.studies.listed import facts_of
from tbptt.studies.postgres import Heartbeat, ServerStorage, is_outage
from tbptt.studies.study import Budget, Study
from tbptt.system.liveness import identity, is_alive, is_seen_to_be_gone
from tbptt.system.runtime import LeaseLost

pytest.importorskip("psycopg")
ELSEWHERE = {"host": "elsewhere", "boot": "another", "numbers": "", "pid": 1, "started": "1"}


def reachable(folder: Path) -> None:
    """Where this is root, PostgreSQL runs as another, who has to reach its folder."""
    for path in (folder, *folder.parents):
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(0o755)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    folder = tmp_path_factory.mktemp("postgresql of a user's #1")  # a name as people give them
    reachable(folder)
    found = PostgreSQL(folder, free_port())
    try:
        found.start()
    except ServerTrouble as trouble:
        if "missing" not in str(trouble):
            raise
        pytest.skip(str(trouble))
    os.environ |= found.environment
    yield found
    found.stop("immediate")


@pytest.fixture
def toy(server: PostgreSQL, here: Path, request: pytest.FixtureRequest) -> Study:
    """A study of its own for each test; a worker is dead after four seconds of silence."""
    server.start()
    return opened(name_of(request), server.uri("optuna"))


OPENED: list[Study] = []


def opened(name: str, uri: str) -> Study:
    OPENED.append(Study(name, uri, ["val/loss"], heartbeat=1))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Connections are closed after each test."""
    yield
    while OPENED:
        OPENED.pop().close()


def name_of(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W", "-", request.node.name)


def same(study: Study) -> Study:
    """As another process would open it."""
    return opened(study.name, study.storage_uri)


# --- many at once ---------------------------------------------------------------------------------------------


def test_many_processes_make_a_study_at_once(server: PostgreSQL, here: Path) -> None:
    code = (
        "import sys; from tbptt.studies.study import Study\n"
        "print(Study('new', sys.argv[1], ['val/loss']).optuna._study_id)"
    )
    uri = server.uri("optuna")
    started = [subprocess.Popen([sys.executable, "-c", code, uri], stdout=-1, stderr=-1, text=True) for _ in range(3)]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1


def test_each_point_is_claimed_once(toy: Study) -> None:
    toy.enqueue(GRID.points())

    def work(_: int) -> list[dict[str, Any]]:
        return run(same(toy), GRID)

    with ThreadPoolExecutor(4) as pool:
        points = [point for points in pool.map(work, range(4)) for point in points]
    assert sorted(map(str, points)) == sorted(map(str, GRID.points()))
    assert toy.counts().complete == 6


def test_a_budget_is_shared(toy: Study) -> None:
    with ThreadPoolExecutor(4) as pool:
        points = [p for points in pool.map(lambda _: run(same(toy), SEARCH, total=9), range(4)) for p in points]
    assert len(points) == 9
    assert toy.counts().complete == 9


def test_a_lock_ends_with_its_holder(toy: Study, server: PostgreSQL) -> None:
    code = (
        "import sys; from tbptt.studies.study import Study\n"
        "with Study(sys.argv[1], sys.argv[2], ['val/loss']).locked(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, toy.name, toy.storage_uri]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        got: list[float] = []

        def get() -> None:
            with same(toy).locked():
                got.append(time.monotonic())

        waiting = threading.Thread(target=get)
        waiting.start()
        time.sleep(0.5)
        assert got == []
        holder.send_signal(signal.SIGKILL)
        waiting.join(20)
        assert len(got) == 1


# --- outages --------------------------------------------------------------------------------------------------


def restarted(server: PostgreSQL, after: float) -> threading.Thread:
    """Take the server away now, as by pulling its plug, and start it again later."""
    server.stop("immediate")

    def start() -> None:
        time.sleep(after)
        server.start()

    thread = threading.Thread(target=start)
    thread.start()
    return thread


def test_a_study_outlives_a_restart(toy: Study, server: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    toy.enqueue(GRID.points())
    trial, point = taken(toy, GRID)
    for step, wait in enumerate((0.5, 2.0)):
        thread = restarted(server, wait)
        trial.report(1.0, step)
        trial.set_user_attr("a", wait)
        thread.join()
    thread = restarted(server, 1.0)
    toy.optuna.tell(trial, loss(point))
    thread.join()
    thread = restarted(server, 1.0)
    points = [point, *run(toy, GRID)]
    thread.join()
    assert sorted(map(str, points)) == sorted(map(str, GRID.points()))
    assert toy.counts().complete == 6
    assert same(toy).trials()[trial.number].user_attrs["a"] == 2.0
    said = [r.message for r in caplog.records]
    assert "the study's database does not answer; waiting up to 10 minutes" in said
    assert said[-1] == "the study's database answers again"


def test_waiting_ends_when_asked(toy: Study, server: PostgreSQL) -> None:
    trial, _ = taken(toy, SEARCH, total=1)
    toy.storage.check = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    server.stop("immediate")
    with pytest.raises(KeyboardInterrupt):
        trial.report(1.0, 0)


def test_waiting_ends_after_too_long(toy: Study, server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "RETRY_SECONDS", 1.0)
    server.stop("immediate")
    with pytest.raises(Exception) as error:  # noqa: PT011, Optuna's or SQLAlchemy's
        toy.counts()
    assert is_outage(error.value)


def test_what_is_wrong_is_no_outage(toy: Study) -> None:
    trial, _ = taken(toy, SEARCH, total=1)
    toy.optuna.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError) as error:
        trial.report(1.0, 1)
    assert not is_outage(error.value)


def test_a_trial_whose_making_was_not_acknowledged_is_not_counted(
    toy: Study, server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away right after it has made one: the claim starts over, and the first is nobody's."""
    toy.enqueue(GRID.points())
    ask = toy.optuna.ask
    made: list[int] = []

    def ask_and_lose(*arguments: Any) -> Any:
        trial = ask(*arguments)
        made.append(trial.number)
        if len(made) == 1:
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("connection lost"))
        return trial

    monkeypatch.setattr(toy.optuna, "ask", ask_and_lose)
    points = run(toy, GRID)
    assert sorted(map(str, points)) == sorted(map(str, GRID.points()))
    assert toy.counts().complete == 6
    assert toy.counts().failed == 0
    assert same(toy).optuna.trials[made[0]].state == TrialState.FAIL


# --- heartbeats --------------------------------------------------------------------------------------------


def test_a_silent_worker_of_another_machine_is_dead_and_its_trial_run_again(toy: Study) -> None:
    trial, point = taken(toy, SEARCH, total=1)
    trial.set_user_attr("worker", ELSEWHERE)
    assert toy.reap(1) == []
    assert toy.reap(1) == [], "it has been silent for no time"
    time.sleep(5)
    assert [t.number for t in same(toy).reap(1)] == [trial.number]
    again, same_point = taken(same(toy), SEARCH, total=1)
    assert same_point == point
    assert again.user_attrs["retry_of"] == trial.number
    with pytest.raises(UpdateFinishedTrialError):
        trial.report(1.0, 0)


def test_one_with_a_heartbeat_is_not(toy: Study) -> None:
    trial, _ = taken(toy, SEARCH, total=1)
    trial.set_user_attr("worker", ELSEWHERE)
    with Heartbeat(toy.storage, trial._trial_id) as heartbeat:
        time.sleep(6)
        assert toy.reap(1) == []
        heartbeat.check_lease()


def test_a_heartbeat_is_a_sign_of_life_by_the_servers_clock(toy: Study) -> None:
    assert isinstance(toy.storage, ServerStorage)
    number = study_id(toy.optuna)
    assert toy.storage.silence(number) is None
    trial, _ = taken(toy, SEARCH, total=1)
    with toy.storage.engine.begin() as connection:
        ago = "current_timestamp - interval '90 seconds'"
        connection.execute(sqlalchemy.text(f"update trial_heartbeats set heartbeat = {ago}"))
    assert toy.storage.silence(number) == pytest.approx(90, abs=30)
    toy.storage.beat(trial_id(trial))
    assert toy.storage.silence(number) == pytest.approx(0, abs=30)
    seen = facts_of(toy, None).seen
    assert seen == pytest.approx(time.time(), abs=60)
    toy.optuna.tell(trial, 1.0)
    assert toy.storage.silence(number) is None  # of trials that have ended nobody is heard


def test_one_that_is_cut_off_stops_before_others_take_over(toy: Study, server: PostgreSQL) -> None:
    trial, _ = taken(toy, SEARCH, total=1)
    began = time.monotonic()
    with Heartbeat(toy.storage, trial._trial_id) as heartbeat:
        server.stop("immediate")

        def train() -> None:
            while time.monotonic() < began + 20:
                heartbeat.check_lease()
                time.sleep(0.05)

        with pytest.raises(LeaseLost):
            train()
        assert 2.5 < time.monotonic() - began < 4 + 0.5
    server.start()


def test_a_dead_process_of_this_machine_is_seen_at_once(toy: Study) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        trial, _ = taken(toy, SEARCH, total=1)
        started = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
        trial.set_user_attr("worker", {**identity(), "pid": other.pid, "started": started})
        assert toy.reap(1) == []
        other.kill()
    assert [t.number for t in toy.reap(1)] == [trial.number]


def test_a_machine_of_the_same_name_is_another() -> None:
    """On a server; in a file, the machine has been started anew."""
    namesake = {**identity(), "boot": "another"}
    assert not is_seen_to_be_gone(namesake)
    assert not is_alive(namesake)
    container = {**identity(), "numbers": "pid:[1]", "started": "1"}
    assert not is_seen_to_be_gone(container)
    assert not is_alive(container), "in a file: it was started anew"
    assert is_seen_to_be_gone(None)
    assert not is_seen_to_be_gone(identity())
    assert is_seen_to_be_gone({**identity(), "started": "1"})


# --- what is typed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mysql://host/db", "takes sqlite:///PATH or postgresql+psycopg://HOST/DATABASE"),
        ("postgresql+psycopg2://host/db", "takes sqlite:///PATH or postgresql+psycopg://HOST/DATABASE"),
        ("postgresql://me:word@host/db", "got a password in the URI"),
    ],
)
def test_other_databases_are_refused(config: Any, here: Path, uri: str, says: str) -> None:
    [line] = problems(config(f"study.storage={uri}"))
    assert line.startswith("study.storage: ")
    assert says in line
    assert "word" not in line.replace("password", "")


@pytest.mark.parametrize("uri", ["postgresql+psycopg://host/db", "postgresql://host/db"])
def test_the_driver_may_be_left_out_but_not_missing(
    config: Any, here: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    cfg: DictConfig = config(f"study.storage={uri}")
    assert problems(cfg) == []
    monkeypatch.setattr("tbptt.config.checks.find_spec", lambda name: None)
    [line] = problems(cfg)
    assert "pip install -e '.[cluster]'" in line


def test_a_server_that_is_not_there_is_said_in_a_line(here: Path) -> None:
    uri = f"postgresql+psycopg://tbptt@127.0.0.1:{free_port()}/optuna"
    with pytest.raises(ConnectionError, match=r"study.storage: postgresql.* does not answer: .*refused") as error:
        Study("toy", uri, ["val/loss"])
    assert "\n" not in str(error.value)


def test_what_is_kept_is_readable_by_optuna(toy: Study, server: PostgreSQL) -> None:
    import optuna

    toy.optuna.tell(taken(toy, SEARCH, total=1)[0], 0.5)
    loaded = optuna.load_study(study_name=toy.name, storage=server.uri("optuna"))
    assert loaded.best_value == 0.5
    toy.optuna.set_user_attr("objectives", ["val/loss"])
    OPENED.append(Study.existing(toy.name, server.uri("optuna")))
    assert OPENED[-1].counts() == toy.counts()
    loaded._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_all_of_optunas_storage_is_retried() -> None:
    from optuna.storages import BaseStorage, RDBStorage

    asked = {name for name in vars(BaseStorage) if not name.startswith("_")}
    made = {name for name in asked if vars(ServerStorage).get(name) is not None}
    assert asked - made == {"create_new_trial", "create_new_study", "remove_session"}
    backend = Path(sys.modules[RDBStorage.__module__].__file__ or "").parents[1] / "_cached_storage.py"
    inner = set(re.findall(r"_backend\.(_\w+)", backend.read_text()))
    assert inner - set(vars(ServerStorage)) == {"_create_new_trial"}


def test_budget_and_grid_are_seen_without_a_claim(toy: Study) -> None:
    budget = Budget(None, None, None, 1)
    assert not toy.has_more(budget, is_grid=True)
    toy.enqueue(GRID.points())
    assert toy.has_more(budget, is_grid=True)
    run(toy, GRID)
    assert not toy.has_more(budget, is_grid=True)
    assert not toy.has_more(Budget(6, None, None, 1), is_grid=False)
    assert toy.has_more(Budget(7, None, None, 1), is_grid=False)


# --- runs in it --------------------------------------------------------------------------------------------------


def test_names_params_and_tags_beyond_a_column_are_shortened(server: PostgreSQL, here: Path) -> None:
    """Which SQLite would take whole, whatever its columns say; PostgreSQL refuses a letter more."""
    server.start()
    store = Store(TrackingConfig(uri=server.uri("mlflow")))
    run = store.start_run("schedule.chunks=[2,1], ø" * 100, {"note": "ø" * 9000})
    run.log_params({"space": "ø" * 9000})
    run.set_tags({"more": "ø" * 9000})
    run.finish("FINISHED", "ø" * 9000)
    found = store.client.get_run(run.id)
    assert found.info.run_name == ("schedule.chunks=[2,1], ø" * 100)[:249] + "…"
    assert found.data.params["space"] == "ø" * 5999 + "…"
    assert {found.data.tags[name] for name in ("note", "more", "stop.reason")} == {"ø" * 7999 + "…"}
    assert found.info.status == "FINISHED"


# --- what a connection that is lost in the middle leaves ---------------------------------------------------------


def test_a_connection_lost_while_trials_are_read_is_an_outage(toy: Study, server: PostgreSQL) -> None:
    """Optuna tries again in the session that has just lost it, which SQLAlchemy calls by another name."""
    for _ in range(3):
        toy.optuna.tell(taken(toy, SEARCH, total=9)[0], 1.0)
    reader, cut = same(toy), []

    @sqlalchemy.event.listens_for(reader.storage.engine, "before_cursor_execute")
    def cut_once(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM trial_params" in statement and not cut:
            cut.append(statement)
            number = connection.connection.dbapi_connection.info.backend_pid
            with toy.storage.engine.connect() as other:
                other.execute(sqlalchemy.text("SELECT pg_terminate_backend(:number)"), {"number": number})
                other.commit()
            time.sleep(0.2)

    assert len(reader.trials()) == 3
    assert cut


def test_a_trial_that_has_ended_is_not_handed_back(toy: Study) -> None:
    """A worker that was taken for dead, and one that tells its end while others reap it."""
    trial, _ = taken(toy, SEARCH, total=1)
    toy.optuna.tell(trial, 1.0)
    toy.fail(trial.number, "too late", again=True)
    [ended] = toy.trials()
    assert ended.state == TrialState.COMPLETE
    assert "reason" not in ended.user_attrs
    running, _ = taken(toy, SEARCH, total=2)
    running.set_user_attr("worker", None)
    snapshot = toy.trials()
    toy.optuna.tell(running, 2.0)
    toy.trials = lambda: snapshot  # type: ignore[method-assign]
    assert toy.reap(1) == []
    assert [t.state for t in same(toy).trials()] == [TrialState.COMPLETE] * 2


def test_what_did_not_start_whole_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tbptt.cli import servers

    done: list[str] = []
    monkeypatch.setattr(PostgreSQL, "runs", lambda self: False)
    monkeypatch.setattr(PostgreSQL, "start", lambda self: done.append("start"))
    monkeypatch.setattr(PostgreSQL, "stop", lambda self: done.append("stop"))

    def fails(self: servers.MLflow) -> None:
        raise ServerTrouble("mlflow server: no answer")

    monkeypatch.setattr(servers.MLflow, "start", fails)
    assert servers.main(["start", str(tmp_path)]) == 1
    assert done == ["start", "stop"]
    assert capsys.readouterr().err == "mlflow server: no answer\n"

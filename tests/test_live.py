"""A study's page while the study runs: what changes, who may ask, and that nothing is written."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONF
from studies import Away, made_study, made_trial

from tbptt.cli import main, watch
from tbptt.config.schema import TrackingConfig
from tbptt.reports import live as live_page
from tbptt.reports.live import Live, Parts
from tbptt.runs.tracking import Store
from tbptt.studies import watched as offered
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study

RUNNING = {"seed": 1, "seeds": 3, "epoch": 4, "epochs": 9, "held_out": 0.52, "seconds_left": 65.0}


class Runs:
    """A store that has no runs: curves are those that trials keep."""

    uri, is_local = "sqlite:///mlruns/mlflow.db", True
    client = Away()

    def artifact_here(self, run_id: str, path: str) -> None:
        return None

    def artifact(self, run_id: str, path: str, folder: Path | None = None) -> None:
        return None


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_page, "curves_of", lambda *_: None)
    monkeypatch.setattr(live_page, "DEAR_EVERY", 0.0)
    monkeypatch.setattr(live_page, "DEAR_SHARE", 0)
    trials = [made_trial(values=[v], params={"clip": v}) for v in (1.5, 1.25)]
    trials.append(made_trial("RUNNING", params={"clip": 3.0}, curve=[2.0, 1.0], progress=RUNNING))
    study = made_study(trials, n_trials=4)
    monkeypatch.setattr(study, "living", lambda trials: [t for t in trials if t.number == 2])
    return study


def looked(live: Live) -> dict[str, Any]:
    """What a look finds anew."""
    before = live.parts.version
    live._try_to_look()
    return live.changes(before)["values"]


def test_what_is_as_it_was_keeps_its_version_and_a_later_server_has_later_ones() -> None:
    parts = Parts()
    first = parts.version
    parts.update({"a": 1, "b": [2]})
    parts.update({"a": 1, "b": [3]})
    assert parts.after(0) == (first + 2, {"a": 1, "b": [3]})
    assert parts.after(first + 1) == (first + 2, {"b": [3]})
    parts.update({"a": 1})
    assert parts.after(first + 2) == (first + 2, {})
    time.sleep(0.02)
    assert Parts().version > parts.version


def test_a_look_gives_rows_running_trials_and_curves_and_the_next_one_only_what_is_new(study: Study) -> None:
    live = Live(study, Runs(), "report it")
    values = looked(live)
    assert values["order"] == [1, 0, 2]
    assert "1.25" in values["row:1"]
    running = values["part:running"]
    assert "running, 1 worker" in running
    assert "2 of 4 trials done" in running
    for cell in ("<td>1/3</td>", "<td>4/9</td>", "<td>0.52</td>", "<td>1:05</td>", "<td>here, process 7</td>"):
        assert cell in running
    assert values["curve_order"] == [1, 0, 2]
    assert values["curve:2"]["runs"][0]["curves"] == {"val/loss": [2.0, 1.0]}
    assert "being worked out" in values["part:answer"]
    closely = looked(live)  # what takes seconds comes with the second look
    assert "Best: trial 1" in closely["part:answer"]
    assert any(name.startswith("figure:history") for name in closely)
    assert not [name for name in closely if name.startswith(("row:0", "curve:"))]
    storage, number = study.storage, study.optuna.get_trials(deepcopy=False)[2]._trial_id
    storage.set_trial_intermediate_value(number, 2, 0.5)
    storage.set_trial_user_attr(number, TrialRecord.progress.name, {**RUNNING, "epoch": 5})
    new = looked(live)
    assert new["curve:2"]["runs"][0]["curves"] == {"val/loss": [2.0, 1.0, 0.5]}
    assert "<td>5/9</td>" in new["part:running"]
    assert {name for name in new if name.startswith(("row:", "curve:"))} <= {"row:2", "curve:2"}


def test_the_verdict_at_a_studys_end_is_taken_though_no_trial_ends(study: Study) -> None:
    live = Live(study, Runs(), "report it")
    looked(live)
    looked(live)
    assert "part:answer" not in looked(live)
    Path("sweeps/a-study").mkdir(parents=True, exist_ok=True)
    Path("sweeps/a-study/best.yaml").write_text("clip: 1.25")
    assert "--config-name best" in looked(live)["part:answer"]


def test_a_store_that_fails_is_told_and_asked_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(study, Runs(), "report it")
    looked(live)
    with monkeypatch.context() as patch:
        patch.setattr(study, "trials", lambda: 1 / 0)
        trouble = looked(live)["trouble"]
        assert trouble.startswith("ZeroDivisionError: division by zero")
        assert trouble.endswith("; it is asked again")
    assert looked(live)["trouble"] == ""


def test_nothing_is_written(study: Study, tmp_path: Path) -> None:
    before = everything(tmp_path)
    live = Live(study, Runs(), "report it")
    for _ in range(3):
        live._try_to_look()
    assert live.changes(0)["values"]["trouble"] == ""
    assert "<h1>a-study</h1>" in live.page()
    assert everything(tmp_path) == before


# --- a store of runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study whose runs are in MLflow's database: of a complete trial, a running one, and one whose run is gone."""
    monkeypatch.chdir(tmp_path)
    Path("mlruns").mkdir()
    store = Store(TrackingConfig(uri="sqlite:///mlruns/mlflow.db"))
    experiment = store.client.create_experiment("others")  # that of the config is not there
    runs = [store.client.create_run(experiment).info.run_id for _ in range(2)]
    for run in runs:
        for epoch, value in enumerate((2.0, 1.75)):
            store.client.log_metric(run, "val/loss", value, step=epoch)
    of = {"progress": RUNNING, "curve": [2.0, 1.75]}
    trials = [
        made_trial(values=[1.75], params={"clip": 1.0}, run_ids=[runs[0]]),
        made_trial("RUNNING", params={"clip": 2.0}, run_ids=[runs[1]], **of),
        made_trial(values=[1.2], params={"clip": 3.0}, run_ids=["ef" * 16]),
    ]
    study = made_study(trials)
    monkeypatch.setattr(study, "living", lambda trials: [t for t in trials if t.number == 1])
    return SimpleNamespace(study=study, store=store, runs=runs)


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Each file's time and contents."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm"))]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def test_curves_come_from_the_store_as_long_as_they_grow(logged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    of_store = live_page.curves_of

    def noted(store: Store, runs: list[str], *more: Any) -> Any:
        read.append(len(runs))
        return of_store(store, runs, *more)

    monkeypatch.setattr(live_page, "curves_of", noted)
    monkeypatch.setattr(live_page, "SETTLED", 1e-9)  # a trial that has ended is read once
    live = Live(logged.study, logged.store, "report it")
    first = looked(live)
    assert [first[f"curve:{i}"]["runs"][0]["curves"]["val/loss"] for i in (0, 1)] == [[2.0, 1.75]] * 2
    assert first["curve:2"]["runs"][0]["curves"]["val/loss"] == [2.0, 1.5, 1.2], "what the trial keeps itself"
    logged.store.client.log_metric(logged.runs[1], "val/loss", 1.5, step=2)
    new = looked(live)
    assert {name for name in new if name.startswith("curve:")} == {"curve:1"}
    assert new["curve:1"]["runs"][0]["curves"]["val/loss"] == [2.0, 1.75, 1.5]
    assert read == [3, 1], "the runs of trials that have ended are read once"


def test_a_look_leaves_both_stores_as_they_are(logged: Any, tmp_path: Path) -> None:
    before = everything(tmp_path)
    live = Live(logged.study, logged.store, "report it")
    for _ in range(3):
        live._dear_at = min(live._dear_at, time.monotonic())
        live._try_to_look()
    assert live.changes(0)["values"]["trouble"] == ""
    assert "Best: trial 2" in live.page()
    assert everything(tmp_path) == before
    assert {e.name for e in logged.store.client.search_experiments()} == {"Default", "others"}


def test_what_the_study_says_comes_though_the_store_of_its_runs_is_away(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise ConnectionError("the store is away")

    live = Live(logged.study, logged.store, "report it")
    with monkeypatch.context() as patch:
        patch.setattr(live_page, "curves_of", away)
        values = looked(live)
        assert values["trouble"].startswith("ConnectionError: the store is away")
        assert values["order"] == [2, 0, 1]
        assert "<td>4/9</td>" in values["part:running"]
        assert "curve:0" not in values
    assert {"trouble", "curve:0", "curve:1", "curve:2"} <= set(looked(live))


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(study: Study) -> Iterator[str]:
    live = Live(study, Runs(), "report it")
    live._try_to_look()
    server = watch.server_of(live, "the-token")
    listening = socket.create_server((offered.HOST, 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def asked(address: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method=method, headers=headers)) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, b"", error.headers


def test_only_who_knows_the_address_reads_and_nobody_writes(served: str) -> None:
    status, body, headers = asked(f"{served}/the-token/")
    assert status == 200
    assert b"connect-src 'self'" in body
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert [asked(f"{served}{path}")[0] for path in ("/", "/other/", "/the-token/x", "/changes")] == [404] * 4
    assert asked(f"{served}/the-token/", "POST")[0] == 405
    assert asked(f"{served}/the-token/", Host="evil.example")[0] == 400
    news = json.loads(asked(f"{served}/the-token/changes?after=0")[1])
    assert news["values"]["order"] == [1, 0, 2]
    for garbage in ("x", "-1", "9" * 5000, ""):
        assert json.loads(asked(f"{served}/the-token/changes?after={garbage}")[1])["values"]["order"] == [1, 0, 2]
    assert json.loads(asked(f"{served}/the-token/changes?after={news['version']}")[1])["values"] == {}


@pytest.mark.parametrize("words", [["--port", "x"], ["--port=70000"], ["--port"]])
def test_what_is_no_port_gets_one_line(words: list[str], study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.report(["a-study", "--watch", *words], CONF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--port: got ")
    assert line.endswith("takes a port, 0 to 65535")


def test_a_port_that_is_taken_gets_one_line(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((offered.HOST, 0)) as other:
        port = other.getsockname()[1]
        assert main.report(["a-study", "--watch", f"--port={port}"], CONF) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"--port: got {port}; it cannot be used (Address already in use); takes another, or 0 for any"


# --- what a sweep offers --------------------------------------------------------------------------------------------


def test_a_server_starts_when_somebody_connects_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, Any]] = []
    process = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(
        offered, "_serve", lambda number, study, told: started.append((study, json.loads(told))) or process
    )
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    with offered.watched("a-study", ["study.storage=x"]) as address:
        assert address is not None
        assert started == []
        port, token = int(address.split(":")[2].split("/")[0]), address.split("/")[3]
        with socket.create_connection((offered.HOST, port)):
            end = time.monotonic() + 10
            while not started and time.monotonic() < end:
                time.sleep(0.01)
    ((study, told),) = started
    assert study == "a-study"
    assert told["token"] == token
    assert len(token) >= 16
    assert told["stores"] == ["study.storage=x"]
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def test_a_server_that_fails_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(offered, "_serve", lambda *_: tries.append(1) or SimpleNamespace(poll=lambda: 1))
    monkeypatch.setattr(offered, "STRIKES", 2)
    with offered.watched("a-study", []) as address:
        assert address is not None
        with socket.create_connection((offered.HOST, int(address.split(":")[2].split("/")[0]))) as here:
            here.settimeout(20)
            with suppress(ConnectionResetError):
                assert here.recv(1) == b"", "nobody answers any more"
    assert len(tries) == 2


def test_where_nothing_can_listen_a_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError("no descriptor is left")

    monkeypatch.setattr(offered.socket, "create_server", none)
    with offered.watched("a-study", []) as address:
        assert address is None

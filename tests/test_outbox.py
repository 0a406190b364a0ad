"""Curves reach the store whole, whatever happens to it meanwhile."""

import fcntl
import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import sqlalchemy
from conftest import ROOT, SMALL
from forked import command, python
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf
from sqlalchemy.engine import Engine

from tbptt.cli.servers import MLflow
from tbptt.config.schema import TrackingConfig
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.journal import deliver_pending, read_journal
from tbptt.runs.pending import CLAIM, OWNER, pending_folder, this_owner
from tbptt.runs.points import metric_points, thinned
from tbptt.runs.tracking import Run, Store
from tbptt.system.stores import absolute_uri


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server(MLflow):
    """A real MLflow server that can be killed and started again on the same store."""

    def __init__(self, folder: Path):
        super().__init__(folder, f"sqlite:///{folder}/server.db", {}, free_port())

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def test_a_server_that_is_killed_and_restarted_misses_nothing(
    here: Path, small: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(here)
    server.start()
    epochs = 30
    trained_while_away: list[int] = []

    def after_epoch(epoch: Epoch) -> bool:
        if epoch.number == 5:
            server.kill()
        elif 5 < epoch.number < 20:
            trained_while_away.append(epoch.number)
        elif epoch.number == 20:
            deadline = time.monotonic() + 60
            while "the store does not take its curves" not in caplog.text:  # the sender pauses between two checkpoints
                assert time.monotonic() < deadline, "nothing was said of the server that is away"
                time.sleep(0.1)
            server.start()
        return False

    cfg = small(f"tracking.uri={server.uri}", f"epochs={epochs}", "schedule.patience=null")
    try:
        result = fit(cfg, RunContext(after_epoch=after_epoch))
        client = MlflowClient(server.uri)
        for name in ("train/loss", "val/loss", "time/epoch_seconds"):
            steps = [p.step for p in client.get_metric_history(result.run_id, name)]
            assert sorted(steps) == list(range(epochs)), name
        run = client.get_run(result.run_id)
        assert (run.info.status, run.data.tags["stop.reason"]) == ("FINISHED", "epochs")
        artifacts = {a.path for a in client.list_artifacts(result.run_id)}
        assert artifacts == {"checkpoints", "config.yaml", "evaluation.json", "evaluation.npz", "updates.parquet"}
        assert trained_while_away == list(range(6, 20))
        assert "nothing is missing" in caplog.text
        assert not list((here / "mlruns" / "pending").glob("*"))
    finally:
        server.kill()


class SlowProxy(ThreadingHTTPServer):
    """Stands before a server, and takes its time when it is told to."""

    def __init__(self, port: int):
        self.target, self.seconds = port, 0.0
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            assert isinstance(self.server, SlowProxy)
            time.sleep(self.server.seconds)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with closing(HTTPConnection("127.0.0.1", self.server.target)) as connection:
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward

        def log_message(self, *args: object) -> None:
            pass


def test_training_does_not_wait_for_a_slow_server(here: Path, small: Callable[..., DictConfig]) -> None:
    server = Server(here)
    server.start()
    slow = SlowProxy(server.port)
    epochs, there = 20, []

    def after_epoch(epoch: Epoch) -> bool:
        slow.seconds = 0.3
        if epoch.number == epochs - 1:
            (run,) = MlflowClient(server.uri).search_runs(["1"])
            there.append(len(MlflowClient(server.uri).get_metric_history(run.info.run_id, "val/loss")))
        return False

    try:
        cfg = small(f"tracking.uri={slow.uri}", f"epochs={epochs}", "schedule.patience=null")
        result = fit(cfg, RunContext(after_epoch=after_epoch))
        assert there[0] < epochs // 2  # it was far behind when training was done
        history = MlflowClient(server.uri).get_metric_history(result.run_id, "val/loss")
        assert sorted(p.step for p in history) == list(range(epochs))
    finally:
        server.kill()
        slow.shutdown()
        slow.server_close()


def test_a_run_that_ended_without_its_server_is_delivered_by_the_next(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tbptt.runs.journal.LAST_TRY", 0.2)
    server = Server(here)
    server.start()
    try:
        cfg = small(f"tracking.uri={server.uri}", "epochs=4")

        def gone(epoch: Epoch) -> bool:
            if epoch.number == 1:
                server.kill()
            return False

        first = fit(cfg, RunContext(after_epoch=gone))
        assert "sent when the next run starts" in caplog.text
        server.start()
        fit(cfg)
        client = MlflowClient(server.uri)
        assert [p.step for p in client.get_metric_history(first.run_id, "val/loss")] == [0, 1, 2, 3]
        assert client.get_run(first.run_id).info.status == "FINISHED"
        assert "updates.parquet" in {a.path for a in client.list_artifacts(first.run_id)}
    finally:
        server.kill()


def test_a_server_that_is_away_at_the_start_is_one_line(here: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    done = python(str(ROOT / "train.py"), *SMALL, f"tracking.uri={uri}", cwd=here)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert uri in line
    assert "does not answer" in line


def test_a_killed_run_is_not_left_running(here: Path, small: Callable[..., DictConfig]) -> None:
    process = command(here, *SMALL, "progress=plain", "epochs=5000", "schedule=fixed")
    while not (here / "err").exists() or (here / "err").read_text().count("\nepoch") < 3:
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    client = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db"))
    (run,) = client.search_runs(["1"])
    assert run.info.status == "RUNNING"
    fit(small())
    run = client.get_run(run.info.run_id)
    assert (run.info.status, run.data.tags["stop.reason"]) == ("KILLED", "interrupted")
    steps = [p.step for p in client.get_metric_history(run.info.run_id, "val/loss")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 3


class Lock:
    """What another process does to a SQLite file for some epochs of a run, and what was sent to it meanwhile."""

    def __init__(self, path: Path, first: int, last: int, patch: pytest.MonkeyPatch):
        self.path, self.first, self.last, self.sent = path, first, last, 0
        self.other: sqlite3.Connection | None = None
        log_points = Run.log_points

        def counted(run: Run, *points: Any) -> None:
            self.sent += self.other is not None
            log_points(run, *points)

        patch.setattr(Run, "log_points", counted)
        patch.setattr("tbptt.runs.journal.SHORT_LOCK", 0.01)
        patch.setattr("tbptt.runs.journal.AFTER_A_LOCK", 0.0)

    def after_epoch(self, epoch: Epoch) -> bool:
        if epoch.number == self.first:
            self.other = sqlite3.connect(self.path, isolation_level=None)
            self.other.execute("BEGIN EXCLUSIVE")
        if epoch.number == self.last and self.other:
            self.other.close()
            self.other = None
        return False


def steps(run_id: str, name: str = "val/loss") -> list[int]:
    client = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db"))
    return sorted(point.step for point in client.get_metric_history(run_id, name))


def test_training_neither_waits_for_a_store_that_others_lock_nor_loses_a_point(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said of a lock that passes within a minute. What it kept back is sent in parts, between epochs."""
    for name, value in (("journal.LONGEST_SEND", 0.0), ("points.MOST_METRICS", 1)):
        monkeypatch.setattr(f"tbptt.runs.{name}", value)  # no epochs go in together
    lock = Lock(here / "mlruns" / "mlflow.db", 2, 6, monkeypatch)
    sent: list[int] = []

    def after_epoch(epoch: Epoch) -> bool:
        if not lock.other:
            sent.append(len(steps(run_ids[0])))
        return lock.after_epoch(epoch)

    run_ids: list[str] = []
    cfg = small("epochs=10", "schedule.patience=null")
    assert fit(cfg, RunContext(after_epoch=after_epoch, on_start=run_ids.append)).stop_reason == "epochs"
    assert lock.sent == 0, "MLflow itself would wait for 20 seconds each"
    assert sent == [0, 1, 2, 3, 4, 5], "an epoch a time, before the lock and after it"
    assert steps(run_ids[0]) == steps(run_ids[0], "train/loss") == list(range(10))
    assert not caplog.records


def test_a_lock_that_does_not_pass_is_told_once_and_its_end_too(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tbptt.runs.journal.LOCKED", 0.0)
    lock = Lock(here / "mlruns" / "mlflow.db", 2, 6, monkeypatch)
    run_id = fit(small("epochs=10", "schedule.patience=null"), RunContext(after_epoch=lock.after_epoch)).run_id
    why = f"tracking.uri: {lock.path} is locked by another process, for more than a minute"
    assert [record.getMessage() for record in caplog.records] == [
        f"run {run_id}: the store does not take its curves ({why}); they are kept",
        f"run {run_id}: the store takes its curves again; nothing is missing",
    ]
    assert steps(run_id) == list(range(10))


def test_the_table_of_updates_has_every_update_once(here: Path, small: Callable[..., DictConfig]) -> None:
    result = fit(small("schedule.chunks=[7,3]", "epochs=5"))
    client = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db"))
    table = pd.read_parquet(client.download_artifacts(result.run_id, "updates.parquet"))
    assert list(table["update"]) == list(range(len(table)))
    assert list(table.groupby("epoch").size()) == [7, 7, 3, 3, 3]


def test_a_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    epoch = Epoch(0, 1, 0, 2, {"val/loss": 1.0}, 0, [1.0, 2.0], [3.0, 4.0], [0.0, 1.0], None, False, False)
    line = json.dumps(vars(epoch))
    path = tmp_path / "curves.jsonl"
    path.write_text(line + "\n" + line[:40])
    assert read_journal(path) == [epoch]
    assert metric_points(epoch, 1) == [("val/loss", 1.0, 0), ("train/chunk_loss", 2.0, 1), ("grad/norm", 4.0, 1)]


@pytest.mark.parametrize(("count", "most"), [(1, 50), (50, 50), (100, 50), (1000, 7), (5, 0)])
def test_thinned_updates_are_even_and_end_with_the_last(count: int, most: int) -> None:
    kept = thinned(count, most)
    assert len(kept) == min(count, most)
    if kept:
        assert kept[-1] == count - 1
        gaps = [b - a for a, b in zip([-1, *kept], kept, strict=False)]
        assert max(gaps) - min(gaps) <= 1


def test_what_another_process_trains_is_left_to_it(here: Path) -> None:
    """A trial begins with this, while the other workers' runs are under way: none of them may stop it."""
    store = Store(TrackingConfig(uri="sqlite:///mlruns/mlflow.db"))
    run = store.start_run("one of another worker's", {})
    folder = pending_folder(store.folder, run.id)
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(json.dumps(this_owner()))
    held = os.open(folder / CLAIM, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert deliver_pending(store, 50) == 0
    assert store.client.get_run(run.id).info.status == "RUNNING"
    os.close(held)  # its process is gone
    assert deliver_pending(store, 50) == 0
    assert store.client.get_run(run.id).info.status == "KILLED"


def test_short_epochs_go_in_together_and_a_run_takes_as_many_transactions_as_a_short_one(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction waits for the disk four times. The store has the same points as with one for each epoch."""
    written: list[str] = []

    @sqlalchemy.event.listens_for(Engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        connection.info["writes"] = connection.info.get("writes", False) or statement.startswith(("INSERT", "UPDATE"))

    @sqlalchemy.event.listens_for(Engine, "commit")
    def count(connection: Any) -> None:
        if connection.info.pop("writes", False):
            written.append(str(connection.engine.url))

    def counted(epochs: int, every: float) -> tuple[str, int]:
        monkeypatch.setattr("tbptt.runs.journal.SEND_EVERY", every)
        before = len(written)
        return fit(small(f"epochs={epochs}", "schedule.patience=null")).run_id, len(written) - before

    try:
        fit(small("epochs=1"))  # makes the store
        (alone, many), (together, few), (_, fewest) = counted(6, 0.0), counted(6, 1000.0), counted(2, 1000.0)
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", note)
        sqlalchemy.event.remove(Engine, "commit", count)
    assert few == fewest <= 6
    assert many >= few + 6
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    names = client.get_run(alone).data.metrics.keys()
    assert client.get_run(together).data.metrics.keys() == names
    for name in names:
        of_each = [sorted((m.step, m.value) for m in client.get_metric_history(run, name)) for run in (alone, together)]
        assert len(of_each[0]) == len(of_each[1])
        if "time/" not in name:
            assert of_each[0] == of_each[1], name


def test_an_end_that_is_cut_off_is_delivered_whole_by_the_next_run(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs together is in the store as a whole or not at all; each point once, one model."""
    finish, cut = Run.finish, [True]

    def cut_off(run: Run, *args: Any, **words: Any) -> None:
        if cut.pop() if cut else False:
            raise MlflowException("killed here")
        finish(run, *args, **words)

    monkeypatch.setattr(Run, "finish", cut_off)
    cfg = small("epochs=3", "schedule.patience=null")
    run_id = fit(cfg).run_id
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    between = client.get_run(run_id)
    assert between.info.status == "RUNNING"
    assert len(client.get_metric_history(run_id, "val/loss")) == 3
    assert not [name for name in between.data.metrics if name.startswith("baseline/")]  # of the end
    assert deliver_pending(Store(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking))), 100) == 0
    whole = client.get_run(run_id)
    assert whole.info.status == "FINISHED"
    assert [name for name in whole.data.metrics if name.startswith("baseline/")]
    assert len(client.get_metric_history(run_id, "val/loss")) == 3
    assert len(client.search_logged_models([whole.info.experiment_id])) == 1
    assert not pending_folder(here / "mlruns", run_id).exists()

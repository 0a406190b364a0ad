"""A run that one machine began and another goes on with: all that it needs is in the tracking server, a real one.

The machines are folders: what is in one is not in the other.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import CONF, SMALL
from forked import CONTEXT
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from omegaconf import DictConfig
from test_outbox import free_port

from tbptt.cli.servers import MLflow
from tbptt.config.schema import register
from tbptt.runs import checkpoint, journal
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch, packed, unpacked
from tbptt.runs.fit import fit
from tbptt.runs.tracking import Store
from tbptt.system.runtime import LeaseLost

EPOCHS, DEATH = 8, 4
CURVES = ("train/loss", "val/loss", "train/chunk_loss", "grad/norm", "schedule/chunks")
RUN = [f"epochs={EPOCHS}", "schedule.chunks=[10,2,1]", "optimizer=adam"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflow]:
    folder = tmp_path_factory.mktemp("server")
    found = MLflow(folder, f"sqlite:///{folder}/server.db", {}, free_port())
    found.start()
    yield found
    found.stop()


@pytest.fixture
def client(server: MLflow) -> MlflowClient:
    server.start()
    return MlflowClient(server.uri)


@pytest.fixture
def cfg(server: MLflow, small: Callable[..., DictConfig]) -> DictConfig:
    return small(*RUN, f"tracking.uri={server.uri}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a machine, by its name; each has its own files."""

    def go(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        return folder

    return go


def die_in(folder: str, uri: str, epoch: int, ids: str, sends: float, cut: int | None) -> None:
    """Train in a folder until the end of an epoch, then die without a word, what was to be sent having been sent; or in
    the middle of the upload that ``cut`` counts to."""
    os.chdir(folder)
    register()
    journal.CHECKPOINTS_EVERY = sends
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*SMALL, *RUN, f"tracking.uri={uri}"])

    def after_epoch(one: Epoch) -> bool:
        time.sleep(0.3)
        if one.number == epoch:
            os._exit(9)
        return False

    send, left = MlflowClient.log_artifact, itertools.count(1)

    def cut_short(client: MlflowClient, run_id: str, path: str, *more: Any) -> None:
        if next(left) == cut:
            os.truncate(path, 1000)
            send(client, run_id, path, *more)
            os._exit(9)
        send(client, run_id, path, *more)

    MlflowClient.log_artifact = cut_short
    fit(cfg, RunContext(on_start=lambda run_id: Path(ids).write_text(run_id) and None, after_epoch=after_epoch))


def died(folder: Path, uri: str, epoch: int = DEATH, sends: float = 0.0, cut: int | None = None) -> str:
    """A run whose machine died; its id."""
    ids = folder.parent / "id"
    process = CONTEXT.Process(target=die_in, args=(str(folder), uri, epoch, str(ids), sends, cut))
    process.start()
    process.join()
    assert process.exitcode == 9
    return ids.read_text()


def curves(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """All points, by step; a step that is there twice shows."""
    found = {name: client.get_metric_history(run_id, name) for name in CURVES}
    return {name: sorted((p.step, p.value) for p in points) for name, points in found.items()}


def table(client: MlflowClient, run_id: str) -> pd.DataFrame:
    return pd.read_parquet(client.download_artifacts(run_id, "updates.parquet"))


def stored(client: MlflowClient, run_id: str, name: str) -> dict[str, Any]:
    return checkpoint.load(Path(client.download_artifacts(run_id, f"checkpoints/{name}.ckpt")))


def assert_same(client: MlflowClient, one: str, other: str) -> None:
    assert curves(client, one) == curves(client, other)
    pd.testing.assert_frame_equal(table(client, one), table(client, other), check_exact=True)
    for name in ("last", "best"):
        a, b = stored(client, one, name), stored(client, other, name)
        assert a["epoch"] == b["epoch"]
        for key, value in a["model"].items():
            assert torch.equal(value, b["model"][key]), (name, key)
    assert client.get_run(other).info.status == "FINISHED"


@pytest.mark.parametrize("sends", [0.0, 60.0], ids=["sent at once", "sent seldom"])
def test_another_machine_goes_on_as_if_nothing_had_been(
    machine: Callable[[str], Path], server: MLflow, client: MlflowClient, cfg: DictConfig, sends: float
) -> None:
    machine("whole")
    whole = fit(cfg).run_id
    run_id = died(machine("first"), server.uri, sends=sends)
    sent = len(client.get_metric_history(run_id, "train/loss"))
    assert sent >= 3 if sends == 0 else sent <= 1
    second = machine("second")
    resumed = fit(cfg, RunContext(resume=run_id))
    assert resumed.run_id == run_id
    assert_same(client, whole, run_id)
    assert list((second / "mlruns" / "pending").glob("*/*")) == []


def test_a_third_machine_and_the_first_again(
    machine: Callable[[str], Path],
    server: MLflow,
    client: MlflowClient,
    cfg: DictConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one's leftovers are older than what the second one did, and must not come back."""
    machine("whole")
    whole = fit(cfg).run_id
    first = machine("first")
    run_id = died(first, server.uri, epoch=2)
    assert (first / "mlruns" / "pending" / run_id / "checkpoints" / "last.ckpt").exists()
    second = machine("second")
    monkeypatch.setattr(journal, "CHECKPOINTS_EVERY", 0.0)
    with pytest.raises(LeaseLost):  # it goes on to epoch 5, and is cut off
        fit(cfg, RunContext(resume=run_id, check_lease=_lost_after(client, run_id, 5)))
    assert (second / "mlruns" / "pending" / run_id).exists(), "until it is known who has the run"
    assert client.get_run(run_id).info.status == "RUNNING", "it is another's by now"
    machine("first")
    assert fit(cfg, RunContext(resume=run_id)).run_id == run_id
    assert_same(client, whole, run_id)


def _lost_after(client: MlflowClient, run_id: str, epochs: int) -> Callable[[], None]:
    """Raises LeaseLost once so many epochs have arrived."""

    def check() -> None:
        time.sleep(0.1)
        if len(client.get_metric_history(run_id, "train/loss")) >= epochs:
            raise LeaseLost

    return check


def test_an_upload_that_was_cut_costs_an_epoch_at_most(
    machine: Callable[[str], Path], server: MLflow, client: MlflowClient, cfg: DictConfig
) -> None:
    machine("whole")
    whole = fit(cfg).run_id
    for cut in range(2, 7):  # of the last, and of the best
        run_id = died(machine(f"first {cut}"), server.uri, epoch=EPOCHS - 2, cut=cut)
        machine(f"second {cut}")
        resumed = fit(cfg, RunContext(resume=run_id)).run_id
        assert (resumed == run_id) == (cut > 2), "without the first, it begins anew"
        assert_same(client, whole, resumed)


def test_what_another_machine_took_over_is_not_ended_by_the_first(
    machine: Callable[[str], Path], server: MLflow, client: MlflowClient, cfg: DictConfig
) -> None:
    first = machine("first")
    run_id = died(first, server.uri)
    client.set_tag(run_id, "worker", "another 1 2")
    store = Store(cfg.tracking)
    journal.deliver_pending(store, 50)
    assert client.get_run(run_id).info.status == "RUNNING"
    assert not (first / "mlruns" / "pending" / run_id).exists()
    second = died(machine("first"), server.uri)
    journal.deliver_pending(store, 50)
    assert client.get_run(second).info.status == "KILLED", "this one is the first's own"


def test_a_worker_waits_for_a_tracking_server(
    machine: Callable[[str], Path], server: MLflow, client: MlflowClient, cfg: DictConfig
) -> None:
    machine("first")
    server.stop()
    with pytest.raises(ConnectionError, match="does not answer"):
        fit(cfg)
    process = CONTEXT.Process(target=_start_later, args=(server.folder, server.database, server.port))
    process.start()
    result = fit(cfg, RunContext(retry_seconds=90.0))
    process.join()
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert [step for step, _ in curves(client, result.run_id)["train/loss"]] == list(range(EPOCHS))


def _start_later(folder: Path, database: str, port: int) -> None:
    time.sleep(2)
    MLflow(folder, database, {}, port).start()


def test_epochs_of_a_checkpoint_are_the_journals() -> None:
    epoch = Epoch(3, 5, 1, 2, {"val/loss": 0.1}, 7, [0.1, 1 / 3], [2.0, 3.0], [0.0, 1.0], None, False, True)
    assert unpacked(packed(epoch)) == epoch

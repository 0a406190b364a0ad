"""Whatever stops a run at the end of an epoch: what comes before in the order of its callbacks is kept."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from mlflow import MlflowClient
from omegaconf import DictConfig

from tbptt.runs import callbacks, checkpoint
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.journal import JOURNAL, Outbox, read_journal
from tbptt.runs.pending import pending_folder
from tbptt.runs.progress import Progress
from tbptt.system.stores import absolute_uri

Compose = Callable[..., DictConfig]
URI = "sqlite:///mlruns/mlflow.db"
STOPPED = 2  # the epoch at whose end something stops the run


class Stop(BaseException):
    """What no code on the way takes, as a power cut."""


def seen(run_id: str) -> dict[str, int | None]:
    """The last epoch that each of the places has of a run."""
    client = MlflowClient(absolute_uri(URI))
    (store,) = Path("mlruns").rglob(f"{run_id}/artifacts")
    last = store / "checkpoints" / "last.ckpt"
    journal = read_journal(pending_folder(Path("mlruns"), run_id) / JOURNAL)
    points = client.get_metric_history(run_id, "val/loss")
    return {
        "checkpoint": checkpoint.load(last)["epoch"] if last.exists() else None,
        "journal": max((epoch.number for epoch in journal), default=None),
        "store": max((point.step for point in points), default=None),
    }


@pytest.fixture
def stopped(here: Path, small: Compose, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], dict[str, int | None]]:
    """Stops a run in a method, as of epoch STOPPED; what its places hold then, and what was shown."""

    def stopped(owner: Any, method: str) -> dict[str, int | None]:
        ids: list[str] = []
        epochs: list[int] = []
        shown: list[int] = []
        of_progress = Progress.epoch

        def after_epoch(epoch: Epoch) -> bool:
            epochs.append(epoch.number)
            return False

        def show(self: Progress, epoch: Epoch, *more: Any) -> None:
            of_progress(self, epoch, *more)
            shown.append(epoch.number)

        def stop(*given: Any, **more: Any) -> Any:
            if epochs and epochs[-1] == STOPPED:
                raise Stop
            return of_owner(*given, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "close", lambda *_, **__: None)  # a process that is killed closes nothing
            patch.setattr(Progress, "epoch", show)
            of_owner = getattr(owner, method)
            patch.setattr(owner, method, stop)
            with pytest.raises(Stop):
                fit(small("epochs=6"), RunContext(after_epoch=after_epoch, on_start=ids.append))
        return {**seen(ids[0]), "shown": shown[-1]}

    return stopped


@pytest.mark.parametrize(
    ("owner", "method", "kept"),
    [
        (checkpoint, "save", []),
        (Outbox, "add", ["checkpoint"]),
        (Outbox, "send", ["checkpoint", "journal"]),
        (Progress, "epoch", ["checkpoint", "journal", "store"]),
    ],
)
def test_what_comes_before_is_kept_and_what_comes_after_is_not_done(
    stopped: Callable[[Any, str], dict[str, int | None]], owner: Any, method: str, kept: list[str]
) -> None:
    places = stopped(owner, method)
    assert places == {place: STOPPED if place in kept else STOPPED - 1 for place in places}


def test_a_run_is_asked_whether_to_prune_it_before_its_checkpoint_says_why_it_stopped(
    here: Path, small: Compose
) -> None:
    result = fit(small("epochs=6"), RunContext(after_epoch=lambda epoch: epoch.number == STOPPED))
    (last,) = Path("mlruns").rglob(f"{result.run_id}/artifacts/checkpoints/last.ckpt")
    content = checkpoint.load(last)
    assert (content["epoch"], content["stop_reason"], result.stop_reason) == (STOPPED, "pruned", "pruned")
    assert seen(result.run_id)["store"] == STOPPED


def test_an_epoch_is_shown_with_the_best_that_is_kept_with_it(
    here: Path, small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    bests: list[float | None] = []
    values: list[float] = []

    def show(self: Progress, epoch: Epoch, schedule: object, best: float | None) -> None:
        bests.append(best)
        values.append(epoch.metrics["val/loss"])

    monkeypatch.setattr(Progress, "epoch", show)
    fit(small("epochs=4"))
    assert bests == [min(values[: i + 1]) for i in range(4)]


def test_lightning_calls_a_runs_own_callbacks_before_those_that_are_added(here: Path, small: Compose) -> None:
    """Also where a module's own hook, and what monitors a metric, come last."""
    epochs: list[int] = []

    class Added(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            (run,) = MlflowClient(absolute_uri(URI)).search_runs(["1"])
            epochs.append(len(MlflowClient(absolute_uri(URI)).get_metric_history(run.info.run_id, "val/loss")))

    in_order = callbacks.in_order
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "in_order", lambda *given: [*in_order(*given), Added()])
        fit(small("epochs=3"))
    assert epochs == [1, 2, 3]


def test_a_divergence_is_said_with_the_epoch_that_is_kept(
    here: Path, small: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    result = fit(small("epochs=6", "optimizer=sgd", "optimizer.lr=1e30", "clip=null"))
    assert result.stop_reason == "diverged"
    assert "diverged in epoch 1" in caplog.text


def test_a_state_that_could_not_be_read_again_ends_the_run_at_its_first_checkpoint(
    here: Path, small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(pl.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"seed": 2**63}

    monkeypatch.setattr("tbptt.runs.own_callbacks.built", lambda config: [Mine()])
    epochs: list[int] = []

    def after_epoch(epoch: Epoch) -> bool:
        epochs.append(epoch.number)
        return False

    with pytest.raises(ValueError, match=r"^callback=none: its state_dict holds .* more than 64 bits; takes tensors"):
        fit(small(), RunContext(after_epoch=after_epoch))
    assert epochs == [0]
    assert not list(here.rglob("*.ckpt"))


def test_of_a_runs_checkpoints_only_the_first_is_read_again_and_the_last_when_it_ends(
    here: Path, small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    load = checkpoint.load

    def noted(*words: Any) -> dict[str, Any]:
        content = load(*words)
        read.append(content["epoch"])
        return content

    monkeypatch.setattr(checkpoint, "load", noted)
    fit(small())
    assert read == [0, 2]

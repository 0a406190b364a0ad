"""Whatever stops a run at the end of an epoch: what comes before in the order of its callbacks is kept."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from mlflow import MlflowClient
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EarlyStopping

from tbptt.runs import callbacks, checkpoint, own_callbacks
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.journal import JOURNAL, Outbox, read_journal
from tbptt.runs.pending import pending_folder
from tbptt.runs.progress import Progress
from tbptt.runs.resume import resume_problems
from tbptt.system.runtime import Interrupted, StopSignals
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
        (checkpoint, "save_seen", []),
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


def test_a_state_that_only_later_could_not_be_read_again_ends_the_run_there(
    here: Path, small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(trainer: pl.Trainer, module: Any) -> None:
        if module.epoch == STOPPED:
            parameters = trainer.optimizers[0].param_groups[0]["params"]
            trainer.optimizers[0].state[parameters[0]]["rate"] = np.float64(1)

    monkeypatch.setattr("tbptt.runs.own_callbacks.built", lambda config: [AtTheEnd(spoil)])
    ids: list[str] = []
    with pytest.raises(ValueError, match=r"^optimizer=adam: its state_dict holds .*: it holds a float64; takes"):
        fit(small("epochs=6"), RunContext(on_start=ids.append))
    assert seen(ids[0]) == dict.fromkeys(("checkpoint", "journal", "store"), STOPPED - 1)


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
    assert read == [0, 2, 2, 2]  # and the best, where it is judged and where it becomes a model


# --- callbacks of the user's --------------------------------------------------------------------------------------

Given = Callable[[Callable[[], list[pl.Callback]]], None]
DIVERGES = ("optimizer=sgd", "optimizer.lr=1e30", "clip=null")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Has each run get such callbacks, as from the config's ``callback``."""
    return lambda build: monkeypatch.setattr(own_callbacks, "built", lambda config: build())


def content_of(run_id: str) -> dict[str, Any]:
    """What the last checkpoint of a run holds."""
    (last,) = Path("mlruns").rglob(f"{run_id}/artifacts/checkpoints/last.ckpt")
    return checkpoint.load(last)


def never_better(patience: int = 1) -> EarlyStopping:
    """Ends a run after ``patience`` epochs beside the first."""
    return EarlyStopping("val/loss", min_delta=1e9, patience=patience)


class AtTheEnd(pl.Callback):
    """Does something at the end of each epoch."""

    def __init__(self, does: Callable[[pl.Trainer, Any], None]):
        self.does = does

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.does(trainer, pl_module)


class StopAfter(StopSignals):
    """A SIGINT that comes after so many chunks."""

    def __init__(self, chunks: int):
        super().__init__()
        self.left = chunks + 3  # looks before the first chunk

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.signum = 2
        super().check()


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["schedule.patience=0", "epochs=9"], "schedule"), (["epochs=2"], "epochs"), ([*DIVERGES], "diverged")],
)
def test_a_callback_cannot_undo_that_a_run_ends(
    here: Path, small: Compose, given: Given, words: list[str], reason: str
) -> None:
    wanted = fit(small(*words))

    def go_on(trainer: pl.Trainer, module: Any) -> None:
        trainer.should_stop = False

    given(lambda: [AtTheEnd(go_on)])
    result = fit(small(*words))
    assert (wanted.stop_reason, result.stop_reason) == (reason, reason)
    assert content_of(result.run_id)["epoch"] == content_of(wanted.run_id)["epoch"]


def test_what_lightning_calls_last_ends_a_run_with_the_epoch_at_which_it_says_so(
    here: Path, small: Compose, given: Given
) -> None:
    given(lambda: [never_better(patience=2)])
    result = fit(small("epochs=6", "eval_every=6"))
    content = content_of(result.run_id)
    (state,) = content["callbacks"].values()
    assert (result.stop_reason, content["stop_reason"]) == ("callback", "callback")
    assert (content["epoch"], state["wait_count"], state["stopped_epoch"]) == (2, 2, 2)
    assert content["record"]["last"]
    assert "train/eval_loss" in content["record"]["metrics"]
    assert seen(result.run_id)["store"] == 2
    for more in ([], ["epochs=9"]):
        cfg = small(f"resume={result.run_id}", *more)
        (line,) = resume_problems(cfg, ["resume", *(["epochs"] if more else [])], wrong=False)
        assert line.endswith("that run has ended (callback)")


def test_an_interrupted_run_is_ended_by_a_callback_where_it_would_have_been(
    here: Path, small: Compose, given: Given
) -> None:
    given(lambda: [never_better(patience=3)])
    words = ("epochs=9", "schedule.chunks=[10]", "eval_every=2")
    whole = fit(small(*words))
    ids: list[str] = []
    with pytest.raises(Interrupted):
        fit(small(*words), RunContext(signals=StopAfter(25), on_start=ids.append))
    assert content_of(ids[0])["epoch"] == 1
    result = fit(small(*words), RunContext(resume=ids[0]))
    a, b = content_of(whole.run_id), content_of(result.run_id)
    assert (a["epoch"], result.stop_reason) == (3, "callback")
    assert (b["epoch"], b["stop_reason"]) == (a["epoch"], a["stop_reason"])
    (of_whole,), (of_result,) = a["callbacks"].values(), b["callbacks"].values()
    by_trainer = {"stopped_epoch": None}  # counted from where it was resumed
    assert of_result | by_trainer == of_whole | by_trainer
    assert all((a["model"][name] == b["model"][name]).all() for name in a["model"])


def doing(hook: str, does: Callable[[pl.Trainer], Any], epoch: int) -> pl.Callback:
    """Does something in a hook, in one epoch."""

    def do(self: pl.Callback, trainer: pl.Trainer, module: Any, *_: Any) -> Any:
        return does(trainer) if module.epoch == epoch else None

    return type("Mine", (pl.Callback,), {hook: do})()  # type: ignore[no-any-return]


def cancel(trainer: pl.Trainer) -> Any:
    raise StopIteration


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(
    ("hook", "does", "said"),
    [
        ("on_train_batch_start", lambda trainer: -1, "returned -1"),
        ("on_train_batch_start", cancel, "raised StopIteration"),
        ("on_train_batch_end", cancel, "raised StopIteration"),
        ("on_train_epoch_end", cancel, "raised StopIteration"),
    ],
)
def test_an_epoch_that_a_callback_would_skip_costs_a_line_and_is_not_kept(
    here: Path, small: Compose, given: Given, hook: str, does: Callable[[pl.Trainer], Any], said: str, epoch: int
) -> None:
    given(lambda: [doing(hook, does, epoch)])
    ids: list[str] = []
    with pytest.raises(ValueError, match=rf"^callback=none: {hook} of Mine {said}, .*; takes trainer.should_stop"):
        fit(small(), RunContext(on_start=ids.append))
    points = MlflowClient(absolute_uri(URI)).get_metric_history(ids[0], "val/loss")
    assert [point.step for point in points] == list(range(epoch))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_batch_start", "on_validation_start"])
def test_a_run_that_a_callback_stops_within_an_epoch_ends_with_it_as_one_of_so_many_epochs(
    here: Path, small: Compose, given: Given, hook: str, epoch: int
) -> None:
    wanted = content_of(fit(small(f"epochs={epoch + 1}")).run_id)
    given(lambda: [doing(hook, lambda trainer: setattr(trainer, "should_stop", True), epoch)])
    result = fit(small("epochs=3"))
    found = content_of(result.run_id)
    assert (result.stop_reason, found["epoch"]) == ("callback", epoch)
    without = {name for name in found["metrics"] if name.startswith("time/")}
    assert {n: v for n, v in found["metrics"].items() if n not in without} == {
        n: v for n, v in wanted["metrics"].items() if n not in without
    }
    assert all((found["model"][name] == wanted["model"][name]).all() for name in wanted["model"])


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss", "train/eval_loss", "grad/norm_mean"])
def test_what_monitors_a_metric_lets_a_divergence_be_one(
    here: Path, small: Compose, given: Given, monitor: str
) -> None:
    given(lambda: [EarlyStopping(monitor)])
    assert fit(small("epochs=6", *DIVERGES)).stop_reason == "diverged"


def test_a_metric_that_an_epoch_did_not_measure_is_not_that_of_another(
    here: Path, small: Compose, given: Given
) -> None:
    measured: list[bool] = []
    given(lambda: [AtTheEnd(lambda trainer, _: measured.append("train/eval_loss" in trainer.callback_metrics))])
    fit(small("epochs=5", "eval_every=2", "schedule.chunks=[10]"))
    assert measured == [False, True, False, True, True]


def test_a_check_before_the_metrics_are_known_is_refused(config: Compose) -> None:
    class Early:
        name = "early"

        def build(self) -> pl.Callback:
            return EarlyStopping("val/loss", check_on_train_epoch_end=False)

    with pytest.raises(ValueError, match=r"^callback=early: its EarlyStopping has check_on_train_epoch_end=False; "):
        own_callbacks.built(Early())  # type: ignore[arg-type]


def test_each_hook_reaches_all_callbacks_in_their_order(here: Path, small: Compose, given: Given) -> None:
    called: list[tuple[int, str]] = []

    def telling(number: int) -> pl.Callback:
        def tell(hook: str) -> Callable[..., None]:
            return lambda *_, **__: called.append((number, hook))

        hooks = [name for name in vars(pl.Callback) if name.startswith("on_") or name in ("setup", "teardown")]
        return type(f"Telling{number}", (pl.Callback,), {hook: staticmethod(tell(hook)) for hook in hooks})()

    given(lambda: [telling(0), telling(1)])
    fit(small("epochs=2"))
    first, second = called[::2], called[1::2]
    assert [hook for _, hook in first] == [hook for _, hook in second]
    assert ({number for number, _ in first}, {number for number, _ in second}) == ({0}, {1})
    hooks = [hook for _, hook in first]
    assert (hooks[0], hooks[-1]) == ("setup", "teardown")
    assert [hooks.count(f"on_{at}_end") for at in ("fit", "train_epoch", "validation")] == [1, 2, 2]


def test_a_callback_can_use_what_lightning_gives_it(here: Path, small: Compose, given: Given) -> None:
    class Logs(pl.Callback):
        seen = 0.0

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            self.log("mine", 3.0)

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            Logs.seen = trainer.callback_metrics["mine"].item()

    given(lambda: [Logs()])
    fit(small("epochs=1"))
    assert Logs.seen == 3.0


@pytest.mark.parametrize(
    "optimizer",
    ["adam lr_schedule=constant", "muon", "adam lr_schedule=by_chunk", "muon lr_schedule=warmup lr_schedule.warmup=15"],
)
def test_a_learning_rate_that_a_callback_sets_is_logged_and_is_a_resumed_runs(
    here: Path, small: Compose, given: Given, optimizer: str
) -> None:
    def halve(trainer: pl.Trainer, module: Any) -> None:
        if module.epoch == 0:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= 0.5

    given(lambda: [AtTheEnd(halve)])
    words = (*f"optimizer={optimizer}".split(), "schedule.chunks=[10]")
    whole = fit(small(*words, "epochs=4"))
    part = fit(small(*words, "epochs=2"))
    fit(small(*words, "epochs=4"), RunContext(resume=part.run_id))
    client = MlflowClient(absolute_uri(URI))
    lr = small(*words).optimizer.lr
    for run_id in (whole.run_id, part.run_id):
        points = sorted((point.step, point.value) for point in client.get_metric_history(run_id, "lr"))
        scheduled = {"by_chunk": lambda epoch: 0.1, "warmup": lambda epoch: min(1, 10 * (epoch + 1) / 15)}
        factor = scheduled.get(small(*words).lr_schedule.name, lambda epoch: 1.0)
        expected = [lr * factor(0), *(lr / 2 * factor(epoch) for epoch in (1, 2, 3))]
        assert [step for step, _ in points] == [0, 1, 2, 3]
        assert [rate for _, rate in points] == pytest.approx(expected, rel=1e-12)
    a, b = content_of(whole.run_id)["model"], content_of(part.run_id)["model"]
    assert all((a[name] == b[name]).all() for name in a)

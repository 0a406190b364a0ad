"""One run from config to objective: what it leaves in MLflow is complete, and every number there is right."""

import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONF, SMALL
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path
from omegaconf import DictConfig

from tbptt import load_run
from tbptt.config.plain import plain
from tbptt.config.schema import register
from tbptt.data.prices import HELD_OUT, TRAINING, article_series
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import Result, fit, train
from tbptt.system.runtime import Interrupted

# Seven epochs in three stages of 10, 4 and 1 chunks; 123 steps do not divide evenly; about half of the updates clip.
SETTINGS = [
    "data.length=123",
    "schedule.chunks=[10,4,1]",
    "epochs=7",
    "eval_every=3",
    "clip=0.4",
    "tracking.update_points=3",
    *("lr_schedule=constant", "seed=2"),  # with which the best epoch is not the last
]
CHUNKS = [10, 10, 4, 4, 1, 1, 1]
EVALUATED = {1, 2, 3, 5, 6}  # ends of stages: 1, 3; every third: 2, 5; the last: 6
EVERY_EPOCH = {
    "train/loss",
    "val/loss",
    "val/mae",
    "val/right_side",
    "val/skill",
    "val/value",
    "val/turnover",
    "val/advantage_r2",
    "train/chunk_loss_max",
    "grad/norm_max",
    "grad/norm_mean",
    "grad/clipped_fraction",
    "schedule/chunks",
    "lr",
    "time/epoch_seconds",
    "time/timesteps_per_second",
    "time/train_seconds",
}
BY_UPDATE = {"train/chunk_loss", "grad/norm"}
AT_THE_END = {  # beside test/skill_over_NAME and test/value_over_SIDE with their intervals
    *(f"baseline/{name}/{part}_loss" for name in ("mean", "zero", "ridge", "clock") for part in ("val", "test")),
    *(f"baseline/{name}/{part}_value" for name in ("long", "short", "flat") for part in ("val", "test")),
    *(f"test/{name}" for name in ("loss", "mae", "right_side", "skill", "value", "turnover", "advantage_r2")),
    "test/observations",
}

Fit = Callable[..., "Trained"]


class Trained(NamedTuple):
    """A finished run as the store has it."""

    cfg: DictConfig
    result: Result
    run: Run
    client: MlflowClient
    uri: str

    def curve(self, name: str) -> dict[int, float]:
        """A metric by step; fails where a step has two points."""
        history = self.client.get_metric_history(self.run.info.run_id, name)
        assert len({m.step for m in history}) == len(history)
        return {m.step: m.value for m in sorted(history, key=lambda m: m.step)}

    def artifact(self, path: str) -> Path:
        return artifacts(self.run) / path

    def updates(self) -> pd.DataFrame:
        return pd.read_parquet(self.artifact("updates.parquet"))

    def checkpoint(self, which: str) -> dict[str, Any]:
        return torch.load(self.artifact(f"checkpoints/{which}.ckpt"), weights_only=True)


def artifacts(run: Run) -> Path:
    """The folder of a run's artifacts: where the store says, without copying them."""
    return Path(local_file_uri_to_path(run.info.artifact_uri))


def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def latest(client: MlflowClient) -> Run:
    return client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1)[0]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Trains the small config with overrides; all runs in one store, as making one takes a second."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('runs')}/mlflow.db"

    def fitted(*overrides: str, base: list[str] = SMALL, **arguments: Any) -> Trained:
        cfg = composed(*base, f"tracking.uri={uri}", *overrides)
        result = fit(cfg, RunContext(**arguments))
        client = MlflowClient(uri)
        return Trained(cfg, result, client.get_run(result.run_id), client, uri)

    fitted.uri = uri  # type: ignore[attr-defined]
    return fitted


@pytest.fixture(scope="module")
def trained(fitted: Fit) -> Trained:
    return fitted(*SETTINGS)


@pytest.fixture(scope="module")
def plain_run(fitted: Fit) -> Trained:
    """The small config without overrides."""
    return fitted()


@pytest.fixture(scope="module")
def plain_losses(plain_run: Trained) -> list[float]:
    """Of every update of it."""
    return losses(plain_run)


def losses(trained: Trained) -> list[float]:
    return trained.updates()["loss"].tolist()


# --- what a run leaves ----------------------------------------------------------------------------------------


def test_every_promised_metric_is_there_and_no_other(trained: Trained) -> None:
    by_epoch = EVERY_EPOCH | {"train/eval_loss"}
    found = set(trained.run.data.metrics)
    assert {name for name in found if not name.startswith("best/")} == by_epoch | BY_UPDATE | result_of(trained)
    assert found - by_epoch - BY_UPDATE - result_of(trained) <= {"best/epoch", *(f"best/{name}" for name in by_epoch)}


def result_of(trained: Trained) -> set[str]:
    """The names of what a run comes to; the baseline and the side that are best on val are the numbers' own."""
    at = trained.run.data.metrics
    best = min(("mean", "zero", "ridge", "clock"), key=lambda name: at[f"baseline/{name}/val_loss"])
    side = max(("long", "short", "flat"), key=lambda name: at[f"baseline/{name}/val_value"])
    verdicts = ("test/skill_over_mean", f"test/skill_over_{best}", f"test/value_over_{side}")
    return AT_THE_END | {name + end for name in verdicts for end in ("", "_low", "_high")}


def test_what_a_table_is_sorted_by_is_of_the_best_epoch_where_columns_show_the_last(trained: Trained) -> None:
    losses, shown = trained.curve("val/loss"), trained.run.data.metrics
    best = min(losses, key=lambda epoch: losses[epoch])
    assert best != max(losses)  # else the test says nothing
    assert shown["val/loss"] == losses[max(losses)]
    assert shown["best/epoch"] == best + 1  # a person counts from 1
    for name in EVERY_EPOCH | {"train/eval_loss"}:
        at_best = trained.curve(name).get(best)
        assert trained.curve(f"best/{name}") == ({} if at_best is None else {0: at_best}), name  # bars


@pytest.mark.parametrize("name", sorted(EVERY_EPOCH))
def test_metric_has_one_point_an_epoch(name: str, trained: Trained) -> None:
    assert list(trained.curve(name)) == list(range(7))
    assert all(map(math.isfinite, trained.curve(name).values()))


def test_eval_loss_is_measured_when_due_at_stage_ends_and_at_the_last_epoch(trained: Trained) -> None:
    assert set(trained.curve("train/eval_loss")) == EVALUATED


def test_chunks_follow_the_schedule(trained: Trained) -> None:
    assert list(trained.curve("schedule/chunks").values()) == CHUNKS


def test_updates_of_an_epoch_are_its_chunks(trained: Trained) -> None:
    table = trained.updates()
    assert table["update"].tolist() == list(range(sum(CHUNKS)))
    assert table.groupby("epoch").size().tolist() == CHUNKS
    assert table.groupby("epoch")["chunks"].unique().tolist() == [[n] for n in CHUNKS]


@pytest.mark.parametrize("most", [0, 1, 4, 10, 11])
def test_updates_are_thinned_evenly_to_at_most_so_many_an_epoch(most: int, fitted: Fit) -> None:
    run = fitted(f"tracking.update_points={most}", "schedule.chunks=[10]", "epochs=2")
    for name in ("train/chunk_loss", "grad/norm"):
        steps = list(run.curve(name)) if most else []
        assert (name in run.run.data.metrics) is (most > 0)
        for epoch in (0, 1):
            kept = [step - 10 * epoch for step in steps if step // 10 == epoch]
            assert len(kept) == min(most, 10)
            gaps = np.diff([-1, *kept])
            assert not kept or (kept[-1] == 9 and max(gaps) - min(gaps) <= 1)
    assert len(run.updates()) == 20


def test_more_points_than_one_call_takes_all_arrive(fitted: Fit) -> None:
    run = fitted("data.length=600", "schedule.chunks=[600]", "tracking.update_points=600", "epochs=1")
    assert list(run.curve("grad/norm")) == list(range(600))
    assert list(run.curve("train/chunk_loss").values()) == pytest.approx(losses(run), rel=1e-6)


def test_metrics_are_sent_in_a_call_an_epoch_and_one_each_for_the_best_its_model_and_the_result(
    fitted: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    send = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, metrics: Any = (), **more: Any) -> None:
        calls.append(len(metrics))
        send(self, run_id, metrics=metrics, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    monkeypatch.setattr(MlflowClient, "log_metric", lambda *_, **__: pytest.fail("a call a point"))
    result = len(result_of(fitted("eval_every=1")))
    by_epoch = len(EVERY_EPOCH) + 1  # and train/eval_loss
    expected = [*(by_epoch + 2 * chunks for chunks in (10, 2, 1)), by_epoch + 1, by_epoch, result]
    assert [count for count in calls if count] == expected


@pytest.mark.parametrize(("name", "column"), [("train/chunk_loss", "loss"), ("grad/norm", "grad_norm")])
def test_update_metrics_are_thinned_and_agree_with_the_artifact(name: str, column: str, trained: Trained) -> None:
    table, curve = trained.updates().set_index("update"), trained.curve(name)
    epochs = [int(table["epoch"][step]) for step in curve]
    assert [epochs.count(epoch) for epoch in range(7)] == [min(3, n) for n in CHUNKS]
    assert list(curve.values()) == pytest.approx([table[column][step] for step in curve], rel=1e-6)


def test_train_loss_is_the_mean_of_the_chunk_losses_weighted_by_steps(trained: Trained) -> None:
    for epoch, group in trained.updates().groupby("epoch"):
        steps = [len(part) for part in np.array_split(np.arange(123), CHUNKS[epoch])]
        expected = np.average(group["loss"].to_numpy(np.float64), weights=steps)
        assert trained.curve("train/loss")[epoch] == pytest.approx(expected, rel=1e-6)


def test_gradient_metrics_sum_up_the_updates(trained: Trained) -> None:
    by_epoch = trained.updates().groupby("epoch")
    fraction = by_epoch["clipped"].mean()
    for name, expected in {
        "train/chunk_loss_max": by_epoch["loss"].max(),
        "grad/norm_max": by_epoch["grad_norm"].max(),
        "grad/norm_mean": by_epoch["grad_norm"].mean(),
        "grad/clipped_fraction": fraction,
    }.items():
        assert list(trained.curve(name).values()) == pytest.approx(expected.tolist(), rel=1e-5), name
    assert ((fraction > 0) & (fraction < 1)).any()  # or this would prove little


def test_an_update_is_clipped_where_its_norm_is_above_the_clip(trained: Trained) -> None:
    table = trained.updates()
    assert table["clipped"].tolist() == (table["grad_norm"] > 0.4).tolist()


def test_times_add_up_and_speed_counts_every_step_once(trained: Trained) -> None:
    seconds = np.diff([0.0, *trained.curve("time/train_seconds").values()])
    assert (seconds > 0).all()
    assert (seconds <= list(trained.curve("time/epoch_seconds").values())).all()
    speed = np.array(list(trained.curve("time/timesteps_per_second").values()))
    assert speed * seconds == pytest.approx([3 * 123] * 7, rel=1e-6)


def test_params_are_the_flattened_config_as_it_would_be_typed(trained: Trained) -> None:
    parser = OverridesParser.create()
    typed = {name: parser.parse_override(f"{name}={text}").value() for name, text in trained.run.data.params.items()}
    content = plain(trained.cfg)
    of_a_run = {k: v for k, v in content.items() if k not in ("study", "space", "sweep", "resume", "notes", "tags")}

    def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        parts = (flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k: v} for k, v in node.items())
        return {name: value for part in parts for name, value in part.items()}

    expected = flat(of_a_run)
    assert {name: typed.get(name, "missing") for name in expected} == expected
    assert {name.partition(".")[0] for name in typed} <= set(content)


def test_tags_say_which_code_and_data_and_how_it_ended(trained: Trained) -> None:
    tags = trained.run.data.tags
    assert tags["stop.reason"] == "epochs"
    assert len(tags["data.fingerprint"]) == 64
    assert {"versions.torch", "versions.mlflow", "versions.tbptt", "baseline.val_loss"} <= set(tags)
    assert "mlflow.parentRunId" not in tags
    assert trained.run.info.status == "FINISHED"
    assert trained.run.info.end_time >= trained.run.info.start_time


def test_artifacts_are_those_promised(trained: Trained) -> None:
    run_id = trained.run.info.run_id
    assert {f.path for f in trained.client.list_artifacts(run_id)} == {
        "checkpoints",
        "config.yaml",
        "evaluation.json",
        "evaluation.npz",
        "updates.parquet",
    }
    listed = {f.path for f in trained.client.list_artifacts(run_id, "checkpoints")}
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= listed
    assert all(path.endswith(".ckpt") for path in listed)  # nothing half-written


def test_default_store_is_below_the_working_directory_and_nothing_else_is_left(small: Any, here: Path) -> None:
    assert train(small("epochs=1")) is not None
    assert [p.name for p in here.iterdir()] == ["mlruns"]
    assert latest(MlflowClient("sqlite:///mlruns/mlflow.db")).info.status == "FINISHED"


# --- the numbers are right ------------------------------------------------------------------------------------


def bellman(prices: np.ndarray, gamma: float, fee: float) -> np.ndarray:
    """Q-values of buying and selling, (B, N - 1, 2), straight from the equation."""
    change = np.diff(prices, axis=1)
    q = np.zeros((*prices.shape, 2))
    for t in reversed(range(change.shape[1])):
        for action, other, sign in ((0, 1, 1), (1, 0, -1)):
            stay, turn = q[:, t + 1, action], q[:, t + 1, other] - 2 * fee
            q[:, t, action] = sign * change[:, t] + gamma * np.maximum(stay, turn)
    return q[:, :-1]


def targets(part: int, count: int, length: int = 123, window: int = 8, gamma: float = 0.9) -> np.ndarray:
    """Of the trained steps of the small config, in price units, (B, T, 2)."""
    horizon = math.ceil(math.log(0.01) / math.log(gamma))
    prices = article_series(count, window + length + horizon + 1, seed=0, part=part)
    return bellman(prices[:, window:], gamma, 0.02)[:, :length]


def test_baseline_is_the_held_out_loss_of_the_training_mean(trained: Trained) -> None:
    q = targets(TRAINING, 3)
    mean = q.mean((0, 1))
    variance = ((q - mean) ** 2).mean()
    expected = ((targets(HELD_OUT, 2) - mean) ** 2).mean() / variance
    assert float(trained.run.data.tags["baseline.val_loss"]) == pytest.approx(expected, rel=1e-5)
    assert trained.result.baseline == pytest.approx(expected, rel=1e-5)


def frozen_loss(trained: Trained, which: str, part: int, count: int) -> float:
    """Of a checkpoint, worked out from prices and predictions in price units."""
    model, scaler, _ = load_run(trained.result.run_id, trained.uri, which)
    prices = article_series(count, 8 + 123, seed=0, part=part)
    lags = np.stack([prices[:, 8:] - prices[:, 8 - k : -k] for k in range(1, 9)], -1)  # (B, T, W)
    inputs = (torch.from_numpy(lags) - scaler.input_mean) / scaler.input_std
    with torch.no_grad():
        y, _ = model(inputs.float(), model.zero_state(count))
    error = scaler.to_price_units(y).numpy() - targets(part, count)
    return float((error**2).mean() / scaler.target_std.item() ** 2)


def test_held_out_loss_is_that_of_the_best_checkpoint(trained: Trained) -> None:
    curve = trained.curve("val/loss")
    best = trained.result.best
    assert best.epoch == min(curve, key=curve.__getitem__)
    assert best.value == pytest.approx(min(curve.values()))
    assert frozen_loss(trained, "best", HELD_OUT, 2) == pytest.approx(best.value, rel=1e-4)


def test_losses_of_the_last_epoch_are_those_of_the_last_checkpoint(trained: Trained) -> None:
    assert frozen_loss(trained, "last", HELD_OUT, 2) == pytest.approx(trained.curve("val/loss")[6], rel=1e-4)
    assert frozen_loss(trained, "last", TRAINING, 3) == pytest.approx(trained.curve("train/eval_loss")[6], rel=1e-4)


def test_checkpoints_are_of_their_epochs(trained: Trained) -> None:
    assert trained.checkpoint("last")["epoch"] == 6
    assert trained.checkpoint("best")["epoch"] == trained.result.best.epoch
    assert trained.checkpoint("last")["updates"] == sum(CHUNKS)


@pytest.mark.parametrize(
    ("objective", "pick"), [("time/timesteps_per_second", max), ("train/loss", min), ("grad/norm_max", min)]
)
def test_best_epoch_is_that_of_the_objective_in_its_direction(objective: str, pick: Any, fitted: Fit) -> None:
    run = fitted(f"objective={objective}")
    curve = run.curve(objective)
    assert run.result.best.value == pytest.approx(pick(curve.values()))
    assert run.checkpoint("best")["epoch"] == run.result.best.epoch == pick(curve, key=curve.__getitem__)


def test_objective_that_is_not_measured_every_epoch_counts_where_it_is(fitted: Fit) -> None:
    run = fitted("objective=train/eval_loss", "epochs=4", "schedule.chunks=[10]", "eval_every=2")
    curve = run.curve("train/eval_loss")
    assert set(curve) == {1, 3}
    assert run.result.best.value == pytest.approx(min(curve.values()))


def test_several_objectives_are_all_read_at_the_first_ones_best_epoch(fitted: Fit) -> None:
    run = fitted("objective=[val/loss,grad/norm_max,train/loss]", "optimizer.lr=0.1", "epochs=6")
    best = run.result.best
    assert best.epoch is not None
    assert best.values == tuple(run.curve(name)[best.epoch] for name in ("val/loss", "grad/norm_max", "train/loss"))
    assert best.values[0] == min(run.curve("val/loss").values())


def test_train_returns_the_objective_of_the_best_epoch(fitted: Fit, small: Any, plain_run: Trained) -> None:
    tracking = f"tracking.uri={fitted.uri}"  # type: ignore[attr-defined]
    one, two = train(small(tracking)), train(small(tracking, "objective=[val/loss,train/loss]"))
    assert isinstance(two, tuple)
    assert one == two[0] == plain_run.result.best.value
    assert len(two) == 2


# --- how a run ends -------------------------------------------------------------------------------------------


def test_training_ends_with_the_patience_of_the_last_stage(fitted: Fit) -> None:
    standing_still = ["optimizer=sgd", "optimizer.lr=1e-30", "model.noise_std=0"]
    run = fitted(*standing_still, "schedule.chunks=[4,2]", "schedule.patience=1", "epochs=20")
    assert list(run.curve("schedule/chunks").values()) == [4, 4, 2, 2]
    assert set(run.curve("train/eval_loss")) == {1, 3}
    assert run.run.data.tags["stop.reason"] == run.result.stop_reason == "schedule"
    assert run.run.info.status == "FINISHED"


def test_pruned_run_is_killed_after_the_epoch_that_pruned_it(fitted: Fit) -> None:
    seen: list[Epoch] = []

    def prune(epoch: Epoch) -> bool:
        seen.append(epoch)
        return epoch.number == 1

    run = fitted("epochs=5", after_epoch=prune)
    assert [epoch.metrics["val/loss"] for epoch in seen] == list(run.curve("val/loss").values())
    assert len(seen) == 2
    assert run.run.data.tags["stop.reason"] == run.result.stop_reason == "pruned"
    assert run.run.info.status == "KILLED"
    assert run.checkpoint("last")["epoch"] == 1
    assert len(run.updates()) == sum(len(epoch.losses) for epoch in seen)


def test_finished_run_cannot_be_pruned(fitted: Fit) -> None:
    run = fitted("epochs=2", after_epoch=lambda epoch: epoch.number == 1)
    assert (run.result.stop_reason, run.run.info.status) == ("epochs", "FINISHED")


DIVERGES = {
    "at_once": ["optimizer.lr=1e30", "schedule.chunks=[10]"],
    "in_one_update": ["optimizer=sgd", "clip=null", "optimizer.lr=1e38", "schedule.chunks=[1]"],
    "later": ["optimizer=sgd", "clip=null", "optimizer.lr=5", "schedule.chunks=[10]", "epochs=50"],
}


def assert_best_is_kept(run: Trained) -> None:
    curve = run.curve("val/loss")
    assert 1 < len(run.curve("schedule/chunks")) < 50  # so it had good epochs, and did not end by itself
    assert run.result.best.value == pytest.approx(min(curve.values()))
    assert run.checkpoint("best")["epoch"] == run.result.best.epoch


@pytest.mark.parametrize("overrides", DIVERGES.values(), ids=DIVERGES)
def test_diverged_run_is_a_result_with_finite_weights_and_curves(
    overrides: list[str], fitted: Fit, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = fitted(*overrides)
    if overrides == DIVERGES["later"]:
        assert_best_is_kept(run)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "diverged" in warnings[0].getMessage()
    assert warnings[0].name == "tbptt"
    assert run.run.data.tags["stop.reason"] == run.result.stop_reason == "diverged"
    assert run.run.info.status == "FINISHED"
    for name in run.run.data.metrics:
        assert all(abs(value) < 1e308 for value in run.curve(name).values()), name  # MLflow's inf is 1.8e308
    assert np.isfinite(run.updates()[["loss", "grad_norm"]].to_numpy()).all()
    for path in run.artifact("checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        assert all(weight.isfinite().all() for weight in content["model"].values())
        averages = [v for state in content["optimizer"]["state"].values() for v in state.values()]
        assert all(v.isfinite().all() for v in averages if isinstance(v, torch.Tensor))
    assert run.checkpoint("last")["epoch"] == max(run.curve("schedule/chunks"))


def test_error_fails_the_run_and_is_passed_on(fitted: Fit) -> None:
    def broken(epoch: Epoch) -> bool:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        fitted(after_epoch=broken)
    run = latest(MlflowClient(fitted.uri))  # type: ignore[attr-defined]
    assert (run.info.status, run.data.tags["stop.reason"]) == ("FAILED", "error")
    assert run.info.end_time is not None


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_kills_the_run_and_leaves_the_handlers_as_they_were(stop: signal.Signals, fitted: Fit) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    def interrupt(epoch: Epoch) -> bool:
        if epoch.number == 1:
            os.kill(os.getpid(), stop)
        return False

    with pytest.raises(Interrupted, match=stop.name) as caught:
        fitted("epochs=1000", after_epoch=interrupt)
    assert caught.value.signum == stop
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    client = MlflowClient(fitted.uri)  # type: ignore[attr-defined]
    run = latest(client)
    assert (run.info.status, run.data.tags["stop.reason"]) == ("KILLED", "interrupted")
    assert len(client.get_metric_history(run.info.run_id, "val/loss")) == 2  # no third epoch was finished
    assert len(pd.read_parquet(artifacts(run) / "updates.parquet")) > 0


def test_signal_ends_the_preparation_of_data_at_once_and_leaves_no_run(fitted: Fit, plain_run: Trained) -> None:
    def endless(data: Any, task: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    client = MlflowClient(fitted.uri)  # type: ignore[attr-defined]
    last = latest(client)
    with pytest.raises(Interrupted, match=r"SIGTERM$"):
        fitted(prepare=endless)
    assert latest(client).info.run_id == last.info.run_id


# --- the same again, and not the same -------------------------------------------------------------------------


def test_same_seed_gives_the_same_curve_exactly(fitted: Fit, plain_run: Trained) -> None:
    again = fitted()
    assert losses(again) == losses(plain_run)
    assert again.curve("val/loss") == plain_run.curve("val/loss")


def test_other_work_before_a_run_does_not_change_it(fitted: Fit, plain_losses: list[float]) -> None:
    torch.manual_seed(123)
    torch.rand(1000)
    np.random.seed(5)  # noqa: NPY002
    assert losses(fitted()) == plain_losses


def test_how_often_is_evaluated_does_not_change_training(fitted: Fit, plain_losses: list[float]) -> None:
    assert losses(fitted("eval_every=1", "tracking.update_points=0")) == plain_losses


def test_another_seed_gives_another_curve_on_the_same_data(fitted: Fit, trained: Trained) -> None:
    a, b = fitted("seed=0"), fitted("seed=1")
    assert losses(a) != losses(b)
    for tag in ("data.fingerprint", "baseline.val_loss"):
        assert a.run.data.tags[tag] == b.run.data.tags[tag]


def test_seed_and_data_seed_are_independent(fitted: Fit) -> None:
    standing_still = ["seed=0", "data.seed=0", "optimizer=sgd", "optimizer.lr=1e-30", "epochs=1"]
    base = fitted(*standing_still)
    data = fitted(*standing_still, "data.seed=1")
    weights = fitted(*standing_still, "seed=1")
    assert data.run.data.tags["data.fingerprint"] != base.run.data.tags["data.fingerprint"]
    assert losses(data) != losses(base)
    head = "head.weight"
    assert torch.equal(data.checkpoint("last")["model"][head], base.checkpoint("last")["model"][head])
    assert not torch.equal(weights.checkpoint("last")["model"][head], base.checkpoint("last")["model"][head])


# --- every choice trains --------------------------------------------------------------------------------------

CHOICES = [
    ["model.cell=gru"],
    ["model.init=torch"],
    ["model.dense=[]", "model.hidden=[8,4]"],
    ["precision=bf16"],
    ["data.features=one_step_change"],
    ["task.fee=0", "task.horizon=0"],
    ["schedule=full"],
    ["schedule=geometric", "schedule.start=60", "schedule.stages=3"],
    ["clip=null", "optimizer.lr=0.03"],
    *([f"optimizer={name}"] for name in ("sgd", "momentum", "rmsprop", "adamw", "adagrad", "adadelta")),
    *([f"clip_mode={mode}", "clip=0.1"] for mode in ("norm", "tensor_norm", "value", "std")),
]


@pytest.fixture(scope="module")
def curves() -> dict[tuple[float, ...], str]:
    """Curves seen so far, by choice."""
    return {}


def assert_trained(run: Trained) -> None:
    assert run.run.data.tags["stop.reason"] == "epochs"
    assert set(run.run.data.metrics) >= EVERY_EPOCH | {"train/eval_loss"}
    assert all(map(math.isfinite, run.run.data.metrics.values()))
    assert all(map(math.isfinite, losses(run)))


@pytest.mark.parametrize("overrides", CHOICES, ids=" ".join)
def test_choice_trains_and_makes_a_difference(
    overrides: list[str], fitted: Fit, plain_losses: list[float], curves: dict[tuple[float, ...], str]
) -> None:
    chunks = [] if overrides[0].startswith("schedule=") else ["schedule.chunks=[10,2,1]"]
    base = [word for word in SMALL if not word.startswith("schedule.")]
    run = fitted(*chunks, *overrides, base=base)
    assert_trained(run)
    curve = tuple(losses(run))
    assert list(curve) != plain_losses
    assert curve not in curves, f"trains as {curves.get(curve)} does"
    curves[curve] = " ".join(overrides)


def test_market_prices_train(fitted: Fit) -> None:
    base = [word for word in SMALL if not word.startswith("data.")]
    small = ["data=market", "data.columns=[sp500]", "data.window=8", "task.gamma=0.9", "epochs=1"]
    run = fitted(*small, "schedule.chunks=[10]", base=base)
    assert_trained(run)
    assert run.run.data.params["data.columns"] == '["sp500"]'


def test_series_of_different_lengths_train_weighted_by_their_steps(fitted: Fit, tmp_path: Path) -> None:
    prices = article_series(3, 300, seed=3, part=TRAINING)
    lengths = [300, 200, 111]
    rows = [",".join(f"{p[t]:.2f}" if t < n else "" for p, n in zip(prices, lengths, strict=True)) for t in range(300)]
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(["a,b,c", *rows]))
    base = [word for word in SMALL if not word.startswith("data.")]
    small = ["data=prices", f"data.path={path}", "data.window=8", "task.horizon=5", "schedule.chunks=[7]", "epochs=2"]
    small += ["data.test_fraction=0", "data.split=each"]
    run = fitted(*small, base=base)
    assert_trained(run)
    steps = np.array([n - n // 5 - 2 - 5 - 8 + 1 for n in lengths])  # window..n-v-2-horizon
    table = run.updates()
    for epoch in range(2):
        parts = np.array_split(np.arange(max(steps)), 7)
        weights = [sum((part < n).sum() for n in steps) for part in parts]
        expected = np.average(table["loss"][table["epoch"] == epoch].to_numpy(np.float64), weights=weights)
        assert run.curve("train/loss")[epoch] == pytest.approx(expected, rel=1e-6)
    speed, seconds = run.curve("time/timesteps_per_second"), run.curve("time/train_seconds")
    assert speed[0] * seconds[0] == pytest.approx(steps.sum(), rel=1e-6)

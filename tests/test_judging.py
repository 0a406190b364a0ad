"""The end of a run: what is written, what MLflow gets, and when the test part is looked at."""

import csv
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from conftest import CONF, SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf

from tbptt.cli.main import job, run
from tbptt.evaluation import judged
from tbptt.evaluation.losses import measure
from tbptt.evaluation.results import Judged
from tbptt.options.metrics import measured
from tbptt.runs import judging
from tbptt.runs.callbacks import ShowProgress
from tbptt.runs.context import RunContext
from tbptt.runs.fit import Result, fit
from tbptt.runs.module import SequenceModule
from tbptt.runs.tracking import Run, Store
from tbptt.serving.load import load_run
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.tasks.prepare import prepare

Compose = Callable[..., DictConfig]
Captured = pytest.CaptureFixture[str]

OF_FILES = [
    *(word for word in SMALL if not word.startswith(("data.n_series", "data.val_series", "data.length"))),
    "data=prices",
    "data.path=p.csv",
    "data.warm_steps=20",
    "data.split=each",  # so that the series that ends earlier is scored too
    "task.gamma=0.5",
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a store that the runs here share, as making one takes a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def files(here: Path, config: Compose, uri: str, request: pytest.FixtureRequest) -> Compose:
    """The config of a small run on a file of two walks, of which one ends earlier; each test has others."""
    random = np.random.default_rng(zlib.crc32(request.node.name.encode()))
    rows = [f"{a},{b if i < 1200 else ''}" for i, (a, b) in enumerate(100 + random.normal(0, 1, (1500, 2)).cumsum(0))]
    Path("p.csv").write_text("\n".join(["a,b", *rows]))
    return lambda *overrides: config(*OF_FILES, f"tracking.uri={uri}", *overrides)


def run_of(cfg: DictConfig, result: Result) -> Run:
    found = Store(OmegaConf.to_object(cfg.tracking)).run(result.run_id)  # type: ignore[arg-type]
    assert found is not None
    return found


def metrics_of(cfg: DictConfig, run_id: str) -> dict[str, float]:
    return dict(MlflowClient(cfg.tracking.uri).get_run(run_id).data.metrics)


def tags_of(cfg: DictConfig, run_id: str) -> dict[str, str]:
    return dict(MlflowClient(cfg.tracking.uri).get_run(run_id).data.tags)


def test_a_run_leaves_its_result_in_two_files_and_in_its_store(files: Compose) -> None:
    cfg = files()
    result = fit(cfg)
    run = run_of(cfg, result)
    content = json.loads((run.folder / "evaluation.json").read_text())
    judged = Judged.of(content)
    assert judged.test is not None
    assert judged.decision is not None
    found, tags = metrics_of(cfg, result.run_id), tags_of(cfg, result.run_id)
    for name in ("loss", "skill", "value", "turnover", "advantage_r2", "mae", "right_side"):
        assert found[f"test/{name}"] == pytest.approx(judged.test.metrics[name])
    for part, kept in (("val", judged.val), ("test", judged.test)):
        for name in ("mean", "zero", "ridge"):
            assert found[f"baseline/{name}/{part}_loss"] == pytest.approx(kept.baselines[name])
        for name in ("long", "short", "flat"):
            assert found[f"baseline/{name}/{part}_value"] == pytest.approx(kept.sides[name])
    assert found["test/observations"] == pytest.approx(judged.test.observations)
    assert found["test/skill_over_mean"] == pytest.approx(judged.skill["mean"].estimate)
    assert found["test/skill_over_mean_low"] == judged.skill["mean"].low
    assert found[f"test/value_over_{judged.best_side}"] == pytest.approx(judged.decision.estimate)
    assert tags["verdict.mean"] == f"{judged.skill['mean'].word} mean"
    assert tags["verdict.decision"] == f"{judged.decision.word} {judged.best_side}"
    assert tags["data.test_fingerprint"] == content["data.test_fingerprint"]
    assert found["best/val/loss"] == pytest.approx(judged.val.metrics["loss"])
    with np.load(run.folder / "evaluation.npz", allow_pickle=False) as steps:
        assert {"val/loss", "test/loss", "test/mean", "test/profit", "drawn/predicted"} <= set(steps)
        assert steps["val/loss"].dtype == np.float32


def test_what_is_judged_are_the_best_epochs_weights(files: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured anew with what load_run gives; the last epoch's weights are other ones."""
    cfg = files()

    def spoil(_: ShowProgress, module: SequenceModule, epoch: Any) -> None:  # what comes last of an epoch
        with torch.no_grad():
            for weight in module.network.parameters():
                weight.mul_(20)

    monkeypatch.setattr(ShowProgress, "take", spoil)
    result = fit(cfg)
    assert result.best.epoch is not None
    assert result.best.epoch < 2
    network, _, own = load_run(result.run_id, cfg.tracking.uri)
    test = prepare(OmegaConf.to_object(own.data), OmegaConf.to_object(own.task)).test()  # type: ignore[arg-type]
    assert test is not None
    expected = measure(network, test, measured("q_values"))
    found = metrics_of(cfg, result.run_id)
    for name, value in expected.items():
        assert found[f"test/{name.removeprefix('val/')}"] == pytest.approx(value.item(), rel=1e-5), name


def test_warm_up_is_as_if_the_state_had_come_from_the_steps_before(files: Compose) -> None:
    """The test loss is that of one pass over the steps of warm-up and the scored ones, of which the former count
    nothing: written out with the network alone, series by series."""
    cfg = files()
    result = fit(cfg)
    network, scaler, _ = load_run(result.run_id, cfg.tracking.uri)
    data, task = OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)
    found = prepare(data, task)  # type: ignore[arg-type]
    total, count = 0.0, 0
    series = {name: each.prices for name, each in data.prices().series.items()}  # type: ignore[union-attr]
    for b, (name, prices) in enumerate(series.items()):
        n, window, ahead = len(prices), 8, found.split.ahead
        border = n - n // 5
        at = range(border - 20, n - ahead)
        lags = np.array([[prices[t] - prices[t - k] for k in range(1, window + 1)] for t in at])
        x = torch.from_numpy((lags - scaler.input_mean[b].item()) / scaler.input_std[b].item()).float()[None]
        with torch.no_grad():
            _, state = network(x[:, :20], network.zero_state(1))
            y, _ = network(x[:, 20:], state)
        targets = task.targets(prices[None, border:], found.split.change_std[b : b + 1])[:, : n - ahead - border]  # type: ignore[union-attr]
        wanted = (torch.from_numpy(targets) - scaler.target_mean[b]) / scaler.target_std[b]
        total += (y - wanted).square().sum().item()
        count += wanted.numel()
        assert name in found.split.test
    assert metrics_of(cfg, result.run_id)["test/loss"] == pytest.approx(total / count, rel=1e-4)


def test_every_epoch_has_skill_value_turnover_and_r2_and_they_may_be_what_is_chosen_by(files: Compose) -> None:
    cfg = files("objective=val/value")
    result = fit(cfg)
    client = MlflowClient(cfg.tracking.uri)
    for name in ("val/skill", "val/value", "val/turnover", "val/advantage_r2"):
        curve = client.get_metric_history(result.run_id, name)
        assert [point.step for point in curve] == [0, 1, 2], name
    values = [point.value for point in client.get_metric_history(result.run_id, "val/value")]
    assert result.best.value == max(values)
    assert result.best.epoch == int(np.argmax(values))
    judged = Judged.of(json.loads((run_of(cfg, result).folder / "evaluation.json").read_text()))
    assert judged.val.metrics["value"] == pytest.approx(max(values))


def test_last_lines_say_the_verdicts_and_how_often_the_test_part_was_used(files: Compose, capsys: Captured) -> None:
    said = []
    for overrides in (["seed=0"], ["seed=1", "tracking.experiment=another"], ["seed=2", "data.test_fraction=0.25"]):
        fit(files("progress=plain", "epochs=1", *overrides))
        *lines, _ = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("test, decision: ")
        assert lines[1].startswith("test, loss: ")
        said.append(lines[-1])
    assert said[0].startswith("its test part has judged this result only in this store")
    assert said[1].startswith("its test part has judged 2 results in this store")
    assert said[2].startswith("its test part has judged this result only in this store")  # it is another part


def test_without_a_test_part_the_last_lines_say_that_nothing_is_left_to_judge_by(
    files: Compose, capsys: Captured
) -> None:
    cfg = files("progress=plain", "epochs=1", "data.test_fraction=0")
    result = fit(cfg)
    captured = capsys.readouterr()
    first, last = captured.out.splitlines()
    assert first.startswith("nothing is left to judge by: values on the validation part are those")
    assert "data.test_fraction above 0" in first
    assert result.run_id in last
    assert "none to judge by" in captured.err
    found = metrics_of(cfg, result.run_id)
    assert not [name for name in found if name.startswith("test/") or "test_" in name]
    assert "baseline/ridge/val_loss" in found
    assert "data.test_fingerprint" not in tags_of(cfg, result.run_id)


def test_a_finished_run_that_is_resumed_is_judged_as_before_and_counts_once(files: Compose, capsys: Captured) -> None:
    cfg = files("progress=plain")
    result = fit(cfg)
    first = capsys.readouterr().out
    before = (run_of(cfg, result).folder / "evaluation.json").read_text(), metrics_of(cfg, result.run_id)
    fit(cfg, RunContext(resume=result.run_id))
    again = (run_of(cfg, result).folder / "evaluation.json").read_text(), metrics_of(cfg, result.run_id)
    assert again == before
    assert capsys.readouterr().out == first
    assert "judged this result" in first


def test_a_run_that_trains_on_has_no_result_until_its_end(files: Compose) -> None:
    """That of its best epoch so far would be told as the run's, if it were stopped."""
    cfg = files()
    result = fit(cfg)
    folder = run_of(cfg, result).folder
    seen = []

    def look(epoch: Any) -> bool:
        if epoch.number >= 3:
            seen.append((folder / "evaluation.json").exists() or (folder / "evaluation.npz").exists())
        return False

    fit(files("epochs=5"), RunContext(resume=result.run_id, after_epoch=look))
    assert seen == [False, False]
    assert judging.kept(folder) is not None
    assert (folder / "evaluation.npz").exists()


def test_a_pruned_run_is_not_judged(files: Compose) -> None:
    cfg = files()
    result = fit(cfg, RunContext(after_epoch=lambda epoch: epoch.number == 1))
    assert result.stop_reason == "pruned"
    assert not (run_of(cfg, result).folder / "evaluation.json").exists()
    found = metrics_of(cfg, result.run_id)
    assert not [name for name in found if name.startswith(("test/", "baseline/"))]


def test_a_diverged_run_with_a_good_epoch_is_judged_by_that(files: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """It diverges in its second epoch, whose weights are NaN."""
    cfg = files()

    def spoil(_: ShowProgress, module: SequenceModule, epoch: Any) -> None:  # what comes last of an epoch
        with torch.no_grad():
            for weight in module.network.parameters():
                weight.fill_(torch.nan)

    monkeypatch.setattr(ShowProgress, "take", spoil)
    result = fit(cfg)
    assert (result.stop_reason, result.best.epoch) == ("diverged", 0)
    judged = Judged.of(json.loads((run_of(cfg, result).folder / "evaluation.json").read_text()))
    assert judged.val.metrics["loss"] == pytest.approx(result.best.value)
    assert judged.test is not None
    assert np.isfinite(judged.test.metrics["loss"])


def test_a_damaged_best_checkpoint_costs_the_verdict_and_not_the_run(
    files: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = files()
    result = fit(cfg)
    best = run_of(cfg, result).folder / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:100])
    fit(cfg, RunContext(resume=result.run_id))
    assert "the best epoch cannot be judged" in caplog.text
    assert MlflowClient(cfg.tracking.uri).get_run(result.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"best_baseline": 1, "val": 3}'])
def test_a_result_that_is_not_understood_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    assert judging.kept(tmp_path) is None


def test_no_trial_of_a_study_sees_the_test_part_and_its_table_has_what_a_decision_is_worth(
    files: Compose, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, in this process. Its trials are judged on val all the same."""
    from tbptt.studies.worker import work

    threads: list[int] = []

    def run_pool(study: object, plan: object, spec: WorkerSpec, *_: object) -> None:
        work(spec)
        torch.set_num_threads(2)  # as in the head of a study, which PyTorch gives all cores
        monkeypatch.setattr(judged, "judge", judge_chosen)

    def judge_chosen(*given: Any, **more: Any) -> Any:
        threads.append(torch.get_num_threads())
        return judge(*given, **more)

    judge = judged.judge
    monkeypatch.setattr("tbptt.studies.sweep._run_pool", run_pool)
    monkeypatch.setattr("tbptt.studies.pool.early", lambda config: [])
    words = ["study.name=unseen", "objective=val/value", "optimizer.lr=0.001,0.01", f"tracking.uri={uri}"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *OF_FILES, *words, "tracking.experiment=unseen"])
    assert run(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job), CONF) == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("unseen")
    assert experiment is not None
    runs = [r for r in client.search_runs([experiment.experiment_id]) if "trial.number" in r.data.tags]
    assert len(runs) == 2
    chosen = max(runs, key=lambda r: (r.data.metrics["best/val/value"], -int(r.data.tags["trial.number"])))
    for one in runs:
        assert "baseline/ridge/val_loss" in one.data.metrics
        if one is not chosen:  # which the study's end may judge
            assert not [name for name in one.data.metrics if name.startswith("test/") or "test_" in name]
        assert "data.test_fingerprint" not in one.data.tags
    with Path("sweeps/unseen/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    values = {one.data.tags["trial.number"]: one.data.metrics for one in runs}
    for row in rows:
        for name in ("val/value", "val/skill", "val/turnover", "val/advantage_r2"):
            assert float(row[name]) == pytest.approx(values[row["trial"]][f"best/{name}"])
    assert not [name for name in rows[0] if name.startswith("test/")]
    assert threads == [1]  # the key threads, as in training


def test_each_look_at_a_test_part_counts_once_also_in_the_same_run(files: Compose) -> None:
    cfg = files()
    found = judging.kept(run_of(cfg, fit(cfg)).folder)
    assert found is not None
    first = judging.tags({**found, "look": "epoch 1"}, {})
    again = judging.tags({**found, "look": "epoch 1"}, first)
    later = judging.tags({**found, "look": "epoch 3"}, again)
    other = judging.tags({**found, "look": "epoch 3", judging.TEST_DATA: "another"}, later)
    assert [tags[judging.LOOKS] for tags in (first, again, later, other)] == [
        "epoch 1",
        "epoch 1",
        "epoch 1; epoch 3",
        "epoch 3",
    ]

    class Known:
        def tags_of_runs(self, tag: str, value: str) -> list[dict[str, str]]:
            assert (tag, value) == (judging.TEST_DATA, first[judging.TEST_DATA])
            return [later, {judging.TEST_DATA: value}, first]

    class Away:
        def tags_of_runs(self, tag: str, value: str) -> None:
            return None

    assert judging.uses(Known(), first[judging.TEST_DATA]) == 4  # type: ignore[arg-type]
    assert judging.uses(Away(), "any") is None  # type: ignore[arg-type]


def test_a_test_part_is_the_same_one_whatever_the_window(files: Compose) -> None:
    def of(window: int) -> str:
        cfg = files(f"data.window={window}")
        return prepare(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task)).split.test_fingerprint()

    assert of(4) == of(9)

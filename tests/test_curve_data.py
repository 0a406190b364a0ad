"""The curves that the report's page draws: the numbers of every run, rounded and bounded, and said where some are
missing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Metric, Param
from studies import made_study, made_trial

from tbptt.config.schema import TrackingConfig
from tbptt.reports import curve_data, frames, page, thinning
from tbptt.runs.curves import Found, curves_of
from tbptt.runs.tracking import Store
from tbptt.studies.study import Study

URI = "sqlite:///mlruns/mlflow.db"
METRICS = ("val/loss", "train/loss", "lr", "grad/norm_max", "schedule/chunks", "time/epoch_seconds")


def number(run: int, metric: str, step: int) -> float:
    """The value that a run logs."""
    if (run, metric, step) in ((0, "train/loss", 2), (3, "val/loss", 1)):
        return math.nan if run else math.inf
    return (1 + run + METRICS.index(metric) / 7) / (3 + step)


def logged(store: Store, run: int, epochs: int, seed: int, fold: str | None) -> str:
    made = store.start_run(f"run {run}", {})
    points = [Metric(m, number(run, m, step), 1000 + step, step) for m in METRICS for step in range(epochs)]
    points.append(Metric("train/eval_loss", 0.5, 1000, epochs - 1))
    params = [Param("seed", str(seed)), *([Param("data.fold", fold)] if fold else [])]
    store.client.log_batch(made.id, metrics=points, params=params)
    return made.id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two seeds and two folds: two complete trials, one that was pruned in its first run, one that runs and
    has reported only, one that waits."""
    folder = tmp_path_factory.mktemp("curve_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = Store(TrackingConfig(uri=URI))
        folds = [(seed, f"{k}/2") for seed in (4, 5) for k in (1, 2)]
        runs = [logged(store, i, 4 if i != 2 else 3, *folds[i % 4]) for i in range(8)]
        pruned = logged(store, 8, 2, *folds[0])
        study = made_study(
            [
                made_trial(values=[0.5], params={"clip": 0.5, "optimizer": "sgd"}, run_ids=runs[:4], folds=2),
                made_trial("PRUNED", params={"clip": 2.0, "optimizer": "7"}, run_ids=[pruned], folds=2, curve=[9.0]),
                made_trial(values=[0.25], params={"clip": 1.0, "optimizer": "sgd"}, run_ids=runs[4:], folds=2),
                made_trial("RUNNING", params={"clip": 4.0}, curve=[3.0, None, 1 / 3], folds=2),
            ],
            spec={"space": {}, "config": {"seed": 2}, "seeds": [4, 5], "folds": 2},
        )
        study.optuna.enqueue_trial({"clip": 9.0})
    return folder


@pytest.fixture
def study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(folder)
    return Study.existing("a-study", "sqlite:///sweeps/optuna.db")


def made(study: Study, store: Any | None = None, **also: Any) -> dict[str, Any]:
    return curve_data.curves(study, study.read(), store, 5.0, **also)


def right(run: int, metric: str, epochs: int) -> list[float | None]:
    values = [number(run, metric, step) for step in range(epochs)]
    return [float(np.format_float_scientific(v, 4, unique=False)) if np.isfinite(v) else None for v in values]


def test_each_run_has_its_curves_with_seed_and_fold(study: Study) -> None:
    data = made(study, Store(TrackingConfig(uri=URI)))
    assert [t["number"] for t in data["trials"]] == [2, 0, 3, 1]  # the best first
    assert [t["state"] for t in data["trials"]] == ["complete", "complete", "running", "pruned"]
    folds = [(4, 1), (4, 2), (5, 1), (5, 2)]
    for t, first in zip(data["trials"][:2], (4, 0), strict=True):
        assert [(run["seed"], run["fold"]) for run in t["runs"]] == folds
        for i, run in enumerate(t["runs"]):
            epochs = 3 if first + i == 2 else 4
            its = {m: right(first + i, m, epochs) for m in METRICS if m != "time/epoch_seconds"}
            assert run["curves"] == its | {"train/eval_loss": [*[None] * (epochs - 1), 0.5]}
            assert "epochs" not in run
    assert data["trials"][3]["runs"][0]["curves"]["val/loss"] == right(8, "val/loss", 2)
    assert [t["point"] for t in data["trials"]] == [
        {"clip": "1.0", "optimizer": "sgd"},
        {"clip": "0.5", "optimizer": "sgd"},
        {"clip": "4.0"},
        {"clip": "2.0", "optimizer": "'7'"},  # as it is typed
    ]
    assert (data["objective"], data["small_is_good"], data["mean"]) == ("val/loss", True, 1.25)
    assert data["keys"] == ["clip", "optimizer"]
    assert data["metrics"][0] == {"name": "val/loss", "label": "held-out, weights frozen", "is_loss": True}
    assert data["note"] == ""
    json.dumps(data, allow_nan=False)


def test_a_running_trial_without_a_run_has_what_it_reported(study: Study) -> None:
    running = next(t for t in made(study)["trials"] if t["number"] == 3)
    assert running["runs"] == [{"seed": 4, "fold": 1, "curves": {"val/loss": [3.0, None, 0.33333]}}]


def test_without_a_store_the_first_run_is_drawn_and_it_is_said(study: Study) -> None:
    data = made(study)
    assert [len(t["runs"]) for t in data["trials"]] == [1, 1, 1, 1]
    assert data["trials"][0]["runs"][0]["curves"]["val/loss"] == [2.0, 1.5, 1.2]
    assert data["note"].startswith("Without the store of the runs: drawn of 2 of 4 trials is what the study keeps")


class Away:
    """A store that does not answer."""

    uri = "sqlite:////nowhere/mlflow.db"

    def retry(self, ask: Any) -> Any:
        raise ConnectionError("it is away")


def test_a_store_that_fails_costs_a_line(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    data = made(study, Away())
    assert data["note"].startswith("The store did not give all runs: drawn of 2 of 4 trials")
    assert "study a-study: the curves of its runs: ConnectionError: it is away" in caplog.text


def test_runs_that_did_not_come_are_said(study: Study) -> None:
    read = curves_of(Store(TrackingConfig(uri=URI)), list(frames.runs_of(study.trials())))
    gone = str(read.points["run"].cat.categories[6])
    some = Found(read.points[read.points["run"] != gone], read.params, [gone])
    data = made(study, object(), found=some)
    assert [len(t["runs"]) for t in data["trials"]] == [3, 4, 1, 1]
    assert data["note"].startswith("The store did not give all runs: drawn of 1 of 4 trials")


@pytest.mark.parametrize("length", [1, 2, 199, 200, 201, 399, 400, 1000, 12345])
def test_long_curves_have_every_kth_epoch_and_the_last(length: int) -> None:
    kept = curve_data.kept_epochs(length).tolist()
    assert len(kept) <= 200
    assert (kept[0], kept[-1]) == (1, length)
    steps = set(np.diff(kept[:-1]).tolist())
    assert len(steps) <= 1
    assert length > 200 or kept == list(range(1, length + 1))


def test_a_metric_that_is_measured_rarely_is_thinned_to_its_newest_values(study: Study) -> None:
    curve: list[Any] = [1 / (1 + i) for i in range(1000)]
    rare = [v if i % 7 == 3 else None for i, v in enumerate(curve)]
    trial = made_trial(values=[0.5], curve=curve)
    trial.user_attrs["curves"]["train/eval_loss"] = rare
    (told,) = curve_data.trials_of(study, [trial], None)
    (run,) = told["runs"]
    epochs = run["epochs"]
    assert epochs == [*range(1, 1000, 6), 1000]
    assert run["curves"]["val/loss"] == [float(f"{curve[e - 1]:.5g}") for e in epochs]
    windows = [rare[a:b] for a, b in zip([0, *epochs[:-1]], epochs, strict=True)]
    newest = [next((v for v in reversed(window) if v is not None), None) for window in windows]
    assert run["curves"]["train/eval_loss"] == [None if v is None else float(f"{v:.5g}") for v in newest]
    assert sum(v is not None for v in newest) > 130


def test_too_many_numbers_cost_runs_of_the_worse_trials_then_metrics(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(TrackingConfig(uri=URI))
    sizes = [sum(len(c) for run in t["runs"] for c in run["curves"].values()) for t in made(study, store)["trials"]]
    monkeypatch.setattr(curve_data, "MOST_NUMBERS", sum(sizes) - 1)
    data = made(study, store)
    assert [len(t["runs"]) for t in data["trials"]] == [4, 1, 1, 1]
    assert data["note"] == "Of the trials behind the best 1, the first run is drawn."
    monkeypatch.setattr(curve_data, "MOST_NUMBERS", 40)
    data = made(study, store)
    kept = {name for t in data["trials"] for run in t["runs"] for name in run["curves"]}
    assert "val/loss" in kept
    assert "lr" not in kept
    assert sum(len(c) for t in data["trials"] for run in t["runs"] for c in run["curves"].values()) <= 40
    assert "Left out, as there are too many numbers: lr, grad/norm_max" in data["note"]
    monkeypatch.setattr(curve_data, "MOST_NUMBERS", 1)
    assert {name for t in made(study, store)["trials"] for run in t["runs"] for name in run["curves"]} == {"val/loss"}


def test_of_many_trials_the_best_and_an_even_choice_are_drawn(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_data, "best_and_even", lambda ranked: thinning.best_and_even(ranked, 2))
    data = made(study)
    assert [t["number"] for t in data["trials"]] == [2, 0]
    assert "Drawn: 2 of 4 trials, the best and an even choice of the others." in data["note"]


def test_the_page_and_its_table_of_curves_read_the_store_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def once(store: Any, runs: Any, *words: Any) -> Any:
        asked.append(list(runs))
        return curves_of(store, runs, *words)

    monkeypatch.setattr("tbptt.runs.curves.curves_of", once)
    page.write_report(study, Store(TrackingConfig(uri=URI)))
    assert list(map(len, asked)) == [9]

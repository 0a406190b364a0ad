"""tbptt.curves and tbptt.trials: a study's curves and trials as tables, held against MLflow's client and trials.csv."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from studies import made_study, made_trial

import tbptt
from tbptt import compat
from tbptt.config.schema import TrackingConfig
from tbptt.reports import frames
from tbptt.reports.page import write_report
from tbptt.runs import curves as reading
from tbptt.runs.tracking import Store
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study

URI = "sqlite:///mlruns/mlflow.db"
EPOCHS = {"val/loss": [1.0, 1 / 3, 0.1 + 0.2], "train/loss": [2.0, 1e-17, float("nan")], "train/eval_loss": [0.7]}
UPDATES = {"train/chunk_loss": [3.0, 2.0, 1.0, 0.5], "grad/norm": [1.0, 1.0, 1.0, 1.0]}


def run_of(store: Store, seed: int, fold: str | None = None, shift: float = 0.0, status: str = "FINISHED") -> str:
    """A run as training leaves it, without the training."""
    run = store.start_run("a run", {"study.name": "a-study"})
    params = [Param("seed", str(seed)), *([Param("data.fold", fold)] if fold else [])]
    points = [
        Metric(name, value + shift, 1000 + step, step)
        for name, values in {**EPOCHS, **UPDATES}.items()
        for step, value in enumerate(values)
    ]
    others = [Metric(n, 9.0, 2000, 0) for n in ("best/val/loss", "test/loss", "baseline/mean/val_loss", "system/cpu")]
    store.client.log_batch(run.id, metrics=[*points, *others], params=params)
    store.client.set_terminated(run.id, status)
    return run.id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study of two seeds and two folds: complete, pruned, failed and gone on with, running, waiting."""
    folder = tmp_path_factory.mktemp("curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = Store(TrackingConfig(uri=URI))
        runs = [[run_of(store, s, f"{k}/2", s + k / 10) for s in (4, 5) for k in (1, 2)] for _ in range(2)]
        pruned, failed = run_of(store, 4, "1/2", 30.0), run_of(store, 4, "1/2", 40.0, "FAILED")
        running = run_of(store, 4, "1/2", 50.0, "RUNNING")
        again = made_trial("FAIL", params={"clip": None, "optimizer": "adam"}, run_ids=[runs[1][0]], folds=2)
        study = made_study(
            [
                made_trial(values=[0.5], params={"clip": 0.5, "optimizer": "sgd"}, run_ids=runs[0], folds=2),
                made_trial("PRUNED", params={"clip": 2.0, "optimizer": "adam"}, run_ids=[pruned], folds=2),
                made_trial("FAIL", params={"clip": 3.0, "optimizer": "adam"}, run_ids=[failed], folds=2, reason="so"),
                again,
                made_trial(
                    values=[0.25], params={"clip": 1.0}, run_ids=runs[1], folds=2, retry_of=3, metrics={"val/mae": 0.1}
                ),
                made_trial("RUNNING", params={"clip": 4.0, "optimizer": "sgd"}, run_ids=[running], folds=2),
            ],
            spec={"space": {}, "config": {"seed": 2}, "seeds": [4, 5], "folds": 2},
        )
        study.optuna.enqueue_trial({"clip": 9.0})
        write_report(study, store)
        yield folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def by_client(names: list[str]) -> dict[tuple[str, str, int], float]:
    """Each point of each run that is told of, one call for each run and metric."""
    client = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")
    study = Study.existing("a-study", "sqlite:///sweeps/optuna.db")
    runs = {run for t in study.trials() for run in TrialRecord.of(t).run_ids}
    assert len(runs) == 11
    return {
        (run, name, p.step): p.value for run in runs for name in names for p in client.get_metric_history(run, name)
    }


def same_points(table: pd.DataFrame, step: str, names: list[str]) -> None:
    right = by_client(names)
    steps = table[step] - 1 if step == "epoch" else table[step]  # epochs count from 1
    found = {(r, m, s): v for r, m, s, v in zip(table["run"], table["metric"], steps, table["value"], strict=True)}
    assert len(found) == len(table)
    assert found.keys() == right.keys()
    assert all(np.array_equal(found[k], right[k], equal_nan=True) for k in right)


def test_curves_are_those_of_mlflow_s_client_for_every_run_once(here: Path) -> None:
    table = tbptt.curves("a-study")
    assert list(table) == [
        "study",
        "trial",
        "run",
        "seed",
        "fold",
        "metric",
        "epoch",
        "value",
        "state",
        "clip",
        "optimizer",
    ]
    same_points(table, "epoch", list(EPOCHS))
    of_runs = table.drop_duplicates("run")
    said = [tuple(row) for row in of_runs[["trial", "seed", "fold", "state"]].itertuples(index=False)]
    folds = [(4, 1), (4, 2), (5, 1), (5, 2)]
    assert said == [
        *((0, s, k, "COMPLETE") for s, k in folds),
        (1, 4, 1, "PRUNED"),
        (2, 4, 1, "FAIL"),
        *((4, s, k, "COMPLETE") for s, k in folds),  # the failed trial 3, whose run trial 4 went on with, has none
        (5, 4, 1, "RUNNING"),
    ]
    shifts = of_runs.groupby("trial", observed=True)["value"].apply(list)
    assert shifts[0] == pytest.approx([1 + s + k / 10 for s, k in folds])
    clip = table.drop_duplicates("trial").set_index("trial")
    assert dict(clip["clip"].dropna()) == {0: 0.5, 1: 2.0, 2: 3.0, 4: 1.0, 5: 4.0}
    assert clip["clip"].dtype == "float64"
    assert dict(clip["optimizer"].dropna()) == {0: "sgd", 1: "adam", 2: "adam", 5: "sgd"}


@pytest.mark.parametrize("what", ["a-study", "sweeps/a-study", Path("sweeps/a-study"), "FOLDER"])
def test_a_study_is_found_by_its_name_and_by_its_folder(
    here: Path, what: str | Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if what == "FOLDER":  # from anywhere
        monkeypatch.chdir(tmp_path)
        what = here / "sweeps" / "a-study"
    assert len(tbptt.curves(what, metric="val/loss")) == 33
    assert len(tbptt.trials(what)) == 7
    assert not (tmp_path / "mlruns").exists()


def test_metrics_by_update_come_where_they_are_asked_for(here: Path) -> None:
    same_points(tbptt.curves("a-study", metric="train/chunk_loss"), "step", ["train/chunk_loss"])
    same_points(tbptt.curves("a-study", metric=["val/loss", "grad/norm"]), "step", ["val/loss", "grad/norm"])
    same_points(tbptt.curves("a-study", metric="train/loss"), "epoch", ["train/loss"])
    known = ", ".join(sorted([*EPOCHS, "grad/norm", "train/chunk_loss"]))
    with pytest.raises(ValueError, match="metric: got 'val/los'; takes one") as error:
        tbptt.curves("a-study", metric=["val/loss", "val/los"])
    assert str(error.value).endswith(f": {known} (did you mean val/loss?)")


def test_runs_that_a_database_does_not_have_are_missing(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    Store(TrackingConfig(uri="sqlite:///mlruns/other.db"))
    assert tbptt.curves("a-study", tracking_uri="sqlite:///mlruns/other.db").empty
    assert "study a-study: the curves of 11 of 11 runs did not come" in caplog.text


def test_the_curves_are_read_from_the_store_that_the_study_names(here: Path) -> None:
    study = Study.existing("a-study", "sqlite:///sweeps/optuna.db")
    study.optuna.set_user_attr("tracking_uri", "sqlite:///elsewhere.db")
    try:
        Path("mlruns/mlflow.db").rename("elsewhere.db")
        assert len(tbptt.curves("a-study", metric="val/loss")) == 33
        with pytest.raises(ValueError, match=r"tracking_uri: there is no store .*mlruns/mlflow\.db"):
            tbptt.curves("a-study", tracking_uri="sqlite:///mlruns/mlflow.db")
    finally:
        Path("elsewhere.db").rename("mlruns/mlflow.db")
        study.optuna.set_user_attr("tracking_uri", "sqlite:///mlruns/mlflow.db")


def test_a_step_that_was_trained_again_has_its_newest_value(here: Path, tmp_path: Path) -> None:
    store = Store(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    run = store.start_run("a run", {})
    for when, value in ((5, 2.0), (9, 1.0), (7, 3.0)):
        store.client.log_batch(run.id, metrics=[Metric("val/loss", value, when, 0)])
    assert reading.curves_of(store, [run.id]).points["value"].tolist() == [1.0]


def test_curves_csv_has_a_row_for_each_epoch_of_each_run_and_all_digits(here: Path) -> None:
    written = pd.read_csv("sweeps/a-study/curves.csv", dtype=str, keep_default_na=False)
    table = tbptt.curves("a-study")
    assert list(written) == [
        *("study", "trial", "run", "seed", "fold", "epoch", "state"),
        *("val/loss", "train/loss", "train/eval_loss", "clip", "optimizer"),
    ]
    assert len(written) == 11 * 3
    right = {
        (r, m, s): v for r, m, s, v in zip(table["run"], table["metric"], table["epoch"], table["value"], strict=True)
    }
    cells = 0
    for _, row in written.iterrows():
        for name in EPOCHS:
            value = right.get((row["run"], name, int(row["epoch"])), math.nan)
            assert np.array_equal(float(row[name] or math.nan), value, equal_nan=True)
            cells += not math.isnan(value)
    assert cells == 11 * 6  # of seven points a run, one is NaN
    assert "curves.csv" in {p.name for p in Path("sweeps/a-study").iterdir()}


def test_a_study_that_is_too_large_keeps_its_best_trials_and_says_so(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(frames, "MOST_ROWS", 13)  # the best trial has 12
    study, store = Study.existing("a-study", "sqlite:///sweeps/optuna.db"), Store(TrackingConfig(uri=URI))
    frames.write_curves(tmp_path / "curves.csv", study, study.trials(), store)
    assert set(pd.read_csv(tmp_path / "curves.csv")["trial"]) == {4}
    assert "curves.csv has its best 1 trials only" in caplog.text


def test_trials_are_those_of_trials_csv_with_types(here: Path) -> None:
    table = tbptt.trials("a-study")
    written = pd.read_csv("sweeps/a-study/trials.csv", keep_default_na=False, dtype=str)
    assert list(table) == list(written)
    assert list(map(str, table["trial"])) == list(written["trial"])
    assert list(table["state"]) == list(written["state"])
    numbers = {"val/loss": [0.5, None, None, None, 0.25, None, None], "clip": [0.5, 2, 3, None, 1, 4, None]}
    for name, right in numbers.items():
        assert table[name].dtype == "float64"
        np.testing.assert_array_equal(table[name], np.array(right, dtype=float))
    assert written["clip"].tolist() == ["0.5", "2.0", "3.0", "null", "1.0", "4.0", ""]
    kinds = {"trial": "int64", "state": "str", "epochs_run": "int64", "seconds": "float64", "val/mae": "float64"}
    assert {name: str(table[name].dtype) for name in kinds} == kinds
    assert table["in_confidence_set"].dtype == "boolean"
    assert table["runs"].map(" ".join).tolist() == written["runs"].tolist()
    assert table["best_epoch"].map(lambda e: " ".join(map(str, e))).tolist() == written["best_epoch"].tolist()
    assert table["reason"].fillna("").tolist() == written["reason"].tolist()


@pytest.mark.parametrize("read", [tbptt.curves, tbptt.trials])
def test_what_is_not_there_costs_one_line(here: Path, read: Callable[..., Any]) -> None:
    near = r"study: got 'a-stud'; takes a study of .*: a-study \(did you mean a-study\?\)"
    with pytest.raises(ValueError, match=near):
        read("a-stud")
    with pytest.raises(ValueError, match=r"there is no store /nowhere/mlflow\.db"):
        read("a-study", tracking_uri="sqlite:////nowhere/mlflow.db")
    with pytest.raises(ValueError, match=r"takes a study of sqlite:////nowhere/o\.db: none yet"):
        read("a-study", storage="sqlite:////nowhere/o.db")


class Server:
    """What reading asks of a server: a search of runs, and the points of a metric of many of them."""

    uri, is_local = "http://127.0.0.1:1", False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: str | None = None, stops: str | None = None):
        self.real, self.fails, self.stops, self.asked = Store(TrackingConfig(uri=URI)).client, fails, stops, 0
        self.client = SimpleNamespace(search_experiments=self.real.search_experiments, search_runs=self.search)
        monkeypatch.setattr(compat, "points_in_bulk", self.points)

    def search(self, *words: Any, **named: Any) -> Any:
        if self.fails and self.fails in words[1]:
            raise ConnectionError
        if self.stops and self.stops in words[1]:
            import time

            time.sleep(30)
        return self.real.search_runs(*words, **named)

    def points(self, uri: str, runs: list[str], metric: str) -> list[dict[str, Any]]:
        self.asked += 1
        found = [(run, p) for run in runs for p in self.real.get_metric_history(run, metric)]
        every = [{"run_id": run, "step": p.step, "value": p.value, "timestamp": p.timestamp} for run, p in found]
        return json.loads(json.dumps(every))[: compat.MOST_IN_BULK]  # type: ignore[no-any-return]


def test_a_server_is_asked_for_many_runs_at_once_and_cut_answers_are_asked_for_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = list(dict.fromkeys(tbptt.curves("a-study")["run"]))
    right = reading.curves_of(Store(TrackingConfig(uri=URI)), runs)
    server: Any = Server(monkeypatch)
    assert sorted_points(reading.curves_of(server, runs)) == sorted_points(right)
    assert server.asked == 3
    monkeypatch.setattr(compat, "MOST_IN_BULK", 7)  # less than 11 runs have
    found = reading.curves_of(server, runs)
    assert (sorted_points(found), found.params, found.missing) == (sorted_points(right), right.params, [])


def sorted_points(found: reading.Found) -> list[str]:
    return sorted(map(str, found.points.itertuples(index=False)))


@pytest.mark.parametrize("how", ["fails", "stops"])
def test_runs_whose_curves_do_not_come_in_time_are_named(here: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = list(dict.fromkeys(tbptt.curves("a-study")["run"]))
    monkeypatch.setattr(reading, "IN_ONE_CALL", 4)
    server: Any = Server(monkeypatch, **{how: runs[5]})
    found = reading.curves_of(server, runs, seconds=5)
    assert found.missing == runs[4:8]
    assert set(found.points["run"]) == {*runs[:4], *runs[8:]}


def test_a_real_server_gives_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own application answers, without a socket."""
    from flask.testing import FlaskClient
    from mlflow.server import app, handlers
    from mlflow.utils import rest_utils

    monkeypatch.setattr(handlers, "_tracking_store", Store(TrackingConfig(uri=URI)).client._tracking_client.store)
    asked = FlaskClient(app, app.response_class)

    def request(creds: Any, endpoint: str, method: str, params: dict[str, Any]) -> Any:
        answer = asked.open(endpoint, method=method, query_string=params, headers={"Host": "localhost"})
        assert answer.status_code == 200, answer.text
        return SimpleNamespace(json=lambda: json.loads(answer.text))

    monkeypatch.setattr(rest_utils, "http_request_safe", request)
    runs = list(dict.fromkeys(tbptt.curves("a-study")["run"]))
    server: Any = SimpleNamespace(uri="http://127.0.0.1:1", client=Store(TrackingConfig(uri=URI)).client)
    found, right = reading.curves_of(server, runs), reading.curves_of(Store(TrackingConfig(uri=URI)), runs)
    assert (sorted_points(found), found.missing) == (sorted_points(right), [])


def test_what_a_run_logs_is_a_curve_or_no_curve() -> None:
    curves = ("val/loss", "val/of_my_own", "lr", "time/epoch_seconds", "schedule/chunks", "grad/norm_max")
    others = ("train/chunk_loss", "grad/norm", "best/val/loss", "test/loss", "baseline/mean/val_loss", "system/cpu")
    assert [n for n in (*curves, *others) if reading.is_curve(n)] == list(curves)

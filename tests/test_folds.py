"""study.folds: each point once a fold, in time order; its value is the mean."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONF
from mlflow import MlflowClient
from omegaconf import OmegaConf
from optuna.trial import TrialState
from studies import made_study, made_trial

from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.reports.page import write_report
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit, in_steps
from tbptt.serving.load import load_run
from tbptt.studies import sweep, worker
from tbptt.studies.best_of import Chosen
from tbptt.studies.dry_run import describe
from tbptt.studies.folds import data_fingerprint, runs_by_seed
from tbptt.studies.plan import Plan, make_plan
from tbptt.studies.ranking import best_run, by_seed
from tbptt.studies.records import HowFar, TrialRecord
from tbptt.studies.study import Study
from tbptt.studies.sweep_progress import how_far
from tbptt.studies.trial_progress import TrialProgress
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.system.runtime import Interrupted, StopSignals

ROWS = 400
SMALL = [
    *(
        "data=prices",
        "data.path=prices.csv",
        "data.window=8",
        "data.warm_steps=20",
        "task=forecast",
        "task.horizons=[1]",
    ),
    *("model.dense=[4]", "model.hidden=[4]", "schedule.chunks=[2,1]", "epochs=2", "progress=none", "study/pruner=none"),
]
FOLDS = ["clip=0.5,2", "study.folds=3"]
Planned = Callable[..., Plan]


@pytest.fixture
def plan(here: Path) -> Planned:
    register()
    walk = 100 + np.random.default_rng(0).normal(size=ROWS).cumsum()
    Path("prices.csv").write_text("\n".join(["close", *map(str, walk)]))

    def planned(*words: str) -> Plan:
        source = ConfigSource(CONF)
        with source.opened():
            return make_plan(source, parsed([*SMALL, *words])[0])

    return planned


def wrong(plan: Planned, *words: str) -> list[str]:
    with pytest.raises(CommandError) as error:
        plan(*words)
    return error.value.lines


def prepared(planned: Planned, *words: str) -> tuple[Study, WorkerSpec]:
    """The study of a command as that makes it, and what a worker is told."""
    plan, chosen = planned(*words), Chosen()
    study, store = sweep._opened(plan, plan.name, StopSignals())
    points = plan.points() if plan.is_grid else []
    parent = sweep._prepare(study, plan, store, points, chosen, sweep._spec(plan))
    return study, sweep._worker_spec(plan, study.name, [*SMALL, *words], parent)


def val_losses(run_id: str) -> list[float]:
    client = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")
    return [point.value for point in client.get_metric_history(run_id, "val/loss")]


def test_a_trial_is_trained_once_a_fold_and_seed_and_its_value_is_the_mean(plan: Planned, here: Path) -> None:
    study, spec = prepared(plan, "clip=choice(2)", "study.folds=3", "study.seeds=[4,5]", "study.fold_window=rolling")
    worker.work(spec)
    (trial,) = study.trials()
    record = TrialRecord.of(trial)
    assert trial.state == TrialState.COMPLETE
    assert [len(of_seed) for of_seed in runs_by_seed(record)] == [3, 3]
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    configs = [client.get_run(run).data.params for run in record.run_ids]
    said = [(c["seed"], c["data.fold"], c["data.fold_window"]) for c in configs]
    assert said == [(seed, f"{k}/3", "rolling") for seed in ("4", "5") for k in (1, 2, 3)]
    best = [min(val_losses(run)) for run in record.run_ids]
    assert len(set(best)) == 6
    assert trial.values == pytest.approx([np.mean(best)])
    assert by_seed(trial) == pytest.approx([np.mean(best[:3]), np.mean(best[3:])])
    baselines = [float(client.get_run(run).data.tags["baseline.val_loss"]) for run in record.run_ids[:3]]
    assert record.baseline == pytest.approx(np.mean(baselines), rel=1e-5)
    assert len(set(baselines)) == 3

    lucky = int(np.argmin(by_seed(trial)))
    run, luck = best_run(study, trial)
    assert run == record.run_ids[3 * lucky + 2]
    assert luck.startswith(f"the last of 3 folds of seed {4 + lucky}, the luckiest of trial 0's 2 seeds")
    _, _, config = load_run(run)
    assert (config.data.fold, config.data.fold_window) == ("3/3", "rolling")

    text = write_report(study).read_text()
    assert "Mean of 3 folds, each validated on a later piece of the series" in text
    assert "<td>3, rolling</td>" in text.replace(' class="wrap"', "")
    (row,) = csv.DictReader(Path(f"sweeps/{study.name}/trials.csv").read_text().splitlines())
    assert [float(v) for v in row["by_fold"].split()] == best
    assert [float(v) for v in row["by_seed"].split()] == by_seed(trial)


def test_a_fold_of_a_study_is_the_same_as_that_run_alone(plan: Planned) -> None:
    study, spec = prepared(plan, "clip=choice(2)", "study.folds=2")
    worker.work(spec)
    (trial,) = study.trials()
    for k, run in enumerate(TrialRecord.of(trial).run_ids, 1):
        alone = ConfigSource(CONF)
        with alone.opened():
            cfg = alone.compose([*SMALL, "clip=2", f"data.fold={k}/2"])
        assert val_losses(fit(cfg).run_id) == val_losses(run)


def test_a_trial_that_was_stopped_in_a_fold_goes_on_there(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    study, spec = prepared(plan, "clip=choice(2)", "study.folds=3")
    begun: list[tuple[str, str | None]] = []

    def stopped(cfg: Any, context: RunContext) -> Any:
        begun.append((cfg.data.fold, context.resume))

        def after(epoch: Any) -> bool:
            pruned = context.after_epoch(epoch)
            if cfg.data.fold == "2/3" and len(begun) == 2:
                context.signals.signum = 15
            return pruned

        return in_steps(cfg, replace(context, after_epoch=after))

    monkeypatch.setattr(worker, "in_steps", stopped)
    with pytest.raises(Interrupted):
        worker.work(spec)
    (first,) = study.trials()
    runs = list(TrialRecord.of(first).run_ids)
    assert len(runs) == 2
    worker.work(spec)
    again = study.trials()[1]
    assert begun == [("1/3", None), ("2/3", None), ("1/3", runs[0]), ("2/3", runs[1]), ("3/3", None)]
    assert list(TrialRecord.of(again).run_ids)[:2] == runs
    whole, spec = prepared(plan, "clip=choice(2)", "study.folds=3", "study.name=whole")
    worker.work(spec)
    assert again.values == whole.trials()[0].values


def test_folds_are_another_study_on_the_same_data(plan: Planned) -> None:
    none, three, four = plan(FOLDS[0]), plan(*FOLDS), plan(FOLDS[0], "study.folds=4")
    rolling = plan(*FOLDS, "study.fold_window=rolling")
    assert "folds" not in none.spec
    assert len({p.name for p in (none, three, four, rolling)}) == 4
    assert data_fingerprint(none.cfg) == data_fingerprint(three.cfg) == data_fingerprint(rolling.cfg)
    short = plan(*FOLDS, "data.val_fraction=0.001")
    assert data_fingerprint(short.cfg) == data_fingerprint(plan(*FOLDS, "data.val_fraction=0.002").cfg)
    prepared(plan, *FOLDS, "study.name=one")
    (line,) = wrong(partial(prepared, plan), FOLDS[0], "study.folds=4", "study.name=one", "study.allow_changed=true")
    assert line.startswith("study one: folds was 3, is 4; cannot change within a study; takes another study.name")


def test_what_folds_cannot_be_is_refused_with_a_line(plan: Planned) -> None:
    (line,) = wrong(plan, *FOLDS, "data.fold=1/3")
    assert line == "data.fold: got '1/3', which study.folds=3 sets for each run; takes null"
    (line,) = wrong(plan, *FOLDS, "data.fold_window=rolling")
    assert line == "data.fold_window: got 'rolling'; takes study.fold_window, which sets it"
    (line,) = wrong(plan, FOLDS[0], "study.fold_window=rolling")
    assert line == "study.fold_window: got 'rolling', and there are no folds; takes study.folds=K beside it"
    (line,) = wrong(plan, FOLDS[0], "study.folds=1")
    assert line == "study.folds: got 1; takes a whole number from 2 to 1000, or null"


def test_series_that_are_held_out_whole_have_no_folds(plan: Planned) -> None:
    source = ConfigSource(CONF)
    with source.opened(), pytest.raises(CommandError) as error:
        make_plan(source, parsed(["clip=1,2", "study.folds=3"])[0])
    (line,) = error.value.lines
    assert line.startswith(
        "study.folds: got 3; takes null: data=article holds whole series out, and folds are cut from"
    )


def test_every_fold_has_to_be_long_enough(plan: Planned) -> None:
    """320 steps before the test part: a fold's validation piece needs 2, its training part 8 + 1 + 2."""
    assert plan(FOLDS[0], "study.folds=28").settings.folds == 28  # pieces of 11
    (line,) = wrong(plan, FOLDS[0], "study.folds=29")  # of 10 and 11
    assert "fold 1/29" in line
    (line,) = wrong(plan, *FOLDS, "schedule.chunks=[90]")
    assert line.startswith(
        "schedule.chunks: got [90]; takes at most as many chunks as the longest series has steps to train"
    )
    assert plan(FOLDS[0], "schedule.chunks=[90]").settings.folds is None


def test_a_dry_run_counts_them(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbptt.studies.dry_run._seconds_an_epoch", lambda _: 3600.0)
    asked = plan(*FOLDS, "study.seeds=[0,1]")
    assert "2 trials × 2 seeds × 3 folds × 2 epochs, 1 at once: at least 24 hours" in describe(asked, asked.points())


def test_a_running_trial_says_which_fold_it_is_at() -> None:
    at = HowFar(seed=2, seeds=3, epoch=4, epochs=10, held_out=0.5, seconds_left=60.0, fold=2, folds=4)
    trial = made_trial("RUNNING", progress=vars(at))
    assert how_far(trial).startswith("seed 2/3  fold 2/4  epoch 4/10")
    shown = TrialProgress(None, 0, epochs=10, seeds=3, folds=4)
    shown._pace.seconds_for = float  # type: ignore[method-assign,assignment]
    shown._pace.add = lambda epoch: None  # type: ignore[method-assign,assignment]
    shown.epoch(type("E", (), {"number": 3, "metrics": {"val/loss": 0.5}})(), run=5)  # type: ignore[arg-type]
    assert shown._newest is not None
    assert replace(shown._newest, at=None) == replace(at, seconds_left=6.0 + 6 * 10)


def test_values_of_a_seed_are_means_over_its_folds_and_one_that_lacks_some_has_none() -> None:
    attrs = {"folds": 2, "values_by_seed": [[1.0, 8.0], [3.0, 6.0], [5.0, 4.0]], "run_ids": ["a", "b", "c"]}
    record = TrialRecord(json.loads(json.dumps(attrs)))
    assert record.by_seed(0) == [2.0]
    assert record.by_seed(1) == [7.0]
    assert record.by_run(0) == [1.0, 3.0, 5.0]
    assert runs_by_seed(record) == [["a", "b"], ["c"]]
    assert runs_by_seed(TrialRecord({"run_ids": ["a", "b"]})) == [["a"], ["b"]]


def test_the_last_fold_is_kept_where_there_is_one_seed(here: Path) -> None:
    runs = ["a" * 32, "b" * 32, "c" * 32]
    trial = made_trial(values=[2.0], params={"clip": 1.0}, by_seed=[3.0, 1.0, 2.0], folds=3)
    trial.set_user_attr("run_ids", runs)
    study = made_study([trial], spec={"space": {}, "config": {}, "seeds": None, "folds": 3, "fold_window": "expanding"})
    run, luck = best_run(study, study.trials()[0])
    assert run == runs[2]
    assert luck == "the last of 3 folds of trial 0: val/loss 2; the mean of all folds is 2"
    assert OmegaConf.to_container(OmegaConf.create(dict(study.record.spec)))["folds"] == study.record.folds == 3  # type: ignore[index,call-overload]

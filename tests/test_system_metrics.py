"""The machine's use while a run trains: measured where asked for, sent like the curves, and in nobody's way."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from omegaconf import DictConfig

from tbptt.runs import system_metrics
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.journal import deliver_pending
from tbptt.runs.pending import pending_folder
from tbptt.runs.tracking import Store

NAMES = {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"}


def measured(here: Path, run_id: str) -> dict[str, float]:
    run = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db").get_run(run_id)
    return {name: value for name, value in run.data.metrics.items() if name.startswith("system/")}


def none_runs() -> bool:
    return not any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate())


def test_a_run_of_a_second_has_a_point_and_equals_one_without(here: Path, small: Callable[..., DictConfig]) -> None:
    with_them = fit(small("tracking.system_metrics=true"))
    without = fit(small())
    assert with_them.best.values == without.best.values
    found = measured(here, with_them.run_id)
    assert found.keys() >= NAMES
    assert all(0 <= found[name] <= 100 for name in NAMES)
    assert measured(here, without.run_id) == {}
    assert none_runs()
    assert mlflow.active_run() is None


def test_it_ends_with_a_run_that_fails_and_what_it_measured_is_kept(
    here: Path, small: Callable[..., DictConfig]
) -> None:
    begun: list[str] = []

    def fails(epoch: Epoch) -> bool:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(small("tracking.system_metrics=true"), RunContext(on_start=begun.append, after_epoch=fails))
    assert none_runs()
    assert measured(here, begun[0]).keys() >= NAMES


def test_a_store_that_is_locked_holds_nothing_up_and_misses_nothing(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbptt.runs.tracking.LOCKED", 1.0)
    begun: list[str] = []
    path = here / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(":memory:")) as nothing:
        locks = [nothing]

        def lock(epoch: Epoch) -> bool:
            if epoch.number == 0:
                locks.append(sqlite3.connect(path, isolation_level=None))
                locks[-1].execute("BEGIN EXCLUSIVE")
            return False

        fit(small("tracking.system_metrics=true"), RunContext(on_start=begun.append, after_epoch=lock))
        folder = pending_folder(here / "mlruns", begun[0])
        kept = [line["metrics"] for line in system_metrics._lines(folder / "system.jsonl")]
        assert kept
        assert none_runs()
        locks[-1].close()
    assert measured(here, begun[0]) == {}
    cfg = small()
    store = Store(cfg.tracking)
    assert deliver_pending(store, 50) == 0
    assert measured(here, begun[0]) == kept[-1]


def test_a_line_that_a_crash_cut_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "system.jsonl"
    path.write_text('{"time": 1, "step": 0, "metrics": {"system/a": 1.0}}\n{"time": 2, "st\n{"time": 3, "step": 1, ')
    path.write_text(path.read_text() + '"metrics": {}}\n')
    assert [line["time"] for line in system_metrics._lines(path)] == [1, 3]

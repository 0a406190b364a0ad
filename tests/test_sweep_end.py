"""How a sweep ends when signals come while its report is written: command and stores say the same."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pages import page_of
from studies import made_study, made_trial

from tbptt.cli.reports import write_report
from tbptt.config.schema import TrackingConfig
from tbptt.runs.tracking import Store
from tbptt.studies.sweep import _time_is_over
from tbptt.studies.sweep_end import settle
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.system.runtime import Interrupted, StopSignals

STOPS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
PLAN_CFG = SimpleNamespace(tracking=SimpleNamespace(keep="all"))
FINISHED, FAILED, KILLED = ("FINISHED", None), ("FAILED", "error"), ("KILLED", "interrupted")


class Parent:
    """A parent run that keeps what it is told; ``at_finish`` comes while it is told its status."""

    id = "parent"

    def __init__(self, at_finish: int | None):
        self.at_finish, self.ends = at_finish, []  # type: ignore[var-annotated]

    def tags(self) -> dict[str, str]:
        return {}

    def finish(self, status: str, reason: str | None) -> None:
        self.ends.append((status, reason))
        if self.at_finish:
            os.kill(os.getpid(), self.at_finish)


def ended(
    monkeypatch: pytest.MonkeyPatch,
    at_report: int | None = None,
    at_finish: int | None = None,
    error: BaseException | None = None,
    running: int = 0,
) -> tuple[list[tuple[str, str | None]], int | None, StopSignals]:
    """What the parent was told, and what the command is: of a study whose trials have ended, with these signals."""
    trials = [made_trial(values=[0.5], params={"clip": 1.0}), *[made_trial("RUNNING", params={"clip": 2.0})] * running]
    study = made_study(trials)
    monkeypatch.setattr(study, "reap", lambda retries: [])
    monkeypatch.setattr("tbptt.studies.sweep_end._note_best", lambda *_: None)

    def report(*_: Any) -> list[Path]:
        if at_report:
            os.kill(os.getpid(), at_report)
        return []

    store: Any = SimpleNamespace(is_local=True, retry=lambda call: call(), children=lambda *_: [])
    plan: Any = SimpleNamespace(settings=SimpleNamespace(retries=1), cfg=PLAN_CFG)
    parent: Any = Parent(at_finish)
    with StopSignals() as signals:
        signum = settle(study, plan, store, parent, signals, report, error)
    return parent.ends, signum, signals


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_while_the_report_is_written_stops_command_and_parent(
    stop: signal.Signals, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(monkeypatch, at_report=stop)[:2] == ([KILLED], stop)


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_after_the_parent_has_its_status_changes_neither(
    stop: signal.Signals, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StopSignals() as outer, outer.at_once():  # as the command's own
        ends, signum, signals = ended(monkeypatch, at_finish=stop)
        assert (ends, signum) == ([FINISHED], None)
        signals.check()
        os.kill(os.getpid(), stop)  # now the outer has it
        outer.check()


def test_a_parent_that_others_close_is_left_open_and_the_command_stops(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(monkeypatch, at_report=signal.SIGINT, running=1)[:2] == ([], signal.SIGINT)


@pytest.mark.parametrize(
    ("error", "at_report", "end", "signum"),
    [
        (RuntimeError("3 workers ended"), None, FAILED, None),
        (RuntimeError("3 workers ended"), signal.SIGINT, FAILED, None),  # which the command ends with, too
        (None, None, FINISHED, None),
    ],
)
def test_what_ended_the_sweep_first_is_what_counts(
    error: Exception | None,
    at_report: int | None,
    end: tuple[str, str | None],
    signum: int | None,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ended(monkeypatch, at_report=at_report, error=error)[:2] == ([end], signum)


def test_a_signal_that_stopped_the_sweep_is_its_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = Interrupted(signal.SIGTERM)
    assert ended(monkeypatch, at_report=signal.SIGTERM, error=interrupted)[:2] == ([KILLED], signal.SIGTERM)


@pytest.mark.parametrize(
    ("complete", "total", "seconds", "says"),
    [
        (2, 4, -1, "study.timeout of 60 s is over: 2 of 4 trials; the same command goes on"),
        (2, None, -1, "study.timeout of 60 s is over: 2 trials; the same command goes on"),
        (2, 2, -1, None),  # all were done
        (2, 4, 60, None),  # something else ended it
        (2, 4, None, None),
    ],
)
def test_a_sweep_says_that_its_time_was_over_before_its_trials_were_done(
    complete: int, total: int | None, seconds: float | None, says: str | None, here: Path
) -> None:
    study = made_study([made_trial(values=[0.5], params={"clip": 1.0}) for _ in range(complete)], n_trials=total)
    settings = SimpleNamespace(timeout=60.0, max_failures=None, retries=1)
    plan: Any = SimpleNamespace(settings=settings, n_trials=total, is_grid=False)
    spec = WorkerSpec("conf", "config", None, [], "parent").within(seconds)
    assert _time_is_over(study, plan, spec) == says


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_best_run_that_mlflow_gc_removed_costs_its_values_only(is_removed: bool, here: Path) -> None:
    store = Store(TrackingConfig(uri="sqlite:///mlruns/mlflow.db"))
    parent, run = store.start_run("a study", {}), store.start_run("its best", {})
    run.log_points([("best/val/loss", 0.5, 0)], 0)
    run.finish("FINISHED")
    study = made_study([made_trial(values=[0.5], params={"clip": 1.0}, run_ids=[run.id])], parent_run=parent.id)
    if is_removed:
        store.client.delete_run(run.id)
        store.client._tracking_client.store._hard_delete_run(run.id)  # as `mlflow gc` does
    plan: Any = SimpleNamespace(settings=SimpleNamespace(retries=1), cfg=PLAN_CFG)
    with StopSignals() as signals:
        assert settle(study, plan, store, parent, signals, write_report) is None
    found = store.client.get_run(parent.id)
    assert found.info.status == "FINISHED"
    noted = {} if is_removed else {"best/val/loss": 0.5}
    assert (found.data.metrics, "best.trial" in found.data.tags) == (noted, not is_removed)
    assert "Best: trial 0" in page_of(here / "sweeps" / study.name / "report.html").text

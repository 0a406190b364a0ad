"""A worker: takes trials of a study, one after the other, until the budget is used up. All workers are the same."""

import io
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from tbptt.compat import trial_id
from tbptt.config.compose import CommandError, composed
from tbptt.config.names import SWEEPS
from tbptt.config.schema import TrackingConfig
from tbptt.options.values import Value
from tbptt.runs import tracking
from tbptt.runs.context import RunContext
from tbptt.runs.fit import Result, in_steps, to_the_end
from tbptt.runs.journal import deliver_pending
from tbptt.runs.lane import Lane, Pace
from tbptt.runs.naming import trial_name
from tbptt.runs.pending import RunTaken
from tbptt.runs.store_errors import is_outage as is_run_outage
from tbptt.studies.folds import runs_of
from tbptt.studies.pack import Pack, pack_of
from tbptt.studies.plan import Plan
from tbptt.studies.pool import wait_while_paused
from tbptt.studies.postgres import RETRY_SECONDS, Heartbeat, ServerStorage
from tbptt.studies.records import TrialRecord
from tbptt.studies.retention import Retention
from tbptt.studies.space import Choice
from tbptt.studies.study import INTERRUPTED, Budget, Study
from tbptt.studies.trial_reports import TrialReports
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.system.devices import GPU_FAILED, NO_GPU, GpuFailed, NoGpu, gpu_trouble, lacks_gpu, release_memory
from tbptt.system.endings import failure_line
from tbptt.system.files import make_folder, open_own
from tbptt.system.retry import retry
from tbptt.system.runtime import Interrupted, LeaseLost, StopSignals, die_with_parent, prepare_output
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path
from tbptt.system.trouble import WHAT, WORKER_STATUS, disk_trouble
from tbptt.tasks.prepare import PreparedLast

log = logging.getLogger("tbptt")

SECONDS_TO_A_KILL = 60.0  # twice SLURM's default KillWait; a cluster may have another


class StillPending(Exception):
    """A tracking server does not have all of the runs yet."""


def work(spec: WorkerSpec, also: Sequence[signal.Signals] = (), pause: Callable[[], None] | None = None) -> None:
    """Run trials until none is left. Raises Interrupted after SIGINT, SIGTERM, or one of ``also``; the trial then goes
    back to the study.

    Args:
        pause: called between two chunks after SIGTSTP; None leaves that signal as it is.
    """
    with StopSignals(also) as signals, signals.pausing(pause) if pause else nullcontext():
        if pause:
            pause()  # the signal may have come before
        with spec.source.opened():  # once: the worker's plan and all of its trials come from the same files
            Worker(spec, signals).work()


class Worker:
    """One worker: its study, and what it keeps between its trials."""

    def __init__(self, spec: WorkerSpec, signals: StopSignals):
        self.spec, self.signals, self.deadline = spec, signals, spec.own_deadline()
        with signals.at_once():  # it reads the data
            self.plan = self._planned()
        self.study = self._opened()
        self.server = self.study.storage if isinstance(self.study.storage, ServerStorage) else None
        if self.server:
            self.server.check = signals.check
        self.prepare = PreparedLast()
        tracking = cast(TrackingConfig, OmegaConf.to_object(self.plan.cfg.tracking))
        self.retention = Retention(self.study, tracking, signals.check)

    def _planned(self) -> Plan:
        """The plan of its spec. Raises NoGpu if the GPU has gone away since the command was checked."""
        try:
            return self.spec.plan()
        except CommandError as error:
            if lacks := lacks_gpu(error.lines):
                raise NoGpu(lacks) from error
            raise

    def _opened(self) -> Study:
        """Open the study. If its server is away just now, wait until it is back."""
        settings = self.plan.settings

        def opened() -> Study:
            return Study(self.plan.name, settings.storage, self.plan.objectives, settings.heartbeat)

        return retry(opened, lambda error: isinstance(error, ConnectionError), RETRY_SECONDS, self.signals.check)

    def work(self) -> None:
        """Run trials until none is left."""
        size, grows = pack_of(self.plan, self.prepare)
        if size > 1:
            Pack(self, size, grows).work()
        else:
            while (claimed := self.claim()) is not None:
                to_the_end(self.trial(*claimed))
        self._deliver_the_rest()

    def claim(self) -> tuple[Trial, dict[str, Value]] | None:
        """The next trial and its point; None if none is left."""
        self.signals.check()
        plan, settings = self.plan, self.plan.settings
        budget = Budget(plan.n_trials, self.deadline, settings.max_failures, settings.retries)
        return self.study.claim(plan.space, budget, settings.sampler, settings.pruner, plan.cfg.epochs, plan.is_grid)

    def _deliver_the_rest(self) -> None:
        """Wait until a tracking server has the rest of the last runs, because no next run will deliver it."""
        settings = cast(TrackingConfig, OmegaConf.to_object(self.plan.cfg.tracking))
        if sqlite_path(settings.uri) is not None:
            return
        store = tracking.Store(settings, RETRY_SECONDS, self.signals.check)

        def deliver() -> None:
            if deliver_pending(store, settings.update_points):
                raise StillPending

        with suppress(StillPending):  # the next command tries again
            retry(deliver, lambda error: isinstance(error, StillPending), RETRY_SECONDS, self.signals.check)

    def trial(self, trial: Trial, point: dict[str, Value], pace: Pace | None = None) -> Generator[Lane]:
        """Train a point, once per seed and fold, and tell the study how it ended. Raises errors that end this worker
        too.

        Args:
            pace: of the pack that trains it; it then yields a lane for each epoch (:func:`tbptt.runs.fit.in_steps`).
        """
        had_room = True
        try:
            with Heartbeat(self.server, trial_id(trial)) if self.server else nullcontext() as heartbeat:
                check_lease = heartbeat.check_lease if heartbeat else lambda: None
                self._tell(trial, (yield from self._train_point(trial, point, check_lease, pace)))
        except RunTaken as error:  # given out again when the other process is done with it
            log.warning("trial %d: %s", trial.number, error)
            self.study.fail(trial.number, INTERRUPTED, again=True)
        except (LeaseLost, UpdateFinishedTrialError):
            log.warning("trial %d: this worker was cut off for too long", trial.number)
            self.study.fail(trial.number, INTERRUPTED, again=True)
        except Interrupted:
            self.study.fail(trial.number, INTERRUPTED, again=True)
            raise
        except Exception as error:
            if trouble := disk_trouble(error):  # not the trial's fault: it goes on when the disk is mended
                with suppress(Exception):
                    self.study.fail(trial.number, WHAT[trouble.number], again=True)
                raise
            if is_run_outage(error):  # not its fault either: no other trial would fare better
                self.study.fail(trial.number, failure_line(error), again=True)
                raise
            if gpu_trouble(error):
                self._give_back(trial, error)
                had_room = False
            else:
                self.study.fail(trial.number, failure_line(error))
                log.error("trial %d failed: %s", trial.number, failure_line(error))
        if not had_room:  # only now: until here, the error held the trial's memory
            release_memory()
        self.retention.ended(trial.number)

    def _give_back(self, trial: Trial, error: Exception) -> None:
        """Give a trial back to the study after its GPU's error, so that it goes on later. If the GPU was only short of
        memory, this worker goes on too; otherwise the error is raised."""
        trouble = gpu_trouble(error)
        assert trouble is not None
        if isinstance(trouble, NoGpu):  # no other trial would fare better
            self.study.fail(trial.number, trouble.what, again=True)
            raise error
        self.study.give_back(trial.number, hide(trouble.what), self.plan.settings.retries)
        log.error("trial %d: %s", trial.number, hide(trouble.what))
        if isinstance(trouble, GpuFailed):
            raise error

    def _tell(self, trial: Trial, results: list[Result]) -> None:
        """Tell the study how a trial ended."""
        means = [math.fsum(column) / len(results) for column in zip(*(r.best.values for r in results), strict=True)]
        has_ended_early = results[-1].stop_reason in ("pruned", "diverged")
        is_measured = bool(means) and all(map(math.isfinite, means))
        of_seed = results[: self.plan.settings.folds or 1]
        with self.study.together():
            TrialRecord.stop_reason.write(trial, results[-1].stop_reason)
            TrialRecord.best_epochs.write(trial, [r.best.epoch for r in results])
            TrialRecord.values_by_seed.write(trial, [list(r.best.values) for r in results])
            TrialRecord.baseline.write(trial, math.fsum(r.baseline for r in of_seed) / len(of_seed))
            if has_ended_early:
                self.study.optuna.tell(trial, state=TrialState.PRUNED)  # with the last value that was reported
            elif is_measured:
                self.study.optuna.tell(trial, means)
        if not has_ended_early and not is_measured:
            self.study.fail(trial.number, f"an objective was never measured: {', '.join(self.plan.objectives)}")

    def _train_point(
        self, trial: Trial, point: dict[str, Value], check_lease: Callable[[], None], pace: Pace | None
    ) -> Generator[Lane, None, list[Result]]:
        """Train one run per seed, with folds one per seed and fold. A run that is pruned or diverges is the last."""
        words = self.plan.space.overrides(point)
        cfg = self._composed(trial, words)
        resumed = TrialRecord.of(trial).resume
        runs, folds = runs_of(self.plan.settings), self.plan.settings.folds or 1
        results: list[Result] = []
        if folds > 1:
            TrialRecord.folds.write(trial, folds)
        with TrialReports(self.study, trial, self.plan.objectives, cfg, len(runs) // folds, folds) as reports:
            for i, its_own in enumerate(runs):
                cfg = cfg.copy()
                for key, value in its_own.items():
                    OmegaConf.update(cfg, key, value)
                context = RunContext(
                    name=self._name(trial.number, point, its_own),
                    overrides=self._overrides([*words, *(f"{key}={value}" for key, value in its_own.items())]),
                    parent=self.spec.parent,
                    tags={"study.name": self.study.name, "trial.number": str(trial.number)},
                    resume=resumed[i] if i < len(resumed) else None,
                    after_epoch=reports.after_epoch,
                    on_start=reports.on_start,
                    signals=self.signals,
                    prepare=self.prepare,
                    show=False,
                    test=False,
                    check_lease=check_lease,
                    retry_seconds=RETRY_SECONDS,
                    pack=pace,
                )
                results.append((yield from in_steps(cfg, context)))
                if results[-1].stop_reason in ("pruned", "diverged"):
                    break
            reports.ended([result.best.epoch for result in results])
        return results

    def _name(self, number: int, point: dict[str, Value], its_own: Mapping[str, Any]) -> str:
        """The name of a run in MLflow."""
        values, choices = {}, {}
        for dimension in self.plan.space.dimensions:
            if dimension.name in point:
                values[dimension.key] = point[dimension.name]
                choices[dimension.key] = dimension.choices if isinstance(dimension, Choice) else ()
        seed = its_own.get("seed") if len(self.plan.settings.seeds or ()) > 1 else None
        return trial_name(number, values, choices, seed, its_own.get("data.fold"))

    def _overrides(self, words: Sequence[str]) -> list[str] | None:
        """The overrides that make a run's config of the shipped one; None if that is not all of it."""
        source = self.plan.source
        return None if source.also or source.name != "config" else [*self.plan.fixed, *words]

    def _composed(self, trial: Trial, words: Sequence[str]) -> DictConfig:
        """A trial's config, checked here and recorded in the trial's folder. Raises ValueError if it has become wrong,
        and NoGpu if it is wrong for want of a GPU."""
        overrides = [*self.plan.fixed, *words, f"study.trial={trial.number}"]
        with self.signals.at_once():
            cfg, wrong = composed(self.plan.source, overrides)
        if wrong and cfg is not None and cfg.device != "cpu" and (lacks := lacks_gpu(wrong)):
            raise NoGpu(lacks)
        if cfg is None or wrong:
            raise ValueError("; ".join(wrong))
        own = SWEEPS / self.study.name
        self.plan.source.save(make_folder(own / str(trial.number) / ".hydra", own), overrides)
        OmegaConf.update(cfg, "study.name", self.study.name)
        return cfg


def work_as_job(spec: WorkerSpec, cfg: DictConfig) -> None:
    """Run a worker as a job of one of Hydra's launchers. The job's own config is not used.

    SLURM sends a signal before the job's time is up, or when the job has to make room. The trial then goes back to the
    study with what it has learnt, and the job goes back into the queue. After SIGUSR1 or SIGUSR2, the launcher's own
    handler queues the job again. After SIGTERM, which comes before a kill, SLURM does.
    """
    usual = signal.getsignal(signal.SIGUSR2)
    try:
        work(spec, also=(signal.SIGUSR1, signal.SIGUSR2))
    except Interrupted as stop:
        if stop.signum in (signal.SIGUSR1, signal.SIGUSR2) and callable(usual):
            usual(signal.SIGUSR2, None)
        elif stop.signum == signal.SIGTERM:
            time.sleep(SECONDS_TO_A_KILL)  # an answer now would tell the launcher that the job is over
        raise


def _first_line() -> bytes:
    """The first line of stdin. What follows stays there for :func:`wait_while_paused`."""
    with io.FileIO(0, closefd=False) as stdin:
        return stdin.readline()


def _write_to(path: str) -> None:
    """Let this process print into a file. If the file cannot be made, as on a full disk, or is a link, drop the
    output."""
    try:
        log_file = open_own(Path(path), os.O_WRONLY | os.O_APPEND)
    except (OSError, ValueError):
        log_file = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log_file, 1)
    os.dup2(log_file, 2)


def main() -> int:
    """``python -m tbptt.studies.worker_process``. It reads a line of JSON from stdin: its :class:`WorkerSpec`, and
    ``log``, the file to which it writes from then on.

    Exit status: 0 if nothing is left, or no line came; 128 + a signal's number; WORKER_STATUS + an error's number if
    the disk stopped it; GPU_FAILED or NO_GPU if the GPU did.
    """
    die_with_parent()
    prepare_output()
    line = _first_line()
    if not line:
        return 0
    content: dict[str, Any] = json.loads(line)
    _write_to(content.pop("log"))
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    try:
        work(WorkerSpec(**content), pause=wait_while_paused)
    except Interrupted as stop:
        return 128 + stop.signum
    except Exception as error:
        if trouble := disk_trouble(error):
            log.error("%s", trouble)
            return WORKER_STATUS + trouble.number
        if failed := gpu_trouble(error):
            log.error("%s", hide(failed.what))
            return NO_GPU if isinstance(failed, NoGpu) else GPU_FAILED
        raise
    return 0

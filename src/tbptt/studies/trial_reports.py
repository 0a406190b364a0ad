"""What a trial's runs tell the study while they train: their ids, the curves and the objective of the first run."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import TracebackType

from omegaconf import DictConfig
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import NopPruner
from optuna.trial import Trial

from tbptt.compat import trial_id
from tbptt.options.metrics import VAL_LOSS, kept_curves, measured
from tbptt.runs.epoch import Epoch
from tbptt.studies.postgres import ServerStorage, is_outage
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.studies.trial_progress import TrialProgress
from tbptt.system.runtime import LeaseLost

REPORT_EVERY = 1.0  # seconds between two reports of a trial that is not pruned: those of shorter epochs go in together


class TrialReports:
    """Entered while a trial trains. Training does not wait for a server: values that the server did not take are sent
    at the end.

    Args:
        objectives: the study's.
        cfg: the trial's config.
        seeds, folds: the number of the trial's seeds, and of the folds per seed.
    """

    def __init__(self, study: Study, trial: Trial, objectives: list[str], cfg: DictConfig, seeds: int, folds: int = 1):
        self.study, self.trial, self.objectives = study, trial, objectives
        self.server = study.storage if isinstance(study.storage, ServerStorage) else None
        self._shown = TrialProgress(study.storage, trial_id(trial), cfg.epochs, seeds, folds)
        self._run_ids: list[str] = []
        self._curves: dict[str, list[float | None]] = {name: [] for name in kept_curves(cfg.task.name)}
        self._measured = [VAL_LOSS, *(metric.name for metric in measured(cfg.task.name))]
        self._by_run: list[dict[int, dict[str, float]]] = []  # for each run, by epoch, the measured metrics
        self._to_report: list[tuple[float, int]] = []  # values and epochs that the study does not have yet
        self._next_report = time.monotonic() + REPORT_EVERY
        self._means: dict[str, float] | None = None

    def __enter__(self) -> "TrialReports":
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._shown.__exit__()
        with self.study.together():
            for value, epoch in self._to_report:
                self.trial.report(value, epoch)
            TrialRecord.curves.write(self.trial, self._curves)
            if self._means is not None:
                TrialRecord.metrics.write(self.trial, self._means)

    def on_start(self, run_id: str) -> None:
        """Keep the id of a run of the trial that has begun."""
        self._run_ids.append(run_id)
        self._by_run.append({})
        TrialRecord.run_ids.write(self.trial, self._run_ids)

    def after_epoch(self, epoch: Epoch) -> bool:
        """For the first run (first seed, first fold): keep the curves and report the objective. Returns whether to
        prune."""
        self._shown.epoch(epoch, len(self._run_ids) - 1)
        self._by_run[-1][epoch.number] = {n: epoch.metrics[n] for n in self._measured if n in epoch.metrics}
        if len(self._run_ids) > 1:
            return False
        for name, curve in self._curves.items():
            curve.append(epoch.metrics.get(name))
        value = epoch.metrics.get(self.objectives[0])
        if value is None or len(self.objectives) > 1:  # Optuna cannot prune for several objectives
            return False
        self._to_report.append((value, epoch.number))
        return self._should_prune()

    def ended(self, best_epochs: Sequence[int | None]) -> None:
        """When all runs have ended: keep the metrics at the runs' best epochs, as means over the runs."""
        at_best = [run.get(best, {}) for run, best in zip(self._by_run, best_epochs, strict=True) if best is not None]
        means = {
            name: math.fsum(values[name] for values in at_best) / len(at_best)
            for name in self._measured
            if at_best and all(name in values for values in at_best)
        }
        self._means = means  # written on leaving, with the curves

    def _should_prune(self) -> bool:
        """Tell the study the values that it does not have yet. Returns whether to prune. Raises LeaseLost if others
        took this worker for dead."""
        if isinstance(self.trial.study.pruner, NopPruner) and time.monotonic() < self._next_report:
            return False
        self._next_report = time.monotonic() + REPORT_EVERY
        try:
            with self.server.without_retry() if self.server else nullcontext():
                with self.study.together():
                    while self._to_report:
                        self.trial.report(*self._to_report[0])
                        self._to_report.pop(0)
                return self.trial.should_prune()
        except UpdateFinishedTrialError:  # the others also took over its run
            raise LeaseLost from None
        except Exception as error:
            if self.server and is_outage(error):
                return False
            raise

"""What a trial's runs tell the study while they train: their ids, the curves of the first, its objective."""

from contextlib import nullcontext
from types import TracebackType

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from tbptt.runs.epoch import Epoch
from tbptt.studies.postgres import ServerStorage, is_outage
from tbptt.studies.study import Study
from tbptt.studies.trial_progress import TrialProgress
from tbptt.system.runtime import LeaseLost

CURVES = ("train/loss", "val/loss", "train/eval_loss", "schedule/chunks")  # kept with the trial, for the report


class TrialReports:
    """Entered while a trial trains. Training does not wait for a server: what that did not take comes at the end.

    Args:
        objectives: the study's.
        epochs, seeds: of the trial: epochs of each run, runs.
    """

    def __init__(self, study: Study, trial: Trial, objectives: list[str], epochs: int, seeds: int):
        self.trial, self.objectives = trial, objectives
        self.server = study.storage if isinstance(study.storage, ServerStorage) else None
        self._shown = TrialProgress(study.storage, trial._trial_id, epochs, seeds)
        self._run_ids: list[str] = []
        self._curves: dict[str, list[float | None]] = {name: [] for name in CURVES}
        self._to_report: list[tuple[float, int]] = []  # that the study does not have yet

    def __enter__(self) -> "TrialReports":
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._shown.__exit__()
        for value, epoch in self._to_report:
            self.trial.report(value, epoch)
        self.trial.set_user_attr("curves", self._curves)

    def on_start(self, run_id: str) -> None:
        """A run of the trial has its id."""
        self._run_ids.append(run_id)
        self.trial.set_user_attr("run_ids", self._run_ids)

    def after_epoch(self, epoch: Epoch) -> bool:
        """Of the first seed: keep the curves, report the objective; whether to prune."""
        self._shown.epoch(epoch, len(self._run_ids) - 1)
        if len(self._run_ids) > 1:
            return False
        for name, curve in self._curves.items():
            curve.append(epoch.metrics.get(name))
        value = epoch.metrics.get(self.objectives[0])
        if value is None or len(self.objectives) > 1:  # Optuna cannot prune for several objectives
            return False
        self._to_report.append((value, epoch.number))
        return self._should_prune()

    def _should_prune(self) -> bool:
        """Tell the study what it does not have yet; whether to prune. Raises LeaseLost where others took this worker
        for dead."""
        try:
            with self.server.impatient() if self.server else nullcontext():
                while self._to_report:
                    self.trial.report(*self._to_report[0])
                    self._to_report.pop(0)
                return self.trial.should_prune()
        except UpdateFinishedTrialError:  # its run is theirs, too
            raise LeaseLost from None
        except Exception as error:
            if self.server and is_outage(error):
                return False
            raise

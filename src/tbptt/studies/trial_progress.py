"""How far a running trial is. Its worker keeps this with the trial in the study, where the head process reads it."""

import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import Any

from tbptt.options.metrics import VAL_LOSS
from tbptt.runs.epoch import Epoch
from tbptt.runs.progress import Pace
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.records import HowFar, TrialRecord

EVERY = 2.0  # seconds between two notes at least


class TrialProgress:
    """While entered, a thread keeps a trial's progress up to date. So the trial never waits for the storage, and no
    error of the storage makes it fail.

    Args:
        storage, trial_id: Optuna's.
        epochs, seeds, folds: of the trial: epochs per run, number of seeds, runs per seed.
    """

    def __init__(self, storage: Any, trial_id: int, epochs: int, seeds: int, folds: int = 1):
        self.storage, self.trial_id, self.epochs, self.seeds, self.folds = storage, trial_id, epochs, seeds, folds
        self._pace = Pace()
        self._newest: HowFar | None = None
        self._new, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> "TrialProgress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._new.set()

    def epoch(self, epoch: Epoch, run: int) -> None:
        """Note a finished epoch of the trial's run number ``run``, from 0."""
        self._pace.add(epoch)
        left = (self.seeds * self.folds - run) * self.epochs - epoch.number - 1
        self._newest = HowFar(
            seed=run // self.folds + 1,
            seeds=self.seeds,
            epoch=epoch.number + 1,
            epochs=self.epochs,
            held_out=epoch.metrics.get(VAL_LOSS),
            seconds_left=self._pace.seconds_for(left),
            fold=run % self.folds + 1,
            folds=self.folds,
            at=time.time(),
        )
        self._new.set()

    def _write(self) -> None:
        while True:
            self._new.wait()
            if self._end.is_set():
                return
            self._new.clear()
            newest = self._newest
            assert newest is not None
            # A note is dropped if it fails, because a server is away or the trial has just ended.
            with suppress(Exception), self._without_retry():
                self.storage.set_trial_user_attr(self.trial_id, TrialRecord.progress.name, asdict(newest))
            self._end.wait(EVERY)

    def _without_retry(self) -> Any:
        return self.storage.without_retry() if isinstance(self.storage, ServerStorage) else nullcontext()

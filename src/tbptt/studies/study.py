"""A study in Optuna's storage. It is made once, every worker joins it, and all workers share its budget exactly.

All decisions happen under one lock: which trial runs next, which worker is dead, whether the budget is used up. So the
workers of one command, of several terminals and of a resumed command cannot disagree.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tbptt.compat import queued_point, study_id, trial_id
from tbptt.config.names import SWEEPS
from tbptt.config.schema import PrunerConfig, SamplerConfig
from tbptt.options.metrics import direction, objectives_of
from tbptt.options.values import Value
from tbptt.studies.counts import Counts, counts_of, failed_for_good
from tbptt.studies.living import parted
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.reading import read_trials
from tbptt.studies.records import StudyRecord, TrialRecord
from tbptt.studies.samplers import build_pruner, build_sampler
from tbptt.studies.space import Space
from tbptt.studies.together import together
from tbptt.system.liveness import holding, identity
from tbptt.system.stores import absolute_uri, locked, sqlite_path

optuna.logging.set_verbosity(optuna.logging.WARNING)

INTERRUPTED = "interrupted"
QUEUED_AT_ONCE = 200  # points in one transaction, for which others who write wait
T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How far a study may go.

    Attributes:
        n_trials: the total number of trials at its end, or None.
        deadline: a time.monotonic() after which no trial starts, or None.
        max_failures: the number of failed trials at which it stops, or None.
        retries: of a trial whose process died, or whose GPU failed or was short of memory.
    """

    n_trials: int | None
    deadline: float | None
    max_failures: int | None
    retries: int


class Study:
    """One study, opened by one process.

    Attributes:
        name: also the name of its folder in ``sweeps/``.
        optuna: Optuna's own study.
    """

    def __init__(
        self, name: str, storage: str, objectives: list[str], heartbeat: int = 15, opened: RDBStorage | None = None
    ):
        """Open the study, or make it. Safe for any number of processes at the same moment. If its storage is ``opened``
        already, the study must be there, and nothing is written.

        Raises ConnectionError if its server does not answer.
        """
        self.name, self.storage_uri, self.objectives = name, storage, objectives
        self.path = sqlite_path(storage)
        if opened is not None:
            self.storage, self.optuna = opened, optuna.load_study(study_name=name, storage=opened)
            return
        with locked(self.path.parent / ".lock") if self.path else contextlib.nullcontext():
            # If two processes make the tables of a SQLite file at once, they break them.
            self.storage = _open(storage, heartbeat)
            self.optuna = optuna.create_study(
                storage=self.storage,
                study_name=name,
                load_if_exists=True,
                directions=[cast(Any, direction(o)) for o in objectives],
            )

    @classmethod
    def taken(cls, storage: str) -> set[str]:
        """The names that a new study cannot have: those of a storage's studies and those in ``sweeps/``. Both count,
        because studies of other machines have their folders there."""
        return {path.name for path in SWEEPS.glob("*")} | cls.records(storage).keys()

    @classmethod
    def records(cls, storage: str) -> dict[str, StudyRecord]:
        """The record of each study in a storage, by name."""
        path = sqlite_path(storage)
        if path is not None and not path.exists():
            return {}
        with locked(path.parent / ".lock") if path else contextlib.nullcontext():  # another may make its tables now
            opened = _open(storage, 15)
        found = {study.study_name: StudyRecord.of(study) for study in opened.get_all_studies()}
        opened.engine.dispose()
        return found

    @classmethod
    def every(cls, storage: str) -> "dict[str, Study | ValueError]":
        """Each study of a storage, by name, over the same connections, and nothing is written. Of a study whose
        objective is a metric that is not there any more, the error that says so."""
        path = sqlite_path(storage)
        if path is not None and not path.exists():
            return {}
        opened = _open(storage, 15)
        made = {s.study_name: list(StudyRecord.of(s).objectives) for s in opened.get_all_studies()}
        return {name: _gone(name, its) or cls(name, storage, its, opened=opened) for name, its in made.items() if its}

    @classmethod
    def existing(cls, name: str, storage: str) -> "Study":
        """Open an existing study.

        Raises:
            KeyError: the study does not exist; the error holds the names of those that do.
            ValueError: the study's objective is a metric that is not there any more; the error names it.
        """
        path = sqlite_path(storage)
        if path is not None and not path.exists():
            raise KeyError([])
        opened = _open(storage, 15)
        made = {s.study_name: list(StudyRecord.of(s).objectives) for s in opened.get_all_studies()}
        if not made.get(name):
            opened.engine.dispose()
            raise KeyError(sorted(known for known, objectives in made.items() if objectives))
        if gone := _gone(name, made[name]):
            opened.engine.dispose()
            raise gone
        return cls(name, storage, made[name], opened=opened)

    def close(self) -> None:
        """Close its connections. A later use opens new ones."""
        self.storage.engine.dispose()

    @property
    def record(self) -> StudyRecord:
        """The study's record, as it is now."""
        return StudyRecord.of(self.optuna)

    def living(self, trials: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
        """The trials that a living process runs, among those given or all."""
        return parted(self.trials() if trials is None else trials, self.storage, study_id(self.optuna), self.path)[0]

    def seeds_used(self) -> list[int]:
        """Every seed that helped to choose what is best here: its own seeds, and those of the study that its points
        come from."""
        record = self.record
        return sorted({*record.seeds_used, *(record.seeds or record.own_seed)})

    def note_end(self, why: str | None) -> None:
        """Keep for the report what ended the study before its trials were done; None if nothing did, or if it goes
        on."""
        if self.record.ended_by != why:
            StudyRecord.ended_by.write(self.optuna, why)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Within this context, no other process decides anything about the study."""
        if isinstance(self.storage, ServerStorage):
            return self.storage.locked(self.name)
        assert self.path is not None
        return locked(self.path.parent / f".{self.name}.lock")

    def together(self) -> contextlib.AbstractContextManager[None]:
        """A context in which this thread's writes are one transaction: see together.py."""
        return together(self.storage)

    def _decide(self, what: Callable[[], T]) -> T:
        """Do something under the lock. If the server goes away meanwhile, do all of it again."""

        def once() -> T:
            with self.locked():
                return what()

        return self.storage.retry(once) if isinstance(self.storage, ServerStorage) else once()

    def trials(self) -> list[FrozenTrial]:
        """All trials that count; copies of a point that was sampled twice do not."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if not _is_copy(t)]

    def read(self) -> list[FrozenTrial]:
        """The same as :meth:`trials`, read anew; for a process that needs them once."""
        return [t for t in read_trials(self.storage, study_id(self.optuna)) if not _is_copy(t)]

    def counts(self) -> Counts:
        trials = self.trials()
        return counts_of(trials, self._forgiven(trials))

    # --- the queue -------------------------------------------------------------------------------------------

    def enqueue(self, points: Iterable[Mapping[str, Value]]) -> None:
        """Put the points of a finite space in the queue, once; call it under the lock."""
        if self.record.enqueued:
            return
        there = {frozenset(point_of(t).items()) for t in self.trials()}  # queued by a process that then died
        new = [point for point in points if frozenset(point.items()) not in there]
        for i in range(0, len(new), QUEUED_AT_ONCE):
            with self.together():
                for point in new[i : i + QUEUED_AT_ONCE]:
                    self.optuna.enqueue_trial(dict(point))
        StudyRecord.enqueued.write(self.optuna, True)

    def claim(
        self, space: Space, budget: Budget, sampler: SamplerConfig, pruner: PrunerConfig, epochs: int, is_grid: bool
    ) -> tuple[Trial, dict[str, Value]] | None:
        """Take the next trial, if the budget has one left. Returns the trial and its point, or None."""

        def take() -> tuple[Trial, dict[str, Value]] | None:
            self._reap(budget.retries)
            self._refill()
            while self._may_start(budget, is_grid):
                number = len(self.optuna.get_trials(deepcopy=False))
                self.optuna.sampler = build_sampler(sampler, number)
                self.optuna.pruner = build_pruner(pruner, epochs, is_grid)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Heartbeat of storage")  # postgres.py has its own
                    trial = self.optuna.ask()
                if isinstance(self.storage, ServerStorage):  # before it has a worker: one without is taken for dead
                    self.storage.beat(trial_id(trial))
                with self.together():
                    TrialRecord.worker.write(trial, holding(self.path.parent) if self.path else identity())
                    point = space.suggest(trial)
                is_retry = TrialRecord.of(trial).retry_of is not None
                twin = None if is_retry or is_grid else self._twin(trial, space)
                if twin is None:
                    return trial, point
                TrialRecord.same_as.write(trial, twin)
                self.optuna.tell(trial, state=TrialState.FAIL)
                if self._all_seen(space):
                    return None
            return None

        return self._decide(take)

    def has_more(self, budget: Budget, is_grid: bool) -> bool:
        """Whether a worker that asks now would get a trial. Trials of dead workers count too."""

        def look() -> bool:
            self._reap(budget.retries)
            self._refill()
            return self._may_start(budget, is_grid)

        return self._decide(look)

    def _may_start(self, budget: Budget, is_grid: bool) -> bool:
        counts = self.counts()
        if budget.max_failures is not None and counts.failed >= budget.max_failures:
            return False
        if budget.deadline is not None and time.monotonic() >= budget.deadline:
            return False
        if is_grid:
            return counts.waiting > 0
        return budget.n_trials is None or counts.used < budget.n_trials

    def _twin(self, trial: Trial, space: Space) -> int | None:
        """An earlier trial at the same point of a finite space. To train the point again would give the same result."""
        if space.size() is None:
            return None
        same = (t.number for t in self._begun() if t.number != trial.number and t.params == trial.params)
        return next(same, None)

    def _begun(self) -> list[FrozenTrial]:
        return [t for t in self.trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)]

    def _all_seen(self, space: Space) -> bool:
        """Whether no point of a finite space is left. If the last ten trials were all copies, the sampler has nothing
        new to suggest; then the next unseen point is queued."""
        recent = self.optuna.get_trials(deepcopy=False)[-10:]
        if len(recent) < 10 or not all(map(_is_copy, recent)):
            return False
        seen = {frozenset(t.params.items()) for t in self._begun()}
        unseen = next((point for point in space.points() if frozenset(point.items()) not in seen), None)
        if unseen is not None:
            self.optuna.enqueue_trial(unseen)
        return unseen is None

    def _refill(self) -> None:
        """Queue a copy of every failed trial that must run again and has no copy yet."""
        trials = self.trials()
        done_with = {TrialRecord.of(t).retry_of for t in trials} | {t.number for t in self._failed_for_good(trials)}
        for t in trials:
            if t.state == TrialState.FAIL and t.number not in done_with and point_of(t):
                record = TrialRecord.of(t)
                forgiven = not record.requeued  # its retries begin anew
                attempt = record.attempt + 1 if record.died and not forgiven else 0
                attrs: dict[str, Any] = {TrialRecord.retry_of.name: t.number, TrialRecord.attempt.name: attempt}
                if record.died or not forgiven:
                    attrs[TrialRecord.resume.name] = list(record.run_ids or record.resume)
                self.optuna.enqueue_trial(point_of(t), user_attrs=attrs)

    # --- ends of trials --------------------------------------------------------------------------------------

    def fail(self, number: int, reason: str, *, again: bool = False) -> None:
        """Mark a running trial FAIL; with ``again`` its point will run again. Does nothing if the trial has ended
        already, because other processes took its worker for dead."""

        def unless_ended() -> None:
            if self.optuna.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                self._fail(number, reason, again, died=False)

        self._decide(unless_ended)

    def give_back(self, number: int, reason: str, retries: int) -> None:
        """Mark a running trial FAIL and let it go on from its last epoch, as often as a trial whose process died."""

        def unless_ended() -> None:
            trial = self.optuna.get_trials(deepcopy=False)[number]
            if trial.state == TrialState.RUNNING:
                attempt = TrialRecord.of(trial).attempt
                counted = f"{reason} (attempt {attempt + 1} of {retries + 1})"
                self._fail(number, counted, attempt < retries, died=True)

        self._decide(unless_ended)

    def _fail(self, number: int, reason: str, again: bool, died: bool) -> None:
        trial = self.optuna.get_trials(deepcopy=False)[number]
        with self.together():
            for key, value in ((TrialRecord.reason, reason), (TrialRecord.requeued, again), (TrialRecord.died, died)):
                self.storage.set_trial_user_attr(trial_id(trial), key.name, value)
            self.optuna.tell(number, state=TrialState.FAIL)

    def reap(self, retries: int) -> list[FrozenTrial]:
        """Find trials whose process is gone, mark them FAIL, and return them. They run again while retries last."""
        return self._decide(lambda: self._reap(retries))

    def _reap(self, retries: int) -> list[FrozenTrial]:
        _, dead, silent = parted(self.trials(), self.storage, study_id(self.optuna), self.path)
        reaped = []
        for t in dead:
            attempt = TrialRecord.of(t).attempt
            how = "killed, out of memory or cut off" if trial_id(t) in silent else "killed or out of memory"
            reason = f"its process died, {how} (attempt {attempt + 1} of {retries + 1})"
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # its worker has just told its end
                self._fail(t.number, reason, attempt < retries, died=True)
                reaped.append(t)
        return reaped

    def retry_failed(self) -> None:
        """Let the trials that failed so far run again: a resumed study may have its cause of failure mended. Does
        nothing while another worker runs a trial."""

        def unless_at_it() -> None:
            trials = self.trials()
            if self._failed_for_good(trials) and not any(t.state == TrialState.RUNNING for t in trials):
                StudyRecord.forgiven.write(self.optuna, trials[-1].number + 1)

        self._decide(unless_at_it)

    def _failed_for_good(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return failed_for_good(trials, self._forgiven(trials))

    def _forgiven(self, trials: Sequence[FrozenTrial]) -> int:
        return self.record.forgiven if any(t.state == TrialState.FAIL for t in trials) else 0

    def failures(self) -> list[FrozenTrial]:
        """Trials that failed for good."""
        return self._failed_for_good(self.trials())


def _gone(name: str, objectives: Iterable[str]) -> ValueError | None:
    """The error for a study with an objective that is not there any more."""
    gone = [each for each in objectives if each not in objectives_of()]
    what = "is not there; takes the file in own/ that brings this metric"
    return ValueError(f"study {name}: its objective {gone[0]} {what}") if gone else None


def _open(storage: str, heartbeat: int) -> RDBStorage:
    """A SQLite file, or a server."""
    if sqlite_path(storage) is None:
        return ServerStorage(storage, heartbeat)
    return RDBStorage(absolute_uri(storage), engine_kwargs={"connect_args": {"timeout": 60}})


def state_of(trial: FrozenTrial) -> str:
    """A trial's state in this project's words. Optuna has a diverged trial as pruned, and an interrupted trial that
    runs again as failed."""
    record = TrialRecord.of(trial)
    if record.stop_reason == "diverged":
        return "diverged"
    if trial.state == TrialState.FAIL and record.requeued:
        return "run again"
    return trial.state.name.lower().replace("fail", "failed")


def point_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's point, even before all of its parameters were suggested; empty if it has none yet."""
    return {**trial.params, **queued_point(trial)}


def _is_copy(trial: FrozenTrial) -> bool:
    """Whether the trial's point was sampled before, so that it was not trained again."""
    return TrialRecord.of(trial).same_as is not None

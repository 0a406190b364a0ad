"""A study in Optuna's storage: made once, joined by every worker, its budget shared to the trial.

Everything that decides (which trial runs next, which worker is dead, whether the budget is used up) happens under one
lock, so that workers of one command, of several terminals and of a resumed one cannot disagree.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tbptt.config.names import SWEEPS
from tbptt.config.schema import PrunerConfig, SamplerConfig
from tbptt.options.metrics import OBJECTIVES
from tbptt.options.values import Value
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.reading import read_trials
from tbptt.studies.samplers import build_pruner, build_sampler
from tbptt.studies.space import Space
from tbptt.system.liveness import holding, identity, is_alive, is_seen_to_be_gone
from tbptt.system.stores import absolute_uri, locked, sqlite_path

optuna.logging.set_verbosity(optuna.logging.WARNING)

INTERRUPTED = "interrupted"
PROGRESS = "progress"
ENDED_BY = "ended_by"  # of the study: the line that says what ended it early
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# User attributes of a trial, where it is not obvious from the name:
#   worker     who runs it (liveness.holding, on a server identity)
#   reason     why it failed
#   requeued   this failed trial is run again, as a trial whose ``retry_of`` is its number
#   resume     MLflow runs of a trial that was stopped with this point, one a seed: it goes on where they stopped
#   attempt    how often its point was begun before and died with its process, or by its GPU
#   progress   how far it is (trial_progress.py), every few seconds
#   same_as    the earlier trial that had the same point; this one was not run
T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How far a study may go.

    Attributes:
        n_trials: the total that it ends with, or None.
        deadline: a time.monotonic() after which no trial is started, or None.
        max_failures: failed trials at which it stops, or None.
        retries: of a trial whose process died, or whose GPU failed or had no room.
    """

    n_trials: int | None
    deadline: float | None
    max_failures: int | None
    retries: int


@dataclass(frozen=True)
class Counts:
    """Trials of a study by how they stand; ``failed`` are those that were not put back into the queue."""

    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int

    @property
    def used(self) -> int:
        return self.complete + self.pruned + self.failed + self.running


class Study:
    """One study, opened by one process.

    Attributes:
        name: also of its folder below ``sweeps/``.
        optuna: the study itself.
    """

    def __init__(self, name: str, storage: str, objectives: list[str], heartbeat: int = 15):
        """Open the study, or make it. Safe for any number of processes at the same moment.

        Raises ConnectionError where its server does not answer.
        """
        self.name, self.storage_uri, self.objectives = name, storage, objectives
        self.path = sqlite_path(storage)
        with locked(self.path.parent / ".lock") if self.path else contextlib.nullcontext():
            # Two processes that make the tables of a SQLite file at once break them.
            self.storage = _open(storage, heartbeat)
            self.optuna = optuna.create_study(
                storage=self.storage,
                study_name=name,
                load_if_exists=True,
                directions=[cast(Any, OBJECTIVES[o]) for o in objectives],
            )

    @classmethod
    def taken(cls, storage: str) -> set[str]:
        """The names that a new study cannot have: of a storage's studies, and of what is in ``sweeps/``; other machines
        have folders of their own."""
        found = {path.name for path in SWEEPS.glob("*")}
        path = sqlite_path(storage)
        if path is not None and not path.exists():
            return found
        opened = _open(storage, 15)
        found |= {study.study_name for study in opened.get_all_studies()}
        opened.engine.dispose()
        return found

    @classmethod
    def existing(cls, name: str, storage: str) -> "Study":
        """Open a study that is there. Raises KeyError where there is none, with the names that there are."""
        path = sqlite_path(storage)
        if path is not None and not path.exists():
            raise KeyError([])
        opened = _open(storage, 15)
        studies = {s.study_name: s.user_attrs for s in opened.get_all_studies()}
        opened.engine.dispose()
        made = {known: attrs["objectives"] for known, attrs in studies.items() if "objectives" in attrs}
        if name not in made:
            raise KeyError(sorted(made))
        return cls(name, storage, made[name])

    def close(self) -> None:
        """Close its connections; used again, it opens new ones."""
        self.storage.engine.dispose()

    @property
    def attrs(self) -> dict[str, Any]:
        return self.optuna.user_attrs

    def seeds_used(self) -> list[int]:
        """Every seed that had a part in what is best here: its own, and those of the study it was chosen from."""
        spec = self.attrs.get("spec", {})
        own = spec.get("seeds") or [spec.get("config", {}).get("seed")]
        return sorted({*self.attrs.get("seeds_used", []), *(seed for seed in own if seed is not None)})

    def note_end(self, why: str | None) -> None:
        """Keep for the report what ended the study before its trials were done; None where nothing did, or it goes
        on."""
        if self.attrs.get(ENDED_BY) != why:
            self.optuna.set_user_attr(ENDED_BY, why)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Within, no other process decides anything about the study."""
        if isinstance(self.storage, ServerStorage):
            return self.storage.locked(self.name)
        assert self.path is not None
        return locked(self.path.parent / f".{self.name}.lock")

    def _decide(self, what: Callable[[], T]) -> T:
        """Do something under the lock; where the server goes away meanwhile, all of it again."""

        def once() -> T:
            with self.locked():
                return what()

        return self.storage.patiently(once) if isinstance(self.storage, ServerStorage) else once()

    def trials(self) -> list[FrozenTrial]:
        """All that count: not the copies of a point that was sampled twice."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if "same_as" not in t.user_attrs]

    def read(self) -> list[FrozenTrial]:
        """The same as :meth:`trials`, read anew; for a process that needs them once."""
        return [t for t in read_trials(self.storage, self.optuna._study_id) if "same_as" not in t.user_attrs]

    def counts(self) -> Counts:
        trials = self.trials()
        states = [t.state for t in trials]
        return Counts(
            states.count(TrialState.COMPLETE),
            states.count(TrialState.PRUNED),
            sum(map(self._is_failure, trials)),
            states.count(TrialState.RUNNING),
            states.count(TrialState.WAITING),
        )

    # --- the queue -------------------------------------------------------------------------------------------

    def enqueue(self, points: Iterable[Mapping[str, Value]]) -> None:
        """Put the points of a finite space in the queue, once; call it under the lock."""
        if self.attrs.get("enqueued"):
            return
        there = {frozenset(point_of(t).items()) for t in self.trials()}  # of a process that died while it was at this
        for point in points:
            if frozenset(point.items()) not in there:
                self.optuna.enqueue_trial(dict(point))
        self.optuna.set_user_attr("enqueued", True)

    def claim(
        self, space: Space, budget: Budget, sampler: SamplerConfig, pruner: PrunerConfig, epochs: int, is_grid: bool
    ) -> tuple[Trial, dict[str, Value]] | None:
        """Take the next trial, if the budget has one left: the trial, and its point."""

        def take() -> tuple[Trial, dict[str, Value]] | None:
            self._reap(budget.retries)
            self._refill()
            while self._may_start(budget, is_grid):
                number = len(self.optuna.get_trials(deepcopy=False))
                self.optuna.sampler = build_sampler(sampler, number)
                self.optuna.pruner = build_pruner(pruner, epochs, is_grid)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Heartbeat of storage")  # database.py has its own
                    trial = self.optuna.ask()
                if isinstance(self.storage, ServerStorage):  # before it has a worker: one without is taken for dead
                    self.storage.beat(trial._trial_id)
                trial.set_user_attr("worker", holding(self.path.parent) if self.path else identity())
                point = space.suggest(trial)
                twin = None if "retry_of" in trial.user_attrs or is_grid else self._twin(trial, space)
                if twin is None:
                    return trial, point
                trial.set_user_attr("same_as", twin)
                self.optuna.tell(trial, state=TrialState.FAIL)
                if self._all_seen(space):
                    return None
            return None

        return self._decide(take)

    def has_more(self, budget: Budget, is_grid: bool) -> bool:
        """Whether a worker that asked now would get a trial, dead ones' trials included."""

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
        """An earlier trial at the same point, of a finite space: training it again would give the same."""
        if space.size() is None:
            return None
        same = (t.number for t in self._begun() if t.number != trial.number and t.params == trial.params)
        return next(same, None)

    def _begun(self) -> list[FrozenTrial]:
        return [t for t in self.trials() if t.state in (*DONE, TrialState.RUNNING)]

    def _all_seen(self, space: Space) -> bool:
        """Whether no point of a finite space is left. Once the sampler has nothing new to say, the next unseen
        point is put in the queue."""
        recent = self.optuna.get_trials(deepcopy=False)[-10:]
        if len(recent) < 10 or not all("same_as" in t.user_attrs for t in recent):
            return False
        seen = {frozenset(t.params.items()) for t in self._begun()}
        unseen = next((point for point in space.points() if frozenset(point.items()) not in seen), None)
        if unseen is not None:
            self.optuna.enqueue_trial(unseen)
        return unseen is None

    def _refill(self) -> None:
        """Queue a copy of every failed trial that is to be run again and has none yet."""
        trials = self.trials()
        copied = {t.user_attrs.get("retry_of") for t in trials}
        for t in trials:
            if t.state == TrialState.FAIL and t.number not in copied and not self._is_failure(t) and point_of(t):
                died = t.user_attrs.get("died", False)
                forgiven = not t.user_attrs.get("requeued")  # its retries begin anew
                attempt = (t.user_attrs.get("attempt", 0) + 1) if died and not forgiven else 0
                attrs: dict[str, Any] = {"retry_of": t.number, "attempt": attempt}
                if died or not forgiven:
                    attrs["resume"] = t.user_attrs.get("run_ids", []) or t.user_attrs.get("resume", [])
                self.optuna.enqueue_trial(point_of(t), user_attrs=attrs)

    # --- ends of trials --------------------------------------------------------------------------------------

    def fail(self, number: int, reason: str, *, again: bool = False) -> None:
        """Mark a running trial FAIL; with ``again`` its point will be run again. Nothing where it has ended already:
        others took its worker for dead."""

        def unless_ended() -> None:
            if self.optuna.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                self._fail(number, reason, again, died=False)

        self._decide(unless_ended)

    def give_back(self, number: int, reason: str, retries: int) -> None:
        """Mark a running trial FAIL; it goes on from its last epoch, as that of a process that died, and as often."""

        def unless_ended() -> None:
            trial = self.optuna.get_trials(deepcopy=False)[number]
            if trial.state == TrialState.RUNNING:
                attempt = trial.user_attrs.get("attempt", 0)
                counted = f"{reason} (attempt {attempt + 1} of {retries + 1})"
                self._fail(number, counted, attempt < retries, died=True)

        self._decide(unless_ended)

    def _fail(self, number: int, reason: str, again: bool, died: bool) -> None:
        trial = self.optuna.get_trials(deepcopy=False)[number]
        for name, value in (("reason", reason), ("requeued", again), ("died", died)):
            self.optuna._storage.set_trial_user_attr(trial._trial_id, name, value)
        self.optuna.tell(number, state=TrialState.FAIL)

    def reap(self, retries: int) -> list[FrozenTrial]:
        """Find trials whose process is gone; returns them. They are FAIL now, and run again while retries last."""
        return self._decide(lambda: self._reap(retries))

    def _reap(self, retries: int) -> list[FrozenTrial]:
        running = [t for t in self.trials() if t.state == TrialState.RUNNING]
        silent: set[int] = set()
        if isinstance(self.storage, ServerStorage):
            silent = self.storage.stale(self.optuna._study_id)
            dead = [t for t in running if t._trial_id in silent or is_seen_to_be_gone(t.user_attrs.get("worker"))]
        else:
            assert self.path is not None
            dead = [t for t in running if not is_alive(t.user_attrs.get("worker"), self.path.parent)]
        reaped = []
        for t in dead:
            attempt = t.user_attrs.get("attempt", 0)
            how = "killed, out of memory or cut off" if t._trial_id in silent else "killed or out of memory"
            reason = f"its process died, {how} (attempt {attempt + 1} of {retries + 1})"
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # it was alive, and has just told its end
                self._fail(t.number, reason, attempt < retries, died=True)
                reaped.append(t)
        return reaped

    def forgive(self) -> None:
        """Have the trials that failed so far run again: a study is resumed, and what made them fail may be mended.
        Not while another worker is at it."""

        def unless_at_it() -> None:
            trials = self.trials()
            if any(map(self._is_failure, trials)) and not any(t.state == TrialState.RUNNING for t in trials):
                self.optuna.set_user_attr("forgiven", trials[-1].number + 1)

        self._decide(unless_at_it)

    def _is_failure(self, trial: FrozenTrial) -> bool:
        """Whether a trial failed for good: it will not be run again."""
        if trial.state != TrialState.FAIL or trial.user_attrs.get("requeued"):
            return False
        return trial.number >= self.attrs.get("forgiven", 0)

    def failures(self) -> list[FrozenTrial]:
        """Trials that failed for good."""
        return [t for t in self.trials() if self._is_failure(t)]


def _open(storage: str, heartbeat: int) -> RDBStorage:
    """A SQLite file, or a server."""
    if sqlite_path(storage) is None:
        return ServerStorage(storage, heartbeat)
    return RDBStorage(absolute_uri(storage), engine_kwargs={"connect_args": {"timeout": 60}})


def state_of(trial: FrozenTrial) -> str:
    """How a trial stands. Optuna calls a diverged one pruned, and failed one that was interrupted and is run again."""
    if trial.user_attrs.get("stop_reason") == "diverged":
        return "diverged"
    if trial.state == TrialState.FAIL and trial.user_attrs.get("requeued"):
        return "run again"
    return trial.state.name.lower().replace("fail", "failed")


def point_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's point, also before all of its parameters were suggested; empty where it has none yet."""
    return {**trial.params, **trial.system_attrs.get("fixed_params", {})}

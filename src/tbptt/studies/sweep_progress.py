"""What a person sees while a sweep runs. A terminal shows a line for the study and one per running trial; elsewhere
each finished trial gives a line."""

import sys
import time
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState
from rich.console import Group, RenderableType
from rich.text import Text

from tbptt.options.values import short_value
from tbptt.runs.progress import Status, clock, short
from tbptt.studies.ranking import best_trial
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import state_of
from tbptt.system.runtime import say

SHOWN = 16  # running trials
PLAIN_EVERY = 30.0  # seconds between two lines about running trials, where there is no terminal
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
FINISHED = (*DONE, TrialState.FAIL)


class SweepProgress(Status):
    """The lines of one study: its state, and on a terminal each running trial.

    Args:
        mode: ``auto`` (live on a terminal, plain elsewhere), ``plain``, ``none``.
    """

    def __init__(self, mode: str, name: str, n_trials: int | None, objectives: list[str], workers: int):
        super().__init__(mode)
        self.name, self.n_trials, self.objectives, self.workers = name, n_trials, objectives, workers
        self._seen: set[int] | None = None
        self._reasons: dict[str, int] = {}
        self._running: list[str] = []
        self._next_look = time.monotonic() + PLAIN_EVERY
        self._spinner.update(text=Text(f"study {name}  starting {workers} worker{'s' if workers > 1 else ''}"))

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show how the study stands."""
        running = [t for t in trials if t.state == TrialState.RUNNING]
        if self.mode == "live":
            self._running = [f"trial {t.number}  {_point(t)}  {how_far(t)}" for t in running]
            self._spinner.update(text=Text(self.line(trials)))
            return
        finished = {t.number for t in trials if t.state in FINISHED}
        if self._seen is not None and self.mode == "plain":
            for t in trials:
                if t.number in finished - self._seen:
                    say(self._trial_line(t, trials), sys.stderr)
        self._seen = finished
        if self.mode == "plain" and running and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + PLAIN_EVERY
            shown = [f"trial {t.number} {' '.join(how_far(t).split())}" for t in running[:SHOWN]]
            more = [f"{len(running) - SHOWN} more"] if len(running) > SHOWN else []
            say(f"running: {'; '.join([*shown, *more])}", sys.stderr)

    def _render(self) -> RenderableType:
        lines = [Text(f"  {line}", no_wrap=True, overflow="ellipsis") for line in self._running[:SHOWN]]
        if len(self._running) > SHOWN:
            lines.append(Text(f"  … {len(self._running) - SHOWN} more"))
        return Group(self._spinner, *lines)

    def line(self, trials: Sequence[FrozenTrial]) -> str:
        """The study in one line."""
        states = [t.state for t in trials]
        parts = [
            f"study {self.name}",
            f"{self._done(trials)} done",
            f"{states.count(TrialState.PRUNED)} pruned",
            f"{sum(state_of(t) == 'failed' for t in trials)} failed",
            f"{states.count(TrialState.RUNNING)} running",
        ]
        best = best_trial(trials, *self.objectives)
        if best is not None:
            parts.append(f"best {short(best.values[0])} (trial {best.number}: {_point(best)})")
        left = self._seconds_left(trials)
        return "  ".join([*parts, *([f"{clock(left)} left"] if left is not None else [])])

    def _trial_line(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        value = short(trial.values[0]) if trial.values else self._reason_once(trial)
        return f"trial {trial.number}  {state_of(trial)}  {value}  {_point(trial)}  ({self._done(trials)})"

    def _done(self, trials: Sequence[FrozenTrial]) -> str:
        return f"{_count_done(trials)}/{self.n_trials or '…'}"

    def _reason_once(self, trial: FrozenTrial) -> str:
        """Why a trial failed. If an earlier trial failed for the same long reason, the text names that trial
        instead."""
        reason = one_line(TrialRecord.of(trial).reason or "-")
        first = self._reasons.setdefault(reason, trial.number)
        return reason if first == trial.number or len(reason) < 40 else f"for the same reason as trial {first}"

    def _seconds_left(self, trials: Sequence[FrozenTrial]) -> float | None:
        durations = [t.duration.total_seconds() for t in trials if t.state in FINISHED and t.duration]
        if not durations or self.n_trials is None:
            return None
        at_once = max(self.workers, sum(t.state == TrialState.RUNNING for t in trials))  # more than workers in packs
        return (self.n_trials - _count_done(trials)) * sum(durations) / len(durations) / at_once


def _count_done(trials: Sequence[FrozenTrial]) -> int:
    return sum(t.state in DONE for t in trials)


def how_far(trial: FrozenTrial) -> str:
    """How far a running trial is, by its worker's last note."""
    at = TrialRecord.of(trial).progress
    if at is None:
        return "first epoch"
    parts = [f"seed {at.seed}/{at.seeds}"] if at.seeds > 1 else []
    parts += [f"fold {at.fold}/{at.folds}"] if at.folds > 1 else []
    parts += [f"epoch {at.epoch}/{at.epochs}", f"held-out {short(at.held_out)}"]
    return "  ".join([*parts, f"{clock(at.seconds_left)} left"])


def failure_lines(failures: Sequence[FrozenTrial]) -> list[str]:
    """Which trials failed, and why: each reason once."""
    by_reason: dict[str, list[str]] = {}
    for t in failures:
        by_reason.setdefault(one_line(TrialRecord.of(t).reason or "no reason is known"), []).append(str(t.number))
    return [f"trial{'s' if len(n) > 1 else ''} {listed(n)} failed: {reason}" for reason, n in by_reason.items()]


def listed(numbers: Sequence[str]) -> str:
    """``1, 2 and 3``; of more than eight, the first seven and how many more."""
    shown = [*numbers[:7], f"{len(numbers) - 7} more"] if len(numbers) > 8 else list(numbers)
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def _point(trial: FrozenTrial) -> str:
    return " ".join(f"{name}={short_value(value)}" for name, value in trial.params.items())

"""What a person sees while a sweep runs: one live line on a terminal, a line a finished trial elsewhere."""

import sys
from collections.abc import Sequence
from types import TracebackType

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from tbptt.config import sign
from tbptt.progress import clock, short
from tbptt.space import short_value
from tbptt.study import state_of

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class SweepProgress:
    """The line of one study. ``mode``: ``auto`` (live on a terminal, plain elsewhere), ``plain``, ``none``."""

    def __init__(self, mode: str, name: str, n_trials: int | None, objectives: list[str], workers: int):
        self.mode = ("live" if sys.stderr.isatty() else "plain") if mode == "auto" else mode
        self.name, self.n_trials, self.objectives, self.workers = name, n_trials, objectives, workers
        self._seen: set[int] | None = None
        self._spinner = Spinner("dots", f"study {name}  starting {workers} worker{'s' if workers > 1 else ''}")
        self._live = Live(self._spinner, console=Console(stderr=True), refresh_per_second=4, transient=True)

    def __enter__(self) -> "SweepProgress":
        if self.mode == "live":
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.mode == "live":
            self._live.stop()

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show how the study stands."""
        if self.mode == "live":
            self._spinner.update(text=self.line(trials))
            return
        finished = {t.number for t in trials if t.state in FINISHED}
        if self._seen is not None and self.mode == "plain":
            for t in trials:
                if t.number in finished - self._seen:
                    print(self._trial_line(t, trials), file=sys.stderr, flush=True)
        self._seen = finished

    def line(self, trials: Sequence[FrozenTrial]) -> str:
        """The study in one line."""
        states = [t.state for t in trials]
        done = states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED)
        parts = [
            f"study {self.name}",
            f"{done}/{self.n_trials or '…'} done",
            f"{states.count(TrialState.PRUNED)} pruned",
            f"{sum(state_of(t) == 'failed' for t in trials)} failed",
            f"{states.count(TrialState.RUNNING)} running",
        ]
        best = self.best(trials)
        if best is not None and best.values:
            parts.append(f"best {short(best.values[0])} (trial {best.number}: {_point(best)})")
        left = self._seconds_left(trials, done)
        return "  ".join([*parts, *([f"{clock(left)} left"] if left is not None else [])])

    def best(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The best complete trial by the first objective."""
        complete = [t for t in trials if t.state == TrialState.COMPLETE and t.values]
        return min(complete, key=lambda t: sign(self.objectives[0]) * t.values[0], default=None)

    def _trial_line(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        value = short(trial.values[0]) if trial.values else str(trial.user_attrs.get("reason", "-"))
        done = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
        return f"trial {trial.number}  {state_of(trial)}  {value}  {_point(trial)}  ({done}/{self.n_trials or '…'})"

    def _seconds_left(self, trials: Sequence[FrozenTrial], done: int) -> float | None:
        durations = [t.duration.total_seconds() for t in trials if t.state in FINISHED and t.duration]
        if not durations or self.n_trials is None:
            return None
        return (self.n_trials - done) * sum(durations) / len(durations) / self.workers


def _point(trial: FrozenTrial) -> str:
    return " ".join(f"{name}={short_value(value)}" for name, value in trial.params.items())

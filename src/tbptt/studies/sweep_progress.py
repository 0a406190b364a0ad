"""What a person sees while a sweep runs. A terminal shows a line for the study and one per running trial; elsewhere
each finished trial gives a line."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from tbptt.options.values import short_value
from tbptt.runs.progress import FRAME, LASTS, FitToWidth, Part, Status, clock, fitted, in_the_middle, short
from tbptt.studies.ranking import best_trial
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import state_of
from tbptt.system.runtime import say

SHOWN = 16  # running trials
VALUE, POINT = 16, 12  # letters: of a long value of a point, and below which no point is shown
OF_BEST = "best at "
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
        self._parts: list[Part] = []  # of the study's line, after its name
        self._best: Mapping[str, Any] = {}  # the best point
        self._running: list[tuple[list[Part], Mapping[str, Any]]] = []
        self._next_look = time.monotonic() + PLAIN_EVERY
        self._spinner.update(text=Text(f"study {name}  starting {workers} worker{'s' if workers > 1 else ''}"))

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show how the study stands."""
        running = [t for t in trials if t.state == TrialState.RUNNING]
        if self.mode == "live":
            self._note(trials, running)
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

    def now(self, what: str, after: float = LASTS) -> None:
        self._parts = []
        super().now(what, after)

    def _note(self, trials: Sequence[FrozenTrial], running: Sequence[FrozenTrial]) -> None:
        """Keep what the lines say, in parts, which are put together for the width that the terminal has."""
        self._parts, self._best = self._parts_of(trials)
        longest = max((len(str(t.number)) for t in running), default=0)  # the lines stay in columns
        self._running = [([(f"trial {t.number:<{longest}}", 0), *_far_parts(t, pad=True)], t.params) for t in running]

    def _render(self) -> RenderableType:
        return FitToWidth(self._spinner, self._lines) if self._parts else self._spinner

    def _lines(self, width: int, height: int) -> list[str]:
        """The lines on a terminal of these letters and lines."""
        lines = [self._study_line(self._parts, self._best, width - FRAME)]
        shown = max(1, min(SHOWN, height - 3))  # with the study's line, that about the others, and the prompt
        for parts, point in self._running[:shown]:
            lines.append(f"  {_with_point('  '.join(fitted(parts, width - 2)), point, width - 2)}")
        if len(self._running) > shown:
            lines.append(f"  … {len(self._running) - shown} more")
        return lines

    def line(self, trials: Sequence[FrozenTrial], width: int = 10_000) -> str:
        """The study in one line, of at most ``width`` letters where what matters has room."""
        return self._study_line(*self._parts_of(trials), width)

    def _study_line(self, parts: Sequence[Part], best: Mapping[str, Any], width: int) -> str:
        """What matters most comes first, and the best point last, in the room that is left. A long name loses its
        middle, as it is the same all the time."""
        whole = "  ".join([f"study {self.name}", *(text for text, _ in parts)])
        if cell_len(whole) + (len(OF_BEST) + POINT + 2 if best else 0) <= width:
            return _with_point(whole, best, width, OF_BEST)
        name = in_the_middle(self.name, max(8, width // 5))
        return _with_point("  ".join(fitted([(f"study {name}", 0), *parts], width)), best, width, OF_BEST)

    def _parts_of(self, trials: Sequence[FrozenTrial]) -> tuple[list[Part], Mapping[str, Any]]:
        """What the study's line says after its name, and the best point."""
        best, left = best_trial(trials, *self.objectives), self._seconds_left(trials)
        failed = sum(state_of(t) == "failed" for t in trials)
        pruned, running = ([t.state for t in trials].count(s) for s in (TrialState.PRUNED, TrialState.RUNNING))
        parts = [(f"{self._done(trials)} done", 0)]
        if best is not None:
            parts += [(f"best {short(best.values[0])}", 0), (f"by trial {best.number}", 3)]
        if left is not None:
            parts.append((f"{clock(left)} left", 0))
        parts += [(f"{running} running", 2 if running else 5)]
        parts += [(f"{failed} failed", 1 if failed else 5), (f"{pruned} pruned", 4 if pruned else 5)]
        return parts, {} if best is None else best.params

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
        return seconds_left(trials, self.n_trials, self.workers)


def seconds_left(trials: Sequence[FrozenTrial], n_trials: int | None, workers: int) -> float | None:
    """How long a study still takes, by the mean of its trials; None if that is not known."""
    durations = [t.duration.total_seconds() for t in trials if t.state in FINISHED and t.duration]
    if not durations or n_trials is None:
        return None
    at_once = max(workers, sum(t.state == TrialState.RUNNING for t in trials))  # more than workers in packs
    return (n_trials - _count_done(trials)) * sum(durations) / len(durations) / at_once


def _count_done(trials: Sequence[FrozenTrial]) -> int:
    return sum(t.state in DONE for t in trials)


def how_far(trial: FrozenTrial) -> str:
    """How far a running trial is, by its worker's last note."""
    return "  ".join(text for text, _ in _far_parts(trial))


def _far_parts(trial: FrozenTrial, pad: bool = False) -> list[Part]:
    """How far a trial is.

    Args:
        pad: whether the epoch gets the width of the last one.
    """
    at = TrialRecord.of(trial).progress
    if at is None:
        return [("first epoch", 0)]
    parts = [(f"seed {at.seed}/{at.seeds}", 3)] if at.seeds > 1 else []
    parts += [(f"fold {at.fold}/{at.folds}", 4)] if at.folds > 1 else []
    epoch = f"epoch {at.epoch:>{len(str(at.epochs)) if pad else 1}}/{at.epochs}"
    return [*parts, (epoch, 0), (f"held-out {short(at.held_out)}", 1), (f"{clock(at.seconds_left)} left", 0)]


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
    return _point_in(trial.params, 10_000)


def _with_point(line: str, point: Mapping[str, Any], width: int, word: str = "") -> str:
    """A line with a point behind it, as far as ``width`` letters have room for it."""
    room = width - cell_len(line) - len(word) - 2
    return f"{line}  {word}{_point_in(point, room)}" if point and room >= POINT else line


def _point_in(point: Mapping[str, Any], width: int) -> str:
    """A point in at most ``width`` letters: long values lose their middle, then the last keys are left out, and the
    number of them is said."""
    values = {name: short_value(value) for name, value in point.items()}
    parts = [f"{name}={value}" for name, value in values.items()]
    if cell_len(" ".join(parts)) <= width:
        return " ".join(parts)
    parts = [f"{name}={in_the_middle(value, VALUE)}" for name, value in values.items()]
    for count in range(len(parts), 0, -1):
        more = [f"+{len(parts) - count}"] if count < len(parts) else []
        if cell_len(text := " ".join([*parts[:count], *more])) <= width:
            return text
    return in_the_middle(parts[0], width)

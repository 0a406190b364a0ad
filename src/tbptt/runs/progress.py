"""The display while a run starts and trains: one live line on a terminal, plain lines elsewhere."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from threading import Timer
from typing import TYPE_CHECKING, ClassVar, Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from tbptt.options.metrics import TRAIN_LOSS, VAL_LOSS
from tbptt.system.runtime import say
from tbptt.training.schedule import ChunkSchedule

if TYPE_CHECKING:  # importing torch and Lightning takes seconds, and the head of a sweep does not need them
    from tbptt.runs.epoch import Epoch

log = logging.getLogger("tbptt")

FRAME = 2  # letters that the spinner takes at the beginning of its line
LASTS = 3.0  # seconds after which an activity is worth a plain line


class Status:
    """Shows what the process is doing. There is one display at a time: entering another one ends it.

    Args:
        mode: ``auto`` (live on a terminal, plain elsewhere), ``plain``, ``none``; ``silent`` is ``none`` for a worker.
    """

    shown: ClassVar["Status | None"] = None

    def __init__(self, mode: str):
        self.mode = ("live" if sys.stderr.isatty() else "plain") if mode == "auto" else mode
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._timer: Timer | None = None

    def __enter__(self) -> Self:
        if Status.shown is not None:
            Status.shown.end()
        Status.shown = self
        if self.mode == "live":
            self._live = Live(
                get_renderable=self._render,
                console=Console(stderr=True),
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Show nothing any more."""
        self._forget()
        if self._live is not None:
            self._live.stop()
        if Status.shown is self:
            Status.shown = None

    def now(self, what: str, after: float = LASTS) -> None:
        """Show the current activity; without a terminal, only after it has lasted for ``after`` seconds."""
        self._forget()
        if self.mode == "live":
            self._spinner.update(text=Text(what))
        elif self.mode == "plain" and not after:
            say(what, sys.stderr)
        elif self.mode == "plain":
            self._timer = Timer(after, say, (what, sys.stderr))
            self._timer.daemon = True
            self._timer.start()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _render(self) -> RenderableType:
        return self._spinner


def now(what: str) -> None:
    """Show the current activity, if there is a display."""
    if Status.shown is not None:
        Status.shown.now(what)


def starting(what: str, mode: str) -> None:
    """Show that a command starts, after its checks, in a config's ``progress`` mode."""
    if mode == "none":
        end()
    elif Status.shown is not None:
        Status.shown.now(f"starting{what}: loading libraries", after=0)


def end() -> None:
    """End the display, to make room for output."""
    if Status.shown is not None:
        Status.shown.end()


def about(mode: str, lines: Sequence[str], warnings: Sequence[str], name: str = "") -> None:
    """Show lines about the training data, in a config's ``progress`` mode. Warnings are shown without progress, too; a
    study shows them once, so its workers, which are ``silent``, do not.

    Args:
        name: the run's name; shown before each line.
    """
    if mode == "none":
        for line in warnings:
            log.warning("%s%s", name, line)
    elif mode != "silent":
        for line in (*lines, *warnings):
            say(f"{name}{line}", sys.stderr)


Part = tuple[str, int]  # of a line: its text, and its rank; where there is no room, parts of higher ranks go first


def fitted(parts: Sequence[Part], width: int) -> list[str]:
    """The texts of a line's parts, in their order, without those of the highest ranks that ``width`` letters have no
    room for. Parts of rank 0 always stay."""
    kept = list(parts)
    while cell_len("  ".join(text for text, _ in kept)) > width and (last := max(rank for _, rank in kept)):
        kept.remove(next(part for part in reversed(kept) if part[1] == last))
    return [text for text, _ in kept]


def in_the_middle(text: str, width: int) -> str:
    """A text of at most ``width`` letters, from 1: a longer one loses its middle, as its ends tell it from others."""
    if cell_len(text) <= width:
        return text
    for letters in range(width - 1, 0, -1):  # some letters are two cells wide
        end = letters // 2
        if cell_len(short := f"{text[: letters - end]}…{text[len(text) - end :]}") <= width:
            return short
    return "…"


class FitToWidth:
    """What Rich shows on one terminal line each, made anew for the width that the terminal has now.

    Args:
        lines: gives the lines for a width and a height; the first one follows the spinner.
    """

    def __init__(self, spinner: Spinner, lines: Callable[[int, int], Sequence[str]]):
        self.spinner, self.lines = spinner, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, *others = self.lines(options.max_width, console.size.height)
        self.spinner.update(text=Text(first))
        cut = options.update(no_wrap=True, overflow="ellipsis")
        shown: list[RenderableType] = [self.spinner, *map(Text, others)]
        for each in shown:
            yield from console.render(each, cut)


class Pace:
    """Estimates how long epochs take, from the last five."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=5)

    def add(self, epoch: "Epoch") -> None:
        self._seconds.append(epoch.metrics["time/epoch_seconds"])

    def seconds_for(self, epochs: int) -> float:
        """The expected seconds for ``epochs`` more epochs; at least one epoch must have been added."""
        return epochs * sum(self._seconds) / len(self._seconds)


class Progress(Status):
    """The line of one run.

    Args:
        name: the run's name; shown if there is more than one run.

    Attributes:
        parts: returns how often :meth:`moved` is called in the current epoch.
    """

    def __init__(self, mode: str, epochs: int, objective: str, name: str = ""):
        super().__init__(mode)
        self.epochs, self.objective = epochs, objective
        self.name = f"{name}  " if name else ""
        self.parts: Callable[[], int] = lambda: 0
        self._moved = 0
        self._epoch = 0
        self._parts: list[Part] = []  # of the last epoch's line
        self._has_news = True  # an activity is shown, and not that line
        self._pace = Pace()

    def now(self, what: str, after: float = LASTS) -> None:
        self._has_news = True
        super().now(f"{self.name}{what}", after)

    def opened(self, run_id: str, epoch: int) -> None:
        """Show that the run has its id and its next epoch begins. Without progress, a script gets the id alone."""
        self._epoch = epoch
        if self.mode == "none":
            say(f"run {run_id}")
        self.now(f"run {run_id}: epoch {epoch + 1} of {self.epochs} is under way")
        self._parts = [(f"{self.name}run {run_id}", 0)]

    def moved(self) -> None:
        """Count one more part of the current epoch. It is called between chunks, so it does no more than that."""
        self._moved += 1

    def _render(self) -> RenderableType:
        parts = self.parts()
        if parts and self._moved:
            share = min(self._moved / parts, 1.0)
            return self._on_a_line((f"(epoch {self._epoch + 1}: {share:.0%})", 1))
        return self._spinner if self._has_news else self._on_a_line()

    def _on_a_line(self, *more: Part) -> RenderableType:
        return FitToWidth(self._spinner, lambda width, _: ["  ".join(fitted([*self._parts, *more], width - FRAME))])

    def epoch(self, epoch: "Epoch", schedule: ChunkSchedule, best: float | None) -> None:
        """Show a finished epoch; ``best`` is the objective's best so far."""
        self._forget()
        self._pace.add(epoch)
        self._moved, self._epoch = 0, epoch.number + 1
        (first, rank), *others = self._parts_of(epoch, schedule, best)
        self._parts, self._has_news = [(self.name + first, rank), *others], False
        if self.mode == "plain":
            say("  ".join(text for text, _ in self._parts), sys.stderr)

    def line(self, epoch: "Epoch", schedule: ChunkSchedule, best: float | None) -> str:
        """One epoch in one line."""
        return "  ".join(text for text, _ in self._parts_of(epoch, schedule, best))

    def _parts_of(self, epoch: "Epoch", schedule: ChunkSchedule, best: float | None) -> list[Part]:
        m = epoch.metrics
        left = self._pace.seconds_for(self.epochs - epoch.number - 1)
        stage = f"stage {epoch.stage + 1}/{len(schedule.stages)}, {epoch.chunks} chunk{'s' if epoch.chunks > 1 else ''}"
        return [
            (f"epoch {epoch.number + 1:>{len(str(self.epochs))}}/{self.epochs}", 0),
            (stage, 3),
            (f"train {short(m.get(TRAIN_LOSS))}", 2),
            (f"held-out {short(m.get(VAL_LOSS))}", 0),
            (f"best {short(best)}" if self.objective == VAL_LOSS else f"best {self.objective} {short(best)}", 0),
            (f"grad {short(m.get('grad/norm_mean'))}", 4),
            (f"{m['time/timesteps_per_second'] / 1000:.0f}k steps/s", 5),
            ("done" if epoch.last else f"{clock(left)} left", 0),
        ]

    def about(self, lines: Sequence[str], warnings: Sequence[str] = ()) -> None:
        """Show lines about the training data, before the first epoch."""
        about(self.mode, lines, warnings, self.name)

    def result(self, reason: str, epoch: int | None, best: float | None, run_id: str, verdict: Sequence[str]) -> None:
        """Show the last lines of a run: how it ended, and the verdict on its predictions."""
        if self.mode in ("none", "silent"):
            return
        for line in verdict:
            say(f"{self.name}{line}")
        say(f"{self.name}{self._chosen(epoch, best)}; stopped: {reason}; run {run_id}")

    def _chosen(self, epoch: int | None, best: float | None) -> str:
        if best is None or epoch is None:
            return f"{self.objective} was never measured"
        by_it = ", chosen by it" if self.objective.startswith("val/") else ""
        return f"{self.objective} {short(best)} at epoch {epoch + 1}{by_it}"


def short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

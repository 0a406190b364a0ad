"""What a person sees while a run trains: one live line on a terminal, a plain line an epoch elsewhere."""

import sys
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from tbptt.schedule import ChunkSchedule

if TYPE_CHECKING:  # which would import torch and Lightning, seconds that the head of a sweep has no use for
    from tbptt.module import Epoch

RECENT = 5  # epochs that the time left is reckoned from


class Progress:
    """The line of one run.

    Args:
        mode: ``auto`` (live on a terminal, plain elsewhere), ``plain``, ``none``.
        name: of the run; shown where there is more than one.
    """

    def __init__(self, mode: str, epochs: int, objective: str, name: str = ""):
        self.mode = ("live" if sys.stderr.isatty() else "plain") if mode == "auto" else mode
        self.epochs, self.objective = epochs, objective
        self.name = f"{name}  " if name else ""
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._spinner = Spinner("dots", f"{self.name}preparing the data")
        self._live = Live(
            self._spinner, console=Console(stderr=True), refresh_per_second=4, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> "Progress":
        if self.mode == "live":
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.mode == "live":
            self._live.stop()

    def epoch(self, epoch: "Epoch", schedule: ChunkSchedule, best: float | None) -> None:
        """Show a finished epoch; ``best`` is the objective's best so far."""
        self._seconds.append(epoch.metrics["time/epoch_seconds"])
        if self.mode == "none":
            return
        line = self.name + self.line(epoch, schedule, best)
        if self.mode == "live":
            self._spinner.update(text=line)
        else:
            print(line, file=sys.stderr, flush=True)

    def line(self, epoch: "Epoch", schedule: ChunkSchedule, best: float | None) -> str:
        """One epoch in one line."""
        m = epoch.metrics
        left = (self.epochs - epoch.number - 1) * sum(self._seconds) / len(self._seconds)
        parts = [
            f"epoch {epoch.number + 1:>{len(str(self.epochs))}}/{self.epochs}",
            f"stage {epoch.stage + 1}/{len(schedule.stages)}, {epoch.chunks} chunk{'s' if epoch.chunks > 1 else ''}",
            f"train {short(m.get('train/loss'))}",
            f"held-out {short(m.get('val/loss'))}",
            f"best {short(best)}" if self.objective == "val/loss" else f"best {self.objective} {short(best)}",
            f"grad {short(m.get('grad/norm_mean'))}",
            f"{m['time/timesteps_per_second'] / 1000:.0f}k steps/s",
            "done" if epoch.last else f"{clock(left)} left",
        ]
        return "  ".join(parts)

    def result(self, reason: str, epoch: int | None, best: float | None, baseline: float, run_id: str) -> None:
        """The last lines of a run."""
        if self.mode == "none":
            return
        print(f"{self.name}{self._verdict(epoch, best, baseline)}; stopped: {reason}; run {run_id}")

    def _verdict(self, epoch: int | None, best: float | None, baseline: float) -> str:
        if best is None or epoch is None:
            return f"{self.objective} was never measured"
        line = f"{self.objective} {short(best)} at epoch {epoch + 1}"
        if self.objective != "val/loss":
            return line
        return f"{line}, {beside_mean(best, baseline)} predicting the mean ({short(baseline)})"


def beside_mean(loss: float, baseline: float) -> str:
    """How a loss compares with that of predicting the mean, as ``12% below`` or ``35 times``."""
    if baseline <= 0 or loss > 10 * baseline:  # a held-out part that stands still at the mean leaves 0
        return f"{loss / baseline:.2g} times" if baseline > 0 else "above"
    return f"{abs(1 - loss / baseline):.0%} {'below' if loss < baseline else 'above'}"


def short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

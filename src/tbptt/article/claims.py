"""The article's claims, checked against the runs of ``sweep=article``: which hold, and which hold only online.

Everything here is computed from one table of curves by epoch. It is made from a study's runs and written to
``verdict.csv``, which can be read again later without the runs.
"""

import csv
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from tbptt.options.metrics import CHUNKS, TRAIN_EVAL_LOSS, TRAIN_LOSS, VAL_LOSS
from tbptt.runs.tracking import Store
from tbptt.studies.ranking import complete
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.files import replaced

Curve = list[float]  # by epoch; NaN where it was not measured
Interval = tuple[float, float, float]  # the mean over seeds, and the low and high end of its 95 % bootstrap interval

METRICS = (
    TRAIN_LOSS,
    TRAIN_EVAL_LOSS,
    VAL_LOSS,
    "grad/norm_max",
    "grad/clipped_fraction",
    CHUNKS,
    "time/train_seconds",
)
MEAN = "baseline.val_loss"
COLUMNS = ("figure", "seed", "epoch", MEAN, *METRICS)
# Three views of the same loss; the article shows the first.
VIEWS = {TRAIN_LOSS: "online", TRAIN_EVAL_LOSS: "training, frozen", VAL_LOSS: "held-out, frozen"}

END = 10  # a run's final loss is the median over so many epochs at its end
START, LATER = 10, 50  # a run's start has so many epochs; its first LATER epochs are shown for comparison
SPIKE = 1.5  # an epoch belongs to a spike if its loss is more than so many times the lowest loss so far
FAR = 1.5  # a fit is far better if it removes so many times as much of the loss of predicting the mean
DRAWS = 10_000  # resamples of the bootstrap, if there are too many choices of seeds to take all

DEFINITIONS = (
    f"Online: {TRAIN_LOSS}, measured while the weights move, as the article did. Frozen: the weights that an epoch "
    f"ended with, without noise, in one pass over the training series ({TRAIN_EVAL_LOSS}) or over the held-out ones "
    f"({VAL_LOSS}).",
    f"Final: the median loss of a run's last {END} epochs. Start: the mean loss over its first {START} epochs. Between "
    "two epochs that were measured, the curve is taken as a straight line; a run that ended earlier keeps its last "
    "loss. Whole: the mean loss over all epochs.",
    f"Spike: epochs in a row with a loss above {SPIKE} times the run's lowest loss so far. The claim that there are "
    "spikes holds if every run has one; the claim that they are removed holds if no run has one.",
    "To half: the first epoch with a loss of at most half the loss of predicting the mean, and the seconds of training "
    "up to it, on the machine that trained.",
    "Better: runs with the same seed are compared, and the 95 % bootstrap interval of the mean difference over seeds "
    "does not reach zero. With three seeds the interval is the range of the differences.",
    f"Far better: better, and on average the fit removes {FAR} times as much of the loss of predicting the mean.",
    "Undecided: the interval reaches zero. In part: the claim holds for some of the pairs of runs that it is about. "
    "Only online: the claim holds for the online loss, but not for both frozen losses.",
)

ARMS = {
    "fig1_sgd": "SGD",
    "fig2_rmsprop": "RMSprop",
    "fig2_adam": "Adam",
    "fig3_rmsprop_clip": "RMSprop, clip 1",
    "fig3_adam_clip": "Adam, clip 1",
    "fig4_sgd_schedule": "SGD, schedule",
    "fig5_adam_clip_schedule": "Adam, clip 1, schedule",
}


@dataclass
class RunCurves:
    """The curves of one run.

    Attributes:
        baseline: the held-out loss of predicting the training mean. On the training series this loss is 1.
        curves: each metric's curve, by its name.
    """

    figure: str
    seed: int
    baseline: float
    curves: dict[str, Curve]

    def mean_loss(self, view: str) -> float:
        """The loss of predicting the training mean, in one view."""
        return self.baseline if view == VAL_LOSS else 1.0

    def measured(self, view: str) -> list[tuple[int, float]]:
        """(epoch, loss) for each epoch in which the loss was measured."""
        return [(i, y) for i, y in enumerate(self.curves[view]) if not math.isnan(y)]

    def final(self, view: str) -> float:
        """The median loss of the last END epochs."""
        last = len(self.curves[view]) - END
        return median(y for i, y in self.measured(view) if i >= last)

    def area(self, view: str, epochs: int) -> float:
        """The mean loss over the first ``epochs`` epochs, with straight lines between the epochs that were measured."""
        x, y = zip(*self.measured(view), strict=True)
        return float(np.interp(range(epochs), x, y).mean())

    def spikes(self, view: str) -> tuple[int, int, float]:
        """The number of spikes, the number of epochs in spikes, and the largest spike, as a multiple of the lowest loss
        before it."""
        lowest, high = math.inf, []
        for _, y in self.measured(view):
            high.append(y / lowest)
            lowest = min(lowest, y)
        above = [ratio > SPIKE for ratio in high]
        return sum(now and not before for before, now in itertools.pairwise([False, *above])), sum(above), max(high)

    def to_half(self, view: str) -> tuple[int, float] | None:
        """Epochs and seconds of training until the loss is half that of predicting the mean; None if it never is."""
        for epoch, y in self.measured(view):
            if y <= self.mean_loss(view) / 2:
                return epoch + 1, self.curves["time/train_seconds"][epoch]
        return None


# --- the table of curves --------------------------------------------------------------------------------------------


def curves_of(study: Study, store: Store) -> list[RunCurves]:
    """The curves of all runs of a study's complete trials. Raises ValueError if the study did not search ``figure``."""
    found: list[RunCurves] = []
    for trial in complete(study.trials()):
        if "figure" not in trial.params:
            raise ValueError(f"--verdict: study {study.name} has no figure; takes one of sweep=article")
        for run_id in TrialRecord.of(trial).run_ids:
            run = store.client.get_run(run_id)
            by_epoch = {
                name: {p.step: p.value for p in store.client.get_metric_history(run_id, name)} for name in METRICS
            }
            epochs = range(max(by_epoch[TRAIN_LOSS]) + 1)
            found.append(
                RunCurves(
                    str(trial.params["figure"]),
                    int(run.data.params["seed"]),
                    float(run.data.tags[MEAN]),
                    {name: [curve.get(i, math.nan) for i in epochs] for name, curve in by_epoch.items()},
                )
            )
    return found


def write_curves(runs: Iterable[RunCurves], path: Path) -> None:
    """Write a CSV file with a row for each epoch, counted from 1. Numbers have five digits. A cell is empty if its
    metric was not measured."""
    with replaced(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for run in runs:
            for epoch, values in enumerate(zip(*(run.curves[name] for name in METRICS), strict=True), 1):
                shown = ["" if math.isnan(v) else f"{v:.5g}" for v in values]
                out.writerow([run.figure, run.seed, epoch, f"{run.baseline:.5g}", *shown])


def read_curves(path: Path) -> list[RunCurves]:
    """Read what :func:`write_curves` wrote. Raises ValueError, with a line for the user, if the file is wrong."""
    found: dict[tuple[str, int], RunCurves] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if missing := set(COLUMNS) - set(rows.fieldnames or ()):
            raise ValueError(f"{path}: lacks the columns {', '.join(sorted(missing))}; takes what --verdict wrote")
        for row in rows:
            try:
                seed, values = int(row["seed"]), [float(row[name] or math.nan) for name in METRICS]
                blank = RunCurves(row["figure"], seed, float(row[MEAN]), {name: [] for name in METRICS})
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error}") from None
            run = found.setdefault((row["figure"], seed), blank)
            for name, value in zip(METRICS, values, strict=True):
                run.curves[name].append(value)
    return list(found.values())


# --- the claims -----------------------------------------------------------------------------------------------------


class Runs:
    """All runs, by figure and seed.

    Attributes:
        epochs: the number of epochs of the longest run.
    """

    def __init__(self, runs: Sequence[RunCurves]):
        self._by_figure: dict[str, dict[int, RunCurves]] = {}
        for run in runs:
            self._by_figure.setdefault(run.figure, {})[run.seed] = run
        self.epochs = max((len(r.curves[TRAIN_LOSS]) for r in runs), default=0)

    def of(self, figure: str) -> list[RunCurves]:
        """The runs of a figure, sorted by seed."""
        return [run for _, run in sorted(self._by_figure.get(figure, {}).items())]

    def lacking(self, needed: Iterable[str]) -> list[str]:
        """The figures among ``needed`` that have no run."""
        return [name for name in needed if name not in self._by_figure]

    def gain(self, better: str, worse: str, measure: Callable[[RunCurves], float]) -> Interval:
        """By how much a measure is lower for the figure ``better`` than for ``worse``, over the seeds that both have.
        Raises ValueError if they have no seed in common."""
        a, b = self._by_figure[better], self._by_figure[worse]
        return bootstrap([measure(b[seed]) - measure(a[seed]) for seed in sorted(a.keys() & b.keys())])


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean of ``values``, and the percentiles 2.5 and 97.5 of the means of resamples.

    If there are at most DRAWS different resamples, all of them are used. ``scipy.stats.bootstrap`` would draw even
    then; it would also interpolate between two means, and refuse a single value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("the runs that are compared have no seed in common")
    if n**n <= DRAWS:
        picks = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        picks = np.random.default_rng(0).integers(n, size=(DRAWS, n))
    means = np.asarray(values)[picks].mean(axis=1)
    # With few means, the interval's ends are means themselves: the next ones outwards, not interpolated.
    low, high = np.percentile(means, 2.5, method="lower"), np.percentile(means, 97.5, method="higher")
    return fmean(values), float(low), float(high)


def judged(interval: Interval) -> str:
    """How a claim of a gain stands: by whether the gain's interval lies above, below or around zero."""
    _, low, high = interval
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


def worst_of(answers: Iterable[str]) -> str:
    """How a claim stands that holds only if each of these holds."""
    found = set(answers)
    return next((a for a in ("does not hold", "undecided") if a in found), "holds")


def all_of(answers: Iterable[str]) -> str:
    """How a claim about several pairs stands, which may hold for some of them only."""
    found = set(answers)
    return "holds in part" if "holds" in found and len(found) > 1 else worst_of(found)


Answer = tuple[str, str]  # how a claim stands in one view, and the numbers


def _fits_better(pairs: Sequence[tuple[str, str]], far: bool = False) -> Callable[[Runs, str], Answer]:
    def ask(runs: Runs, view: str) -> Answer:
        answers, numbers = [], []
        for better, worse in pairs:
            gain = runs.gain(better, worse, lambda r: r.final(view))
            answer = judged(gain)
            if far and answer == "holds":
                removed = [fmean(1 - r.final(view) / r.mean_loss(view) for r in runs.of(f)) for f in (better, worse)]
                answer = "holds" if removed[0] >= FAR * removed[1] else "does not hold"
            answers.append(answer)
            numbers.append(f"{ARMS[better]} {_said(gain)}")
        return all_of(answers), "; ".join(numbers)

    return ask


def _has_spikes(figures: Sequence[str], wanted: bool) -> Callable[[Runs, str], Answer]:
    def ask(runs: Runs, view: str) -> Answer:
        found = {f: [r.spikes(view) for r in runs.of(f)] for f in figures}
        right = [(count > 0) == wanted for each in found.values() for count, _, _ in each]
        numbers = [
            f"{ARMS[f]}: {' '.join(str(s[0]) for s in each)} spikes, the largest {max(s[2] for s in each):.1f} times"
            for f, each in found.items()
        ]
        return ("holds" if all(right) else "does not hold"), "; ".join(numbers)

    return ask


def _starts_faster(pairs: Sequence[tuple[str, str]]) -> Callable[[Runs, str], Answer]:
    def ask(runs: Runs, view: str) -> Answer:
        def gains(epochs: int) -> list[Interval]:
            return [runs.gain(better, worse, lambda r: r.area(view, epochs)) for better, worse in pairs]

        epochs = min(LATER, runs.epochs)
        start, later = gains(START), gains(epochs)
        numbers = [
            f"{ARMS[f]} {_said(g)}, over {epochs} epochs {_said(h)}"
            for (f, _), g, h in zip(pairs, start, later, strict=True)
        ]
        return all_of(map(judged, start)), "; ".join(numbers)

    return ask


def _beats_all(best: str) -> Callable[[Runs, str], Answer]:
    def ask(runs: Runs, view: str) -> Answer:
        gains = {f: runs.gain(best, f, lambda r: r.area(view, runs.epochs)) for f in ARMS if f != best}
        closest = min(gains, key=lambda f: gains[f][0])
        return worst_of(map(judged, gains.values())), f"beside {ARMS[closest]} {_said(gains[closest])}"

    return ask


def _said(interval: Interval) -> str:
    """A gain in words: "lower by …", or, for a negative gain, "higher by …"."""
    mean, low, high = interval
    if mean < 0:
        return f"higher by {-mean:.3f} ({-high:.3f} to {-low:.3f})"
    return f"lower by {mean:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Claim:
    """A claim of the article, and ``ask``, which checks it in one view of the loss."""

    name: str
    says: str
    measure: str
    figures: tuple[str, ...]
    ask: Callable[[Runs, str], Answer]


_FREE, _CLIPPED = ("fig2_rmsprop", "fig2_adam"), ("fig3_rmsprop_clip", "fig3_adam_clip")
_SCHEDULED = (("fig4_sgd_schedule", "fig1_sgd"), ("fig5_adam_clip_schedule", "fig3_adam_clip"))
CLAIMS = (
    Claim(
        "C1",
        "RMSprop and Adam fit far better than SGD",
        "final loss",
        ("fig1_sgd", *_FREE),
        _fits_better([(f, "fig1_sgd") for f in _FREE], far=True),
    ),
    Claim("C2", "Adam fits better than RMSprop", "final loss", _FREE, _fits_better([("fig2_adam", "fig2_rmsprop")])),
    Claim("C3", "without clipping, the loss has large spikes", "spikes a seed", _FREE, _has_spikes(_FREE, True)),
    Claim("C4", "clipping at 1 removes the spikes", "spikes a seed", _CLIPPED, _has_spikes(_CLIPPED, False)),
    Claim(
        "C5",
        "with clipping, Adam stays ahead of RMSprop",
        "final loss",
        _CLIPPED,
        _fits_better([("fig3_adam_clip", "fig3_rmsprop_clip")]),
    ),
    Claim(
        "C6",
        "the schedule speeds up the start, even for SGD",
        f"mean loss of the first {START} epochs",
        tuple(itertools.chain(*_SCHEDULED)),
        _starts_faster(_SCHEDULED),
    ),
    Claim(
        "C7",
        "Adam, clipped, with the schedule is the most efficient of all",
        "mean loss of all epochs",
        tuple(ARMS),
        _beats_all("fig5_adam_clip_schedule"),
    ),
)


def verdict(runs: Runs) -> list[dict[str, Any]]:
    """A row for each claim: its ``name``, what it ``says``, its ``measure``, its ``verdict``, and lists of its
    ``answers`` and ``numbers``, one per view."""
    found = []
    for claim in CLAIMS:
        row: dict[str, Any] = {"name": claim.name, "says": claim.says, "measure": claim.measure}
        if lacking := runs.lacking(claim.figures):
            answers, numbers, said = [""] * len(VIEWS), [""] * len(VIEWS), f"no run yet of {', '.join(lacking)}"
        else:
            answers, numbers = map(list, zip(*(claim.ask(runs, view) for view in VIEWS), strict=True))
            said = overall(answers)
        found.append({**row, "verdict": said, "answers": answers, "numbers": numbers})
    return found


def overall(answers: Sequence[str]) -> str:
    """The verdict on a claim, from its answers in the three views: online, training with frozen weights, held-out."""
    if len(set(answers)) == 1:
        return answers[0]
    online, *frozen = answers
    if online == "holds":
        return "holds online, frozen in part" if "holds in part" in frozen else "holds only online"
    return "holds only frozen" if set(frozen) == {"holds"} else worst_of(answers)

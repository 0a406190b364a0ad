"""The article's claims, held against the runs of ``sweep=article``: what holds, and what holds only online.

Everything here is computed from one table of curves by epoch, ``curves.csv``, which a study's runs are read into and
which can be kept and read again without them.
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
Interval = tuple[float, float, float]  # the mean over seeds, and the bounds of its 95 % bootstrap interval

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
# The same loss seen in three ways; the article shows the first.
VIEWS = {TRAIN_LOSS: "online", TRAIN_EVAL_LOSS: "training, frozen", VAL_LOSS: "held-out, frozen"}

END = 10  # epochs at a run's end whose median is its final loss
START, LATER = 10, 50  # epochs that are its start, and as many as show what becomes of it
SPIKE = 1.5  # times the lowest loss so far, from which on an epoch belongs to a spike
FAR = 1.5  # times as much of the loss of predicting the mean is removed, from which on a fit is far better
DRAWS = 10_000  # of the bootstrap, where not every choice of seeds can be taken

DEFINITIONS = (
    f"Online: {TRAIN_LOSS}, measured while the weights move, as the article did. Frozen: the weights that an epoch "
    f"ended with, without noise, in one pass over the training series ({TRAIN_EVAL_LOSS}) or over the held-out ones "
    f"({VAL_LOSS}).",
    f"Final: the median of a run's last {END} epochs. Start: the mean loss over its first {START} epochs, the area "
    f"under its curve, straight between two epochs that were measured; a run that ended earlier keeps its last loss. "
    "Whole: the same over all epochs.",
    f"Spike: epochs in a row whose loss is above {SPIKE} times the lowest loss of the run so far. There are spikes "
    "where every run has one, and they are removed where none has.",
    "To half: the first epoch with a loss of at most half of that of predicting the mean, and the seconds of training "
    "until then, on the machine that trained.",
    "Better: of the differences between two runs of the same seed, the 95 % bootstrap interval of the mean over seeds "
    "does not reach zero. With three seeds it is their range.",
    f"Far better: better, and on average the fit removes {FAR} times as much of the loss of predicting the mean.",
    "Undecided: the interval reaches zero. In part: it holds for some of the pairs of runs that the claim is about. "
    "Only online: it holds for the online loss and not for both frozen ones.",
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
    """One run.

    Attributes:
        baseline: the held-out loss of predicting the training mean; on the training series it is 1.
        curves: by metric's name.
    """

    figure: str
    seed: int
    baseline: float
    curves: dict[str, Curve]

    def mean_loss(self, view: str) -> float:
        """The loss of predicting the mean."""
        return self.baseline if view == VAL_LOSS else 1.0

    def measured(self, view: str) -> list[tuple[int, float]]:
        """(epoch, loss) where it was measured."""
        return [(i, y) for i, y in enumerate(self.curves[view]) if not math.isnan(y)]

    def final(self, view: str) -> float:
        """The median of the last epochs."""
        last = len(self.curves[view]) - END
        return median(y for i, y in self.measured(view) if i >= last)

    def area(self, view: str, epochs: int) -> float:
        """The mean loss over so many epochs; between two that were measured it is taken to be on a line."""
        x, y = zip(*self.measured(view), strict=True)
        return float(np.interp(range(epochs), x, y).mean())

    def spikes(self, view: str) -> tuple[int, int, float]:
        """How many there are, how many epochs they take, and the largest as a multiple of the lowest loss before."""
        lowest, high = math.inf, []
        for _, y in self.measured(view):
            high.append(y / lowest)
            lowest = min(lowest, y)
        above = [ratio > SPIKE for ratio in high]
        return sum(now and not before for before, now in itertools.pairwise([False, *above])), sum(above), max(high)

    def to_half(self, view: str) -> tuple[int, float] | None:
        """Epochs and seconds of training to half of the mean's loss; None where it was not reached."""
        for epoch, y in self.measured(view):
            if y <= self.mean_loss(view) / 2:
                return epoch + 1, self.curves["time/train_seconds"][epoch]
        return None


# --- the table of curves --------------------------------------------------------------------------------------------


def curves_of(study: Study, store: Store) -> list[RunCurves]:
    """The curves of a study's complete trials, a run a seed. Raises ValueError where it did not search ``figure``."""
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
    """One row an epoch, from 1, five digits, empty where nothing was measured."""
    with replaced(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for run in runs:
            for epoch, values in enumerate(zip(*(run.curves[name] for name in METRICS), strict=True), 1):
                shown = ["" if math.isnan(v) else f"{v:.5g}" for v in values]
                out.writerow([run.figure, run.seed, epoch, f"{run.baseline:.5g}", *shown])


def read_curves(path: Path) -> list[RunCurves]:
    """What :func:`write_curves` wrote. Raises ValueError with a line that says what is wrong with it."""
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
    """The runs of every figure by seed.

    Attributes:
        epochs: of the longest run.
    """

    def __init__(self, runs: Sequence[RunCurves]):
        self._by_figure: dict[str, dict[int, RunCurves]] = {}
        for run in runs:
            self._by_figure.setdefault(run.figure, {})[run.seed] = run
        self.epochs = max((len(r.curves[TRAIN_LOSS]) for r in runs), default=0)

    def of(self, figure: str) -> list[RunCurves]:
        """Those of a figure, by seed."""
        return [run for _, run in sorted(self._by_figure.get(figure, {}).items())]

    def lacking(self, needed: Iterable[str]) -> list[str]:
        """The figures that have no run."""
        return [name for name in needed if name not in self._by_figure]

    def gain(self, better: str, worse: str, measure: Callable[[RunCurves], float]) -> Interval:
        """By how much a figure's measure is lower than another's, over the seeds that both have. Raises ValueError
        where they have none in common."""
        a, b = self._by_figure[better], self._by_figure[worse]
        return bootstrap([measure(b[seed]) - measure(a[seed]) for seed in sorted(a.keys() & b.keys())])


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean, and the percentiles 2.5 and 97.5 of the means of resamples: all of them, where they are few.

    ``scipy.stats.bootstrap`` would draw of few, too, take a point between two means, and refuse a single value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("the runs that are compared have no seed in common")
    if n**n <= DRAWS:
        picks = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        picks = np.random.default_rng(0).integers(n, size=(DRAWS, n))
    means = np.asarray(values)[picks].mean(axis=1)
    # Of few means the next one outwards, not a point between two.
    low, high = np.percentile(means, 2.5, method="lower"), np.percentile(means, 97.5, method="higher")
    return fmean(values), float(low), float(high)


def judged(interval: Interval) -> str:
    """Whether a gain is one."""
    _, low, high = interval
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


def worst_of(answers: Iterable[str]) -> str:
    """How a claim stands that holds where all of these do."""
    found = set(answers)
    return next((a for a in ("does not hold", "undecided") if a in found), "holds")


def all_of(answers: Iterable[str]) -> str:
    """The same of a claim about several things, of which some may hold."""
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
    """A gain in words; a loss that is higher is said with its own sign."""
    mean, low, high = interval
    if mean < 0:
        return f"higher by {-mean:.3f} ({-high:.3f} to {-low:.3f})"
    return f"lower by {mean:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Claim:
    """What the article says, and how it is asked of one view of the loss."""

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
    """Every claim: its ``name``, what it ``says``, its ``measure``, its ``verdict``, and by view its ``answers`` and
    ``numbers``."""
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
    """One word for a claim, from its answers online, on the training series frozen, and held out."""
    if len(set(answers)) == 1:
        return answers[0]
    online, *frozen = answers
    if online == "holds":
        return "holds online, frozen in part" if "holds in part" in frozen else "holds only online"
    return "holds only frozen" if set(frozen) == {"holds"} else worst_of(answers)

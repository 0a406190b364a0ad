"""The article's claims, held against the runs of ``sweep=article``: what holds, and what holds only online.

Everything here is computed from one table of curves by epoch, ``curves.csv``, which a study's runs are read into and
which can be kept and read again without them.
"""

import csv
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, median
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
from optuna.trial import TrialState
from plotly.colors import hex_to_rgb
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from tbptt.figures import GREY, INK
from tbptt.report import PLOTLY, embedded, replaced
from tbptt.study import Study
from tbptt.tracking import Store

Curve = list[float]  # by epoch; NaN where it was not measured
Interval = tuple[float, float, float]  # the mean over seeds, and the bounds of its 95 % bootstrap interval

METRICS = (
    "train/loss",
    "train/eval_loss",
    "val/loss",
    "grad/norm_max",
    "grad/clipped_fraction",
    "schedule/chunks",
    "time/train_seconds",
)
MEAN = "baseline.val_loss"
COLUMNS = ("figure", "seed", "epoch", MEAN, *METRICS)
# The same loss seen in three ways; the article shows the first.
VIEWS = {"train/loss": "online", "train/eval_loss": "training, frozen", "val/loss": "held-out, frozen"}

END = 10  # epochs at a run's end whose median is its final loss
START, LATER = 10, 50  # epochs that are its start, and as many as show what becomes of it
SPIKE = 1.5  # times the lowest loss so far, from which on an epoch belongs to a spike
FAR = 1.5  # times as much of the loss of predicting the mean is removed, from which on a fit is far better
DRAWS = 10_000  # of the bootstrap, where not every choice of seeds can be taken

DEFINITIONS = (
    "Online: train/loss, measured while the weights move, as the article did. Frozen: the weights that an epoch ended "
    "with, without noise, in one pass over the training series (train/eval_loss) or over the held-out ones (val/loss).",
    f"Final: the median of a run's last {END} epochs. Start: the mean loss over its first {START} epochs, the area "
    f"under its curve; a run that ended earlier keeps its last loss. Whole: the same over all epochs.",
    f"Spike: epochs in a row whose loss is above {SPIKE} times the lowest loss of the run so far.",
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
RED, GREEN = "#d55e00", "#009e73"  # the article's colours, of a palette that colour-blind people tell apart
DRAWN = {
    "Figure 1: plain gradient descent": {"fig1_sgd": INK},
    "Figure 2: RMSprop and Adam": {"fig2_rmsprop": RED, "fig2_adam": GREY},
    "Figure 3: both, clipped at 1": {"fig3_rmsprop_clip": GREEN, "fig3_adam_clip": RED},
    "Figure 4: plain gradient descent with the schedule, beside figure 1": {"fig4_sgd_schedule": RED, "fig1_sgd": GREY},
    "Figure 5: Adam, clipped, with the schedule, beside figure 3": {
        "fig5_adam_clip_schedule": RED,
        "fig3_adam_clip": GREY,
    },
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
        return self.baseline if view == "val/loss" else 1.0

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
    for trial in study.trials():
        if trial.state != TrialState.COMPLETE:
            continue
        if "figure" not in trial.params:
            raise ValueError(f"--verdict: study {study.name} has no figure; takes one of sweep=article")
        for run_id in trial.user_attrs["run_ids"]:
            run = store.client.get_run(run_id)
            by_epoch = {
                name: {p.step: p.value for p in store.client.get_metric_history(run_id, name)} for name in METRICS
            }
            epochs = range(max(by_epoch["train/loss"]) + 1)
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
    """One row an epoch, five digits, empty where nothing was measured."""
    with replaced(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for run in runs:
            for epoch, values in enumerate(zip(*(run.curves[name] for name in METRICS), strict=True)):
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
        self.epochs = max((len(r.curves["train/loss"]) for r in runs), default=0)

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
    """The mean, and the percentiles 2.5 and 97.5 of the means of resamples: all of them, where they are few."""
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
            numbers.append(f"{ARMS[better]} lower by {_said(gain)}")
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

        start, later = gains(START), gains(LATER)
        numbers = [
            f"{ARMS[f]} lower by {_said(g)}, of {LATER} epochs by {_said(h)}"
            for (f, _), g, h in zip(pairs, start, later, strict=True)
        ]
        return all_of(map(judged, start)), "; ".join(numbers)

    return ask


def _beats_all(best: str) -> Callable[[Runs, str], Answer]:
    def ask(runs: Runs, view: str) -> Answer:
        gains = {f: runs.gain(best, f, lambda r: r.area(view, runs.epochs)) for f in ARMS if f != best}
        closest = min(gains, key=lambda f: gains[f][0])
        return worst_of(map(judged, gains.values())), f"lower than {ARMS[closest]} by {_said(gains[closest])}"

    return ask


def _said(interval: Interval) -> str:
    mean, low, high = interval
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


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


# --- what is written ------------------------------------------------------------------------------------------------


def arms(runs: Runs) -> list[dict[str, str]]:
    """A line a figure: its mean over seeds, and the range of them."""
    found = []
    for name, words in ARMS.items():
        its = runs.of(name)
        if not its:
            continue
        row = {"run": words, "seeds": str(len(its)), "epochs": _range([len(r.curves["train/loss"]) for r in its], "g")}
        for view, called in VIEWS.items():
            row[f"final, {called}"] = _range([r.final(view) for r in its])
        row["lowest, held-out"] = _range([min(y for _, y in r.measured("val/loss")) for r in its])
        halves = [r.to_half("val/loss") for r in its]
        reached = [h for h in halves if h is not None]
        some = "" if len(reached) == len(halves) else f", {len(reached)} of {len(halves)}"
        row["epochs to half, held-out"] = _range([h[0] for h in reached], ".0f") + some if reached else "never"
        row["seconds to half, held-out"] = _range([h[1] for h in reached], ".0f") + some if reached else "never"
        row["epochs in spikes, online"] = _range([r.spikes("train/loss")[1] for r in its], ".0f")
        found.append(row)
    return found


def _range(values: Sequence[float], shown: str = ".3f") -> str:
    low, high = min(values), max(values)
    if low == high:
        return f"{low:{shown}}"
    return f"{fmean(values):{shown}} ({low:{shown}}-{high:{shown}})"


def figure(title: str, colours: dict[str, str], runs: Runs) -> go.Figure | None:
    """One of the article's figures: as it drew it, and beside that with frozen weights. None where no run is there."""
    if len(runs.lacking(colours)) == len(colours):
        return None
    drawn = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=["online, as the article drew it", "weights frozen: held-out, and training (dotted)"],
    )
    last = runs.epochs - 1
    for name, colour in colours.items():
        for seed, run in enumerate(runs.of(name)):
            for view, column, dash in (
                ("train/loss", 1, "solid"),
                ("val/loss", 2, "solid"),
                ("train/eval_loss", 2, "dot"),
            ):
                x, y = zip(*run.measured(view), strict=True)
                drawn.add_scatter(
                    x=x,
                    y=y,
                    col=column,
                    row=1,
                    mode="lines",
                    line={"color": f"rgba{(*hex_to_rgb(colour), 0.8)}", "width": 1.5, "dash": dash},
                    name=ARMS[name],
                    legendgroup=name,
                    showlegend=seed == 0 and view == "train/loss",
                    hovertemplate=f"{ARMS[name]}, seed {run.seed}, {VIEWS[view]}<br>"
                    "epoch %{x}: <b>%{y:.4g}</b><extra></extra>",
                )
            _mark_stages(drawn, run, colour)
    means = {1: 1.0, 2: next(r.baseline for f in colours for r in runs.of(f))}
    for column, mean in means.items():
        drawn.add_scatter(
            x=[0, last],
            y=[mean, mean],
            col=column,
            row=1,
            mode="lines",
            line={"color": INK, "dash": "dash", "width": 1},
            name="predicting the mean",
            legendgroup="mean",
            showlegend=column == 1,
            hovertemplate="predicting the mean: <b>%{y:.4g}</b><extra></extra>",
        )
    drawn.update_layout(
        height=380,
        meta={"min_width": 640, "title": title},
        legend={"orientation": "h", "x": 0, "y": -0.2},
        margin={"t": 40},
    )
    drawn.update_xaxes(title_text="epoch", range=[-1, last + 1])
    drawn.update_yaxes(rangemode="tozero")
    drawn.update_yaxes(title_text="loss", col=1)
    return drawn


def _mark_stages(drawn: go.Figure, run: RunCurves, colour: str) -> None:
    """Where the schedule moves on."""
    chunks, loss = run.curves["schedule/chunks"], run.curves["train/loss"]
    moves = [i for i in range(1, len(chunks)) if chunks[i] != chunks[i - 1]]
    if moves:
        drawn.add_scatter(
            x=moves,
            y=[loss[i] for i in moves],
            col=1,
            row=1,
            mode="markers",
            marker={"symbol": "diamond", "size": 8, "color": "white", "line": {"color": colour, "width": 1.5}},
            text=[f"seed {run.seed}: {chunks[i - 1]:g} → {chunks[i]:g} chunks" for i in moves],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )


def write_verdict(runs: Sequence[RunCurves], folder: Path, name: str) -> Path:
    """Write ``verdict.html``, ``verdict.md`` and ``curves.csv`` into a folder; the path of the first. Raises ValueError
    where there is no run, or runs have no seed in common."""
    if not runs:
        raise ValueError(f"--verdict: {name} has no complete trial yet")
    if unknown := sorted({run.figure for run in runs} - ARMS.keys()):
        raise ValueError(f"--verdict: figure: got {', '.join(unknown)}; takes {', '.join(ARMS)}")
    by_figure = Runs(runs)
    claims, table = verdict(by_figure), arms(by_figure)
    drawn = [(title, figure(title, colours, by_figure)) for title, colours in DRAWN.items()]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        files("tbptt").joinpath("templates/verdict.html").read_text(encoding="utf-8")
    )
    page = template.render(
        name=name,
        claims=[{**c, "pairs": list(zip(c["answers"], c["numbers"], strict=True))} for c in claims],
        arms=table,
        views=list(VIEWS.values()),
        definitions=DEFINITIONS,
        figures=[(title, embedded(each)) for title, each in drawn if each is not None],
        plotlyjs=get_plotlyjs(),
        plotly_config=PLOTLY,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_curves(runs, folder / "curves.csv")
    for path, text in ((folder / "verdict.md", _markdown(claims, table)), (folder / "verdict.html", page)):
        with replaced(path) as beside:
            beside.write_text(text, encoding="utf-8")
    return folder / "verdict.html"


def _markdown(claims: Sequence[dict[str, Any]], table: Sequence[dict[str, str]]) -> str:
    """The tables and the definitions, to be pasted."""
    lines = _rows(["claim", "verdict", "measure", *VIEWS.values()])
    for c in claims:
        cells = [f"{a}: {n}" if a else "" for a, n in zip(c["answers"], c["numbers"], strict=True)]
        lines += [_row([f"{c['name']} {c['says']}", f"**{c['verdict']}**", c["measure"], *cells])]
    lines += ["", *_rows(list(table[0]))] + [_row(list(row.values())) for row in table]
    return "\n".join([*lines, "", *(f"- {line}" for line in DEFINITIONS), ""])


def _rows(heads: Sequence[str]) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

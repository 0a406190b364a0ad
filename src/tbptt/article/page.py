"""The article's figures, drawn from our runs, and the verdicts on its claims: an HTML page, and Markdown tables."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb
from plotly.subplots import make_subplots

from tbptt.article.claims import ARMS, DEFINITIONS, VIEWS, RunCurves, Runs, verdict, write_curves
from tbptt.options.metrics import CHUNKS, TRAIN_EVAL_LOSS, TRAIN_LOSS, VAL_LOSS
from tbptt.reports.figures import BEST, GREY, INK
from tbptt.reports.html import embedded, rendered
from tbptt.system.files import write_text

RED, GREEN = BEST, "#009e73"  # the article's colours, taken from the report's palette
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


def arms(runs: Runs) -> list[dict[str, str]]:
    """A row for each figure with runs. A cell shows the mean over seeds and the range."""
    found = []
    for name, words in ARMS.items():
        its = runs.of(name)
        if not its:
            continue
        row = {"run": words, "seeds": str(len(its)), "epochs": _range([len(r.curves[TRAIN_LOSS]) for r in its], "g")}
        for view, called in VIEWS.items():
            row[f"final, {called}"] = _range([r.final(view) for r in its])
        row["lowest, held-out"] = _range([min(y for _, y in r.measured(VAL_LOSS)) for r in its])
        halves = [r.to_half(VAL_LOSS) for r in its]
        reached = [h for h in halves if h is not None]
        some = "" if len(reached) == len(halves) else f", {len(reached)} of {len(halves)}"
        row["epochs to half, held-out"] = _range([h[0] for h in reached], ".0f") + some if reached else "never"
        row["seconds to half, held-out"] = _range([h[1] for h in reached], ".0f") + some if reached else "never"
        row["epochs in spikes, online"] = _range([r.spikes(TRAIN_LOSS)[1] for r in its], ".0f")
        found.append(row)
    return found


def _range(values: Sequence[float], shown: str = ".3f") -> str:
    low, high = min(values), max(values)
    if low == high:
        return f"{low:{shown}}"
    return f"{fmean(values):{shown}} ({low:{shown}}-{high:{shown}})"


def figure(title: str, colours: dict[str, str], runs: Runs) -> go.Figure | None:
    """One of the article's figures, beside the same runs with frozen weights. None if there are no such runs."""
    if len(runs.lacking(colours)) == len(colours):
        return None
    drawn = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=["online, as the article drew it", "weights frozen: held-out, and training (dotted)"],
    )
    for name, colour in colours.items():
        for i, run in enumerate(runs.of(name)):
            for view, column, dash in (
                (TRAIN_LOSS, 1, "solid"),
                (VAL_LOSS, 2, "solid"),
                (TRAIN_EVAL_LOSS, 2, "dot"),
            ):
                x, y = zip(*run.measured(view), strict=True)
                drawn.add_scatter(
                    x=[epoch + 1 for epoch in x],
                    y=y,
                    col=column,
                    row=1,
                    mode="lines",
                    line={"color": f"rgba{(*hex_to_rgb(colour), 0.8)}", "width": 1.5, "dash": dash},
                    name=ARMS[name],
                    legendgroup=name,
                    showlegend=i == 0 and view == TRAIN_LOSS,
                    hovertemplate=f"{ARMS[name]}, seed {run.seed}, {VIEWS[view]}<br>"
                    "epoch %{x}: <b>%{y:.4g}</b><extra></extra>",
                )
            _mark_stages(drawn, run, colour)
    means = {1: 1.0, 2: next(r.baseline for f in colours for r in runs.of(f))}
    for column, mean in means.items():
        drawn.add_scatter(
            x=[1, runs.epochs],
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
        legend={"orientation": "h", "x": 0, "y": -0.3},
        margin={"t": 40},
    )
    drawn.update_annotations(font_size=12)  # side by side on paper too
    drawn.update_xaxes(title_text="epoch", range=[0, runs.epochs + 1])
    drawn.update_yaxes(rangemode="tozero")
    drawn.update_yaxes(title_text="loss", col=1)
    return drawn


def _mark_stages(drawn: go.Figure, run: RunCurves, colour: str) -> None:
    """Mark the epochs in which the schedule's next stage begins."""
    chunks, loss = run.curves[CHUNKS], run.curves[TRAIN_LOSS]
    moves = [i for i in range(1, len(chunks)) if chunks[i] != chunks[i - 1]]
    if moves:
        drawn.add_scatter(
            x=[i + 1 for i in moves],
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
    """Write ``verdict.html``, ``verdict.md`` and ``verdict.csv`` into a folder. Returns the path of the first.

    Raises:
        ValueError: there is no run, a run's figure is unknown, or runs that a claim compares have no seed in common.
    """
    if not runs:
        raise ValueError(f"--verdict: {name} has no complete trial yet")
    if unknown := sorted({run.figure for run in runs} - ARMS.keys()):
        raise ValueError(f"--verdict: figure: got {', '.join(unknown)}; takes {', '.join(ARMS)}")
    by_figure = Runs(runs)
    claims, table = verdict(by_figure), arms(by_figure)
    drawn = [
        (title, embedded(each, f"figure-{i + 1}", title))
        for i, (title, colours) in enumerate(DRAWN.items())
        if (each := figure(title, colours, by_figure)) is not None
    ]
    page = rendered(
        "verdict.html",
        name=name,
        claims=[{**c, "pairs": list(zip(c["answers"], c["numbers"], strict=True))} for c in claims],
        arms=table,
        views=list(VIEWS.values()),
        definitions=DEFINITIONS,
        drawn_figures=drawn,
        figures=[each for _, each in drawn],
        labels={},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_curves(runs, folder / "verdict.csv")
    for path, text in ((folder / "verdict.md", _markdown(claims, table)), (folder / "verdict.html", page)):
        write_text(path, text)
    return folder / "verdict.html"


def _markdown(claims: Sequence[dict[str, Any]], table: Sequence[dict[str, str]]) -> str:
    """The tables and the definitions as Markdown, to paste into a page."""
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

"""The report's figures: Optuna's own where it has them, Plotly for the loss curves and the timeline."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

MOST_CURVES = 120  # trials whose curves are drawn: what a browser still draws smoothly
MOST_SLICES = 8
SHOWN = {"val/loss": "held-out, weights frozen", "train/loss": "training, online (weights moving)"}
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#475569", "#92400e")
STATES = {"COMPLETE": "#2563eb", "PRUNED": "#d97706", "FAIL": "#dc2626", "RUNNING": "#94a3b8"}

log = logging.getLogger("tbptt")


def chosen_for_curves(trials: Sequence[FrozenTrial], sign: int) -> list[FrozenTrial]:
    """The trials whose curves are drawn, best first: all, or the best half and an even choice of the others."""
    with_curves = [t for t in trials if t.user_attrs.get("curves")]
    ranked = sorted(with_curves, key=lambda t: (t.state != TrialState.COMPLETE, sign * t.values[0] if t.values else 0))
    if len(ranked) <= MOST_CURVES:
        return ranked
    best, others = ranked[: MOST_CURVES // 2], ranked[MOST_CURVES // 2 :]
    return best + others[:: -(-len(others) // (MOST_CURVES - len(best)))]


def curves(trials: Sequence[FrozenTrial], baseline: float | None, labels: dict[int, str]) -> go.Figure:
    """Loss by epoch of every trial: held-out and online, pruned ones dimmed, a mark where a stage begins."""
    figure = go.Figure()
    kinds: list[str] = []
    for metric in SHOWN:
        for i, t in enumerate(trials):
            values = t.user_attrs["curves"][metric]
            chunks = t.user_attrs["curves"]["schedule/chunks"]
            begins = [k for k in range(1, len(chunks)) if chunks[k] != chunks[k - 1]]
            dimmed = t.state != TrialState.COMPLETE
            colour = "#94a3b8" if dimmed else COLOURS[i % len(COLOURS)]
            figure.add_scatter(
                x=list(range(len(values))),
                y=[None if v is None else float(f"{v:.5g}") for v in values],
                customdata=chunks,
                mode="lines+markers" if begins else "lines",
                marker={"size": [7 if k in begins else 0 for k in range(len(values))], "symbol": "diamond"},
                line={"width": 1 if dimmed else 1.8, "color": colour},
                opacity=0.45 if dimmed else 0.9,
                name=f"{t.number}: {labels[t.number]}",
                visible=metric == "val/loss",
                showlegend=len(trials) <= 12,
                hovertemplate="%{y:.4g}, epoch %{x}, %{customdata} chunks<extra>%{fullData.name}</extra>",
            )
            kinds.append(metric)
    buttons = [
        {"label": text, "method": "update", "args": [{"visible": [kind == metric for kind in kinds]}]}
        for metric, text in SHOWN.items()
    ]
    both = {"label": "both", "method": "update", "args": [{"visible": [True] * len(kinds)}]}
    figure.update_layout(
        updatemenus=[
            {"type": "buttons", "direction": "right", "buttons": [*buttons, both], "x": 0, "xanchor": "left", "y": 1.14}
        ],
        xaxis_title="epoch",
        yaxis_title="loss",
        legend={"orientation": "h", "y": -0.2},
    )
    if baseline is not None:
        figure.add_hline(baseline, line_dash="dash", line_color="#64748b", annotation_text="predicting the mean")
    return figure


def timeline(trials: Sequence[FrozenTrial]) -> go.Figure:
    """When each worker ran which trial, and how it ended."""
    begun = [t for t in trials if t.datetime_start]
    workers = list(dict.fromkeys(_worker(t) for t in begun))
    first = min(t.datetime_start for t in begun if t.datetime_start)
    figure = go.Figure()
    for state, colour in STATES.items():
        shown = [t for t in begun if t.state.name == state and t.datetime_complete]
        if shown:
            figure.add_bar(
                orientation="h",
                y=[f"worker {workers.index(_worker(t)) + 1}" for t in shown],
                base=[(t.datetime_start - first).total_seconds() / 60 for t in shown if t.datetime_start],
                x=[t.duration.total_seconds() / 60 for t in shown if t.duration],
                marker={"color": colour, "line": {"color": "white", "width": 1}},
                name=state.lower(),
                text=[str(t.number) for t in shown] if len(begun) <= 100 else None,
                hovertext=[f"trial {t.number}" for t in shown],
            )
    figure.update_layout(
        barmode="overlay", xaxis_title="minutes since the study began", yaxis={"autorange": "reversed"}
    )
    return figure


def _worker(trial: FrozenTrial) -> tuple[Any, ...]:
    who = trial.user_attrs.get("worker", {})
    return who.get("host"), who.get("pid"), who.get("started")


Section = tuple[str, str, go.Figure]


def optuna_sections(study: optuna.Study, objectives: list[str], params: list[str]) -> tuple[list[Section], list[str]]:
    """(title, note, figure) of Optuna's plots, and a line for each that the trials do not suffice for."""
    v = optuna.visualization
    numbers = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    varied = [p for p in params if len({str(t.params.get(p)) for t in numbers if p in t.params}) > 1]
    importance = PedAnovaImportanceEvaluator()
    sections: list[Section] = []
    missing: list[str] = []

    def add(title: str, note: str, make: Callable[..., go.Figure], **settings: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sections.append((title, note, make(study, **settings)))
        except (ValueError, RuntimeError) as error:
            missing.append(f"{title}: {str(error).splitlines()[0] if str(error) else 'too few trials'}")

    several = len(objectives) > 1
    if several and len(objectives) <= 3:
        add("Pareto front", "No trial is better in all objectives.", v.plot_pareto_front, target_names=objectives)
    for i, objective in enumerate(objectives):
        target: dict[str, Any] = {"target_name": objective}
        if several:
            target["target"] = _nth(i)
        of = f" of {objective}" if several else ""
        add(f"History{of}", "The best value after each trial.", v.plot_optimization_history, **target)
        if len(varied) > 0:
            note = "How much of what makes a trial good each key explains (PED-ANOVA)."
            add(f"Importances{of}", note, v.plot_param_importances, evaluator=importance, params=varied, **target)
        if len(varied) > 1:
            add(
                f"Parallel coordinates{of}",
                "Drag along an axis to select.",
                v.plot_parallel_coordinate,
                params=varied,
                **target,
            )
        if varied:
            add(f"Slices{of}", "The objective along each key.", v.plot_slice, params=varied[:MOST_SLICES], **target)
        pair = _clip_and_schedule(varied)
        if pair:
            add(f"{pair[0]} against {pair[1]}{of}", "", v.plot_contour, params=pair, **target)
    return sections, missing


def _nth(i: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[i]


def _clip_and_schedule(params: list[str]) -> list[str] | None:
    """The two keys whose contour says most: clip and schedule where they are searched, else the first two."""
    clip = next((p for p in params if p.split("@")[0] == "clip"), None)
    schedule = next((p for p in params if p.startswith("schedule")), None)
    if clip and schedule:
        return [clip, schedule]
    return params[:2] if len(params) > 1 else None

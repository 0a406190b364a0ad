"""A study as one HTML file that opens without a network, a table, and its best trial as a config and a checkpoint."""

import csv
import shutil
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs

from tbptt import figures
from tbptt.config import OBJECTIVES
from tbptt.space import short_value, text_of
from tbptt.study import SWEEPS, Study

DEFAULT_UI = "http://127.0.0.1:5000"


def write_report(study: Study, store: Any | None = None) -> Path:
    """Write ``report.html``, ``trials.csv``, ``best.yaml`` and ``best.ckpt`` into the study's folder.

    Args:
        store: the :class:`tbptt.tracking.Store` of its runs, from which the best checkpoint comes; None leaves it out.

    Returns:
        The path of ``report.html``.
    """
    folder = SWEEPS / study.name
    folder.mkdir(parents=True, exist_ok=True)
    trials = study.trials()
    best = best_trial(trials, study.objectives[0])
    _write_table(folder / "trials.csv", trials, study.objectives)
    if best is not None:
        _write_best(folder, study, best, store)
    html = render(study, trials, best, store)
    path = folder / "report.html"
    beside = folder / ".report.html"
    beside.write_text(html, encoding="utf-8")
    beside.replace(path)  # a reader, or a reload, sees the old one or the new one
    return path


def best_trial(trials: Sequence[FrozenTrial], objective: str) -> FrozenTrial | None:
    """The complete trial that is best by an objective's direction, the first of the study's."""
    sign = 1 if OBJECTIVES[objective] == "minimize" else -1
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return min(complete, key=lambda t: sign * t.values[0], default=None)


def render(study: Study, trials: Sequence[FrozenTrial], best: FrozenTrial | None, store: Any | None) -> str:
    """The HTML. Everything that is not ours is data: Jinja escapes it, Plotly's JSON holds no markup."""
    sign = 1 if OBJECTIVES[study.objectives[0]] == "minimize" else -1
    labels = {t.number: _label(t) for t in trials}
    drawn = figures.chosen_for_curves(trials, sign)
    baseline = next((t.user_attrs["baseline"] for t in trials if "baseline" in t.user_attrs), None)
    params = list(dict.fromkeys(name for t in trials for name in t.params))
    sections: list[figures.Section] = []
    if drawn:
        with_curves = sum(1 for t in trials if t.user_attrs.get("curves"))
        note = "Pruned trials are grey; a diamond is where a stage of the schedule begins."
        if len(drawn) < with_curves:
            note += f" Drawn: {len(drawn)} of {with_curves} trials, the best and an even choice of the others."
        sections.append(("Loss curves", note, figures.curves(drawn, baseline, labels)))
    more, missing = figures.optuna_sections(study.optuna, study.objectives, params)
    sections += more
    if any(t.datetime_start and t.datetime_complete for t in trials):
        sections.append(("Timeline", "Which worker ran which trial.", figures.timeline(trials)))
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        files("tbptt").joinpath("templates/report.html").read_text(encoding="utf-8")
    )
    return template.render(
        study=study,
        objectives=study.objectives,
        counts=study.counts(),
        n_trials=study.attrs.get("n_trials"),
        answer=_answer(study, best, trials, baseline),
        spec=study.attrs.get("spec", {}),
        changes=study.attrs.get("changes", []),
        sections=[(title, note, _embedded(figure)) for title, note, figure in sections],
        missing=missing,
        failures=[(t.number, labels[t.number], t.user_attrs.get("reason", "unknown")) for t in study.failures()],
        params=params,
        rows=[_row(t, params, study.objectives, store) for t in trials],
        plotlyjs=get_plotlyjs(),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def _answer(
    study: Study, best: FrozenTrial | None, trials: Sequence[FrozenTrial], baseline: float | None
) -> dict[str, Any] | None:
    """What the first lines say of the best trial, and how sure that is."""
    if best is None:
        return None
    objective = study.objectives[0]
    sign = 1 if OBJECTIVES[objective] == "minimize" else -1
    others = sorted(sign * t.values[0] for t in trials if t.state == TrialState.COMPLETE and t.number != best.number)
    by_seed = [values[0] for values in best.user_attrs.get("values_by_seed", []) if values]
    return {
        "number": best.number,
        "values": list(zip(study.objectives, best.values, strict=True)),
        "point": {name: short_value(value) for name, value in best.params.items()},
        "epochs": best.user_attrs.get("best_epochs", []),
        "command": f"python train.py --config-dir sweeps/{study.name} --config-name best",
        "seeds": by_seed if len(by_seed) > 1 else [],
        "baseline": baseline if objective == "val/loss" else None,
        "below": 1 - best.values[0] / baseline if objective == "val/loss" and baseline else None,
        "next": sign * others[0] if others else None,
    }


def _row(t: FrozenTrial, params: list[str], objectives: list[str], store: Any | None) -> dict[str, Any]:
    seeds = [values[0] for values in t.user_attrs.get("values_by_seed", []) if values]
    runs = t.user_attrs.get("run_ids", [])
    return {
        "number": t.number,
        "state": "diverged" if t.user_attrs.get("stop_reason") == "diverged" else t.state.name.lower(),
        "values": list(t.values) if t.values else [None] * len(objectives),
        "spread": max(seeds) - min(seeds) if len(seeds) > 1 else None,
        "params": [short_value(t.params[name]) if name in t.params else "" for name in params],
        "epochs": len(t.user_attrs.get("curves", {}).get("train/loss", [])),
        "seconds": t.duration.total_seconds() if t.duration else None,
        "links": [_run_link(run, store) for run in runs],
    }


def _run_link(run_id: str, store: Any | None) -> str:
    if store is None:
        return ""
    server = store.uri.rstrip("/") if store.uri.startswith("http") else DEFAULT_UI
    return f"{server}/#/experiments/{store.experiment}/runs/{run_id}"


def _label(t: FrozenTrial) -> str:
    return ", ".join(f"{name}={short_value(value)}" for name, value in t.params.items())


def _embedded(figure: go.Figure) -> str:
    figure.update_layout(
        template="plotly_white",
        title=None,
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        height=figure.layout.height or 460,
        width=None,
        autosize=True,
    )
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"responsive": True, "displaylogo": False}
    )
    return text


def _write_table(path: Path, trials: Sequence[FrozenTrial], objectives: list[str]) -> None:
    params = list(dict.fromkeys(name for t in trials for name in t.params))
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(
            ["trial", "state", *objectives, *params, "stop_reason", "best_epoch", "epochs", "seconds", "runs", "reason"]
        )
        for t in trials:
            a = t.user_attrs
            out.writerow(
                [
                    t.number,
                    t.state.name,
                    *(t.values or [""] * len(objectives)),
                    *(text_of(t.params[name]) if name in t.params else "" for name in params),
                    a.get("stop_reason", ""),
                    " ".join(map(str, a.get("best_epochs", []))),
                    len(a.get("curves", {}).get("train/loss", [])),
                    f"{t.duration.total_seconds():.3f}" if t.duration else "",
                    " ".join(a.get("run_ids", [])),
                    a.get("reason", ""),
                ]
            )


def _write_best(folder: Path, study: Study, best: FrozenTrial, store: Any | None) -> None:
    """``best.yaml`` and ``best.ckpt`` of the best trial; of its best seed, where it has several."""
    runs = best.user_attrs.get("run_ids", [])
    if store is None or not runs:
        return
    sign = 1 if OBJECTIVES[study.objectives[0]] == "minimize" else -1
    by_seed = [sign * values[0] for values in best.user_attrs["values_by_seed"]]
    run = runs[by_seed.index(min(by_seed))]
    for artifact, name in (("config.yaml", "best.yaml"), ("checkpoints/best.ckpt", "best.ckpt")):
        found = store.artifact(run, artifact)
        if found is not None:
            shutil.copyfile(found, folder / f".{name}")
            (folder / f".{name}").replace(folder / name)

"""A study as one HTML file that opens without a network, as tables, and with its best trial as a config and a
checkpoint."""

import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from tbptt.config.names import SWEEPS
from tbptt.options.metrics import sign
from tbptt.options.values import short_value, shown
from tbptt.reports import chosen, curve_data, data, evidence, figures, frames, html, optuna_figures, thinning
from tbptt.reports.answer import answer, point_of
from tbptt.reports.optuna_figures import Section
from tbptt.reports.pairs import paired, pairs
from tbptt.reports.pareto import pareto
from tbptt.reports.tables import metrics_of, params_of, shown_metrics, write_explained, write_table
from tbptt.studies import judged_best, saved_view
from tbptt.studies.ranking import best_first, best_run, best_trial, epochs_run
from tbptt.studies.records import TrialRecord, is_number
from tbptt.studies.study import Study, state_of
from tbptt.system.endings import failure_line
from tbptt.system.files import replaced, write_text
from tbptt.system.mlflow_links import run_page, study_page
from tbptt.system.runtime import Interrupted
from tbptt.system.trouble import disk_trouble

if TYPE_CHECKING:
    from tbptt.runs.curves import Found

log = logging.getLogger("tbptt")

SHARED = (
    "report.html",
    "trials.csv",
    "explained.csv",
    "curves.csv",
)  # files in a study's folder that its parent run keeps too
BEST_FILES = {"config.yaml": "best.yaml", "checkpoints/best.ckpt": "best.ckpt"}


def write_report(study: Study, store: Any | None = None) -> Path:
    """Write ``report.html``, ``trials.csv``, ``explained.csv``, ``curves.csv``, ``best.yaml``, ``best.ckpt`` into the
    study's folder.

    Args:
        store: the :class:`tbptt.runs.tracking.Store` of its runs, from which the curves and the best config and
            checkpoint come. None leaves them out.

    Returns:
        The path of ``report.html``.
    """
    folder = SWEEPS / study.name
    folder.mkdir(parents=True, exist_ok=True)
    trials = study.read()
    best = best_trial(trials, *study.objectives)
    tried = evidence.tried(study, trials, store)
    write_table(folder / "trials.csv", trials, study.objectives, study.record.chosen, tried.inside)
    write_explained(folder / "explained.csv", trials, study.objectives)
    found = None
    if store is not None:
        _write_best(folder, study, best, store)
        found = _write_curves(folder / "curves.csv", study, trials, store)
    path = folder / "report.html"
    write_text(path, render(study, trials, store, tried, found))
    return path


# --- the page -------------------------------------------------------------------------------------------------------


PARTS = ("head", "answer", "data", "curves", "pairs", "sections", "failures", "trials", "searched")
LIVE_PARTS = ("head", "running", *PARTS[1:])


def render(
    study: Study,
    trials: Sequence[FrozenTrial],
    store: Any | None,
    tried: evidence.Tried,
    found: "Found | None" = None,
) -> str:
    """The HTML. Everything from the study is data: Jinja escapes it, and what is drawn holds no markup."""
    return html.rendered("report.html", **content(study, trials, store, tried, found))


def brief(study: Study, trials: Sequence[FrozenTrial], store: Any | None, tried: evidence.Tried) -> dict[str, Any]:
    """Of :func:`content`, what can be had at once: how many trials there are, and their table."""
    params = params_of(trials)
    metrics = shown_metrics(metrics_of(trials, study.objectives), study.objectives)
    ranked = best_first(trials, *study.objectives)
    rows = [_row(t, params, metrics, study.objectives, store, tried) for t in ranked[: thinning.MOST_ROWS]]
    return {
        "name": study.name,
        "objectives": study.objectives,
        "counts": _counts(study, trials),
        "study": study.record,
        "params": params,
        "metrics": metrics,
        "first_sort": "ascending" if sign(study.objectives[0]) == 1 else "descending",
        "in_set": bool(tried.inside),
        "rows": rows,
        "listed": len(rows),
        "total": len(ranked),
        "spread": any(row["spread"] for row in rows),
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }


def content(
    study: Study,
    trials: Sequence[FrozenTrial],
    store: Any | None,
    tried: evidence.Tried,
    found: "Found | None" = None,
    *,
    live: bool = False,
    links: Any | None = None,
) -> dict[str, Any]:
    """What the page shows, by the names that its templates use.

    Args:
        found: the curves, if they were read already.
        live: of a page that gets its curves by itself. Nothing is written, in no store either.
        links: of a live page, the ``uri`` and ``experiment`` of its runs' pages, if they are known.
    """
    record, links = study.record, links if live else store
    curves = NO_CURVES if live else curve_data.curves(study, trials, store, frames.SECONDS, found)
    sections, missing = _sections(trials, study.objectives)
    if not live and not curves["trials"]:
        missing.insert(0, "Loss curves: no trial has finished an epoch.")
    best = best_trial(trials, *study.objectives)
    verdict = judged_best.answer(study, trials, best)
    if verdict.found is not None and best is not None:
        on_test, not_drawn = chosen.sections(study, best)
        sections[:0] = on_test
        missing += not_drawn
    named = thinning.numbers_in(figure for section in sections for figure in section.figures)
    failures = [t for t in trials if t.state == TrialState.FAIL]
    shown_sections = [_shown(section) for section in sections]
    return {
        **brief(study, trials, links, tried),
        "parts": PARTS,
        "live": None,
        "answer": answer(study, trials, verdict, tried),
        "data": data.section(study, store),
        "curves": {"there": bool(curves["trials"]), "note": curves["note"], "figure": curves_frame()},
        "sections": shown_sections,
        "figures": [curves_frame(), *(f for section in shown_sections for f in section["figures"])],
        "also": {"curves": json.dumps(curves, separators=(",", ":"), allow_nan=False)},
        "missing": missing,
        "pairs": [] if record.changes else [p.said for p in pairs(trials, 0, study.objectives[0])],
        "paired": [len(some) for some in paired(trials)],
        "failures": [(t.number, TrialRecord.of(t), point_of(t)) for t in failures[: thinning.MOST_ROWS]],
        "failed": len(failures),
        "labels": {t.number: figures.label(t) for t in trials if t.number in named},
        "parent": _run_link(record.parent_run, links),
        "runs": _study_link(study, links, keep=not live),
        "ui": _needs_ui(study),
    }


NO_CURVES: dict[str, Any] = {"trials": [], "note": ""}


def nothing_yet() -> dict[str, Any]:
    """Of :func:`content`, what :func:`brief` does not have, before it is known."""
    return {
        "answer": {"best": None, "says": ["What is known so far is being worked out."], "front": [], "commands": []},
        "data": None,
        "curves": {"there": False, "note": "", "figure": curves_frame()},
        **dict.fromkeys(("sections", "missing", "pairs", "paired", "failures"), ()),
        "failed": 0,
        "ui": False,
        **dict.fromkeys(("parent", "runs"), ""),
    }


def curves_frame() -> dict[str, Any]:
    """The figure in which the page's scripts draw the curves."""
    return html.embedded(figures.curves_frame(), "loss-curves")


def _shown(section: Section) -> dict[str, Any]:
    """A section as the templates show it. The name of a figure is that of its section and its place there."""
    name = html.slug(section.title)
    figures = [html.embedded(figure, f"{name}-{i + 1}", section.title) for i, figure in enumerate(section.figures)]
    return {"id": f"section-{name}", "title": section.title, "note": section.note, "figures": figures}


def _counts(study: Study, trials: Sequence[FrozenTrial]) -> str:
    states = [state_of(t) for t in trials]
    parts = [f"{states.count(s)} {s}" for s in dict.fromkeys(["complete", *states]) if s != "waiting"]
    asked = study.record.n_trials
    return ", ".join(parts) + (f", of {asked}" if asked else "")


def _sections(trials: Sequence[FrozenTrial], objectives: list[str]) -> tuple[list[Section], list[str]]:
    """The sections below the curves, in the order in which people look at them, and a line for each figure that cannot
    be drawn."""
    sections, missing = optuna_figures.sections(trials, objectives)
    front = pareto(trials, objectives)
    if front:
        sections.append(front)
    elif len(objectives) > 1:
        missing.append("Pareto front: needs a complete trial, and two or three objectives.")
    begun = [t for t in trials if t.datetime_start]
    timeline = figures.timeline(some := thinning.at_random(begun))
    if timeline:
        note = "Which worker ran which trial." + thinning.said(some, begun, "trials", is_random=True)
        sections.append(Section("Timeline", note, [timeline]))
    else:
        missing.append("Timeline: no trial has begun.")
    return sections, missing


# --- the table ------------------------------------------------------------------------------------------------------


def _number(value: Any) -> str:
    return shown(value, 5) if is_number(value) else ""


def _row(
    t: FrozenTrial,
    params: list[str],
    metrics: list[str],
    objectives: list[str],
    store: Any | None,
    tried: evidence.Tried,
) -> dict[str, Any]:
    record = TrialRecord.of(t)
    seeds = record.by_seed(0)
    return {
        "number": t.number,
        "state": state_of(t),
        "values": [_number(v) for v in t.values or [None] * len(objectives)],
        "metrics": [_number(record.metrics.get(name)) for name in metrics],
        "in_set": {True: "yes", False: "no"}.get(tried.inside.get(t.number), ""),  # type: ignore[arg-type]
        "spread": f"{max(seeds) - min(seeds):.3g}" if len(seeds) > 1 else "",
        "params": [short_value(t.params[name]) if name in t.params else "" for name in params],
        "epochs": epochs_run(t),
        "seconds": f"{t.duration.total_seconds():.1f}" if t.duration else "",
        "links": [_run_link(run, store) for run in record.run_ids],
    }


def _run_link(run_id: str | None, store: Any | None) -> str:
    if store is None or run_id is None:
        return ""
    return run_page(store.uri, store.experiment, run_id)


def _study_link(study: Study, store: Any | None, keep: bool) -> str:
    """The page of all runs of a study; empty if they are not known. With ``keep`` its view is kept there if it is not
    yet."""
    if store is None or study.record.parent_run is None:
        return ""
    objective = study.objectives[0]
    return study_page(
        store.uri,
        store.experiment,
        study.name,
        objective,
        ascending=sign(objective) == 1,
        view=saved_view.kept(study, store) if keep else saved_view.key_of(study.name),
    )


def _needs_ui(study: Study) -> bool:
    """Whether the links to runs need a command that makes them work: those on a server do not."""
    uri = study.record.tracking_uri
    return bool(uri) and not str(uri).startswith(("http", "$"))


def _write_curves(path: Path, study: Study, trials: Sequence[FrozenTrial], store: Any) -> "Found | None":
    """Write ``curves.csv``, and return what was read for it and for the page. If the store's database cannot be read, a
    warning says so, and None is returned."""
    try:
        return frames.write_curves(path, study, trials, store, curve_data.drawn_of(study, trials))
    except Exception as error:
        if disk_trouble(error) or isinstance(error, Interrupted):
            raise
        log.warning("study %s: curves.csv is not written: %s", study.name, failure_line(error))
        return None


def _write_best(folder: Path, study: Study, best: FrozenTrial | None, store: Any) -> None:
    """Write ``best.yaml`` and ``best.ckpt`` of the best trial; if it has several seeds, of its best seed.

    A file that cannot be had is removed, because the old one would be another trial's.
    """
    run, luck = best_run(study, best) if best is not None else (None, "")
    for artifact, name in BEST_FILES.items():
        found = store.artifact(run, artifact) if run else None
        if found is None:
            (folder / name).unlink(missing_ok=True)
            continue
        with replaced(folder / name) as beside:
            shutil.copyfile(found, beside)
            if luck and name.endswith(".yaml"):
                beside.write_text(f"# Of {luck}.\n{beside.read_text(encoding='utf-8')}", encoding="utf-8")

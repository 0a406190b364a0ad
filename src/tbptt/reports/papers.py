"""A study for a paper: every figure of its report as SVG and PDF, in one style, and every table as CSV."""

import csv
import html
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from tbptt.options.values import text_of
from tbptt.reports import browser, chosen, curves_for_papers, data, evidence, figures, frames, optuna_figures
from tbptt.reports.html import slug
from tbptt.reports.optuna_figures import Section
from tbptt.reports.pairs import pairs
from tbptt.reports.paper_style import styled
from tbptt.reports.pareto import pareto
from tbptt.reports.tables import params_of, write_explained, write_table
from tbptt.reports.thinning import at_random
from tbptt.studies import judged_best
from tbptt.studies.ranking import best_trial, pareto_front
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.endings import failure_line
from tbptt.system.runtime import Interrupted, say

log = logging.getLogger("tbptt")

WIDE = re.compile("parallel-coordinates|timeline|profit|.*-step$")  # figures over both columns of a page


def checked(folder: Path) -> str:
    """The path of the browser that will draw. Raises ValueError with a line if nothing can be drawn, or written to
    ``folder``."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"--figures: got {folder}, which is no folder; takes a folder, new or not")
    if not folder.parent.is_dir():
        raise ValueError(f"--figures: got {folder}; there is no folder {folder.parent}")
    return browser.found()


def write(study: Study, store: Any | None, folder: Path, path: str) -> str:
    """Write the figures and tables of a study. Nothing of the study is changed, and on an error nothing is written.

    Args:
        store: the :class:`tbptt.runs.tracking.Store` of its runs.
        folder: where they go; made if it is not there. Other files in it stay.
        path: of the browser, from :func:`checked`.

    Returns:
        A line that says where they are and how many.

    Raises:
        ValueError: with a line, if the browser does not draw, or a folder stands where a file would.
    """
    trials = study.read()
    made = drawn(study, trials, store)
    is_new = not folder.is_dir()
    beside = Path(tempfile.mkdtemp(prefix=".figures-", dir=folder.parent if is_new else folder))
    try:
        _write_tables(beside, study, trials, store)
        tables = len(list(beside.iterdir()))
        if made:
            say(f"drawing {_many(len(made), 'figure')} with {path}")
            browser.draw(made, beside, path)
        files = sorted(beside.iterdir())
        if taken := [file.name for file in files if (folder / file.name).is_dir()]:
            raise ValueError(f"--figures: {folder / taken[0]} is a folder, and is not replaced")
        if is_new:
            folder.mkdir()
        for file in files:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    what = f"{_many(len(made), 'figure')} as SVG and as PDF, {_many(tables, 'table')} as CSV"
    return f"figures: {folder}, {len(files)} files: {what}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# --- the figures ----------------------------------------------------------------------------------------------------


def drawn(study: Study, trials: Sequence[FrozenTrial], store: Any | None) -> dict[str, go.Figure]:
    """The figures by the names of their files, without the end. A study's figures have the same names each time."""
    made: dict[str, go.Figure] = {}

    def add(words: Sequence[str], figure: go.Figure) -> None:
        name = whole = slug(" ".join(words))
        for i in range(2, 10_000):
            if name not in made:
                break
            name = f"{whole}-{i}"
        made[name] = figure

    curves = curves_for_papers.curves(trials, study.objectives, store)
    for of_curves, figure in curves_for_papers.figures(trials, study.objectives, curves).items():
        add(of_curves, figure)
    for section in _sections(study, trials):
        for words, figure in _named(section):
            add(words, styled(figure, WIDE.match(slug(" ".join(words))) is not None))
    return made


def _sections(study: Study, trials: Sequence[FrozenTrial]) -> list[Section]:
    """The sections of the report, but for its curves."""
    objectives = study.objectives
    best = best_trial(trials, *objectives)
    found: list[Section] = []
    if best is not None and judged_best.answer(study, trials, best).found is not None:
        found += chosen.sections(study, best)[0]
    found += optuna_figures.sections(trials, objectives)[0]
    if front := pareto(trials, objectives):
        found.append(front._replace(figures=[flat for figure in front.figures for flat in _flat(figure)]))
    if timeline := figures.timeline(at_random([t for t in trials if t.datetime_start])):
        found.append(Section("Timeline", "", [timeline]))
    return found


def _flat(figure: go.Figure) -> list[go.Figure]:
    """A figure in space as one for each pair of its axes: a browser would draw it as an image of pixels."""
    if not any(trace.type == "scatter3d" for trace in figure.data):
        return [figure]
    flat = []
    for a, b in combinations("xyz", 2):
        titles = [figure.layout.scene[f"{letter}axis"].title.text for letter in (a, b)]
        made = go.Figure(layout={"xaxis": {"title": titles[0]}, "yaxis": {"title": titles[1]}})
        for trace in figure.data:
            marks = {"color": trace.marker.color, "size": 9, "line": {"width": 0.5}}
            made.add_scatter(x=trace[a], y=trace[b], mode="markers", marker=marks, name=trace.name)
        flat.append(made)
    return flat


def _named(section: Section) -> Iterator[tuple[list[str], go.Figure]]:
    """The figures of a section, each with the words of its name: the section's title and, where this does not tell
    figures apart, what is on their axes."""
    title, _, keys = section.title.partition(": ")
    for figure in section.figures:
        across, up = (_plain(axis.title.text or "") for axis in (figure.layout.xaxis, figure.layout.yaxis))
        several = [across] if len(section.figures) > 1 else []
        yield [title, *([across, up] if keys or (title.startswith("Pareto") and several) else several)], figure


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"<br ?/?>", " ", text))


# --- the tables -----------------------------------------------------------------------------------------------------


def _write_tables(folder: Path, study: Study, trials: Sequence[FrozenTrial], store: Any | None) -> None:
    """Write the tables of the report that have a row, numbers in full."""
    record, objectives, params = study.record, study.objectives, params_of(trials)
    tried = evidence.tried(study, trials, store)
    write_table(folder / "trials.csv", trials, objectives, record.chosen, tried.inside)
    write_explained(folder / "explained.csv", trials, objectives)
    if store is not None:
        _write_curves(folder / "curves.csv", study, trials, store)
    beside = [] if record.changes else pairs(trials, 0, objectives[0])
    head = ["key", "value", "beside", "better_in", "pairs", "mean", "smallest", "largest"]
    _write(
        folder / "side-by-side.csv",
        head,
        [
            [p.key, text_of(p.better), text_of(p.worse), p.wins, len(p.gains), p.mean, min(p.gains), max(p.gains)]
            for p in beside
        ],
    )
    front = pareto_front(trials, objectives) if len(objectives) > 1 else []
    rows = [[t.number, *t.values, *_point(t, params)] for t in front]
    _write(folder / "pareto-front.csv", ["trial", *objectives, *params], rows)
    _write(folder / "data.csv", *data.whole_table(study, store))
    failed = [(t, TrialRecord.of(t)) for t in trials if t.state == TrialState.FAIL]
    rows = [[t.number, r.reason or "", str(r.requeued).lower(), *_point(t, params)] for t, r in failed]
    _write(folder / "failures.csv", ["trial", "reason", "run_again", *params], rows)
    told = [*((key, "searched", words) for key, words in record.space.items())]
    told += [(key, "fixed", text_of(value)) for key, value in record.config.items()]
    told += [("study.seeds", "fixed", ", ".join(map(str, record.seeds)))] if record.seeds else []
    told += [("study.folds", "fixed", f"{record.folds}, {record.fold_window}")] if record.folds else []
    _write(folder / "settings.csv", ["key", "how", "value"], told)


def _point(trial: FrozenTrial, params: Sequence[str]) -> list[str]:
    return [text_of(trial.params[key]) if key in trial.params else "" for key in params]


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def _write_curves(path: Path, study: Study, trials: Sequence[FrozenTrial], store: Any) -> None:
    """Write ``curves.csv``. If the store cannot be read, a warning says so."""
    try:
        frames.write_curves(path, study, trials, store)
    except (OSError, Interrupted):  # of the file, and not of the store
        raise
    except Exception as error:
        log.warning("study %s: curves.csv is not written: %s", study.name, failure_line(error))

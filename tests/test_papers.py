"""A study's figures as SVG and PDF and its tables as CSV, as a paper can use them."""

import math
import os
import random
import re
import shutil
import socket
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import CONF
from studies import HOSTILE, made_study, made_trial

from tbptt.cli import main
from tbptt.reports import browser, curves_for_papers, page, papers
from tbptt.reports.html import slug
from tbptt.reports.page import write_report
from tbptt.reports.paper_style import COLUMN, PAGE
from tbptt.runs import curves as runs_curves
from tbptt.studies.ranking import best_first
from tbptt.studies.study import Study

needs_browser = pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("chromium"), reason="no chromium here")
SVG = "{http://www.w3.org/2000/svg}"
LOSSES = ("val-loss", "train-loss", "train-eval-loss")


# --- the files ------------------------------------------------------------------------------------------------------


def hostile_study() -> Study:
    """A study of every kind of figure, whose names and values are markup."""
    rng = random.Random(0)
    trials = []
    for i in range(12):
        point = {HOSTILE: i % 2, "optimizer": (HOSTILE, "adam")[i // 2 % 2], "clip": rng.uniform(0.1, 10)}
        value = 0.5 + 0.1 * (i % 2) + 0.01 * rng.random()
        trials.append(made_trial(values=[value, rng.random()], params=point, by_seed=[value, value + 0.1]))
    trials.append(made_trial("FAIL", params={"clip": 2.0}, reason=f"{HOSTILE}\nline two"))
    return made_study(trials, ["val/loss", "time/timesteps_per_second"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The figures of that study, from the command, in a folder that had content."""
    before = Path.cwd()
    there = tmp_path_factory.mktemp("papers")
    os.chdir(there)
    try:
        study = hostile_study()
        Path("paper").mkdir()
        Path("paper/mine.tex").write_text("mine")
        Path("paper/trials.csv").write_text("old")
        page_titles = ["Loss curves", *(s.title for s in page._sections(study.read(), study.objectives)[0])]
        with asked_for() as (address, hosts), pytest.MonkeyPatch.context() as patch:
            patch.setattr(browser, "NO_PROXY", address)
            status = main.report(["a-study", "--figures", "paper"], CONF)
        write_report(study)
        names = list(papers.drawn(study, study.read(), None))
        yield SimpleNamespace(folder=there / "paper", status=status, titles=page_titles, names=names, hosts=hosts)
    finally:
        os.chdir(before)


@contextmanager
def asked_for() -> Iterator[tuple[str, list[str]]]:
    """A proxy that refuses everything: its address, and the first line of each request."""
    lines: list[str] = []

    def serve() -> None:
        with suppress(OSError):  # once it is closed
            while True:
                with server.accept()[0] as connection:
                    lines.append(connection.recv(1000).decode(errors="replace").split("\r\n")[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", lines
        server.shutdown(socket.SHUT_RDWR)


def texts_of(path: Path) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter(f"{SVG}text")]


@needs_browser
def test_each_figure_of_the_report_is_there_as_svg_and_pdf_and_each_table(written: Any) -> None:
    assert written.status == 0
    files = {path.name for path in written.folder.iterdir()}
    figures = {name.removesuffix(".svg") for name in files if name.endswith(".svg")}
    assert figures == set(written.names), "names are the same each time"
    assert {f"loss-curves-{loss}{by}" for loss in LOSSES for by in ("", "-by-optimizer")} <= figures
    assert {"slices-of-val-loss-clip", "timeline", "pareto-front"} <= figures
    for title in written.titles:
        assert any(name.startswith(slug(title.partition(":")[0])) for name in figures), title
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in figures)
    tables = {"trials.csv", "explained.csv", "failures.csv", "side-by-side.csv", "settings.csv", "pareto-front.csv"}
    assert files - {"mine.tex"} == {f"{name}.{form}" for name in figures for form in ("svg", "pdf")} | (
        tables & files
    ), "nothing else is left"
    assert tables - files <= {"side-by-side.csv"}, "there are no pairs where each trial has a clip of its own"
    assert (written.folder / "mine.tex").read_text() == "mine"


@needs_browser
def test_figures_need_nothing_from_a_host(written: Any) -> None:
    """The browser asks its makers' hosts for this and that, all through the proxy, which outside this test is none."""
    hosts = {re.sub(r"\w+ (?:http://)?([^/: ]+).*", r"\1", line) for line in written.hosts if line}
    assert all(host.endswith(".google.com") or host.endswith(".googleapis.com") for host in hosts)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(browser.NO_PROXY.rpartition(":")[2])), timeout=5)


@needs_browser
def test_each_figure_is_a_vector_of_a_width_for_papers(written: Any) -> None:
    widths = set()
    for name in written.names:
        svg = ElementTree.parse(written.folder / f"{name}.svg").getroot()
        assert {element.tag for element in svg.iter()} & {f"{SVG}image", f"{SVG}script", f"{SVG}img"} == set(), name
        assert float(svg.attrib["width"]) in (COLUMN, PAGE)
        pdf = (written.folder / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/Image" not in re.sub(rb"/ImageB|/ImageC|/ImageI", b"", pdf), name
        assert len(re.findall(rb"/Type /Page\b", pdf)) == 1
        box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
        assert box is not None
        points = [float(side) for side in box.groups()]
        assert points[0] == pytest.approx(float(svg.attrib["width"]) * 0.75, abs=1)
        assert points[1] == pytest.approx(float(svg.attrib["height"]) * 0.75, abs=1)
        widths.add(round(points[0] / 72, 1))
    assert widths == {3.5, 7.0}, "inches"


@needs_browser
def test_figures_say_what_they_show_and_names_are_text(written: Any) -> None:
    best = texts_of(written.folder / "loss-curves-val-loss.svg")
    assert {"epoch", "the next 9", "predicting the mean"} <= set(best)
    assert any(text.endswith(", the best") for text in best)
    assert any(text.startswith("val/loss") for text in best)
    by_key = " ".join(texts_of(written.folder / "loss-curves-val-loss-by-optimizer.svg"))
    assert "optimizer" in by_key
    assert "adam" in by_key
    assert "<script>" in by_key
    for name in written.names:
        assert "&lt;" not in " ".join(texts_of(written.folder / f"{name}.svg")), f"{name}: escaped twice"


@needs_browser
def test_tables_are_those_of_the_report_with_numbers_in_full(written: Any) -> None:
    for name in ("trials.csv", "explained.csv"):
        assert (written.folder / name).read_bytes() == (Path("sweeps/a-study") / name).read_bytes()
    trials = pd.read_csv(written.folder / "trials.csv")
    front = pd.read_csv(written.folder / "pareto-front.csv")
    there = trials.set_index("trial").loc[front["trial"]]
    assert there["val/loss"].tolist() == front["val/loss"].tolist()
    failures = pd.read_csv(written.folder / "failures.csv")
    assert failures[["trial", "reason", "clip"]].to_numpy().tolist() == [[12, f"{HOSTILE}\nline two", 2.0]]


# --- the numbers ----------------------------------------------------------------------------------------------------

RUNS = {  # of each trial: the losses of its runs by epoch, which end at different ones
    0: [[3.0, 2.0, 1.0, 0.5], [3.2, 2.4, 1.3], [2.8, 1.7, 1.2, 0.9]],
    1: [[3.1, 2.9, 2.0, 1.9], [3.5, 2.5], [3.6, math.nan, 2.2, math.inf]],
    2: [[4.0, 3.9, 3.8, 3.7], [4.4, 3.1, 3.0, 2.9], [4.2, 3.0]],
}


def stored(runs: dict[int, list[list[float]]]) -> pd.DataFrame:
    """The points of the runs as a store gives them, whose steps count from 0."""
    rows = [
        (f"{trial}-{i}", "val/loss", step, value)
        for trial, its in runs.items()
        for i, values in enumerate(its)
        for step, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["run", "metric", "step", "value"]).sample(frac=1, random_state=0)


@pytest.fixture
def of_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], curves_for_papers.Curves]:
    monkeypatch.setattr(runs_curves, "curves_of", lambda *a: runs_curves.Found(stored(RUNS), {}, []))
    clips = {0: 0.5, 1: 2, 2: 2}
    trials = [
        made_trial(values=[float(n)], params={"clip": clips[n]}, run_ids=[f"{n}-{i}" for i in range(3)], curve=[9.0])
        for n in RUNS
    ]
    trials = made_study(trials).read()
    return trials, curves_for_papers.curves(trials, ["val/loss"], object())


def line(figure: Any, name: str) -> tuple[list[float], list[float]]:
    (found,) = [trace for trace in figure.data if trace.name == name and trace.fill is None]
    return list(found.x), list(found.y)


def finite(trials: list[int], epoch: int) -> list[float]:
    """What the runs of some trials have at an epoch, from 1."""
    values = [run[epoch - 1] for t in trials for run in RUNS[t] if len(run) >= epoch]
    return [value for value in values if math.isfinite(value)]


def test_the_best_trials_have_their_mean_and_range_over_runs(of_runs: Any) -> None:
    trials, curves = of_runs
    figure = curves_for_papers.figures(trials, ["val/loss"], curves)[("loss curves", "val/loss")]
    x, y = line(figure, "trial 0, the best")
    assert x == [1, 2, 3, 4]
    assert y == pytest.approx([np.mean(finite([0], epoch)) for epoch in x])
    (band,) = [trace for trace in figure.data if trace.name == "range of its runs"]
    assert band.y == pytest.approx(
        [max(finite([0], e)) for e in x] + [min(finite([0], e)) for e in reversed(x)],
    )
    others = [trace for trace in figure.data if trace.name == "the next 2"]
    # At epoch 4 one of trial 1's three runs has a number: that is no mean over its runs.
    assert [list(trace.x) for trace in others] == [[1, 2, 3, 4], [1, 2, 3]]
    assert others[1].y == pytest.approx([np.mean(finite([1], epoch)) for epoch in (1, 2, 3)])
    assert [trace.showlegend for trace in others] == [False, True]
    assert line(figure, "predicting the mean")[1] == [1.25, 1.25]


def test_the_values_of_a_key_have_the_mean_over_trials_and_the_middle_half_of_the_runs(of_runs: Any) -> None:
    trials, curves = of_runs
    figure = curves_for_papers.figures(trials, ["val/loss"], curves)[("loss curves", "val/loss", "by", "clip")]
    assert figure.layout.legend.title.text == "clip"
    x, y = line(figure, "2")
    assert x == [1, 2, 3, 4]
    assert y == pytest.approx([np.mean([np.mean(finite([t], epoch)) for t in (1, 2)]) for epoch in x])
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    high = [np.percentile(finite([1, 2], epoch), 75) for epoch in x]
    low = [np.percentile(finite([1, 2], epoch), 25) for epoch in x]
    assert bands[1].y == pytest.approx([*high, *low[::-1]])


def test_lines_of_a_figure_differ_in_black_and_white(of_runs: Any) -> None:
    trials, curves = of_runs
    for figure in curves_for_papers.figures(trials, ["val/loss"], curves).values():
        named = {trace.name: trace for trace in figure.data if trace.fill is None}
        looks = [(trace.line.dash, round(trace.line.width, 1)) for trace in named.values()]
        assert len(set(looks)) == len(looks) > 2


def test_without_the_store_curves_are_those_that_trials_keep(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    trials = made_study([made_trial(values=[1.2], curve=[2.0, 1.5]), made_trial(values=[1.0], curve=[2.0, 1.0])]).read()
    away = SimpleNamespace(uri="sqlite:///none/mlflow.db", retry=lambda call: call())
    curves = curves_for_papers.curves(best_first(trials, "val/loss"), ["val/loss"], away)
    assert curves["val/loss"].loc[1].tolist() == [2.0, 1.0]
    assert "does not have the runs of 2 of 2 trials; drawn is the first run of each" in caplog.text


def test_a_key_whose_values_are_all_different_has_no_figure(here: Path) -> None:
    trials = made_study([made_trial(values=[0.1 + i], params={"clip": 0.3 + i, "epochs": 3}) for i in range(4)]).read()
    assert curves_for_papers.by_value(trials, "clip") == {}
    assert list(curves_for_papers.by_value(trials, "epochs")) == ["3"]


# --- what can go wrong ----------------------------------------------------------------------------------------------


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    status = main.report(words, CONF)
    return status, capsys.readouterr().err


@pytest.fixture
def small(here: Path) -> Path:
    made_study([made_trial(values=[1.0])])
    return here


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"sweeps", "own", "mlruns"}


def test_without_kaleido_or_a_browser_a_line_says_how_to_get_it(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(small)
    monkeypatch.setattr(browser, "find_spec", lambda name: None)
    status, line = said(["a-study", "--figures", "paper"], capsys)
    assert status == 2
    assert line == "--figures needs kaleido: .venv/bin/python -m pip install -e '.[figures]'\n"
    monkeypatch.undo()
    pytest.importorskip("kaleido")
    monkeypatch.setattr("choreographer.browsers.Chromium.find_browser", lambda **settings: None)
    status, line = said(["a-study", "--figures", "paper"], capsys)
    assert status == 2
    assert line.startswith("--figures needs Chrome or Chromium, and there is none here: install your system's chromium")
    assert "plotly_get_chrome" in line
    assert left(small) == before


@pytest.mark.parametrize("script", ["exit 1", "echo $$ > pid; exec sleep 600"], ids=["dies", "hangs"])
def test_a_browser_that_dies_or_hangs_costs_a_line_and_leaves_nothing(
    script: str, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kaleido")
    fake = small / "browser"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    before = left(small)
    monkeypatch.setattr(browser, "LONGEST", 4.0)
    monkeypatch.setattr("choreographer.browsers.Chromium.find_browser", lambda **settings: str(fake))
    status, line = said(["a-study", "--figures", "paper"], capsys)
    assert status == 2
    assert line.splitlines()[-1].startswith(f"--figures: the browser {fake} did not ")
    assert "nothing was written" in line.splitlines()[-1]
    assert "Traceback" not in line
    assert left(small) - {"pid"} == before
    if "hangs" in script or (small / "pid").exists():
        process = int((small / "pid").read_text())
        end = time.monotonic() + 20
        while psutil.pid_exists(process) and psutil.Process(process).status() != "zombie" and time.monotonic() < end:
            time.sleep(0.05)
        assert not psutil.pid_exists(process) or psutil.Process(process).status() == "zombie"


def test_where_it_cannot_be_written_a_line_says_so(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    status, line = said(["a-study", "--figures", "file"], capsys)
    assert (status, line) == (2, "--figures: got file, which is no folder; takes a folder, new or not\n")
    status, line = said(["a-study", "--figures", "none/paper"], capsys)
    assert (status, line) == (2, "--figures: got none/paper; there is no folder none\n")
    Path("paper/trials.csv").mkdir(parents=True)
    monkeypatch.setattr(browser, "found", lambda: "a browser")
    monkeypatch.setattr(browser, "draw", lambda *a: None)
    status, line = said(["a-study", "--figures", "paper"], capsys)
    assert (status, line.splitlines()[-1]) == (2, "--figures: paper/trials.csv is a folder, and is not replaced")
    assert [path.name for path in Path("paper").iterdir()] == ["trials.csv"]


@pytest.mark.parametrize(
    "words",
    [["a-study", "--figures"], ["--figures", "paper"], ["a-study", "--figures", "p", "--verdict"], ["a-study", "--x"]],
)
def test_words_that_do_not_go_together_are_answered_with_the_usage(
    words: list[str], small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(small)
    status, line = said(words, capsys)
    assert status == 2
    assert line.startswith(
        "usage: python report.py STUDY|verdict.csv [--verdict | --figures FOLDER | --watch [--port N]] "
    )
    assert left(small) == before

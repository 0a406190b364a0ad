"""MLflow's UI, opened through the links that a study prints: what a person reads there."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, SMALL
from mlflow import MlflowClient
from mlflow.entities import Run
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from test_browser import await_answer, browser, click, until
from test_browser import pytestmark as skipped

__all__ = ["browser"]  # a fixture
pytestmark = [skipped, pytest.mark.slow]  # half a minute; .ci/run runs it

ONE = "it's one"  # a name that a search cannot quote
NOTES = "First *look* at <b>clip</b>"
STUDY = ["-m", *SMALL, "progress=plain", "epochs=2", f"study.name={ONE}", "optimizer=adam,rmsprop", "clip=0.5,1"]
NAMES = {"#0 adam clip 0.5", "#1 adam clip 1", "#2 rmsprop clip 0.5", "#3 rmsprop clip 1"}


@dataclass
class Shown:
    """A study's store, as a server shows it.

    Attributes:
        page: the address that the command printed, on this server.
        runs: of the study, by name.
    """

    folder: Path
    address: str
    page: str
    runs: dict[str, Run]

    def run(self, name: str) -> str:
        return self.runs[name].info.run_id


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("ui")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "train.py"), *STUDY, f"notes='{NOTES}'", "tags={desk: fx}"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=True)
    printed = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    command = [sys.executable, *printed["compare runs"].replace("mlflow", "-m mlflow", 1).split()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as out:
        words = ["--port", str(port), "--workers", "1"]
        server = subprocess.Popen([*command, *words], cwd=folder, env=env, stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{port}"
        await_answer(f"{address}/health", server, folder / "server.log")
        assert printed["then open"].startswith("http://127.0.0.1:5000/")
        client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
        other = client.create_run(client.get_experiment_by_name("tbptt").experiment_id, run_name="of no study")
        client.set_terminated(other.info.run_id)
        runs = {run.info.run_name: run for run in client.search_runs(["1"]) if run.info.run_id != other.info.run_id}
        yield Shown(folder, address, printed["then open"].replace("http://127.0.0.1:5000", address), runs)
    finally:
        server.terminate()
        server.wait(timeout=30)


def text(browser: WebDriver) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def test_the_printed_page_lists_the_studys_runs_the_best_first_beside_their_charts(
    browser: WebDriver, shown: Shown
) -> None:
    browser.set_window_size(1600, 1000)
    browser.get(shown.page)
    until(browser, lambda b: all(name in text(b) for name in (*NAMES, ONE)))
    until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, ".js-plotly-plot"))
    lines = text(browser).splitlines()
    assert "of no study" not in lines
    assert "Sort: best/val/loss" in lines
    charts = [line for line in lines if line in ("losses", "val/loss", "train/loss") or line.startswith("losses (")]
    assert charts[0].startswith("losses"), "the losses come before other charts"
    assert {"val/loss", "train/loss"} <= set(charts)
    assert "5 matching runs" in lines
    listed = [line for line in lines[: lines.index("5 matching runs")] if line in NAMES]
    losses = {name: shown.runs[name].data.metrics["best/val/loss"] for name in NAMES}
    assert listed == sorted(NAMES, key=losses.__getitem__)
    assert len(set(losses.values())) == len(NAMES)


def test_the_table_has_the_objective_at_the_best_epoch_and_the_searched_keys(browser: WebDriver, shown: Shown) -> None:
    browser.set_window_size(1900, 1000)
    browser.get(shown.page.replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    values = sorted(run.data.metrics["best/val/loss"] for run in shown.runs.values())
    until(browser, lambda b: text(b).count("0.") >= len(values) and "Metrics" in text(b))
    lines = text(browser).splitlines()
    assert "best/val/loss" in lines[lines.index("Metrics") :]
    assert {"optimizer.name", "clip", "adam", "rmsprop"} <= set(lines[lines.index("Parameters") :])
    assert [float(line) for line in lines if re.fullmatch(r"\d\.\d{6,}", line)] == values


def test_the_studys_page_says_what_it_is_and_leads_to_the_report(browser: WebDriver, shown: Shown) -> None:
    browser.set_window_size(1600, 1000)
    browser.get(f"{shown.address}/#/experiments/1/runs/{shown.run(ONE)}")
    more = "//button[normalize-space()='Show more']"
    until(browser, lambda b: b.find_elements(By.XPATH, more))
    click(browser, more)
    until(browser, lambda b: "The best trial again:" in text(b))
    page = text(browser)
    assert NOTES in page, "as it was typed, and no Markdown"
    best = min(NAMES, key=lambda name: shown.runs[name].data.metrics["best/val/loss"])
    assert f"best: trial {best[1]}, " in page
    assert re.search(r"python train\.py -m .*optimizer=adam,rmsprop clip=0\.5,1", page)
    assert "optimizer: choice(adam, rmsprop)" in page
    assert str(shown.folder / "sweeps" / ONE / "report.html") in page
    link = browser.find_element(By.LINK_TEXT, "report.html").get_attribute("href")
    browser.get(link)
    frame = until(browser, lambda b: b.find_elements(By.TAG_NAME, "iframe"))[0]
    browser.switch_to.frame(frame)
    until(browser, lambda b: b.find_elements(By.ID, "trials"))
    assert NOTES in text(browser)
    assert "desk: fx" in text(browser)
    browser.switch_to.default_content()


def test_a_runs_page_says_its_command_and_result(browser: WebDriver, shown: Shown) -> None:
    name = "#2 rmsprop clip 0.5"
    browser.get(f"{shown.address}/#/experiments/1/runs/{shown.run(name)}?workflowType=machine_learning")
    until(browser, lambda b: "Description" in text(b) and "Datasets" in text(b))
    if browser.find_elements(By.XPATH, more := "//button[normalize-space()='Show more']"):  # it is a long one
        click(browser, more)
    until(browser, lambda b: "best epoch" in text(b))
    assert name in text(browser)
    assert f"{shown.runs[name].data.metrics['best/val/loss']:.6g} val/loss" in text(browser)
    assert "article (" in text(browser), "its data"
    assert re.search(r"python train\.py .*optimizer=rmsprop clip=0\.5", text(browser))

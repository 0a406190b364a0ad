"""A browser opens the report from the file system, and the MLflow UI: what is promised to be seen is seen."""

import base64
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait
from studies import HOSTILE, Away, made_study, made_trial

from tbptt.article.claims import read_curves
from tbptt.article.page import write_verdict
from tbptt.reports import curve_data, thinning
from tbptt.reports.page import write_report

# A machine without a browser can still run the other tests; CI installs one, and fails without.
pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="no chromium and chromedriver here",
)

DATABASE = "sqlite:///mlflow.db"
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


def installed(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, f"{names[0]} is not installed; these tests need a browser and its driver (Debian: chromium-driver)"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = installed("chromium", "chromium-browser", "google-chrome")
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(installed("chromedriver")))
    driver.set_window_size(1200, 900)
    yield driver
    driver.quit()


def until(browser: WebDriver, found: Callable[[WebDriver], Any], seconds: float = 30) -> Any:
    return WebDriverWait(browser, seconds, 0.1).until(found)


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of trials with several seeds, two objectives, failures, and names that are made to break out of the page."""
    rng, trials = random.Random(0), []
    for i in range(90):
        point = {"clip": rng.uniform(0.1, 10), "schedule.chunks": rng.choice(["[100, 50, 10, 2, 1]", "[10]"])}
        point[HOSTILE] = rng.choice([HOSTILE, "b"])
        curve = [3.0 * rng.random() + 1.0 / (1 + e) for e in range(6)]
        state = "COMPLETE" if i % 3 else "PRUNED" if i % 2 else "FAIL"
        values = [min(curve), 10 * rng.random()] if state == "COMPLETE" else []
        attrs = {"reason": HOSTILE} if state == "FAIL" else {}
        trials.append(made_trial(state, values, point, curve, chunks=[100, 100, 50, 50, 10, 1], **attrs))
    trials.append(made_trial("RUNNING", params=trials[0].params, curve=[2.0, 1.0]))
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = made_study(trials, ["val/loss", "time/epoch_seconds"], HOSTILE.replace("/", "|"))
        written = write_report(study).absolute()
    return Path(shutil.copyfile(written, folder / "report.html"))


def test_a_verdict_draws_its_figures_and_loads_nothing(
    browser: WebDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    browser.get_log("browser")
    kept = read_curves(ROOT / "docs" / "results" / "article.csv")
    opened(browser, write_verdict(kept, tmp_path, HOSTILE).absolute())
    plots = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(p => p.data.filter(t => t.mode == 'lines').length)"
    )
    assert plots == [11, 20, 20, 20, 20], "a line a seed and loss, three losses, and the mean in both panels"
    assert [row.text.split()[0] for row in browser.find_elements(By.CSS_SELECTOR, "#claims tbody tr")] == [
        f"C{i}" for i in range(1, 8)
    ]
    box = (
        "const box = document.getElementById('verdicts');"
        "return box.scrollWidth <= box.clientWidth && box.scrollHeight <= box.clientHeight"
    )
    assert browser.execute_script(box), "all verdicts are seen without scrolling their table"
    assert browser.execute_script("return window.__pwned") is None
    assert browser.get_log("browser") == []


@pytest.fixture
def page(browser: WebDriver, report: Path) -> WebDriver:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get_log("browser")
    return opened(browser, report)


def opened(browser: WebDriver, report: Path) -> WebDriver:
    """The report, once all of its plots are drawn."""
    browser.get(report.as_uri())
    until(browser, lambda b: not b.find_elements(By.CSS_SELECTOR, ".plot:not(.js-plotly-plot)"))
    return browser


def shown_numbers(page: WebDriver) -> list[int]:
    return [int(cell.text) for cell in page.find_elements(By.CSS_SELECTOR, "#trials td:first-child")]


def highlighted(page: WebDriver) -> Any:
    """Name, epochs and losses of the curve on top."""
    return page.execute_script(
        "const top = curves().data.find(trace => trace.meta.highlight && !trace.meta.band);"
        "return [top.name, list(top.x), list(top.y).map(y => +y.toPrecision(4))]"
    )


def test_every_plot_is_drawn_and_nothing_goes_wrong(page: WebDriver) -> None:
    plots = page.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")
    assert len(plots) == 1 + 1 + 2 * (1 + 1 + 3 + 1) + 1 + 1
    marks = "path, .points path, .bars path"
    empty = "return [...document.querySelectorAll('.js-plotly-plot')].filter(plot => !plot.querySelector(arguments[0]))"
    assert page.execute_script(empty, f".plot-container .trace :is({marks}), .hm image") == []
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_is_fetched(page: WebDriver) -> None:
    names = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []


def test_hostile_names_are_text(page: WebDriver) -> None:
    assert page.execute_script("return window.__pwned") is None
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert page.find_element(By.TAG_NAME, "h1").text == HOSTILE.replace("/", "|")
    assert HOSTILE in page.find_element(By.ID, "failures").text
    labels = page.execute_script("return [...document.querySelectorAll('.plot text')].map(text => text.textContent)")
    assert any("<script>" in label for label in labels)


def test_headings_sort_numbers_as_numbers_and_back(page: WebDriver) -> None:
    def column(index: int) -> list[str]:
        cells = page.find_elements(By.CSS_SELECTOR, f"#trials td:nth-child({index + 1})")
        return [text for cell in cells if (text := cell.get_property("textContent"))]

    heads = page.find_elements(By.CSS_SELECTOR, "#trials th button")
    clip = [head.get_property("textContent") for head in heads].index("clip")
    for order in (1, -1):
        page.execute_script("arguments[0].click()", heads[clip])
        values = [order * float(text) for text in column(clip)]
        assert values == sorted(values)
    page.execute_script("arguments[0].click()", heads[0])
    assert [int(text) for text in column(0)] == list(range(91))
    page.execute_script("arguments[0].click()", heads[2])
    losses = page.find_elements(By.CSS_SELECTOR, "#trials td:nth-child(3)")
    assert losses[0].get_property("textContent") != ""  # what has none comes last
    assert losses[-1].get_property("textContent") == ""


def test_best_curve_is_on_top_until_another_trial_is_clicked(page: WebDriver, report: Path) -> None:
    best = shown_numbers(page)[0]
    assert highlighted(page)[0] == f"trial {best}, the best"
    shared = page.execute_script("return curves().data.find(trace => trace.meta.shared).customdata[0]")
    for number in (
        best + 1 if best % 3 == 1 else best - 1,
        shared,
    ):  # a curve of its own, and one of many in a trace
        button = page.find_element(By.CSS_SELECTOR, f"#trials button[data-trial='{number}']")
        page.execute_script("arguments[0].click()", button)
        name, epochs, losses = highlighted(page)
        assert name == f"trial {number}"
        assert epochs == [1, 2, 3, 4, 5, 6]
        assert losses == [float(f"{y:.4g}") for y in curve_of(page, number)]
        assert page.find_element(By.ID, f"t{number}").get_attribute("class").endswith("picked")
        assert page.find_element(By.ID, "picked").text.startswith(f"trial {number} · state")
    page.execute_script("document.querySelector('#picked button').click()")
    assert highlighted(page)[0] == f"trial {best}, the best"


def curve_of(page: WebDriver, number: int) -> list[float]:
    """What the page has of a trial, as it was written."""
    return page.execute_script(
        "return drawn.curves.trials.find(trial => trial.number === arguments[0]).runs[0].curves['val/loss']", number
    )


def test_a_dot_names_its_trial_and_its_point_and_can_be_clicked(page: WebDriver) -> None:
    number, text = page.execute_script(
        "const dots = plots().find(plot => plot.data[0].name === 'a complete trial').data[0];"
        "return [dots.customdata[4], dots.text[4]]"
    )
    assert text.startswith(f"<b>trial {number}</b><br>clip = ")
    assert "&lt;script&gt;" in text
    page.execute_script(
        "const plot = plots().find(plot => plot.data[0].name === 'a complete trial');"
        "plot.emit('plotly_click', { points: [{ data: plot.data[0], customdata: arguments[0] }] })",
        number,
    )
    assert highlighted(page)[0] == f"trial {number}"


@pytest.mark.parametrize(
    ("number", "has_row", "has_curve"), [(3, True, True), (12, False, True), (38, False, False), (99, False, False)]
)
def test_a_trial_without_a_row_says_where_it_is(
    browser: WebDriver, large: Path, number: int, has_row: bool, has_curve: bool
) -> None:
    browser.get_log("browser")
    page = opened(browser, large)
    if number < 40:
        click(page, f"//*[@id='front']//button[@data-trial='{number}']")
    else:  # which nothing on the page names
        page.execute_script(f"pick({number})")
    bar = page.find_element(By.ID, "picked")
    assert bar.is_displayed()
    assert bar.text.startswith(f"trial {number} · ")
    assert ("its row is in trials.csv" in bar.text) != has_row
    links = [link.text for link in bar.find_elements(By.TAG_NAME, "a")]
    assert links == ["its curve"] * has_curve + ["its row"] * has_row
    assert len(page.find_elements(By.CSS_SELECTOR, "#trials .picked")) == has_row
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of more trials than its table and its curves have room for, all of them on the Pareto front."""
    folder = tmp_path_factory.mktemp("large")
    trials = [made_trial(values=[1.0 + i, 50.0 - i], params={"clip": 1.0 + i}) for i in range(40)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(thinning, "MOST_ROWS", 5)
        patch.setattr(curve_data, "best_and_even", lambda ranked: thinning.best_and_even(ranked, 10))
        return write_report(made_study(trials, ["val/loss", "time/epoch_seconds"])).absolute()


def test_a_phone_scrolls_down_only(page: WebDriver, report: Path) -> None:
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    opened(page, report)
    assert page.execute_script("return document.documentElement.scrollWidth") == 390
    wide = "return plots().filter(plot => plot.clientWidth > innerWidth).map(plot => plot.data.length)"
    assert page.execute_script(wide) == []
    clipped = (
        "return plots().flatMap(plot => [...plot.querySelectorAll('.xtick text, .ytick text')].filter(text => {"
        "const a = text.getBoundingClientRect(), b = plot.getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1; }).map(t => t.textContent))"
    )
    assert page.execute_script(clipped) == []


def test_on_paper_plots_are_as_wide_as_the_page(page: WebDriver) -> None:
    page.execute_script("addEventListener('beforeprint', () => window.printed = plots().map(p => p._fullLayout.width))")
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert 0 < max(page.execute_script("return window.printed")) <= 700
    until(page, lambda p: p.execute_script("return curves()._fullLayout.width") > 1000)


# --- the MLflow UI --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, list[str]]:
    """A store with a parent and six children: its folder, the experiment, the parent's id, the children's."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("tbptt", artifact_location=(folder / "artifacts").as_uri())
    parent = client.create_run(experiment, run_name="a study").info.run_id
    children = []
    for i in range(6):
        tags = {"mlflow.parentRunId": parent, "trial.number": str(i)}
        run = client.create_run(experiment, run_name=f"clip={i}", tags=tags).info.run_id
        curve = [Metric(name, 2 - 0.1 * e + i, 0, e) for name in ("train/loss", "val/loss") for e in range(5)]
        client.log_batch(run, curve, [Param("clip", str(i))])
        client.set_terminated(run)
        children.append(run)
    client.set_terminated(parent)
    return folder, experiment, parent, children


@pytest.fixture(scope="module")
def ui(runs: tuple[Path, str, str, list[str]]) -> Iterator[str]:
    """The address of `mlflow ui` on that store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", DATABASE, "--host", "127.0.0.1"]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (runs[0] / "server.log").open("wb") as out:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"], cwd=runs[0], env=env, stdout=out, stderr=out
        )
    try:
        address = f"http://127.0.0.1:{port}"
        await_answer(f"{address}/health", server, runs[0] / "server.log")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def await_answer(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_parent_shows_its_children(browser: WebDriver, ui: str, runs: tuple[Path, str, str, list[str]]) -> None:
    _, experiment, parent, _ = runs
    browser.get(f"{ui}/#/experiments/{experiment}/runs/{parent}")
    names = {f"clip={i}" for i in range(6)}
    until(browser, lambda b: all(name in b.find_element(By.TAG_NAME, "body").text for name in ("Child runs", *names)))


def test_table_of_runs_groups_the_children_under_the_parent(
    browser: WebDriver, ui: str, runs: tuple[Path, str, str, list[str]]
) -> None:
    browser.set_window_size(1600, 1000)
    browser.get(f"{ui}/#/experiments/{runs[1]}/runs")
    row = "//*[@role='row'][.//*[text()='a study']]"
    until(browser, lambda b: b.find_elements(By.XPATH, f"{row}//button"))
    assert "clip=5" not in browser.find_element(By.TAG_NAME, "body").text
    until(browser, lambda b: click(b, f"{row}//button"))
    names = [f"clip={i}" for i in range(6)]
    until(browser, lambda b: all(b.find_elements(By.XPATH, f"//*[@role='row']//*[text()='{name}']") for name in names))


def click(browser: WebDriver, path: str) -> bool:
    browser.execute_script("arguments[0].click()", browser.find_element(By.XPATH, path))
    return True


def test_a_childs_loss_curves_are_drawn(browser: WebDriver, ui: str, runs: tuple[Path, str, str, list[str]]) -> None:
    browser.get(f"{ui}/#/experiments/{runs[1]}/runs/{runs[3][0]}/model-metrics")
    drawn = (
        "return [...document.querySelectorAll('.js-plotly-plot')]"
        ".filter(plot => plot.querySelector('.scatterlayer .trace path.js-line')).length"
    )
    until(browser, lambda b: b.execute_script(drawn) == 2)
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "clip=0 (train/loss)" in text
    assert "clip=0 (val/loss)" in text


def test_the_reports_link_opens_the_run(
    browser: WebDriver, ui: str, runs: tuple[Path, str, str, list[str]], here: Path
) -> None:
    class Store:
        uri, experiment, is_local, client = ui, runs[1], False, Away()

        def artifact(self, run_id: str, path: str, folder: Path | None = None) -> None:
            return None

        artifact_here = artifact

    study = made_study([made_trial(values=[1.0], run_ids=[runs[3][3]])], parent_run=runs[2])
    opened(browser, write_report(study, Store()).absolute())
    browser.get(browser.find_element(By.CSS_SELECTOR, "#trials a").get_attribute("href"))
    until(browser, lambda b: "clip=3" in b.find_element(By.TAG_NAME, "body").text)

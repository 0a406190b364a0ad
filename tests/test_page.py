"""The pages as a person meets them: in the dark, by keyboard and screen reader, on paper, with a command to copy."""

import base64
import random
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT
from pages import Artifacts, page_of
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from studies import made_study, made_trial
from test_browser import browser, opened, until
from test_browser import pytestmark as skipped

from tbptt.article.claims import read_curves
from tbptt.article.page import write_verdict
from tbptt.reports.page import write_report

__all__ = ["browser"]  # a fixture
pytestmark = skipped

AGAIN = "python train.py -m 'clip=interval(0.1, 10)' study.name=a-study"
SPEED = "time/timesteps_per_second"


def written(folder: Path, n: int, objectives: tuple[str, ...] = ("val/loss",), seeds: int = 3) -> Path:
    """The report of ``n`` trials that were begun by a command; every third is pruned, two failed."""
    rng, trials = random.Random(0), []
    for i in range(n):
        point = {"clip": rng.uniform(0.1, 10), "schedule.chunks": rng.choice(["[100, 50, 10, 2, 1]", "[10]"])}
        by_seed = [0.2 + 0.1 * abs(point["clip"] - 4) + 0.05 * rng.random() for _ in range(seeds)]
        state = "FAIL" if i in (4, 5) else "PRUNED" if i % 3 == 2 else "COMPLETE"
        values = [sum(by_seed) / seeds, 1e4 * rng.random()][: len(objectives)]
        of = {"params": point, "curve": [1.5 / (1 + e) + by_seed[0] for e in range(12)]}
        more = {"by_seed": by_seed} if state == "COMPLETE" else {"reason": "out of memory"} if state == "FAIL" else {}
        trials.append(made_trial(state, values if state == "COMPLETE" else [], **of, **more))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = made_study(trials, objectives, commands=[AGAIN], tracking_uri="sqlite:///mlruns/mlflow.db")
        return write_report(study, Artifacts(folder, ("ab" * 16,))).absolute()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("page"), 30)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict")
    return write_verdict(read_curves(ROOT / "docs" / "results" / "article.csv"), folder, "ours").absolute()


@pytest.fixture(params=["light", "dark"])
def scheme(browser: WebDriver, request: pytest.FixtureRequest) -> Iterator[str]:
    set_scheme(browser, request.param)
    yield request.param
    set_scheme(browser, "light")


def set_scheme(browser: WebDriver, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


# --- light and dark -------------------------------------------------------------------------------------------------

# The smallest contrast of any text of the page and of its figures with what lies behind it, and that text.
LEAST_CONTRAST = """
const rgb = text => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
const part = level => (level /= 255) <= .04045 ? level / 12.92 : ((level + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
function behind(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > .5) return colour;
  }
  return [255, 255, 255];
}
let least = [99, ""];
for (const e of document.querySelectorAll("main *")) {
  const own = [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !e.getClientRects().length || e.closest("[hidden], .hm, .bartext, .hoverlayer")) continue;
  const style = getComputedStyle(e), drawn = e instanceof SVGElement;
  const a = light(rgb(drawn ? style.fill : style.color)), b = light(behind(e));
  const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (contrast < least[0]) least = [contrast, `${e.className?.baseVal ?? e.className} ${e.textContent.slice(0, 40)}`];
}
return [...least, getComputedStyle(document.body).backgroundColor];
"""


@pytest.mark.parametrize("which", ["report", "verdict"])
def test_every_text_can_be_read_in_light_and_dark(
    browser: WebDriver, scheme: str, which: str, request: pytest.FixtureRequest
) -> None:
    opened(browser, request.getfixturevalue(which))
    if which == "report":
        browser.execute_script("pick(0)")
    least, text, page = browser.execute_script(LEAST_CONTRAST)
    assert least >= 4.5, text
    assert (page == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_change_of_the_systems_setting_draws_the_figures_anew(browser: WebDriver, report: Path) -> None:
    opened(browser, report)
    colour = "return getComputedStyle(document.querySelector('#section-history .xtick text')).fill"
    light = browser.execute_script(colour)
    set_scheme(browser, "dark")
    try:
        until(browser, lambda b: b.execute_script(colour) != light)
    finally:
        set_scheme(browser, "light")
    until(browser, lambda b: b.execute_script(colour) == light)


# --- keyboard and screen reader -------------------------------------------------------------------------------------

OPENED = "for (const closed of document.querySelectorAll('details')) closed.open = true"
AXE = """
const done = arguments[0];
axe.run({ resultTypes: ["violations"] }).then(({ violations }) => done(violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(node => node.html.slice(0, 200)).join(" and ")}`)));
"""


@pytest.mark.parametrize("which", ["report", "verdict"])
def test_axe_finds_nothing_serious(browser: WebDriver, scheme: str, which: str, request: pytest.FixtureRequest) -> None:
    opened(browser, request.getfixturevalue(which))
    if which == "report":
        browser.execute_script(f"pick(0); {OPENED}")
    browser.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    assert browser.execute_async_script(AXE) == []


def test_headings_landmarks_and_names_lead_through_the_page(browser: WebDriver, report: Path) -> None:
    opened(browser, report)
    browser.execute_script(OPENED)
    levels = [int(h.tag_name[1]) for h in browser.find_elements(By.CSS_SELECTOR, "h1, h2, h3, h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(browser.find_elements(By.CSS_SELECTOR, "main nav")) == 1
    targets = [link.get_attribute("href").split("#")[1] for link in browser.find_elements(By.CSS_SELECTOR, "nav a")]
    assert len(targets) > 5
    assert [target for target in targets if not browser.find_elements(By.ID, target)] == []
    images = browser.find_elements(By.CSS_SELECTOR, ".plot [role=img]")
    assert len(images) == len(browser.find_elements(By.CSS_SELECTOR, ".plot"))
    assert "History: val/loss by trial: a complete trial, the best so far" in [i.accessible_name for i in images]
    tables = browser.find_elements(By.TAG_NAME, "table")
    assert all(table.accessible_name for table in tables)
    assert browser.find_elements(By.CSS_SELECTOR, "th:not([scope])") == []


def test_focus_is_seen_wherever_the_tab_key_leads(browser: WebDriver, report: Path, scheme: str) -> None:
    opened(browser, report)
    browser.execute_script(OPENED)
    unseen = browser.execute_script("""
        const reached = "main :is(a, button, summary, [tabindex='0'], select, input)";
        return [...document.querySelectorAll(reached)].filter(e => {
          if (!e.getClientRects().length || e.closest(".modebar")) return false;
          e.focus({ focusVisible: true });
          return document.activeElement !== e || getComputedStyle(e).outlineStyle === "none";
        }).map(e => e.outerHTML.slice(0, 100))""")
    assert unseen == []
    browser.execute_script("pick(0)")
    bar = browser.find_element(By.ID, "picked")
    assert bar.find_element(By.XPATH, "ancestor::*[@role='status']").is_displayed()


# --- commands -------------------------------------------------------------------------------------------------------


def test_each_command_is_shown_once_and_copied_by_a_button(browser: WebDriver, report: Path) -> None:
    opened(browser, report)
    browser.execute_script(OPENED)
    commands = [code.text for code in browser.find_elements(By.CSS_SELECTOR, "pre code")]
    assert commands[0] == AGAIN
    assert "python report.py a-study" in commands
    assert len(commands) == len(set(commands)) == len(browser.find_elements(By.CSS_SELECTOR, "button.copy"))
    text = browser.find_element(By.TAG_NAME, "main").text
    assert text.count("mlflow ui --backend-store-uri") == text.count("--config-name best") == 1
    # What is copied can be pasted, with and without a clipboard that scripts may write to.
    for clipboard in ("", "Object.defineProperty(navigator, 'clipboard', { value: undefined });"):
        browser.execute_script(
            clipboard + "window.heard = ''; addEventListener('copy', () => { heard = getSelection().toString(); });"
            "if (navigator.clipboard) navigator.clipboard.writeText = async text => { heard = text; };"
        )
        button = browser.find_elements(By.CSS_SELECTOR, "button.copy")[0]
        button.click()
        until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "button.copy")[0].text == "copied")
        assert browser.execute_script("return heard") == AGAIN
        assert browser.find_element(By.ID, "said").get_property("textContent") == "copied"
        until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "button.copy")[0].text == "copy")


# --- what is seen first, what is drawn, on paper --------------------------------------------------------------------


def test_the_answer_is_seen_without_scrolling(browser: WebDriver, report: Path) -> None:
    opened(browser, report)
    size = browser.execute_script("return [innerWidth, innerHeight]")
    assert size[0] <= 1200
    assert size[1] <= 900
    for seen in ("header p", "pre code", "nav", "#answer .value", "#answer .facts"):
        bottom = browser.execute_script(
            "return document.querySelector(arguments[0]).getBoundingClientRect().bottom", seen
        )
        assert 0 < bottom <= size[1], seen
    order = [e.text for e in browser.find_elements(By.TAG_NAME, "h2")]
    assert order[0] == "Loss curves"


def test_a_browser_that_cannot_unpack_says_so_in_one_line(browser: WebDriver, report: Path) -> None:
    script = {"source": "delete window.DecompressionStream"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    browser.get_log("browser")
    try:
        browser.get(report.as_uri())
        warnings = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".warning")]
        assert len(warnings) == 1
        assert "DecompressionStream is missing" in warnings[0]
        assert "trials.csv" in warnings[0]
        assert browser.find_elements(By.CSS_SELECTOR, "#trials tbody tr")
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_plot_that_is_far_is_drawn_when_one_comes_near_and_all_are_before_printing(
    browser: WebDriver, report: Path
) -> None:
    never = {"source": "window.requestIdleCallback = () => {};"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", never)
    drawn = "return plots().map(plot => plot.classList.contains('js-plotly-plot'))"
    try:
        browser.get(report.as_uri())
        until(browser, lambda b: b.execute_script(drawn)[0])
        assert not browser.execute_script(drawn)[-1]
        browser.execute_script("plots().at(-1).scrollIntoView()")
        until(browser, lambda b: b.execute_script(drawn)[-1])
        assert not all(browser.execute_script(drawn))
        printed(browser)
        assert all(browser.execute_script(drawn))
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def printed(browser: WebDriver) -> bytes:
    return base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])


def test_paper_is_light_and_no_figure_is_higher_than_a_third_of_it(browser: WebDriver, report: Path) -> None:
    set_scheme(browser, "dark")
    try:
        opened(browser, report)
        browser.execute_script(
            "addEventListener('beforeprint', () => { window.paper = [getComputedStyle(document.body).backgroundColor,"
            "getComputedStyle(document.querySelector('#section-history .xtick text')).fill,"
            "Math.max(...plots().map(plot => plot._fullLayout.height)), document.querySelector('#searched').open]; })"
        )
        assert printed(browser).startswith(b"%PDF")
        page, text, height, is_open = browser.execute_script("return window.paper")
        assert page == "rgb(255, 255, 255)"
        assert text == "rgb(51, 65, 85)"
        assert height <= 300
        assert is_open
        dark = "return getComputedStyle(document.querySelector('#section-history .xtick text')).fill"
        until(browser, lambda b: b.execute_script(dark) == "rgb(203, 213, 225)")
        assert not browser.execute_script("return document.querySelector('#searched').open")
    finally:
        set_scheme(browser, "light")


def test_a_report_of_a_hundred_trials_is_under_four_megabytes(tmp_path: Path) -> None:
    path = written(tmp_path, 100, ("val/loss", SPEED))
    assert path.stat().st_size < 4e6
    assert page_of(path).text.count(AGAIN) >= 1

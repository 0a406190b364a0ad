"""The pages as a person meets them: in the dark, by keyboard and screen reader, on paper, with a command to copy."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from pages import Artifacts
from selenium.webdriver.remote.webdriver import WebDriver
from studies import made_study, made_trial
from test_browser import browser, opened
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
  if (contrast < least[0]) least = [contrast, `${e.tagName} ${e.className?.baseVal ?? e.className} ${e.textContent.slice(0, 40)}`];
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

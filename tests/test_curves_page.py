"""The curves on the report's page, in a browser: what is drawn is what the runs logged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from studies import HOSTILE, made_study, made_trial
from test_browser import browser, opened, pytestmark  # noqa: F401

from tbptt.reports import evidence
from tbptt.reports.page import render
from tbptt.runs.curves import Found

EPOCHS, SEEDS = 6, (3, 4, 5)
KEY = "own." + HOSTILE
POINTS: list[dict[str, Any]] = [{KEY: HOSTILE if i % 2 else "b", "clip": 1.0 + i} for i in range(12)]


def values() -> dict[tuple[int, int, str], np.ndarray]:
    """What each run of each trial logged. The last run of trial 2 ended after three epochs."""
    rng = np.random.default_rng(0)
    made = {
        (trial, seed, metric): (shift + trial / 4 + 1 / np.arange(1, EPOCHS + 1)) * rng.uniform(0.8, 1.2, EPOCHS)
        for trial in range(12)
        for seed in SEEDS
        for metric, shift in (("val/loss", 1.0), ("train/loss", 1.5), ("grad/norm_max", 7.0))
    }
    return {key: v[:3] if key[:2] == (2, 5) else v for key, v in made.items()}


VALUES = values()
CHUNKS = (100, 100, 100, 10, 10, 1)


def found() -> Found:
    logged = {**VALUES, **{(t, s, "schedule/chunks"): np.array(CHUNKS) for t in range(12) for s in SEEDS}}
    points = pd.concat(
        pd.DataFrame({"run": f"{t} {s}", "metric": metric, "step": np.arange(len(its)), "value": its})
        for (t, s, metric), its in logged.items()
    )
    points = points.assign(run=points["run"].astype("category"), metric=points["metric"].astype("category"))
    return Found(points, {f"{t} {s}": {"seed": str(s)} for t in range(12) for s in SEEDS}, [])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves_page")
    trials = [
        made_trial(
            "COMPLETE" if i < 10 else "PRUNED",
            values=[1.0 + i],
            params=point,
            run_ids=[f"{i} {seed}" for seed in SEEDS],
            by_seed=[1.0 + i] * 3,
        )
        for i, point in enumerate(POINTS)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = made_study(trials)
        read = study.read()
        path = folder / "page.html"
        path.write_text(render(study, read, None, evidence.tried(study, read, None), found()), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: WebDriver, written: Path) -> Iterator[WebDriver]:  # noqa: F811
    browser.get_log("browser")
    yield opened(browser, written)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return window.__pwned") is None


def traces(page: WebDriver, wanted: str) -> list[dict[str, Any]]:
    """The traces of the figure for which a condition on ``t`` holds."""
    return page.execute_script(
        f"return curvesPlot().data.filter(t => {wanted})"
        ".map(t => ({ x: [...t.x], y: [...t.y], name: t.name, meta: t.meta, text: t.meta.label, colour: t.line?.color,"
        " dash: t.line?.dash, more: t.customdata, says: t.hovertext }))"
    )


def choose(page: WebDriver, control: str, value: str) -> None:
    page.execute_script(
        "const select = document.getElementById(`curves-${arguments[0]}`); select.value = arguments[1];"
        "select.dispatchEvent(new Event('change'))",
        control,
        value,
    )


def said(page: WebDriver) -> str:
    return page.find_element(By.ID, "curves-said").text


def runs_of(trials: list[int], metric: str = "val/loss") -> np.ndarray:
    """(runs, epochs), NaN where a run had ended."""
    made = [VALUES[t, s, metric] for t in trials for s in SEEDS]
    return np.array([np.pad(v, (0, EPOCHS - len(v)), constant_values=np.nan) for v in made])


def upper_and_lower(band: dict[str, Any], start: int = 0) -> tuple[list[float], list[float]]:
    y = band["y"][start : start + 2 * EPOCHS]
    return y[:EPOCHS], y[EPOCHS:][::-1]


def test_a_trial_is_the_mean_of_its_runs_with_a_band_around_all_of_them(page: WebDriver) -> None:
    for trial in (0, 2, 11):
        (line,) = traces(page, f"t.meta.trial === {trial} && !t.meta.highlight")
        assert line["x"] == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(line["y"], np.nanmean(runs_of([trial]), axis=0), rtol=1e-4)
        low_high = np.array([row[:2] for row in line["more"]])
        np.testing.assert_allclose(low_high[:, 0], np.nanmin(runs_of([trial]), axis=0), rtol=1e-4)
        np.testing.assert_allclose(low_high[:, 1], np.nanmax(runs_of([trial]), axis=0), rtol=1e-4)
        assert [row[2] for row in line["more"]] == ([3, 3, 3, 2, 2, 2] if trial == 2 else [3] * 6)
    (best,) = traces(page, "t.meta.highlight && !t.meta.band")
    assert (best["name"], best["meta"]["trial"]) == ("trial 0, the best", 0)
    (band,) = traces(page, "t.meta.highlight && t.meta.band")
    high, low = upper_and_lower(band)
    np.testing.assert_allclose(high, runs_of([0]).max(axis=0), rtol=1e-4)
    np.testing.assert_allclose(low, runs_of([0]).min(axis=0), rtol=1e-4)
    assert said(page).startswith("12 trials with 36 runs. A line is the mean over a trial's runs, its band goes from")
    assert said(page).endswith(
        "On top is trial 0, the best: val/loss is judged at each run's best epoch, so its curve need not end lowest."
    )


def test_a_trial_that_is_clicked_shows_each_seed_and_close_shows_the_best_again(page: WebDriver) -> None:
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, "#trials [data-trial='7']"))
    seeds = traces(page, "t.meta.run")
    assert [trace["name"] for trace in seeds] == ["seed 3", "seed 4", "seed 5"]
    for trace, seed in zip(seeds, SEEDS, strict=True):
        np.testing.assert_allclose(trace["y"], VALUES[7, seed, "val/loss"], rtol=1e-4)
        assert trace["text"].endswith(f"<br>seed {seed}")
    (top,) = traces(page, "t.meta.highlight && !t.meta.band")
    assert (top["name"], top["colour"]) == ("trial 7", "#d55e00")
    assert page.execute_script("return curvesPlot().data.at(-2).name") == "trial 7"  # above all but the mean's line
    assert said(page).endswith("On top is trial 7 with its 3 runs.")
    page.find_element(By.CSS_SELECTOR, "#picked button").click()
    assert traces(page, "t.meta.run") == []
    assert traces(page, "t.meta.highlight && !t.meta.band")[0]["name"] == "trial 0, the best"
    page.execute_script(
        "curvesPlot().emit('plotly_click', { points: [{ data: curvesPlot().data.find(t => t.meta.trial === 3) }] })"
    )
    assert page.find_element(By.ID, "picked").text.startswith("trial 3 · ")
    assert len(traces(page, "t.meta.run")) == 3


def test_lines_for_each_value_of_a_key_are_means_over_the_runs_of_complete_trials(page: WebDriver) -> None:
    choose(page, "lines", KEY)
    lines = {trace["meta"]["group"]: trace for trace in traces(page, "t.meta.group && !t.meta.band")}
    bands = {trace["meta"]["group"]: trace for trace in traces(page, "t.meta.group && t.meta.band")}
    assert len(lines) == len(bands) == 2
    for name, first in (("b", 0), (next(name for name in lines if name != "b"), 1)):
        runs = runs_of(list(range(first, 10, 2)))
        np.testing.assert_allclose(lines[name]["y"], np.nanmean(runs, axis=0), rtol=1e-4)
        high, low = upper_and_lower(bands[name])
        np.testing.assert_allclose(high, np.nanquantile(runs, 0.75, axis=0), rtol=1e-4)
        np.testing.assert_allclose(low, np.nanquantile(runs, 0.25, axis=0), rtol=1e-4)
        assert lines[name]["text"].endswith("<br>5 trials, 15 runs")
    assert "10 trials and 30 runs in all; the band is the middle half of the runs." in said(page)
    assert not page.find_element(By.ID, "curves-colour").is_enabled()


def test_many_numbers_are_grouped_by_quarters(page: WebDriver) -> None:
    choose(page, "lines", "clip")
    groups = [trace["meta"]["group"] for trace in traces(page, "t.meta.group && !t.meta.band")]
    clips = np.arange(1.0, 11.0)
    ends = np.quantile(clips, [0.25, 0.5, 0.75])
    quarters = [clips[np.searchsorted(ends, clips) == i] for i in range(4)]
    assert groups == [f"{quarter[0]:g} to {quarter[-1]:g}" for quarter in quarters]
    assert said(page).startswith("A line for each quarter of the values of clip")
    choose(page, "lines", "")
    choose(page, "colour", "clip")
    colours = {
        trace["meta"]["trial"]: trace["colour"] for trace in traces(page, "t.meta.trial >= 0 && !t.meta.highlight")
    }
    assert len(set(colours.values())) == 4
    assert colours[0] == colours[1] != colours[9]


def test_another_metric_two_together_and_the_axis(page: WebDriver) -> None:
    texts = [o.text for o in page.find_elements(By.CSS_SELECTOR, "#curves-metric option")]
    assert texts == [
        "held-out, weights frozen",
        "training, online",
        "held-out and online",
        "chunks a sequence",
        "largest norm of a gradient",
    ]
    assert traces(page, "t.name === 'predicting the mean'")[0]["y"] == [1.25, 1.25]
    choose(page, "metric", "grad/norm_max")
    (line,) = traces(page, "t.meta.trial === 4")
    np.testing.assert_allclose(line["y"], runs_of([4], "grad/norm_max").mean(axis=0), rtol=1e-4)
    assert traces(page, "t.name === 'predicting the mean'") == []  # which belongs to losses
    choose(page, "metric", "val/loss+train/loss")
    both = traces(page, "t.meta.trial === 4")
    assert {trace["meta"]["metric"]: trace["dash"] for trace in both} == {"val/loss": "solid", "train/loss": "dot"}
    np.testing.assert_allclose(both[1]["y"], runs_of([4], both[1]["meta"]["metric"]).mean(axis=0), rtol=1e-4)
    for axis in ("log", "linear"):
        choose(page, "axis", axis)
        assert page.execute_script("return curvesPlot()._fullLayout.yaxis.type") == axis


def test_a_diamond_stands_where_the_schedule_moves_on(page: WebDriver) -> None:
    (marks,) = traces(page, "t.meta.marks")
    of = [(x, says) for x, says, trial in zip(marks["x"], marks["says"], marks["more"], strict=True) if trial == 5]
    assert of == [(4, "100 → 10 chunks"), (6, "10 → 1 chunks")]
    means = runs_of([5]).mean(axis=0)
    ys = [y for y, trial in zip(marks["y"], marks["more"], strict=True) if trial == 5]
    np.testing.assert_allclose(ys, means[[3, 5]], rtol=1e-4)


def test_texts_of_the_study_are_texts(page: WebDriver) -> None:
    (line,) = traces(page, "t.meta.trial === 1 && !t.meta.highlight")
    assert line["text"].startswith("<b>trial 1</b><br>own.&lt;script&gt;")
    assert line["text"].endswith("clip = 2")
    assert not any(bad in line["text"] for bad in ("<script", "<img"))
    page.execute_script(
        "const curveNumber = curvesPlot().data.findIndex(t => t.meta.trial === 1);"
        "Plotly.Fx.hover(curvesPlot(), [{ curveNumber, pointNumber: 2 }])"
    )
    hover = page.execute_script("return curvesPlot().querySelector('.hovertext').textContent")
    mean = runs_of([1]).mean(axis=0)[2]
    assert "trial 1own.<script>window" in hover
    assert f"epoch 3: {mean:.3f}, mean of 3 runs from {runs_of([1]).min(axis=0)[2]:.3f} to " in hover  # Plotly's .4g
    for control, value in (("lines", KEY), ("colour", KEY)):
        choose(page, control, value)
        assert page.find_elements(By.CSS_SELECTOR, "#curves img, #curves script") == []
        choose(page, control, "")


def test_controls_are_reached_and_changed_by_keyboard(page: WebDriver) -> None:
    page.execute_script("document.getElementById('curves-metric').focus()")
    page.switch_to.active_element.send_keys("training, o")
    assert page.execute_script("return view.metric") == "train/loss"
    assert traces(page, "t.meta.trial === 4")[0]["meta"]["metric"] == "train/loss"
    ids = []
    for _ in range(4):
        page.switch_to.active_element.send_keys(Keys.TAB)
        ids.append(page.switch_to.active_element.get_attribute("id"))
    assert ids == ["curves-lines", "curves-colour", "curves-axis", "curves-bands"]
    assert traces(page, "t.meta.band") != []
    page.switch_to.active_element.send_keys(Keys.SPACE)
    assert traces(page, "t.meta.band") == []
    controls = page.find_elements(By.CSS_SELECTOR, "#curves select, #curves input")
    assert [c.accessible_name.strip() for c in controls] == ["Metric", "Lines for", "Colour by", "Axis", "bands"]


def test_new_curves_leave_the_view_as_it_is(page: WebDriver) -> None:
    order = [7, 0, 1, 2, 3, 4, 5, 6, 8, 9, 30, 10]
    choose(page, "metric", "train/loss")
    choose(page, "colour", "clip")
    page.execute_script("pick(7)")
    plot = page.find_element(By.CSS_SELECTOR, "#curves .nsewdrag")
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", plot)
    ActionChains(page).move_to_element(plot).click_and_hold().move_by_offset(150, 100).release().perform()
    zoom = "return [curvesPlot()._fullLayout.xaxis.range, curvesPlot()._fullLayout.yaxis.range]"
    whole = page.execute_script("return [curvesPlot().layout.xaxis.autorange, curvesPlot().layout.yaxis.autorange]")
    before = page.execute_script(zoom)
    assert whole == [False, False]
    page.execute_script(
        "const mine = structuredClone(drawn.curves.trials.find(t => t.number === 7)); mine.runs.pop();"
        "mine.runs[0].curves['train/loss'].push(0.5);"
        "const run = { seed: 3, fold: null, curves: { 'train/loss': [9, 8] } };"
        "const other = { number: 30, state: 'running', point: { clip: '3.0' }, runs: [run] };"
        "takeCurves([mine, other], arguments[0])",
        order,
    )
    assert page.execute_script("return [view.metric, view.colour, view.trial]") == ["train/loss", "clip", 7]
    assert page.execute_script(zoom) == before
    assert page.execute_script("return drawn.curves.trials.map(t => t.number)") == order
    (top,) = traces(page, "t.meta.highlight && !t.meta.band")
    assert (top["x"], top["y"][-1]) == ([1, 2, 3, 4, 5, 6, 7], 0.5)
    np.testing.assert_allclose(top["y"][:-1], runs_of([7], "train/loss")[:2].mean(axis=0), rtol=1e-4)
    assert traces(page, "t.meta.trial === 30")[0]["y"] == [9, 8]
    assert traces(page, "t.meta.trial === 11") == []


def test_many_trials_share_a_line_that_names_each(page: WebDriver) -> None:
    page.execute_script(
        "const curve = i => Array.from({ length: 80 }, (_, e) => 1 + i + e);"
        "const runs = i => [{ seed: 3, fold: null, curves: { 'val/loss': curve(i) } }];"
        "const trials = Array.from({ length: 700 }, (_, i) =>"
        " ({ number: 100 + i, state: 'complete', point: { clip: '1.0' }, runs: runs(i) }));"
        "takeCurves(trials, trials.map(t => t.number))"
    )
    (shared,) = traces(page, "t.meta.shared")
    own = traces(page, "t.meta.trial >= 0 && !t.meta.highlight")
    assert [trace["meta"]["trial"] for trace in own] == list(range(129, 99, -1))  # the best one above the others
    assert list(dict.fromkeys(n for n in shared["more"] if n is not None)) == list(range(130, 800))
    assert len(shared["x"]) < 15_000
    its = [(x, y) for x, y, n in zip(shared["x"], shared["y"], shared["more"], strict=True) if n == 500]
    assert all(y == 400 + x for x, y in its)
    assert (its[0][0], its[-1][0]) == (1, 80)
    assert said(page).startswith("700 trials with 700 runs; 30 have a line of their own, the others thin ones.")


def test_the_controls_are_not_printed(page: WebDriver) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not page.find_element(By.ID, "curves-metric").is_displayed()
        assert page.find_element(By.ID, "curves-said").is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

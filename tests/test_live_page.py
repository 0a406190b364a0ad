"""The page of a study that runs, in a browser: it follows the study, and leaves what its reader did as it is."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select
from studies import made_study, made_trial
from test_browser import browser, pytestmark, until  # noqa: F401
from test_live import RUNNING, Runs

from tbptt.cli import watch
from tbptt.compat import trial_id
from tbptt.reports import live as live_page
from tbptt.reports.live import Live
from tbptt.studies.records import TrialRecord

TRIALS = 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A study with three running trials, its page's address, and a look at it now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("live"))
        patch.setattr(live_page, "curves_of", lambda *_: None)
        patch.setattr(live_page, "DEAR_EVERY", 0.0)
        patch.setattr(live_page, "DEAR_SHARE", 0)
        trials = [made_trial(values=[2.0 + i], params={"clip": 1.0 + i % 7}) for i in range(TRIALS)]
        trials += [made_trial("RUNNING", params={"clip": 3.0}, curve=[2.0, 1.9], progress=RUNNING) for _ in range(3)]
        study = made_study(trials, n_trials=TRIALS + 3)
        patch.setattr(study, "living", lambda trials: [t for t in trials if t.state == TrialState.RUNNING])
        live = Live(study, Runs(), "report it again")
        live._try_to_look()
        server, listening = watch.server_of(live, "token"), socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/token/"
        yield SimpleNamespace(study=study, look=live._try_to_look, address=address, server=server, thread=thread)
        server.should_exit = True
        thread.join()


def cells(browser: WebDriver, column: int) -> list[str]:  # noqa: F811
    """The texts of a column of the table of trials."""
    script = "return [...document.querySelectorAll('#trials tbody tr')].map(row => row.cells[arguments[0]].textContent)"
    found: list[str] = browser.execute_script(script, column)
    return found


def text_in(browser: WebDriver, selector: str) -> str:  # noqa: F811
    """The text that is seen of an element, read at once: the page may put another in its place."""
    found: str = browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
    return found.strip()


def test_a_page_follows_its_study_and_leaves_what_its_reader_did(browser: WebDriver, served: Any) -> None:  # noqa: F811
    browser.get_log("browser")
    browser.get(served.address)
    until(browser, lambda b: b.execute_script("return document.querySelector('#curves .plot')?.data?.length > 2"))
    assert "running, 1 worker · 40 of 43 trials done" in text_in(browser, "#running")
    assert cells(browser, 0)[0] == "0"

    # Nobody has sorted the trials: a new best one comes first.
    best = trial_id(served.study.optuna.get_trials(deepcopy=False)[TRIALS])
    storage = served.study.storage
    storage.set_trial_user_attr(best, TrialRecord.curves.name, {"val/loss": [2.0, 1.9], "train/loss": [2.5, 2.25]})
    storage.set_trial_state_values(best, TrialState.COMPLETE, [1.9])
    served.look()
    until(browser, lambda b: cells(b, 0)[0] == str(TRIALS))
    assert cells(browser, 0)[1:3] == ["0", "1"]

    # What a reader does.
    Select(browser.find_element(By.ID, "curves-metric")).select_by_value("train/loss")
    Select(browser.find_element(By.ID, "curves-axis")).select_by_value("log")
    browser.execute_script(
        "arguments[0].click()", browser.find_element(By.CSS_SELECTOR, "#trials th:nth-child(1) button")
    )
    assert cells(browser, 0) == [str(i) for i in range(TRIALS + 3)]
    browser.execute_script("pick(5); document.getElementById('searched').open = true;")
    place = "return document.querySelector('#curves .plot').getBoundingClientRect().top"
    browser.execute_script("document.querySelector('#curves .plot').scrollIntoView()")
    seen_at = browser.execute_script(place)

    # An epoch of one running trial, and the end of the other, which is the best now.
    first, second = (trial_id(t) for t in served.study.optuna.get_trials(deepcopy=False)[TRIALS + 1 :])
    storage.set_trial_intermediate_value(first, 2, 1.25)
    storage.set_trial_user_attr(first, TrialRecord.progress.name, {**RUNNING, "epoch": 7})
    storage.set_trial_user_attr(second, TrialRecord.curves.name, {"val/loss": [2.0, 1.9, 0.5]})
    storage.set_trial_state_values(second, TrialState.COMPLETE, [0.5])
    served.look()
    until(browser, lambda b: "42 of 43 trials done" in text_in(b, "#running"))
    until(browser, lambda b: text_in(b, "tr.best td") == str(TRIALS + 2))
    assert text_in(browser, "#workers tbody").count("7/9") == text_in(browser, "#workers tbody").count("clip=3") == 1
    drawn = "return drawn.curves.trials.find(t => t.number === arguments[0]).runs[0].curves['val/loss']"
    assert browser.execute_script(drawn, TRIALS + 1) == [2.0, 1.9, 1.25]
    until(browser, lambda b: "Best: trial 42" in text_in(b, "#part-answer"))

    assert cells(browser, 0) == [str(i) for i in range(TRIALS + 3)], "sorted as it was"
    assert text_in(browser, "tr.picked td") == "5"
    assert browser.execute_script("return view.trial") == 5
    assert browser.execute_script("return view.metric") == "train/loss"
    assert browser.find_element(By.ID, "curves-metric").get_property("value") == "train/loss"
    assert Select(browser.find_element(By.ID, "curves-axis")).first_selected_option.text == "logarithmic"
    assert browser.execute_script("return document.querySelector('#curves .plot').layout.yaxis.type") == "log"
    assert browser.execute_script("return document.getElementById('searched').open")
    assert abs(browser.execute_script(place) - seen_at) < 60, (
        "what is read stays where it is, though more is above it now"
    )

    # The end.
    storage.set_trial_state_values(first, TrialState.COMPLETE, [3.0])
    served.look()
    until(browser, lambda b: text_in(b, "#running") == "finished · 43 of 43 trials done")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    served.server.should_exit = True
    served.thread.join()
    until(browser, lambda b: "not served any more" in text_in(b, "#as-of"), 60)
    assert "report it again" in text_in(browser, "#as-of")
    assert Path("sweeps").is_dir()

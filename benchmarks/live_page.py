"""What the page of a running study costs a browser: first paint, and the main thread's time of an update.

    python benchmarks/live_page.py [TRIALS [EPOCHS [UPDATES]]]

1,000 trials of 100 epochs unless said otherwise, 16 of them running. The page is served as `report.py STUDY --watch`
serves it, and headless Chromium opens it. Between two updates each running trial reports an epoch, and every fourth
time one of them ends. An update is what the page does with the server's answer, from its arrival to the last line
drawn (`performance.measure("update")` in live.js); only those that bring curves count, as others take a few ms. Where
other processes want the same cores, an update waits for them; the processor's time tells what the page costs by
itself: of an update and of what is drawn until the next one. The curves are those that trials keep; reading them from
MLflow's store is the server's work and not the browser's.

Exit status 1, with a line, if the first paint takes 2 s or an update 200 ms. Needs chromium and chromedriver.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from machine import machine
from optuna.trial import FrozenTrial, TrialState
from report_time import OBJECTIVES, STORAGE, fill, trial
from selenium import webdriver

from tbptt.cli import watch
from tbptt.compat import trial_id
from tbptt.config.schema import TrackingConfig
from tbptt.reports.live import Live
from tbptt.runs.tracking import Store
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study

RESULTS = Path(__file__).parent / "results" / "live_page.json"
RUNNING = 16
PAINT, UPDATE = 2000.0, 200.0  # milliseconds that they may take
WATCH_TASKS = """
window.tasks = [];
new PerformanceObserver(list => tasks.push(...list.getEntries().map(e => e.duration))).observe({ type: "longtask" });
"""
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900")


def running(number: int, epochs: int, rng: random.Random) -> FrozenTrial:
    """A trial that is half done."""
    made = trial(3 * number, epochs, rng)  # one that was not pruned
    made.number, made.state, made.datetime_complete, made.values = number, TrialState.RUNNING, None, None
    made.intermediate_values = dict(list(made.intermediate_values.items())[: epochs // 2])
    made.user_attrs.pop("curves")
    return made


class Going:
    """The study going on: epochs of running trials, and their ends."""

    def __init__(self, study: Study, epochs: int):
        self.study, self.epochs, self.step = study, epochs, epochs // 2
        self.rng = random.Random(1)

    def one_more(self) -> None:
        storage = self.study.storage
        now = [t for t in self.study.optuna.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        for t in now:
            storage.set_trial_intermediate_value(trial_id(t), self.step, 1 + self.rng.random())
            left = {
                "seed": 1,
                "seeds": 1,
                "epoch": self.step,
                "epochs": self.epochs,
                "held_out": 1.1,
                "seconds_left": 60.0,
            }
            storage.set_trial_user_attr(trial_id(t), TrialRecord.progress.name, {**left, "at": time.time()})
        if self.step % 4 == 0:
            values = list(now[0].intermediate_values.values())
            curves = {"val/loss": values, "train/loss": values, "schedule/chunks": [10] * len(values)}
            storage.set_trial_user_attr(trial_id(now[0]), TrialRecord.curves.name, curves)
            storage.set_trial_state_values(trial_id(now[0]), TrialState.COMPLETE, [min(values)])
        self.step += 1


def measured(browser: webdriver.Chrome, going: Going, updates: int) -> dict[str, Any]:
    """Milliseconds: the first paint; the first update (all curves), and the others that bring curves; tasks of the main
    thread over 50 ms since then; and the processor's time of the main thread, by update."""

    def taken() -> list[float]:
        script = "return performance.getEntriesByName('update').filter(e => e.detail.curves).map(e => e.duration)"
        found: list[float] = browser.execute_script(script)
        return found

    def wait_for(number: int) -> None:
        end = time.monotonic() + 60
        while len(taken()) < number:
            if time.monotonic() > end:
                raise SystemExit(f"update {number} did not come within 60 s")
            time.sleep(0.2)

    def processor() -> float:
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(1000 * float(each["value"]) for each in metrics if each["name"] == "TaskDuration")

    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    wait_for(1)
    time.sleep(10)  # the other figures come and are drawn
    browser.execute_script("tasks.length = 0")
    at = [processor()]
    for number in range(updates):
        going.one_more()
        wait_for(number + 2)
        at.append(processor())
    first, *others = taken()
    return {
        "first_paint": browser.execute_script(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        ),
        "first_update": first,
        "updates": others,
        "long_tasks": browser.execute_script("return tasks"),
        "processor": [later - earlier for earlier, later in itertools.pairwise(at)],
    }


def main(trials: int = 1000, epochs: int = 100, updates: int = 20) -> int:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in ("sweeps", "mlruns"):
            Path(name).mkdir()
        study = Study("benchmark", STORAGE, OBJECTIVES)
        done = trials - RUNNING
        fill(study, (trial(i, epochs, rng) if i < done else running(i, epochs, rng) for i in range(trials)))
        study.living = lambda trials: [t for t in trials if t.state == TrialState.RUNNING]  # type: ignore[method-assign]
        live = Live(study, Store(TrackingConfig(uri="sqlite:///mlruns/mlflow.db")), "report it again")
        began = time.perf_counter()
        live.begin()
        look = time.perf_counter() - began
        server = watch.server_of(live, "token")
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for switch in SWITCHES:
            options.add_argument(switch)
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver") or ""))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_TASKS})
            browser.get(f"http://127.0.0.1:{listening.getsockname()[1]}/token/")
            found = measured(browser, Going(study, epochs), updates)
        finally:
            browser.quit()
            server.should_exit = True
            thread.join()
    return said(
        {
            "machine": machine(),
            "load": os.getloadavg()[0],
            "trials": trials,
            "epochs": epochs,
            "first_look_seconds": look,
            **found,
        }
    )


def said(found: dict[str, Any]) -> int:
    """Print and keep what was measured; returns the exit status."""
    updates = found["updates"]
    print(found["machine"])
    print(f"{found['load']:.1f} processes at work")
    print(f"{found['trials']} trials of {found['epochs']} epochs, {RUNNING} running")
    print(f"first look of the server {found['first_look_seconds']:.1f} s")
    print(f"first paint {found['first_paint']:.0f} ms, first update, of all curves, {found['first_update']:.0f} ms")
    print(f"an update {statistics.median(updates):.0f} ms, the largest {max(updates):.0f} (n = {len(updates)})")
    print(f"of it and what is drawn after it, processor's time: {statistics.median(found['processor']):.0f} ms")
    tasks = found["long_tasks"]
    print(f"tasks over 50 ms: {len(tasks)}, the largest {max(tasks, default=0):.0f} ms")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    over = [f"first paint {found['first_paint']:.0f} ms, not below {PAINT:.0f}"] * (found["first_paint"] >= PAINT)
    over += [f"an update {max(updates):.0f} ms, not below {UPDATE:.0f}"] * (max(updates) >= UPDATE)
    for line in over:
        print(f"too slow: {line}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

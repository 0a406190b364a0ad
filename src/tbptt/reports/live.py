"""A study's page while the study runs: the same parts as in the report, each with the moment at which it last changed.

A page asks for what changed after the newest version that it has. As long as one asks, a thread looks at the study.
Nothing of the study is written.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from typing import Any

from optuna.trial import FrozenTrial

from tbptt.config.names import SWEEPS
from tbptt.options.values import shown
from tbptt.reports import curve_data, evidence, html, page
from tbptt.reports.answer import point_of
from tbptt.reports.frames import runs_of
from tbptt.runs.curves import curves_of
from tbptt.runs.progress import clock
from tbptt.studies.counts import counts_of
from tbptt.studies.listed import ago, is_finished
from tbptt.studies.living import workers_of
from tbptt.studies.postgres import ServerStorage
from tbptt.studies.ranking import best_first
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.studies.sweep_progress import seconds_left
from tbptt.system.endings import failure_line

log = logging.getLogger("tbptt")

EVERY = 2.0  # seconds between two looks at the study, at least
SHARE = 5  # a look is followed by a pause of so many times its length
DEAR_EVERY, DEAR_SHARE = 20.0, 10  # the same for what takes seconds: Optuna's figures, how sure the answer is
SETTLED = 10.0  # seconds for which the curves of a trial that has ended are read again
ASKED_WITHIN = 15.0  # seconds after which a page that has not asked counts as closed
SECONDS = 10.0  # that a look waits for a server's curves


class Parts:
    """Named values, each with the version at which it last changed. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._values: dict[str, tuple[int, Any]] = {}
        self.version = time.time_ns() // 1_000_000  # above those of an earlier server, whose pages may ask this one

    def update(self, values: Mapping[str, Any]) -> None:
        """Take new values. What is as it was keeps its version."""
        with self._lock:
            new = {n: v for n, v in values.items() if n not in self._values or self._values[n][1] != v}
            if new:
                self.version += 1
                self._values.update({name: (self.version, value) for name, value in new.items()})

    def after(self, version: int, of: Callable[[str], bool] = lambda _: True) -> tuple[int, dict[str, Any]]:
        """The newest version, and the values that changed after ``version``; ``of`` chooses among the names."""
        with self._lock:
            return self.version, {n: v for n, (at, v) in self._values.items() if at > version and of(n)}


@dataclass(frozen=True)
class Links:
    """Where the pages of runs are: the store's ``uri``, and the id of the study's ``experiment`` there."""

    uri: str
    experiment: str


class Live:
    """A study as its open pages see it.

    Args:
        study: only this object's thread uses it.
        store: the :class:`tbptt.runs.tracking.Store` of its runs.
        again: the command that serves the page again.
    """

    def __init__(self, study: Study, store: Any, again: str):
        self.study, self.store, self.again, self.parts = study, store, again, Parts()
        self.asked = time.monotonic()
        self._wake = Condition()
        self._content: dict[str, Any] = {}
        self._tried = evidence.Tried()
        self._read: dict[int, float] = {}  # by trial: when its curves were read first after its end
        self._links: Links | None = None
        self._made: dict[int, tuple[Any, str]] = {}  # rows of the table
        self._figures: set[str] = set()
        self._done: Any = None  # what the last close look has seen
        self._dear_at, self._at = 0.0, ""
        self._looks = Thread(target=self._look_on, daemon=True)

    def begin(self) -> None:
        """Look at the study once, and from then on in a thread of its own."""
        self._try_to_look()
        self._looks.start()

    def page(self) -> str:
        """The whole page, with the text that is there by now. What is drawn comes with its first changes."""
        self._note_asked()
        version, values = self.parts.after(0, lambda name: name.startswith("part:"))
        texts = {name.removeprefix("part:"): text for name, text in values.items()}
        if self._content:
            unseen = {**self._content["curves"], "there": False}  # until they come
            texts["curves"] = _part("curves", {**self._content, "curves": unseen})
            texts["trials"] = _part("trials", self._content)
        return html.rendered(
            "report.html",
            figures=[page.curves_frame()],
            labels={},
            also={"curves": json.dumps({**self._content.get("curve_head", {}), "trials": []})},
            name=self.study.name,
            parts=page.LIVE_PARTS,
            live={"version": version, "texts": texts, "at": time.strftime("%H:%M:%S")},
            again=self.again,
        )

    def changes(self, after: int) -> dict[str, Any]:
        """What changed after a version: ``version``, and ``values`` by name. 0 asks for everything."""
        self._note_asked()
        version, values = self.parts.after(after)
        return {"version": version, "values": values, "at": self._at}

    def _note_asked(self) -> None:
        with self._wake:
            self.asked = time.monotonic()
            self._wake.notify()

    # --- looking ---------------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        while True:
            begun = time.monotonic()
            self._try_to_look()
            pause = max(EVERY, SHARE * (time.monotonic() - begun))
            time.sleep(pause)
            with self._wake:
                while time.monotonic() - self.asked > ASKED_WITHIN:
                    self._wake.wait()

    def _try_to_look(self) -> None:
        """Look at the study; a store that does not answer is said on the page, and asked again later."""
        storage = self.study.storage
        try:
            with storage.without_retry() if isinstance(storage, ServerStorage) else nullcontext():
                self._look()
            self._at = time.strftime("%H:%M:%S")
            self.parts.update({"trouble": ""})
        except Exception as error:
            log.debug("a look at study %s failed", self.study.name, exc_info=True)
            self.parts.update({"trouble": f"{failure_line(error)}; it is asked again"})

    def _look(self) -> None:
        trials = self.study.trials()
        is_first = not self._content  # a page is waiting
        brief = page.brief(self.study, trials, self._links, self._tried)
        self._content = {**(page.nothing_yet() if is_first else self._content), **brief}
        done = self._what_ended(trials)
        try:
            if self._links is None and (parent := self.study.record.parent_run):
                self._links = Links(self.store.uri, self.store.client.get_run(parent).info.experiment_id)
            if not is_first and done != self._done and time.monotonic() >= self._dear_at:
                self._look_closely(trials)
                self._done = done
            self._take_curves(trials)
        finally:  # a store of runs that is away keeps nothing back of what the study itself says
            self._take_parts(trials)

    def _take_parts(self, trials: Sequence[FrozenTrial]) -> None:
        texts = {f"part:{name}": _part(name, self._content) for name in page.PARTS if name not in ("curves", "trials")}
        self.parts.update(texts)
        self.parts.update({"part:running": _part("running", {"running": running(self.study, trials)})})
        order = [row["number"] for row in self._content["rows"]]
        self.parts.update({"table": _part("trials", {**self._content, "rows": ()}), **self._rows(), "order": order})

    def _what_ended(self, trials: Sequence[FrozenTrial]) -> Any:
        """What changes whenever there is more to say: a trial's end, and at the study's end what judges it."""
        folder = SWEEPS / self.study.name
        files = [folder / name for name in ("evaluation.json", "best.yaml")]
        ended = sum(t.state.is_finished() for t in trials)
        return ended, self.study.record.ended_by, [f.stat().st_mtime_ns if f.exists() else 0 for f in files]

    def _rows(self) -> dict[str, str]:
        """The rows of the table of trials. Those that are as they were are not made again."""
        content = self._content
        columns = [content[name] for name in ("objectives", "params", "metrics", "in_set", "spread")]
        texts = {}
        for row in content["rows"]:
            number = row["number"]
            looks = (row, columns, number == content["answer"]["best"])
            before = self._made.get(number)
            if before is None or before[0] != looks:
                self._made[number] = before = (looks, _part("trial", {**content, "row": row}))
            texts[f"row:{number}"] = before[1]
        return texts

    def _look_closely(self, trials: Sequence[FrozenTrial]) -> None:
        """Work out anew what takes seconds."""
        begun = time.monotonic()
        if self.store.is_local:  # what comes from a server is kept in the study's folder, and here nothing is written
            self._tried = evidence.tried(self.study, trials, self.store)
        content = page.content(self.study, trials, self.store, self._tried, live=True, links=self._links)
        content["curves"] = self._content["curves"]
        self._content |= content
        figures = {f"figure:{each['id']}": each["json"] for each in content["figures"]}
        gone = dict.fromkeys(self._figures - figures.keys())
        self._figures = set(figures)
        self.parts.update({**figures, **gone, "labels": content["labels"]})
        now = time.monotonic()
        self._dear_at = now + max(DEAR_EVERY, DEAR_SHARE * (now - begun))

    def _take_curves(self, trials: Sequence[FrozenTrial]) -> None:
        """Read the curves of trials that run or have just ended: a server may have the last epochs a little later."""
        drawn, now = curve_data.drawn_of(self.study, trials), time.monotonic()
        new = [t for t in drawn if now - self._read.get(t.number, now) < SETTLED]
        head = curve_data.head(self.study, trials, drawn)
        self._content["curve_head"] = head
        runs = list(runs_of(new))
        found = curves_of(self.store, runs, curve_data.metrics_of(self.study), SECONDS) if runs else None
        told = [t for t in curve_data.trials_of(self.study, new, found) if t["runs"]]
        curve_data.bounded(told, self.study)
        curves = {f"curve:{t['number']}": t for t in told}
        if curves:
            self._content["curves"] = {**self._content["curves"], "there": True}
        self.parts.update({"curves": head, **curves, "curve_order": [t.number for t in drawn]})
        for t in new:
            if t.state.is_finished():
                self._read.setdefault(t.number, now)


def _part(name: str, content: Mapping[str, Any]) -> str:
    return html.environment().get_template(f"parts/{name}.html").render(**content)


def running(study: Study, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """What the page says of a study that runs: its state in words, and a row for each trial that a process runs."""
    living = study.living(trials)
    counts, record = counts_of(trials, study.record.forgiven), study.record
    now = time.time()
    workers = workers_of(living)
    done = f"{counts.complete + counts.pruned}{f' of {record.n_trials}' if record.n_trials else ''} trials done"
    if living:
        left = seconds_left(trials, record.n_trials, len(workers))
        state = f"running, {len(workers)} worker{'s' if len(workers) > 1 else ''}"
        done += "" if left is None else f", about {clock(left)} left"
    elif is_finished(record, counts):
        state = "finished"
    else:
        state = "no worker runs"
    return {
        "state": state,
        "done": done,
        "rows": [_running_row(t, now) for t in best_first(living, *study.objectives)],
    }


def _running_row(trial: FrozenTrial, now: float) -> dict[str, Any]:
    at = TrialRecord.of(trial).progress
    cells = ["", "", "", "", ""]
    if at is not None:
        seed = f"{at.seed}/{at.seeds}" + (f", fold {at.fold}/{at.folds}" if at.folds > 1 else "")
        held_out = "" if at.held_out is None else shown(at.held_out, 4)
        seen = "" if at.at is None else ago(at.at, now)
        cells = [seed, f"{at.epoch}/{at.epochs}", held_out, clock(at.seconds_left), seen]
    return {"number": trial.number, "worker": workers_of([trial])[0], "point": point_of(trial), "cells": cells}

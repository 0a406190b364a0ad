"""Workers that wait for their spec: without one they leave, and leave nothing behind."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from omegaconf import OmegaConf

from tbptt.config.hydra_node import LAUNCHERS
from tbptt.studies import pool, worker
from tbptt.studies.worker_spec import WorkerSpec

SPEC = WorkerSpec("conf", "config", None, ["clip=1,2"], "parent")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers whose imports take no time: they copy their spec to its log."""
    code = "import json, sys; l = sys.stdin.readline(); l and open(json.loads(l)['log'], 'a').write(l); sys.exit(not l)"
    popen = pool.subprocess.Popen
    monkeypatch.setattr(pool.subprocess, "Popen", lambda command, **more: popen([sys.executable, "-c", code], **more))


def test_without_a_spec_a_worker_leaves(here: Path, quick: None) -> None:
    worker = pool.WorkerProcess(0)
    assert worker.poll() is None
    assert worker.wait() == 1
    assert list(here.iterdir()) == []


def test_a_spec_reaches_a_worker_that_waits(here: Path, quick: None) -> None:
    worker = pool.WorkerProcess(0)
    worker.give(SPEC, Path("workers.log"))
    assert worker.wait() == 0
    assert '"overrides": ["clip=1,2"]' in Path("workers.log").read_text()


def test_one_that_has_died_says_so_by_its_status(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = pool.subprocess.Popen
    monkeypatch.setattr(
        pool.subprocess, "Popen", lambda command, **more: popen([sys.executable, "-c", "raise SystemExit(3)"], **more)
    )
    worker = pool.WorkerProcess(0)
    worker._process.wait()
    worker.give(SPEC, Path("workers.log"))
    assert worker.poll() == 3


def test_those_that_wait_are_stopped(quick: None) -> None:
    workers = [pool.WorkerProcess(slot) for slot in range(2)]
    pool.stop(workers)
    assert [worker.poll() for worker in workers] == [-15, -15]
    pool.stop(workers)  # again, as a sweep's end does with those that it had used


@pytest.mark.parametrize(
    ("workers", "dry_run", "launcher", "started"),
    [(3, False, "basic", 3), (3, True, "basic", 0), (3, False, "joblib", 0)],
)
def test_who_is_started_early(
    monkeypatch: pytest.MonkeyPatch, workers: int, dry_run: bool, launcher: str, started: int
) -> None:
    monkeypatch.setattr(pool, "WorkerProcess", lambda slot: slot)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    study = {"workers": workers, "dry_run": dry_run, "n_trials": None}
    config = OmegaConf.create({"study": study, "hydra": {"launcher": {"_target_": LAUNCHERS[launcher]}}})
    assert len(pool.early(config)) == started


def test_workers_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setattr(pool.subprocess, "Popen", lambda _, env, **__: seen.append(env["CUDA_VISIBLE_DEVICES"]))
    for slot in range(3):
        pool.WorkerProcess(slot)
    assert seen == ["0", "3", "0"]


@pytest.fixture
def told() -> Iterator[int]:
    """What stands for a head: what is written to it is on stdin."""
    before = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    yield writer
    os.dup2(before, 0)
    for fd in (before, reader):
        os.close(fd)


@pytest.mark.parametrize("said", [b"", b"pg", b"pgpg"])
def test_a_worker_that_is_not_paused_any_more_does_not_wait(said: bytes, told: int) -> None:
    os.write(told, said)
    pool.wait_while_paused()
    os.close(told)
    pool.wait_while_paused()  # nor one whose head is gone


@pytest.mark.parametrize("said", [b"p", b"pgp"])
def test_a_worker_waits_until_the_last_word_is_that_it_goes_on(said: bytes, told: int) -> None:
    events = []
    os.write(told, said)

    def go_on() -> None:
        events.append("told")
        os.write(told, b"g")

    timer = Timer(0.05, go_on)
    timer.start()
    pool.wait_while_paused()
    assert events == ["told"]
    timer.join()
    os.close(told)


def test_what_follows_the_spec_is_left_for_later(told: int) -> None:
    os.write(told, b"{spec}\npg")
    assert worker._first_line() == b"{spec}\n"
    pool.wait_while_paused()
    os.close(told)
    assert os.read(0, 9) == b""


def test_all_pause_before_their_head_does_and_go_on_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Recorded:
        def __init__(self, name: str):
            self.name = name

        def pause(self) -> None:
            events.append(f"{self.name} pauses")

        def go_on(self) -> None:
            events.append(f"{self.name} goes on")

    monkeypatch.setattr(pool, "stop_as_the_terminal_asks", lambda: events.append("stopped"))
    workers: Any = [Recorded("a"), Recorded("b")]
    pool.pause(workers)
    assert events == ["a pauses", "b pauses", "stopped", "a goes on", "b goes on"]


PAUSABLE = """
import sys, threading, time
from tbptt.studies import pool
from tbptt.system.runtime import StopSignals
log = open(sys.argv[1], "a", buffering=1)
sys.stdin.buffer.raw.readline()
def pause():
    print("pauses", file=log); pool.wait_while_paused(); print("goes on", file=log)
def beats():
    while True:
        print("beats", file=log); time.sleep(0.01)
with StopSignals() as signals, signals.pausing(pause):
    threading.Thread(target=beats, daemon=True).start()
    print("works", file=log)
    while True:
        signals.check()
        time.sleep(0.005)
"""


def test_a_paused_worker_has_a_heartbeat_and_ends_when_it_is_asked_or_its_head_is_gone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, popen = Path("log"), pool.subprocess.Popen
    monkeypatch.setattr(
        pool.subprocess, "Popen", lambda command, **more: popen([sys.executable, "-c", PAUSABLE, "log"], **more)
    )

    def until(event: str, beats: int = 1) -> None:
        """Wait until ``event`` is the last one, with so many beats or more after it."""
        end = time.monotonic() + 60
        while True:
            lines = log.read_text().split("\n") if log.exists() else []
            events = [line for line in lines if line not in ("", "beats")]
            if events[-1:] == [event] and lines[len(lines) - lines[::-1].index(event) :].count("beats") >= beats:
                return
            assert time.monotonic() < end, events
            time.sleep(0.002)

    paused = pool.WorkerProcess(0)
    try:
        paused.give(SPEC, log)
        until("works")
        paused.pause()
        until("pauses", beats=3)  # the thread goes on
        paused.go_on()
        until("goes on")
        paused.pause()
        until("pauses")
        paused._close()  # as where the head was killed
        until("goes on")
        paused.terminate()
        assert paused.wait() == 1  # Interrupted, from its next look
    finally:
        paused._process.kill()
        paused.wait()

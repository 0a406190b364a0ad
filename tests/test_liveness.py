"""Whether the process that works on a trial is still there, told by process and boot and not by clock; signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tbptt.system import liveness
from tbptt.system.liveness import identity, is_alive, started_at
from tbptt.system.runtime import Interrupted, PastHydra, StopSignals


@pytest.fixture
def other() -> Iterator["subprocess.Popen[str]"]:
    """Another process that has said who it is."""
    code = (
        "import json, sys; from tbptt.system.liveness import identity; print(json.dumps(identity())); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        yield process
        process.kill()


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    who: dict[str, Any] = json.loads(process.stdout.readline())
    assert who["pid"] == process.pid
    return who


def test_what_is_left_of_a_killed_process_is_none(
    other: "subprocess.Popen[str]",
) -> None:
    """On a system with /proc and on one without."""
    said(other)
    readings = (started_at, liveness._without_proc)
    assert all(read(other.pid) for read in readings)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert [read(other.pid) for read in readings] == [None, None]
    other.wait()
    assert [read(other.pid) for read in readings] == [None, None]


def test_this_process_is_alive() -> None:
    assert is_alive(identity())
    assert identity() == identity()


def test_a_process_is_alive_until_it_is_killed(other: "subprocess.Popen[str]") -> None:
    who = said(other)
    assert is_alive(who)
    other.send_signal(signal.SIGSTOP)  # stopped is not gone
    assert is_alive(who)
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert not is_alive(who)
    other.wait()
    assert not is_alive(who)


@pytest.mark.parametrize("changed", [{"started": "1"}, {"boot": "another"}, {"started": None}])
def test_another_process_with_the_same_number_is_not_it(changed: dict[str, Any]) -> None:
    assert not is_alive(identity() | changed)


def test_no_one_is_not_alive() -> None:
    assert not is_alive(None)


def test_a_process_on_another_machine_is_taken_to_live() -> None:
    assert is_alive(identity() | {"host": "elsewhere", "pid": 2**22 + 1})


def test_a_name_with_spaces_and_brackets_does_not_confuse() -> None:
    before = identity()
    comm = Path("/proc/self/comm")
    name = comm.read_text()
    comm.write_text("a) Z (b")
    try:
        assert identity() == before
        assert is_alive(before)
    finally:
        comm.write_text(name)


STUBBORN = """
import time
from tbptt.system.runtime import StopSignals
with StopSignals():
    print("ready", flush=True)
    while True:
        time.sleep(1)  # never looks at the flag
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(stop: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(stop)
            time.sleep(1.2)
            assert process.poll() is None
            process.send_signal(stop)
            assert process.wait(timeout=60) == -stop
        finally:
            process.kill()


STOPS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_is_kept_until_it_is_asked_for(stop: signal.Signals) -> None:
    before = [signal.getsignal(s) for s in STOPS]
    with StopSignals() as signals:
        signals.check()
        os.kill(os.getpid(), stop)
        with pytest.raises(Interrupted, match=stop.name) as caught:
            signals.check()
    assert caught.value.signum == stop
    assert [signal.getsignal(s) for s in STOPS] == before


def test_a_hang_up_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            signals.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_may_send_several_hang_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals._taken -= 60
        os.kill(os.getpid(), signal.SIGHUP)  # another signal would end the tests here
        assert signals.signum == signal.SIGTERM


@pytest.mark.parametrize("stop", STOPS)
def test_at_once_a_signal_ends_what_is_under_way_past_whoever_takes_exceptions(stop: signal.Signals) -> None:
    def takes_exceptions() -> None:
        try:
            os.kill(os.getpid(), stop)
        except Exception:
            pytest.fail("it was taken for an error")
        pytest.fail("it went on")

    with StopSignals() as signals, pytest.raises(Interrupted, match=stop.name), signals.at_once():
        takes_exceptions()


def test_a_signal_that_was_swallowed_is_seen_by_who_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopSignals() as outer, outer.at_once():
        with suppress(PastHydra):  # as the C code of an import may do
            os.kill(os.getpid(), signal.SIGTERM)
        with StopSignals() as signals, pytest.raises(Interrupted):
            signals.check()
        with pytest.raises(Interrupted), outer.at_once():
            pytest.fail("begun nevertheless")


def test_a_pause_comes_where_it_is_looked_for_and_only_there() -> None:
    events: list[str] = []
    assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
    with StopSignals() as signals, signals.pausing(lambda: events.append("paused")):
        signals.check()
        os.kill(os.getpid(), signal.SIGTSTP)
        events.append("went on")
        signals.check()
        signals.check()
    assert events == ["went on", "paused"]
    assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL


def test_a_pause_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with StopSignals() as signals, signals.pausing(lambda: pytest.fail("paused")):
            os.kill(os.getpid(), signal.SIGTSTP)
            signals.check()
    finally:
        signal.signal(signal.SIGTSTP, before)

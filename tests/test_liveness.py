"""Whether the process that works on a trial is still there, told by process and boot and not by clock."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tbptt.liveness import identity, is_alive


@pytest.fixture
def other() -> Iterator["subprocess.Popen[str]"]:
    """Another process that has said who it is."""
    code = "import json, sys; from tbptt.liveness import identity; print(json.dumps(identity())); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        yield process
        process.kill()


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    who: dict[str, Any] = json.loads(process.stdout.readline())
    assert who["pid"] == process.pid
    return who


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
from tbptt.runtime import StopSignals
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

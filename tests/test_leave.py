"""How a process ends: at once where it is ours alone, as Python ends where somebody else has a use for it."""

import atexit
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import CONF

from tbptt.cli.main import run
from tbptt.studies.pool import end_joblib
from tbptt.studies.sweep import SweepFailed
from tbptt.system.endings import leave
from tbptt.system.runtime import PastHydra

Set = Callable[[pytest.MonkeyPatch], None]


class Left(BaseException):
    """Stands for the end of the process."""


def at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the process ended without Python's own end; its status is as it was given."""
    ran: list[str] = []

    def left(status: int) -> None:
        assert ran == ["what was registered for the end"]
        raise Left(status)

    monkeypatch.setattr(os, "_exit", left)
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: ran.append("what was registered for the end"))
    with pytest.raises((Left, SystemExit)) as caught:
        leave(status)
    assert caught.value.args == (status,)
    return caught.type is Left


def started(*words: str, argv: str = "train.py") -> Set:
    def put(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "orig_argv", ["python", *words])
        monkeypatch.setattr(sys, "argv", [argv, "clip=1"])

    return put


def nothing_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tests may run under coverage or a debugger."""
    for name in ("gettrace", "getprofile"):
        monkeypatch.setattr(sys, name, lambda: None)
    monkeypatch.delattr(sys, "monitoring", raising=False)
    monkeypatch.delenv("PYTHONINSPECT", raising=False)


@pytest.mark.parametrize("status", [0, 2, 143])
@pytest.mark.parametrize(
    "how",
    [
        started("train.py", "clip=1"),
        started("-m", "tbptt.studies.worker_process", argv="/x/tbptt/worker_process.py"),
        started("-m", "tbptt", "train", "clip=1", argv="/x/tbptt/__main__.py"),
        started("/x/bin/tbptt", "train", "clip=1", argv="/x/bin/tbptt"),
    ],
)
def test_a_command_or_worker_of_its_own_ends_at_once(how: Set, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_traces(monkeypatch)
    how(monkeypatch)
    assert at_once(status, monkeypatch)


@pytest.mark.parametrize(
    "how",
    [
        started("-m", "cProfile", "-o", "x", "train.py", "clip=1"),
        started("/usr/bin/ipython"),
        started("-m", "ipykernel_launcher", "-f", "x.json"),
        started("mine.py", argv="train.py"),
        started("/usr/bin/coverage", "run", "train.py"),
        started("-i", "train.py", "clip=1"),
        started("-m", "cProfile", "-m", "tbptt", "train", argv="/x/tbptt/__main__.py"),
        started("-m", "tbptt.cli.servers", "stop", argv="/x/tbptt/cli/servers.py"),
        started(),
    ],
    ids=[
        "cProfile",
        "ipython",
        "notebook",
        "runpy",
        "coverage",
        "inspected",
        "profiled module",
        "other module",
        "console",
    ],
)
def test_a_process_that_others_started_ends_as_python_ends(how: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_traces(monkeypatch)
    how(monkeypatch)
    assert not at_once(3, monkeypatch)


@pytest.mark.parametrize(
    "uses",
    [
        lambda patch: patch.setattr(sys, "gettrace", lambda: print),
        lambda patch: patch.setattr(sys, "getprofile", lambda: print),
        lambda patch: patch.setattr(sys, "flags", SimpleNamespace(interactive=1)),
        lambda patch: patch.setenv("PYTHONINSPECT", "1"),
        lambda patch: patch.setattr(
            sys, "monitoring", SimpleNamespace(get_tool=lambda i: "coverage" if i == 1 else None), raising=False
        ),
    ],
    ids=["tracer", "profiler", "interactive", "PYTHONINSPECT", "monitoring"],
)
def test_a_process_that_is_traced_or_inspected_ends_as_python_ends(uses: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_traces(monkeypatch)
    started("train.py", "clip=1")(monkeypatch)
    uses(monkeypatch)
    assert not at_once(1, monkeypatch)


@pytest.mark.parametrize("stop", [False, True])
def test_joblibs_processes_are_ended_and_told_first_where_the_command_was_stopped(
    stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    loky = ModuleType("joblib.externals.loky.reusable_executor")
    loky._executor = SimpleNamespace(  # type: ignore[attr-defined]
        _processes={1: SimpleNamespace(pid=123)}, shutdown=lambda wait: calls.append(wait)
    )
    monkeypatch.setitem(sys.modules, loky.__name__, loky)
    monkeypatch.setattr(os, "kill", lambda *what: calls.append(what))
    end_joblib(stop)
    assert calls == [*([(123, signal.SIGINT)] if stop else []), True]


def test_failures_of_a_sweep_are_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise PastHydra(SweepFailed("trials 0 and 1 failed: no\ntrial 2 failed: never"))

    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert run(fails, CONF) == 1
    assert capsys.readouterr().err == "trials 0 and 1 failed: no\ntrial 2 failed: never\n"


def test_without_joblib_there_is_nothing_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "joblib.externals.loky.reusable_executor", raising=False)
    end_joblib(stop=True)

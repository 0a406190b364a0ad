"""What is printed and nobody takes: it stops nothing and changes no exit status, whoever prints it."""

import io
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
from conftest import CONF, ROOT
from rich.console import Console
from rich.live import Live

from tbptt.studies.worker import _write_to
from tbptt.system.runtime import _is_plain, _losing, prepare_output, say


def closed_terminal() -> int:
    master, terminal = pty.openpty()
    os.close(master)
    return terminal


def pipe_without_reader() -> int:
    reader, pipe = os.pipe()
    os.close(reader)
    return pipe


def full_pipe_that_does_not_wait() -> int:
    _, pipe = os.pipe()
    os.set_blocking(pipe, False)
    while True:
        try:
            os.write(pipe, b"x" * 65536)
        except BlockingIOError:
            return pipe


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def by_say(file: TextIO) -> None:
    say("x", file)


def by_live_display(file: TextIO) -> None:
    with Live("x", console=Console(file=file, force_terminal=True), redirect_stdout=False):
        pass


def by_logging(file: TextIO) -> None:
    logger = logging.Logger("of-a-test")
    logger.addHandler(logging.StreamHandler(file))
    logger.warning("x")


def by_more_than_is_kept(file: TextIO) -> None:
    print("x" * 100_000, file=file)


def by_nothing_but_its_end(file: TextIO) -> None:
    file.write("x")


@pytest.mark.parametrize("write", [by_say, by_live_display, by_logging, by_more_than_is_kept, by_nothing_but_its_end])
@pytest.mark.parametrize(
    "place",
    [closed_terminal, pipe_without_reader, full_pipe_that_does_not_wait, full_disk],
)
def test_what_nobody_takes_is_lost(
    place: Callable[[], int], write: Callable[[TextIO], None], capfd: pytest.CaptureFixture[str]
) -> None:
    fd = place()
    with pytest.raises(OSError, match=r"error|pipe|unavailable|space"):
        os.write(fd, b"x")
    file = _losing(None, fd)
    write(file)
    file.flush()
    os.close(fd)
    assert capfd.readouterr() == ("", "")


def test_what_is_taken_arrives_and_what_has_no_letter_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    file = _losing(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), fd)
    say("3 × 4", file)
    say("b" * 100_000, file)
    os.close(fd)
    say("too late", file)
    assert path.read_text() == "3 \\xd7 4\n" + "b" * 100_000 + "\n"


def test_a_disk_with_room_again_takes_what_comes_then(tmp_path: Path) -> None:
    fd = full_disk()
    file = _losing(None, fd)
    say("lost", file)
    os.dup2(os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT), fd)
    say("kept", file)
    os.close(fd)
    assert (tmp_path / "out").read_text() == "kept\n"


def test_streams_of_others_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, captured = io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert not _is_plain(notebook, 1)
    assert not _is_plain(captured, 1)
    monkeypatch.setattr(sys, "stdout", notebook)
    monkeypatch.setattr(sys, "stderr", captured)
    prepare_output()
    assert sys.stdout is notebook
    assert sys.stderr is captured
    assert captured.errors == "backslashreplace"


# Opens a file as a database would be, prints by all ways, and ends as a command that is not left at once.
CHILD = """
import os, sys
sys.path.insert(0, {src!r})
from tbptt.system.runtime import prepare_output, say
prepare_output()
with open({kept!r}, "w") as file:
    assert file.fileno() > 2
    say("x" * 10_000); print("y"); print("z", file=sys.stderr); os.write(2, b"native") if {native} else None
sys.exit(7)
"""


@pytest.mark.parametrize("flags", [[], ["-u"]])
@pytest.mark.parametrize("closing", ["<&- >&- 2>&-", ">&-", "2>&-", ">/dev/full 2>/dev/full", "2>&1 | true"])
def test_a_process_ends_with_its_own_status_and_prints_into_no_file(
    closing: str, flags: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "database"
    native = "full" not in closing and "|" not in closing
    code = CHILD.format(src=str(ROOT / "src"), kept=str(kept), native=native)
    command = ["bash", "-o", "pipefail", "-c", f'"$@" {closing}', "bash", sys.executable, *flags, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert kept.read_text() == ""


def test_a_worker_whose_log_cannot_be_made_prints_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where: dict[int, str] = {}
    monkeypatch.setattr(
        "tbptt.studies.worker.os.dup2",
        lambda old, new: where.update({new: str(Path(f"/proc/self/fd/{old}").readlink())}),
    )
    _write_to(str(tmp_path / "gone" / "workers.log"))
    assert where == {1: os.devnull, 2: os.devnull}
    _write_to(str(tmp_path / "workers.log"))
    assert where == {1: str(tmp_path / "workers.log"), 2: str(tmp_path / "workers.log")}


def test_help_that_nobody_reads_to_its_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from tbptt.cli import main

    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    monkeypatch.setattr(sys, "stdout", _losing(None, pipe_without_reader()))

    def never() -> Any:
        pytest.fail("help starts nothing")

    assert main.run(never, CONF) == 0

"""What a process holds is its own until it lets go or is gone, whatever it and its machine are called."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbptt.runs.pending import CLAIM, OUTCOME, OWNER, RunTaken, claim_left_run, claim_run, claimed, let_go, this_owner
from tbptt.system.claims import NoLocks, claim, is_claimed, of_this_process, release
from tbptt.system.liveness import ALIVE, holding, identity, is_alive, started_at

HOLD = """
import json, sys
from pathlib import Path
from tbptt.system.claims import claim
from tbptt.system.liveness import holding
claim(Path("held"))
print(json.dumps(holding(Path("."))), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(here: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds ``held``; the line that it prints says who it is."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=-1, stdout=-1, text=True, cwd=here) as process:
        yield process
        process.kill()


def who(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout is not None
    found: dict[str, object] = json.loads(process.stdout.readline())
    return found


def test_what_another_process_holds_is_free_once_it_is_killed(
    holder: "subprocess.Popen[str]", here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = who(holder)
    assert not claim(Path("held"))
    assert is_claimed(Path("held"))
    # Of another container on the same disk: names, numbers and boot say nothing.
    strange = other | {"host": "another", "pid": 1, "started": "1", "boot": "another", "numbers": "another"}
    assert is_alive(strange, here)
    holder.send_signal(signal.SIGSTOP)  # stopped is not gone
    assert is_alive(other, here)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    monkeypatch.setattr(socket, "gethostname", lambda: "a container's next name")
    assert not is_alive(other, here)
    assert not is_claimed(Path("held"))
    assert claim(Path("held"))
    release(Path("held"))
    assert not Path("held").exists()


def test_a_process_holds_one_file_a_folder_and_clears_away_those_of_the_dead(here: Path) -> None:
    Path(ALIVE).mkdir()
    Path(ALIVE, "of-a-dead-one").touch()
    me = holding(here)
    assert holding(here) == me
    assert [path.name for path in Path(ALIVE).iterdir()] == [me["lock"]]
    assert is_alive(me, here)
    assert not is_alive({**me, "lock": "of-a-dead-one"}, here)
    assert not is_alive({**me, "lock": "../../etc/passwd"}, here)  # a study that somebody sent


def test_a_forked_process_holds_nothing_of_its_parents(here: Path) -> None:
    assert claim(Path("held"))
    child = os.fork()
    if not child:
        os._exit(10 + claim(Path("held")))  # 11 if it had it
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    release(Path("held"))
    assert not is_claimed(Path("held"))


def test_a_file_that_was_removed_meanwhile_is_made_anew(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, removed = fcntl.flock, []

    def removing(file: int, kind: int) -> None:
        lock(file, kind)
        if not removed:
            removed.append(Path("held").unlink())

    monkeypatch.setattr(fcntl, "flock", removing)
    assert claim(Path("held"))
    assert removed
    assert Path("held").exists()
    release(Path("held"))


def no_locks(file: int, kind: int) -> None:
    raise OSError(errno.ENOLCK, "no locks here")


def test_on_a_disk_without_locks_numbers_tell_who_is_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(NoLocks):
        of_this_process(here)
    assert holding(here) == identity()
    assert is_alive(holding(here), here)
    claim_run(Path("pending/run"))


def living(**more: object) -> str:
    return json.dumps(identity() | {"pid": os.getppid()} | more)


@pytest.mark.parametrize("locks", [True, False])
def test_a_run_that_an_older_version_trains_is_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = Path("pending/run")
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(living(started=started_at(os.getppid())))
    with pytest.raises(RunTaken, match="run run is being trained by another process"):
        claim_left_run(folder)
    (folder / OUTCOME).write_text("{}")  # it has ended
    claim_left_run(folder)
    let_go(folder)


def test_a_run_whose_container_is_gone_can_be_had_again_and_again(here: Path) -> None:
    """Its owner, of another host name, is told by the claim alone: a refused resume does not make it living."""
    folder = Path("pending/run")
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(json.dumps({**this_owner(), "host": "a container that was killed", "pid": 1}))
    (folder / CLAIM).touch()  # as the kill left it
    for _ in range(2):
        claim_left_run(folder)
        let_go(folder)
        with claimed(folder):
            pass
    (folder / OWNER).write_text('{"host": "cu')
    claim_left_run(folder)
    let_go(folder)


def test_who_delivers_what_a_run_left_is_waited_for(holder: "subprocess.Popen[str]", here: Path) -> None:
    who(holder)
    folder = here / "pending" / "run"
    folder.mkdir(parents=True)
    os.link("held", folder / CLAIM)  # the other process holds it
    looks: list[float] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            holder.kill()
            holder.wait()

    with pytest.raises(RunTaken):
        claim_run(folder)
    claim_run(folder, 30, check)
    assert len(looks) >= 3
    let_go(folder)


def test_a_file_that_cannot_be_looked_at_is_taken_for_held(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("another's").touch()

    def forbidden(*given: object) -> int:
        raise PermissionError(errno.EACCES, "another user's")

    assert not is_claimed(Path("another's"))
    assert not is_claimed(Path("nobody's"))
    monkeypatch.setattr(os, "open", forbidden)
    assert is_claimed(Path("another's"))


def test_a_run_of_this_process_stays_its_own_when_its_rest_is_delivered(here: Path) -> None:
    folder = Path("mlruns/pending/run")
    claim_run(folder)
    with claimed(folder):
        pass
    assert is_claimed(folder / CLAIM)
    let_go(folder)
    assert not Path("mlruns").exists()
    with claimed(folder):
        assert is_claimed(folder / CLAIM)
    assert not is_claimed(folder / CLAIM)

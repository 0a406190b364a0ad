"""A sweep's page: the sweep listens, and the process that serves the page starts when somebody opens it.

So a sweep that nobody looks at pays for a socket and a thread that sleeps, and not for a server.
"""

import json
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from tbptt.runs import progress

if TYPE_CHECKING:
    from tbptt.studies.plan import Plan
    from tbptt.studies.study import Study

HOST = "127.0.0.1"
STRIKES = 3
PASSED_ON = "TBPTT_WATCHED"  # what a sweep tells its server: other users would see it among the arguments


@contextmanager
def offered(study: "Study", plan: "Plan") -> Iterator[None]:
    """A context in which the study's page can be opened, at an address that is said."""
    if not plan.settings.watch or plan.cfg.progress == "none":
        yield
        return
    uri = study.record.tracking_uri
    stores = [f"study.storage={study.storage_uri}", *([f"tracking.uri={uri}"] if uri else [])]
    with watched(study.name, stores) as where:
        if where:
            progress.about(plan.cfg.progress, [f"watch: {where}"], [])
        yield


@contextmanager
def watched(study: str, stores: Sequence[str]) -> Iterator[str | None]:
    """A context in which a study's page can be opened. Gives its address; None where nothing can listen.

    A server that was started goes on after the context, until nobody looks.

    Args:
        stores: the words that name the study's stores.
    """
    with ExitStack() as at_end:
        token, where = secrets.token_urlsafe(12), None
        with suppress(OSError, RuntimeError):  # no socket, descriptor or thread is left: a sweep does without a page
            listening = at_end.enter_context(socket.create_server((HOST, 0)))
            told, tell = os.pipe()
            at_end.callback(os.close, told)
            thread = threading.Thread(target=_wait, args=(listening, told, study, token, list(stores)), daemon=True)
            at_end.callback(lambda: thread.join() if thread.is_alive() else None)
            at_end.callback(os.close, tell)
            thread.start()
            where = address(listening, token)
        yield where


def address(listening: socket.socket, token: str) -> str:
    """Where a page is, whose server has this socket."""
    return f"http://{HOST}:{listening.getsockname()[1]}/{token}/"


def _wait(listening: socket.socket, told: int, study: str, token: str, stores: Sequence[str]) -> None:
    """Start a server whenever somebody connects and none runs, until the context ends. One that fails is tried again,
    ``STRIKES`` times."""
    passed_on = json.dumps({"socket": listening.fileno(), "token": token, "stores": stores})
    server: subprocess.Popen[bytes] | None = None
    strikes = 0
    while strikes < STRIKES:
        waited_for = [told] if server else [told, listening.fileno()]
        ready, _, _ = select.select(waited_for, [], [], 1.0 if server else None)
        if told in ready:
            return
        if server is None:
            try:
                server = _serve(listening.fileno(), study, passed_on)
            except OSError:
                strikes = STRIKES
        elif (status := server.poll()) is not None:
            strikes, server = 0 if status == 0 else strikes + 1, None
    listening.close()  # a browser that waits learns that nobody answers


def _serve(number: int, study: str, passed_on: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tbptt", "report", study, "--watch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the sweep
        pass_fds=(number,),
        env={**os.environ, PASSED_ON: passed_on},
    )

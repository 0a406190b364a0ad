"""A study's page, served on this machine while the study runs: ``report.py STUDY --watch``.

A sweep offers the page too: it listens itself, and only when somebody opens the page this command starts, with the
sweep's socket (:mod:`tbptt.studies.watched`).
"""

import json
import os
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tbptt.config.compose import CommandError
from tbptt.studies.watched import HOST, PASSED_ON, address
from tbptt.system.command import command
from tbptt.system.runtime import say

if TYPE_CHECKING:
    from tbptt.reports.live import Live

# Seconds without a page that asks, after which the server of a sweep's page ends: browsers let a hidden page ask once a
# minute.
LEFT_ALONE = 180.0


@dataclass(frozen=True)
class Served:
    """How a page is served.

    Attributes:
        port: 0 for any that is free.
        socket: the descriptor of a socket that listens, from a sweep. Then the server ends when nobody has looked at
            the page for three minutes.
        token: a part of the page's address that others on this machine cannot guess.
        stores: the words that name the study's stores, from a sweep.
    """

    port: int
    socket: int | None
    token: str
    stores: list[str]


def served(argv: Sequence[str]) -> tuple[list[str], Served | None]:
    """The words without ``--watch`` and ``--port N``, and what these say; None without ``--watch``. What a sweep passes
    on is in the environment, where other users do not see it. Raises CommandError for what is no port."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--port=") else [word])]
    if "--watch" not in words:
        return words, None
    words.remove("--watch")
    port = 0
    if "--port" in words:
        at = words.index("--port")
        text = words[at + 1] if at + 1 < len(words) else ""
        if not text.isdecimal() or int(text) > 65535:
            raise CommandError([f"--port: got {text or 'nothing'}; takes a port, 0 to 65535"])
        port = int(text)
        del words[at : at + 2]
    if from_sweep := os.environ.pop(PASSED_ON, None):
        return words, Served(port, **json.loads(from_sweep))
    return words, Served(port, None, secrets.token_urlsafe(12), [])


def watch(name: str, cfg: DictConfig, uri: str | None, how: Served) -> None:
    """Serve a study's page until the process is stopped. Raises CommandError if there is no such study, or if the port
    is taken."""
    from tbptt.cli.reports import opened
    from tbptt.reports.live import Live

    study, store = opened(name, cfg, uri)
    listening = _listening(how.port) if how.socket is None else socket.socket(fileno=how.socket)
    live = Live(study, store, f"{command('report')} {shlex.quote(study.name)} --watch")
    if how.socket is None:
        say(f"watch: {address(listening, how.token)}")
        say("Ctrl-C ends this page; the study goes on")
    live.begin()
    server = server_of(live, how.token)
    if how.socket is not None:
        threading.Thread(target=_end_when_alone, args=(live, server), daemon=True).start()
    server.run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        why = error.strerror or error
        raise CommandError([f"--port: got {port}; it cannot be used ({why}); takes another, or 0 for any"]) from None
    made.listen()
    return made


def application(live: "Live", token: str) -> Any:
    """The pages: ``/TOKEN/`` and ``/TOKEN/changes?after=VERSION``. They only read."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    kept_nowhere = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}

    def page(_: Request) -> Response:
        return HTMLResponse(live.page(), headers=kept_nowhere)

    def changes(request: Request) -> Response:
        text = request.query_params.get("after", "0")
        after = int(text) if text.isdecimal() and len(text) < 20 else 0
        return JSONResponse(live.changes(after), headers=kept_nowhere)

    return Starlette(
        routes=[Route(f"/{token}/", page, methods=["GET"]), Route(f"/{token}/changes", changes, methods=["GET"])],
        middleware=[
            # A page of another site, whose name was pointed to this machine, would name its own host.
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False),
            Middleware(GZipMiddleware, minimum_size=2000, compresslevel=3),
        ],
    )


def server_of(live: "Live", token: str) -> Any:
    """The server of a page, which runs once it is given a socket that listens."""
    import uvicorn

    config = uvicorn.Config(
        application(live, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _end_when_alone(live: "Live", server: Any) -> None:
    while time.monotonic() - live.asked < LEFT_ALONE:
        time.sleep(1)
    with suppress(Exception):
        server.should_exit = True

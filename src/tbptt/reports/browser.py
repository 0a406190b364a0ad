"""Figures as SVG and PDF: Chrome or Chromium draws them, which kaleido starts once for all of them.

The browser reads Plotly's script from the package. It reaches no host: it is given a proxy that does not exist.
"""

import asyncio
import logging
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

import plotly.graph_objects as go
import psutil

from tbptt.system.command import install

FORMATS = ("svg", "pdf")
LONGEST = 90.0  # seconds that the browser may take to start, or to draw a figure
NO_PROXY = "http://127.0.0.1:9"  # the port "discard": nothing listens there
HOW_TO = "install your system's chromium, or run plotly_get_chrome"


def found() -> str:
    """The path of the browser. Raises ValueError with a line that says what is missing and how to get it."""
    if find_spec("kaleido") is None:
        raise ValueError(f"--figures needs kaleido: {install('kaleido', 'figures')}")
    from choreographer.browsers import Chromium

    path = Chromium.find_browser(skip_local=False)
    if path and os.access(path, os.X_OK) and Path(path).is_file():
        return str(path)
    named = os.environ.get("BROWSER_PATH")
    what = f"BROWSER_PATH names {named}, which is none" if named else "there is none here"
    raise ValueError(f"--figures needs Chrome or Chromium, and {what}: {HOW_TO}")


def draw(figures: Mapping[str, go.Figure], folder: Path, browser: str) -> None:
    """Write each figure as ``NAME.svg`` and ``NAME.pdf``, in its own width and height in pixels, 96 an inch.

    Args:
        folder: must exist. If an error is raised, it may hold some of the files.
        browser: the path that :func:`found` gave.

    Raises:
        ValueError: the browser did not start, died, hung, or did not draw a figure; with a line for the user.
    """
    for name in ("kaleido", "choreographer", "browser_proc"):  # what goes wrong is said below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    at_home = Path.home() if "snap" in browser else None  # a browser of snap does not see /tmp
    with tempfile.TemporaryDirectory(prefix=".tbptt-", dir=at_home, ignore_cleanup_errors=True) as profile:
        work = _Work(figures, folder, browser, profile)
        _watch(work)
    if work.error is not None:
        said = " ".join(str(work.error).split()) or type(work.error).__name__
        what = f"the browser {browser} did not draw {work.at}" if work.at else f"the browser {browser} did not start"
        raise ValueError(f"--figures: {what} ({said[:200]}); nothing was written. For another one {HOW_TO}")


def _watch(work: "_Work") -> None:
    """Have the work done, and end the browser if it hangs or the user stops the command."""
    Thread(target=work.run, daemon=True).start()
    try:
        while not work.done.wait(0.1):  # not Thread.join, which takes a thread for ended once a signal interrupts it
            if time.monotonic() - work.moved > LONGEST:
                work.error = TimeoutError(f"nothing came for {LONGEST:g} seconds")
                break
    finally:
        end = time.monotonic() + 10
        while not work.process and time.monotonic() < end and not work.done.wait(0.05):
            pass  # the browser may be just starting
        if not work.done.is_set():
            work.kill()
            work.done.wait(5)


class _Work:
    """What the thread does. kaleido is asynchronous, and a browser that hangs keeps it waiting for ever.

    Attributes:
        at: the file that is being drawn; empty before the browser has started.
        moved: when it went on last, by the monotonic clock.
        error: why it ended too early.
        done: set once it has ended.
    """

    def __init__(self, figures: Mapping[str, go.Figure], folder: Path, browser: str, profile: str):
        self.figures, self.folder, self.browser, self.profile = figures, folder, browser, profile
        self.at, self.moved = "", time.monotonic()
        self.error: Exception | None = None
        self.done = Event()
        self._kaleido: Any = None

    def run(self) -> None:
        try:
            asyncio.run(self._drawn())
        except Exception as error:
            self.error = self.error or error
        finally:
            self.done.set()

    async def _drawn(self) -> None:
        import kaleido

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of tasks that a dead browser leaves
        self._kaleido = kaleido.Kaleido(
            path=self.browser, tmp_dir=self.profile, mathjax=False, proxy_server=NO_PROXY, timeout=LONGEST
        )
        async with self._kaleido as drawing:
            for name, figure in self.figures.items():
                for form in FORMATS:
                    self.at, self.moved = f"{name}.{form}", time.monotonic()
                    content = await drawing.calc_fig(figure, {"format": form})
                    (self.folder / self.at).write_bytes(content)

    @property
    def process(self) -> Any:
        """The browser's process; None before it has one."""
        return getattr(self._kaleido, "subprocess", None)

    def kill(self) -> None:
        """End the browser with all its processes, which are a group of their own."""
        if self.process is None:
            return
        with suppress(psutil.Error):
            first = psutil.Process(self.process.pid)
            every = [*first.children(recursive=True), first]
            with suppress(OSError, AttributeError):  # Windows has no groups
                os.killpg(first.pid, signal.SIGKILL)
            for each in every:
                with suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(every[:-1], 5)  # the last one is waited for by the thread

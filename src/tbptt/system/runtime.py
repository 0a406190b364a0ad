"""The process that trains: memory allocator, precision, signals, output."""

import ctypes
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep freed blocks instead of giving them back; harmless elsewhere.

    A chunk's activations are freed and asked for again at every update. Returned to the system each time, they cost
    page faults worth up to 40 % of the training time. (mallopt(3): with M_MMAP_MAX 0 large blocks, too, come from the
    heap, and M_TRIM_THRESHOLD keeps the heap from shrinking.)
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 << 20)


def die_with_parent() -> None:
    """Have Linux send this process a SIGTERM when the one that started it is gone; harmless elsewhere."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    set_parent_death_signal = 1
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before this took hold
        os.kill(os.getpid(), signal.SIGTERM)


def set_precision(precision: int | str) -> None:
    """How a GPU multiplies float32 matrices: as float32 says, or with ``tf32`` on tensor cores, whose inputs have
    10 bits of mantissa instead of 23. cuDNN's recurrent layers would take TF32 by themselves."""
    import torch

    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn: Any = torch.backends.cudnn
    for kind in (cudnn.rnn, cudnn.conv):
        kind.fp32_precision = "tf32" if tf32 else "ieee"


@contextmanager
def full_float32() -> Iterator[None]:
    """Within, a GPU multiplies float32 matrices as float32 says, whatever :func:`set_precision` said; without waiting
    for it."""
    import torch

    cudnn: Any = torch.backends.cudnn  # its allow_tf32 cannot be read once an fp32_precision was set
    matmul, kinds = torch.get_float32_matmul_precision(), (cudnn.rnn, cudnn.conv)
    before = [kind.fp32_precision for kind in kinds]
    if matmul != "highest":
        torch.set_float32_matmul_precision("highest")
    for kind in kinds:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        if matmul != "highest":
            torch.set_float32_matmul_precision(matmul)
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


class Interrupted(Exception):
    """Training was asked to stop by a signal.

    Attributes:
        signum: the signal's number; the process exits with 128 + signum.
    """

    def __init__(self, signum: int, how_to_go_on: str = ""):
        super().__init__(f"stopped by {signal.Signals(signum).name}{how_to_go_on}")
        self.signum = signum


class LeaseLost(Exception):
    """This process was cut off for so long that another has taken its run over."""


class PastHydra(BaseException):
    """Carries an error through Hydra, which would print it at length and exit with 1."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP only set a flag; :meth:`check`, called between chunks, raises
    Interrupted. Where nothing has to be closed first, :meth:`at_once` does not wait for that.

    A second signal, a second or more later, stops the process at once; a second SIGHUP is nothing, as a closed terminal
    may send several. One that is ignored, as ``nohup`` has it, stays so. Entered again while entered, it changes
    nothing.

    Args:
        also: more signals that mean the same.
    """

    def __init__(self, also: Sequence[signal.Signals] = ()) -> None:
        self.signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *also)
        self.signum: int | None = None
        self._before: dict[int, Any] = {}
        self._depth = 0
        self._at_once = 0
        self._is_late = False
        self._is_to_pause = False
        self._pause: Callable[[], None] = lambda: None
        self._taken = 0.0

    def __enter__(self) -> "StopSignals":
        self._depth += 1
        if self._depth > 1:
            return self
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers, and receive no signals
            taken = [s for s in self.signals if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
            self._before = {s: signal.signal(s, self._take) for s in taken}
        for handler in self._before.values():  # what came already, and an import may have swallowed
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopSignals) and outer.signum is not None:
                self.signum = outer.signum
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._taken = signum, time.monotonic()
            if self._at_once and not self._is_late:
                raise PastHydra(Interrupted(signum))  # which no ``except Exception`` on the way takes
        elif time.monotonic() - self._taken > 1 and signum != signal.SIGHUP:
            # Linux may send a parent's death once for each of its threads
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def check(self) -> None:
        self.pause_if_asked()
        if self.signum is not None and not self._is_late:
            raise Interrupted(self.signum)

    def pause_if_asked(self) -> None:
        """Pause here, where no database is held, if SIGTSTP came."""
        if self._is_to_pause:
            self._is_to_pause = False
            self._pause()

    @contextmanager
    def pausing(self, pause: Callable[[], None]) -> Iterator[None]:
        """Within, SIGTSTP (Ctrl-Z) does not stop the process where it is: the next :meth:`check` calls ``pause``, which
        returns when the pause is over."""
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTSTP):
            yield
            return

        def take(signum: int, frame: FrameType | None) -> None:
            self._is_to_pause = True

        self._pause = pause
        signal.signal(signal.SIGTSTP, take)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def too_late(self) -> None:
        """What a signal could stop is done, and its end is kept: from now on a first one changes nothing, here and in
        what this was entered within, so that the exit status says the same."""
        self._is_late = True
        for handler in self._before.values():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopSignals):
                outer.too_late()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises Interrupted wherever it finds the process: for what takes long and leaves nothing
        behind, as reading a file."""
        self.check()
        self._at_once += 1
        try:
            yield
        except PastHydra as passed:
            if isinstance(passed.error, Interrupted):
                raise passed.error from None
            raise
        finally:
            self._at_once -= 1


def stop_as_the_terminal_asks() -> None:
    """Do what SIGTSTP does to a process without a handler: stop, until SIGCONT comes."""
    taken = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, taken)


class _LosesWhatNobodyTakes(io.FileIO):
    """A file to write to, for which no write fails: what a closed terminal, a pipe without a reader or a full disk does
    not take is lost."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            written = super().write(data)
            if written is not None:  # else a pipe that does not wait is full
                return written
        return len(data)


def prepare_output() -> None:
    """Have nothing that is printed, by whichever library, stop the process or change its exit status.

    What nobody takes is lost; what the encoding has no letter for is shown as ``\\xd7``. Where this process was started
    with a standard descriptor closed, the null device takes its place: else the next file that is opened, a database,
    would get its number and be printed into.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or _is_plain(stream, fd):
            setattr(sys, name, _losing(stream, fd))
        else:
            with suppress(AttributeError):  # a notebook's takes everything
                stream.reconfigure(errors="backslashreplace")


def _is_plain(stream: Any, fd: int) -> bool:
    """Whether a stream is as Python opened it on a descriptor, and not a notebook's or a test's."""
    file = getattr(stream, "buffer", None)
    file = getattr(file, "raw", file)  # python -u has no buffer between
    return type(file) is io.FileIO and file.fileno() == fd


def _losing(stream: Any, fd: int) -> TextIO:
    """A stream as the one given, or as Python opens one, that loses what nobody takes."""
    return io.TextIOWrapper(
        io.BufferedWriter(_LosesWhatNobodyTakes(fd, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None),
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", True),
        write_through=getattr(stream, "write_through", False),
    )


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line at once, by default to stdout."""
    print(line, file=file, flush=True)


@contextmanager
def errors_past_hydra() -> Iterator[None]:
    """Errors within reach the program's own way out as PastHydra."""
    try:
        yield
    except Exception as error:
        raise PastHydra(error) from error

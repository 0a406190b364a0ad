"""The process that trains: memory allocator, precision, signals, output."""

import ctypes
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

MOST_KEPT = 2**31 - 1  # bytes of freed memory that malloc keeps by keep_freed_memory()


def keep_freed_memory(most: int = MOST_KEPT) -> None:
    """Tell glibc's malloc to keep freed blocks instead of giving them back; harmless elsewhere.

    Args:
        most: bytes at the heap's end that are kept, up to ``MOST_KEPT``; -1: all.

    Every update frees a chunk's activations and allocates them again. If malloc returned them to the system each time,
    page faults would take up to 40 % of the training time. (mallopt(3): M_MMAP_MAX 0 takes large blocks from the heap
    too, and M_TRIM_THRESHOLD keeps the heap from shrinking.)
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, most)
    mallopt(top_pad, 64 << 20)


def die_with_parent() -> None:
    """Have Linux send this process a SIGTERM when its parent process ends; harmless elsewhere."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    set_parent_death_signal = 1
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before the call took effect
        os.kill(os.getpid(), signal.SIGTERM)


def set_precision(precision: int | str) -> None:
    """Set how a GPU multiplies float32 matrices: in full float32, or with ``tf32`` on tensor cores, which round their
    inputs to 10 bits of mantissa instead of 23. By default, cuDNN's recurrent layers would use TF32."""
    import torch

    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    # Not by the newer fp32_precision of each kind: where two of them are set, allow_tf32 cannot be read any more, and
    # torch.export reads it.
    torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def full_float32() -> Iterator[None]:
    """Within, a GPU multiplies float32 matrices in full float32, whatever :func:`set_precision` set. Does not wait for
    the GPU."""
    import torch

    cudnn: Any = torch.backends.cudnn
    matmul, kinds = torch.get_float32_matmul_precision(), (cudnn.rnn, cudnn.conv)
    before = [kind.fp32_precision for kind in kinds]
    if matmul != "highest":
        torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if matmul != "highest":
            torch.set_float32_matmul_precision(matmul)
        if "tf32" in before:
            cudnn.allow_tf32 = True
        for kind, precision in zip(kinds, before, strict=True):
            if kind.fp32_precision != precision:  # the user's own code set them apart
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
    """This process did not renew its lease for so long that another process has taken its run over."""


class PastHydra(BaseException):
    """Carries an error through Hydra, which would print it at length and exit with 1."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


class StopSignals:
    """Within, SIGINT, SIGTERM and SIGHUP only set a flag; :meth:`check`, called between chunks, raises Interrupted.
    Within :meth:`at_once`, for work that leaves nothing to close, a signal raises Interrupted without a check.

    A second signal, a second or more after the first, stops the process at once. A second SIGHUP does nothing, as a
    closed terminal may send several. An ignored SIGHUP stays ignored (``nohup``). Entering it again while it is entered
    changes nothing.

    Args:
        also: more signals to handle in the same way.
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
        if threading.current_thread() is threading.main_thread():  # only this thread can set handlers and gets signals
            taken = [s for s in self.signals if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
            self._before = {s: signal.signal(s, self._take) for s in taken}
        for handler in self._before.values():  # an outer one may have a signal whose error an import swallowed
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
                raise PastHydra(Interrupted(signum))  # no ``except Exception`` on the way catches it
        elif time.monotonic() - self._taken > 1 and signum != signal.SIGHUP:
            # Only after a second: when a parent ends, Linux may send the signal once for each of its threads.
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def check(self) -> None:
        self.pause_if_asked()
        if self.signum is not None and not self._is_late:
            raise Interrupted(self.signum)

    def pause_if_asked(self) -> None:
        """Pause if SIGTSTP came. Called where this process holds no database lock."""
        if self._is_to_pause:
            self._is_to_pause = False
            self._pause()

    @contextmanager
    def pausing(self, pause: Callable[[], None]) -> Iterator[None]:
        """Within, SIGTSTP (Ctrl-Z) does not stop the process at once. Instead the next :meth:`check` calls ``pause``,
        which returns when the pause is over."""
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
        """From now on a first signal changes nothing, here and in every outer StopSignals. Called when the work is done
        and its end is recorded, so that the exit status agrees with the record."""
        self._is_late = True
        for handler in self._before.values():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopSignals):
                outer.too_late()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises Interrupted at once, at whatever line. For long work that leaves nothing behind, such
        as reading a file."""
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
    """An output file on which no write fails. Output that a closed terminal, a pipe without a reader or a full disk
    does not accept is lost."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            written = super().write(data)
            if written is not None:  # None: a non-blocking pipe is full
                return written
        return len(data)


def prepare_output() -> None:
    """Make sure that printing, by any library, cannot stop the process or change its exit status.

    Output that cannot be written is lost. A letter that the encoding lacks is printed as ``\\xd7``. A standard
    descriptor that was closed when the process started is replaced by the null device: otherwise the next file to be
    opened, such as a database, would get its number, and output would be written into that file.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # open() takes the lowest free number: fd
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or _is_plain(stream, fd):
            setattr(sys, name, _losing(stream, fd))
        else:
            with suppress(AttributeError):  # a notebook's stream has no encoding to fail on
                stream.reconfigure(errors="backslashreplace")


def _is_plain(stream: Any, fd: int) -> bool:
    """Whether a stream is the one that Python opened on a descriptor, and not one of a notebook or a test."""
    file = getattr(stream, "buffer", None)
    file = getattr(file, "raw", file)  # with python -u there is no buffer in between
    return type(file) is io.FileIO and file.fileno() == fd


def _losing(stream: Any, fd: int) -> TextIO:
    """A stream with the settings of the one given (Python's own if it is None) on which no write fails."""
    return io.TextIOWrapper(
        io.BufferedWriter(_LosesWhatNobodyTakes(fd, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None),
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", True),
        write_through=getattr(stream, "write_through", False),
    )


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but for tab and newline


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line at once, by default to stdout.

    Control characters become ``?``, as a name in a file from elsewhere could hold words that a terminal obeys.
    """
    print(CONTROL.sub("?", line), file=file, flush=True)


@contextmanager
def errors_past_hydra() -> Iterator[None]:
    """Wrap each error raised within in PastHydra, so that Hydra does not handle it and the program can."""
    try:
        yield
    except Exception as error:
        raise PastHydra(error) from error

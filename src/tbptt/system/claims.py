"""Files that a process holds, by a lock of the operating system, for as long as the process lives.

The system releases the lock when the process ends, however it ends. So no host names, process numbers or clocks are
needed. In containers these would mislead: a container has another name after a restart, and two containers can use the
same process numbers. Both see the locks on a disk that they share.
"""

# Why not the package filelock (4.3), here and in stores.locked: a file that it releases stays on the disk, and one can
# tell whether a file is held only by taking it. It waits by looking every 50 ms, so a process that asks again at once
# keeps the others out: of eight processes that each held a lock 30 times for 10 ms, one waited for 2.5 s. The system
# gives a lock to the processes in the order in which they ask: there the longest wait was 0.09 s.

import errno
import fcntl
import os
import time
import uuid
from pathlib import Path

from tbptt.system.files import refuse_link

TRIES, WAIT = 4, 0.05  # of a claim, seconds between them: is_claimed, too, locks a file for a moment
_held: dict[Path, int] = {}  # the files that this process holds, with their descriptors


class NoLocks(OSError):
    """The disk has no locks."""


def claim(path: Path) -> bool:
    """Hold a file until :func:`release`; make it if it is not there. False if another process holds it.

    Raises NoLocks if the disk has no locks, and OSError if the file cannot be made.
    """
    path = path.absolute()
    if path in _held:
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not _lock(file, fcntl.LOCK_EX):
            os.close(file)
            time.sleep(WAIT)
        elif _is_still(path, file):
            _held[path] = file
            return True
        else:  # the file was removed meanwhile, and another may be in its place
            os.close(file)
    return False


def release(path: Path) -> None:
    """Release a file and remove it. Does nothing if this process does not hold it."""
    file = _held.pop(path.absolute(), None)
    if file is not None:
        path.unlink(missing_ok=True)  # before the lock ends, so that no other process holds the file
        os.close(file)


def is_claimed(path: Path) -> bool:
    """Whether any process, this one included, holds a file."""
    if is_held_here(path):
        return True
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # a file that cannot be opened, such as another user's, may be held
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    try:
        return not _lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def is_held_here(path: Path) -> bool:
    """Whether this process holds a file."""
    return path.absolute() in _held


def of_this_process(folder: Path) -> str:
    """The name of the file in a folder that this process holds until it ends. Makes the file at the first call, and
    removes the files of processes that have ended. Raises as :func:`claim` does, and ValueError for a linked folder."""
    folder = folder.absolute()
    refuse_link(folder)
    for path in _held:
        if path.parent == folder:
            return path.name
    for path in folder.glob("*"):
        if not is_claimed(path):
            path.unlink(missing_ok=True)
    while not claim(path := folder / uuid.uuid4().hex):  # another process may remove the file just before it is held
        pass
    return path.name


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise NoLocks(*error.args) from error
        raise
    return True


def _is_still(path: Path, file: int) -> bool:
    """Whether a path still names the file that was opened there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """In a forked process: forget the parent's files, which the child does not hold."""
    for file in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget)

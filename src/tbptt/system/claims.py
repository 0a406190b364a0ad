"""A file that a process holds for its life: a lock of the system's, which ends with the process, however that ends.

So it needs no host names, process numbers or clocks: a container's next start has another name, and two containers have
process numbers of their own, while the disk that they share tells who is there.
"""

# The package filelock (4.3) would do neither this nor stores.locked: a file that it lets go stays, and whether one is
# held can be told only by taking it. It waits by looking every 50 ms, so that a process that asks again at once keeps
# the others out: of eight that each held a lock 30 times for 10 ms, one waited for 2.5 s. The system hands a lock on in
# the order of asking: there the longest wait was 0.09 s.

import errno
import fcntl
import os
import time
import uuid
from pathlib import Path

from tbptt.system.files import refuse_link

TRIES, WAIT = 4, 0.05  # of a claim: whoever looks at a file holds it for a moment, too
_held: dict[Path, int] = {}  # what this process holds, with its descriptor


class NoLocks(OSError):
    """The disk has no locks."""


def claim(path: Path) -> bool:
    """Hold a file, which is made if need be, until :func:`release`; False where another process holds it.

    Raises NoLocks where its disk has none, and OSError where the file cannot be made.
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
        else:  # it was removed meanwhile, and another may have been made
            os.close(file)
    return False


def release(path: Path) -> None:
    """Let a file go, and remove it. Nothing where this process does not hold it."""
    file = _held.pop(path.absolute(), None)
    if file is not None:
        path.unlink(missing_ok=True)  # while it is held: nobody else has it
        os.close(file)


def is_claimed(path: Path) -> bool:
    """Whether a process, this one or another, holds a file."""
    if is_held_here(path):
        return True
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # what cannot be looked at, as another user's, may be held
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    try:
        return not _lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def is_held_here(path: Path) -> bool:
    """Whether this process holds a file."""
    return path.absolute() in _held


def of_this_process(folder: Path) -> str:
    """The name of a file in a folder that this process holds for its life; those of processes that are gone are
    removed. Raises as :func:`claim` does, and ValueError where the folder is a link."""
    folder = folder.absolute()
    refuse_link(folder)
    for path in _held:
        if path.parent == folder:
            return path.name
    for path in folder.glob("*"):
        if not is_claimed(path):
            path.unlink(missing_ok=True)
    while not claim(path := folder / uuid.uuid4().hex):  # another process removed it in the moment before it was held
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
    """Whether a path is the file that was opened there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """Of a process that was forked: what its parent holds is not its own."""
    for file in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget)

"""When the disk is the trouble and not the training: full, read-only, taken away. Told from an error, in one line."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

WHAT = {
    errno.ENOSPC: "no room is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "a file or folder may not be written",
    errno.ENOENT: "a folder was taken away",
    errno.EFBIG: "a file may not grow any further (ulimit -f)",
    errno.EIO: "the disk does not work (I/O error)",
    errno.ESTALE: "the network disk is gone",
}
SQLITE = {  # the names of its errors, or how they begin; the first that fits
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_READONLY_DBMOVED": errno.ENOENT,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_CANTOPEN": errno.ENOENT,
    "SQLITE_IOERR": errno.EIO,
}
WORKER_STATUS = 64  # a worker that a disk stopped exits with this much above the error's number


class DiskTrouble(Exception):
    """The disk stopped a run or a study; what was finished is kept.

    Attributes:
        number: the error's, one of errno's.
        where: a path, as far as it is known.
    """

    def __init__(self, number: int, where: str = "", how_to_go_on: str = ""):
        super().__init__(f"{WHAT[number]}{where and f' ({where})'}; what was finished is kept{how_to_go_on}")
        self.number, self.where = number, where


def disk_trouble(error: BaseException) -> DiskTrouble | None:
    """What an error, or one that it came from, says of the disk; None where it says nothing."""
    for each in causes(error):
        if isinstance(each, DiskTrouble):
            return each
        if isinstance(each, OSError) and each.errno in WHAT:
            if each.errno in (errno.ENOENT, errno.EACCES) and not each.filename:
                continue
            # A file that is replaced has a name of its own until it is whole, which nobody looks for.
            is_place = each.errno not in (errno.ENOENT, errno.EACCES) and each.filename
            named = os.fsdecode(each.filename or "")
            return DiskTrouble(each.errno, str(Path(named).absolute().parent) if is_place else named)
        if isinstance(each, sqlite3.Error):  # below what SQLAlchemy, Optuna and MLflow made of it
            name = getattr(each, "sqlite_errorname", "")
            found = next((number for begins, number in SQLITE.items() if name.startswith(begins)), None)
            if found is not None:
                return DiskTrouble(found)
    return None


def fullest(folders: Iterable[Path]) -> str:
    """The one of some folders that has the least room, where an error does not say which it was."""
    there = [folder.absolute() for folder in folders if folder.exists()]
    return str(min(there, key=lambda folder: shutil.disk_usage(folder).free)) if there else ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from; not what was merely being handled then, as a file looked for in vain."""
    while error is not None:
        yield error
        error = error.__cause__

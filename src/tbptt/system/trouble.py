"""Errors of the disk, not of the training: it is full, read-only or gone. Each becomes one line for the user."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
SQLITE = {  # names of SQLite's errors, or their beginnings; the first that fits counts
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_READONLY_DBMOVED": errno.ENOENT,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_CANTOPEN": errno.ENOENT,
    "SQLITE_IOERR": errno.EIO,
}
WORKER_STATUS = 64  # a worker that the disk stopped exits with this plus the error's number


class DiskTrouble(Exception):
    """The disk stopped a run or a study; what was finished is kept.

    Attributes:
        number: the error's number (errno).
        where: a path; empty if unknown.
    """

    def __init__(self, number: int, where: str = "", how_to_go_on: str = ""):
        super().__init__(f"{WHAT[number]}{where and f' ({where})'}; what was finished is kept{how_to_go_on}")
        self.number, self.where = number, where


def disk_trouble(error: BaseException) -> DiskTrouble | None:
    """The disk's trouble that an error, or one of its causes, reports; None if it is about something else."""
    for each in causes(error):
        if isinstance(each, DiskTrouble):
            return each
        if isinstance(each, OSError) and each.errno in WHAT:
            if each.errno in (errno.ENOENT, errno.EACCES) and not each.filename:
                continue
            # While files.replaced writes, the file has a temporary name that tells the user nothing: name its folder.
            is_place = each.errno not in (errno.ENOENT, errno.EACCES) and each.filename
            named = os.fsdecode(each.filename or "")
            return DiskTrouble(each.errno, str(Path(named).absolute().parent) if is_place else named)
        if isinstance(each, sqlite3.Error):  # SQLAlchemy, Optuna and MLflow wrap it in errors of their own
            name = getattr(each, "sqlite_errorname", "")
            found = next((number for begins, number in SQLITE.items() if name.startswith(begins)), None)
            if found is not None:
                return DiskTrouble(found)
    return None


@contextmanager
def first_error() -> Iterator[None]:
    """Around one transaction of SQLite that has savepoints. Where the disk fails, SQLite ends all of it. A savepoint
    cannot be taken back then, and that error comes in place of the first. Raises DiskTrouble instead."""
    try:
        yield
    except Exception as error:
        before = error.__context__
        while before is not None:
            if isinstance(before, sqlite3.Error) and (trouble := disk_trouble(before)):
                raise trouble from error
            before = before.__context__
        raise


def fullest(folders: Iterable[Path]) -> str:
    """The folder with the least free space, for an error that does not name a folder; empty if none exists."""
    there = [folder.absolute() for folder in folders if folder.exists()]
    return str(min(there, key=lambda folder: shutil.disk_usage(folder).free)) if there else ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes (``raise … from …``). Not its contexts: an error that was only being handled at the time,
    such as a missing file, is no cause."""
    while error is not None:
        yield error
        error = error.__cause__

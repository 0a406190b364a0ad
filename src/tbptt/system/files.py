"""Writing files: each is replaced whole, and never through a link. A folder that somebody sent may hold links, and we
must not change the files that these point to."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces ``path`` when the block ends without an error. A reader sees
    the old file or the new one, never a part. If ``path`` is a link, the link itself is replaced.

    Args:
        durable: whether this must hold after a power cut too; then it waits for the disk.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # left by a process that was killed while it wrote, or a link
    try:
        yield beside
        if durable:
            _flush(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if durable:
        _flush(path.parent)


def _flush(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's list of names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text; see :func:`replaced`."""
    with replaced(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by a mapping as JSON; see :func:`replaced`."""
    write_text(path, json.dumps(content))


def open_own(path: Path, flags: int) -> int:
    """Open a file, to append to it or to lock it, and return its descriptor. Makes the file if it is not there. Raises
    ValueError if it is a link."""
    refuse_link(path)
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def make_folder(folder: Path, below: Path) -> Path:
    """Make ``folder``, which lies somewhere below ``below``. ``below`` may be a link itself. Raises ValueError if
    ``folder``, or one between the two, is a link."""
    for each in (folder, *folder.parents):
        if each == below:
            break
        refuse_link(each)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def refuse_link(path: Path) -> None:
    """Raise ValueError if a path is a link."""
    if path.is_symlink():
        raise ValueError(_line(path))


def links_in(study: Path) -> list[str]:
    """A line for each link in a study's folder that stands where a folder or the workers' log will be written."""
    found = [path for path in (*study.glob("*"), *study.glob("*/.hydra")) if path.is_symlink()]
    return [_line(path) for path in sorted(found) if not path.is_file() or path.name == "workers.log"]


def _line(path: Path) -> str:
    return f"{path} is a link, and nothing is written through one; remove it, or put what it names there"


def is_own_file(path: Path) -> bool:
    """Whether a path is a file and no link. Links are not sent anywhere: they could name any file of this machine."""
    return path.is_file() and not path.is_symlink()

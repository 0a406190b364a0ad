"""How files are written: whole, and never through a link. A folder that somebody sent may hold links, and what they
point to is not ours to change."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: Path, durable: bool = False) -> Iterator[Path]:
    """A file beside another that takes its place once it is whole: a reader, or a reload, sees the old or the new. Of a
    link the file takes the place, too.

    Args:
        durable: whether it is to be so also after a power cut; it waits for the disk.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # by a process that was killed at this; or a link
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
    """Wait until the disk has what was written to a file, or which names a folder holds."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, as :func:`replaced` has it."""
    with replaced(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by a mapping as JSON, as :func:`replaced` has it."""
    write_text(path, json.dumps(content))


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a file to append to or to lock, which is made if need be. Raises ValueError where it is a
    link."""
    refuse_link(path)
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def make_folder(folder: Path, below: Path) -> Path:
    """Make a folder somewhere below another, which may be a link itself. Raises ValueError where one between is."""
    for each in (folder, *folder.parents):
        if each == below:
            break
        refuse_link(each)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def refuse_link(path: Path) -> None:
    """Raise ValueError where a path is a link."""
    if path.is_symlink():
        raise ValueError(_line(path))


def links_in(study: Path) -> list[str]:
    """A line for each link in a study's folder where a folder or the workers' log is to be written."""
    found = [path for path in (*study.glob("*"), *study.glob("*/.hydra")) if path.is_symlink()]
    return [_line(path) for path in sorted(found) if not path.is_file() or path.name == "workers.log"]


def _line(path: Path) -> str:
    return f"{path} is a link, and nothing is written through one; remove it, or put what it names there"


def is_own_file(path: Path) -> bool:
    """Whether a path is a file, and no link: what is elsewhere on this machine is not sent."""
    return path.is_file() and not path.is_symlink()

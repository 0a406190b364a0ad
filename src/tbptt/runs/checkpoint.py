"""Checkpoints: they hold plain types only, are written durably and checked when read, and never run code.

``last.ckpt`` has a twin, ``last.previous.ckpt``, the checkpoint before it. The twin is used if the newest is damaged.
"""

import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import torch
from torch import Tensor

from tbptt.runs.contents import IF_THERE, OF_A_RUN, plain_copy, unreadable, why_not_plain
from tbptt.system.files import replaced
from tbptt.system.memory import too_large

log = logging.getLogger("tbptt")

FORMAT = 1
TESTS = {**OF_A_RUN, **IF_THERE}
# For some parts of a checkpoint: the config group whose option supplies the part, and where that comes from.
GIVEN_BY = {
    "model": ("model", "its state_dict"),
    "optimizer": ("optimizer", "its state_dict"),
    "scaler": ("task", "the scale of its targets, or what change_cost gives,"),
    "callbacks": ("callback", "its state_dict"),
}


def save(path: Path, content: dict[str, Any], keep_previous: bool = False) -> None:
    """Write a checkpoint. Whatever happens, ``path`` holds the complete old checkpoint or the complete new one.

    Args:
        content: tensors, numbers, texts, and lists, tuples and dicts of them.
        keep_previous: also keep the old checkpoint, at :func:`previous`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for cut in path.parent.glob(f".{path.name}.*"):  # partial files of a process that was killed while writing
        cut.unlink(missing_ok=True)
    with replaced(path, durable=True) as beside:
        with beside.open("wb") as file:
            _write(content, file)
        if keep_previous and path.exists():
            _second_name(path, previous(path))


def as_bytes(content: dict[str, Any]) -> bytes:
    """What :func:`save` writes."""
    file = io.BytesIO()
    _write(content, file)
    return file.getvalue()


def _write(content: dict[str, Any], file: IO[bytes]) -> None:
    torch.save({"format": FORMAT, "sha256": digest(content), **content}, file)


def _is_about_content(error: Exception) -> bool:
    """Whether an error of writing or reading a checkpoint is about its content, not about the disk or memory."""
    return isinstance(error, ValueError | TypeError | AttributeError) or type(error).__name__ == "PicklingError"


def save_and_try(path: Path, content: dict[str, Any], keep_previous: bool = False) -> None:
    """:func:`save` a run's checkpoint, and read it as a resumed run would.

    The user's own optimizer, callback or task may keep values that cannot be read. Without this check, an error would
    come only when the run is resumed, after hours of training.

    Raises:
        ValueError: the checkpoint could not be read; the message is a line that names what cannot be kept. The old
            checkpoint is at ``path`` again.
    """
    try:
        save(path, content, keep_previous)
    except Exception as error:
        if not _is_about_content(error):
            raise
        raise ValueError(_what_cannot_be_kept(path, content, error)) from error
    if too_large(2 * path.stat().st_size):  # too large to read here and now; another machine may read it
        return
    try:
        load(path, OF_A_RUN)
    except ValueError as error:
        if keep_previous and previous(path).exists():
            previous(path).replace(path)
        else:
            path.unlink()
        raise ValueError(_what_cannot_be_kept(path, content, error)) from error


def save_seen(path: Path, content: dict[str, Any], keep_previous: bool = False) -> None:
    """:func:`save` a later checkpoint of a run, and check it in memory first.

    The run's first checkpoint was read as a test, but the user's own code may supply other values by now.

    Raises:
        ValueError: the checkpoint could not be read; the message is a line that names what cannot be kept. Nothing was
            written.
    """
    for name in GIVEN_BY:
        if name in content:
            reason = why_not_plain(content[name])
            if reason or not TESTS[name](content[name]):
                raise ValueError(_cannot_be_kept(name, content, reason or "something else is in its place"))
    save(path, content, keep_previous)


def _what_cannot_be_kept(path: Path, content: dict[str, Any], error: Exception) -> str:
    """A line about the first part of a checkpoint that cannot be written and read on its own."""
    for name, value in content.items():
        part = path.with_name(f".{path.name}.{name}")  # if this is interrupted, the next save() removes the file
        try:
            save(part, {name: value})
            load(part, {name: TESTS[name]} if name in TESTS else {})
        except Exception as wrong:
            if not _is_about_content(wrong):
                raise
            return _cannot_be_kept(name, content, _reason(part, wrong))
        finally:
            part.unlink(missing_ok=True)
    return _reason(path, error)


def _cannot_be_kept(name: str, content: dict[str, Any], reason: str) -> str:
    group, gives = GIVEN_BY.get(name, ("", ""))
    whose = f"{group}={content['config'][group]['name']}: {gives}" if group else f"{name}:"
    takes = "tensors, numbers of 64 bits, texts, and lists of them"
    return f"{whose} holds what no checkpoint may: {reason}; takes {takes}"


def _reason(path: Path, error: Exception) -> str:
    """Why :func:`save` or :func:`load` failed, without the path."""
    reason = (str(error).splitlines() or [""])[0]
    if not isinstance(error, ValueError):
        return f"{type(error).__name__}: {reason}"
    return re.sub(r"^is not a checkpoint of (tbptt|a run): ", "", reason.removeprefix(f"{path} "))


def _second_name(path: Path, other: Path) -> None:
    """Make ``other`` a second name of the file at ``path``; neither is missing at any moment."""
    with replaced(other) as beside:
        try:
            os.link(path, beside)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, beside)


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is kept."""
    return path.with_suffix(f".previous{path.suffix}")


def load(path: Path, needs: Mapping[str, Callable[[Any], bool]] = MappingProxyType({})) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        needs: the parts that it must hold, with a test of the type of each, as :data:`tbptt.runs.contents.OF_A_RUN`.

    Raises:
        ValueError: the file is missing, damaged, altered or of another format; a part is missing or has a wrong type;
            it holds anything but plain types, or more data than its size allows.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if problem := unreadable(path):
        raise ValueError(f"{path} {problem}")
    try:
        # Memory-mapped: torch then reads no byte beyond the file's end, whatever size the file claims for a tensor.
        read = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file can make torch raise any error
        raise ValueError(f"{path} is not a checkpoint of tbptt, or is damaged ({type(error).__name__})") from error
    if not isinstance(read, dict) or type(read.get("format")) is not int or read["format"] != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of tbptt (format {FORMAT})")
    try:
        content: dict[str, Any] = plain_copy(read, path.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{path} is not a checkpoint of tbptt: {error}") from None
    content = {name: value for name, value in content.items() if name != "format"}
    if content.pop("sha256", None) != digest(content):
        raise ValueError(f"{path} was altered: its checksum is not that of its content")
    if lacks := [name for name in needs if name not in content]:
        raise ValueError(f"{path} is not a checkpoint of a run: it lacks {', '.join(lacks)}")
    tests = {**needs, **(TESTS if needs else {})}  # parts that are not needed have their types, too
    if wrong := [name for name, test in tests.items() if name in content and not test(content[name])]:
        raise ValueError(f"{path} is not a checkpoint of a run: something else is in place of its {', '.join(wrong)}")
    return content


def load_newest(path: Path) -> dict[str, Any] | None:
    """A run's checkpoint at ``path``; None if there is none.

    If it is damaged, a warning says so, and the checkpoint before it is read. Raises ValueError if neither can be read.
    """
    before = previous(path)
    if not path.exists():
        return load(before, OF_A_RUN) if before.exists() else None
    try:
        return load(path, OF_A_RUN)
    except ValueError as error:
        if not before.exists():
            raise
        log.warning("%s; going on from the one before it, %s", error, before.name)
        return load(before, OF_A_RUN)


def digest(content: Any) -> str:
    """SHA-256 of plain types and tensors, the same after a round trip through a file."""
    found = hashlib.sha256()
    _add(found, content)
    return found.hexdigest()


def _add(found: Any, content: Any) -> None:
    if isinstance(content, dict):
        for name, value in content.items():
            found.update(f"{name!r}:".encode())
            _add(found, value)
    elif isinstance(content, list | tuple):
        found.update(f"{len(content)}[".encode())
        for value in content:
            _add(found, value)
    elif isinstance(content, Tensor):
        found.update(f"{content.dtype}{tuple(content.shape)}".encode())
        # As bytes: an optimizer may keep its momenta in bfloat16, which NumPy does not have.
        found.update(content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    else:
        found.update(repr(content).encode())

"""Checkpoints: plain types only, written durably, read without running anything that is in them."""

import os
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that ``path`` holds either the old one or the new one, whole, whatever happens.

    Args:
        content: tensors, numbers, texts, lists, tuples and dicts of them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: it is missing, damaged, of another format, or holds anything but plain types.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # torch raises whatever the damage makes it stumble over
        raise ValueError(f"{path} is not a checkpoint of tbptt, or is damaged ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of tbptt (format {FORMAT})")
    return content

"""Keys that have another name than they had: the old one goes on working, where it was typed, kept or searched."""

from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# What is learnt of the prices was said with the prices.
MOVED = {f"data.{leaf}": f"task.{leaf}" for leaf in ("gamma", "fee", "fee_unit", "horizon")}
_OLD = {new: old for old, new in MOVED.items()}
FIRST_TASK = "q_values"  # the only one there was


def name_now(key: str) -> str:
    """A key by the name that it has now."""
    return MOVED.get(key, key)


def first_name(key: str) -> str:
    """A key by the name that it had first, by which studies know it: their names, digests and parameters stay."""
    return _OLD.get(key, key)


def spelled_anew(word: str) -> str:
    """An override with its key's name of now."""
    key, is_there, value = word.partition("=")
    bare = key.lstrip("+~")
    return f"{key.removesuffix(bare)}{name_now(bare)}{is_there}{value}" if is_there else word


def move(cfg: DictConfig, typed: Collection[str] = ()) -> None:
    """Bring what a file says under an old name to where it is now, in place.

    Args:
        typed: the keys of the command line, which comes before files.
    """
    for old, new in MOVED.items():
        value = OmegaConf.select(cfg, old)
        if value is None:
            continue
        OmegaConf.update(cfg, old, None)
        task, leaf = OmegaConf.select(cfg, "task"), new.rpartition(".")[2]
        if task is not None and leaf in task and new not in typed:  # else it is about a task that was not chosen
            OmegaConf.update(cfg, new, value)


def moved(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config in plain types, as an earlier version may have kept it, with its keys' names of now."""
    found = {name: dict(part) if isinstance(part, Mapping) else part for name, part in content.items()}
    data = found.get("data")
    if "task" in found or not isinstance(data, dict):
        return found
    found["task"] = {"name": FIRST_TASK}
    for old, new in MOVED.items():
        leaf = old.rpartition(".")[2]
        if leaf in data:
            found["task"][new.rpartition(".")[2]] = data.pop(leaf)
    return found


def without_moved(content: dict[str, Any]) -> dict[str, Any]:
    """A config in plain types without the old names, which :func:`move` has emptied; in place."""
    data = content.get("data")
    if isinstance(data, dict):
        for old in MOVED:
            if data.get(old.rpartition(".")[2], 0) is None:
                del data[old.rpartition(".")[2]]
    return content

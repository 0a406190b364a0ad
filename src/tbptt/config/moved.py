"""Keys that have another name than they had: the old one goes on working, where it was typed, kept or searched.

What is learnt of the prices was said with the prices: ``data.gamma`` and three more are keys of ``task=q_values`` now.
A file of a data source that says them says what they are by default there (conf/task/q_values.yaml); what is kept of a
config has them under their names of now only.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tbptt.options.option import GROUPS

MOVED = {f"data.{leaf}": f"task.{leaf}" for leaf in ("gamma", "fee", "fee_unit", "horizon")}
_OLD = {new: old for old, new in MOVED.items()}
FIRST_TASK = "q_values"  # the only one there was


def name_now(key: str) -> str:
    """A key by the name that it has now; its own where a data source of the user's has a key of that name itself."""
    return key if key in _of_own_sources() else MOVED.get(key, key)


def first_name(key: str) -> str:
    """A key by the name that it had first, by which studies know it: their names, digests and parameters stay."""
    return _OLD.get(key, key)


def spelled_anew(word: str) -> str:
    """An override with its key's name of now."""
    key, is_there, value = word.partition("=")
    bare = key.lstrip("+~")
    return f"{key.removesuffix(bare)}{name_now(bare)}{is_there}{value}" if is_there else word


def _of_own_sources() -> set[str]:
    known = {f"data.{f.name}" for option in GROUPS["data"].values() for f in fields(option) if "takes" in f.metadata}
    return known & set(MOVED)


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


def under_names_of_now(content: dict[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """A config in plain types, of ``cfg``, with what was said under an old name under that of now only; in place."""
    data, task = content.get("data"), content.get("task")
    if not isinstance(data, dict):
        return content
    for old, new in MOVED.items():
        leaf = old.rpartition(".")[2]
        if isinstance(task, dict) and task.get(leaf) == f"${{{old}}}":
            task[leaf] = OmegaConf.select(cfg, new)
        if _is_moved(cfg, leaf):
            data.pop(leaf, None)
    return content


def said_by_old_names_too(cfg: DictConfig) -> DictConfig:
    """A config that was kept, where who reads ``config.data.gamma`` finds what was trained with; in place."""
    for old, new in MOVED.items():
        leaf = old.rpartition(".")[2]
        if OmegaConf.select(cfg, new) is not None and _is_moved(cfg, leaf):
            OmegaConf.update(cfg, old, OmegaConf.select(cfg, new))
    return cfg


def _is_moved(cfg: DictConfig, leaf: str) -> bool:
    """Whether a field of the data's schema is one that has another name now, and no key of its own."""
    schema = OmegaConf.get_type(cfg, "data")
    return any(f.name == leaf and "moved" in f.metadata for f in fields(schema)) if isinstance(schema, type) else False

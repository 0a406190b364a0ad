"""Keys that were renamed. The old name still works on the command line, in searches and in configs that were kept.

``data.gamma``, ``data.fee``, ``data.fee_unit`` and ``data.horizon`` are about what is learnt, not about the prices, so
they are keys of ``task=q_values`` now. If the yaml of a data source sets an old name, this becomes the default of the
new one (conf/task/q_values.yaml). Configs are kept with the new names only.
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
    """A key's present name. Unchanged if the user's own data source has a key of the old name itself."""
    return key if key in _of_own_sources() else MOVED.get(key, key)


def first_name(key: str) -> str:
    """A key's first name. Studies use it, so that their names, digests and parameters do not change."""
    return _OLD.get(key, key)


def spelled_anew(word: str) -> str:
    """An override with its key's present name."""
    key, is_there, value = word.partition("=")
    bare = key.lstrip("+~")
    return f"{key.removesuffix(bare)}{name_now(bare)}{is_there}{value}" if is_there else word


def _of_own_sources() -> set[str]:
    known = {f"data.{f.name}" for option in GROUPS["data"].values() for f in fields(option) if "takes" in f.metadata}
    return known & set(MOVED)


def moved(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config in plain types with its keys' present names; an earlier version may have kept it with old names."""
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
    """Change ``content``, which is ``cfg`` in plain types, in place: a value under an old name moves to the present
    name."""
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
    """Give a config that was kept its values under the old names too, in place: code that reads ``config.data.gamma``
    still gets the value that was used in training."""
    for old, new in MOVED.items():
        leaf = old.rpartition(".")[2]
        if OmegaConf.select(cfg, new) is not None and _is_moved(cfg, leaf):
            OmegaConf.update(cfg, old, OmegaConf.select(cfg, new))
    return cfg


def _is_moved(cfg: DictConfig, leaf: str) -> bool:
    """Whether a field of the data's schema only stands for a renamed key (see ``moved_key``)."""
    schema = OmegaConf.get_type(cfg, "data")
    return any(f.name == leaf and "moved" in f.metadata for f in fields(schema)) if isinstance(schema, type) else False

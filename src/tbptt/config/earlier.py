"""What ``conf/`` said before: how a study or a file that an earlier version began goes on.

A new key's default in the schema is what runs did before there was the key. ``conf/`` may have another default: new
commands then do something new, and what was begun before would change too. :data:`CHANGES` lists every default of
``conf/`` that has changed. From it follow the words, like ``data.test_series=0``, with which a command means
what it meant then (:func:`earlier_words`). A study keeps the number of changes that were there when it was begun.

A file that reruns a run says every key that there was. So a key that it does not say is newer than the file
(:func:`with_what_was_done_then`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tbptt.config.plain import HEADER
from tbptt.config.schema import Config
from tbptt.options.option import GROUPS, OF_A_RUN, default_of
from tbptt.options.values import stored, text_of


@dataclass(frozen=True)
class Change:
    """A default of ``conf/`` that has changed.

    Attributes:
        key: its dotted name; or a group, of which another option is chosen now.
        group, options: the options whose yaml has it. An own option's yaml is the user's: nothing of it is listed. If
            ``group`` is None, base.yaml has it.
        was: before. For a new key this is its default in the schema.
        now: in ``conf/`` as it is.
    """

    key: str
    group: str | None
    options: tuple[str, ...]
    was: Any
    now: Any


# What one version changed is one entry, the newest last. Only add entries: studies keep how many there were.
CHANGES: tuple[tuple[Change, ...], ...] = (
    (
        Change("data.test_series", "data", ("article",), 0, 12),
        Change("data.test_fraction", "data", ("prices", "market"), 0, 0.2),
        Change("data.warm_steps", "data", ("prices", "market"), 0, 1000),
        Change("task.gamma", "data", ("prices", "market"), 0.99, 0.9),  # as ${data.gamma}
    ),
    (
        Change("data.reading", "data", ("prices",), "plain", "auto"),
        Change("data.split", "data", ("prices", "market"), "each", "time"),
    ),
    (
        Change("model.noise_from", "model", ("article", "minlstm"), "pool", "counter"),
        Change("lr_schedule", "optimizer", ("adam", "adamw"), "constant", "by_chunk"),
        Change("seed", None, (), 2, 0),
    ),
    (Change("cuda_graphs", None, (), False, "auto"),),
    (Change("lr_schedule", "optimizer", ("momentum",), "constant", "by_chunk"),),
)


def earlier_words(cfg: DictConfig, typed: Collection[str], searched: Collection[str] = (), begun: int = 0) -> list[str]:
    """The words with which a command composes what it composed when only the first ``begun`` of :data:`CHANGES` were
    there. Empty if that was the same.

    A key gets a word if it has the value that ``conf/`` gives it now. It gets none if it was typed or is searched, or
    if a file of the user's gives it another value. If a group is searched, the keys of its options get none, as no word
    fits all of them. A group that its options choose another option of gets the one that all of them had then, and none
    if they differed then.

    Args:
        typed, searched: names of keys and groups.
    """
    differed = {change.key for step in CHANGES[:begun] for change in step}  # options chose different ones then already
    then: dict[str, Any] = {}
    for change in (each for step in reversed(CHANGES[begun:]) for each in step):
        if change.key in (*typed, *searched):
            continue
        if change.group in searched:
            if change.key in GROUPS and change.key not in differed:
                then[change.key] = change.was
            continue
        is_chosen = change.group is None or OmegaConf.select(cfg, f"{change.group}.name") in change.options
        if is_chosen and then.get(change.key, _value(cfg, change.key)) == change.now:
            then[change.key] = change.was
    return [f"{key}={text_of(stored(value))}" for key, value in then.items()]


def _value(cfg: DictConfig, key: str) -> Any:
    value = OmegaConf.select(cfg, f"{key}.name" if key in GROUPS else key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def reruns(file: Path) -> bool:
    """Whether a file was written by :func:`tbptt.config.plain.rerunnable`. There may be other comments before its
    header."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        return HEADER in takewhile(lambda line: line.startswith("#"), lines)


def with_what_was_done_then(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file that reruns a run, with the new keys that it does not say at their schema defaults. What is
    not of the form that such a file has stays as it is."""
    found = {**_not_said(Config, content), **content}
    chosen = []
    for group in OF_A_RUN:
        if group not in found and (first := _first_option(group)) is not None:
            found[group] = {"name": first}
            chosen.append({f"override {group}": first})
        part = found.get(group)
        if isinstance(part, Mapping) and (schema := GROUPS[group].get(str(part.get("name")))):
            found[group] = {**_not_said(schema, part), **part}
    defaults = found.get("defaults")
    if isinstance(defaults, list) and chosen:
        place = defaults.index("_self_") if "_self_" in defaults else len(defaults)
        found["defaults"] = [*defaults[:place], *chosen, *defaults[place:]]
    return found


def _not_said(schema: type, part: Mapping[str, Any]) -> dict[str, Any]:
    """The new keys of a schema that a part of a config does not have, with their defaults."""
    return {f.name: default_of(f) for f in fields(schema) if f.metadata.get("new") and f.name not in part}


def _first_option(group: str) -> str | None:
    """What runs did before there was the group; None if there always was one."""
    names = (f for option in GROUPS[group].values() for f in fields(option) if f.name == "name")
    return next((str(f.default) for f in names if f.metadata.get("new")), None)

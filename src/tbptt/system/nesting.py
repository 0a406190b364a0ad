"""Limits on what is read or typed, checked before it is parsed into objects. With aliases, a few bytes of YAML can
stand for gigabytes, and a value that is nested too deeply crashes its parser."""

from pathlib import Path

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

LARGEST = 1_000_000  # bytes of a file
MOST = 20_000  # keys and values in a file, each counted as often as aliases repeat it
DEEPEST = 50


def yaml_problem(path: Path) -> str | None:
    """Why a YAML file must not be read as a config: it is too large, nested too deeply, its aliases repeat too much, or
    an anchor contains itself. None otherwise. None too if the file is no YAML: its reader reports that."""
    if path.stat().st_size > LARGEST:
        return f"has {path.stat().st_size:,} bytes; takes at most {LARGEST:,}"
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read()
    try:
        return _grows(text)
    except yaml.YAMLError:  # libyaml, which looks ahead, also gives up at a thousand brackets
        return f"is nested more than {DEEPEST} deep" if is_too_deep(text) else None


def _grows(text: str) -> str | None:
    known: dict[str, tuple[int, int]] = {}  # by anchor: the number of things and of levels that it stands for
    open_nodes: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, things and levels so far

    def add(things: int, levels: int) -> None:
        anchor, before, deepest = open_nodes[-1]
        open_nodes[-1] = (anchor, before + things, max(deepest, levels))

    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, AliasEvent):
            name = str(event.anchor)
            if any(anchor == name for anchor, *_ in open_nodes):
                return f"has &{name[:40]}, which stands within itself"
            add(*known.get(name, (1, 0)))
        elif isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, 1, 0))
        elif isinstance(event, CollectionEndEvent):
            anchor, things, levels = open_nodes.pop()
            known |= {anchor: (things, levels + 1)} if anchor else {}
            add(things, levels + 1)
        elif isinstance(event, NodeEvent):
            known |= {event.anchor: (1, 0)} if event.anchor else {}
            add(1, 0)
        if max(len(open_nodes) - 1, open_nodes[-1][2]) > DEEPEST:
            return f"is nested more than {DEEPEST} deep"
        if open_nodes[-1][1] > MOST:
            return f"stands for more than {MOST:,} keys and values"
    return None


def is_too_deep(word: str) -> bool:
    """Whether brackets in what was typed are nested too deeply."""
    depth = 0
    for letter in word:
        depth += (letter in "[{(") - (letter in "]})" and depth > 0)
        if depth > DEEPEST:
            return True
    return False

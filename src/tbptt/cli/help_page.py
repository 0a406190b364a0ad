"""The page of ``--help``: commands, flags, groups, and every key with the values it takes and its meaning."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from tbptt.config.checks import keys
from tbptt.config.compose import ConfigSource
from tbptt.config.schema import register
from tbptt.config.typed import FLAGS
from tbptt.options.option import CHOSEN, GROUPS
from tbptt.options.takes import Takes
from tbptt.options.values import stored, text_of
from tbptt.system.command import command

_LINE = re.compile(r"( *)(\w+):([^#]*)(?:#\s*(.*))?")
HEAD = """\
Train recurrent networks on sequences too long to backpropagate through at once; search what trains them.

EXAMPLES

What has several values, sweep= and study.* need -m. A key that takes text takes the rest of the word as it stands:
"data.path=S&P 500 (1).csv".
"""
EXAMPLES = (
    ("", "one run"),
    (" optimizer=rmsprop clip=0.5 epochs=20", "one run, keys changed"),
    (" -m optimizer=adam,rmsprop clip=0.5,1,2", "a run for each combination: a study"),
    (" -m sweep=clip study.dry_run=true", "what a ready-made study would run"),
)


def help_text(conf: Path) -> str:
    """The text of ``--help``: commands, flags, groups, and every key with the values it takes and its default."""
    register()
    source = ConfigSource(conf)
    with source.opened():
        cfg = source.compose([])
        groups = [f"  {group:<24} {', '.join(source.options(group))}" for group in CHOSEN]
    meant: dict[str, str] = {}
    for base in filter(None, (conf / "base.yaml", source.file("base"))):  # the user's own may have no comments
        meant |= _comments(base)
    for group in GROUPS:
        chosen = OmegaConf.select(cfg, group.replace("/", ".")).name
        options = sorted(source.options(group), key=lambda option: option == chosen)
        for option in options:  # the chosen option comes last, so its comments count
            if file := source.file(f"{group}/{option}"):
                meant |= _comments(file, group)
    lines = [_line(name, node, leaf, takes, meant.get(name, "")) for name, node, leaf, takes in keys(cfg)]
    here = {name for name, *_ in keys(cfg)}
    for group, schemas in GROUPS.items():
        for option, schema in schemas.items():  # the yaml is only read: composing all options takes a second
            file = source.file(f"{group}/{option}")
            if file is None:
                continue  # an option of the user's own that has no yaml yet
            values = cast(DictConfig, OmegaConf.load(file))
            meant |= _comments(file, group)
            structure = cast(DictConfig, OmegaConf.structured(schema))
            for name, _, leaf, takes in keys(structure, group.replace("/", ".") + "."):
                if name not in here:
                    here.add(name)
                    lines.append(_line(name, values, leaf, takes, meant.get(name, ""), f" [{group}={option}]"))
    return "\n".join(
        [
            HEAD.replace("EXAMPLES", "\n".join(f"  {command('train') + words:<57} {does}" for words, does in EXAMPLES)),
            "Flags:",
            *(f"  {flag + (f' {takes}' if takes else ''):<36} {words}" for flag, (takes, words) in FLAGS.items()),
            "",
            "Groups (GROUP=OPTION):",
            *groups,
            "",
            "Keys (KEY=VALUE), with their defaults:",
            *lines,
        ]
    )


def _line(name: str, node: DictConfig, leaf: str, takes: Takes, means: str, of: str = "") -> str:
    value = "" if OmegaConf.is_missing(node, leaf) else _typed(node[leaf])
    return f"  {name + '=' + value:<44} {takes.text}{of}" + (f"  # {means}" if means else "")


def _typed(value: object) -> str:
    """A value as one types it."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, DictConfig):  # such keys are empty by default
        return "{}"
    return text_of(stored(value))


def _comments(file: Path, group: str = "") -> Iterator[tuple[str, str]]:
    """The comment beside each key of a config file, by the key's dotted name."""
    above: list[tuple[int, str]] = []
    for line in file.read_text().splitlines():
        if match := _LINE.fullmatch(line):
            indent, key = len(match[1]), match[2]
            above = [(depth, name) for depth, name in above if depth < indent]
            names = [*group.split("/"), *(name for _, name in above), key]
            above.append((indent, key))
            if match[4]:
                yield ".".join(filter(None, names)), match[4]

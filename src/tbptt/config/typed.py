"""The typed command, checked before anything is composed: its flags, and words on which Hydra would print a long error
or none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.types import Override

from tbptt.config.compose import parsed
from tbptt.config.hydra_node import typed_problem
from tbptt.config.schema import all_keys
from tbptt.options.option import CHOSEN, GROUPS
from tbptt.options.takes import wrong_value

# By flag: what it takes (None: no value), and what it does. Those of Hydra's flags that are not here are refused.
FLAGS: dict[str, tuple[str | None, str]] = {
    "-m": (None, "search: every point of what has several values, or study.n_trials of them"),
    "--config-dir": ("FOLDER", "configs of your own; they come before the shipped ones"),
    "--config-name": ("NAME", "begin with this config, as best.yaml of a study or a run's config.yaml"),
    "--cfg": ("job|hydra|all", "print the config of a run, and start nothing"),
    "--resolve": (None, "with --cfg: what ${...} stands for"),
    "--package": ("KEY", "with --cfg: only this part"),
    "--info": ("all|config|defaults|defaults-tree|plugins|searchpath", "print how the config is put together"),
    "--shell-completion": (None, "with install=bash, zsh or fish: what the shell then completes"),
    "--version": (None, "print Hydra's version"),
    "--help": (None, "print this"),
}
OTHER_NAMES = {
    "--multirun": "-m", "-cd": "--config-dir", "-cn": "--config-name", "-c": "--cfg", "-p": "--package", "-i": "--info",
    "-sc": "--shell-completion", "-h": "--help", "--hydra-help": "--help", "-r": "--run", "-cp": "--config-path",
}  # fmt: skip
REFUSED = ("--config-path", "--experimental-rerun")
COMMANDS = ("-m", "--run", "--cfg", "--info", "--shell-completion")

MOST_TYPED = (
    10_000  # characters of a word: Hydra takes a second to read a list of a thousand, and reads it several times
)

_COMPLETION = re.compile("(install|uninstall|query)=(bash|zsh|fish)")


@dataclass
class Typed:
    """A command: its flags with their values, its other words as typed, and a line for each wrong flag."""

    flags: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def argv(self, words: Sequence[str]) -> list[str]:
        """The arguments in the order that Hydra needs: flags first."""
        return [*(f"{flag}={got}" if got else flag for flag, got in self.flags.items()), *words]

    @property
    def is_search(self) -> bool:
        return "-m" in self.flags

    @property
    def starts_nothing(self) -> bool:
        return "--cfg" in self.flags or "--info" in self.flags


def read(argv: Sequence[str]) -> Typed:
    """Separate flags from other words, in any order."""
    typed = Typed()
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, has_value, value = word.partition("=")
        flag = OTHER_NAMES.get(flag, flag)
        if not word.startswith("-"):
            typed.words.append(word)
        elif flag in REFUSED:
            typed.lines.append(f"{flag}: is not taken; takes --config-dir FOLDER, whose files are data")
            if not has_value:
                words[:1] = []
        elif flag not in FLAGS and flag != "--run":
            typed.lines.append(_no_flag(word))
        else:
            takes = FLAGS.get(flag, (None,))[0]
            if takes and not has_value:
                is_next = bool(words) and (flag != "--info" or words[0] in takes.split("|"))
                value = words.pop(0) if is_next and not words[0].startswith("-") else "all" if flag == "--info" else ""
            typed.lines += _wrong_flag(flag, takes, value, bool(has_value))
            typed.flags[flag] = value
    typed.lines += _wrong_together(typed.flags)
    if "--shell-completion" in typed.flags and not all(map(_COMPLETION.fullmatch, typed.words or [""])):
        typed.lines.append("--shell-completion: takes install=SHELL or uninstall=SHELL beside it: bash, zsh or fish")
    return typed


def _no_flag(word: str) -> str:
    if "=" in word:
        return f"{word}: not a flag; takes {word.lstrip('-')}, without the dash"
    return f"{word}: not a flag; takes one of {', '.join(FLAGS)}"


def _wrong_flag(flag: str, takes: str | None, value: str, has_value: bool) -> list[str]:
    if takes is None:
        return [f"{flag}: got {value!r}; takes no value"] if has_value else []
    if not value:
        return [f"{flag}: missing; takes {takes}"]
    if "|" in takes and value not in takes.split("|"):
        return [wrong_value(flag, value, "one of " + ", ".join(takes.split("|")))]
    return []


def _wrong_together(flags: dict[str, str]) -> list[str]:
    lines = [
        f"{flag}: takes --cfg beside it"
        for flag in ("--resolve", "--package")
        if flag in flags and "--cfg" not in flags
    ]
    first, *others = [flag for flag in COMMANDS if flag in flags] or [""]
    for other in others:
        why = "prints what one run would have, and starts nothing; " if first == "-m" and other != "--run" else ""
        lines.append(f"{other}: {why}takes no {first} beside it")
    return lines


def overrides_of(typed: Typed) -> tuple[list[Override], list[str]]:
    """The overrides that can be composed from a command's words, and a line for each of the other words."""
    names = {*CHOSEN, *(name for name, *_ in all_keys())}
    lines, words = [], []
    for word in typed.words:
        key, is_there, value = word.partition("=")
        bare = key.lstrip("+")
        if is_there and not bare.strip():
            lines.append(f"{word}: has no key; takes KEY=VALUE")
        elif len(word) > MOST_TYPED:
            lines.append(f"{key[:100]}: got {len(value)} characters; takes at most {MOST_TYPED}")
        elif key == bare or bare.startswith("hydra"):
            words.append(word)
        elif bare in names:
            lines.append(f"{key}: is there already; takes {bare}={value}, without the +")
        else:
            words.append(word.lstrip("+"))  # an unknown key: the line about it will suggest a similar one
    overrides, wrong = parsed(words, may_sweep=typed.is_search)
    lines += wrong
    right = []
    for override in overrides:
        if line := _problem(override):
            lines.append(line)
        else:
            right.append(override)
    return right, lines


def _problem(override: Override) -> str | None:
    key = override.key_or_group
    if override.package is not None:
        return f"{override.get_key_element()}: takes {key}=VALUE, without @{override.package}"
    if key in CHOSEN and isinstance(override.value(), list | dict):
        options = ", ".join(sorted(GROUPS.get(key, ())))
        return wrong_value(key, override.value(), f"one of {options}" if options else "the name of an option")
    return typed_problem(override) if key.startswith("hydra") else None

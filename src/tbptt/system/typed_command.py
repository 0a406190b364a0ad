"""The command as it was typed, for those who read later how a run or a study came about."""

import shlex
from collections.abc import Sequence

from tbptt.system.command import command
from tbptt.system.environment import said
from tbptt.system.secrets import hide

_typed: list[str] = []


def note_typed(argv: Sequence[str]) -> None:
    """Remember a command's words, without the program's name."""
    _typed[:] = argv


def typed_command(words: Sequence[str]) -> str:
    """The command of this process as it was typed, on one line and without secrets. Empty if there was none.

    Args:
        words: its overrides, with those that the environment adds; the keys that these set are named.
    """
    return hide(f"{command('train')} {shlex.join(_typed)}{said(words)}") if _typed else ""


def in_a_shell(words: Sequence[str]) -> str:
    """Overrides as a command to type, without secrets."""
    return hide(" ".join([command("train"), *map(shlex.quote, words)]))

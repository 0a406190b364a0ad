"""Converting what is typed to the spelling that Hydra reads.

Hydra's grammar does not accept file names like ``S&P 500 (1).csv`` as text, and reads ``[700.10]`` as a number. So if a
key takes text, the rest of its word is taken literally and passed to Hydra in quotes. What has a meaning in Hydra keeps
it: quotes, several values, functions, ``${...}``, ``null``.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from tbptt import compat
from tbptt.config.schema import all_keys
from tbptt.options.option import CHOSEN
from tbptt.options.values import quoted

_WORD = re.compile(r"(\+*[A-Za-z_][\w./]*)=(.*)", re.DOTALL)
_FUNCTION = re.compile(r"\s*(choice|shuffle)\((.*)\)\s*", re.DOTALL)


class Text(NamedTuple):
    """How a key takes text.

    Attributes:
        is_list: whether it takes a list of texts, and not one text.
        is_option: whether it takes one of a few names, which contain no commas.
    """

    is_list: bool
    is_option: bool


def text_keys() -> dict[str, Text]:
    """The keys that take text, in the schema of every option, and the groups."""
    found = dict.fromkeys(CHOSEN, Text(False, True))
    for name, kind, takes in all_keys():
        if kind in (str, str | None):
            found[name] = Text(False, bool(takes.options))
        elif kind in (list[str], list[str] | None):
            found[name] = Text(True, False)
    return found


def spelled(word: str, keys: Mapping[str, Text], may_sweep: bool = True) -> str:
    """A word in the spelling that Hydra reads. A word that Hydra reads correctly does not change.

    Args:
        keys: the keys that take text.
        may_sweep: whether a comma in a text separates several values.
    """
    match = _WORD.fullmatch(word)
    text = keys.get(match[1].lstrip("+")) if match else None
    if match is None or text is None:
        return word
    return f"{match[1]}={_value(match[2], text, may_sweep or text.is_option or text.is_list)}"


def as_typed(key: str, text: str) -> str:
    """How to type a key and a text in a shell, for a text that Hydra would otherwise read as something else."""
    word = f"{key}=" + quoted(text.replace("${", "\\${"))
    return shlex.quote(word) if any(letter in word for letter in '"$`\\!') else f'"{word}"'


def _value(typed: str, text: Text, may_sweep: bool) -> str:
    if may_sweep:
        parts = list(_split(typed))
        if len(parts) > 1 and all(part.strip() for part in parts):
            return ",".join(_value(part, text, False) for part in parts)
        if function := _FUNCTION.fullmatch(typed):
            inner = ",".join(_value(part, text, False) for part in _split(function[2]))
            return f"{function[1]}({inner})"
    if text.is_list and _is_list(typed):
        inside = typed.strip()[1:-1]
        return f"[{','.join(_one(item, True) for item in _split(inside))}]" if inside.strip() else typed
    return _one(typed, False)


def _one(typed: str, in_list: bool) -> str:
    """One text: unchanged if Hydra reads it as the same text, else in quotes."""
    bare = typed.strip()
    try:
        value = compat.parsed_value(OverridesParser.create().parse_override(f"key={typed}"))
    except HydraException:
        return quoted(bare.replace("\\,", ","))
    if isinstance(value, str | QuotedString | list | dict) or (value is None and not in_list):
        return typed
    if isinstance(value, ChoiceSweep) and value.simple_form:
        return quoted(bare)
    if not isinstance(value, bool | int | float | None) or str(value) == bare:
        return typed  # a function of several values, or a number whose usual spelling is the same text
    return quoted(bare)


def _is_list(typed: str) -> bool:
    bare = typed.strip()
    return bare.startswith("[") and bare.endswith("]") and len(list(_split(typed))) == 1


def _begins(before: str) -> bool:
    """Whether a new value begins after this text."""
    return not before.strip() or before.rstrip()[-1] in "([{,:"


def _split(typed: str) -> Iterator[str]:
    """Split at the commas outside quotes, brackets and interpolations that have no backslash before them."""
    begin, depth, quote, i = 0, 0, "", 0
    while i < len(typed):
        letter = typed[i]
        if letter == "\\":
            i += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and _begins(typed[begin:i]) and letter in typed[i + 1 :]:
            quote = letter  # elsewhere it is an apostrophe
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth <= 0:
            yield typed[begin:i]
            begin = i + 1
        i += 1
    yield typed[begin:]

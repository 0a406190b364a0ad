"""What is taken from the environment stays there: no line, tag, param or file shows it."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.environment import interpolation

EXPERIMENT = "tracking.experiment"
MAY_BE_IN_THE_ENVIRONMENT = ("tracking.uri", "study.storage", "data.path")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|PGPASS|TOKEN|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6  # a shorter value of such a variable hides nothing, and would make holes in every line
_ENVIRONMENT = "oc.env"
_PLAIN = re.compile(r"\$\{oc\.env:(\w+)(,[^}]*)?\}")
_NAMED = re.compile(r"oc\.env:(\w+)")
_hidden: dict[str, str] = {}  # what a config took from the environment, and how it was typed


def remember(cfg: DictConfig) -> list[str]:
    """Note what a config takes from the environment, for :func:`hide`. Returns a line for each key that may not.

    Other keys' values become params of the run, parts of names, points of a study: they would be kept.
    """
    lines = []
    found = sorted(_interpolated(cfg), key=lambda each: each[0] not in MAY_BE_IN_THE_ENVIRONMENT)
    for name, raw, value in found:  # those first: others may refer to them
        if name == EXPERIMENT and raw == interpolation(EXPERIMENT):  # a name that is meant to be seen
            continue
        from_environment = _ENVIRONMENT in raw or any(secret in str(value) for secret in _hidden if secret)
        if from_environment and name in MAY_BE_IN_THE_ENVIRONMENT:
            named = _NAMED.findall(raw)
            if not named or any(each in os.environ for each in named):  # else it is the default, which a file says
                _hidden[str(value)] = raw
        elif from_environment:
            allowed = ", ".join(MAY_BE_IN_THE_ENVIRONMENT)
            lines.append(f"{name}: got {raw}, and would keep it with the run; only {allowed} take it from there")
    return lines


def hide(text: str) -> str:
    """A text to be shown or kept, without what came from the environment: ``$NAME`` stands in its place."""
    shown = {value: _PLAIN.sub(r"$\1", raw) for value, raw in _hidden.items() if value}
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_NAME.search(name):
            shown[value] = f"${name}"
    for value in sorted(shown, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, shown[value])
    return text


def _interpolated(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str, object]]:
    """Every key with an interpolation: its dotted name, as it was typed, its value."""
    for name in map(str, node):
        inner = node._get_node(name)
        if OmegaConf.is_interpolation(node, name):
            with suppress(OmegaConfBaseException):  # said of that key anyway
                yield f"{prefix}{name}", str(cast(Node, inner)._value()), node[name]
        elif isinstance(inner, DictConfig) and not inner._is_missing() and not inner._is_none():
            yield from _interpolated(inner, f"{prefix}{name}.")
        elif isinstance(inner, ListConfig) and _ENVIRONMENT in str(inner):
            yield f"{prefix}{name}", str(inner), None

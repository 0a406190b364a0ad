"""What is taken from the environment stays there, and a password in a URL is not taken: no line, tag, param or file
shows it."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from tbptt import compat
from tbptt.system.environment import OF_MLFLOW
from tbptt.system.stores import without_password

EXPERIMENT = "tracking.experiment"
MAY_BE_IN_THE_ENVIRONMENT = ("tracking.uri", "study.storage", "data.path")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|PGPASS|TOKEN|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6  # a shorter value of such a variable hides nothing, and would make holes in every line
_PLAIN = re.compile(r"\$\{oc\.env:(\w+)(,[^}]*)?\}")
_read: set[str] = set()  # the variables that were asked for since it was last emptied
_hidden: dict[str, str] = {}  # what a config took from the environment, and how it was typed


def remember(cfg: DictConfig) -> list[str]:
    """Note what a config takes from the environment, for :func:`hide`. Returns a line for each key that may not.

    Other keys' values become params of the run, parts of names, points of a study: they would be kept.
    """
    lines = []
    found = sorted(_interpolated(cfg), key=lambda each: each[0] not in MAY_BE_IN_THE_ENVIRONMENT)
    for name, raw, value, read in found:  # those first: others may refer to them
        if name == EXPERIMENT and read == {OF_MLFLOW[EXPERIMENT][0]}:  # a name that is meant to be seen
            continue
        from_environment = read or any(secret in str(value) for secret in _hidden if secret)
        if from_environment and name in MAY_BE_IN_THE_ENVIRONMENT:
            if value is not None and any(
                each in os.environ for each in read
            ):  # else it is the default, which a file says
                _hidden[str(value)] = raw
        elif from_environment:
            allowed = ", ".join(MAY_BE_IN_THE_ENVIRONMENT)
            lines.append(f"{name}: got {raw}, and would keep it with the run; only {allowed} take it from there")
    return lines


IN_A_URL = "got a URL with a password or token in it, which would be kept; takes one without"


def in_a_url(value: object) -> bool:
    """Whether a text, or one of a list, holds a URL with a password or token. What a config says is kept in many
    places: params, names, files of Hydra, a study's spec."""
    if isinstance(value, list | tuple):
        return any(map(in_a_url, value))
    return isinstance(value, str) and without_password(value) != value


def is_secret(variable: str) -> bool:
    """Whether an environment variable's name says that its value is one."""
    return bool(_SECRET_NAME.search(variable))


def hide(text: str) -> str:
    """A text to be shown or kept, without passwords in URLs, and without what came from the environment: ``$NAME``
    stands in its place."""
    text = without_password(text)
    shown = {value: _PLAIN.sub(r"$\1", raw) for value, raw in _hidden.items() if value}
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and is_secret(name):
            shown[value] = f"${name}"
    for value in sorted(shown, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, shown[value])
    return text


def _interpolated(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, str, object, set[str]]]:
    """Every value with an interpolation: the dotted name of its key, how it was typed, what it is, and the variables
    that were read for it."""
    for place in range(len(node)) if isinstance(node, ListConfig) else list(node):
        name = prefix.removesuffix(".") if isinstance(node, ListConfig) else f"{prefix}{place}"
        inner = compat.node_at(node, place)
        if OmegaConf.is_interpolation(node, place):
            _read.clear()
            value = None
            with suppress(OmegaConfBaseException):  # it does not fit the key, which would be said with what was read
                value = node[place]
            yield name, compat.as_it_stands(inner), value, set(_read)
        elif isinstance(inner, DictConfig | ListConfig) and compat.has_content(inner):
            yield from _interpolated(inner, f"{name}.")


def _env(name: str, *default: str | None) -> str | None:
    """OmegaConf's own ``oc.env``, noting what it is asked for. A text alone does not tell: ``${oc.${x}:NAME}``."""
    _read.add(str(name))
    return oc.env(name, *default)


OmegaConf.register_new_resolver("oc.env", _env, replace=True)

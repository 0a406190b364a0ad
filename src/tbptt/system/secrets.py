"""Secrets: no line, tag, param or file shows a value that a config took from the environment. A URL with a password in
it is refused."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from tbptt import compat
from tbptt.system.environment import OF_MLFLOW
from tbptt.system.stores import without_password

EXPERIMENT = "tracking.experiment"
MAY_BE_IN_THE_ENVIRONMENT = ("tracking.uri", "study.storage", "data.path")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|PGPASS|TOKEN|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6  # characters; a shorter value is not hidden: it would occur in many lines by chance
_PLAIN = re.compile(r"\$\{oc\.env:(\w+)(,[^}]*)?\}")
_read: set[str] = set()  # the variables that interpolations read since this set was last emptied
_hidden: dict[str, str] = {}  # values that a config took from the environment -> the interpolations that were typed


def remember(cfg: DictConfig) -> list[str]:
    """Note the values that a config takes from the environment, for :func:`hide`. Returns a line for each key that must
    not take its value from there.

    Only MAY_BE_IN_THE_ENVIRONMENT may. The values of other keys are kept: as params of the run, in names, as points of
    a study.
    """
    lines = []
    found = sorted(_interpolated(cfg), key=lambda each: each[0] not in MAY_BE_IN_THE_ENVIRONMENT)
    for name, raw, value, read in found:  # the allowed keys come first: others may refer to them
        if name == EXPERIMENT and read == {OF_MLFLOW[EXPERIMENT][0]}:  # an experiment's name is no secret
            continue
        from_environment = read or any(secret in str(value) for secret in _hidden if secret)
        if from_environment and name in MAY_BE_IN_THE_ENVIRONMENT:
            if value is not None and any(
                each in os.environ for each in read
            ):  # else the value is the default, which stands in a file
                _hidden[str(value)] = raw
        elif from_environment:
            allowed = ", ".join(MAY_BE_IN_THE_ENVIRONMENT)
            what = f"got {raw} from the environment, which would be kept with the run"
            lines.append(f"{name}: {what}; only {allowed} may come from there")
    return lines


IN_A_URL = "got a URL with a password or token in it, which would be kept; takes one without"


def in_a_url(value: object) -> bool:
    """Whether a text, or a text in a list or mapping, holds a URL with a password or token. Values of a config are kept
    in many places: params, names, Hydra's files, a study's spec."""
    if isinstance(value, Mapping):
        return any(map(in_a_url, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return any(map(in_a_url, value))
    return isinstance(value, str) and without_password(value) != value


def is_secret(variable: str) -> bool:
    """Whether the name of an environment variable suggests that its value is a secret."""
    return bool(_SECRET_NAME.search(variable))


def hide(text: str) -> str:
    """A text that can be shown and kept: passwords in URLs are removed, and values from the environment are replaced by
    ``$NAME``."""
    text = without_password(text)
    shown = {value: _PLAIN.sub(r"$\1", raw) for value, raw in _hidden.items() if value}
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and is_secret(name):
            shown[value] = f"${name}"
    for value in sorted(shown, key=len, reverse=True):  # longest first, as one value may be a part of another
        text = text.replace(value, shown[value])
    return text


def hidden(value: Any) -> Any:
    """Plain values that can be shown and kept: the same, with :func:`hide` of each text in them, in lists and mappings
    too."""
    every = "\n".join(_texts(value))  # to look at ten thousand texts one by one takes seconds
    return value if hide(every) == every else _hidden_in(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in (*value, *value.values()) if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _hidden_in(value: Any) -> Any:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, Mapping):
        return {_hidden_in(name): _hidden_in(inner) for name, inner in value.items()}
    return [_hidden_in(inner) for inner in value] if isinstance(value, list | tuple) else value


def _interpolated(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, str, object, set[str]]]:
    """For each value with an interpolation: its key's dotted name, the text that was typed, the value that it resolves
    to, and the environment variables that were read for it."""
    for place in range(len(node)) if isinstance(node, ListConfig) else list(node):
        name = prefix.removesuffix(".") if isinstance(node, ListConfig) else f"{prefix}{place}"
        inner = compat.node_at(node, place)
        if OmegaConf.is_interpolation(node, place):
            _read.clear()
            value = None
            with suppress(OmegaConfBaseException):  # it does not fit the key; the error's text would show the value
                value = node[place]
            yield name, compat.as_it_stands(inner), value, set(_read)
        elif isinstance(inner, DictConfig | ListConfig) and compat.has_content(inner):
            yield from _interpolated(inner, f"{name}.")


def _env(name: str, *default: str | None) -> str | None:
    """OmegaConf's own ``oc.env``, which notes the variables it reads. The text that was typed does not always name
    them: ``${oc.${x}:NAME}``."""
    _read.add(str(name))
    return oc.env(name, *default)


OmegaConf.register_new_resolver("oc.env", _env, replace=True)

"""Callbacks of your own: what a config's ``callback`` gives Lightning, and what of them a checkpoint keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback
from torch import Tensor

from tbptt.options.callbacks import CallbackConfig
from tbptt.runs.contents import is_plain


def built(config: CallbackConfig) -> list[Callback]:
    """Raises ValueError where these are no callbacks, or two of them keep their state under one name."""
    given = config.build()
    callbacks = [given] if isinstance(given, Callback) else given
    if not isinstance(callbacks, Sequence) or not all(isinstance(each, Callback) for each in callbacks):
        raise ValueError(
            f"callback={config.name}: build() gives {given!r}; takes a pytorch_lightning.Callback, or several"
        )
    keys = [each.state_key for each in callbacks]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"callback={config.name}: two callbacks have the state_key {twice!r}; takes one for each")
    return list(callbacks)


def kept(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What a checkpoint holds of them: ``callbacks``, where any has a state. Raises ValueError where one could not be
    read again."""
    states = {each.state_key: _on_the_cpu(each.state_dict()) for each in callbacks}
    states = {key: state for key, state in states.items() if state}
    if wrong := [key for key, state in states.items() if not is_plain(state)]:
        raise ValueError(
            f"callback: the state_dict of {wrong[0]} holds {_strange(states[wrong[0]])}, which no checkpoint may hold; "
            "takes tensors, numbers, texts, and lists and dicts of them"
        )
    return {"callbacks": states} if states else {}


def restore(callbacks: Sequence[Callback], states: Mapping[str, Any]) -> None:
    """Give each what was kept of it."""
    for each in callbacks:
        if each.state_key in states:
            each.load_state_dict(states[each.state_key])


def _on_the_cpu(value: Any) -> Any:
    """A copy that training does not change."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_the_cpu(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_on_the_cpu(each) for each in value]
    return value


def _strange(value: Any) -> str:
    """The type of the first thing that is not plain."""
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((_strange(part) for part in parts if not is_plain(part)), f"a {type(value).__name__}")

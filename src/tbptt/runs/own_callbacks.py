"""Your own callbacks: how a config's ``callback`` reaches Lightning, and which of its state a checkpoint keeps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

from tbptt.options.callbacks import CallbackConfig
from tbptt.runs.contents import is_plain


class Own(Callback):
    """Several callbacks as one, so that Lightning calls them at the right place.

    On its own, Lightning would call EarlyStopping, and other callbacks that monitor a metric, after all others. By then
    the epoch has been saved already.

    Args:
        name: the name of the option that supplies the callbacks.
    """

    def __init__(self, callbacks: Sequence[Callback], name: str):
        self.callbacks, self.name = list(callbacks), name
        self._is_asked_to_stop = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for each in self.callbacks:
            vars(each).update(log=pl_module.log, log_dict=pl_module.log_dict)  # as Lightning does for its callbacks
            each.setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A callback that asks for a stop here gets it after this epoch.

        Lightning would end the epoch untrained, and the epoch would be saved with the numbers of the one before.
        """
        self._call("on_train_epoch_start", trainer, pl_module)
        self._is_asked_to_stop, trainer.should_stop = trainer.should_stop, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = trainer.should_stop or self._is_asked_to_stop
        self._call("on_train_batch_start", trainer, pl_module, batch, batch_idx)

    def state_dict(self) -> dict[str, Any]:
        return {each.state_key: each.state_dict() for each in self.callbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        restore(self.callbacks, state_dict)

    def _call(self, hook: str, *args: Any, **more: Any) -> None:
        """Raises ValueError if a callback asks Lightning to skip the epoch, which would then have no own numbers."""
        for each in self.callbacks:
            try:
                answer = getattr(each, hook)(*args, **more)
                skips = hook == "on_train_batch_start" and answer == -1
                does = "returned -1"
            except StopIteration:  # Lightning would take it for its own signal
                skips, does = True, "raised StopIteration"
            if skips:
                raise ValueError(
                    f"callback={self.name}: {hook} of {type(each).__name__} {does}, and an epoch cannot be skipped; "
                    "takes trainer.should_stop = True, which ends the run after the epoch"
                )


def _for_each(hook: str) -> Callable[..., None]:
    def call(self: Own, *args: Any, **more: Any) -> None:
        self._call(hook, *args, **more)

    return call


for _hook in vars(Callback):
    if (_hook.startswith("on_") or _hook == "teardown") and _hook not in vars(Own):
        setattr(Own, _hook, _for_each(_hook))


def built(config: CallbackConfig) -> list[Callback]:
    """The callbacks of a config.

    Raises ValueError if they are no callbacks, if two of them keep their state under the same name, or if one looks for
    metrics before these are known.
    """
    given = config.build()
    callbacks = [given] if isinstance(given, Callback) else given
    if not isinstance(callbacks, Sequence) or not all(isinstance(each, Callback) for each in callbacks):
        raise ValueError(
            f"callback={config.name}: build() gives {given!r}; takes a pytorch_lightning.Callback, or several"
        )
    keys = [each.state_key for each in callbacks]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"callback={config.name}: two callbacks have the state_key {twice!r}; takes one for each")
    stoppers = [each for each in callbacks if isinstance(each, EarlyStopping)]
    if any(getattr(each, "_check_on_train_epoch_end", None) is False for each in stoppers):
        raise ValueError(
            f"callback={config.name}: its EarlyStopping has check_on_train_epoch_end=False; takes True, as an epoch's "
            "metrics are known at its end only"
        )
    return list(callbacks)


def kept(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The callbacks' part of a checkpoint: ``callbacks``, if any callback has a state.

    Raises ValueError if a state could not be read again.
    """
    states = {each.state_key: _on_the_cpu(each.state_dict()) for each in callbacks}
    states = {key: state for key, state in states.items() if state}
    if wrong := [key for key, state in states.items() if not is_plain(state)]:
        raise ValueError(
            f"callback: the state_dict of {wrong[0]} holds {_strange(states[wrong[0]])}, which no checkpoint may hold; "
            "takes tensors, numbers, texts, and lists and dicts of them"
        )
    return {"callbacks": states} if states else {}


def restore(callbacks: Sequence[Callback], states: Mapping[str, Any]) -> None:
    """Give each callback its saved state."""
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

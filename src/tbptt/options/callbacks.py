"""The config group ``callback``: Lightning callbacks of your own, with their settings."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbptt.options.option import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytorch_lightning import Callback


@dataclass
class CallbackConfig(Option):
    """One option of ``callback``. Its fields are the settings, and ``build`` returns the Lightning callbacks."""

    group = "callback"

    def build(self) -> "Callback | Sequence[Callback]":
        """Return one callback, or several. Lightning calls them in their order.

        A pass over all sequences is one batch, so ``on_train_batch_end`` is called once an epoch.

        ``on_train_epoch_end`` is called before the epoch is saved. The checkpoint of the epoch then includes what the
        callback's ``state_dict`` returns: numbers, texts, tensors, lists and dicts. A resumed run passes it to
        ``load_state_dict`` before it begins.

        ``module.epoch`` counts epochs from the run's beginning; ``trainer.current_epoch`` counts from where the run was
        resumed. ``trainer.should_stop = True`` ends the run after the epoch, with ``stop.reason=callback``. An epoch
        cannot be skipped, by a -1 of ``on_train_batch_start`` or a StopIteration. ``trainer.callback_metrics`` has the
        epoch's metrics at ``on_train_epoch_end``; if the epoch diverged, its losses are NaN.
        """
        raise NotImplementedError  # each option has its own


@dataclass
class NoCallback(CallbackConfig, options=["none"], new=True):
    def build(self) -> "Sequence[Callback]":
        return []

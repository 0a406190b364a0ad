"""What a callback is to a config: a Lightning callback of your own, with its settings."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbptt.options.option import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytorch_lightning import Callback


@dataclass
class CallbackConfig(Option):
    """One option of ``callback``: its fields are the settings, and ``build`` gives what Lightning calls."""

    group = "callback"

    def build(self) -> "Callback | Sequence[Callback]":
        """One callback, or several, which are called in their order.

        A pass over all sequences is one batch, so ``on_train_batch_end`` comes once an epoch. At ``on_train_epoch_end``
        the epoch has not been kept yet: what a ``state_dict`` gives then is kept with it, and given back to
        ``load_state_dict`` before a resumed run begins; it may hold numbers, texts, tensors, lists and dicts.
        ``module.epoch`` counts from the run's beginning, ``trainer.current_epoch`` from where it was resumed;
        ``trainer.should_stop = True`` ends the run after the epoch, with ``stop.reason=callback``; an epoch cannot be
        skipped, by a -1 of ``on_train_batch_start`` or a StopIteration. The metrics that were measured in the epoch are
        in ``trainer.callback_metrics`` at its end, the losses as NaN where it diverged.
        """
        raise NotImplementedError  # each option has its own


@dataclass
class NoCallback(CallbackConfig, options=["none"], new=True):
    def build(self) -> "Sequence[Callback]":
        return []

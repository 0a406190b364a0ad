"""The actions at the end of each epoch, as Lightning callbacks; :func:`in_order` sets their order."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from tbptt.config.plain import plain
from tbptt.runs import checkpoint, own_callbacks
from tbptt.runs.best import Best
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.epoch import Epoch, packed
from tbptt.runs.journal import Outbox
from tbptt.runs.progress import Progress
from tbptt.runs.training import Training

log = logging.getLogger("tbptt")

ASKED = "callback"  # the reason of a run that a callback of the user's stopped


def in_order(
    cfg: DictConfig,
    data: SequenceDataModule,
    best: Best,
    outbox: Outbox,
    progress: Progress,
    after_epoch: Callable[[Epoch], bool],
    own: Sequence[pl.Callback] = (),
) -> list[pl.Callback]:
    """A run's callbacks, in the order in which Lightning is to call them; ``own`` are the user's.

    The order keeps finished epochs safe if the process stops at any moment. An epoch goes into the checkpoint first,
    then into the journal, then to the store. The journal can be repaired from the checkpoint, and the store from the
    journal, but not the other way round. The user's callbacks and pruning come before the checkpoint, because the
    checkpoint holds the state of the user's callbacks and the reason why a run stopped.
    """
    return [
        CloseEpoch(),
        own_callbacks.Own(own, cfg.callback.name),
        StopWhereAsked(),
        Prune(after_epoch),
        SaveCheckpoints(cfg, data, best, outbox, own),
        WriteJournal(outbox),
        SendToStore(outbox),
        ShowProgress(progress, best),
    ]


class CloseEpoch(pl.Callback):
    """Closes the epoch. This is a callback because Lightning calls callbacks before the module's own hook."""

    def __init__(self) -> None:
        self.shown: set[str] = set()  # the metrics of the epoch before

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        pl_module.close_epoch()
        # Lightning's own callbacks, such as EarlyStopping, look for metrics in trainer.callback_metrics.
        for name in self.shown - set(pl_module.metrics):  # metrics that this epoch does not have
            trainer.callback_metrics.pop(name, None)
        trainer.callback_metrics.update({k: torch.tensor(v) for k, v in pl_module.metrics.items()})
        self.shown = set(pl_module.metrics)


class AfterEpoch(pl.Callback):
    """An action on each closed epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Training)
        assert pl_module.finished is not None
        self.take(pl_module, pl_module.finished)

    def take(self, module: Training, epoch: Epoch) -> None:
        raise NotImplementedError  # each has its own


class StopWhereAsked(AfterEpoch):
    """Stops the run if a callback of the user has set ``trainer.should_stop``.

    It also stops a run that was to stop, if such a callback has unset ``trainer.should_stop``.
    """

    def take(self, module: Training, epoch: Epoch) -> None:
        if module.is_asked_to_stop() or module.stop_reason is not None:
            module.stop(ASKED)
            module.make_last()


class Prune(AfterEpoch):
    """Asks whether to prune the run, and stops it if so."""

    def __init__(self, after_epoch: Callable[[Epoch], bool]):
        self.after_epoch = after_epoch

    def take(self, module: Training, epoch: Epoch) -> None:
        if self.after_epoch(epoch):
            module.stop("pruned")


class SaveCheckpoints(AfterEpoch):
    """Writes ``last.ckpt``, and ``best.ckpt`` if the epoch is the best so far."""

    def __init__(
        self,
        cfg: DictConfig,
        data: SequenceDataModule,
        best: Best,
        outbox: Outbox,
        own: Sequence[pl.Callback] = (),
    ):
        self.data, self.best, self.outbox, self.own = data, best, outbox, own
        self.config = plain(cfg)
        self.save = checkpoint.save_and_try  # for the first checkpoint; later ones are checked in memory

    def take(self, module: Training, epoch: Epoch) -> None:
        improved = self.best.take(epoch)
        content = self.content(module, module.snapshot(epoch), epoch)
        self.write(content, content if improved else None)

    def content(
        self, module: Training, snapshot: dict[str, Any], epoch: Epoch, before: Sequence[Epoch] = ()
    ) -> dict[str, Any]:
        """The checkpoint of an epoch that was just closed and compared with the best.

        Args:
            snapshot: of the module.
            before: epochs that are not in the journal yet.
        """
        content: dict[str, Any] = {
            "config": self.config,
            "scaler": self.data.scaler.state_dict(),
            "series": self.data.series,
            "change_std": self.data.change_std,
            "borders": self.data.borders,
            "best": dict(vars(self.best)),
            "stop_reason": module.stop_reason,
            "record": asdict(epoch),
            **snapshot,
            **own_callbacks.kept(self.own),
        }
        if not self.outbox.run.is_local:  # another machine may resume the run, and would not have the journal
            content["records"] = [packed(one) for one in [*self.outbox.epochs, *before, epoch]]
        return content

    def write(self, last: dict[str, Any], best: dict[str, Any] | None) -> None:
        """Write the checkpoint of the last epoch, and that of the best one if it is new."""
        folder = self.outbox.run.folder / "checkpoints"
        self.save(folder / "last.ckpt", last, keep_previous=True)
        self.save = checkpoint.save_seen
        if best is not None:
            checkpoint.save(folder / "best.ckpt", best)


class WriteJournal(AfterEpoch):
    """Writes the epoch down on this machine."""

    def __init__(self, outbox: Outbox):
        self.outbox = outbox

    def take(self, module: Training, epoch: Epoch) -> None:
        self.outbox.add(epoch)


class SendToStore(AfterEpoch):
    """Sends what the journal has and the store does not have yet; training does not wait for a server."""

    def __init__(self, outbox: Outbox):
        self.outbox = outbox

    def take(self, module: Training, epoch: Epoch) -> None:
        self.outbox.send()


class ShowProgress(AfterEpoch):
    """Shows the epoch, and says at which update training diverged."""

    def __init__(self, progress: Progress, best: Best):
        self.progress, self.best = progress, best

    def take(self, module: Training, epoch: Epoch) -> None:
        self.progress.epoch(epoch, module.schedule, self.best.value)
        if epoch.diverged_at is not None:
            log.warning(_divergence(epoch, self.best))


def _divergence(epoch: Epoch, best: Best) -> str:
    at = f"diverged in epoch {epoch.number + 1}, update {epoch.diverged_at}: the loss or gradient was not finite"
    kept = f"the best of epoch {best.epoch + 1} is kept" if best.epoch is not None else "there is no best epoch"
    return f"{at}; training stops with the weights before it, {kept}. A smaller lr or clip usually helps."

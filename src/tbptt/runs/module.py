"""The LightningModule: one batch is the whole set of sequences, one training step the whole chunk loop."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from tbptt.config.schema import Config
from tbptt.data.sequences import Sequences
from tbptt.models.protocol import Network
from tbptt.runs.training import Training
from tbptt.training.chunks import train_pass
from tbptt.training.schedule import ChunkSchedule
from tbptt.training.segments import Asked, RandomState, SegmentMemory


class SequenceModule(Training, pl.LightningModule):
    """Truncated backpropagation through time as manual optimization.

    The recurrent state is a local variable of the chunk loop, so nothing that Lightning does between or within epochs
    (a validation pass, a sanity check) can touch it.

    See :class:`Training` for what it has after each epoch.

    Args:
        after_chunk: called after each chunk; may raise to stop.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        schedule: ChunkSchedule,
        after_chunk: Callable[[], None] = lambda: None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self._init_training(network, config, schedule, after_chunk)
        self._memory = SegmentMemory(config.segment_memory, config.study.workers)

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The current epoch, counted from 0 at the run's beginning; Lightning counts from where it was resumed."""
        return self.first_epoch + self.current_epoch

    @property
    def cut(self) -> Asked:
        """``segment_length``, or what ``auto`` is for the pass under way."""
        asked: Asked = self.config.segment_length
        return self._memory.chosen or asked

    def is_asked_to_stop(self) -> bool:
        return self.trainer.should_stop

    def ask_to_stop(self, is_asked: bool) -> None:
        self.trainer.should_stop = is_asked

    def optimizer_itself(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer()  # Lightning calls this when the module is on its device

    def on_train_start(self) -> None:
        if random := self.restored_random():
            RandomState(self.device).set(random)

    def on_train_epoch_start(self) -> None:
        self.begin_epoch()

    def training_step(self, batch: Sequences, batch_idx: int) -> None:
        # A graph holds the optimizer's own step only, not Lightning's bookkeeping around it.
        optimizer: Any = self.optimizers(use_pl_optimizer=self._fixed is None)
        self.heed_changes()
        record = train_pass(
            self.network,
            self.parameters_,
            optimizer,
            batch,
            self.schedule.chunks,
            clip=self.config.clip,
            clip_mode=self.config.clip_mode,
            segment_length=self.config.segment_length,
            after_chunk=self.after_chunk,
            fixed=self._fixed,
            first_update=self.updates,
            before_update=self.set_rates if self.scheduled else None,
            share=self.scheduled.share if self.scheduled else None,
            memory=self._memory,
        )
        self.take_pass(record.to_host(), batch)  # the epoch's one transfer from the device

    def validation_step(self, batch: Sequences, batch_idx: int) -> None:
        self.validate(batch)

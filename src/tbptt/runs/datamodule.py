"""From a data config to sequences on the device: features, targets, scaling, padding."""

from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch

from tbptt.data.borders import borders_of
from tbptt.data.options import DataConfig
from tbptt.data.sequences import Sequences
from tbptt.evaluation.data_words import described
from tbptt.system.secrets import hidden
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import Prepared, prepare

Prepare = Callable[[DataConfig, TaskConfig], Prepared]


class SequenceDataModule(pl.LightningDataModule):
    """Training and validation sequences, each set as one single batch that stays on the device.

    Attributes:
        prepared: all prepared data; it can also make the sequences of the test part.
        train, val, scaler, fingerprint, baseline: see :class:`Prepared`.
        about: what is trained, as plain values (:func:`tbptt.evaluation.data_words.described`), without secrets.
        series: the names of the training series, if each has a scale of its own; None if all share one.
        change_std: (S,) float64, standard deviation of a step's change in training, in price units.
        borders: where each series' parts begin (:func:`tbptt.data.borders.borders_of`).

    Raises:
        ValueError: the data cannot be used.
    """

    def __init__(self, data: DataConfig, task: TaskConfig, prepare: Prepare = prepare):
        super().__init__()
        self.prepared = found = prepare(data, task)
        self.train, self.val, self.scaler = found.train, found.val, found.scaler
        self.fingerprint, self.baseline = found.fingerprint, found.baseline
        self.about = hidden(described(data, task, found.split, found.warnings))
        self.series = None if found.split.shared_scale else list(found.split.train)
        self.change_std = torch.from_numpy(found.split.change_std)
        self.borders = borders_of(found.split)

    def setup(self, stage: str) -> None:
        """Move the data to the device, once."""
        assert self.trainer is not None
        self.train, self.val = self.prepared.on(self.trainer.strategy.root_device)

    def train_dataloader(self) -> "OneBatch":
        return OneBatch(self.train)

    def val_dataloader(self) -> "OneBatch":
        return OneBatch(self.val)

    def transfer_batch_to_device(self, batch: Sequences, device: torch.device, dataloader_idx: int) -> Sequences:
        """Returns the batch as it is: it is on the device already."""
        return batch


class OneBatch:
    """A loader of a single batch. PyTorch's DataLoader would draw from the global generator at every epoch."""

    def __init__(self, batch: Sequences):
        self.batch = batch

    def __iter__(self) -> Iterator[Sequences]:
        yield self.batch

    def __len__(self) -> int:
        return 1

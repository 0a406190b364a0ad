"""Sequences on a device: the data that the chunk loop trains on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tbptt.data.features import LagFeatures, Scaler


@runtime_checkable
class Loss(Protocol):
    """The part of a task that the chunk loop needs."""

    def loss_sum(self, y: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """The loss summed over the valid steps of a chunk, a scalar; y and target (B, K, O), mask (B, K)."""

    def count(self, steps: int) -> int:
        """The divisor that turns the summed loss of ``steps`` valid steps into a mean."""


@dataclass
class Sequences:
    """A set of sequences on a device, padded at their ends to one length.

    Attributes:
        features: gives the inputs of steps [start, stop), (B, K, F): the lags of the price, then the other inputs.
        targets: (B, T, O), in the scale of the network's outputs; padded steps hold any finite value.
        mask: (B, T) of 0 and 1, or None where nothing is padded.
        steps: valid steps of each sequence, on the host.
        task: the learning task; it has the loss.
        scaler: brings predictions back to price units.
        warm: the number of warm-up steps at the start of each sequence. They bring the state up to date and are not
            scored; the mask is 0 there.
        changes: (B, T) change of the price from each step to the next, in price units. None for training sequences,
            as nobody trades on them.
        change_std: (S,) standard deviation of the price change in a training step, in price units; S is 1 or B.
        baseline: the mean loss of the task's constant prediction, by default the training mean.
        rows: (B, T) int64 on the host, the same number for the same time in all sequences, ascending; any number at
            padding. None for training sequences, and for series without times in common.
    """

    features: LagFeatures
    targets: Tensor
    mask: Tensor | None
    steps: list[int]
    task: Loss
    scaler: Scaler | None = None
    warm: Sequence[int] = ()
    changes: Tensor | None = None
    change_std: Tensor | None = None
    baseline: float = math.nan
    rows: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.targets.shape[0]

    @property
    def length(self) -> int:
        return self.targets.shape[1]

    @property
    def valid_steps(self) -> int:
        """Valid steps of all sequences together."""
        return self.valid_in(0, self.length)

    def valid_in(self, start: int, stop: int) -> int:
        """Valid steps of all sequences within [start, stop)."""
        firsts = self.warm or [0] * len(self.steps)
        return sum(max(min(n, stop) - max(first, start), 0) for first, n in zip(firsts, self.steps, strict=True))

    def to(self, device: torch.device | str) -> "Sequences":
        """Move to a device; the features are moved in place."""
        moved = {
            name: value.to(device)
            for name in ("targets", "mask", "changes", "change_std")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, features=self.features.to(device), **moved)

    def buffer(self, length: int) -> "Sequences":
        """A buffer for ``length`` steps of these sequences; :meth:`copy_from` fills it."""
        targets = self.targets.new_empty(self.batch, length, self.targets.shape[2])
        mask = None if self.mask is None else self.mask.new_empty(self.batch, length)
        return Sequences(self.features.buffer(length), targets, mask, [length] * self.batch, self.task)

    def copy_from(self, other: "Sequences", start: int) -> None:
        """Copy the steps of ``other`` from ``start`` on into this buffer, in place, as many as it has room for."""
        stop = start + self.length
        self.features.copy_from(other.features, start)
        self.targets.copy_(other.targets[:, start:stop])
        if self.mask is not None and other.mask is not None:
            self.mask.copy_(other.mask[:, start:stop])

    def loss(self, predictions: Float[Tensor, "B K O"], start: int, stop: int) -> Float[Tensor, ""]:
        """The task's loss summed over the valid steps of [start, stop), a scalar.

        The predictions are (B, stop - start, O).
        """
        mask = None if self.mask is None else self.mask[:, start:stop]
        return self.task.loss_sum(predictions.to(self.targets.dtype), self.targets[:, start:stop], mask)

    def count(self, start: int, stop: int) -> int:
        """The divisor that turns :meth:`loss` of the steps [start, stop) into a mean."""
        return self.task.count(self.valid_in(start, stop))

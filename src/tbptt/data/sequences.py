"""Sequences on a device: what the chunk loop trains on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tbptt.data.features import LagFeatures


@dataclass
class Sequences:
    """A set of sequences on a device, padded at their ends to one length.

    Attributes:
        features: gives the inputs of steps [start, stop), (B, K, W).
        targets: (B, T, 2), standardised; anything finite where padded.
        mask: (B, T) of 0 and 1, or None where nothing is padded.
        steps: valid steps of each sequence, on the host.
    """

    features: LagFeatures
    targets: Tensor
    mask: Tensor | None
    steps: list[int]

    @property
    def batch(self) -> int:
        return self.targets.shape[0]

    @property
    def length(self) -> int:
        return self.targets.shape[1]

    @property
    def valid_steps(self) -> int:
        """Valid steps of all sequences together."""
        return sum(self.steps)

    def valid_in(self, start: int, stop: int) -> int:
        """Valid steps of all sequences within [start, stop)."""
        return sum(min(max(n - start, 0), stop - start) for n in self.steps)

    def to(self, device: torch.device | str) -> "Sequences":
        mask = None if self.mask is None else self.mask.to(device)
        return Sequences(self.features.to(device), self.targets.to(device), mask, self.steps)

    def stretch(self, length: int) -> "Sequences":
        """Room for so many of their steps, which :meth:`copy_from` fills."""
        targets = self.targets.new_empty(self.batch, length, self.targets.shape[2])
        mask = None if self.mask is None else self.mask.new_empty(self.batch, length)
        return Sequences(self.features.stretch(length), targets, mask, [length] * self.batch)

    def copy_from(self, other: "Sequences", start: int) -> None:
        """Take the steps of others from ``start`` on, in place, as many as there is room for."""
        stop = start + self.length
        self.features.copy_from(other.features, start)
        self.targets.copy_(other.targets[:, start:stop])
        if self.mask is not None and other.mask is not None:
            self.mask.copy_(other.mask[:, start:stop])

    def squared_error(self, predictions: Tensor, start: int, stop: int) -> Tensor:
        """Sum over the valid steps of [start, stop) and both actions; predictions are (B, stop - start, 2)."""
        error = predictions.to(self.targets.dtype) - self.targets[:, start:stop]
        if self.mask is not None:
            error = error * self.mask[:, start:stop, None]
        return error.square().sum()

"""What is known of each step of a part: its loss, and series put side by side in time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tbptt.data.sequences import Loss, Sequences
from tbptt.tasks.decisions import scored_steps

Array = NDArray[np.float64]


@torch.no_grad()
def step_losses(task: Loss, y: Float[Tensor, "B T O"], target: Float[Tensor, "B T O"]) -> Float[Tensor, "B T"]:
    """A task's loss of each step by itself, the mean over its outputs.

    A task of one's own may have any loss that is a sum over steps; it is asked step by step, all at once where PyTorch
    can do so.
    """

    def of_one(y: Tensor, target: Tensor) -> Tensor:
        return task.loss_sum(y[None, None], target[None, None], None)

    flat_y, flat_target = y.flatten(0, 1), target.flatten(0, 1)
    try:
        found = torch.vmap(of_one)(flat_y, flat_target)
    except RuntimeError:  # a loss that looks at its values, as `if` does, cannot be asked at once
        found = torch.stack([of_one(a, b) for a, b in zip(flat_y, flat_target, strict=True)])
    return found.reshape(y.shape[:2]) / task.count(1)


@dataclass(frozen=True)
class Aligned:
    """Values of every scored step, the series side by side and aligned at their ends.

    Attributes:
        values: by name, (B, N) float64; 0 where a series has no step.
        present: (B, N) bool, where it has one.
    """

    values: dict[str, Array]
    present: NDArray[np.bool_]

    def sums(self, name: str) -> Array:
        """(N,) over the series that are there at a step."""
        return np.asarray(self.values[name].sum(axis=0))

    def counts(self) -> Array:
        """(N,) how many series are there at a step."""
        return self.present.sum(axis=0).astype(np.float64)

    def means(self, name: str) -> Array:
        """(N,) over the series that are there at a step."""
        return self.sums(name) / self.counts()

    def by_series(self, name: str) -> Array:
        """(B,) each series' sum over its steps."""
        return np.asarray(self.values[name].sum(axis=1))


def aligned(sequences: Sequences, **values: Tensor) -> Aligned:
    """Put (B, T) values of the scored steps side by side; what is warm-up or padding is left out."""
    scored = scored_steps(sequences).cpu().numpy()
    counts = scored.sum(axis=1)
    longest = int(counts.max())
    present = np.arange(longest) >= (longest - counts)[:, None]
    found: dict[str, Any] = {}
    for name, given in values.items():
        rows = np.zeros((len(scored), longest))
        rows[present] = given.double().cpu().numpy()[scored]  # row by row in time order, in both
        found[name] = rows
    return Aligned(found, present)

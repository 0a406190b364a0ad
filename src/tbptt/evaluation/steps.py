"""The values of each step of a part: its loss, and series put side by side in time."""

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

    A user's own task may have any loss that is a sum over steps, so the loss is computed for each step. PyTorch
    computes all steps at once if it can.
    """

    def of_one(y: Tensor, target: Tensor) -> Tensor:
        return task.loss_sum(y[None, None], target[None, None], None)

    flat_y, flat_target = y.flatten(0, 1), target.flatten(0, 1)
    try:
        found = torch.vmap(of_one)(flat_y, flat_target)
    except RuntimeError:  # a loss that branches on its values, for example with `if`, cannot be vectorised
        found = torch.stack([of_one(a, b) for a, b in zip(flat_y, flat_target, strict=True)])
    return found.reshape(y.shape[:2]) / task.count(1)


@dataclass(frozen=True)
class Aligned:
    """Values of every scored step, the series side by side: one column is one time in all of them.

    Series that were cut by time are aligned by time: N is the number of times at which at least one of them is scored.
    Other series are aligned at their ends: N is the number of scored steps of the longest one.

    B is the number of series that are scored at all.

    Attributes:
        values: by name, (B, N) float64; 0 where a series has no step.
        present: (B, N) bool, True where a series has a step.
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
    """Put (B, T) values of the scored steps side by side; warm-up, padding and series without a scored step are left
    out."""
    scored = scored_steps(sequences).cpu().numpy()
    some = scored.any(axis=1)
    scored = scored[some]
    if sequences.rows is None:
        counts = scored.sum(axis=1)
        longest = int(counts.max())
        present = np.arange(longest) >= (longest - counts)[:, None]
    else:
        times, at = np.unique(sequences.rows.numpy()[some][scored], return_inverse=True)
        present = np.zeros((len(scored), len(times)), dtype=bool)
        present[np.nonzero(scored)[0], at.ravel()] = True
    found: dict[str, Any] = {}
    for name, given in values.items():
        rows = np.zeros(present.shape)
        rows[present] = given.double().cpu().numpy()[some][scored]  # both masks select row by row, in time order
        found[name] = rows
    return Aligned(found, present)

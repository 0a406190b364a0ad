"""The record of one epoch of a run."""

from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch, on the host.

    Attributes:
        number: counted from 0.
        time: the time of its end, in milliseconds since 1970.
        stage, chunks: the stage and number of chunks of the schedule during this epoch.
        metrics: finite values only.
        first_update: number of its first update, counted over the run.
        losses, norms, clipped: one value an update, up to the update that diverged.
        diverged_at: the update within the epoch at which values stopped being finite; None if all are finite.
        stage_ended, last: whether the stage, or the training, ended with this epoch.
    """

    number: int
    time: int
    stage: int
    chunks: int
    metrics: dict[str, float]
    first_update: int
    losses: list[float]
    norms: list[float]
    clipped: list[float]
    diverged_at: int | None
    stage_ended: bool
    last: bool


PER_UPDATE = ("losses", "norms", "clipped")  # the fields with one value an update


def packed(epoch: Epoch) -> dict[str, Any]:
    """An epoch for a checkpoint. Fields with one value an update become tensors: a tenth of the size and time."""
    return {**asdict(epoch), **{name: torch.tensor(getattr(epoch, name), dtype=torch.float64) for name in PER_UPDATE}}


def unpacked(content: dict[str, Any]) -> Epoch:
    """The inverse of :func:`packed`."""
    return Epoch(**{**content, **{name: content[name].tolist() for name in PER_UPDATE}})

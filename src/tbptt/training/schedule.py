"""The schedule: into how many chunks sequences are cut in each epoch. A small state machine without side effects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any


def geometric_chunks(start: int, stages: int) -> list[int]:
    """Numbers of chunks from ``start`` down to 1 in equal ratios: round(start^(1 - k/(stages-1))) for k = 0, 1, …

    Repeats are dropped. With one stage, the result is ``[start]``.
    """
    if stages == 1:
        return [start]
    return [n for n, _ in groupby(round(start ** (1 - k / (stages - 1))) for k in range(stages))]


def chunk_bounds(length: int, chunks: int) -> list[tuple[int, int]]:
    """Cut ``length`` steps into exactly ``chunks`` pieces [start, stop), as ``numpy.array_split`` does.

    The pieces have at most two lengths, and the longer ones come first. Every step is in exactly one piece.
    """
    if not 1 <= chunks <= length:
        raise ValueError(f"{length} steps cannot be cut into {chunks} chunks")
    size, longer = divmod(length, chunks)
    borders = [i * size + min(i, longer) for i in range(chunks + 1)]
    return list(pairwise(borders))


@dataclass
class ChunkSchedule:
    """Keeps the number of chunks for the next epoch.

    A stage ends when the loss has not gone strictly below the stage's best for ``patience`` epochs, or after
    ``stage_epochs`` epochs. The last stage ends by its patience only; training is then ``done``.

    Attributes:
        stages: the number of chunks per sequence in each stage.
        patience: epochs without a new best after which a stage ends; None: patience ends no stage.
        stage_epochs: the most epochs of each stage except the last; None for no limit.
        stage: the index of the current stage.
    """

    stages: list[int]
    patience: int | None = 20
    stage_epochs: int | None = None
    stage: int = 0
    epochs_in_stage: int = 0
    epochs_without_best: int = 0
    best: float = field(default=math.inf)
    done: bool = False

    @classmethod
    def plan(
        cls, stages: Sequence[int], *, epochs: int, patience: int | None = 20, stage_epochs: int | str | None = "auto"
    ) -> "ChunkSchedule":
        """Make a schedule. With ``stage_epochs='auto'``, each stage gets an equal share of ``epochs``, at least one.

        With ``auto``, equal entries in a row count as one stage, so that every list reaches its last stage.
        """
        if stage_epochs == "auto":
            stages = [n for n, _ in groupby(stages)]
            stage_epochs = max(1, epochs // len(stages))
        assert stage_epochs is None or isinstance(stage_epochs, int)
        return cls(list(stages), patience, stage_epochs)

    @property
    def chunks(self) -> int:
        """The number of chunks per sequence in the current stage."""
        return self.stages[self.stage]

    def share_of_stage(self, epoch: int, epochs: int, share_of_epoch: float = 0.0) -> float:
        """The share of the current stage's epochs that is done, from 0 and below 1. A stage lasts for ``stage_epochs``;
        the last one, and one without a limit, until the run's end.

        Args:
            epoch: the number of the current epoch, from 0.
            epochs: of the run.
            share_of_epoch: the share of the current epoch that is done.
        """
        left = epochs - epoch + self.epochs_in_stage
        last = self.stage == len(self.stages) - 1
        length = left if last or self.stage_epochs is None else min(self.stage_epochs, left)
        return (self.epochs_in_stage + share_of_epoch) / length

    def end_epoch(self, loss: float) -> bool:
        """Tell the schedule an epoch's training loss. Returns whether the stage ended with this epoch.

        NaN is never a new best.
        """
        assert not self.done, "the schedule has ended"
        self.epochs_in_stage += 1
        if loss < self.best:
            self.best, self.epochs_without_best = loss, 0
        else:
            self.epochs_without_best += 1
        last = self.stage == len(self.stages) - 1
        impatient = self.patience is not None and self.epochs_without_best >= self.patience
        expired = self.stage_epochs is not None and self.epochs_in_stage >= self.stage_epochs
        if last:
            self.done = impatient
            return impatient
        if not (impatient or expired):
            return False
        self.stage += 1
        self.epochs_in_stage = self.epochs_without_best = 0
        self.best = math.inf
        return True

    def state_dict(self) -> dict[str, Any]:
        """The whole schedule in plain types."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ChunkSchedule":
        return cls(**state)

"""A pack: an epoch of several runs in one process. All backends give the same curves, bit for bit on the CPU.

The runs of a call have the same sequences, network shape and number of chunks. Each has weights, an optimizer, a bound
of the gradient, a learning rate and noise of its own.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.protocol import Network
from tbptt.training.chunks import PassRecord, train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.segments import SegmentMemory


@dataclass
class Row:
    """A run in a pack; see :func:`tbptt.training.chunks.train_pass` for what is not said here.

    Attributes:
        at_work: gives a context within which the process's random generators are this run's.
    """

    network: Network
    parameters: FlatParameters
    optimizer: torch.optim.Optimizer
    clip: float | None = None
    clip_mode: str = "norm"
    first_update: int = 0
    before_update: Callable[[int], None] | None = None
    share: Tensor | None = None
    fixed: FixedSteps | None = None
    at_work: Callable[[], AbstractContextManager[None]] = nullcontext


def train_together(
    rows: Sequence[Row],
    sequences: Sequences,
    chunks: int,
    *,
    segment_length: int | str | None = "auto",
    threads: int = 1,
    after_chunk: Callable[[], None] = lambda: None,
    memory: SegmentMemory | None = None,
) -> list[PassRecord | Exception]:
    """Train each row once on every valid step of every sequence, as :func:`tbptt.training.chunks.train_pass` does.

    Returns the record of each row, or the error that kept it from being trained. What ``after_chunk`` raises is raised.
    """
    return by_turns(rows, sequences, chunks, segment_length, after_chunk, memory)


def by_turns(
    rows: Sequence[Row],
    sequences: Sequences,
    chunks: int,
    segment_length: int | str | None,
    after_chunk: Callable[[], None],
    memory: SegmentMemory | None,
) -> list[PassRecord | Exception]:
    """One row after the other: what the other backends are held against, and what works for every network."""
    stopped: list[Exception] = []

    def check() -> None:
        try:
            after_chunk()
        except Exception as error:
            stopped.append(error)
            raise

    records: list[PassRecord | Exception] = []
    for row in rows:
        try:
            with row.at_work():
                record = train_pass(
                    row.network,
                    row.parameters,
                    row.optimizer,
                    sequences,
                    chunks,
                    clip=row.clip,
                    clip_mode=row.clip_mode,
                    segment_length=segment_length,
                    after_chunk=check,
                    fixed=row.fixed,
                    first_update=row.first_update,
                    before_update=row.before_update,
                    share=row.share,
                    memory=memory,
                )
            records.append(record)
        except Exception as error:
            if stopped:
                raise
            records.append(error)
    return records

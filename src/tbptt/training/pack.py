"""A pack: an epoch of several runs in one process. All backends give the same curves, bit for bit on the CPU.

The runs of a call have the same sequences, network shape and number of chunks. Each has weights, an optimizer, a bound
of the gradient, a learning rate and noise of its own.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.article import QNetwork
from tbptt.models.protocol import Network
from tbptt.models.rows import NetworkRows
from tbptt.training.chunks import PassRecord, Step, is_in_segments, train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import optimizer_state
from tbptt.training.options import OptimizerConfig
from tbptt.training.pack_on_gpu import PackOnGpu, why_not
from tbptt.training.schedule import chunk_bounds
from tbptt.training.segments import SegmentMemory

Record = list[list[float]]  # of a pass, as PassRecord.to_host() gives it


@dataclass
class Row:
    """A run in a pack; see :func:`tbptt.training.chunks.train_pass` for what is not said here.

    Attributes:
        at_work: gives a context within which the process's random generators are this run's.
        compiled: whether the compiled layers may compute it.
        config: of the optimizer; None where only the optimizer itself is known.
        lr: the learning rate without its schedule.
        factor: of the schedule on the learning rate of each update of the pass, by its number; None: 1.
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
    compiled: bool = True
    config: OptimizerConfig | None = None
    lr: float | None = None
    factor: Callable[[int], float] | None = None


class Together:
    """Trains passes of rows that have the same sequences and network shape.

    Small networks of the compiled layers are computed by threads that share the rows: most of the time of such an
    update would go to Python and autograd (:class:`tbptt.models.rows.NetworkRows`). All others train in turns.

    On a GPU, networks of that kind are one matrix of weights (:class:`tbptt.training.pack_on_gpu.PackOnGpu`).

    Args:
        memory: where segments keep their activations.
        threads: how many train rows at once, this one among them.
        most: rows at once.
        graphs: whether a GPU may replay an update as a CUDA graph.
    """

    def __init__(self, memory: SegmentMemory | None = None, threads: int = 1, most: int = 1, graphs: bool | str = True):
        self.memory, self.threads, self.most, self.graphs = memory, threads, most, graphs
        self._on_gpu: PackOnGpu | None = None
        self._pool = ThreadPoolExecutor(threads - 1, "pack") if threads > 1 else None
        self._shares: dict[tuple[int, ...], _Share] = {}

    def keep(self, rows: Sequence[Row]) -> None:
        """Say which rows there are now; to be called before the first of their passes."""
        if any(why_not(row) for row in rows):
            self._on_gpu = None
            return
        if self._on_gpu is None or len(self._on_gpu.rows) < len(rows):
            room = max(self.most, len(rows))
            self._on_gpu = PackOnGpu(cast(QNetwork, rows[0].network), room, None if self.graphs else False)
        self._on_gpu.keep(rows)

    def optimizer_state(self, row: Row) -> dict[str, Any]:
        """The state of a row's optimizer between two passes, as :func:`tbptt.training.optimizers.optimizer_state` gives
        it."""
        if self._on_gpu is not None:
            return self._on_gpu.optimizer_state(row)
        return optimizer_state(row.optimizer, row.parameters)

    def train(
        self,
        rows: Sequence[Row],
        sequences: Sequences,
        chunks: int,
        segment_length: int | str | None = "auto",
        after_chunk: Callable[[], None] = lambda: None,
    ) -> list[Record | Exception]:
        """Train each row once on every valid step of every sequence, as :func:`tbptt.training.chunks.train_pass` does.

        Returns the record of each row, as :meth:`PassRecord.to_host` gives it, or the error that kept it from being
        trained. What ``after_chunk`` raises is raised.
        """
        if self._on_gpu is not None:
            return [*self._on_gpu.train(rows, sequences, chunks, segment_length, after_chunk)]
        longest = -(-sequences.length // chunks)
        if is_in_segments(longest, segment_length) or not all(row.compiled and row.fixed is None for row in rows):
            return by_turns(rows, sequences, chunks, segment_length, after_chunk, self.memory)
        try:
            shares = self._parted(rows)
        except ValueError:  # the compiled layers cannot compute these networks
            return by_turns(rows, sequences, chunks, segment_length, after_chunk, self.memory)
        return self._by_threads(shares, sequences, chunks, after_chunk)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _parted(self, rows: Sequence[Row]) -> "list[_Share]":
        """The rows, parted among the threads. Those of the last passes are kept, as long as they have the same rows."""
        size = -(-len(rows) // self.threads)
        shares: dict[tuple[int, ...], _Share] = {}
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            key = tuple(id(row.parameters) for row in some)
            shares[key] = self._shares.get(key) or _Share([row.parameters for row in some], some)
            shares[key].rows = some
        self._shares = shares
        return list(shares.values())

    def _by_threads(
        self, shares: "Sequence[_Share]", sequences: Sequences, chunks: int, after_chunk: Callable[[], None]
    ) -> list[Record | Exception]:
        brake = _Brake(after_chunk)
        others = [self._pool.submit(share.train, sequences, chunks, brake) for share in shares[1:] if self._pool]
        try:
            found = shares[0].train(sequences, chunks, brake, checks=True)
        finally:
            wait(others)
        if brake.error is not None:
            raise brake.error
        return [*found, *(record for other in others for record in other.result())]


class _Brake:
    """Stops all threads where what is called after each chunk raises."""

    def __init__(self, after_chunk: Callable[[], None]):
        self._after_chunk = after_chunk
        self.error: BaseException | None = None

    def check(self) -> None:
        try:
            self._after_chunk()
        except BaseException as error:
            self.error = error


class _Share:
    """The rows that one thread trains."""

    def __init__(self, parameters: Sequence[FlatParameters], rows: Sequence[Row]):
        self.rows, self._parameters = rows, parameters  # which have the memory that the networks' weights are in
        self._networks = NetworkRows([cast(QNetwork, row.network) for row in rows], [p.grads for p in parameters])

    def train(self, sequences: Sequences, chunks: int, brake: _Brake, checks: bool = False) -> list[Record | Exception]:
        """Train a pass of each row, or break off where the threads are to stop.

        Args:
            checks: whether this thread looks, after each chunk, if they are.
        """
        try:
            return [*self._train(sequences, chunks, brake, checks)]
        except Exception as error:  # such as a lack of memory: these rows have lost their epoch
            return [error for _ in self.rows]

    def _train(self, sequences: Sequences, chunks: int, brake: _Brake, checks: bool) -> list[Record]:
        rows, networks, every = self.rows, self._networks, range(len(self.rows))
        steps = [Step(r.network, r.parameters, r.optimizer, r.clip, r.clip_mode, r.share) for r in rows]
        bounds = chunk_bounds(sequences.length, chunks)
        records = [PassRecord(chunks, "cpu") for _ in rows]
        finite = [torch.ones((), dtype=torch.bool) for _ in rows]
        state = networks.zero_state(sequences.batch)
        for row in rows:
            row.parameters.attach()
        for i, (start, stop) in enumerate(bounds):
            count = sequences.count(start, stop)
            x = sequences.features(start, stop).transpose(0, 1)  # (T, B, D), once for all rows
            y = networks.forward(x, every, state, [row.first_update + i for row in rows])  # (n, T, B, O)
            dy = torch.empty_like(y)
            losses = [_loss(sequences, start, stop, count, *both) for both in zip(y, dy, strict=True)]
            networks.backward(dy)
            for row, step, loss, is_finite, record in zip(rows, steps, losses, finite, records, strict=True):
                if row.before_update is not None:
                    row.before_update(i)
                step.apply(loss, is_finite, record.of(i))
            if checks:
                brake.check()
            if brake.error is not None:
                break
        return [record.to_host() for record in records]


def _loss(sequences: Sequences, start: int, stop: int, count: int, y: Tensor, dy: Tensor) -> Tensor:
    """The loss of a row's predictions (T, B, O), a scalar; its gradient goes into ``dy``."""
    y = y.detach().requires_grad_()
    loss = sequences.loss(y.transpose(0, 1), start, stop) / count
    dy.copy_(torch.autograd.grad(loss, y)[0])
    return loss.detach()


def by_turns(
    rows: Sequence[Row],
    sequences: Sequences,
    chunks: int,
    segment_length: int | str | None,
    after_chunk: Callable[[], None],
    memory: SegmentMemory | None,
) -> list[Record | Exception]:
    """One row after the other: what the other backends are held against, and what works for every network."""
    brake = _Brake(after_chunk)

    def check() -> None:
        brake.check()
        if brake.error is not None:
            raise brake.error

    records: list[Record | Exception] = []
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
            records.append(record.to_host())
        except Exception as error:
            if brake.error is not None:
                raise
            records.append(error)
    return records

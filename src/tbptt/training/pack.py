"""A pack: an epoch of several runs in one process. All backends give the same curves, bit for bit on the CPU.

The runs of a call have the same sequences, network shape and number of chunks. Each has weights, an optimizer, a bound
of the gradient, a learning rate and noise of its own.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, cast

from tbptt.data.sequences import Sequences
from tbptt.models.article import QNetwork
from tbptt.training.chunks import is_in_segments, train_pass
from tbptt.training.optimizers import optimizer_state
from tbptt.training.pack_on_gpu import PackOnGpu
from tbptt.training.pack_row import Record, Row
from tbptt.training.pack_threads import Brake, Share
from tbptt.training.segments import SegmentMemory


class Together:
    """Trains passes of rows that have the same sequences and network shape.

    Small networks of the compiled layers are computed by threads that share the rows: most of the time of such an
    update would go to Python and autograd (:class:`tbptt.models.rows.NetworkRows`). All others train in turns.

    On a GPU, networks of that kind are one matrix of weights (:class:`tbptt.training.pack_on_gpu.PackOnGpu`).

    Args:
        memory: where segments keep their activations.
        threads: how many train rows at once, this one among them.
        most: rows at once.
        on_gpu: whether they are rows of one matrix (:func:`tbptt.training.pack_on_gpu.why_not`).
        graphs: whether a GPU may replay an update as a CUDA graph.
    """

    def __init__(
        self,
        memory: SegmentMemory | None = None,
        threads: int = 1,
        most: int = 1,
        on_gpu: bool = False,
        graphs: bool | str = True,
    ):
        self.memory, self.threads, self.most, self.on_gpu, self.graphs = memory, threads, most, on_gpu, graphs
        self.uses_threads = False  # in the last pass
        self._rows: PackOnGpu | None = None
        self._pool = ThreadPoolExecutor(threads - 1, "pack") if threads > 1 else None
        self._shares: dict[tuple[int, ...], Share] = {}  # by the ids of their rows' parameters, which they hold

    def keep(self, rows: Sequence[Row]) -> None:
        """Say which rows there are now; to be called before the first of their passes. On a GPU all of them can be rows
        of one matrix, or none (``on_gpu``): what has trained in a row has its optimizer's state only there."""
        there = {id(row.parameters) for row in rows}
        self._shares = {key: share for key, share in self._shares.items() if there.issuperset(key)}
        if not self.on_gpu:
            return
        if self._rows is None:
            self._rows = PackOnGpu(cast(QNetwork, rows[0].network), self.most, None if self.graphs else False)
        self._rows.keep(rows)

    def optimizer_state(self, row: Row) -> dict[str, Any]:
        """The state of a row's optimizer between two passes, as :func:`tbptt.training.optimizers.optimizer_state` gives
        it."""
        if self._rows is not None:
            return self._rows.optimizer_state(row)
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
        self.uses_threads = False
        if self._rows is not None:
            return [*self._rows.train(rows, sequences, chunks, segment_length, after_chunk)]
        longest = -(-sequences.length // chunks)
        if is_in_segments(longest, segment_length) or not all(row.compiled and row.fixed is None for row in rows):
            return by_turns(rows, sequences, chunks, segment_length, after_chunk, self.memory)
        try:
            shares = self._parted(rows)
        except ValueError:  # the compiled layers cannot compute these networks
            return by_turns(rows, sequences, chunks, segment_length, after_chunk, self.memory)
        self.uses_threads = True
        return self._by_threads(shares, sequences, chunks, after_chunk)

    def in_threads(self, actions: Sequence[Callable[[], object]]) -> list[Exception | None]:
        """Do what has nothing in common, by all threads; returns the error of each."""

        def some(mine: Sequence[Callable[[], object]]) -> list[Exception | None]:
            return [error_of(action) for action in mine]

        size = max(1, -(-len(actions) // self.threads))
        parts = [actions[first : first + size] for first in range(0, len(actions), size)]
        others = [self._pool.submit(some, part) for part in parts[1:] if self._pool]
        mine = some(parts[0]) if parts else []
        return [*mine, *(error for other in others for error in other.result())]

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _parted(self, rows: Sequence[Row]) -> list[Share]:
        """The rows, parted among the threads. A share of the same rows is kept from pass to pass."""
        size = -(-len(rows) // self.threads)
        found = []
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            key = tuple(id(row.parameters) for row in some)
            share = self._shares.get(key) or Share(some)
            share.rows, self._shares[key] = some, share
            found.append(share)
        return found

    def _by_threads(
        self, shares: Sequence[Share], sequences: Sequences, chunks: int, after_chunk: Callable[[], None]
    ) -> list[Record | Exception]:
        brake = Brake(after_chunk)
        others = [self._pool.submit(share.train, sequences, chunks, brake) for share in shares[1:] if self._pool]
        try:
            found = shares[0].train(sequences, chunks, brake, checks=True)
        except BaseException as error:
            brake.error = error
            raise
        finally:
            wait(others)
        if brake.error is not None:
            raise brake.error
        return [*found, *(record for other in others for record in other.result())]


def error_of(action: Callable[[], object]) -> Exception | None:
    """Do something; the error that it ended with, or None."""
    try:
        action()
    except Exception as error:
        return error
    return None


def by_turns(
    rows: Sequence[Row],
    sequences: Sequences,
    chunks: int,
    segment_length: int | str | None,
    after_chunk: Callable[[], None],
    memory: SegmentMemory | None,
) -> list[Record | Exception]:
    """One row after the other: what the other backends are held against, and what works for every network."""
    brake = Brake(after_chunk)

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

"""A pack's rows on a CPU, where the compiled layers compute them: threads share the rows.

Each thread computes the networks of all of its rows in one call (:class:`tbptt.models.rows.NetworkRows`), and all else
of an update row by row, as a row's numbers then stay in the core's cache. The numbers are those of
:func:`tbptt.training.chunks.train_pass`, bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from tbptt.data.sequences import Loss, Sequences
from tbptt.models.article import QNetwork
from tbptt.models.rows import NetworkRows
from tbptt.tasks.options import TaskConfig
from tbptt.training.chunks import PassRecord, Step
from tbptt.training.pack_row import Record, Row
from tbptt.training.schedule import chunk_bounds

MOST = 20_000  # steps, of all series and rows of a call: of each some 4 kB are kept until it has run backward


class Brake:
    """Stops all threads where what is called after each chunk raises."""

    def __init__(self, after_chunk: Callable[[], None]):
        self._after_chunk = after_chunk
        self.error: BaseException | None = None

    def check(self) -> None:
        try:
            self._after_chunk()
        except BaseException as error:
            self.error = error


class Share:
    """The rows that one thread trains.

    Raises:
        ValueError: the compiled layers cannot compute their networks.
    """

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows
        self._parameters = [row.parameters for row in rows]  # which have the memory that the networks' weights are in
        networks = [cast(QNetwork, row.network) for row in rows]
        self._networks = NetworkRows(networks, [p.grads for p in self._parameters])

    def train(self, sequences: Sequences, chunks: int, brake: Brake, checks: bool = False) -> list[Record | Exception]:
        """Train a pass of each row, or break off where the threads are to stop.

        Args:
            checks: whether this thread looks, after each chunk, if they are.
        """
        try:
            return [*self._train(sequences, chunks, brake, checks)]
        except Exception as error:  # such as a lack of memory: these rows have lost their epoch
            return [error for _ in self.rows]

    def _train(self, sequences: Sequences, chunks: int, brake: Brake, checks: bool) -> list[Record]:
        rows, networks = self.rows, self._networks
        steps = [Step(r.network, r.parameters, r.optimizer, r.clip, r.clip_mode, r.share) for r in rows]
        records = [PassRecord(chunks, "cpu") for _ in rows]
        finite = [torch.ones((), dtype=torch.bool) for _ in rows]
        state = networks.zero_state(sequences.batch)
        for row in rows:
            row.parameters.attach()
        for i, (start, stop) in enumerate(chunk_bounds(sequences.length, chunks)):
            count = sequences.count(start, stop)
            x = sequences.features(start, stop).transpose(0, 1)  # (T, B, D), once for all rows
            size = max(1, MOST // (len(x) * sequences.batch))
            for some in (range(len(rows))[first : first + size] for first in range(0, len(rows), size)):
                y = networks.forward(x, some, state, [rows[n].first_update + i for n in some])  # (n, T, B, O)
                losses, dy = _losses(sequences, start, stop, count, y)
                networks.backward(dy)
                for n, loss in zip(some, losses, strict=True):
                    if (before_update := rows[n].before_update) is not None:
                        before_update(i)
                    steps[n].apply(loss, finite[n], records[n].of(i))
            if checks:
                brake.check()
            if brake.error is not None:
                break
        return [record.to_host() for record in records]


def _losses(sequences: Sequences, start: int, stop: int, count: int, y: Tensor) -> tuple[Sequence[Tensor], Tensor]:
    """The losses of the rows' predictions (n, T, B, O), scalars, and their gradients, (n, T, B, O)."""
    targets = sequences.targets[:, start:stop]
    if not _is_squared_error(sequences.task) or targets.dtype != y.dtype:
        dy = torch.empty_like(y)
        return [_by_autograd(sequences, start, stop, count, *both) for both in zip(y, dy, strict=True)], dy
    error = y - targets.transpose(0, 1)
    if sequences.mask is not None:
        error = error * sequences.mask[:, start:stop].T[..., None]
    twice = 2 * (y.new_ones(()) / count)  # rounded where autograd rounds
    # Each sum by itself: a sum of all rows at once would be in another order.
    return (torch.stack([each.sum() for each in error.square().unbind()]) / count).unbind(), error * twice


def _is_squared_error(task: Loss) -> bool:
    return isinstance(task, TaskConfig) and type(task).loss is TaskConfig.loss


def _by_autograd(sequences: Sequences, start: int, stop: int, count: int, y: Tensor, dy: Tensor) -> Tensor:
    """The loss of a row's predictions (T, B, O), a scalar; its gradient goes into ``dy``."""
    y = y.detach().requires_grad_()
    loss = sequences.loss(y.transpose(0, 1), start, stop) / count
    dy.copy_(torch.autograd.grad(loss, y)[0])
    return loss.detach()

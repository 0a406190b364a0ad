"""A pack's rows on a GPU: the weights of all runs are one matrix there, and an update of all rows is one CUDA graph."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch

from tbptt.data.sequences import Sequences
from tbptt.models.article import QNetwork
from tbptt.models.packed import why_not_packed
from tbptt.training.optimizers import optimizer_state
from tbptt.training.pack_row import Record, Row
from tbptt.training.packed_rows import PackedRows, RowTrial, why_no_row
from tbptt.training.packed_step import PackedSteps, packed_pass
from tbptt.training.segments import segment_of


def why_not(row: Row) -> str | None:
    """Why a run cannot be a row on a GPU; None if it can."""
    if not row.parameters.vector.is_cuda:
        return "it is not on a GPU"
    if row.config is None:
        return "its optimizer has no config"
    return why_not_packed(row.network) or why_no_row(row.config)


class PackOnGpu:
    """The rows of one network's shape that a process trains at once.

    Args:
        network: one of that shape.
        count: rows that it has room for.
        captures: whether updates are captured as a CUDA graph; None: on a GPU only.
    """

    def __init__(self, network: QNetwork, count: int, captures: bool | None = None):
        self.rows = PackedRows(deepcopy(network), count)
        self._steps = PackedSteps(self.rows, captures)
        self._places: dict[int, tuple[int, Row]] = {}  # by the id of a run's parameters

    def keep(self, rows: Sequence[Row]) -> None:
        """Make room for these runs, and free the rows of all others. A run that is new is put into a row."""
        there = {id(row.parameters) for row in rows}
        for gone in self._places.keys() - there:
            self.rows.free(self._places.pop(gone)[0])
        for row in rows:
            if id(row.parameters) not in self._places:
                self._put(row)

    def _put(self, row: Row) -> None:
        taken = {place for place, _ in self._places.values()}
        place = next(i for i in range(len(self.rows)) if i not in taken)
        assert row.config is not None
        noise = cast(QNetwork, row.network).noise
        trial = RowTrial(row.config, row.clip, row.clip_mode, noise.seed, noise.std)
        state = optimizer_state(row.optimizer, row.parameters)
        self.rows.fill(place, trial, cast(QNetwork, row.network), update=row.first_update, optimizer=state, lr=row.lr)
        self._places[id(row.parameters)] = place, row

    def train(
        self,
        rows: Sequence[Row],
        sequences: Sequences,
        chunks: int,
        segment_length: int | str | None,
        after_chunk: Callable[[], None],
    ) -> list[Record]:
        """Train a pass of each row; returns what :meth:`PassRecord.to_host` gives of each. Their networks then have the
        new weights."""
        places = [self._places[id(row.parameters)][0] for row in rows]
        segment = segment_of(-(-sequences.length // chunks), segment_length)
        step = self._steps.of(places, sequences, chunks, segment)
        by_place = dict(zip(places, rows, strict=True))
        in_order = [by_place[place] for place in step.order]
        factors = [[1.0 if row.factor is None else row.factor(i) for row in in_order] for i in range(chunks)]
        device = sequences.targets.device
        record = packed_pass(
            step,
            sequences,
            chunks,
            factors=torch.tensor(factors, dtype=torch.float64).to(device),
            after_chunk=after_chunk,
        )
        found: Mapping[int, Any] = dict(zip(step.order, record.to_host(), strict=True))
        for place, row in by_place.items():
            self.rows.to_network(place, cast(QNetwork, row.network))
        return [found[place] for place in places]

    def optimizer_state(self, row: Row) -> dict[str, Any]:
        """The state of a run's optimizer, as :func:`tbptt.training.optimizers.optimizer_state` gives it."""
        return self.rows.optimizer_state(self._places[id(row.parameters)][0])

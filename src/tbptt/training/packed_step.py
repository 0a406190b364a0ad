"""One update of many trials on a chunk, with all tensors at fixed places, so that a CUDA graph can capture it.

It is chunks.py's update, a row a trial: forward and backward, clipping, the guard, the optimizer's step, the record.
Nothing waits for the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tbptt.data.sequences import Loss, Sequences
from tbptt.models.packed import PackedNetwork
from tbptt.models.packed_noise import PackedNoise
from tbptt.models.state import State, copy_into, detach, leaves
from tbptt.tasks.options import TaskConfig
from tbptt.training.chunks import fresh_casts
from tbptt.training.cuda_graphs import Capturing, Replayed
from tbptt.training.flat import as_bits, bit_mask
from tbptt.training.packed_clipping import clip_rows
from tbptt.training.packed_optimizers import StepRows
from tbptt.training.packed_rows import COLUMNS, PackedRows, RowTrial
from tbptt.training.schedule import chunk_bounds

CHANGED = ("weights", "first", "second", "steps", "factors", "updates")  # of a row, by an update


class PackedRecord:
    """The record of one pass of n trials, update by update, on the device: see
    :class:`tbptt.training.chunks.PassRecord`. U is the number of updates.

    Attributes:
        losses, norms, clipped, finite: (U, n).
    """

    def __init__(self, updates: int, trials: int, device: torch.device | str):
        self._table = torch.zeros(4, updates, trials, device=device)
        self.losses, self.norms, self.clipped, self.finite = self._table.unbind()

    def of(self, update: int) -> Tensor:
        """(4, n) a view of one update's losses, norms, clipped and finite, to write to."""
        return self._table[:, update]

    def to_host(self) -> list[list[list[float]]]:
        """For each trial its losses, norms, clipped and finite, in one transfer from the device."""
        found: list[list[list[float]]] = self._table.permute(2, 0, 1).tolist()
        return found


@dataclass(frozen=True)
class Arrangement:
    """The order of the rows in a step, and what it depends on besides numbers on the device.

    Attributes:
        order: the rows, those of one optimizer and clip mode side by side.
        keys: the group of each.
        stds: of each row's noise.
        groups: for each group where it lies in ``order``, [start, stop), and one of its trials.
    """

    order: list[int]
    keys: list[tuple[Any, ...]]
    stds: list[float]
    groups: list[tuple[tuple[int, int], RowTrial]] = field(compare=False)

    @classmethod
    def of(cls, rows: PackedRows, chosen: Sequence[int]) -> "Arrangement":
        trials = {row: rows.trial(row) for row in chosen}
        order = sorted(trials, key=lambda row: (trials[row].group, row))
        keys = [trials[row].group for row in order]
        groups, start = [], 0
        for _, same in groupby(order, key=lambda row: trials[row].group):
            some = list(same)
            groups.append(((start, start := start + len(some)), trials[some[0]]))
        return cls(order, keys, [trials[row].noise_std for row in order], groups)


class PackedStep:
    """The updates of some trials of a pack on chunks of up to ``length`` steps.

    The trials of one optimizer and clip mode lie side by side. If the chosen rows do so already, without a gap, all are
    used in place. Otherwise they are copied out as a pass begins and back as it ends: 3·n·P numbers each way, which is
    less than what one update of Adam moves.

    Args:
        rows: the pack.
        chosen: the rows that take part; each has a trial.
        sequences: sequences of the shapes and types that it will train on.
        length: the most steps of a chunk.
        segment: chunks are backpropagated through in segments of so many steps, of which all but the last run forward
            twice; the gradient is the same. None: in one piece.
        captures: whether updates are captured as a CUDA graph. By default they are on a GPU only.

    Attributes:
        order: the rows, in the order in which everything here has them; n of them.
        factors: (n,) float64, on the learning rates of the next update; write to it.
        finite: (n,) bool, whether all of a trial has been finite in this pass; its weights are frozen if not.
        seen: (4, n) the losses, norms, clipped and finite of the last update.
    """

    def __init__(
        self,
        rows: PackedRows,
        chosen: Sequence[int],
        sequences: Sequences,
        length: int,
        segment: int | None = None,
        captures: bool | None = None,
    ):
        self._arranged = Arrangement.of(rows, chosen)
        self.rows, self.length, self.task = rows, length, sequences.task
        self.order = self._arranged.order
        first, count = self.order[0], len(self.order)
        self._in_place = self.order == list(range(first, first + count))
        self._tensors = {
            name: t[first : first + count] if self._in_place else torch.empty_like(t[:count])
            for name, t in rows.tensors.items()
        }
        self._index = torch.tensor(self.order, device=rows.tensors["steps"].device)
        self.factors, self.weights = self._tensors["factors"], self._tensors["weights"]
        seeds, updates = self._tensors["seeds"], self._tensors["updates"]
        noise = PackedNoise(self._arranged.stds, seeds, updates, self.weights.dtype)
        self.network = PackedNetwork(rows.network, self.weights, noise)
        self._before = torch.empty_like(self.weights)
        self._spans = list(pairwise([*range(0, length, segment or length), length]))
        self._make_places(sequences)
        captures = self.weights.is_cuda if captures is None else captures
        self._replayed = Replayed(self.weights.device, Capturing(required=False)) if captures else None

    def _make_places(self, sequences: Sequences) -> None:
        count, batch, device = len(self.order), sequences.batch, self.weights.device
        features = sequences.features(0, 1).shape[2]
        targets = sequences.targets
        self._x = self.weights.new_zeros(self.length, batch, features)
        self._targets = targets.new_zeros(batch, self.length, targets.shape[2])
        self._mask = targets.new_ones(batch, self.length)
        self._state = self.network.zero_state(batch)
        self._lengths = torch.zeros(count, dtype=torch.int32, device=device)
        self._counts = targets.new_ones(count)
        self.finite = torch.ones(count, dtype=torch.bool, device=device)
        self.seen = torch.zeros(4, count, device=device)

    def fits(self, chosen: Sequence[int]) -> bool:
        """Whether it can go on with these rows, in which there may be other trials now."""
        return self._arranged == Arrangement.of(self.rows, chosen)

    def begin_pass(self) -> None:
        """Begin with the state at the start of every sequence, and with what the rows of the pack have now."""
        if not self._in_place:
            for name, own in self._tensors.items():
                torch.index_select(self.rows.tensors[name], 0, self._index, out=own)
        for leaf in leaves(self._state):
            leaf.zero_()
        self.finite.fill_(True)

    def end_pass(self) -> None:
        """Bring the rows of the pack up to date."""
        if not self._in_place:
            for name in CHANGED:
                self.rows.tensors[name].index_copy_(0, self._index, self._tensors[name])

    def run(
        self,
        sequences: Sequences,
        start: int,
        stop: int,
        lengths: Int[Tensor, " n"] | None = None,
        counts: Float[Tensor, " n"] | None = None,
    ) -> Tensor:
        """Update all trials on the chunk [start, stop).

        Args:
            lengths: int32 on the device: the steps of the chunk that each trial has; by default all.
            counts: the divisors of the trials' summed losses, where their lengths are given.

        Returns:
            ``seen``, which the next call overwrites.
        """
        steps = stop - start
        self._x[:steps].copy_(sequences.features(start, stop).transpose(0, 1))
        self._targets[:, :steps].copy_(sequences.targets[:, start:stop])
        if sequences.mask is not None:
            self._mask[:, :steps].copy_(sequences.mask[:, start:stop])
        if lengths is None:
            self._lengths.fill_(steps)
            self._counts.fill_(sequences.count(start, stop))
        else:
            assert counts is not None
            self._lengths.copy_(lengths)
            self._counts.copy_(counts)
        if self._replayed:
            self._replayed.call(self._update)
        else:
            self._update()
        return self.seen

    def _update(self) -> None:
        losses, state = self._backward()
        self._apply(losses)
        copy_into(leaves(self._state), leaves(state))

    def _backward(self) -> tuple[Tensor, State]:
        """Compute the trials' gradients. Returns their losses, (n,), and the state after the chunk."""
        state, losses = self._state, []
        for i, (start, stop) in enumerate(self._spans):
            if i + 1 < len(self._spans):
                # The noise is by counter, so no generator has to be set back.
                again: Any = checkpoint
                loss, state = again(self._piece, start, stop, state, use_reentrant=False, preserve_rng_state=False)
            else:
                loss, state = self._piece(start, stop, state)
            losses.append(loss)
        loss = torch.stack(losses).sum(0) / self._counts
        self.network.backward(loss.sum())
        return loss.detach(), detach(state)

    def _piece(self, start: int, stop: int, state: State) -> tuple[Tensor, State]:
        """The trials' summed losses at the steps [start, stop) of the chunk, and the state after them."""
        lengths = (self._lengths - start).clamp_(0, stop - start)
        y, state = self.network(self._x[start:stop].transpose(0, 1), state, lengths, start)
        there = torch.arange(stop - start, device=lengths.device) < lengths[:, None]  # (n, K)
        mask = self._mask[:, start:stop] * there[:, None].to(self._mask.dtype)  # (n, B, K)
        target = self._targets[:, start:stop]
        return losses_of(self.task, y.to(target.dtype), target, mask), state

    @torch.no_grad()
    def _apply(self, losses: Tensor) -> None:
        """Clip, update the weights, and put back those of a trial that has not been finite."""
        grad, weights, finite = self.network.grad, self.weights, self.finite
        settings = {name: self._tensors["settings"][:, i : i + 1] for i, name in enumerate(COLUMNS)}
        settings["lr"] = settings["lr"] * self.factors[:, None]
        norms, clipped = self._clip(settings["clip"].to(grad.dtype))
        finite.logical_and_(losses.isfinite() & norms.isfinite())
        self._before.copy_(weights)
        # With a zero gradient instead of a bad one, the optimizer's averages stay finite too.
        as_bits(grad).bitwise_and_(bit_mask(finite, grad)[:, None])
        self._tensors["steps"].add_(1)
        kept = self._tensors["first"], self._tensors["second"], self._tensors["steps"][:, None]
        for (a, b), trial in self._arranged.groups:
            w, g, first, second, steps = (each[a:b] for each in (weights, grad, *kept))
            own = {name: values[a:b] for name, values in settings.items()}
            trial.kind.step(StepRows(w, g, first, second, steps, own, self.rows.places))
        finite.logical_and_(weights.sum(1).isfinite())
        before = as_bits(self._before)
        keeps = bit_mask(finite, weights)[:, None]
        as_bits(weights).bitwise_xor_(before).bitwise_and_(keeps).bitwise_xor_(before)
        self._tensors["updates"].add_(1)
        for place, value in zip(self.seen.unbind(), (losses, norms, clipped, finite), strict=True):
            place.copy_(value)

    def _clip(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Bound the gradients by the values (n, 1). Returns the norms before, and what was clipped, (n,) each."""
        found = []
        for (a, b), trial in self._arranged.groups:
            mode = None if trial.clip is None else trial.clip_mode
            grad, weights = self.network.grad[a:b], self.weights[a:b]
            found.append(clip_rows(grad, weights, self.rows.places, mode, values[a:b], trial.clip))
        norms, clipped = zip(*found, strict=True)
        return torch.cat(norms), torch.cat(clipped)


def losses_of(
    task: Loss, y: Float[Tensor, "N B K O"], target: Float[Tensor, "B K O"], mask: Float[Tensor, "N B K"]
) -> Float[Tensor, " N"]:
    """The task's summed loss of each trial. That of a task of your own is computed row by row: it may contain what
    cannot be computed of all rows at once."""
    if isinstance(task, TaskConfig) and type(task).loss is TaskConfig.loss:
        of_all: Tensor = torch.func.vmap(task.loss_sum, in_dims=(0, None, 0))(y, target, mask)
        return of_all
    return torch.stack(
        [task.loss_sum(row, target, of_row) for row, of_row in zip(y.unbind(), mask.unbind(), strict=True)]
    )


class PackedSteps:
    """The steps of a pack, to be kept from pass to pass: a graph is captured once for its rows and length."""

    def __init__(self, rows: PackedRows, captures: bool | None = None):
        self._rows, self._captures, self._steps = rows, captures, list[tuple[int | None, PackedStep]]()

    def of(self, chosen: Sequence[int], sequences: Sequences, chunks: int, segment: int | None = None) -> PackedStep:
        """The step for these rows and so many chunks: one that was there, or a new one."""
        start, stop = chunk_bounds(sequences.length, chunks)[0]  # the longest chunks come first
        for asked, step in self._steps:
            if (asked, step.length) == (segment, stop - start) and step.fits(chosen):
                return step
        step = PackedStep(self._rows, chosen, sequences, stop - start, segment, self._captures)
        self._steps.append((segment, step))
        return step

    def keep(self, used: Sequence[PackedStep]) -> None:
        """Release the memory of all other steps."""
        self._steps = [(asked, step) for asked, step in self._steps if step in used]


def packed_pass(
    step: PackedStep,
    sequences: Sequences,
    chunks: int,
    *,
    factors: Float[Tensor, "U n"] | None = None,
    after_chunk: Callable[[], None] = lambda: None,
) -> PackedRecord:
    """Train each trial once on every valid step of every sequence: :func:`tbptt.training.chunks.train_pass` of many.

    Args:
        chunks: the number of chunks into which each sequence is cut; none is longer than the step's.
        factors: float64 on the device: on the trials' learning rates at each update, in the step's order; by default 1.
        after_chunk: called when an update has been launched; may raise to stop.

    Returns:
        The record, whose trials are in the step's order.
    """
    bounds = chunk_bounds(sequences.length, chunks)
    record = PackedRecord(len(bounds), len(step.order), sequences.targets.device)
    step.begin_pass()
    with fresh_casts():
        for i, (start, stop) in enumerate(bounds):
            if factors is None:
                step.factors.fill_(1)
            else:
                step.factors.copy_(factors[i])
            record.of(i).copy_(step.run(sequences, start, stop))
            after_chunk()
    step.end_pass()
    return record

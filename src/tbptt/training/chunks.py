"""Truncated backpropagation through time: one pass over whole sequences, chunk by chunk, the state carried on.

Nothing in the loop waits for the host: losses, norms and the finite flag stay on the device until the pass ends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models import noise
from tbptt.models.protocol import Network
from tbptt.models.state import State, detach, leaves
from tbptt.training.clipping import clip_gradients
from tbptt.training.flat import FlatParameters, Steps
from tbptt.training.schedule import chunk_bounds
from tbptt.training.segments import Asked, SegmentMemory, by_segments, segment_of

if TYPE_CHECKING:
    from tbptt.training.cuda_graphs import FixedSteps


class PassRecord:
    """The record of one training pass, update by update, on the device. U is the number of updates.

    Attributes:
        losses: (U,) the task's loss of each chunk, before its update.
        norms: (U,) the global gradient norm before clipping.
        clipped: (U,) 1 where clipping changed the gradient.
        finite: (U,) 1 as long as everything was finite. From the first 0 on, no update changed the weights.
    """

    def __init__(self, updates: int, device: torch.device | str):
        self._table = torch.zeros(4, updates, device=device)
        self.losses, self.norms, self.clipped, self.finite = self._table.unbind()

    def of(self, update: int) -> Tensor:
        """(4,) a view of one update's loss, norm, clipped and finite, to write to."""
        return self._table[:, update]

    def to_host(self) -> list[list[float]]:
        """The lists of losses, norms, clipped and finite, in one transfer from the device."""
        return self._table.tolist()


class Step:
    """One update: the gradient, its clipping, and the optimizer's step, which is undone if anything is not finite.

    Args:
        network: computes the predictions.
        parameters: the network's trained parameters.
        optimizer: updates them.
        clip, clip_mode: see :func:`tbptt.training.clipping.clip_gradients`.
        share: see :meth:`FlatParameters.guarded_step`.
    """

    def __init__(
        self,
        network: Network,
        parameters: FlatParameters,
        optimizer: Steps,
        clip: float | None = None,
        clip_mode: str = "norm",
        share: Tensor | None = None,
    ):
        self.network, self.parameters, self.optimizer = network, parameters, optimizer
        self.clip, self.clip_mode, self.share = clip, clip_mode, share
        self.update, self._noise = 0, noise.noise_layers(network.modules())

    def begin(self, update: int, first_step: int = 0) -> None:
        """Say which update the next forward belongs to, and at which step of the chunk it begins: its noise depends on
        both."""
        self.update = update
        noise.begin(self._noise, update, first_step)

    def backward(
        self, sequences: Sequences, start: int, stop: int, state: State, count: Tensor | int
    ) -> tuple[Tensor, State]:
        """Compute the gradient of the chunk [start, stop) into the parameters. The chunk's loss is a sum divided by
        ``count``. Returns the loss and the state after the chunk, both detached."""
        self.parameters.grad.zero_()
        y, state = self.network(sequences.features(start, stop), state)  # (B, K, O)
        loss = sequences.loss(y, start, stop) / count
        loss.backward()
        return loss.detach(), detach(state)

    def apply(self, loss: Tensor, finite: Tensor, seen: Tensor) -> None:
        """Update the weights with the gradient that :meth:`backward` computed.

        Args:
            loss: the chunk's loss, a scalar tensor.
            finite: scalar bool tensor, updated in place: whether everything has been finite so far.
            seen: (4,) receives the loss, the gradient's norm, whether the gradient was clipped, and ``finite``.
        """
        p = self.parameters
        norm, clipped = clip_gradients(p.grad, p.grads, self.clip, self.clip_mode, p.weights)
        finite.logical_and_(loss.isfinite() & norm.isfinite())
        self.parameters.guarded_step(self.optimizer, finite, self.share)
        for place, value in zip(seen.unbind(), (loss, norm, clipped, finite), strict=True):
            place.copy_(value)


def train_pass(
    network: Network,
    parameters: FlatParameters,
    optimizer: Steps,
    sequences: Sequences,
    chunks: int,
    *,
    clip: float | None = None,
    clip_mode: str = "norm",
    segment_length: int | str | None = "auto",
    after_chunk: Callable[[], None] = lambda: None,
    fixed: "FixedSteps | None" = None,
    first_update: int = 0,
    before_update: Callable[[int], None] | None = None,
    share: Tensor | None = None,
    memory: SegmentMemory | None = None,
) -> PassRecord:
    """Train once on every valid step of every sequence, with ``chunks`` updates. The state is ``zero_state`` at the
    start; between chunks it is carried on and detached.

    Args:
        chunks: the number of chunks into which each sequence is cut.
        clip, clip_mode: see :func:`tbptt.training.clipping.clip_gradients`.
        segment_length: in steps. A longer chunk is backpropagated through segment by segment: the gradient is the same,
            and few segments' activations are in memory. ``auto`` chooses the length; None never cuts.
        after_chunk: called when a segment or an update has been launched; may raise to stop.
        fixed: computes chunks that are not cut into segments in memory of its own, as a CUDA graph needs. Keep it from
            pass to pass, for one network and optimizer.
        first_update: the number of updates before this pass. The noise of an update depends on its number.
        before_update: called with the number of each update in this pass before it is launched, to set its learning
            rate: that of the optimizer, or, where a graph holds the optimizer's step, ``share``.
        share: scalar tensor on the device; see :meth:`FlatParameters.guarded_step`.
        memory: where segments keep their activations, to be kept from pass to pass; by default they compute them twice.
    """
    step = Step(network, parameters, optimizer, clip, clip_mode, share)
    bounds = chunk_bounds(sequences.length, chunks)
    device = sequences.targets.device
    record = PassRecord(len(bounds), device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    state = network.zero_state(sequences.batch)
    parameters.attach()
    with fresh_casts():
        cut = (memory := memory or SegmentMemory(0)).begin_pass(network, sequences, segment_length, bounds, bool(fixed))
        for i, (start, stop) in enumerate(bounds):
            count = sequences.count(start, stop)
            step.begin(first_update + i)
            if before_update is not None:
                before_update(i)
            segment = segment_of(stop - start, cut)
            # A CUDA graph cannot hold a start state that is trained: its gradient leads out of the graph's memory.
            if segment is None and fixed is not None and not _is_trained(state):
                state = fixed.run(step, sequences, start, stop, state, count, finite, record.of(i))
            else:
                if segment is None:
                    loss, state = step.backward(sequences, start, stop, state, count)
                else:
                    loss, state = by_segments(step, sequences, start, stop, state, count, segment, after_chunk, memory)
                step.apply(loss, finite, record.of(i))
            after_chunk()
    return record


@cache
def parts_of(length: int, chunks: int, segment_length: Asked) -> int:
    """The number of times that :func:`train_pass` calls ``after_chunk``."""
    total = 0
    for start, stop in chunk_bounds(length, chunks):
        segment = segment_of(stop - start, segment_length)
        total += 1 if segment is None else 1 + 2 * -((start - stop) // segment)
    return total


@contextmanager
def fresh_casts() -> Iterator[None]:
    """Within, autocast casts the weights anew at every use.

    Autocast caches the weights that it has cast until its context ends. Lightning's context lasts for a training step,
    which is a whole pass here. With the cache, all chunks of the pass would compute with the weights of the first.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def is_in_segments(length: int, asked: Asked) -> bool:
    """Whether a chunk of this length is backpropagated through segment by segment."""
    return segment_of(length, asked) is not None


def _is_trained(state: State) -> bool:
    return any(leaf.requires_grad for leaf in leaves(state))


def epoch_loss(losses: Sequence[float], sequences: Sequences) -> float:
    """The loss of a whole pass: the mean of its chunk losses, each weighted by the count that divided its sum."""
    weights = [sequences.count(a, b) for a, b in chunk_bounds(sequences.length, len(losses))]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)

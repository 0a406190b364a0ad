"""Truncated backpropagation through time: one pass over whole sequences, chunk by chunk, the state carried on.

Nothing in the loop waits for the host: losses, norms and the finite flag stay on the device until the pass ends.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.protocol import Network
from tbptt.models.state import State, detach, leaves, rebuild
from tbptt.training.clipping import clip_gradients
from tbptt.training.flat import FlatParameters, Steps
from tbptt.training.schedule import chunk_bounds

if TYPE_CHECKING:
    from tbptt.training.cuda_graphs import FixedSteps

# What segment_length=auto takes: segments of so many steps, whose activations stay in cache, for chunks of more than so
# many; shorter ones are faster whole.
AUTO_SEGMENT, AUTO_FROM = 500, 2000


class PassRecord:
    """What one training pass saw, update by update, on the device.

    Attributes:
        losses: (U,) mean squared error of each chunk, before its update.
        norms: (U,) global gradient norm before clipping.
        clipped: (U,) 1 where clipping changed the gradient.
        finite: (U,) 1 as long as everything was finite; from the first 0 on no update was made.
    """

    def __init__(self, updates: int, device: torch.device | str):
        self._table = torch.zeros(4, updates, device=device)
        self.losses, self.norms, self.clipped, self.finite = self._table.unbind()

    def of(self, update: int) -> Tensor:
        """(4,) loss, norm, clipped, finite of one update, to write to."""
        return self._table[:, update]

    def to_host(self) -> list[list[float]]:
        """Losses, norms, clipped, finite, in one transfer."""
        return self._table.tolist()


class Step:
    """One update: the gradient's clipping, the optimizer's step, and the guard against what is not finite.

    Args:
        network, parameters, optimizer: what is trained, and by what.
        clip, clip_mode: see :func:`tbptt.training.clipping.clip_gradients`.
    """

    def __init__(
        self,
        network: Network,
        parameters: FlatParameters,
        optimizer: Steps,
        clip: float | None = None,
        clip_mode: str = "norm",
    ):
        self.network, self.parameters, self.optimizer = network, parameters, optimizer
        self.clip, self.clip_mode = clip, clip_mode

    def backward(
        self, sequences: Sequences, start: int, stop: int, state: State, count: Tensor | int
    ) -> tuple[Tensor, State]:
        """Set the gradient of a chunk, whose mean is over ``count`` numbers; returns its loss and the state after it,
        both detached."""
        self.parameters.grad.zero_()
        y, state = self.network(sequences.features(start, stop), state)  # (B, K, O)
        loss = sequences.loss(y, start, stop) / count
        loss.backward()
        return loss.detach(), detach(state)

    def apply(self, loss: Tensor, finite: Tensor, seen: Tensor) -> None:
        """Update the weights by the gradient that was set.

        Args:
            finite: scalar bool tensor, updated in place.
            seen: (4,) takes the loss, the gradient's norm, whether it was clipped, whether all was finite.
        """
        p = self.parameters
        norm, clipped = clip_gradients(p.grad, p.grads, self.clip, self.clip_mode, p.weights)
        finite.logical_and_(loss.isfinite() & norm.isfinite())
        self.parameters.guarded_step(self.optimizer, finite)
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
) -> PassRecord:
    """Train once on every valid step of every sequence: ``chunks`` updates, state zero at the start, carried and
    detached between chunks.

    Args:
        chunks: how many pieces each sequence is cut into.
        clip, clip_mode: see :func:`tbptt.training.clipping.clip_gradients`.
        segment_length: in steps; a longer chunk is backpropagated through segment by segment, with the same gradient
            and the activations of one segment in memory; ``auto`` picks it; None: never.
        after_chunk: called after each segment and update is under way; may raise to stop.
        fixed: does the same in memory of its own, which a CUDA graph needs, for chunks that are not cut into segments;
            kept from pass to pass, for this network and optimizer only.
    """
    step = Step(network, parameters, optimizer, clip, clip_mode)
    bounds = chunk_bounds(sequences.length, chunks)
    device = sequences.targets.device
    record = PassRecord(len(bounds), device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    state = network.zero_state(sequences.batch)
    parameters.attach()
    with fresh_casts():
        for i, (start, stop) in enumerate(bounds):
            count = sequences.count(start, stop)
            segment = _segment(stop - start, segment_length)
            # A state with a gradient, of parameters at the start of sequences, is no memory that a graph could read.
            if segment is None and fixed is not None and not _is_trained(state):
                state = fixed.run(step, sequences, start, stop, state, count, finite, record.of(i))
            else:
                if segment is None:
                    loss, state = step.backward(sequences, start, stop, state, count)
                else:
                    loss, state = _by_segments(step, sequences, start, stop, state, count, segment, after_chunk)
                step.apply(loss, finite, record.of(i))
            after_chunk()
    return record


@cache
def parts_of(length: int, chunks: int, segment_length: int | str | None) -> int:
    """How often :func:`train_pass` calls ``after_chunk``."""
    total = 0
    for start, stop in chunk_bounds(length, chunks):
        segment = _segment(stop - start, segment_length)
        total += 1 if segment is None else 1 + 2 * -((start - stop) // segment)
    return total


@contextmanager
def fresh_casts() -> Iterator[None]:
    """Within autocast: cast the weights anew at every use.

    Autocast keeps what it has cast until it is left, and Lightning leaves it once a training step, which is a whole
    pass here: all its chunks would see the weights of the first.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _segment(length: int, asked: int | str | None) -> int | None:
    """Into segments of how many steps a chunk is cut; None for not at all."""
    if asked == "auto":
        return AUTO_SEGMENT if length > AUTO_FROM else None
    return int(asked) if asked is not None and length > int(asked) else None


def _by_segments(
    step: Step,
    sequences: Sequences,
    start: int,
    stop: int,
    state: State,
    count: int,
    length: int,
    after_chunk: Callable[[], None],
) -> tuple[Tensor, State]:
    """The same as :meth:`Step.backward`, gradient included, holding the activations of one segment only.

    First forward without a graph, keeping the state at each segment's start; then from the last segment to the first:
    forward again, with the same noise, and backward with the gradient of the state that the later segment handed over
    (Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost", along time).
    """
    step.parameters.grad.zero_()
    network = step.network
    borders = [*range(start, stop, length), stop]
    segments = len(borders) - 1
    random = _RandomState(sequences.targets.device)
    form, given = state, leaves(state)
    # In one piece each: small tensors that outlive the large ones around them would leave holes in the heap.
    states = [_rows(leaf, segments) for leaf in given]
    buffers = [_rows(buffer, segments) for buffer in network.buffers()]
    randoms = [first.new_empty(segments, len(first)) for first in random.get()]
    with torch.no_grad():
        for i, (a, b) in enumerate(pairwise(borders)):
            _keep(i, randoms, random.get())
            _keep(i, states, leaves(state))
            _keep(i, buffers, network.buffers())
            _, state = network(sequences.features(a, b), state)
            after_chunk()
    after, buffers_after = random.get(), [buffer.clone() for buffer in network.buffers()]
    total = torch.zeros((), device=sequences.targets.device, dtype=sequences.targets.dtype)
    handed_over: list[Tensor | None] = [None] * len(given)  # of each part of the state; None where it gets none
    for i in reversed(range(segments)):
        a, b = borders[i], borders[i + 1]
        random.set([rows[i].clone() for rows in randoms])  # PyTorch crashes on a view
        _put_back(network, [rows[i] for rows in buffers])
        before = [
            rows[i].detach().requires_grad_(rows.is_floating_point() and (i > 0 or leaf.requires_grad))
            for rows, leaf in zip(states, given, strict=True)
        ]
        y, end = network(sequences.features(a, b), rebuild(form, before))
        loss = sequences.loss(y, a, b) / count
        ends, gradients = _with_gradient(leaves(end), handed_over)
        torch.autograd.backward([loss, *ends], [None, *gradients])
        handed_over = [leaf.grad for leaf in before]
        total += loss.detach()
        after_chunk()
    if any(gradient is not None for gradient in handed_over):
        torch.autograd.backward(*_with_gradient(given, handed_over))
    random.set(after)
    _put_back(network, buffers_after)
    return total, detach(state)


def _is_trained(state: State) -> bool:
    return any(leaf.requires_grad for leaf in leaves(state))


def _rows(tensor: Tensor, count: int) -> Tensor:
    """Room for so many tensors like this one."""
    return tensor.new_empty(count, *tensor.shape)


def _keep(row: int, kept: list[Tensor], tensors: Iterable[Tensor]) -> None:
    for rows, tensor in zip(kept, tensors, strict=True):
        rows[row] = tensor


@torch.no_grad()
def _put_back(network: Network, values: list[Tensor]) -> None:
    """Give the module's buffers the values that they had."""
    for buffer, value in zip(network.buffers(), values, strict=True):
        buffer.copy_(value)


def _with_gradient(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors to backpropagate from, and their gradients: without those that nothing was computed with, and those
    that no parameter took part in."""
    pairs = [(t, g) for t, g in zip(tensors, gradients, strict=True) if t.requires_grad and g is not None]
    return [t for t, _ in pairs], [g for _, g in pairs]


class _RandomState:
    """The generators that a network may draw from: the CPU's, and that of the GPU that it is on."""

    def __init__(self, device: torch.device):
        self.device = device if device.type == "cuda" else None

    def get(self) -> list[Tensor]:
        of_gpu = [torch.cuda.get_rng_state(self.device)] if self.device else []
        return [torch.get_rng_state(), *of_gpu]

    def set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device:
            torch.cuda.set_rng_state(states[1], self.device)


def epoch_loss(losses: Sequence[float], sequences: Sequences) -> float:
    """The mean of a pass's chunk losses, weighted by what each was divided by."""
    weights = [sequences.count(a, b) for a, b in chunk_bounds(sequences.length, len(losses))]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)

"""Truncated backpropagation through time: one pass over whole sequences, chunk by chunk, the state carried on.

Nothing in the loop waits for the host: losses, norms and the finite flag stay on the device until the pass ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tbptt.clipping import clip_gradients
from tbptt.features import LagFeatures
from tbptt.network import QNetwork, State, detach
from tbptt.schedule import chunk_bounds

# What segment_length=auto takes: segments of so many steps, whose activations stay in cache, for chunks of more than so
# many; shorter ones are faster whole.
AUTO_SEGMENT, AUTO_FROM = 500, 2000


class Steps(Protocol):
    """An optimizer, or Lightning's wrapper around one."""

    def step(self) -> Any: ...


@dataclass
class Sequences:
    """A set of sequences on a device, padded at their ends to one length.

    Attributes:
        features: gives the inputs of steps [start, stop), (B, K, W).
        targets: (B, T, 2), standardised; anything finite where padded.
        mask: (B, T) of 0 and 1, or None where nothing is padded.
        steps: valid steps of each sequence, on the host.
    """

    features: LagFeatures
    targets: Tensor
    mask: Tensor | None
    steps: list[int]

    @property
    def batch(self) -> int:
        return self.targets.shape[0]

    @property
    def length(self) -> int:
        return self.targets.shape[1]

    @property
    def valid_steps(self) -> int:
        """Valid steps of all sequences together."""
        return sum(self.steps)

    def valid_in(self, start: int, stop: int) -> int:
        """Valid steps of all sequences within [start, stop)."""
        return sum(min(max(n - start, 0), stop - start) for n in self.steps)

    def to(self, device: torch.device | str) -> "Sequences":
        mask = None if self.mask is None else self.mask.to(device)
        return Sequences(self.features.to(device), self.targets.to(device), mask, self.steps)

    def squared_error(self, predictions: Tensor, start: int, stop: int) -> Tensor:
        """Sum over the valid steps of [start, stop) and both actions; predictions are (B, stop - start, 2)."""
        error = predictions.to(self.targets.dtype) - self.targets[:, start:stop]
        if self.mask is not None:
            error = error * self.mask[:, start:stop, None]
        return error.square().sum()


class FlatParameters:
    """All trained parameters of a module as one vector, and all their gradients as another.

    The module's parameters become views of the vector, so optimizer, clipping and the finite check each touch one
    tensor instead of many. Make it after the module is on its device. Every optimizer here works element by element,
    so the numbers are those of the separate tensors.

    Attributes:
        vector: (P,) nn.Parameter whose ``grad`` is the whole gradient; this is what the optimizer gets.
        grads: one view of ``vector.grad`` a parameter.
    """

    def __init__(self, module: nn.Module):
        parameters = [p for p in module.parameters() if p.requires_grad]
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.vector.grad = torch.zeros_like(self.vector)
        sizes = [p.numel() for p in parameters]
        for p, w in zip(parameters, self.vector.detach().split(sizes), strict=True):
            p.data = w.view_as(p)
        self.grads = [g.view_as(p) for p, g in zip(parameters, self.vector.grad.split(sizes), strict=True)]
        self._parameters = parameters
        self.attach()
        self._before = torch.empty_like(self.vector.detach())
        self._zero = self._before.new_zeros(())

    def attach(self) -> None:
        """Let the module's gradients accumulate in the vector (again: ``module.zero_grad()``, which Lightning calls
        around a validation, takes them away)."""
        for p, g in zip(self._parameters, self.grads, strict=True):
            p.grad = g

    @property
    def grad(self) -> Tensor:
        """(P,) the whole gradient."""
        assert self.vector.grad is not None
        return self.vector.grad

    @torch.no_grad()
    def guarded_step(self, optimizer: Steps, finite: Tensor) -> None:
        """One update; where ``finite`` is False, or becomes False by the update itself, the weights stay as they are.

        Args:
            finite: scalar bool tensor, updated in place.
        """
        weights = self.vector.detach()
        self._before.copy_(weights)
        # A zero gradient instead of a bad one keeps the optimizer's own averages finite too.
        torch.where(finite, self.grad, self._zero, out=self.grad)
        optimizer.step()
        finite.logical_and_(weights.sum().isfinite())
        torch.where(finite, weights, self._before, out=weights)


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

    def to_host(self) -> list[list[float]]:
        """Losses, norms, clipped, finite, in one transfer."""
        return self._table.tolist()


def train_pass(
    network: QNetwork,
    parameters: FlatParameters,
    optimizer: Steps,
    sequences: Sequences,
    chunks: int,
    *,
    clip: float | None = None,
    clip_mode: str = "norm",
    segment_length: int | str | None = "auto",
    between: Callable[[], None] = lambda: None,
) -> PassRecord:
    """Train once on every valid step of every sequence: ``chunks`` updates, state zero at the start, carried and
    detached between chunks.

    Args:
        chunks: how many pieces each sequence is cut into.
        clip, clip_mode: see :func:`tbptt.clipping.clip_gradients`.
        segment_length: in steps; a longer chunk is backpropagated through segment by segment, with the same gradient
            and the activations of one segment in memory; ``auto`` picks it; None: never.
        between: called after each segment and update is under way; may raise to stop.
    """
    bounds = chunk_bounds(sequences.length, chunks)
    device = sequences.targets.device
    record = PassRecord(len(bounds), device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    state = network.zero_state(sequences.batch)
    parameters.attach()
    for i, (start, stop) in enumerate(bounds):
        parameters.grad.zero_()
        segment = _segment(stop - start, segment_length)
        if segment is None:
            loss, state = _backward(network, sequences, start, stop, state)
        else:
            loss, state = _backward_by_segments(network, sequences, start, stop, state, segment, between)
        norm, clipped = clip_gradients(parameters.grad, parameters.grads, clip, clip_mode)
        finite.logical_and_(loss.isfinite() & norm.isfinite())
        parameters.guarded_step(optimizer, finite)
        record.losses[i] = loss
        record.norms[i] = norm
        record.clipped[i] = clipped
        record.finite[i] = finite
        between()
    return record


def _segment(length: int, asked: int | str | None) -> int | None:
    """Into segments of how many steps a chunk is cut; None for not at all."""
    if asked == "auto":
        return AUTO_SEGMENT if length > AUTO_FROM else None
    return int(asked) if asked is not None and length > int(asked) else None


def _backward(network: QNetwork, sequences: Sequences, start: int, stop: int, state: State) -> tuple[Tensor, State]:
    """Add a chunk's gradient; returns its loss and the state after it, both detached."""
    y, state = network(sequences.features(start, stop), state)  # (B, K, 2)
    loss = sequences.squared_error(y, start, stop) / (2 * sequences.valid_in(start, stop))
    loss.backward()
    return loss.detach(), detach(state)


def _backward_by_segments(
    network: QNetwork,
    sequences: Sequences,
    start: int,
    stop: int,
    state: State,
    length: int,
    between: Callable[[], None],
) -> tuple[Tensor, State]:
    """The same as :func:`_backward`, gradient included, holding the activations of one segment only.

    First forward without a graph, keeping the state at each segment's start; then from the last segment to the first:
    forward again, with the same noise, and backward with the gradient of the state that the later segment handed over
    (Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost", along time).
    """
    borders = [*range(start, stop, length), stop]
    count = len(borders) - 1
    random = _RandomState(sequences.targets.device)
    # In one piece each: small tensors that outlive the large ones around them would leave holes in the heap.
    states = [tuple(part.new_empty(count, *part.shape) for part in layer) for layer in state]
    first = random.get()
    randoms = first.new_empty(count, len(first))
    with torch.no_grad():
        for i, (a, b) in enumerate(pairwise(borders)):
            randoms[i] = random.get()
            for layer, kept in zip(state, states, strict=True):
                for part, row in zip(layer, kept, strict=True):
                    row[i] = part
            _, state = network(sequences.features(a, b), state)
            between()
    after = random.get()
    total = torch.zeros((), device=sequences.targets.device, dtype=sequences.targets.dtype)
    handed_over: list[Tensor] = []
    for i in reversed(range(count)):
        a, b = borders[i], borders[i + 1]
        random.set(randoms[i].clone())  # PyTorch crashes on a view
        before = [tuple(row[i].detach().requires_grad_(i > 0) for row in kept) for kept in states]
        y, end = network(sequences.features(a, b), before)
        loss = sequences.squared_error(y, a, b) / (2 * sequences.valid_in(start, stop))
        ends = [part for layer in end for part in layer] if handed_over else []
        torch.autograd.backward([loss, *ends], [None, *handed_over])
        handed_over = [part.grad for layer in before for part in layer if part.grad is not None]
        total += loss.detach()
        between()
    random.set(after)
    return total, detach(state)


class _RandomState:
    """The generator that the noise layers draw from, on the CPU or a GPU."""

    def __init__(self, device: torch.device):
        self.device = device if device.type == "cuda" else None

    def get(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device) if self.device else torch.get_rng_state()

    def set(self, state: Tensor) -> None:
        if self.device:
            torch.cuda.set_rng_state(state, self.device)
        else:
            torch.set_rng_state(state)


@torch.no_grad()
def evaluate(network: QNetwork, sequences: Sequences, chunk_length: int = 500) -> Tensor:
    """Mean squared error over all valid steps and both actions with the weights frozen and the noise off: one pass,
    state zero at the start and carried. A scalar on the device; the network's mode is left as it was.

    ``chunk_length`` changes memory and speed, not the result.
    """
    training = network.training
    network.eval()
    total = torch.zeros((), dtype=torch.float64, device=sequences.targets.device)
    state = network.zero_state(sequences.batch)
    for start in range(0, sequences.length, chunk_length):
        stop = min(start + chunk_length, sequences.length)
        y, state = network(sequences.features(start, stop), state)
        total += sequences.squared_error(y, start, stop)
    network.train(training)
    return total / (2 * sequences.valid_steps)


def mean_loss(sequences: Sequences) -> float:
    """The loss of predicting the training mean, which is zero in standardised units."""
    zeros = torch.zeros_like(sequences.targets)
    return float(sequences.squared_error(zeros.double(), 0, sequences.length)) / (2 * sequences.valid_steps)


def epoch_loss(losses: Sequence[float], sequences: Sequences) -> float:
    """The mean of a pass's chunk losses, weighted by their valid steps."""
    weights = [sequences.valid_in(a, b) for a, b in chunk_bounds(sequences.length, len(losses))]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
